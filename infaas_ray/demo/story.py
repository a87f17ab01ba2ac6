"""The demonstration from beginning to end: models, variants, a running system, questions, a burst, the bill.

Every query asked is counted by its fate, here and in the system; the story is complete only if both agree and none is
missing. Rule: nothing is invented; every number shown was measured in this run (or in the registration it reuses).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infaas_ray import api
from infaas_ray.client import Client
from infaas_ray.config import Settings
from infaas_ray.demo.models import DemoModel, prepare
from infaas_ray.demo.questions import Question, questions
from infaas_ray.demo.report import show
from infaas_ray.domain import Answer, Array
from infaas_ray.errors import DeadlineExceeded, InfaasError, Unavailable, Unsatisfiable
from infaas_ray.policy.routing import Catalog
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.serving.sender import Outcome
from infaas_ray.variants.generator import GenerationOptions

# A few of all that could be made, so that the story stays short; dominated ones stay, to be seen in the picture.
_GENERATION = {
    "digit-classification": GenerationOptions(
        recipes=("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8"), offer_all=True
    ),
    "sentence-embedding": GenerationOptions(
        recipes=("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8", "onnxruntime-int8-dynamic"), offer_all=True
    ),
}
_PATIENCE = 20  # times that a question refused for now is asked again, each after the time that the refusal names
_BURST_S = 12.0
_OVERLOAD = 1.3  # rows of the burst over what one replica of the most accurate variant can answer
_MOST_QPS = 300.0  # of one stream in the burst; the sender shares the machine with the system


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and its fate. Times in milliseconds; prices in US dollars per 1,000 rows."""

    question: Question
    fate: str
    variant: str = ""
    accuracy: float | None = None
    latency_ms: float | None = None
    usd_per_1k: float | None = None
    most_accurate_usd_per_1k: float | None = None
    slo_met: bool | None = None
    attempts: int = 1
    said: str = ""


@dataclass(slots=True, kw_only=True)
class Bill:
    """What the answers of one use case cost, and what always using its most accurate variant would have cost."""

    answers: int = 0
    usd: float = 0.0
    most_accurate_usd: float = 0.0


@dataclass(slots=True, kw_only=True)
class Told:
    """What happened."""

    catalog: Catalog
    asked: list[Asked] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    burst_variants: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    bills: dict[str, "Bill"] = field(default_factory=dict)
    burst: tuple[float, float] = (0.0, 0.0)
    history: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    system_counts: Mapping[str, int] = field(default_factory=dict)
    picture: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every query asked has exactly one fate, and the system counted the same."""
        counts = self.system_counts
        fates = {name: counts.get(name, 0) for name in ("answered", "rejected", "expired", "failed", "cancelled")}
        return (
            self.fates["answered"] > 0
            and sum(self.fates.values()) == counts.get("accepted", 0) == sum(fates.values())
            and all(self.fates[name] == count for name, count in fates.items())
        )

    def peak_replicas(self) -> int:
        """The most replicas of one variant at a time."""
        return max((count for _, counts in self.history for count in counts.values()), default=0)

    def summary(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "complete": self.complete,
            "queries": dict(self.fates),
            "system": dict(self.system_counts),
            "asked": [msgspec.to_builtins(x) for x in self.asked],
            "burst_variants": dict(self.burst_variants),
            "peak_replicas": self.peak_replicas(),
            "bills": {name: msgspec.to_builtins(bill) for name, bill in self.bills.items()},
            "picture": str(self.picture),
            "seconds": self.seconds,
        }

    def show(self, console: Console) -> None:
        """All of it, for people."""
        show(self, console)


def tell(settings: Settings, results: Path, console: Console) -> Told:
    """Run the demonstration; its picture and a JSON of everything go to `results`. Progress goes to `console`."""
    results.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _chapter("models", seconds):
        models = _prepare(settings.home / "models", console)
    with _chapter("variants", seconds):
        _register(settings, models, console)
    console.print("starting the system")
    with _chapter("start", seconds):
        launch.up(settings)
    try:
        told = _serve(settings, models, console, seconds)
    finally:
        console.print("ending the system")
        launch.down(settings)
    told.seconds = seconds
    told.picture = _draw(told, results)
    (results / "demo.json").write_bytes(msgspec.json.format(msgspec.json.encode(told.summary())))
    return told


@contextmanager
def _chapter(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 1)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<80}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _prepare(folder: Path, console: Console) -> list[DemoModel]:
    with _bar(console) as bar:
        task = bar.add_task("models")
        return prepare(
            folder,
            lambda name, done, total: bar.update(task, description=f"models: {name}", completed=done, total=total),
        )


def _register(settings: Settings, models: list[DemoModel], console: Console) -> None:
    with _bar(console) as bar:
        for model in models:
            task = bar.add_task(model.architecture, total=None)
            found = api.register(
                model.path,
                architecture=model.architecture,
                task=model.task,
                dataset=model.dataset,
                validation=model.validation,
                metric=model.metric,
                on_progress=lambda x, task=task, name=model.architecture: bar.update(  # type: ignore[misc]
                    task, description=f"{name}: {x.step}", completed=x.done, total=x.total
                ),
                options=_GENERATION[model.task],
                settings=settings,
            )
            offered = f"{model.architecture}: {len(found.variants)} variants, {len(found.failures)} refused"
            bar.update(task, description=offered)
            for label, reason in found.failures.items():
                console.print(f"  not offered: {label}: {reason}", soft_wrap=True)


def _serve(settings: Settings, models: list[DemoModel], console: Console, seconds: dict[str, float]) -> Told:
    catalog = launch.catalog(settings)
    told = Told(catalog=catalog)
    samples = {f"{x.task}:{x.dataset}": x.sample for x in models}
    with _chapter("questions", seconds), Client(f"http://127.0.0.1:{settings.http.port}") as client:
        _until_offered(client, catalog)
        for question in questions(catalog):
            told.asked.append(_ask(client, question, samples[question.use_case], told))
    with _chapter("burst", seconds), launch.open_system(settings) as system:
        _burst(system, samples, told, console)
    _settle(settings, told)
    told.history = launch.history(settings)
    return told


def _until_offered(client: Client, catalog: Catalog) -> None:
    end = time.monotonic() + 30.0
    while time.monotonic() < end and len(client.targets()) < len(catalog.offers):
        time.sleep(0.1)


def _fate(error: InfaasError) -> str:
    if isinstance(error, Unsatisfiable | Unavailable):
        return "rejected"
    return "expired" if isinstance(error, DeadlineExceeded) else "failed"


def _ask(client: Client, question: Question, sample: Mapping[str, Array], told: Told) -> Asked:
    """Ask one question over HTTP; one refused for now is asked again after the time that the refusal names."""
    inputs = {name: x[:1] for name, x in sample.items()}
    for attempt in range(1, _PATIENCE + 1):
        try:
            result = client.infer(question.target, inputs, **question.slo)
        except InfaasError as error:
            told.fates[_fate(error)] += 1
            if not isinstance(error, Unavailable) or attempt == _PATIENCE:
                return Asked(question=question, fate=_fate(error), attempts=attempt, said=error.message)
            time.sleep(max(0.1, error.retry_after_s))
        else:
            best = _most_accurate(told.catalog, question.use_case)
            _bill(told, question.use_case, result.variant, best, 1)
            return Asked(
                question=question,
                fate="answered",
                variant=result.variant,
                accuracy=result.accuracy,
                latency_ms=result.latency_ms,
                usd_per_1k=result.usd_per_1k,
                most_accurate_usd_per_1k=told.catalog.offers[best].usd_per_1k,
                slo_met=result.slo_met,
                attempts=attempt,
            )
    raise AssertionError("the last attempt returns")


def _bill(told: Told, use_case: str, variant: str, most_accurate: str, rows: int) -> None:
    told.fates["answered"] += 1
    told.answered_by[variant] += 1
    bill = told.bills.setdefault(use_case, Bill())
    bill.answers += 1
    bill.usd += told.catalog.offers[variant].usd_per_1k * rows / 1000
    bill.most_accurate_usd += told.catalog.offers[most_accurate].usd_per_1k * rows / 1000


def _most_accurate(catalog: Catalog, use_case: str) -> str:
    """The variant that one would fix who knows only accuracy; among equals the cheapest."""
    return min(catalog.targets()[use_case], key=lambda x: (-catalog.offers[x].accuracy, catalog.offers[x].usd_per_1k))


def _burst(system: System, samples: Mapping[str, Mapping[str, Array]], told: Told, console: Console) -> None:
    """Queries faster than what is loaded can answer, for one use case after the other.

    Open loop: each query is sent when its time has come, whatever became of those before it.
    """
    wall = time.time()
    with _bar(console) as bar:
        for use_case, sample in samples.items():
            stream = _Stream(told.catalog, use_case, sample)
            words = f"burst: {stream.rate_qps:.0f} queries/s of {stream.rows} rows for {use_case}"
            task = bar.add_task(words, total=int(_BURST_S * stream.rate_qps))
            for future in _send(system, stream, lambda sent, task=task: bar.update(task, completed=sent)):  # type: ignore[misc]
                outcome = future.result()
                if isinstance(outcome, Answer):
                    told.burst_variants[outcome.variant] += 1
                    _bill(told, use_case, outcome.variant, stream.most_accurate, stream.rows)
                else:
                    told.fates[_fate(outcome)] += 1
    told.burst = (wall, time.time())


def _send(system: System, stream: "_Stream", on_sent: Callable[[int], None]) -> list[Future[Outcome]]:
    """Send a stream's queries, each at its time, until the burst is over."""
    waiting: list[Future[Outcome]] = []
    started = time.monotonic()
    while (now_s := time.monotonic() - started) < _BURST_S:
        waiting += [system.submit(stream.use_case, query, **stream.slo) for query in stream.due(now_s)]
        on_sent(len(waiting))
        time.sleep(0.002)
    return waiting


class _Stream:
    """Evenly spaced queries that ask a use case for its best accuracy, but take less where that cannot be had in time.

    More rows than one replica of the most accurate variant can answer: as many queries a second as the sender
    manages, and as many rows in each as it takes.
    """

    def __init__(self, catalog: Catalog, use_case: str, sample: Mapping[str, Array]) -> None:
        self.use_case = use_case
        self.most_accurate = _most_accurate(catalog, use_case)
        best = catalog.offers[self.most_accurate]
        rate_rows = _OVERLOAD * best.profile.saturation_qps
        self._sample = sample
        self.rows = min(len(next(iter(sample.values()))), math.ceil(rate_rows / _MOST_QPS))
        self.rate_qps = min(_MOST_QPS, rate_rows / self.rows)
        latency_ms = max(100.0, 20e3 * best.profile.latency_s(1))
        self.slo: dict[str, Any] = {
            "latency_ms": latency_ms,
            "min_accuracy": best.accuracy,
            "on_miss": "degrade",
        }
        self._sent = 0

    def due(self, now_s: float) -> Iterator[dict[str, Array]]:
        """The queries whose time has come, each of some rows of the sample, in turn."""
        starts = len(next(iter(self._sample.values()))) - self.rows + 1
        while self._sent < now_s * self.rate_qps:
            start = self._sent % starts
            self._sent += 1
            yield {name: x[start : start + self.rows] for name, x in self._sample.items()}


def _settle(settings: Settings, told: Told) -> None:
    """Wait until the routers have reported every query that was asked."""
    end = time.monotonic() + 10.0
    while True:
        told.system_counts = launch.status(settings)["queries"]
        if told.complete or time.monotonic() > end:
            return
        time.sleep(0.2)


def _draw(told: Told, results: Path) -> Path:
    from infaas_ray.demo.picture import draw

    return draw(told, results / "demo.png")
