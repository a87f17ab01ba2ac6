"""Dominance between variants of one architecture and machine."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import Accuracy, BatchLatency, Hardware, HardwareKind, Profile, Variant
from infaas_ray.variants.pareto import scores, undominated

HERE = Hardware(kind=HardwareKind.CPU, model="here", cores=2, memory_bytes=1 << 30)


def measured(
    precision: str, accuracy: float, p50_s: float, qps: float, *, threads: int = 1, hardware: Hardware = HERE
) -> tuple[Variant, Profile]:
    variant = Variant(architecture="cnn", runtime="r", precision=precision, threads=threads, artifact="0" * 64)
    profile = Profile(
        variant=variant.name,
        hardware=hardware,
        load_s=1.0,
        latencies=(BatchLatency(batch=1, p50_s=p50_s, p95_s=p50_s, p99_s=p50_s),),
        saturation_qps=qps,
        peak_memory_bytes=1,
        accuracy=Accuracy(value=accuracy, metric="top1_accuracy", rows=10, standard_error=0.1),
    )
    return variant, profile


def test_what_another_beats_in_everything_is_dominated() -> None:
    slow, quick = measured("fp32", 0.9, 0.02, 50), measured("int8", 0.9, 0.01, 100)
    assert undominated([slow, quick]) == {quick[0].name}
    better = measured("fp32", 0.91, 0.02, 50)
    assert undominated([better, quick]) == {better[0].name, quick[0].name}


def test_threads_are_paid_for() -> None:
    one, two = measured("fp32", 0.9, 0.02, 50), measured("fp32", 0.9, 0.011, 90, threads=2)
    assert undominated([one, two]) == {one[0].name, two[0].name}


def test_what_needs_fewer_threads_is_not_dominated_by_what_needs_more() -> None:
    one, two = measured("fp32", 0.9, 0.02, 50), measured("fp32", 0.9, 0.005, 200, threads=2)
    assert undominated([one, two]) == {one[0].name, two[0].name}


def test_other_hardware_and_architectures_do_not_compete() -> None:
    slow, quick = measured("fp32", 0.9, 0.02, 50), measured("int8", 0.9, 0.01, 100)
    there = measured("fp32", 0.9, 0.02, 50, hardware=replace(HERE, model="there"))
    assert undominated([there, quick]) == {there[0].name, quick[0].name}
    other = (replace(slow[0], architecture="mlp"), slow[1])
    assert undominated([other, quick]) == {other[0].name, quick[0].name}


def test_of_equals_one_stays() -> None:
    assert undominated([measured("b", 0.9, 0.01, 50), measured("a", 0.9, 0.01, 50)]) == {"cnn@r-a-cpu-t1-b16"}


@given(st.lists(st.tuples(*(st.sampled_from([0.1, 0.2, 0.3, 0.4]),) * 3), min_size=1, max_size=12))
def test_each_left_out_is_beaten_by_one_that_stays_and_none_that_stays_is(values: list[tuple[float, ...]]) -> None:
    made = [measured(f"p{i}", *x) for i, x in enumerate(values)]
    kept = undominated(made)
    points = {v.name: scores(v, p) for v, p in made}
    for name, mine in points.items():
        beaten = any(
            other in kept and other != name and all(a >= b for a, b in zip(points[other], mine, strict=True))
            for other in points
        )
        assert beaten == (name not in kept)
