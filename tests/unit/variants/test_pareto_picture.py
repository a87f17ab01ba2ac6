"""The picture at the end of a registration, as text and as a file."""

from pathlib import Path

import pytest

from infaas_ray.domain import Accuracy, BatchLatency, Hardware, HardwareKind, Profile, Variant
from infaas_ray.errors import InvalidInput
from infaas_ray.variants.pareto_picture import Row, as_text, draw


def row(precision: str, p50_s: float, accuracy: float, offered: bool) -> Row:
    variant = Variant(architecture="cnn", runtime="torch", precision=precision, artifact="0" * 64)
    profile = Profile(
        variant=variant.name,
        hardware=Hardware(kind=HardwareKind.CPU, model="m", cores=1, memory_bytes=1),
        load_s=1.0,
        latencies=(BatchLatency(batch=1, p50_s=p50_s, p95_s=p50_s, p99_s=p50_s),),
        saturation_qps=1.0,
        peak_memory_bytes=1,
        accuracy=Accuracy(value=accuracy, metric="top1_accuracy", rows=100, standard_error=0.01),
    )
    return variant, profile, offered


ROWS = [row("fp32", 0.1, 0.9, True), row("bf16", 0.1, 0.8, False), row("int8", 0.001, 0.8, True)]


def test_the_quick_are_left_and_the_accurate_above() -> None:
    lines = as_text(ROWS).splitlines()
    top, bottom = lines[1], lines[14]
    assert top.startswith(" 0.900 │")
    assert top.index("●") == 8 + 63
    assert bottom.startswith(" 0.800 │")
    assert (bottom.index("●"), bottom.index("·")) == (8, 8 + 63)
    assert lines[16].split() == ["1", "100", "ms"]


def test_one_variant_alone_and_none() -> None:
    assert as_text([ROWS[0]]).count("●") == 2  # it and the legend
    assert as_text([]) == ""


def test_a_picture_has_a_known_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.png, \.svg, \.pdf"):
        draw(ROWS, tmp_path / "picture.bmp", "cnn")
    with pytest.raises(InvalidInput, match="no folder"):
        draw(ROWS, tmp_path / "nowhere" / "picture.png", "cnn")
