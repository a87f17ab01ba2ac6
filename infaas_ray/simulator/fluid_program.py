"""The integer program of the fluid bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from infaas_ray.domain import WorkerType
from infaas_ray.policy.routing import Offer

LATE_SHARE = 0.005  # of the rows of a kind that may be late in a tight bound, or what the best variant cannot help
_TIME_LIMIT_S = 1.0  # for a window; what is proven by then counts
_GAP = 1e-3
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """A variant on a worker type (its index): what a replica holds there, as shares of what a worker has."""

    offer: Offer
    worker_type: int
    resource: str
    holds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One row of a kind takes `row_s` of a replica at a place and keeps `units` seconds of its resource busy.

    Alone on the machine it is late with probability `late`. `sizes`: rows and seconds of the batches that meet the
    bound.
    """

    kind: int
    place: int
    row_s: float
    units: float
    late: float
    sizes: tuple[tuple[int, float], ...]


class Program:
    """Columns: machines by type, rows a second by option, and where `tight`, replicas held by place."""

    def __init__(
        self,
        types: Sequence[WorkerType],
        places: Sequence[Place],
        options: Sequence[Option],
        kinds: Sequence[int],
        *,
        tight: bool = False,
    ) -> None:
        used = sorted({x.place for x in options}) if tight else []
        self._types, self._first_held = len(types), len(types) + len(options)
        self._columns = self._first_held + len(used)
        self._kinds = len(kinds)
        self._costs = np.zeros(self._columns)
        self._costs[: len(types)] = [x.usd_per_hour for x in types]
        self._whole = np.zeros(self._columns)
        self._whole[: len(types)] = 1.0
        row_of = {x: row for row, x in enumerate(kinds)}
        self._flows = self._matrix(
            [(row_of[x.kind], self._types + at, 1.0) for at, x in enumerate(options)], len(kinds)
        )
        rows = _Rows()
        for at, option in enumerate(options):
            place = places[option.place]
            key = (place.worker_type, place.resource)
            rows.add(("computed", *key), self._types + at, option.units)
            rows.once(("computed", *key), place.worker_type, -types[place.worker_type].resources[place.resource])
        column_of = {x: self._first_held + at for at, x in enumerate(used)}
        for at, option in enumerate(options if tight else ()):
            rows.add(("busy", option.place, ""), self._types + at, option.row_s)
            rows.once(("busy", option.place, ""), column_of[option.place], -1.0)
        for number, column in column_of.items():
            place = places[number]
            for name, share in place.holds:
                rows.add(("held", place.worker_type, name), column, share)
                rows.once(("held", place.worker_type, name), place.worker_type, -1.0)
        self._rooms = self._matrix(rows.entries, rows.count)
        held = [(row_of[x.kind], column_of[x.place], 1.0) for x in options] if tight else []
        late = [(row_of[x.kind], self._types + at, x.late) for at, x in enumerate(options)]
        self._kept = self._matrix(held, len(kinds))
        self._late = self._matrix(late, len(kinds))
        least = np.full(len(kinds), np.inf)
        np.minimum.at(least, [row_of[x.kind] for x in options], [x.late for x in options])
        self._late_share = np.maximum(LATE_SHARE, least)

    def _matrix(self, entries: Sequence[tuple[int, int, float]], rows: int) -> csr_array:
        at, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        return coo_array((values, (at, columns)), shape=(rows, self._columns), dtype=float).tocsr()

    def least_usd_per_hour(self, demand_qps: Floats, kept: Floats | None = None, *, whole: bool = True) -> float:
        """For so many rows a second of each kind, on whole machines or on any part of one.

        `kept`, for a tight program: the share of time in which something that may answer a kind is held.
        """
        if not self._kinds or not demand_qps.any():
            return 0.0
        limits = [
            LinearConstraint(self._rooms, ub=0.0),
            LinearConstraint(self._flows, lb=demand_qps, ub=demand_qps),
        ]
        if kept is not None:
            limits.append(LinearConstraint(self._kept, lb=kept))
            limits.append(LinearConstraint(self._late, ub=self._late_share * demand_qps))
        found = milp(
            self._costs,
            integrality=self._whole if whole else None,
            constraints=limits,
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": _GAP},
        )
        bound = found.mip_dual_bound if whole else found.fun
        if bound is None:
            raise AssertionError(f"the fluid bound's program failed: {found.message}")
        return float(bound)


class _Rows:
    """Rows of a matrix by name, made as they are needed."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self._numbers: dict[tuple[str, int, str], int] = {}
        self._done: set[tuple[tuple[str, int, str], int]] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._numbers)

    def add(self, name: tuple[str, int, str], column: int, value: float) -> None:
        """An entry of the row of that name."""
        self.entries.append((self._numbers.setdefault(name, len(self._numbers)), column, value))

    def once(self, name: tuple[str, int, str], column: int, value: float) -> None:
        """The same, if the row has none in that column yet."""
        if (name, column) not in self._done:
            self._done.add((name, column))
            self.add(name, column, value)
