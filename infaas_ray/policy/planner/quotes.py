"""Which other SLOs a quote looks at: one class's bound a little looser, everything else as it is."""

from collections.abc import Sequence
from dataclasses import replace

from infaas_ray.policy.planner.build import Wanted

_LOOSER = 1.5  # times the latency bound
_LESS = 0.02  # of accuracy


def looser(wanted: Sequence[Wanted], most: int | None = None) -> dict[str, list[Wanted]]:
    """The same demand with one bound looser, by what that would be; the classes of the greatest demand first.

    At most `most` of them, where that is given.
    """
    found: dict[str, list[Wanted]] = {}
    for at in sorted(range(len(wanted)), key=lambda x: -wanted[x].demand_qps):
        for other in _loosened(wanted[at]):
            if most is not None and len(found) >= most:
                return found
            found[f"{wanted[at].name} -> {other.name}"] = [*wanted[:at], other, *wanted[at + 1 :]]
    return found


def _loosened(one: Wanted) -> list[Wanted]:
    options = []
    if one.latency_s is not None:
        options.append(replace(one, latency_s=one.latency_s * _LOOSER))
    if one.min_accuracy is not None and one.min_accuracy > _LESS:
        options.append(replace(one, min_accuracy=round(one.min_accuracy - _LESS, 6)))
    return options
