"""What both ends of a connection agree on: how they prove that they know the secret, and how errors travel."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from infaas_ray import errors
from infaas_ray.errors import InfaasError, told

HANDSHAKE_S = 5.0
BACK = "back"  # the verb of a frame that takes a call back
_ERROR_TYPES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, InfaasError)
}


def proof_of(secret: bytes, side: bytes, *nonces: bytes) -> bytes:
    """What only who knows the secret can say about these nonces, as that side."""
    return hmac.digest(secret, side + b"".join(nonces), hashlib.sha256)


def describe(error: Exception) -> dict[str, Any]:
    """An error as fields of a frame; of one that is not ours, the words."""
    known = isinstance(error, InfaasError)
    return {
        "type": type(error).__name__ if known else "VariantFailed",
        "args": list(error.args) if known else [told(error)],
    }


def rebuild(fields: Mapping[str, Any]) -> InfaasError:
    """The error that such fields describe."""
    kind = _ERROR_TYPES.get(str(fields.get("type")), InfaasError)
    return kind(*fields.get("args", ()))
