"""New prices in a price catalogue, with everything else in the file, comments and layout, left as it is.

Rule: a file changes whole or not at all, and only if it then says what it said before but for the new prices.
"""

import copy
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import yaml

from infaas_ray.errors import ConfigError

_KEYS = ("usd_per_hour", "source", "date")
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C where PyYAML was built with it


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrice:
    """What a worker type costs in US dollars an hour, by which source, on which date (ISO 8601)."""

    usd_per_hour: float
    source: str
    date: str


def write_prices(path: Path, prices: Mapping[str, NewPrice]) -> None:
    """Give worker types of a price catalogue new prices, by their names.

    Raises ConfigError where the file cannot be changed so, and leaves it alone.
    """
    text = path.read_bytes().decode()
    fresh = with_prices(text, prices)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(fresh.encode())
            file.flush()
            os.fsync(handle)
        Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path.resolve())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def with_prices(text: str, prices: Mapping[str, NewPrice]) -> str:
    """The text of a catalogue with these prices. Raises ConfigError where it cannot be changed in place."""
    expected = _expected(_content(text), prices)
    fresh = text
    for start, end, instead in sorted(_edits(text, prices), reverse=True):
        fresh = fresh[:start] + instead + fresh[end:]
    try:
        same = yaml.load(fresh, _YamlLoader) == expected  # noqa: S506
    except yaml.YAMLError:
        same = False
    if not same:
        raise ConfigError("the catalogue cannot be changed in place (anchors, perhaps): change its prices by hand")
    return fresh


def _edits(text: str, prices: Mapping[str, NewPrice]) -> Iterator[tuple[int, int, str]]:
    """What to put in the place of which characters."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for entry in _field(root, "worker_types").value:
        new = prices.get(_field(entry, "name").value)
        if new is None:
            continue
        number = f"{new.usd_per_hour:.6f}".rstrip("0").rstrip(".")
        values = {"usd_per_hour": number, "source": _quoted(new.source), "date": _quoted(new.date)}
        here = {key.value: node for key, node in entry.value}
        for key in _KEYS:
            if key in here:
                yield here[key].start_mark.index, here[key].end_mark.index, values[key]
        missing = [key for key in _KEYS if key not in here]
        if missing:
            last = here["usd_per_hour"]
            column = next(key.start_mark.column for key, _ in entry.value if key.value == "usd_per_hour")
            between = ", " if entry.flow_style else "\n" + " " * column
            end = last.end_mark.index
            yield end, end, "".join(f"{between}{key}: {values[key]}" for key in missing)


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=inf, allow_unicode=True)).rstrip("\n")


def _field(node: Any, name: str) -> Any:
    return next(value for key, value in node.value if key.value == name)


def _content(text: str) -> Any:
    try:
        return yaml.load(text, _YamlLoader)  # noqa: S506  # both loaders are safe ones
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}") from None


def _expected(content: Any, prices: Mapping[str, NewPrice]) -> Any:
    changed = copy.deepcopy(content)
    if not isinstance(changed, dict) or not isinstance(changed.get("worker_types"), list):
        raise ConfigError("this is no price catalogue: it needs a list 'worker_types'")
    for entry in changed["worker_types"]:
        new = prices.get(entry["name"])
        if new is not None:
            entry |= {"usd_per_hour": round(new.usd_per_hour, 6), "source": new.source, "date": new.date}
    return changed
