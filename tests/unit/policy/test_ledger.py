"""Every second of every machine is on an account."""

import pytest

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fixed_cost import fixed_fleet
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.ledger import BOOTING, IDLE, Ledger
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.traffic import Traffic
from tests.unit.policy.builders import catalog, offer, traffic, v, worker

TEST = WorkerType(name="test", resources={"CPU": 4.0}, memory_bytes=8 * 2**30, usd_per_hour=3.6)


def fleet_of(*architectures: str, workers: int = 1) -> Fleet:
    made = Fleet(oversubscription=1.0)
    offers = [offer(x) for x in ("a", "b")]
    base = catalog(*offers)
    full = Catalog(revision=1, architectures=base.architectures, offers=base.offers, worker_types={"test": TEST})
    made.apply(CatalogChanged(catalog=full), 0.0)
    for number in range(workers):
        made.apply(worker(f"w{number}"), 0.0)
    for name in architectures:
        made.request_start(v(name), "w0", 0.0)
    return made


def spend(fleet: Fleet, seconds: float, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger or Ledger()
    ledger.advance(fleet, Traffic(3.0), {"test": TEST}, 0.0)
    ledger.advance(fleet, Traffic(3.0), {"test": TEST}, seconds)
    return ledger


def test_replicas_pay_for_their_share_and_idleness_for_the_rest() -> None:
    found = spend(fleet_of("a", "a", "b"), 100.0).take()
    assert found.usd == {
        ("test", v("a")): pytest.approx(0.05),
        ("test", v("b")): pytest.approx(0.025),
        ("test", IDLE): pytest.approx(0.025),
    }
    assert found.seconds == 100.0


def test_all_of_the_price_is_on_accounts() -> None:
    found = spend(fleet_of("a", "b", workers=3), 50.0).take()
    assert sum(found.usd.values()) == pytest.approx(3 * 3.6 * 50 / 3600)


def test_a_machine_that_boots_is_paid_too() -> None:
    fleet = fleet_of()
    fleet.request_workers({"test": 3}, 0.0)
    assert spend(fleet, 10.0).take().usd["test", BOOTING] == pytest.approx(2 * 3.6 * 10 / 3600)


def test_an_account_is_given_once() -> None:
    ledger = spend(fleet_of("a"), 10.0)
    ledger.take()
    assert ledger.take().usd == {}


def test_rows_and_peaks() -> None:
    fleet, seen, ledger = fleet_of("a"), Traffic(1.0), Ledger()
    ledger.advance(fleet, seen, {"test": TEST}, 0.0)
    for second in range(1, 30):
        report = traffic({v("a"): 50})
        seen.report(report, float(second))
        ledger.count(report)
        ledger.advance(fleet, seen, {"test": TEST}, float(second))
    found = ledger.take()
    assert found.rows[v("a")] == 29 * 50
    assert found.peak_qps["classification:digits"] == pytest.approx(50, rel=0.01)


def test_the_fixed_fleet_is_the_most_accurate_variant_for_the_peak() -> None:
    cheap, good = offer("a", accuracy=0.8, rate_qps=1000), offer("b", accuracy=0.9, rate_qps=100, threads=2)
    dear = WorkerType(name="dear", resources={"CPU": 4.0}, memory_bytes=8 * 2**30, usd_per_hour=9.0)
    found = fixed_fleet([cheap, good], {"test": TEST, "dear": dear}, peak_qps=500.0, seconds=7200.0)
    assert found is not None
    assert (found.variant, found.worker_type, found.replicas, found.machines) == (good.name, "test", 6, 3)
    assert found.usd == pytest.approx(3 * 3.6 * 2)


def test_no_fixed_fleet_where_nothing_runs_it() -> None:
    gpu = WorkerType(name="gpu", resources={"GPU": 1.0}, memory_bytes=2**34, usd_per_hour=1.0)
    assert fixed_fleet([offer()], {"gpu": gpu}, peak_qps=1.0, seconds=1.0) is None
    assert fixed_fleet([], {"test": TEST}, peak_qps=1.0, seconds=1.0) is None
