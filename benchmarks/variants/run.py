"""Registers two networks, and says what their variants are worth: `python -m benchmarks.variants.run`.

Prints progress, a table per network, and last one line of JSON. Keeps table, picture, profiles and numbers in
`benchmarks/variants/results/`. What is registered already in the work folder is not registered again.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.variants.networks import NETWORKS, Network
from infaas_ray.domain import HardwareKind, Profile, Variant
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants import pareto_picture
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.jobs import run_job
from infaas_ray.variants.latency_fit import fit_latency
from infaas_ray.variants.machine import hardware
from infaas_ray.variants.profile_file import export_profiles
from infaas_ray.variants.profile_job import Measured, ProfileJob
from infaas_ray.variants.registration import Progress, Registration, register

RESULTS = Path(__file__).parent / "results"
FITTED, LEFT_OUT = (1, 2, 4, 8, 16), (3, 6, 11)
MOST_ACCURACY_LOST = 0.01


def main() -> None:
    """Run the stages and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".infaas/bench-variants"))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.results.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, float] = {}
    errors: list[float] = []
    memory: dict[str, dict[str, dict[str, float]]] = {}
    for short in given.networks:
        network = NETWORKS[short](given.work)
        found = _register(network, given.work, tuple(given.threads))
        numbers |= {f"{short}_{name}": value for name, value in worth(found.variants).items()}
        _keep(network, found, given.work, given.results)
        errors += _fit_errors(network, found, given.work)
        memory[short] = _memory(network, found, given.work)
    memory_errors = [x["error"] for found in memory.values() for name, x in found.items() if name != "empty"]
    numbers |= {
        "latency_fit_median_error": float(np.median(errors)),
        "latency_fit_p95_error": float(np.percentile(errors, 95)),
        "memory_error": max(memory_errors),
        "memory_median_error": float(np.median(memory_errors)),
    }
    machine = hardware(HardwareKind.CPU)
    content = {"machine": machine.model, "cores": machine.cores, "numbers": numbers, "memory": memory}
    (given.results / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))


def worth(variants: Sequence[tuple[Variant, Profile]]) -> dict[str, float]:
    """How many variants there are, and the greatest gain in throughput over eager PyTorch, both on one thread.

    Without eager fp32 there is nothing to compare with, and only the number is told. Only variants count that lose at
    most one point of accuracy; `accuracy_drop` is that of the best one. On one thread the times do not depend on what
    else the machine does.
    """
    eager = max(
        (p for v, p in variants if (v.runtime, v.precision, v.threads) == ("torch", "fp32", 1)),
        key=lambda x: x.saturation_qps,
        default=None,
    )
    if eager is None:
        return {"variants": len(variants)}
    able = [
        (p.saturation_qps / eager.saturation_qps, eager.accuracy.value - p.accuracy.value)
        for v, p in variants
        if v.threads == 1 and p.accuracy.value >= eager.accuracy.value - MOST_ACCURACY_LOST
    ]
    speedup, drop = max(able)
    return {"variants": len(variants), "speedup": speedup, "accuracy_drop": drop}


def _register(network: Network, work: Path, threads: tuple[int, ...]) -> Registration:
    metadata = Metadata(f"sqlite:///{work / 'metadata.db'}")
    print(f"{network.name}: registering", flush=True)
    try:
        return register_network(network, metadata, work, GenerationOptions(threads=threads))
    finally:
        metadata.close()


def register_network(
    network: Network,
    metadata: Metadata,
    work: Path,
    options: GenerationOptions,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Registration:
    """Register as any developer would, with artifacts in `work`; prints each step, then calls `on_progress`."""

    def tell(progress: Progress) -> None:
        print(f"  [{progress.done}/{progress.total}] {progress.step}: {progress.note}", flush=True)
        on_progress(progress)

    return register(
        network.path,
        architecture=network.name,
        use_case=network.use_case,
        validation=network.validation,
        metric=network.metric,
        metadata=metadata,
        repository=FolderRepository(work / "repository"),
        options=options,
        on_progress=tell,
    )


def _keep(network: Network, found: Registration, work: Path, results: Path) -> None:
    """Table (Markdown), picture and profiles of a network."""
    text = table(network.name, found)
    (results / f"{network.name}.md").write_text(text)
    print(text)
    rows = [(v, p, v.name in found.offered) for v, p in found.variants]
    print(pareto_picture.as_text(rows))
    pareto_picture.draw(rows, results / f"{network.name}.png", network.name)
    metadata = Metadata(f"sqlite:///{work / 'metadata.db'}")
    export_profiles(metadata, results / f"{network.name}.profiles.json", [network.name])
    metadata.close()


def table(name: str, found: Registration) -> str:
    """What a registration left, as Markdown, the fastest variant first."""
    fastest_first = sorted(found.variants, key=lambda x: x[1].latencies[0].p50_s)
    lines = [
        f"# {name}",
        "",
        "| variant | accuracy (95 %) | fidelity | p50 ms, batch 1 / largest | p99 ms | rows/s | load s cold / warm "
        "| memory MB | outside load | fit error | offered |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(v, p, v.name in found.offered) for v, p in fastest_first),
        "",
        *(f"Not offered: {', '.join(labels)}: {reason}  " for reason, labels in _by_reason(found).items()),
        *(f"Not tried: {runtime}: {how}  " for runtime, how in found.missing.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _by_reason(found: Registration) -> dict[str, list[str]]:
    """What failed, by reason; a reason that names its variant is no other's."""
    reasons: dict[str, list[str]] = {}
    for label, reason in found.failures.items():
        reasons.setdefault(reason, []).append(label)
    return reasons


def _line(variant: Variant, profile: Profile, offered: bool) -> str:
    first, last = profile.latencies[0], profile.latencies[-1]
    low, high = profile.accuracy.interval or (0.0, 1.0)
    fidelity = "" if profile.accuracy.fidelity is None else f"{profile.accuracy.fidelity:.4f}"
    fit = "" if profile.fit is None else f"{profile.fit.median_error:.1%}"
    return (
        f"| {variant.name.partition('@')[2]} | {profile.accuracy.value:.4f} ({low:.3f} to {high:.3f}) | {fidelity} "
        f"| {first.p50_s * 1e3:.3f} / {last.p50_s * 1e3:.2f} | {first.p99_s * 1e3:.3f} | {profile.saturation_qps:.0f} "
        f"| {profile.load_s:.2f} / {profile.warm_load_s or 0:.3f} | {_memory_mb(profile)} "
        f"| {profile.outside_load or 0:.1f} | {fit} | {'yes' if offered else 'dominated'} |"
    )


def _memory_mb(profile: Profile) -> str:
    device = f" + {profile.peak_device_memory_bytes / 1e6:.0f} on device" if profile.peak_device_memory_bytes else ""
    return f"{profile.peak_memory_bytes / 1e6:.0f}{device}"


def _fit_errors(network: Network, found: Registration, work: Path) -> list[float]:
    """Relative errors of the predicted median at sizes that the fit has not seen, of every one-thread variant."""
    errors: list[float] = []
    with TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.npz"
        with np.load(network.validation, allow_pickle=False) as file:
            np.savez(sample, **{x.name: file[x.name][: max(FITTED)] for x in found.architecture.inputs})
        for variant, profile in (x for x in found.variants if x[0].threads == 1):
            mine = _left_out_errors(variant, profile, found, sample, work)
            print(f"  {variant.name}: fit off by {np.median(mine):.1%}, at most {max(mine):.1%}", flush=True)
            errors += mine
    return errors


def _left_out_errors(variant: Variant, profile: Profile, found: Registration, sample: Path, work: Path) -> list[float]:
    """Time fitted and left-out sizes in one process, fit the former, compare at the latter."""
    job = ProfileJob(
        artifact=str(FolderRepository(work / "repository").fetch(variant.artifact)),
        variant=variant,
        architecture=found.architecture,
        sample=str(sample),
        batches=sorted((*FITTED, *LEFT_OUT)),
        rows=None,
        outputs="",
    )
    report = run_job(
        "infaas_ray.variants.profile_job",
        job,
        what="timing",
        folder=sample.parent,
        threads=variant.threads,
        limit_s=600.0,
    )
    timed = {x.batch: x for x in report.last(Measured).latencies}
    fitted = tuple(timed[x] for x in FITTED)
    model = dataclasses.replace(profile, latencies=fitted, fit=fit_latency(fitted))
    return [abs(model.median_s(x) - timed[x].p50_s) / timed[x].p50_s for x in LEFT_OUT]


def _memory(network: Network, found: Registration, work: Path) -> dict[str, dict[str, float]]:
    from benchmarks.variants.actors import memory_errors

    variants = [x for x in found.variants if x[0].threads == 1]
    errors = memory_errors(variants, found.architecture, work, network.validation)
    for name, x in errors.items():
        print(f"  {name}: {x['profiled_mb']:.0f} MB in the profile, {x['used_mb']:.0f} MB used, {x['error']:.1%} off")
    return errors


if __name__ == "__main__":
    main()
