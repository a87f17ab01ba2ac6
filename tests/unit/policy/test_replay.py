"""The decision log: same facts, same orders; lines survive the way to disk and back."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import (
    CatalogChanged,
    DrainReplica,
    Event,
    LoadRequested,
    ReplicaDied,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaStopped,
    SolvePlan,
    StartReplica,
    StopReplica,
    WorkerLost,
    WorkerReported,
)
from infaas_ray.policy.replay import Difference, WholeLines, decode_turn, encode_header, encode_turn, replay
from tests.unit.policy.builders import MIB, catalog, offer, ready, traffic, v, worker
from tests.unit.policy.world import World

A, B = v("a"), v("b")
SETTINGS = ScalingSettings(strategy="individual", keep_warm={"b": 1}, idle_timeout_s=5.0, downscale_delay_s=2.0)


def day() -> World:
    """A short story with every kind of action in it."""
    made = World(offer("a"), offer("b"), settings=SETTINGS)
    made.step(LoadRequested(variant=A, within_s=1))
    made.steady({A: 250}, 20)
    made.step(ReplicaDied(replica=A + "#1"), WorkerReported(worker="w1", cpu_share=0.5, memory_share=0.25))
    made.steady({A: 20}, 30)
    made.steady({}, 30)
    return made


def lines_of(made: World) -> list[bytes]:
    return [encode_header(SETTINGS), *(encode_turn(now, events, actions) for now, events, actions in made.log)]


def test_a_log_played_again_gives_the_same() -> None:
    made = day()
    kinds = {type(action) for _, _, actions in made.log for action in actions}
    assert kinds == {StartReplica, DrainReplica, StopReplica}
    assert replay(lines_of(made)) is None


def test_settings_may_be_given_where_the_log_has_no_header() -> None:
    lines = lines_of(day())[1:]
    assert replay(lines, SETTINGS) is None
    assert replay(lines) is not None


def test_each_header_starts_anew() -> None:
    assert replay([*lines_of(day()), b"", *lines_of(day())]) is None


def test_the_first_difference_is_told_in_words() -> None:
    made = day()
    at = next(n for n, (_, _, actions) in enumerate(made.log) if actions)
    now, events, actions = made.log[at]
    lines = lines_of(made)
    lines[at + 1] = encode_turn(now, events, [])
    found = replay(lines)
    assert found == Difference(line=at + 2, now=now, logged=(), replayed=actions)
    assert str(found).startswith(
        f"line {at + 2}, at {now:.3f} s: the log has nothing, this version decides StartReplica"
    )


@pytest.mark.parametrize(
    "line", [b"{", b"{}", b'{"type":"LoggedTurn","now":1}', b'{"type":"Header","settings":{"slack":0}}']
)
def test_what_cannot_be_read_is_named(line: bytes) -> None:
    with pytest.raises(InvalidInput, match="line 2 of the decision log cannot be read"):
        replay([encode_header(SETTINGS), line])


@pytest.mark.parametrize("lines", [[], [b"\n", b""]])
def test_an_empty_log_is_no_log(lines: list[bytes]) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        replay(lines)


@pytest.mark.parametrize("size", [1, 20, -1])
def test_a_last_line_that_is_cut_is_left_out(size: int) -> None:
    *whole, last = lines_of(day())
    ended = [x + b"\n" for x in whole]
    cut = WholeLines([*ended, last[:size]])
    assert list(cut) == ended
    assert cut.cut == len(whole) + 1
    for end in (b"", b"\n"):  # a line end may be all that is missing
        unhurt = WholeLines([*ended, last + end])
        assert replay(unhurt) is None
        assert not unhurt.cut


def test_a_broken_line_elsewhere_is_not_left_out() -> None:
    first, *others = (x + b"\n" for x in lines_of(day()))
    with pytest.raises(InvalidInput, match="line 2 of"):
        replay(WholeLines([first, others[0][:9] + b"\n", *others[1:]]))


def test_a_header_is_not_a_turn() -> None:
    with pytest.raises(InvalidInput, match="header"):
        decode_turn(encode_header(SETTINGS))


def test_lines_are_plain_json() -> None:
    line = encode_turn(1.5, [WorkerLost(worker="w1")], [StopReplica(replica="a#1", because="why")])
    assert b"\n" not in line
    assert json.loads(line) == {
        "type": "LoggedTurn",
        "now": 1.5,
        "events": [{"type": "WorkerLost", "worker": "w1"}],
        "actions": [{"type": "StopReplica", "replica": "a#1", "because": "why"}],
    }


_ids = st.sampled_from([f"{x}#{n}" for x in (A, B) for n in (1, 2, 3)])
_rows = st.dictionaries(st.sampled_from([A, B, "gone"]), st.integers(0, 500), max_size=3)
events = st.one_of(
    st.builds(lambda usd: CatalogChanged(catalog=catalog(offer("a"), offer("b", usd=usd))), st.floats(0.001, 1)),
    st.builds(worker, st.sampled_from(["w1", "w2"]), cpu=st.floats(0.2, 4), memory_bytes=st.integers(MIB, 2**33)),
    st.builds(lambda name: WorkerLost(worker=name), st.sampled_from(["w1", "w2"])),
    st.builds(lambda x, y: WorkerReported(worker="w1", cpu_share=x, memory_share=y), st.floats(0, 1), st.floats(0, 1)),
    st.builds(traffic, _rows, _rows, _rows, window_s=st.floats(0, 5)),
    st.builds(
        lambda name, s: LoadRequested(variant=name, within_s=s), st.sampled_from([A, B]), st.none() | st.floats(0, 99)
    ),
    st.builds(ready, _ids, st.sampled_from(["w1", "w2"])),
    st.builds(lambda x, p: ReplicaFailed(replica=x, variant=x[:-2], reason="why", permanent=p), _ids, st.booleans()),
    st.builds(lambda x: ReplicaDied(replica=x), _ids),
    st.builds(lambda x: ReplicaDrained(replica=x), _ids),
    st.builds(lambda x: ReplicaStopped(replica=x), _ids),
)
strategies = st.sampled_from(
    [
        ScalingSettings(),
        ScalingSettings(strategy="individual"),
        ScalingSettings(
            strategy="individual", keep_warm={"a": 2, "classification": 1}, idle_timeout_s=1.0, downscale_delay_s=0.0
        ),
        ScalingSettings(strategy="static", keep_warm={"a": 2}),
    ]
)


@given(strategies, st.lists(st.tuples(st.floats(0, 20), st.lists(events, max_size=4)), max_size=12))
def test_any_facts_give_the_same_orders_again_also_from_the_log(
    settings: ScalingSettings, turns: list[tuple[float, list[Event]]]
) -> None:
    autoscaler, now = Autoscaler(settings), 0.0
    lines = [encode_header(settings)]
    first: list[Event] = [CatalogChanged(catalog=catalog(offer("a"), offer("b"))), worker(), worker("w2")]
    for passed, happened in [(0.0, first), *turns]:
        now += passed
        actions = autoscaler.step(happened, now)
        line = encode_turn(now, happened, actions)
        back = decode_turn(line)
        assert (back.now, list(back.events), list(back.actions)) == (now, happened, actions)
        lines.append(line)
        # An order is booked before it is returned, and fits its worker.
        for action in actions:
            if isinstance(action, SolvePlan):
                continue
            booked = autoscaler.fleet.replicas[action.replica]
            assert not isinstance(action, StartReplica) or booked.worker == action.worker
        table = autoscaler.routing_table(now)
        assert msgspec.json.encode(table.replicas)
    assert replay(lines) is None
