"""Every error that INFaaS raises on purpose, in one tree.

InfaasError
├── InvalidInput            400  the request or a value in it is wrong
│   ├── InvalidModel        400  a model, validation set or artifact handed to registration is wrong
│   │   └── Refused         400  a variant that works but must not be offered, or that its source cannot give
│   └── PayloadTooLarge     413  the body is larger than the server accepts
├── UnknownTarget           404  no use case, architecture or variant of that name
├── AlreadyExists           409  the name is taken by something else
├── Unsatisfiable           422  no variant can ever meet the SLO (carries reasons and the nearest SLO)
├── Unavailable             503  cannot be answered now; try again after `retry_after_s`
├── DeadlineExceeded        504  accepted, but its latency bound passed before it could run
├── VariantFailed           500  the model itself failed on this query
├── ReplicaLost             503  the replica went away while it held the query
├── ArtifactCorrupt         422  the stored bytes no longer match their hash
├── MissingExtra            501  a framework is not installed; names the extra that brings it
├── ConfigError             400  a configuration file or key is wrong
└── NotRunning              503  no INFaaS system answers at that address

`status` is the HTTP status code of the class, the same at every door (HTTP, driver, command line).
Rule: data of an error travels positionally through `args`, because an exception that crosses a process
boundary is rebuilt as `type(e)(*e.args)`; keyword-only data would be lost, or fail to unpickle.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

_MOST_CHARACTERS = 1000


def told(error: BaseException) -> str:
    """Kind and text of somebody else's error, as it can travel: cut, in valid characters, whatever the error does."""
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}"
    except Exception:
        return kind
    return text[:_MOST_CHARACTERS].encode(errors="replace").decode()


class InfaasError(Exception):
    """Base of all errors raised on purpose.

    `message` says what is wrong and what would be right, in one or two sentences.
    """

    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self.args[0]) if self.args else type(self).__name__

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """The error as the body of an HTTP answer: always `error`, plus machine-readable fields."""
        return {"error": self.message}


class InvalidInput(InfaasError):
    """The request, or a value in it, is wrong."""

    status = 400


class InvalidModel(InvalidInput):
    """A model, a validation set or an artifact handed to registration is wrong."""


class Refused(InvalidModel):
    """A variant works but must not be offered, or its source cannot give it; the same inputs give the same verdict."""


class PayloadTooLarge(InvalidInput):
    """The body is larger than the server accepts."""

    status = 413


class ConfigError(InvalidInput):
    """A configuration file, key or value is wrong."""


class UnknownTarget(InfaasError):
    """No use case, architecture or variant has that name."""

    status = 404


class AlreadyExists(InfaasError):
    """The name is taken by something else."""

    status = 409


class Unsatisfiable(InfaasError):
    """No variant of the target can meet the SLO.

    `reasons` maps each candidate variant to why it lost; `nearest` holds the closest SLO that could be met,
    in the units of the protocol (`latency_ms`, `min_accuracy`, `max_usd_per_1k`), empty where nothing could.
    """

    status = 422

    def __init__(
        self, message: str, reasons: Mapping[str, str] | None = None, nearest: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(message, dict(reasons or {}), dict(nearest or {}))
        self.reasons: dict[str, str] = dict(reasons or {})
        self.nearest: dict[str, float] = dict(nearest or {})

    def to_json(self) -> dict[str, Any]:
        """The error as the body of an HTTP answer."""
        return {"error": self.message, "reasons": self.reasons, "nearest": self.nearest}


class Unavailable(InfaasError):
    """It cannot be answered now; the same query may succeed after `retry_after_s` seconds."""

    status = 503

    def __init__(self, message: str, retry_after_s: float = 1.0, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message, retry_after_s, dict(reasons or {}))
        self.retry_after_s = retry_after_s
        self.reasons: dict[str, str] = dict(reasons or {})

    def to_json(self) -> dict[str, Any]:
        """The error as the body of an HTTP answer."""
        return {"error": self.message, "retry_after_s": self.retry_after_s, "reasons": self.reasons}


class DeadlineExceeded(InfaasError):
    """The latency bound passed before the query could be answered."""

    status = 504


class VariantFailed(InfaasError):
    """The model failed while it computed this query."""

    status = 500


class ReplicaLost(InfaasError):
    """The replica went away while it held the query."""

    status = 503


class ArtifactCorrupt(InfaasError):
    """The bytes of an artifact do not match the hash under which it was stored."""

    status = 422


class MissingExtra(InfaasError):
    """A framework is not installed. `extra` is the optional dependency group that brings it."""

    status = 501

    def __init__(self, message: str, extra: str = "") -> None:
        super().__init__(message, extra)
        self.extra = extra


class NotRunning(InfaasError):
    """No INFaaS system answers at that address."""

    status = 503


def one_of(what: str, name: str, known: Sequence[str]) -> str:
    """The sentence "unknown WHAT 'name'; known: a, b, c", shortened for long lists.

    Used wherever a name is not found, so that every such message says what would be right.
    """
    shown = ", ".join(sorted(known)[:12]) or "none yet"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"unknown {what} {name!r}; known: {shown}{more}"
