"""Makes room for a variant by draining replicas that nobody uses, or that are more than there need be.

Rule: where replicas that leave already will free enough, wait for them. Else drain idle replicas, longest idle first,
then those that are too many, on the one worker where the fewest make the new replica fit; pinned replicas and others in
use stay. Else there is no room.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State, Worker
from infaas_ray.policy.placement import Needs, fits
from infaas_ray.policy.scaling.strategy import Orders, Situation


def make_room(
    variant: str,
    situation: Situation,
    orders: Orders,
    idle_least_s: float,
    too_many: Mapping[tuple[str, str], int] | None = None,
) -> bool:
    """Whether room for a replica of `variant` is coming; drains what is needed for it.

    `too_many`: by variant and worker type, how many replicas may go though they are used.
    """
    fleet = situation.fleet
    rooms = [(x, x.room_soon()) for x in fleet.workers.values() if not x.leaving]
    workers = [(x, needs) for x, room in rooms if (needs := fleet.needs_in(variant, room)) is not None]
    if any(fits(needs, x.room_soon()) for x, needs in workers):
        return True
    idle_s = {x: idle for x in fleet.variants() if x != variant and (idle := situation.idle_s(x)) >= idle_least_s}
    plans = [plan for x, needs in workers if (plan := _victims(x, needs, idle_s, _spare(situation), too_many or {}))]
    if not plans:
        return False
    plan = min(plans, key=lambda found: (len(found), -min(idle_s.get(x.variant, 0.0) for x in found)))
    for replica in plan:
        unused = replica.variant in idle_s
        because = f"unused for {idle_s[replica.variant]:.0f} s" if unused else "one more than needed"
        orders.drain(replica.id, f"{because}, and {variant} needs its room")
    return True


def _leaving(replica: Replica) -> bool:
    return replica.state in (State.DRAINING, State.STOPPING)


def _spare(situation: Situation) -> Counter[str]:
    """How many ready replicas of each variant are not pinned."""
    fleet = situation.fleet
    return Counter({x: len(fleet.of(x, State.READY)) - situation.pins.get(x, 0) for x in fleet.variants()})


def _victims(
    worker: Worker,
    needs: Needs,
    idle_s: Mapping[str, float],
    spare: Counter[str],
    too_many: Mapping[tuple[str, str], int],
) -> list[Replica]:
    """The replicas to drain on this worker so that the needs fit, longest idle first; none if they never do."""
    ready = [x for x in worker.replicas.values() if x.state is State.READY]
    for name in {x.variant for x in ready} - idle_s.keys():
        spare[name] = min(spare[name], too_many.get((name, worker.worker_type), 0))
    chosen: list[Replica] = []
    gone: set[str] = set()
    for replica in sorted(ready, key=lambda x: (-idle_s.get(x.variant, 0.0), x.id)):
        if spare[replica.variant] <= 0:
            continue
        spare[replica.variant] -= 1
        chosen.append(replica)
        gone.add(replica.id)
        if fits(needs, worker.room_without(lambda x: _leaving(x) or x.id in gone)):
            return chosen
    return []


def fewest_neighbours(replicas: Sequence[Replica], fleet: Fleet) -> Replica:
    """The one to drain of several: on the worker with the fewest replicas, so that workers empty; there the newest."""
    return min(reversed(replicas), key=lambda x: len(fleet.workers[x.worker].replicas))


def waits_for_worker(variant: str, situation: Situation) -> bool:
    """Whether a variant without room should wait for a worker that comes, rather than leave its queries to another.

    It should where it has a replica that serves meanwhile, or no other variant of its use case has room now.
    """
    fleet = situation.fleet
    if fleet.staying(variant, State.STARTING, State.READY):
        return True
    catalog = fleet.catalog
    use_case = catalog.architectures[catalog.offers[variant].variant.architecture].use_case.name
    others = (x for x in fleet.targets[use_case] if fleet.blocks.reason(x, situation.now) is None)
    return not any(fleet.place(x).worker is not None for x in others if x != variant)
