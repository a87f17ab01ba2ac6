"""Where a controller writes what it knew and decided; `policy.replay` reads it."""

import time
from typing import BinaryIO

from infaas_ray.config import Settings
from infaas_ray.policy.replay import encode_header


def open_log(settings: Settings) -> BinaryIO:
    """A decision log for this controller's life; that of the life before is kept beside it."""
    path = settings.home / "decisions.jsonl"
    if path.exists():
        path.replace(path.with_suffix(".old.jsonl"))
    log = path.open("wb")
    log.write(encode_header(settings.scaling, time.time() - time.monotonic()) + b"\n")
    return log
