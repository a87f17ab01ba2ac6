"""What can be asked for, and whether a query's inputs are those that its target takes.

Rule: a query is checked before it is admitted, so a target's inputs are prepared once for each catalogue.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from infaas_ray.domain import Architecture, Query, TensorSpec
from infaas_ray.errors import InvalidInput, UnknownTarget, one_of
from infaas_ray.policy.routing import Catalog


class _Inputs(NamedTuple):
    """Of each input its name, dtype, dimensions, fixed lengths, and the specification in full."""

    specs: tuple[tuple[str, "np.dtype[Any]", int, tuple[int, ...], TensorSpec], ...]

    @classmethod
    def of(cls, architecture: Architecture) -> Self:
        return cls(tuple((x.name, x.dtype, len(x.shape), x.shape[1:], x) for x in architecture.inputs))


class Targets:
    """The targets of one catalogue. `variants` maps the name of a target to the variants behind it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.variants: Mapping[str, tuple[str, ...]] = catalog.targets()
        self._inputs: dict[str, _Inputs] = {}

    def architecture_of(self, target: str) -> Architecture:
        """An architecture behind `target`; all of one use case have the same tensors. Raises UnknownTarget."""
        variants = self.variants.get(target)
        if not variants:
            raise UnknownTarget(one_of("target", target, [x for x in self.variants if "@" not in x]))
        return self.catalog.architectures[self.catalog.offers[variants[0]].variant.architecture]

    def check(self, query: Query) -> None:
        """Raise UnknownTarget or InvalidInput unless the target exists and takes these inputs."""
        known = self._inputs.get(query.target)
        if known is None:
            known = self._inputs[query.target] = _Inputs.of(self.architecture_of(query.target))
        inputs = query.inputs
        for name, dtype, dimensions, lengths, spec in known.specs:
            array = inputs.get(name)
            if array is None or len(inputs) != len(known.specs):
                names = sorted(x[0] for x in known.specs)
                raise InvalidInput(f"{query.target!r} takes the inputs {names}, not {sorted(inputs)}")
            if array.dtype != dtype or array.ndim != dimensions or array.shape[1:] != lengths or 0 in array.shape:
                spec.check(array)  # says what is wrong, or that a free length is fine
            if array.shape[0] != query.rows:
                raise InvalidInput("all inputs of a query must have the same first dimension (the batch)")
