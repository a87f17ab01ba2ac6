"""A workload as a file says it: the `workload` section of a scenario.

One stream, or a list of streams that run together. A stream has

- `rates`: `shape` (flat, steady, fluctuating, on-off, flash-crowd, ramp, diurnal, trace) with the settings of that
  shape; also `factor` and `speed` (a day in an hour: 24), and `hidden` (`factors`, `stays_s`: a hidden state that
  multiplies the rates);
- `arrivals`: `process` (poisson by default, gamma with `variation`, even);
- `queries`: a list of groups. A group has a `share`, `rows` (a number, or shares by number), and either `target` (one
  name, or a list of names by falling popularity with `zipf`), its SLO (`latency_ms`, `min_accuracy`, `max_usd_per_1k`,
  `on_miss`, `offline`) and, for several SLOs, `classes`; or `hot_and_cold` with the settings of that function.

A trace has `format` (counts, azure, queries), a `file` (azure: or `files`, one a day), and what is done to it, in this
order: `gap_s` and `gaps` (cut, bridge), `from_s` and `until_s`, `mean_qps` or `peak_qps`, `keep`. Paths are relative to
the scenario and may name environment variables. Rows of `queries` are counted per `step_s`, and arrivals drawn anew.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.errors import ConfigError, InvalidInput, one_of
from infaas_ray.policy.routing import Catalog
from infaas_ray.simulator.arrivals import Even, Gamma, Poisson, Process
from infaas_ray.simulator.diurnal import Diurnal
from infaas_ray.simulator.rates import (
    MOST_STEPS,
    FlashCrowd,
    Flat,
    Fluctuating,
    MarkovModulated,
    OnOff,
    Ramp,
    Rates,
    Scaled,
    Steady,
    positive,
)
from infaas_ray.simulator.traces import Trace, counted, read_azure, read_counts, read_queries
from infaas_ray.simulator.workload import QueryKind, Workload
from infaas_ray.simulator.workloads import Popular, Stream, Together, hot_and_cold, mixed, with_rows, zipf

_SHAPES: Mapping[str, Callable[..., Rates]] = {
    "flat": Flat,
    "steady": Steady,
    "fluctuating": Fluctuating,
    "on-off": OnOff,
    "flash-crowd": FlashCrowd,
    "ramp": Ramp,
    "diurnal": Diurnal,
}
_PROCESSES: Mapping[str, Callable[..., Process]] = {"poisson": Poisson, "gamma": Gamma, "even": Even}
_SLO_KEYS = ("latency_ms", "min_accuracy", "max_usd_per_1k", "on_miss", "offline")
_MOST_QPS = 1e9
Section = Mapping[str, Any]
T = TypeVar("T")


def read_workload(content: object, catalog: Catalog, folder: Path) -> Workload:
    """The workload that a section describes, asking for targets of `catalog`; `folder` is the scenario's.

    Raises ConfigError, naming the key, where the section is wrong.
    """
    if isinstance(content, Sequence) and not isinstance(content, str):
        if not content:
            raise ConfigError("workload: a list of streams must not be empty")
        streams = [_stream(x, catalog, folder, f"workload[{i}]") for i, x in enumerate(content)]
        return streams[0] if len(streams) == 1 else Together(workloads=tuple(streams))
    return _stream(content, catalog, folder, "workload")


def _stream(content: object, catalog: Catalog, folder: Path, where: str) -> Stream:
    section = _section(content, where)
    _only(section, ("rates", "arrivals", "queries"), where)
    for key in ("rates", "queries"):
        if key not in section:
            raise ConfigError(f"{where}.{key} is missing")
    try:
        return Stream(
            popular=_popular(section["queries"], catalog, f"{where}.queries"),
            rates=_rates(section["rates"], folder, f"{where}.rates"),
            process=_process(section.get("arrivals", {}), f"{where}.arrivals"),
        )
    except ConfigError:  # it says where
        raise
    except InvalidInput as error:
        raise ConfigError(f"{where}: {error}") from None


def _section(content: object, where: str) -> Section:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} must hold keys and values")
    return content


def _only(section: Section, known: Sequence[str], where: str) -> None:
    for key in section:
        if key not in known:
            raise ConfigError(f"{where}: {one_of('key', str(key), known)}")


def _build(make: Callable[..., T], section: Section, where: str) -> T:
    """An object of a dataclass from the keys of a section, with their types checked."""
    known = {x.name: x for x in fields(make)}  # type: ignore[arg-type]
    _only(section, list(known), where)
    for name, one in known.items():
        if name not in section and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigError(f"{where}.{name} is missing")
    try:
        found: T = msgspec.convert(dict(section), make)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    return found


def _choice(section: Section, key: str, choices: Sequence[str], where: str, default: str = "") -> str:
    name = section.get(key, default)
    if name not in choices:
        raise ConfigError(f"{where}.{key}: {one_of(key, str(name), choices)}")
    return str(name)


# ---- rates and arrivals ------------------------------------------------------------------------------------------


def _rates(content: object, folder: Path, where: str) -> Rates:
    section = dict(_section(content, where))
    shape = _choice(section, "shape", [*_SHAPES, "trace"], where)
    around = {key: section.pop(key) for key in ("factor", "speed", "hidden") if key in section}
    section.pop("shape")
    for key, value in section.items():
        if key.endswith("_qps") and isinstance(value, int | float) and value > _MOST_QPS:
            raise ConfigError(f"{where}.{key} must be at most {_MOST_QPS:g}, not {value!r}")
    rates = _trace(section, folder, where) if shape == "trace" else _build(_SHAPES[shape], section, where)
    if "hidden" in around:
        hidden = _section(around.pop("hidden"), f"{where}.hidden")
        _only(hidden, ("factors", "stays_s"), f"{where}.hidden")
        rates = MarkovModulated(
            rates=rates, factors=_numbers(hidden, "factors", where), stays_s=_numbers(hidden, "stays_s", where)
        )
    if around:
        rates = Scaled(rates=rates, **{key: _number(value, f"{where}.{key}") for key, value in around.items()})
    if not rates.duration_s / rates.step_s <= MOST_STEPS:
        raise ConfigError(f"{where}: steps of {rates.step_s:g} s are too short for {rates.duration_s:g} s")
    return rates


def _numbers(section: Section, key: str, where: str) -> tuple[float, ...]:
    found = section.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise ConfigError(f"{where}.hidden.{key} must be a list of numbers, not {found!r}")
    return tuple(_number(x, f"{where}.hidden.{key}[{i}]") for i, x in enumerate(found))


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{where} must be a number, not {value!r}")
    return float(value)


def _process(content: object, where: str) -> Process:
    section = dict(_section(content, where))
    name = _choice(section, "process", list(_PROCESSES), where, "poisson")
    section.pop("process", None)
    return _build(_PROCESSES[name], section, where)


_FORMAT_KEYS = {"counts": ("step_s",), "azure": ("files", "function"), "queries": ("step_s", "column", "unit")}
_OF_FORMATS = tuple(dict.fromkeys(key for keys in _FORMAT_KEYS.values() for key in keys))
_TRACE_KEYS = (
    *("format", "file", *_OF_FORMATS),
    *("gap_s", "gaps", "from_s", "until_s", "mean_qps", "peak_qps", "keep"),
)


def _trace(section: Section, folder: Path, where: str) -> Rates:
    _only(section, _TRACE_KEYS, where)
    trace = _recorded(section, folder, where)
    if "gap_s" in section:
        how = _choice(section, "gaps", ("cut", "bridge"), where, "cut")
        trace = trace.without_gaps(_number(section["gap_s"], f"{where}.gap_s"), "cut" if how == "cut" else "bridge")
    if "from_s" in section or "until_s" in section:
        until = section.get("until_s", trace.duration_s)
        trace = trace.window(_number(section.get("from_s", 0), f"{where}.from_s"), _number(until, f"{where}.until_s"))
    scale = {key: _number(section[key], f"{where}.{key}") for key in ("mean_qps", "peak_qps") if key in section}
    if scale:
        trace = trace.scaled(**scale)
    return trace.thinned(_number(section["keep"], f"{where}.keep")) if "keep" in section else trace


def _recorded(section: Section, folder: Path, where: str) -> Trace:
    form = _choice(section, "format", tuple(_FORMAT_KEYS), where)
    for key in _OF_FORMATS:
        if key in section and key not in _FORMAT_KEYS[form]:
            raise ConfigError(f"{where}.{key} is nothing for a trace of the format {form!r}")
    if "file" in section and "files" in section:
        raise ConfigError(f"{where}: a trace has `file` or `files`, not both")
    files = section.get("files", [section.get("file")])
    if not isinstance(files, Sequence) or isinstance(files, str) or not files:
        raise ConfigError(f"{where}.files must be a list of names of files, not {files!r}")
    paths = [_path(x, folder, where) for x in files]
    step_s = _number(section.get("step_s", 1.0), f"{where}.step_s")
    positive(step_s=step_s)
    match form:
        case "counts":
            return read_counts(paths[0], step_s)
        case "azure":
            rank = section.get("function", 1)  # 1: the one with most invocations
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ConfigError(f"{where}.function must be a whole number from 1 on, not {rank!r}")
            found = list(read_azure(paths, most=rank).values())
            if rank > len(found):
                raise ConfigError(f"{where}.function must be at most {len(found)}, as there are no more, not {rank}")
            return found[rank - 1]
        case _:
            unit = _choice(section, "unit", ("s", "ms", "us", "ns", "iso"), where, "s")
            return counted(read_queries(paths[0], str(section.get("column", "timestamp")), unit), step_s)  # type: ignore[arg-type]


def _path(text: object, folder: Path, where: str) -> Path:
    if not isinstance(text, str):
        raise ConfigError(f"{where}: a trace needs `file`, or `files`")
    found = os.path.expandvars(os.path.expanduser(text))
    if "$" in found:
        raise ConfigError(f"{where}: set the environment variable in {text!r} to where you have that file")
    return folder / found


# ---- queries -----------------------------------------------------------------------------------------------------


def _popular(content: object, catalog: Catalog, where: str) -> Popular:
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        raise ConfigError(f"{where} must be a list of groups of queries")
    groups = [_group(x, catalog, f"{where}[{i}]") for i, x in enumerate(content)]
    return mixed(groups)


def _group(content: object, catalog: Catalog, where: str) -> tuple[Popular, float]:
    section = _section(content, where)
    share = _number(section.get("share", 1.0), f"{where}.share")
    if "hot_and_cold" in section:
        _only(section, ("hot_and_cold", "share", "rows"), where)
        popular = _hot_and_cold(section["hot_and_cold"], catalog, f"{where}.hot_and_cold")
    else:
        _only(section, ("target", "zipf", "classes", "share", "rows", *_SLO_KEYS), where)
        popular = _targets(section, catalog, where)
    return _sized(popular, section.get("rows", 1), where), share


def _hot_and_cold(content: object, catalog: Catalog, where: str) -> Popular:
    section = dict(_section(content, where))
    _only(section, ("order", "hot", "hot_share", "hot_bound_ms", "cold_factor", "exponent"), where)
    order, hot = section.get("order", []), section.get("hot", 0)
    if not isinstance(order, Sequence) or not all(isinstance(x, str) for x in order) or isinstance(order, str):
        raise ConfigError(f"{where}.order must be a list of names of architectures, not {order!r}")
    if not isinstance(hot, int):
        raise ConfigError(f"{where}.hot must be a whole number, not {hot!r}")
    for key in ("hot_share", "hot_bound_ms", "cold_factor", "exponent"):
        if key in section:
            section[key] = _number(section[key], f"{where}.{key}")
    if "hot_bound_ms" in section:
        section["hot_bound_s"] = section.pop("hot_bound_ms") / 1000
    return hot_and_cold(catalog, **section)


def _targets(section: Section, catalog: Catalog, where: str) -> Popular:
    target = section.get("target")
    names = [target] if isinstance(target, str) else target
    if not isinstance(names, Sequence) or not names:
        raise ConfigError(f"{where} needs a `target`: a name, or a list of names by falling popularity")
    known = catalog.targets()
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"{where}.target: {one_of('target', str(name), list(known))}")
    shares = zipf(len(names), _number(section.get("zipf", 0.0), f"{where}.zipf"))
    classes = _classes(section, where)
    return Popular(
        kinds=tuple(QueryKind(target=name, slo=slo) for name in names for slo, _ in classes),
        shares=tuple(share * part for share in shares for _, part in classes),
    )


def _classes(section: Section, where: str) -> list[tuple[SLO, float]]:
    """SLOs with their shares; what a class does not say is as in its group."""
    common = {key: section[key] for key in _SLO_KEYS if key in section}
    found = []
    classes = section.get("classes", [{}])
    if not isinstance(classes, Sequence) or isinstance(classes, str) or not classes:
        raise ConfigError(f"{where}.classes must be a list of classes, each with its `share` and its SLO")
    for i, content in enumerate(classes):
        place = f"{where}.classes[{i}]"
        own = dict(_section(content, place))
        _only(own, ("share", *_SLO_KEYS), place)
        share = _number(own.pop("share", 1.0), f"{place}.share")
        found.append((_slo(common | own, place), share))
    return found


def _slo(section: dict[str, Any], where: str) -> SLO:
    latency_ms = section.pop("latency_ms", None)
    if latency_ms is not None:
        section["latency_s"] = _number(latency_ms, f"{where}.latency_ms") / 1000
        if section["latency_s"] <= 0:
            raise ConfigError(f"{where}.latency_ms must be above 0, not {latency_ms!r}")
    if "on_miss" in section:
        section["on_miss"] = OnMiss(_choice(section, "on_miss", [x.value for x in OnMiss], where))
    return _build(SLO, section, where)


def _sized(popular: Popular, rows: object, where: str) -> Popular:
    if isinstance(rows, int) and not isinstance(rows, bool):
        return with_rows(popular, {rows: 1.0})
    try:
        return with_rows(popular, msgspec.convert(rows, dict[int, float]))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}.rows must be a number of rows, or shares by number: {error}") from None
