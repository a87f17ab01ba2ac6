"""From what is registered to what is offered: every variant with its profile, priced on the workers at hand."""

import math
from collections.abc import Iterable

from infaas_ray.domain import Profile, Variant, WorkerType
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.storage.metadata import Metadata


def read_catalog(
    metadata: Metadata,
    worker_types: Iterable[WorkerType],
    to_be_had: Iterable[WorkerType] = (),
    *,
    also: Iterable[tuple[Variant, Profile]] = (),
) -> Catalog:
    """The catalogue as routers and the autoscaler see it: what is offered, and the variants of `also`.

    A variant costs what it costs on the cheapest type that can run it, of the `worker_types` at hand and of those that
    the cluster can start; one that none can run is left out.
    """
    revision = metadata.revision()
    askable = {x.name: x for x in to_be_had}
    types = [*worker_types, *askable.values()]
    offers: dict[str, Offer] = {}
    for variant, profile in (*metadata.variants(offered=True), *also):
        price = min((x.usd_per_1k(variant, profile) for x in types), default=math.inf)
        if price < math.inf:
            offers[variant.name] = Offer(variant=variant, profile=profile, usd_per_1k=price)
    return Catalog(revision=revision, worker_types=askable, architectures=metadata.architectures(), offers=offers)
