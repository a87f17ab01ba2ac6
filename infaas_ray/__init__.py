"""INFaaS on Ray: say what a query needs, and the system chooses the model-variant that answers it.

`connect()` for programs on the machine or cluster, `Client(url)` over HTTP, `register(...)` for models. Everything
is imported when first used, so that `import infaas_ray` is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infaas_ray.api import connect, register
    from infaas_ray.client import Client

__all__ = ["Client", "connect", "register"]

_HOMES = {"Client": "infaas_ray.client", "connect": "infaas_ray.api", "register": "infaas_ray.api"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'infaas_ray' has no attribute {name!r}; it has {', '.join(__all__)}")
