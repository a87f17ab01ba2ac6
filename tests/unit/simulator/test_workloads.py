"""Kinds of query and their popularity; several workloads at once."""

from collections import Counter

import numpy as np
import pytest

from infaas_ray.domain import SLO
from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.rates import Flat
from infaas_ray.simulator.workload import Chunk, QueryKind, Workload
from infaas_ray.simulator.workloads import (
    Popular,
    Recorded,
    Stream,
    Together,
    classes_of,
    mixed,
    with_rows,
    zipf,
)


def popular(*shares: float, name: str = "net") -> Popular:
    return Popular(kinds=tuple(QueryKind(target=f"{name}-{i}", slo=SLO()) for i in range(len(shares))), shares=shares)


def all_of(workload: Workload, seed: int = 1) -> Chunk:
    chunks = list(workload.chunks(np.random.default_rng(seed)))
    return Chunk(np.concatenate([x.times for x in chunks]), np.concatenate([x.kinds for x in chunks]))


def test_popularity_follows_zipf() -> None:
    assert zipf(3) == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    assert zipf(4, 0) == pytest.approx((0.25,) * 4)
    found = all_of(Stream(popular=popular(*zipf(5, 1.2)), rates=Flat(rate_qps=1000, duration_s=100)))
    counts = np.bincount(found.kinds, minlength=5) / len(found.kinds)
    assert counts == pytest.approx(zipf(5, 1.2), abs=0.008)
    with pytest.raises(InvalidInput):
        zipf(0)


def test_workloads_together_stay_in_order_and_keep_their_kinds() -> None:
    fast = Stream(popular=popular(1, name="fast"), rates=Flat(rate_qps=900, duration_s=30))
    slow = Stream(popular=popular(3, 1, name="slow"), rates=Flat(rate_qps=10, duration_s=60))
    both = Together(workloads=(fast, slow))
    assert [x.target for x in both.kinds] == ["fast-0", "slow-0", "slow-1"]
    found = all_of(both)
    assert np.all(np.diff(found.times) >= 0)
    counts = Counter(found.kinds.tolist())
    assert counts[0] == pytest.approx(27_000, rel=0.03)
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.3)
    assert found.times[found.kinds > 0].max() > 55
    again = all_of(both)
    assert np.array_equal(found.times, again.times)
    assert np.array_equal(found.kinds, again.kinds)
    assert len(all_of(both, seed=2).times) != len(found.times)


def test_the_arrivals_of_one_do_not_depend_on_what_runs_beside_it() -> None:
    one = Stream(popular=popular(1), rates=Flat(rate_qps=50, duration_s=20))
    other = Stream(popular=popular(1, name="other"), rates=Flat(rate_qps=5, duration_s=20))
    more = Stream(popular=popular(1, name="other"), rates=Flat(rate_qps=70, duration_s=20))
    first, second = (all_of(Together(workloads=(one, x))) for x in (other, more))
    assert np.array_equal(first.times[first.kinds == 0], second.times[second.kinds == 0])


def test_recorded_times_are_kept() -> None:
    found = all_of(Recorded(popular=popular(1, 1), times=np.asarray([0.0, 1.0, 1.0, 4.0])))
    assert found.times.tolist() == [0, 1, 1, 4]
    with pytest.raises(InvalidInput, match="must not fall"):
        Recorded(popular=popular(1), times=np.asarray([1.0, 0.5]))


def test_mixtures_of_classes_and_sizes() -> None:
    strict, lax = SLO(latency_s=0.05, min_accuracy=0.7), SLO(latency_s=1.0)
    one = classes_of("classification", [(strict, 1), (lax, 3)])
    both = mixed([(one, 0.2), (popular(1), 0.8)])
    assert both.shares == pytest.approx((0.05, 0.15, 0.8))
    sized = with_rows(one, {1: 0.9, 8: 0.1})
    assert [(x.slo, x.rows) for x in sized.kinds] == [(strict, 1), (strict, 8), (lax, 1), (lax, 8)]
    assert sized.shares == pytest.approx((0.9, 0.1, 2.7, 0.3))
    with pytest.raises(InvalidInput, match="as many shares"):
        Popular(kinds=one.kinds, shares=(1.0,))
