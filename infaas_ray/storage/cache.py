"""A folder on this machine that holds copies of what can be made or fetched again, up to a size.

Rules: an entry appears whole or not at all (made aside, then renamed), several processes may use the folder at once,
and the entries that were used longest ago go first. An entry that goes while somebody has it open stays readable for
them.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_GIB = 2**30
DEFAULT_LIMIT_BYTES = 20 * _GIB


def cache_root() -> Path:
    """Where this user's caches are: INFAAS_CACHE, else `infaas` in XDG_CACHE_HOME or `~/.cache`."""
    named = os.environ.get("INFAAS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infaas"


class LocalCache:
    """Entries (files or folders) by name under `root`, at most `limit_bytes` together.

    Only the newest entry may exceed the limit: what is needed now is kept, however large.
    """

    def __init__(self, root: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.root = root
        self._limit_bytes = limit_bytes

    def get(self, name: str) -> Path | None:
        """The entry, marked as used now; None where there is none."""
        path = self.root / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def put(self, name: str, make: Callable[[Path], None]) -> Path:
        """The entry, made by `make(path)` at a temporary path; where another process was quicker, theirs."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=self.root) as folder:
            made = Path(folder) / "entry"
            make(made)
            try:
                made.replace(self.root / name)
            except OSError:  # a folder with content is not replaced
                if self.get(name) is None:
                    raise
        self._trim(name)
        return self.root / name

    def remove(self, name: str) -> None:
        """Forget an entry; nothing happens where there is none."""
        path = self.root / name
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _trim(self, kept: str) -> None:
        """Remove what was used longest ago until the rest fits."""
        entries = []
        for path in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process trims, too
                if not path.name.startswith("."):
                    entries.append((path.name != kept, -path.stat().st_mtime, path.name, _size(path)))
        total = 0
        for _, _, name, size in sorted(entries):
            total += size
            if total > self._limit_bytes and name != kept:
                self.remove(name)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    return path.stat().st_size
