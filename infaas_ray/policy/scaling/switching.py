"""Which variant of a family has the best effective accuracy at a load: accuracy times the share answered in time.

Rule, from profiles: n replicas that each carry r rows a second within the bound D are taken as one server of capacity
c = n r (at load x < c, a query waits for longer than t with the probability x/c exp(-(c - x) t), as in an M/M/1
queue); t is what the bound leaves beside the latency of one row. At x >= c nothing is in time in the long run; among
variants that are all so, the one that carries most counts as best. Loads are rounded up to powers of `_STEP`, so that
the answers are a table.
After Zhang et al., "Model-Switching: Dealing with Fluctuating Workloads in Machine-Learning-as-a-Service Systems",
HotCloud 2020, where the table is measured.
"""

from collections.abc import Mapping
from math import ceil, exp, inf, log

from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.capacity import rate_within

_STEP = 1.1
_EPSILON = 1e-9

_Key = tuple[float, int, tuple[tuple[str, int], ...]]


class SwitchingTable:
    """The best variants by latency bound, load and room."""

    def __init__(self) -> None:
        self._known: dict[_Key, str | None] = {}

    def forget(self) -> None:
        """The catalogue changed."""
        self._known.clear()

    def best(
        self, offers: Mapping[str, Offer], room: Mapping[str, int], latency_s: float, load_qps: float
    ) -> str | None:
        """The best variant of those with room for so many replicas; None where none keeps the bound."""
        level = ceil(log(max(load_qps, _EPSILON), _STEP) - _EPSILON)
        key = (latency_s, level, tuple(room.items()))
        if key not in self._known:
            self._known[key] = self._find(offers, room, latency_s, _STEP**level)
        return self._known[key]

    def _find(self, offers: Mapping[str, Offer], room: Mapping[str, int], bound_s: float, load: float) -> str | None:
        able = [x for x, count in room.items() if count > 0 and rate_within(offers[x], bound_s) > 0]
        ranks = {x: (*effective(offers[x], room[x], bound_s, load), -offers[x].usd_per_1k, x) for x in able}
        return max(able, key=ranks.__getitem__, default=None)


def effective(offer: Offer, replicas: int, bound_s: float, load_qps: float) -> tuple[float, float]:
    """The effective accuracy at a load, and what is carried, to choose by where that is nothing."""
    carried = replicas * rate_within(offer, bound_s)
    if load_qps >= carried:
        return 0.0, carried
    spare_s = bound_s - offer.profile.latency_s(1)
    late = 0.0 if spare_s == inf else load_qps / carried * exp(-(carried - load_qps) * spare_s)
    return offer.accuracy * (1.0 - late), carried
