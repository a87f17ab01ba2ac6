"""The decision log: how a turn is written, read, and played again.

A log is JSON lines: a header with the settings where a controller began, then one line per turn, with or without
events. `replay` feeds the events to a fresh autoscaler and tells where it first decides otherwise: a bug report is a
log file. The last line of a controller that was killed while it wrote may be cut; see `WholeLines`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.autoscaler import Autoscaler
from infaas_ray.policy.messages import Action, Event, ReleaseWorker, RequestWorkers, SolvePlan
from infaas_ray.policy.scaling.settings import ScalingSettings


class Header(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The beginning of a controller's life. A turn's time plus `unix_s` is Unix time."""

    settings: ScalingSettings
    unix_s: float = 0.0


class LoggedTurn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One turn of the control loop."""

    now: float
    events: tuple[Event, ...]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first turn that went otherwise: `line` counts from 1."""

    line: int
    now: float
    logged: tuple[Action, ...]
    replayed: tuple[Action, ...]

    def __str__(self) -> str:
        return (
            f"line {self.line}, at {self.now:.3f} s: the log has {_words(self.logged)}, "
            f"this version decides {_words(self.replayed)}"
        )


@dataclass(slots=True)
class WholeLines:
    """The lines of a log file without a last one that is cut: one that is no JSON and has no line end.

    `cut` is its number, known once the lines were read; 0 where there is none.
    """

    lines: Iterable[bytes]
    cut: int = 0

    def __iter__(self) -> Iterator[bytes]:
        for number, line in enumerate(self.lines, start=1):
            if line.strip() and not line.endswith(b"\n"):
                try:
                    msgspec.json.decode(line)
                except msgspec.DecodeError:
                    self.cut = number
                    return
            yield line


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Header | LoggedTurn] = msgspec.json.Decoder(Header | LoggedTurn)


def encode_header(settings: ScalingSettings, unix_s: float = 0.0) -> bytes:
    """The first line of a controller's log, without the line end."""
    return _ENCODER.encode(Header(settings=settings, unix_s=unix_s))


def encode_turn(now: float, events: Sequence[Event], actions: Sequence[Action]) -> bytes:
    """A turn as one line, without the line end."""
    return _ENCODER.encode(LoggedTurn(now=now, events=tuple(events), actions=tuple(actions)))


def decode_turn(line: bytes) -> LoggedTurn:
    """Read a turn back. Raises InvalidInput where the line is not one."""
    found = _decode(line, 1)
    if isinstance(found, Header):
        raise InvalidInput("the line is the header of a decision log, not a turn")
    return found


def decode(lines: Iterable[bytes]) -> Iterator[Header | LoggedTurn]:
    """Headers and turns of a log. Raises InvalidInput where a line cannot be read."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _decode(line, number)


def replay(lines: Iterable[bytes], settings: ScalingSettings | None = None) -> Difference | None:
    """The first turn in which a fresh autoscaler decides otherwise than the log; None where there is none.

    Each header starts anew. `settings` (or the defaults) hold until the first header. Raises InvalidInput where a
    line cannot be read, or there is none.
    """
    autoscaler = Autoscaler(settings or ScalingSettings())
    empty = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        empty = False
        found = _decode(line, number)
        if isinstance(found, Header):
            autoscaler = Autoscaler(found.settings)
            continue
        replayed = tuple(autoscaler.step(found.events, found.now))
        if replayed != found.actions:
            return Difference(line=number, now=found.now, logged=found.actions, replayed=replayed)
    if empty:
        raise InvalidInput(
            "the decision log is empty: there is no whole line in it; a controller's begins with a header"
        )
    return None


def _decode(line: bytes, number: int) -> Header | LoggedTurn:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, InvalidInput) as error:
        raise InvalidInput(f"line {number} of the decision log cannot be read: {error}") from None


def _words(actions: Sequence[Action]) -> str:
    return ", ".join(map(in_words, actions)) or "nothing"


def in_words(action: Action) -> str:
    """An action as people read it."""
    match action:
        case RequestWorkers():
            what = ", ".join(f"{count} x {name}" for name, count in sorted(action.counts.items())) or "no workers"
        case ReleaseWorker():
            what = action.worker
        case SolvePlan():
            what = f"{action.number}"
        case _:
            what = action.replica
    return f"{type(action).__name__} {what} ({action.because})"
