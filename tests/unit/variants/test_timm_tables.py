"""The reader of timm's tables, on a few synthetic rows in their format."""

from pathlib import Path

import pytest

from infaas_ray.domain import AccuracySource, Hardware, HardwareKind, WorkerType
from infaas_ray.errors import InvalidInput
from infaas_ray.variants.timm_tables import Machine, timm_catalog

RESULTS = """model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation
big_net.weights_a,224,85.0,15.0,97.0,3.0,80.0,1.000,bicubic
big_net.weights_b,224,83.0,17.0,96.0,4.0,80.0,1.000,bicubic
small_net.weights,160,70.0,30.0,89.0,11.0,2.00,1.000,bicubic
"""
TABLE = """model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_macts
small_net,160,10000.0,25.6,256,2.00,0.5
big_net,224,1000.0,256.0,256,80.0,30.0
big_net,384,300.0,853.0,256,80.0,90.0
unknown,224,1000.0,256.0,256,1.0,1.0
broken,224,,,,1.0,1.0
"""


def machine(folder: Path, table: str = TABLE) -> Machine:
    path = folder / "benchmark-infer-amp-somewhere.csv"
    path.write_text(table)
    return Machine(
        name="somewhere",
        table=path,
        precision="amp",
        hardware=Hardware(kind=HardwareKind.GPU, model="some GPU", cores=8, memory_bytes=24 << 30),
        worker_type=WorkerType(name="gpu", resources={"GPU": 1, "CPU": 8}, memory_bytes=64 << 30, usd_per_hour=1.0),
    )


def results(folder: Path, content: str = RESULTS) -> Path:
    path = folder / "results-imagenet.csv"
    path.write_text(content)
    return path


def test_rows_of_both_tables_are_joined_by_name_and_size(tmp_path: Path) -> None:
    catalog = timm_catalog(results(tmp_path), [machine(tmp_path)])
    assert set(catalog.architectures) == {"big_net-224", "small_net-160"}
    assert set(catalog.offers) == {f"{x}@timm.somewhere-amp-gpu-t1-b64" for x in ("big_net-224", "small_net-160")}
    big = catalog.offers["big_net-224@timm.somewhere-amp-gpu-t1-b64"].profile
    assert (big.accuracy.value, big.accuracy.source) == (0.85, AccuracySource.DECLARED)
    assert catalog.architectures["big_net-224"].inputs[0].shape == (-1, 3, 224, 224)


def test_the_measured_point_lies_on_the_assumed_line(tmp_path: Path) -> None:
    offer = timm_catalog(results(tmp_path), [machine(tmp_path)]).offers["big_net-224@timm.somewhere-amp-gpu-t1-b64"]
    profile = offer.profile
    assert [x.batch for x in profile.latencies] == [1, 2, 4, 8, 16, 32, 64]
    assert profile.median_s(256) == pytest.approx(0.256)
    assert profile.median_s(1) == pytest.approx(0.005 + 0.251 / 256)
    assert profile.saturation_qps == pytest.approx(64 / profile.median_s(64))
    assert profile.peak_device_memory_bytes == (1 << 29) + 80_000_000 * 4 + 30_000_000 * 4 * 64
    assert offer.usd_per_1k == pytest.approx(1 / 3600 / profile.saturation_qps * 1000)


def test_a_fixed_cost_never_takes_more_than_half_of_the_point(tmp_path: Path) -> None:
    catalog = timm_catalog(results(tmp_path), [machine(tmp_path, TABLE.replace("10000.0", "100000.0"))])
    small = catalog.offers["small_net-160@timm.somewhere-amp-gpu-t1-b64"].profile
    assert small.latencies[0].p50_s == pytest.approx(0.00128 + 0.00128 / 256)


def test_what_is_no_such_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no column 'img_size'"):
        timm_catalog(results(tmp_path, "model,top1\nx,1\n"), [])
    with pytest.raises(InvalidInput, match="cannot read"):
        timm_catalog(tmp_path / "absent.csv", [])
