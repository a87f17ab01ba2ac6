"""Generates and profiles the GPU variants of two networks: `python -m benchmarks.gpu.run`, on a machine with a GPU.

Each variant is checked against fp32 by the registration itself (the cosine of its outputs). Profiles go to
`configs/profiles/`, named by hardware, network and date; a table goes to `benchmarks/gpu/results/`. The last line is
JSON: per network the number of variants, the best throughput against eager fp32, and what failed.
"""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.gpu.resnet50 import write_resnet50
from benchmarks.variants.networks import Network, digits_at, encoder
from benchmarks.variants.run import table, worth
from infaas_ray.demo.models import make_once
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.machine import hardware
from infaas_ray.variants.profile_file import export_profiles
from infaas_ray.variants.registration import Registration, register

PROFILES = Path("configs/profiles")
RESULTS = Path(__file__).parent / "results"
SIDE = 224
BATCH_LIMITS = (8, 64)


def main() -> None:
    """Register both networks on the GPU and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".infaas/bench-gpu"))
    parser.add_argument("--networks", nargs="+", choices=("cnn", "minilm"), default=("cnn", "minilm"))
    given = parser.parse_args()
    machine = hardware(HardwareKind.GPU)  # ends here, and says so, where there is no GPU
    for folder in (given.work, PROFILES, RESULTS):
        folder.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    label = re.sub(r"[^a-z0-9]+", "-", machine.model.lower()).strip("-")
    told = {}
    for short in given.networks:
        network = {"cnn": cnn, "minilm": encoder}[short](given.work)
        metadata = Metadata(f"sqlite:///{given.work / 'metadata.db'}")
        found = _register(network, metadata, given.work)
        export_profiles(metadata, PROFILES / f"{label}-{network.name}-{day}.json", [network.name])
        metadata.close()
        text = f"{machine.model}, {day}\n\n" + table(network.name, found)
        (RESULTS / f"{label}-{network.name}.md").write_text(text)
        print(text)
        told[short] = {**worth(found.variants), "failed": sorted(found.failures), "missing": sorted(found.missing)}
    print(json.dumps({"gpu": machine.model, **told}))


def cnn(folder: Path) -> Network:
    """A ResNet-50 on digits enlarged to 224x224, trained on the GPU where its file is not there yet."""
    make_once(folder / "digits224.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **digits_at(SIDE)))
    make_once(folder / "resnet50.pt2", lambda path: write_resnet50(path, SIDE))
    return Network(
        name="resnet50-digits",
        path=folder / "resnet50.pt2",
        validation=folder / "digits224.npz",
        metric="top1_accuracy",
        use_case=UseCase(task="digit-classification", dataset="digits224"),
    )


def _register(network: Network, metadata: Metadata, work: Path) -> Registration:
    return register(
        network.path,
        architecture=network.name,
        use_case=network.use_case,
        validation=network.validation,
        metric=network.metric,
        metadata=metadata,
        repository=FolderRepository(work / "repository"),
        options=GenerationOptions(
            hardware=(HardwareKind.GPU,),
            batch_limit=max(BATCH_LIMITS),
            gpu_batch_limits=BATCH_LIMITS,
            build_limit_s=1800.0,
            profile_limit_s=1800.0,
        ),
        on_progress=lambda x: print(f"  [{x.done}/{x.total}] {x.step}: {x.note}", flush=True),
    )


if __name__ == "__main__":
    main()
