"""For all tests."""

from hypothesis import settings

settings.register_profile("timeless", deadline=None)  # tests time nothing: a busy machine must not fail one
settings.load_profile("timeless")
