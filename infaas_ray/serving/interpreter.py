"""How the processes on the way of a query share their one interpreter: with garbage, and between threads.

Rules: garbage is collected rarely, and never what lives as long as they do. Threads change turns quickly: a model that
has computed must not wait until the event loop has worked off its pile, nor the event loop for the model's thread.
"""

import gc
import sys

_OBJECTS = 20_000  # made before the youngest are looked through; thousands live while their queries are under way
_TURN_S = 0.0002  # Python's 5 ms would be longer than most batches take


def settle() -> None:
    """Take what lives now for lasting. Looking through it again and again would cost milliseconds each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, 20, 20)
    sys.setswitchinterval(_TURN_S)
