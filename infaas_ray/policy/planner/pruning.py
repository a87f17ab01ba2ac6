"""Leaves out the variants that no best plan needs.

Rule: a variant is dominated when another answers each of its classes at the same rate or faster, with as few busy
seconds and as low a penalty, and has on each of its worker types a place that holds, works and costs to start no more.
All replicas and rows of the first can then be given to the other, and the plan costs no more. (The same of a single
place would be wrong: what the variant has elsewhere answers the same rows.) Of those that are equal the last stays. A
variant stays too if it must have replicas, if some are there and starting others has a price; one that may have only so
many dominates nothing. A variant that answers no class is left out unless it must be there.
"""

import numpy as np
from numpy.typing import NDArray

from infaas_ray.policy.planner.problem import NO_LIMIT, PlanProblem, PlanVariant


def worth_keeping(problem: PlanProblem) -> NDArray[np.bool_]:
    """Whether each variant may be part of the plan, by its index."""
    count = len(problem.variants)
    answers = _answers(problem)
    places = _places(problem)
    kept = np.ones(count, dtype=bool)
    limited = np.array([x.most < NO_LIMIT for x in problem.variants], dtype=bool)
    able = np.isfinite(answers[:, :, 0])
    by_class = [np.flatnonzero(able[:, c]) for c in range(len(problem.classes))]
    for index, variant in enumerate(problem.variants):
        if variant.least > 0:
            continue
        classes = np.flatnonzero(able[index])
        if not classes.size or not variant.places:
            kept[index] = False
            continue
        if _has_a_head_start(variant):
            continue
        fewest = min((by_class[c] for c in classes), key=len)
        others = fewest[kept[fewest] & ~limited[fewest] & (fewest != index)]
        types = [x.worker_type for x in variant.places]
        as_good = (answers[others][:, classes] <= answers[index, classes]).all(axis=(1, 2))
        others = others[as_good]
        kept[index] = not (places[others][:, types] <= places[index, types]).all(axis=(1, 2)).any()
    return kept


def _has_a_head_start(variant: PlanVariant) -> bool:
    """Whether replicas that are there save the price of starting others."""
    return any(x.now > 0 and x.start_usd_per_hour > 0 for x in variant.places) or len(
        {x.worker_type for x in variant.places}
    ) < len(variant.places)


def _answers(problem: PlanProblem) -> NDArray[np.float64]:
    """By variant and class: seconds of a replica per row, busy seconds, penalty. Infinite where it cannot answer."""
    found = np.full((len(problem.variants), len(problem.classes), 3), np.inf)
    for number, asked in enumerate(problem.classes):
        for x in asked.options:
            found[x.variant, number] = 1.0 / x.rate_qps, x.busy_s, x.penalty_usd_per_1k
    return found


def _places(problem: PlanProblem) -> NDArray[np.float64]:
    """By variant and type: what a replica holds and works of each resource, and its start. Infinite where it has none.

    What is there already counts as free to start only for those that are compared, which have none.
    """
    names = sorted(
        {name for x in problem.variants for at in x.places for kind in (at.holds, at.works) for name in kind}
    )
    found = np.full((len(problem.variants), len(problem.types), 2 * len(names) + 1), np.inf)
    for number, variant in enumerate(problem.variants):
        for at in variant.places:
            held = [at.holds.get(name, 0.0) for name in names]
            worked = [at.works.get(name, 0.0) for name in names]
            found[number, at.worker_type] = [*held, *worked, at.start_usd_per_hour]
    return found
