"""What is asked: three classes of query to one use case, each with a bound, a least accuracy and a share.

A class asks for what an architecture of the family reaches, less half a point: whoever looks at pictures as they
scroll by is content with a small network's, whoever files them wants the best. Popularity follows Zipf's law, the least
demanding class first. Least accuracies follow from what was measured, so the classes make sense wherever the family is
trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.live.models import ARCHITECTURES, USE_CASE, Measured
from benchmarks.serving.generator import http_request
from infaas_ray.domain import Array
from infaas_ray.protocol import JSON_LENGTH_HEADER, encode_request

_LESS = 0.005
_EACH = 3  # different pictures per part of a share
_BOUNDS_MS = {"preview": 100.0, "sort": 250.0, "file": 1000.0}
_PARTS = (6, 3, 2)  # Zipf's law: 1, 1/2, 1/3
_BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryClass:
    """`parts` is its share of the queries, in parts of the sum over all classes."""

    name: str
    parts: int
    bound_s: float
    least_accuracy: float


def classes(variants: Sequence[Measured]) -> list[QueryClass]:
    """The classes that make sense for these variants."""
    found = []
    for (name, bound_ms), parts, architecture in zip(_BOUNDS_MS.items(), _PARTS, ARCHITECTURES, strict=True):
        best = max(p.accuracy.value for v, p in variants if v.architecture == architecture)
        least = math.floor((best - _LESS) * 200) / 200
        found.append(QueryClass(name=name, parts=parts, bound_s=bound_ms / 1e3, least_accuracy=least))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whole requests, to be asked equally often, each with its class and its bound in seconds."""

    requests: list[bytes]
    classes: list[str]
    bounds_s: list[float]


def picture_count(asked: Sequence[QueryClass]) -> int:
    """How many pictures `of_ray_serve` and `of_ours` need."""
    return sum(x.parts for x in asked) * _EACH


def of_ray_serve(asked: Sequence[QueryClass], images: Array, host: str) -> Asked:
    """Requests to Ray Serve: the picture's bytes."""
    bodies = [http_request(host, "/", image.tobytes(), _BINARY) for image in images]
    return _asked(asked, bodies)


def of_ours(asked: Sequence[QueryClass], images: Array, host: str, target: str = USE_CASE.name) -> Asked:
    """Requests to our system: the Open Inference Protocol with raw tensors, and the SLO as its parameters."""
    each = _each(asked)
    bodies = []
    for x, image in zip(each, images, strict=True):
        slo = {"latency_ms": x.bound_s * 1e3, "min_accuracy": x.least_accuracy}
        body, json_bytes = encode_request({"image": image[np.newaxis]}, slo, "q")
        headers = _BINARY | {JSON_LENGTH_HEADER: str(json_bytes)}
        bodies.append(http_request(host, f"/v2/models/{target}/infer", body, headers))
    return _asked(asked, bodies)


def _each(asked: Sequence[QueryClass]) -> list[QueryClass]:
    return [x for x in asked for _ in range(x.parts * _EACH)]


def _asked(asked: Sequence[QueryClass], requests: list[bytes]) -> Asked:
    each = _each(asked)
    return Asked(requests=requests, classes=[x.name for x in each], bounds_s=[x.bound_s for x in each])
