import pickle

import pytest

from infaas_ray import errors
from infaas_ray.errors import InfaasError, MissingExtra, Unavailable, Unsatisfiable, one_of

KINDS = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, InfaasError)]
EXAMPLES = [
    Unsatisfiable("no", {"a": "too slow"}, {"latency_ms": 3.0}),
    Unavailable("busy", 2.5, {"a": "full"}),
    MissingExtra("torch is missing", "torch"),
    *[kind("a message") for kind in KINDS],
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda x: type(x).__name__)
def test_survives_pickle_with_all_its_data(error: InfaasError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.to_json() == error.to_json()
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda x: type(x).__name__)
def test_is_rebuilt_from_its_arguments(error: InfaasError) -> None:
    assert type(error)(*error.args).to_json() == error.to_json()


@pytest.mark.parametrize("kind", KINDS, ids=lambda x: x.__name__)
def test_has_the_status_its_tree_names(kind: type[InfaasError]) -> None:
    lines = [x for x in (errors.__doc__ or "").splitlines() if f" {kind.__name__} " in x]
    if kind is not InfaasError:
        assert lines, f"{kind.__name__} is missing in the tree"
        assert f" {kind.status} " in lines[0]


def test_one_of_shortens_long_lists() -> None:
    assert one_of("target", "x", ["b", "a"]) == "unknown target 'x'; known: a, b"
    assert one_of("target", "x", []) == "unknown target 'x'; known: none yet"
    assert one_of("target", "x", [f"n{i:02}" for i in range(20)]).endswith("n11 and 8 more")
