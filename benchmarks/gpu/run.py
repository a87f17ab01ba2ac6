"""Generates and profiles the GPU variants of two networks: `python -m benchmarks.gpu.run`, on a machine with a GPU.

Each variant is checked against fp32 by the registration itself (the cosine of its outputs). Profiles go to
`configs/profiles/`, named by hardware, network and date, and a table to `benchmarks/gpu/results/`, as soon as a
variant is measured. The last line is JSON: per network the number of variants, the best throughput against eager fp32,
and what failed; or `unfinished`, where the seconds given were over. What was measured is not measured again.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.variants.networks import Network, digits_at, encoder
from benchmarks.variants.run import register_network, table, worth
from infaas_ray.demo.models import make_once
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.errors import InfaasError
from infaas_ray.storage.metadata import Metadata
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.machine import hardware
from infaas_ray.variants.profile_file import export_profiles
from infaas_ray.variants.registration import Progress, Registration

SIDE = 224
STEP_LIMIT_S = 240.0  # of one build or one profile


class OutOfTime(Exception):
    """The seconds given are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the run works and writes, on which GPU, and the monotonic time at which it ends."""

    work: Path
    profiles: Path
    results: Path
    gpu: str
    day: str
    ends_at: float

    def named(self, network: str, suffix: str) -> str:
        """A file name of hardware and network."""
        return re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-") + f"-{network}{suffix}"


def main() -> None:
    """Register both networks on the GPU and write down what came of it."""
    given = _arguments()
    machine = hardware(HardwareKind.GPU)  # ends here, and says so, where there is no GPU
    for folder in (given.work, given.profiles, given.results):
        folder.mkdir(parents=True, exist_ok=True)
    place = Place(
        work=given.work,
        profiles=given.profiles,
        results=given.results,
        gpu=machine.model,
        day=datetime.now(UTC).date().isoformat(),
        ends_at=time.monotonic() + given.seconds,
    )
    options = GenerationOptions(
        hardware=(HardwareKind.GPU,),
        recipes=given.recipes,
        batch_limit=max(given.batch_limits),
        gpu_batch_limits=tuple(given.batch_limits),
        build_limit_s=STEP_LIMIT_S,
        profile_limit_s=STEP_LIMIT_S,
    )
    makers: dict[str, Callable[[Path], Network]] = {"cnn": cnn, "minilm": encoder}
    told = {short: _one(makers[short], place, options) for short in given.networks}
    print(json.dumps({"gpu": machine.model, **told}))
    if any("error" in x for x in told.values()):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".infaas/bench-gpu"), help="models and what is registered")
    parser.add_argument("--profiles", type=Path, default=Path("configs/profiles"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--networks", nargs="+", choices=("cnn", "minilm"), default=("cnn", "minilm"))
    parser.add_argument("--recipes", nargs="+", help="labels such as torch-compiled-fp16; by default all that pay")
    parser.add_argument("--batch-limits", nargs="+", type=int, default=(8, 64))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no step later; run again to go on")
    given = parser.parse_args()
    if not given.seconds > 0:  # not a number, too
        parser.error(f"--seconds must be above 0, not {given.seconds:g}")
    return given


def cnn(folder: Path) -> Network:
    """A ResNet-50 on digits enlarged to 224x224, trained on the GPU where its file is not there yet.

    Trained in a process of its own, so that this one holds nothing on the GPU that is measured.
    """
    make_once(folder / "digits224.npz", lambda path: np.savez(path, allow_pickle=False, **digits_at(SIDE)))
    train = [sys.executable, "-m", "benchmarks.gpu.resnet50", str(SIDE)]
    make_once(folder / "resnet50.pt2", lambda path: subprocess.run([*train, str(path)], check=True))
    return Network(
        name="resnet50-digits",
        path=folder / "resnet50.pt2",
        validation=folder / "digits224.npz",
        metric="top1_accuracy",
        use_case=UseCase(task="digit-classification", dataset="digits224"),
    )


def _one(make: Callable[[Path], Network], place: Place, options: GenerationOptions) -> dict[str, Any]:
    """Register one network; the other one is not to suffer from what happens to it."""
    metadata = Metadata(f"sqlite:///{place.work / 'metadata.db'}")
    try:
        network = make(place.work)
        return _register(network, metadata, place, options)
    except (InfaasError, subprocess.CalledProcessError) as error:
        return {"error": str(error)}
    finally:
        metadata.close()


def _register(network: Network, metadata: Metadata, place: Place, options: GenerationOptions) -> dict[str, Any]:
    def tell(progress: Progress) -> None:
        if progress.note == "profiled":
            _keep(_so_far(network, metadata), network, metadata, place)
        if time.monotonic() > place.ends_at:
            raise OutOfTime

    try:
        found = register_network(network, metadata, place.work, options, tell)
    except OutOfTime:
        begun = network.name in metadata.architectures()
        return {**(_told(_so_far(network, metadata)) if begun else {"variants": 0}), "unfinished": True}
    _keep(found, network, metadata, place)
    print(table(network.name, found))
    return _told(found)


def _so_far(network: Network, metadata: Metadata) -> Registration:
    """What an unfinished registration has left."""
    name = network.name
    return Registration(
        architecture=metadata.architectures()[name],
        variants=tuple(metadata.variants(name)),
        skipped=(),
        failures={x.label: x.reason for x in metadata.failures(name)},
        offered=frozenset(x.name for x, _ in metadata.variants(name, offered=True)),
    )


def _keep(found: Registration, network: Network, metadata: Metadata, place: Place) -> None:
    """Write the profiles and the table."""
    export_profiles(metadata, place.profiles / place.named(network.name, f"-{place.day}.json"), [network.name])
    text = f"{place.gpu}, {place.day}\n\n{table(network.name, found)}"
    (place.results / place.named(network.name, ".md")).write_text(text)


def _told(found: Registration) -> dict[str, Any]:
    return {**worth(found.variants), "failed": sorted(found.failures), "missing": sorted(found.missing)}


if __name__ == "__main__":
    try:
        main()
    except InfaasError as wrong:
        sys.exit(str(wrong))
