"""How the processes on the way of a query collect garbage: rarely, and never what lives as long as they do."""

import gc

_OBJECTS = 20_000  # made before the youngest are looked through; thousands live while their queries are under way


def settle() -> None:
    """Take what lives now for lasting. Looking through it again and again would cost milliseconds each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, 20, 20)
