"""Keeps a strategy to the variants that it has chosen: all others cannot be loaded."""

from collections.abc import Collection
from math import inf

from infaas_ray.policy.fleet import Fleet


class Fixed:
    """Blocks every other variant for good; anew when the catalogue or the choice changes."""

    def __init__(self, because: str) -> None:
        self._because = because
        self._known: tuple[int, frozenset[str]] | None = None

    def only(self, variants: Collection[str], fleet: Fleet) -> None:
        """Let nothing but `variants` be loaded. What was blocked before stays so until the catalogue changes."""
        chosen = (fleet.catalog_changes, frozenset(variants))
        if chosen != self._known:
            self._known = chosen
            for variant in fleet.catalog.offers:
                if variant not in chosen[1]:
                    fleet.blocks.add(variant, self._because, inf)


BETWEEN_TURNS_S = 0.9  # a block for so long holds until the next turn, and what is chosen then can start


def only_until(variants: Collection[str], fleet: Fleet, until: float, because: str) -> None:
    """Let nothing but `variants` be loaded until then."""
    for variant in fleet.catalog.offers:
        if variant not in variants:
            fleet.blocks.add(variant, because, until)
