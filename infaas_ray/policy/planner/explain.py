"""A plan in words and numbers: why each machine and replica, who serves whom at what price, and what other SLOs save.

Rule: a replica costs the share of its worker that it holds or works, whichever is more; what nobody holds is the
worker type's spare. So the costs of the replicas on a type and its spare add up to its price, and where more is held
and worked of different resources than the price covers, all shares shrink alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from infaas_ray.policy.planner.problem import Flow, Plan, PlanClass, PlanPlace, PlanProblem, PlanType, PlanVariant
from infaas_ray.policy.planner.solve import solve

_NOTHING_QPS = 1e-6
_NOTHING_USD = 5e-4  # an hour
_FULL = 0.999  # of what there may be


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceReason:
    """Why there are replicas of a variant on a worker type.

    `shares`: by class, the part of its rows that the variant answers. `use`: of the time of all its replicas.
    """

    variant: str
    worker_type: str
    replicas: int
    new: int
    usd_per_hour: float
    use: float
    shares: Mapping[str, float]
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReason:
    """Why there are workers of a type. `held` and `worked`: the share of each resource; `spare_usd_per_hour`: idle."""

    worker_type: str
    workers: int
    new: int
    usd_per_hour: float
    spare_usd_per_hour: float
    held: Mapping[str, float]
    worked: Mapping[str, float]
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReason:
    """What becomes of a class. `served`: rows a second by variant, of which `beyond_slo_qps` less accurate or late."""

    query_class: str
    demand_qps: float
    served: Mapping[str, float]
    refused_qps: float
    marginal_usd_per_1k: float
    because: str
    beyond_slo_qps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What another problem (a class with a cheaper SLO, say) would cost, and save of what the plan costs."""

    name: str
    usd_per_hour: float
    saves_usd_per_hour: float
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanExplanation:
    """A plan, explained; everything in the order of the problem, quotes by what they save."""

    summary: str
    types: tuple[TypeReason, ...]
    places: tuple[PlaceReason, ...]
    classes: tuple[ClassReason, ...]
    quotes: tuple[Quote, ...] = ()


def explain(
    problem: PlanProblem,
    plan: Plan,
    alternatives: Mapping[str, PlanProblem] | None = None,
    time_limit_s: float = 1.0,
    gap: float = 0.005,
) -> PlanExplanation:
    """Explain a plan for a problem. Each of the `alternatives`, by name, is solved and quoted."""
    books = _Books(problem, plan)
    places = tuple(
        books.place(variant, at)
        for variant in problem.variants
        for at in variant.places
        if books.count(variant, at) > 0
    )
    quotes = [quote(name, plan, other, time_limit_s, gap) for name, other in (alternatives or {}).items()]
    return PlanExplanation(
        summary=_summary(plan),
        types=tuple(books.type(x) for x in problem.types if plan.workers.get(x.name, 0) > 0),
        places=places,
        classes=tuple(books.asked(x) for x in problem.classes),
        quotes=tuple(sorted(quotes, key=lambda x: (-x.saves_usd_per_hour, x.name))),
    )


def _summary(plan: Plan) -> str:
    workers = ", ".join(f"{count} x {name}" for name, count in plan.workers.items() if count > 0) or "no workers"
    refused = sum(plan.refused_qps.values())
    words = f"{workers} for {_usd(plan.machines_usd_per_hour)} an hour"
    beyond = sum(plan.beyond_slo_qps.values())
    changes = plan.objective_usd_per_hour - plan.machines_usd_per_hour
    if changes > _NOTHING_USD:
        words += f", {_usd(changes)} for changes, risk, lost accuracy and refusals"
    if beyond > _NOTHING_QPS:
        words += f"; {beyond:.4g} rows/s are answered beyond their SLO, as they accept"
    if refused > _NOTHING_QPS:
        words += f"; {refused:.4g} rows/s are refused"
    if plan.forgone_usd_per_hour > _NOTHING_USD:
        words += (
            f"; other machines would save {_usd(plan.forgone_usd_per_hour)} an hour, not for long enough to boot them"
        )
    return f"{words}; no plan costs more than {plan.gap:.2%} less"


def quote(name: str, plan: Plan, alternative: PlanProblem, time_limit_s: float = 1.0, gap: float = 0.005) -> Quote:
    """What another problem costs when it is solved, beside a plan. Less than both are proven to is called nothing."""
    other = solve(alternative, time_limit_s, gap)
    saves = plan.objective_usd_per_hour - other.objective_usd_per_hour
    unproven = sum(max(0.0, x.objective_usd_per_hour - x.bound_usd_per_hour) for x in (plan, other))
    if abs(saves) <= unproven:
        because = f"saves nothing beyond what the plans are proven to ({_usd(unproven)} an hour)"
    elif saves > 0:
        because = f"saves {_usd(saves)} an hour"
    else:
        because = f"costs {_usd(-saves)} an hour more"
    return Quote(name=name, usd_per_hour=other.objective_usd_per_hour, saves_usd_per_hour=saves, because=because)


class _Books:
    """Who serves whom and who holds what, looked up often."""

    def __init__(self, problem: PlanProblem, plan: Plan) -> None:
        self._problem = problem
        self._plan = plan
        self._classes = {x.name: x for x in problem.classes}
        self._variants = {x.name: index for index, x in enumerate(problem.variants)}
        self._flows: dict[str, list[Flow]] = {}
        self._served: dict[str, list[Flow]] = {}
        for flow in plan.flows:
            self._flows.setdefault(flow.variant, []).append(flow)
            self._served.setdefault(flow.query_class, []).append(flow)

    def count(self, variant: PlanVariant, at: PlanPlace) -> int:
        """Replicas of a variant at a place."""
        return self._plan.replicas.get(variant.name, {}).get(self._problem.types[at.worker_type].name, 0)

    # ---- machines

    def type(self, plan_type: PlanType) -> TypeReason:
        """Why there are workers of this type."""
        workers = self._plan.workers[plan_type.name]
        held, worked = self._use(plan_type)
        shares = [x for _, x in self._shares(plan_type)]
        price = workers * plan_type.usd_per_hour
        spare = price * max(0.0, 1.0 - sum(shares) / workers)
        return TypeReason(
            worker_type=plan_type.name,
            workers=workers,
            new=max(0, workers - plan_type.now),
            usd_per_hour=price,
            spare_usd_per_hour=spare,
            held=held,
            worked=worked,
            because=self._why_type(plan_type, workers, held, worked),
        )

    def _why_type(
        self, plan_type: PlanType, workers: int, held: Mapping[str, float], worked: Mapping[str, float]
    ) -> str:
        limit = self._problem.utilization
        uses = [
            (share / limit, f"{name} is {share:.0%} busy, of at most {limit:.0%}") for name, share in worked.items()
        ]
        uses += [(share, f"{share:.0%} of {name} is held") for name, share in held.items()]
        parts = [max(uses)[1]] if uses else []
        if not uses or max(uses)[0] * workers <= workers - 1 + 1e-9:
            reason = (
                f"at least {plan_type.least} are to be there"
                if workers <= plan_type.least
                else "replicas do not divide"
            )
            parts.append(f"one fewer would do by that; {reason}")
        if workers >= plan_type.most:
            parts.append(f"there may be no more than {plan_type.most}")
        return "; ".join(parts)

    def _use(self, plan_type: PlanType) -> tuple[dict[str, float], dict[str, float]]:
        """The shares of all workers of a type that are held and worked, by resource."""
        held: dict[str, float] = {}
        worked: dict[str, float] = {}
        workers = self._plan.workers[plan_type.name]
        for variant, at in self._on(plan_type):
            busy = self.count(variant, at) * self._busy_share(variant)
            for uses, kinds, times in ((held, at.holds, self.count(variant, at)), (worked, at.works, busy)):
                for name, amount in kinds.items():
                    if amount > 0:
                        share = times * amount / (workers * plan_type.resources[name])
                        uses[name] = uses.get(name, 0.0) + share
        return held, worked

    def _on(self, plan_type: PlanType) -> list[tuple[PlanVariant, PlanPlace]]:
        return [
            (variant, at)
            for variant in self._problem.variants
            for at in variant.places
            if self._problem.types[at.worker_type] is plan_type and self.count(variant, at) > 0
        ]

    def _shares(self, plan_type: PlanType) -> list[tuple[tuple[str, int], float]]:
        """Workers that the replicas of each variant on this type take, by the rule of this module."""
        workers = self._plan.workers[plan_type.name]
        found = []
        for variant, at in self._on(plan_type):
            busy = self._busy_share(variant) / self._problem.utilization
            share = max(
                [x / plan_type.resources[name] for name, x in at.holds.items() if x > 0]
                + [x * busy / plan_type.resources[name] for name, x in at.works.items() if x > 0],
                default=0.0,
            )
            found.append(((variant.name, at.worker_type), share * self.count(variant, at)))
        total = sum(x for _, x in found)
        return [(key, x * min(1.0, workers / total) if total > 0 else 0.0) for key, x in found]

    # ---- replicas

    def _options(self, variant: str) -> dict[str, tuple[float, float]]:
        """Rate and busy seconds of the variant by class."""
        index = self._variants[variant]
        return {
            x.query_class: (option.rate_qps, option.busy_s)
            for x in self._flows.get(variant, ())
            for option in self._classes[x.query_class].options
            if option.variant == index
        }

    def _busy_share(self, variant: PlanVariant) -> float:
        """Of the time of the variant's replicas, the share in which they compute."""
        count = sum(self.count(variant, at) for at in variant.places)
        options = self._options(variant.name)
        return sum(x.rate_qps * options[x.query_class][1] for x in self._flows.get(variant.name, ())) / max(1, count)

    def place(self, variant: PlanVariant, at: PlanPlace) -> PlaceReason:
        """Why there are replicas of a variant at a place."""
        plan_type = self._problem.types[at.worker_type]
        count = self.count(variant, at)
        flows = self._flows.get(variant.name, [])
        options = self._options(variant.name)
        everywhere = sum(self.count(variant, x) for x in variant.places)
        use = sum(x.rate_qps / options[x.query_class][0] for x in flows) / everywhere
        shares = {x.query_class: x.rate_qps / self._classes[x.query_class].demand_qps for x in flows}
        taken = dict(self._shares(plan_type))[variant.name, at.worker_type]
        served = ", ".join(f"{share:.0%} of {name}" for name, share in sorted(shares.items(), key=lambda x: -x[1]))
        because = f"answers {served}" if served else "answers nothing now"
        if variant.least >= everywhere:
            because += f"; at least {variant.least} are to be there"
        return PlaceReason(
            variant=variant.name,
            worker_type=plan_type.name,
            replicas=count,
            new=max(0, count - at.now),
            usd_per_hour=taken * plan_type.usd_per_hour,
            use=use,
            shares=shares,
            because=because,
        )

    # ---- classes

    def asked(self, query_class: PlanClass) -> ClassReason:
        """What becomes of a class."""
        name = query_class.name
        served = {x.variant: x.rate_qps for x in self._served.get(name, ())}
        refused = self._plan.refused_qps.get(name, 0.0)
        beyond = self._plan.beyond_slo_qps.get(name, 0.0)
        price = self._plan.marginal_usd_per_1k.get(name, 0.0)
        parts = [f"{rate / query_class.demand_qps:.0%} by {variant}" for variant, rate in served.items()]
        words = [", ".join(parts)] if parts else []
        if beyond > _NOTHING_QPS:
            words.append(f"{beyond:.4g} rows/s of it beyond the SLO, as its queries accept rather than be refused")
        if refused > _NOTHING_QPS:
            words.append(f"{refused:.4g} rows/s refused: {self._why_refused(query_class, price)}")
        return ClassReason(
            query_class=name,
            demand_qps=query_class.demand_qps,
            served=served,
            refused_qps=refused,
            marginal_usd_per_1k=price,
            because="; ".join(words) or "nothing is asked",
            beyond_slo_qps=beyond,
        )

    def _why_refused(self, query_class: PlanClass, price: float) -> str:
        able = [self._problem.variants[x.variant] for x in query_class.options]
        if not any(variant.places for variant in able):
            return "no variant meets its SLO" if not able else "no worker type can run what meets its SLO"
        types = {at.worker_type for variant in able for at in variant.places}
        full = [x for index, x in enumerate(self._problem.types) if index in types and self._is_full(x)]
        if len(full) == len(types):
            limits = ", ".join(f"{x.most} x {x.name}" for x in full)
            return f"what could answer it runs on worker types that are at their limit ({limits})"
        limited = [x for x in able if x.places and sum(self.count(x, at) for at in x.places) >= x.most]
        if limited and len(limited) == len(able):
            return f"there may be no more replicas of {', '.join(x.name for x in limited)}"
        refusal = query_class.refusal_usd_per_1k
        return f"1,000 rows more cost {_usd(max(price, refusal))} or more to serve and {_usd(refusal)} to refuse"

    def _is_full(self, plan_type: PlanType) -> bool:
        return self._plan.workers.get(plan_type.name, 0) >= plan_type.most * _FULL


def _usd(amount: float) -> str:
    return f"${amount:.3g}"
