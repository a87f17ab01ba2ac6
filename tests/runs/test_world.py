"""The world around the live policies: what is computed by hand, what is conserved, what repeats."""

import dataclasses
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infaas_ray.domain import SLO, HardwareKind, OnMiss
from infaas_ray.errors import ConfigError, InvalidInput, UnknownTarget
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.messages import (
    PlanMade,
    ReleaseWorker,
    RequestWorkers,
    SolvePlan,
    StartReplica,
)
from infaas_ray.policy.planner.problem import Plan, PlanProblem, PlanType
from infaas_ray.policy.replay import decode_turn, replay
from infaas_ray.simulator.report import result_of
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workload import QueryKind
from infaas_ray.simulator.world import World
from tests.unit.policy.builders import offer
from tests.unit.simulator.worlds import CALM, Given, catalog_with, worker_type, world

PIN = ScalingSettings(strategy="static", keep_warm={"net": 1}, start_overhead_s=0.0)
STEADY = {"p99_ms": ((1, 100.0), (4, 250.0)), "median": 1.0, "rate_qps": 16.0, "batch_limit": 4}


class Recorder:
    """Takes down when each query was answered."""

    def __init__(self, made: World) -> None:
        self.found: list[tuple[float, float]] = []
        self._engine, self._answered = made.engine, made.meter.answered
        made.meter.answered = self._note  # type: ignore[method-assign]

    def _note(self, flight, latency_s, queue_s, compute_s, accuracy):  # type: ignore[no-untyped-def]
        self.found.append((flight.arrived_s, round(self._engine.now, 9)))
        return self._answered(flight, latency_s, queue_s, compute_s, accuracy)


def tally(made: World) -> tuple[int, int, int, int, int]:
    found = result_of(made, "x", 0)
    return found.arrived, found.answered, found.met, found.refused, found.expired


def test_a_batch_queue_by_hand() -> None:
    # 1 row takes 100 ms, 2 take 150, 4 take 250. The first runs alone, 2 and 3 together, then 4 to 7, then 8.
    arrivals = [(10.0, 0), (10.02, 0), (10.05, 0), (10.11, 0), (10.12, 0), (10.13, 0), (10.2, 0), (10.24, 0)]
    made = world(
        offer("net", **STEADY),
        workload=Given((QueryKind("net", SLO()),), arrivals),
        scaling=PIN,
        duration_s=20.0,
    )
    recorder = Recorder(made)
    made.run()
    ends = [10.1, 10.25, 10.25, 10.5, 10.5, 10.5, 10.5, 10.6]
    assert recorder.found == [(at, end) for (at, _), end in zip(arrivals, ends, strict=True)]


def test_interference_by_hand() -> None:
    # Two replicas of one thread on one processor: both at half speed until the first is done.
    two = ScalingSettings(strategy="static", keep_warm={"net": 2}, start_overhead_s=0.0)
    made = world(
        offer("net", **STEADY),
        workload=Given((QueryKind("net", SLO()),), [(10.0, 0), (10.05, 0)]),
        types=[worker_type(resources={"CPU": 1.0}, max_workers=1)],
        scaling=two,
        duration_s=20.0,
    )
    recorder = Recorder(made)
    made.run()
    assert recorder.found == [(10.0, 10.15), (10.05, 10.2)]


def test_the_work_of_the_way_slows_batches_and_is_slowed_by_them() -> None:
    # On one processor a way of 20 ms, then 100 ms of computing. The second way and the first batch share from 10.04 to
    # 10.08, so the batch is done 20 ms late.
    made = world(
        offer("net", **STEADY),
        workload=Given((QueryKind("net", SLO()),), [(10.0, 0), (10.04, 0)]),
        types=[worker_type(resources={"CPU": 1.0}, max_workers=1)],
        scaling=PIN,
        settings=dataclasses.replace(CALM, way_s=0.02, way_loop_s=0.02),
        duration_s=20.0,
    )
    recorder = Recorder(made)
    made.run()
    assert recorder.found == [(10.0, 10.14), (10.04, 10.24)]
    with pytest.raises(ConfigError, match="parts of way_s"):
        dataclasses.replace(CALM, way_loop_s=0.02)


def test_the_other_work_of_ways_is_done_side_by_side() -> None:
    # 20 ms of work and 100 ms of computing, on two processors: two ways at once take no longer than one, three do.
    made = world(
        offer("net", **STEADY),
        workload=Given((QueryKind("net", SLO()),), [(10.0, 0), (10.0, 0), (12.0, 0), (12.0, 0), (12.0, 0)]),
        types=[worker_type(resources={"CPU": 2.0}, max_workers=1)],
        scaling=PIN,
        settings=dataclasses.replace(CALM, way_s=0.02, way_work_s=0.02),
        duration_s=20.0,
    )
    reached: list[float] = []
    deliver = made._deliver
    made._ways._deliver = lambda it: (reached.append(round(made.engine.now, 6)), deliver(it))[1]
    made.run()
    assert reached == [10.02, 10.02, 12.03, 12.03, 12.03]


def test_ways_are_drawn_through_their_quantiles() -> None:
    made = world(
        offer("net", **STEADY),
        workload=Given((QueryKind("net", SLO()),), [(10.0, 0), (12.0, 0)]),
        scaling=PIN,
        settings=dataclasses.replace(CALM, way_s=0.02, way_p95_s=0.02, way_p99_s=0.02),
        duration_s=20.0,
    )
    recorder = Recorder(made)
    made.run()
    assert recorder.found == [(10.0, 10.12), (12.0, 12.12)]
    for wrong in ({"way_p95_s": 0.1}, {"way_p95_s": 0.1, "way_p99_s": 0.05}):
        with pytest.raises(ConfigError, match="belong together"):
            dataclasses.replace(CALM, way_s=0.02, **wrong)


def test_neighbours_on_one_gpu_slow_each_other_and_those_on_two_do_not() -> None:
    def latencies(gpus: float) -> list[float]:
        small = [
            dataclasses.replace(x, profile=dataclasses.replace(x.profile, peak_device_memory_bytes=2**30))
            for x in (offer(name, hardware=HardwareKind.GPU, **STEADY) for name in ("net", "other"))
        ]
        memory = int(gpus and 2**31 / gpus)
        made = world(
            *small,
            workload=Given((QueryKind("net", SLO()), QueryKind("other", SLO())), [(10.0, 0), (10.0, 1)]),
            types=[worker_type(resources={"CPU": 4.0, "GPU": gpus}, device_memory_bytes=memory)],
            scaling=ScalingSettings(strategy="static", keep_warm={"net": 1, "other": 1}, start_overhead_s=0.0),
            duration_s=20.0,
        )
        recorder = Recorder(made)
        made.run()
        return [end for _, end in recorder.found]

    assert latencies(1.0) == [10.2, 10.2]
    assert latencies(2.0) == [10.1, 10.1]


def test_late_expired_and_refused_queries_are_counted_as_missed() -> None:
    bound, late = SLO(latency_s=0.3), SLO(latency_s=0.1, on_miss=OnMiss.LATE)
    kinds = (QueryKind("net", bound, 4), QueryKind("net", late, 4), QueryKind("net", SLO(latency_s=0.01)))
    made = world(
        offer("net", **STEADY),
        workload=Given(kinds, [(10.0, 0), (10.01, 0), (15.0, 1), (17.0, 2)]),
        scaling=PIN,
        duration_s=20.0,
    )
    made.run()
    found = result_of(made, "x", 0)
    assert (found.arrived, found.met, found.late, found.dropped) == (4, 1, 1, 2)
    assert found.slo_attainment == 0.25
    assert found.effective_accuracy == pytest.approx(0.25 * 0.9)
    assert [x.met for x in found.kinds] == [1, 0, 0]
    assert sum(found.series.arrived) == 4
    assert sum(found.series.met) == 1


def test_money_is_paid_from_the_launch_to_the_end_and_at_least_for_a_while() -> None:
    spare = worker_type("spare", resources={"CPU": 8.0}, usd_per_hour=7.2, min_workers=0, boot_s=10.0)
    made = world(offer("net", **STEADY), scaling=PIN, duration_s=100.0, types=[worker_type(), spare])
    made.engine.at(20.0, lambda _: made.provider.have({"spare": 1}, lambda name: False))
    made.engine.at(50.0, lambda _: made.provider.release("spare-2"))
    found = made.run()
    hours = found.machines.hours()
    assert hours == pytest.approx({"cpu": 100 / 3600, "spare": 60 / 3600})
    result = result_of(made, "x", 0)
    assert result.usd == pytest.approx(0.1 + 0.12)
    assert sum(result.series.usd_per_hour) * result.series.bin_s / 3600 == pytest.approx(0.1 + 0.06)


def test_a_launch_that_is_taken_back_joins_never() -> None:
    made = world(offer("net", **STEADY), scaling=PIN, duration_s=100.0)
    made.engine.at(20.0, lambda _: made.provider.have({"cpu": 3}, lambda name: False))
    made.engine.at(25.0, lambda _: made.provider.have({"cpu": 2}, lambda name: False))
    made.run()
    assert sorted(made.autoscaler.fleet.workers) == ["cpu-1", "cpu-2"]


def test_what_the_provider_does_not_have_fails() -> None:
    limits = dataclasses.replace(CALM, most_workers={"cpu": 1})
    made = world(offer("net", **STEADY), scaling=PIN, duration_s=30.0, settings=limits)
    made.engine.at(9.0, lambda _: made.autoscaler.fleet.machines.want("cpu", 1, 9.0))
    made.engine.at(10.0, lambda _: made.provider.have({"cpu": 2}, lambda name: False))
    made.run()
    assert made.autoscaler.fleet.machines.blocks.reason("cpu", 30.0) is not None


def test_plans_take_their_time_and_fail_in_words() -> None:
    problem = PlanProblem(
        types=(PlanType(name="cpu", resources={"CPU": 1.0}, usd_per_hour=1.0),), variants=(), classes=()
    )
    calm = dataclasses.replace(CALM, solve_s=2.0, solve_s_per_variable=1.0)

    def told(solve) -> PlanMade:  # type: ignore[no-untyped-def]
        made = world(offer("net"), duration_s=20.0, scaling=PIN, settings=calm, solve=solve)
        seen: list[PlanMade] = []
        tell = made.control.tell
        made.control.tell = lambda x: seen.append((made.engine.now, x)) or tell(x)  # type: ignore
        made.engine.at(5.0, made._perform, SolvePlan(number=7, problem=problem, because=""))
        made.run()
        [(at, found)] = [(at, x) for at, x in seen if isinstance(x, PlanMade)]
        assert (at, found.number, found.took_s) == (8.0, 7, 3.0)
        return found

    def fails(problem: PlanProblem) -> Plan:
        raise InvalidInput("no plan exists")

    assert told(lambda x: Plan(workers={x.types[0].name: 1})).plan == Plan(workers={"cpu": 1})
    assert (told(fails).plan, told(fails).reason) == (None, "no plan exists")
    assert "no solver" in told(None).reason


def test_wrong_runs_are_refused() -> None:
    with pytest.raises(UnknownTarget):
        world(offer("net"), workload=Given((QueryKind("nett", SLO()),), []))
    with pytest.raises(InvalidInput, match="cannot begin to count"):
        world(offer("net"), duration_s=10.0, warmup_s=10.0)
    with pytest.raises(InvalidInput, match="back in time"):
        world(offer("net"), workload=Given((QueryKind("net", SLO()),), [(2.0, 0), (1.0, 0)])).run()


# ---- properties ---------------------------------------------------------------------------------------------------

TROUBLE = st.builds(
    lambda way, **more: WorldSettings(way_s=way[0], way_loop_s=way[1], way_work_s=way[2], **more),
    way=st.sampled_from([(0.0, 0.0, 0.0), (0.002, 0.0, 0.001), (0.002, 0.001, 0.0005)]),
    routers=st.sampled_from([1, 3]),
    start_failures=st.sampled_from([0.0, 0.3]),
    launch_failures=st.sampled_from([0.0, 0.5]),
    replica_crashes_per_hour=st.sampled_from([0.0, 500.0]),
    worker_crashes_per_hour=st.sampled_from([0.0, 300.0]),
    interruptions_per_hour=st.sampled_from([0.0, 300.0]),
    notice_s=st.just(3.0),
)
KINDS = (
    QueryKind("classification:digits", SLO(latency_s=0.2)),
    QueryKind("a", SLO(latency_s=0.05, on_miss=OnMiss.LATE), 2),
    QueryKind("b", SLO(latency_s=0.5, min_accuracy=0.95, on_miss=OnMiss.DEGRADE)),
    QueryKind("b", SLO(offline=True), 3),
)


class Growing(World):
    """A world in which somebody asks for machines and gives some back, as a strategy of machines does."""

    def fiddle(self) -> None:
        for at, count in ((3.0, 4), (9.0, 2), (15.0, 3)):
            self.engine.at(at, lambda count: self._perform(RequestWorkers(counts={"cpu": count}, because="")), count)
        self.engine.at(11.0, lambda _: self._perform(ReleaseWorker(worker="cpu-1", because="")))


def troubled(trouble: WorldSettings, seed: int, log: list[bytes]) -> Growing:
    arrivals = [(0.01 * i, i * 7 % 4) for i in range(2000)]
    made = Growing(
        catalog_with(
            offer("a", usd=0.01, rate_qps=80),
            offer("b", usd=0.02, accuracy=0.97),
            types=[worker_type(spot=True, boot_s=2.0)],
        ),
        Given(KINDS, arrivals),
        ScalingSettings(strategy="individual", start_overhead_s=0.0, keep_warm={"a": 1}),
        duration_s=20.0,
        settings=trouble,
        seed=seed,
        log=log.append,
    )
    made.fiddle()
    return made


@settings(max_examples=12, deadline=None)
@given(TROUBLE, st.integers(0, 5))
def test_no_query_vanishes_whatever_breaks(trouble: WorldSettings, seed: int) -> None:
    log: list[bytes] = []
    made = troubled(trouble, seed, log)
    meter = made.run()
    for found in meter.tallies:
        assert found.arrived == found.answered + found.refused + found.expired
        assert found.met <= found.answered - found.late + found.degraded
    assert sum(x.arrived for x in meter.tallies) == made.arrived == meter.left == 2000
    held = [load for router in made._routers for load in router.view.loads.values()]
    assert all(load.rows_in_flight == load.rows_offline == 0 for load in held)
    assert replay(log) is None


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    trouble = WorldSettings(replica_crashes_per_hour=300.0, interruptions_per_hour=100.0, start_failures=0.1)
    logs: list[list[bytes]] = [[], [], []]
    results = []
    for log, seed in zip(logs, (1, 1, 2), strict=True):
        made = troubled(trouble, seed, log)
        made.run()
        results.append(msgspec.json.encode(result_of(made, "x", 0)))
    assert logs[0] == logs[1] != logs[2]
    assert results[0] == results[1] != results[2]


def test_the_autoscaler_starts_replicas_for_the_traffic() -> None:
    log: list[bytes] = []
    made = world(offer("net", rate_qps=100.0), rate_qps=150.0, duration_s=30.0, log=log.append)
    meter = made.run()
    starts = [x for line in log[1:] for x in decode_turn(line).actions if isinstance(x, StartReplica)]
    assert len(starts) == meter.counts["starts"] >= 2
    assert result_of(made, "x", 0).slo_attainment > 0.9


def test_a_counted_time_leaves_out_what_is_before_it() -> None:
    made = world(offer("net", **STEADY), scaling=PIN, duration_s=30.0, warmup_s=20.0, rate_qps=4.0, bins=10)
    meter = made.run()
    found = result_of(made, "x", 0)
    assert found.counted_s == 10.0
    assert 0 < found.arrived == sum(meter.arrived_in) < made.arrived == meter.left
    assert found.machine_hours["cpu"] == pytest.approx(10 / 3600)


def test_waits_are_those_of_the_same_queue_computed_query_by_query() -> None:
    arrivals = [10.0 + 0.12 * i - 0.1 * (i % 3) for i in range(400)]
    one = {"p99_ms": ((1, 100.0),), "median": 1.0, "rate_qps": 10.0, "batch_limit": 1}
    made = world(
        offer("net", **one),
        workload=Given((QueryKind("net", SLO()),), [(x, 0) for x in arrivals]),
        scaling=PIN,
        duration_s=100.0,
    )
    meter = made.run()
    waits, wait = [0.0], 0.0
    for before, after in itertools.pairwise(arrivals):
        wait = max(0.0, wait + 0.1 - (after - before))  # Lindley's recursion
        waits.append(wait)
    assert meter.queue_s == pytest.approx(sum(waits))
    assert meter.latency.mean_s == pytest.approx(0.1 + sum(waits) / len(waits))
