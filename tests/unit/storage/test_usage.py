"""Usage by hour, added up over writers."""

from pathlib import Path

import pytest

from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import Peak, Share, Usage, read_shares, read_usage, record_usage


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")


def usage(hour: str = "2026-11-25T10", *, usd: float = 1.0, rows: int = 10, variant: str = "v") -> Usage:
    return Usage(hour=hour, use_case="task:data", variant=variant, worker_type="cpu", usd=usd, rows=rows)


def test_what_is_recorded_adds_up(metadata: Metadata) -> None:
    for _ in range(3):
        record_usage(metadata, [usage(), usage(variant="w", usd=0.5)], [])
    found, _ = read_usage(metadata)
    assert {(x.variant, x.usd, x.rows) for x in found} == {("v", 3.0, 30), ("w", 1.5, 30)}


def test_peaks_keep_the_highest_and_seconds_add_up(metadata: Metadata) -> None:
    for peak in (5.0, 9.0, 7.0):
        record_usage(metadata, [], [Peak(hour="2026-11-25T10", use_case="task:data", peak_qps=peak, seconds=60.0)])
    assert read_usage(metadata)[1] == [Peak(hour="2026-11-25T10", use_case="task:data", peak_qps=9.0, seconds=180.0)]


def test_hours_are_in_order_and_can_be_cut(metadata: Metadata) -> None:
    record_usage(metadata, [usage("2026-11-25T11"), usage("2026-11-25T09"), usage("2026-11-25T10")], [])
    assert [x.hour for x in read_usage(metadata, since="2026-11-25T10")[0]] == ["2026-11-25T10", "2026-11-25T11"]


def test_rows_of_an_application_add_up(metadata: Metadata) -> None:
    of = {"hour": "2026-11-25T10", "use_case": "task:data", "variant": "v"}
    for rows in (3, 4):
        shares = [Share(application="shop", rows=rows, **of), Share(application="blog", rows=1, **of)]
        record_usage(metadata, [], [], shares)
    assert {(x.application, x.rows) for x in read_shares(metadata)} == {("shop", 7), ("blog", 2)}
    assert read_shares(metadata, since="2026-11-25T11") == []


def test_recording_is_no_change_of_the_catalogue(metadata: Metadata) -> None:
    before = metadata.revision()
    record_usage(metadata, [usage()], [])
    assert metadata.revision() == before
