"""What a running system writes down of its costs."""

from pathlib import Path

import pytest

from infaas_ray.domain import WorkerType
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.serving.accounts import Accounts
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import read_shares, read_usage
from tests.unit.policy.builders import catalog, offer, ready, traffic, v, worker

TEST = WorkerType(name="test", resources={"CPU": 4.0}, memory_bytes=8 * 2**30, usd_per_hour=3.6)


def test_every_minute_all_that_was_spent_and_served_is_written_once(tmp_path: Path) -> None:
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    accounts, autoscaler = Accounts(metadata, 0.0), Autoscaler(ScalingSettings(strategy="static", keep_warm={"a": 1}))
    found = catalog(offer("a"))
    autoscaler.step([CatalogChanged(catalog=found), worker()], 0.0)
    autoscaler.step([ready(f"{v('a')}#1")], 0.0)
    for second in range(121):
        events = [traffic({v("a"): 10}, applications={"shop": {v("a"): 4}})]
        autoscaler.step(events, float(second))
        spent = accounts.turn(events, autoscaler, {"test": TEST}, float(second))
        if spent is not None:
            accounts.write(spent, found)
    accounts.write(accounts.rest(), found)
    usage, peaks = read_usage(metadata)
    shares = read_shares(metadata)
    metadata.close()
    assert sum(x.usd for x in usage) == pytest.approx(120 * 3.6 / 3600)
    assert {x.use_case for x in usage if x.variant == v("a")} == {"classification:digits"}
    assert sum(x.rows for x in usage) == 1210
    assert {x.application for x in shares} == {"shop"}
    assert sum(x.rows for x in shares) == 484
    assert {x.use_case for x in shares} == {"classification:digits"}
    assert peaks[0].peak_qps == pytest.approx(10, rel=0.05)
