"""The models of the benchmark: trained once, registered once with their variants, kept in a cache folder.

Who fixes one variant for all queries has to choose it; how is said here, by rules that look at measured profiles only.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.serving.ours import free_port
from infaas_ray.config import Settings, load_settings
from infaas_ray.demo.models import export, make_once
from infaas_ray.domain import Architecture, Array, Profile, UseCase, Variant
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import register
from infaas_ray.variants.runtime import LoadedModel, runtime_of

USE_CASE = UseCase(task="digit-classification", dataset="scenes")
ARCHITECTURES = ("scenes-resnet10-w8", "scenes-resnet10-w24", "scenes-resnet18")
SHAPE = (1, 64, 64)
BATCH = 16
_RECIPES = ("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8")

Say = Callable[[str], None]
Measured = tuple[Variant, Profile]


def live_settings(cache: Path) -> Settings:
    """Settings of our system with these models: all defaults but the place, a free port, and two processors."""
    flags = {"home": (cache / "live").resolve(), "http": {"port": free_port()}, "cluster": {"cpus": 2}}
    return load_settings(flags=flags, environment={})


def prepare(cache: Path, say: Say) -> list[Measured]:
    """Train and register what is not there yet (minutes); all variants that were measured, with their profiles."""
    settings, folder = live_settings(cache), cache / "live" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    make_once(folder / "scenes.npz", _write_validation)
    for name in ARCHITECTURES:
        if not (folder / f"{name}.pt2").exists():
            say(f"training {name}")
        make_once(folder / f"{name}.pt2", lambda path, name=name: _write_network(name, path))  # type: ignore[misc]
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        for name in ARCHITECTURES:
            if not metadata.variants(name):
                say(f"registering {name}")
            register(
                folder / f"{name}.pt2",
                architecture=name,
                use_case=USE_CASE,
                validation=folder / "scenes.npz",
                metadata=metadata,
                repository=repository_at(settings.repository),
                options=GenerationOptions(threads=(1,), batch_limit=BATCH, recipes=_RECIPES),
            )
        return metadata.variants()


def pictures(cache: Path, count: int) -> Array:
    """So many scored pictures, FP32 [count, 1, 64, 64]."""
    with np.load(cache / "live" / "models" / "scenes.npz", allow_pickle=False) as arrays:
        found: Array = arrays["image"][np.flatnonzero(~arrays["calibration"])[:count]]
        return found


def open_variant(home: Path, name: str) -> LoadedModel:
    """The variant of that name, registered in a home folder, loaded into this process."""
    settings = load_settings(flags={"home": home}, environment={})
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        variant = next(x for x, _ in metadata.variants() if x.name == name)
        architecture: Architecture = metadata.architectures()[variant.architecture]
    path = repository_at(settings.repository).fetch(variant.artifact)
    return runtime_of(variant).load(path, variant, architecture)


# -- what somebody fixes who has to


def accurate_eager(variants: Sequence[Measured]) -> Measured:
    """The most accurate variant in eager PyTorch, where most who publish a model leave it."""
    return max((x for x in variants if x[0].runtime == "torch"), key=lambda x: x[1].accuracy.value)


def best_fixed(variants: Sequence[Measured], least_accuracy: float, bound_s: float) -> Measured:
    """The fastest variant, by rows per second, that is accurate enough for all classes and quick enough for each."""
    able = [x for x in variants if x[1].accuracy.value >= least_accuracy and x[1].latency_s(1) <= bound_s]
    return max(able, key=lambda x: x[1].saturation_qps)


def _write_validation(path: Path) -> None:
    from benchmarks.live import scenes

    np.savez_compressed(path, allow_pickle=False, **scenes.validation())


def _write_network(name: str, path: Path) -> None:
    import torch

    from benchmarks.live import networks, scenes

    network = networks.train(networks.FAMILY[name], scenes.training)
    export(network, {"image": torch.zeros(2, *SHAPE)}, path)
