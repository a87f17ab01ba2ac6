"""For all tests.

Tests time nothing: a busy machine must not fail one. While one works, property tests try a few examples, the same
each time; `make test` tries more besides, drawn anew: `--hypothesis-profile=thorough`.
"""

import gc

from hypothesis import settings
from hypothesis.internal.conjecture import providers

settings.register_profile("quick", deadline=None, max_examples=25, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("quick")

# Hypothesis also tries constants that it finds in our source: reading all of it takes two seconds of a first run, and
# the examples of a test would change with any file.
providers._get_local_constants = lambda: providers._local_constants

# What is imported stays to the end; looking through it for garbage again and again takes a fifth of the unit tests.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
