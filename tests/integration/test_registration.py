"""Registration end to end, with real frameworks on tiny models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infaas_ray.domain import Accuracy, AccuracySource, HardwareKind, UseCase
from infaas_ray.errors import AlreadyExists, ArtifactCorrupt, ConfigError, InvalidModel
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import Progress, Registration, register
from infaas_ray.variants.runtime import runtime_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

USE_CASE = UseCase(task="classification", dataset="points")
ORT = ("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8")
BOTH_THREADS = GenerationOptions(recipes=ORT)
ONE_THREAD = GenerationOptions(threads=(1,), recipes=ORT)
ONLY_FP32 = GenerationOptions(threads=(1,), recipes=("onnxruntime-fp32",))


@dataclass
class Place:
    """A metadata database and a repository of a test's own, and a data set."""

    folder: Path
    metadata: Metadata
    repository: FolderRepository
    validation: Path

    def register(self, source: Any, **changed: Any) -> Registration:
        wanted = {
            "architecture": "tiny",
            "use_case": USE_CASE,
            "validation": self.validation,
            "metadata": self.metadata,
            "repository": self.repository,
            "options": ONE_THREAD,
        }
        return register(source, **{**wanted, **changed})


def place_at(folder: Path) -> Place:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    weights = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    x = random.standard_normal((120, 8)).astype(np.float32)
    validation = folder / "points.npz"
    np.savez(validation, x=x, scale=np.ones((120, 1), np.float32), label=(x @ weights).argmax(axis=1))
    return Place(
        folder=folder,
        metadata=Metadata(f"sqlite:///{folder}/infaas.db"),
        repository=FolderRepository(folder / "models"),
        validation=validation,
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = place_at(tmp_path / "place")
    yield made
    made.metadata.close()


def write_onnx(path: Path, batch: str | int = "batch", seed: int = 1) -> Path:
    """A linear classifier of 8 numbers into 4 classes, right on every point with seed 1."""
    weights = np.random.default_rng(seed).standard_normal((8, 4)).astype(np.float32)
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", float32, [batch, 8])],
        [onnx.helper.make_tensor_value_info("logits", float32, [batch, 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


def write_pt2(path: Path) -> Path:
    """The same classifier in PyTorch, with a keyword input and a dict of outputs."""
    torch = pytest.importorskip("torch")

    class Linear(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            weights = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
            self.weights = torch.nn.Parameter(torch.from_numpy(weights))

        def forward(self, x: Any, *, scale: Any) -> dict[str, Any]:
            return {"logits": (x @ self.weights) * scale, "largest": x.amax(dim=1)}

    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        Linear().eval(),
        (torch.zeros(3, 8),),
        {"scale": torch.ones(3, 1)},
        dynamic_shapes={"x": batch, "scale": batch},
    )
    torch.export.save(program, path)
    return path


@dataclass
class Registered:
    place: Place
    source: Path
    result: Registration
    progress: list[Progress]


@pytest.fixture(scope="module")
def from_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """One registration of a `.pt2`, for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("torch")
    place, progress = place_at(folder), list[Progress]()
    source = write_pt2(folder / "linear.pt2")
    result = place.register(source, options=BOTH_THREADS, on_progress=progress.append)
    yield Registered(place, source, result, progress)
    place.metadata.close()


def test_a_pt2_gives_six_profiled_variants(from_torch: Registered) -> None:
    found = {variant.name: profile for variant, profile in from_torch.result.variants}
    assert set(found) == {
        f"tiny@{label}-cpu-t{threads}-b16"
        for label in ("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8")
        for threads in (1, 2)
    }
    assert from_torch.result.failures == {}
    assert from_torch.place.metadata.variants("tiny") == sorted(from_torch.result.variants, key=lambda x: x[0].name)
    for name, profile in found.items():
        assert [x.batch for x in profile.latencies] == [1, 2, 4, 8, 16]
        assert profile.accuracy.source is AccuracySource.MEASURED
        assert profile.accuracy.rows == 90
        assert profile.accuracy.value == 1.0 if "fp32" in name else profile.accuracy.value > 0.9
        assert profile.peak_memory_bytes > 1 << 20
        assert profile.load_s > 0
        assert profile.warm_load_s is not None
        assert 0 < profile.warm_load_s < profile.load_s
        assert 1 << 20 < profile.baseline_memory_bytes < profile.peak_memory_bytes
        assert profile.fit is not None
        assert all(x.runs >= 20 for x in profile.latencies)
        assert profile.hardware.model
    assert "torch" in found["tiny@torch-fp32-cpu-t1-b16"].versions
    assert "onnxruntime" in found["tiny@onnxruntime-int8-cpu-t2-b16"].versions


def test_tensors_are_read_from_the_program(from_torch: Registered) -> None:
    architecture = from_torch.place.metadata.architectures()["tiny"]
    assert [(x.name, x.datatype, x.shape) for x in architecture.inputs] == [
        ("x", "FP32", (-1, 8)),
        ("scale", "FP32", (-1, 1)),
    ]
    assert [(x.name, x.datatype, x.shape) for x in architecture.outputs] == [
        ("logits", "FP32", (-1, 4)),
        ("largest", "FP32", (-1,)),
    ]


@pytest.mark.parametrize("rows", [1, 5])
def test_every_stored_variant_answers_alike(from_torch: Registered, rows: int) -> None:
    place = from_torch.place
    x = np.random.default_rng(3).uniform(-1, 1, (rows, 8)).astype(np.float32)  # inside what int8 was calibrated on
    x.setflags(write=False)
    scale = np.ones((rows, 1), np.float32)
    weights = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    for variant, _ in from_torch.result.variants:
        path = place.repository.fetch(variant.artifact)
        assert path.stat().st_size == variant.artifact_bytes
        model = runtime_of(variant).load(path, variant, from_torch.result.architecture)
        answers = model.predict({"x": x, "scale": scale})
        model.close()
        close = 0.5 if variant.precision == "int8" else 1e-4
        np.testing.assert_allclose(answers["logits"], x @ weights, atol=close)
        np.testing.assert_allclose(answers["largest"], x.max(axis=1), atol=close)


def test_dominated_variants_are_kept_and_not_offered(from_torch: Registered) -> None:
    names = {x.name for x, _ in from_torch.result.variants}
    metadata = from_torch.place.metadata
    assert {x.name for x, _ in metadata.variants(offered=True)} == from_torch.result.offered
    assert {x.name for x, _ in metadata.variants()} == names
    profiles = {x.name: profile for x, profile in from_torch.result.variants}
    best = max(profiles.values(), key=lambda x: x.saturation_qps / (2 if "-t2-" in x.variant else 1))
    assert best.variant in from_torch.result.offered


def test_a_gpu_variant_without_a_gpu_says_so(from_torch: Registered) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for variant, _ in from_torch.result.variants:
        path = from_torch.place.repository.fetch(variant.artifact)
        on_gpu = replace(variant, hardware=HardwareKind.GPU)
        with pytest.raises(ConfigError, match=on_gpu.name):
            runtime_of(on_gpu).load(path, on_gpu, from_torch.result.architecture)


def test_progress_counts_every_step_once(from_torch: Registered) -> None:
    done = [x.done for x in from_torch.progress]
    assert done == sorted(done)
    assert {x.total for x in from_torch.progress} == {10}
    assert done[-1] == 10


def test_a_second_registration_starts_no_process(from_torch: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_args: object, **_options: object) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr("infaas_ray.variants.jobs.subprocess.Popen", forbidden)
    before = from_torch.place.metadata.revision()
    again = from_torch.place.register(from_torch.source, options=BOTH_THREADS)
    assert set(again.skipped) == {x.name for x, _ in from_torch.result.variants}
    assert again.architecture == from_torch.result.architecture
    assert from_torch.place.metadata.revision() == before


def test_another_use_case_under_the_name_is_refused_at_once(from_torch: Registered) -> None:
    with pytest.raises(AlreadyExists, match="already serves"):
        from_torch.place.register(from_torch.source, use_case=UseCase(task="regression", dataset="points"))


def test_an_interrupted_registration_continues(place: Place) -> None:
    source = write_onnx(place.folder / "m.onnx")

    def interrupt(progress: Progress) -> None:
        if progress.note == "profiled":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.register(source, options=BOTH_THREADS, on_progress=interrupt)
    [(first, profile)] = place.metadata.variants()
    result = place.register(source, options=BOTH_THREADS)
    assert result.skipped == (first.name,)
    assert len(result.variants) == 4
    assert (first, profile) in place.metadata.variants()


def test_a_tampered_artifact_is_refused_and_registering_again_rebuilds_it(place: Place) -> None:
    source = write_onnx(place.folder / "m.onnx")
    variants = {x.precision: x for x, _ in place.register(source).variants}
    damaged = place.repository.fetch(variants["int8"].artifact)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactCorrupt, match="register the model again"):
        place.repository.fetch(variants["int8"].artifact)
    result = place.register(source)
    assert result.skipped == (variants["fp32"].name,)
    for variant, _ in place.metadata.variants():
        place.repository.fetch(variant.artifact)


def test_a_variant_unlike_the_reference_is_refused_and_the_rest_stays(place: Place) -> None:
    source = write_onnx(place.folder / "m.onnx")
    place.register(source)
    strict = replace(BOTH_THREADS, min_fidelity=0.99999999)
    result = place.register(source, options=strict)
    assert {x.precision for x, _ in result.variants} == {"fp32"}
    refused = {f"tiny@onnxruntime-int8-cpu-t{threads}-b16" for threads in (1, 2)}
    assert set(result.failures) == refused
    assert all("mean cosine" in reason for reason in result.failures.values())
    assert {x.label for x in place.metadata.failures("tiny")} == refused
    assert {x.name for x, _ in place.metadata.variants()} == {x.name for x, _ in result.variants}


def test_a_refusal_is_remembered_and_nothing_is_built_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_onnx(place.folder / "m.onnx")
    strict = replace(BOTH_THREADS, min_fidelity=0.99999999)
    first = place.register(source, options=strict)

    def forbidden(*_args: object, **_options: object) -> None:
        raise AssertionError("nothing is left to do")

    with monkeypatch.context() as patch:
        patch.setattr("infaas_ray.variants.jobs.subprocess.Popen", forbidden)
        again = place.register(source, options=strict)
    assert again.failures == first.failures
    assert set(again.skipped) == {x.name for x, _ in first.variants}
    lenient = place.register(source, options=BOTH_THREADS)
    assert (len(lenient.variants), lenient.failures, place.metadata.failures()) == (4, {}, [])


def test_a_build_that_fails_is_recorded_and_the_rest_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_onnx(place.folder / "m.onnx")

    def crash(*_args: object, **_options: object) -> Path:
        raise InvalidModel("quantising failed: it was ended by SIGSEGV")

    with monkeypatch.context() as patch:
        patch.setattr("infaas_ray.variants.registration_run.Builder.build", fail_int8(crash))
        result = place.register(source)
    assert result.failures == {"onnxruntime-int8": "quantising failed: it was ended by SIGSEGV"}
    assert [x.label for x in place.metadata.failures()] == ["onnxruntime-int8"]
    again = place.register(source)
    assert (len(again.variants), again.failures, place.metadata.failures()) == (2, {}, [])


def fail_int8(crash: Callable[..., Path]) -> Callable[..., Path]:
    from infaas_ray.variants.generator import Builder

    build = Builder.build
    return lambda self, recipe, *rest: (crash if recipe.precision == "int8" else build)(self, recipe, *rest)


@pytest.mark.parametrize("declared", [-0.1, 1.5, float("nan")])
def test_a_declared_accuracy_that_is_none_is_refused_at_once(place: Place, declared: float) -> None:
    with pytest.raises(InvalidModel, match="from 0 to 1"):
        place.register(place.folder / "nowhere.onnx", validation=None, declared_accuracy=declared)


def test_declared_accuracy_needs_no_validation_and_is_marked(place: Place) -> None:
    source = write_onnx(place.folder / "m.onnx")
    result = place.register(source, validation=None, declared_accuracy=0.8)
    [(variant, profile)] = result.variants
    assert variant.precision == "fp32"
    assert profile.accuracy == Accuracy(
        value=0.8, metric="top1_accuracy", rows=0, standard_error=0.0, source=AccuracySource.DECLARED
    )
    assert "calibrate" in result.failures["onnxruntime-int8"]
    [failure] = place.metadata.failures()
    assert failure.refused
    with pytest.raises(InvalidModel, match="declare an accuracy"):
        place.register(source, validation=None)


def test_another_source_replaces_the_variants_of_the_first(place: Place) -> None:
    place.register(write_onnx(place.folder / "a.onnx"), options=replace(ONLY_FP32, threads=(1, 2)))
    retrained = place.register(write_onnx(place.folder / "b.onnx", seed=2), options=ONLY_FP32)
    assert place.metadata.variants() == sorted(retrained.variants, key=lambda x: x[0].name)
    assert all(profile.accuracy.value < 0.9 for _, profile in retrained.variants)


def test_weights_beside_the_onnx_file_are_put_into_the_artifact(place: Place) -> None:
    source = write_onnx(place.folder / "m.onnx")
    model = onnx.load(str(source))
    onnx.save(model, str(source), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    result = place.register(source)
    (place.folder / "m.onnx.data").unlink()
    assert [profile.accuracy.value > 0.9 for _, profile in result.variants] == [True, True]
    for variant, _ in result.variants:
        runtime_of(variant).load(place.repository.fetch(variant.artifact), variant, result.architecture).close()


def damaged_onnx(folder: Path) -> Path:
    whole = write_onnx(folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(whole[: len(whole) // 2])
    return folder / "m.onnx"


def fixed_onnx(folder: Path) -> Path:
    return write_onnx(folder / "m.onnx", batch=3)


def text_pt2(folder: Path) -> Path:
    (folder / "m.pt2").write_text("no program")
    return folder / "m.pt2"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (damaged_onnx, "m.onnx is not an ONNX model that ONNX Runtime can load"),
        (fixed_onnx, "fixed shape .*export with a dynamic batch"),
        (text_pt2, "m.pt2 is not a program saved by torch.export.save"),
    ],
)
def test_a_wrong_model_is_refused_and_leaves_nothing(place: Place, make: Callable[[Path], Path], says: str) -> None:
    with pytest.raises(InvalidModel, match=says) as caught:
        place.register(make(place.folder))
    assert caught.value.status == 400
    assert place.metadata.architectures() == {}
    assert place.repository.digests() == set()


def test_a_model_of_which_nothing_works_gives_the_reasons_with_the_reference_first(place: Place) -> None:
    options = GenerationOptions(threads=(1,), recipes=("onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32"))
    with pytest.raises(InvalidModel, match=r"'tiny' works: tiny@onnxruntime-fp32-[^;]*one number per row"):
        place.register(write_onnx(place.folder / "m.onnx"), metric="binary_accuracy", options=options)
    assert place.metadata.architectures() == {}
