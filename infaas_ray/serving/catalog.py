"""From what is registered to what is offered: every variant with its profile, priced on the workers at hand."""

import math
from collections.abc import Iterable

from infaas_ray.domain import WorkerType
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.storage.metadata import Metadata


def read_catalog(metadata: Metadata, worker_types: Iterable[WorkerType]) -> Catalog:
    """The catalogue as routers and the autoscaler see it.

    A variant costs what it costs on the cheapest of `worker_types` that can run it; one that none can run is left out.
    """
    revision = metadata.revision()
    types = list(worker_types)
    offers: dict[str, Offer] = {}
    for variant, profile in metadata.variants(offered=True):
        price = min((x.usd_per_1k(variant, profile) for x in types), default=math.inf)
        if price < math.inf:
            offers[variant.name] = Offer(variant=variant, profile=profile, usd_per_1k=price)
    return Catalog(revision=revision, architectures=metadata.architectures(), offers=offers)
