"""For all tests.

Tests time nothing: a busy machine must not fail one. While one works, property tests try a few examples, the same
each time; `make test` tries more besides, drawn anew: `--hypothesis-profile=thorough`.
"""

import gc

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=25, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("quick")

# What is imported stays to the end; looking through it for garbage again and again takes a fifth of the unit tests.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
