"""Which plan is followed, and for what problem and why it was made.

Rule: a plan is asked for by an action and comes back as a fact; both pass the controller, and the strategy says by its
number which one it follows. What is older than that one is forgotten, and all but the last `_MOST`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from infaas_ray.policy.autoscaler import Autoscaler
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import Action, Event, PlanMade, SolvePlan
from infaas_ray.policy.planner.problem import Plan, PlanProblem

_MOST = 20  # plans that were asked for and not followed yet


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """The plan that is followed: asked for `age_s` seconds ago, made in `took_s`."""

    number: int
    because: str
    problem: PlanProblem
    plan: Plan
    age_s: float
    took_s: float


class RunningPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a system follows and what it has: `workers` by type, `ready` replicas by variant and type.

    `problems`: what a plan would be asked for now under "", and alternatives to it by name.
    """

    strategy: str
    followed: Followed | None
    workers: Mapping[str, int]
    ready: Mapping[str, Mapping[str, int]]
    problems: Mapping[str, PlanProblem]


class PlanBook:
    """Remembers what plans were asked for and what came of it."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[float, SolvePlan]] = {}
        self._made: dict[int, PlanMade] = {}

    def note(self, events: Iterable[Event], actions: Iterable[Action], followed: int, now: float) -> None:
        """Take in a turn, after which the plan of number `followed` is followed (0: none)."""
        self._made.update((x.number, x) for x in events if isinstance(x, PlanMade) and x.plan is not None)
        self._asked.update((x.number, (now, x)) for x in actions if isinstance(x, SolvePlan))
        for book in (self._asked, self._made):
            recent = set(sorted(book)[-_MOST:])
            for number in [x for x in book if x < followed or (x not in recent and x != followed)]:
                del book[number]

    def running(self, autoscaler: Autoscaler, now: float, others: int = 0) -> RunningPlan:
        """What is followed and there, with the problems of up to so many alternatives."""
        fleet, number = autoscaler.fleet, autoscaler.followed
        ready: dict[str, Counter[str]] = {}
        for replica in fleet.replicas.values():
            if replica.state is State.READY:
                kind = fleet.workers[replica.worker].worker_type
                ready.setdefault(replica.variant, Counter())[kind] += 1
        return RunningPlan(
            strategy=autoscaler.settings.strategy,
            followed=self.followed(number, now) if number else None,
            workers=Counter(x.worker_type for x in fleet.workers.values() if not x.leaving),
            ready=ready,
            problems=autoscaler.problems(now, others) if others else {},
        )

    def followed(self, number: int, now: float) -> Followed | None:
        """The plan of that number; None where it is not known here."""
        asked, made = self._asked.get(number), self._made.get(number)
        if asked is None or made is None or made.plan is None:
            return None
        at, action = asked
        return Followed(
            number=number,
            because=action.because,
            problem=action.problem,
            plan=made.plan,
            age_s=now - at,
            took_s=made.took_s,
        )
