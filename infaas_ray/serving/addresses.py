"""Where processes of the system listen: `host:port`, `unix:/path`, or the name of a Ray actor, comma-separated."""

import os
import tempfile
from pathlib import Path

import psutil

from infaas_ray.errors import ConfigError

ACTOR = "actor:"  # before the name of a Ray actor among addresses: another way to the same replica


def sockets_in(addresses: str) -> list[str]:
    """The sockets among comma-separated addresses, socket files first."""
    places = [x for x in addresses.split(",") if not x.startswith(ACTOR)]
    return sorted(places, key=lambda x: not x.startswith("unix:"))


def actor_in(addresses: str) -> str:
    """The name of the actor behind comma-separated addresses; empty where none is named."""
    return next((x.removeprefix(ACTOR) for x in addresses.split(",") if x.startswith(ACTOR)), "")


def socket_folder() -> Path:
    """A folder for socket files, this user's alone, with a name short enough for the limit of 107 bytes."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir()))
    folder = base / f"infaas-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")
    return folder


def sweep_sockets() -> None:
    """Remove the socket files of processes that are gone; their names are process ids."""
    for file in socket_folder().glob("*.sock"):
        if file.stem.isdigit() and not psutil.pid_exists(int(file.stem)):
            file.unlink(missing_ok=True)
