"""Several routers in front of one replica, over real sockets in one process: no replica is overrun, none starves."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infaas_ray.domain import (
    SLO,
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    Query,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.errors import DeadlineExceeded, InfaasError, ReplicaLost, Unavailable
from infaas_ray.policy.routing import Catalog, Offer, ReadyReplica, RoutingTable
from infaas_ray.serving.channel import Reply
from infaas_ray.serving.listener import Incoming, Server
from infaas_ray.serving.replica import Replica, Result
from infaas_ray.serving.router import Router

SECRET = b"s" * 32
ROW_S = 0.005
X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
ARCHITECTURE = Architecture(name="a", use_case=UseCase(task="t", dataset="d"), inputs=(X,), outputs=(X,))
VARIANT = Variant(architecture="a", runtime="fake", precision="fp32", batch_limit=4, artifact="0" * 64)
PROFILE = Profile(
    variant=VARIANT.name,
    hardware=Hardware(kind=HardwareKind.CPU, model="test", cores=1, memory_bytes=1),
    load_s=0.0,
    latencies=tuple(BatchLatency(batch=b, p50_s=b * ROW_S, p95_s=b * ROW_S, p99_s=b * ROW_S * 1.2) for b in (1, 4)),
    saturation_qps=1 / ROW_S,
    peak_memory_bytes=1,
    accuracy=Accuracy(value=0.5, metric="top1_accuracy", rows=1, standard_error=0.5),
)


class Sleepy:
    slower = 1.0

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(ROW_S * len(inputs["x"]) * self.slower)
        return {"x": inputs["x"] * 2}

    def close(self) -> None:
        pass


def fields(result: Result) -> dict[str, float]:
    return {name: getattr(result, name) for name in ("queue_s", "compute_s", "batch_rows", "queued_rows")}


class Bench:
    """A replica on a socket, and routers that know it."""

    def __init__(self) -> None:
        self.model = Sleepy()
        self.replica = Replica(self.model, VARIANT, ARCHITECTURE, PROFILE, ThreadPoolExecutor(1))
        self.server = Server(self._on_call, SECRET)
        self.made: list[Router] = []
        self.most_queued = 0
        self.order: list[bool] = []

    def _on_call(self, call: Incoming) -> None:
        def done(result: Result | InfaasError) -> None:
            if isinstance(result, Result):
                self.order.append(bool(call.fields["offline"]))
                call.reply(fields(result), result.outputs)
            else:
                call.fail(result)

        f = call.fields
        number = self.replica.submit(call.arrays, f["rows"], f["remaining_s"], done, f["offline"])
        call.on_taken_back(lambda: self.replica.cancel(number))
        self.most_queued = max(self.most_queued, self.replica.queued_rows)

    def routers(self, address: str, count: int) -> list[Router]:
        offer = Offer(variant=VARIANT, profile=PROFILE, usd_per_1k=1.0)
        catalog = Catalog(revision=1, architectures={"a": ARCHITECTURE}, offers={VARIANT.name: offer})
        replicas = tuple(
            ReadyReplica(id=f"a#{n}", variant=VARIANT.name, worker="w", address=at)
            for n, at in enumerate(address.split(";"), 1)
        )
        table = RoutingTable(version=1, catalog=catalog, replicas=replicas)
        made = [Router(f"r{n}", SECRET, lambda variant, within: None, gone) for n in range(count)]
        for router in made:
            router.update(table)
        self.made += made
        return made

    async def close(self) -> None:
        for router in self.made:
            await router.close()
        await self.replica.close()
        await self.server.close()


async def gone(replica: ReadyReplica, query: Query, remaining_s: float | None) -> Reply:
    raise ReplicaLost("there is no other way")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


def query(**slo: object) -> Query:
    return Query(id="q", target="a", slo=SLO(**slo), inputs={"x": np.ones((1, 2), np.float32)}, rows=1)  # type: ignore[arg-type]


async def ask(router: Router, one: Query, fates: Counter[str]) -> None:
    try:
        answer = await router.query(one)
        fates["on time" if answer.slo_met else "late"] += 1
    except InfaasError as error:
        fates[type(error).__name__] += 1


async def test_routers_that_share_a_replica_do_not_overrun_it(bench: Bench, tmp_path: Path) -> None:
    routers = bench.routers(await bench.server.listen(f"unix:{tmp_path / 's'}"), 4)
    bound_s, fates = 0.15, Counter[str]()
    tasks = []
    for n in range(1200):  # three times what the replica can answer
        tasks.append(asyncio.create_task(ask(routers[n % 4], query(latency_s=bound_s), fates)))
        await asyncio.sleep(ROW_S / 3)
    await asyncio.gather(*tasks)
    assert sum(fates.values()) == 1200
    # Each alone would fill the bound four times over; what they learn from answers keeps the queue near one bound.
    assert bench.most_queued < 2.5 * bound_s / ROW_S
    assert fates["on time"] > 0
    assert fates["Unavailable"] > fates["DeadlineExceeded"]
    counted = sum((Counter(router.status()) for router in routers), Counter[str]())
    assert counted["accepted"] == 1200
    assert counted["answered"] == fates["on time"] + fates["late"]
    assert counted["rejected"] == fates["Unavailable"]
    assert counted["expired"] == fates["DeadlineExceeded"]


async def test_online_queries_overtake_offline_ones(bench: Bench, tmp_path: Path) -> None:
    (router,) = bench.routers(await bench.server.listen(f"unix:{tmp_path / 's'}"), 1)
    fates = Counter[str]()
    offline = [asyncio.create_task(ask(router, query(offline=True), fates)) for _ in range(40)]
    await asyncio.sleep(4 * ROW_S)
    online = [asyncio.create_task(ask(router, query(latency_s=0.5), fates)) for _ in range(8)]
    await asyncio.gather(*online, *offline)
    assert fates == {"on time": 48}
    last_online = max(n for n, was_offline in enumerate(bench.order) if not was_offline)
    assert last_online < 30


async def test_a_replica_that_goes_away_leaves_its_queries_to_their_fate(bench: Bench, tmp_path: Path) -> None:
    (router,) = bench.routers(await bench.server.listen(f"unix:{tmp_path / 's'}"), 1)
    asked = [asyncio.create_task(router.query(query(latency_s=1.0))) for _ in range(20)]
    await asyncio.sleep(3 * ROW_S)
    await bench.server.close()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert len(outcomes) == 20
    lost = [x for x in outcomes if isinstance(x, BaseException)]
    assert lost
    assert all(isinstance(x, Unavailable | DeadlineExceeded) for x in lost)
    counts = router.status()
    assert counts["accepted"] == 20 == counts["answered"] + counts["rejected"] + counts["expired"]


async def test_a_replica_whose_connection_was_lost_is_found_again(bench: Bench, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    (router,) = bench.routers(await bench.server.listen(address), 1)
    assert (await router.query(query())).replica == "a#1"
    await bench.server.close()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await asyncio.wait_for(router.query(query(latency_s=0.2)), 10)
    bench.server = Server(bench._on_call, SECRET)
    (tmp_path / "s").unlink(missing_ok=True)
    await bench.server.listen(address)
    router.traffic()  # also the time to look after what was lost
    await asyncio.wait(router._probes, timeout=10)
    assert (await router.query(query())).replica == "a#1"


async def test_an_interfered_replica_is_avoided_and_let_back_in(bench: Bench, tmp_path: Path) -> None:
    other = Bench()
    both = [await x.server.listen(f"unix:{tmp_path / str(n)}") for n, x in enumerate((bench, other))]
    (router,) = bench.routers(";".join(both), 1)
    bench.model.slower = 6.0
    await asyncio.gather(*(router.query(query()) for _ in range(40)))  # so many at once that both have some
    assert router.conditions() == {"a#1": "interfered"}
    assert {(await router.query(query())).replica for _ in range(10)} == {"a#2"}
    bench.model.slower = 1.0
    for _ in range(60):  # half a minute of idle reports: by and by it is forgotten, and the replica tried again
        router.traffic()
    used = [x.replica for x in await asyncio.gather(*(router.query(query()) for _ in range(40)))]
    assert set(used) == {"a#1", "a#2"}
    assert router.conditions() == {}
    await router.close()
    await other.close()


async def test_a_client_that_goes_away_is_counted_and_its_load_is_not(bench: Bench, tmp_path: Path) -> None:
    (router,) = bench.routers(await bench.server.listen(f"unix:{tmp_path / 's'}"), 1)
    await router.query(query())
    gone = [asyncio.create_task(router.query(query())) for _ in range(9)]
    await asyncio.sleep(ROW_S)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    counts = router.status()
    assert counts["cancelled"] > 0
    assert counts["accepted"] == 10 == counts["answered"] + counts["cancelled"]
    assert (await router.query(query(latency_s=1.0))).slo_met
    assert bench.replica.counts["cancelled"] > 0, "what waited there was computed for nobody"


async def test_a_replica_that_no_channel_reaches_is_asked_through_ray(bench: Bench, tmp_path: Path) -> None:
    asked: list[str] = []

    async def by_ray(replica: ReadyReplica, query: Query, remaining_s: float | None) -> Reply:
        asked.append(replica.id)
        numbers = {"queue_s": 0.0, "compute_s": ROW_S, "batch_rows": 1, "queued_rows": 0}
        return Reply(numbers, {"x": query.inputs["x"] * 2})

    router = bench.routers(f"unix:{tmp_path / 'nothing'}", 1)[0]
    router._fallback = by_ray
    for _ in range(3):
        assert (await router.query(query())).replica == "a#1"
    assert asked == ["a#1"] * 3


async def test_rows_are_reported_by_application_and_variant(bench: Bench, tmp_path: Path) -> None:
    (router,) = bench.routers(await bench.server.listen(f"unix:{tmp_path / 's'}"), 1)
    for whose in ("shop", "blog", "shop", ""):
        await router.query(msgspec.structs.replace(query(), application=whose))
    report = router.traffic()
    assert report.applications == {"shop": {VARIANT.name: 2}, "blog": {VARIANT.name: 1}}
    assert sum(report.served.values()) == 4
    assert router.traffic().applications == {}
