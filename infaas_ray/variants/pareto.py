"""Which variants nobody needs: those that another one of the same architecture and hardware beats in everything.

What counts is accuracy, the median latency of one row, the rows per second that a thread (or an accelerator) gives,
which is what a replica costs, and how many of these it needs, because a small or busy worker may have no more. Rule: a
variant is dominated where another is at least as good in all four, and better in one; of equals the first by name
stays.
"""

from collections.abc import Iterable

from infaas_ray.domain import Hardware, HardwareKind, Profile, Variant

Measured = tuple[Variant, Profile]
_Scores = tuple[float, float, float, float]


def undominated(variants: Iterable[Measured]) -> set[str]:
    """Names of the variants that none dominates, each compared with those of its architecture and machine."""
    groups: dict[tuple[str, HardwareKind, Hardware], list[Measured]] = {}
    for variant, profile in variants:
        key = (variant.architecture, variant.hardware, profile.hardware)
        groups.setdefault(key, []).append((variant, profile))
    return {name for group in groups.values() for name in _front(group)}


def scores(variant: Variant, profile: Profile) -> _Scores:
    """Accuracy, rows per second one at a time, those per unit when saturated, and less the units; more is better."""
    units = 1 if variant.hardware is HardwareKind.GPU else variant.threads
    return profile.accuracy.value, 1 / profile.latencies[0].p50_s, profile.saturation_qps / units, -units


def _front(group: list[Measured]) -> list[str]:
    # By falling scores, whoever dominates a variant stands before it; dominance is transitive, so the kept suffice.
    ordered = sorted(((scores(v, p), v.name) for v, p in group), key=lambda x: (*(-y for y in x[0]), x[1]))
    kept: list[tuple[_Scores, str]] = []
    for mine, name in ordered:
        if not any(all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs, _ in kept):
            kept.append((mine, name))
    return [name for _, name in kept]
