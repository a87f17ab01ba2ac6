"""What is built for TensorRT and how engines are run, against a stand-in for `tensorrt`: a GPU none of this needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infaas_ray.domain import Architecture, HardwareKind, TensorSpec, UseCase, Variant
from infaas_ray.errors import ConfigError, InvalidModel, VariantFailed
from infaas_ray.variants import onnx_source, tensorrt_runtime
from infaas_ray.variants.build_job import Build, work
from infaas_ray.variants.recipes import Make
from infaas_ray.variants.tensorrt_runtime import EngineShape, TensorRtModel, build_engine

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tests.integration.tensorrt_stand_in import Seen, stand_in  # noqa: E402  (it imports onnx)

IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 8, 8))
ARCHITECTURE = Architecture(
    name="small",
    use_case=UseCase(task="classification", dataset="noise"),
    inputs=(IMAGE,),
    outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 5)),),
)
VARIANT = Variant(
    architecture="small", runtime="tensorrt", precision="fp32", hardware=HardwareKind.GPU, artifact="0" * 64
)
IMAGES = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
PRODUCTS = {"Conv", "MatMul", "Gemm"}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with a sum around the second, and a head; the second output is one that nobody asks for."""
    random = np.random.default_rng(1)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 5), "b3": (5,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    node, value, kind = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["logits"]),
        node("Softmax", ["logits"], ["chances"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [value("image", kind, ["batch", 3, 8, 8])],
        [value("logits", kind, ["batch", 5]), value("chances", kind, ["batch", 5])],
        [onnx.numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return path


@dataclass
class Card:
    """What PyTorch says of the GPU."""

    free: int = 1000
    questions: int = 0
    emptied: int = 0
    synchronized: int = 0
    entered: list[int] = field(default_factory=list)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """PyTorch with a GPU that is its main memory."""
    card = Card()

    class Stream:
        cuda_stream = 77

        def synchronize(self) -> None:
            card.synchronized += 1

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        card.entered.append(stream.cuda_stream)
        yield

    def memory() -> tuple[int, int]:
        card.questions += 1
        return card.free, 5000

    def empty() -> None:
        card.emptied += 1

    names = {"is_available": lambda: True, "mem_get_info": memory, "Stream": Stream, "stream": entered}
    for name, value in (names | {"empty_cache": empty}).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(tensorrt_runtime, "_DEVICE", "cpu")
    return card


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(seen))
    return seen


def shape_of(limit: int) -> EngineShape:
    return EngineShape(inputs=[IMAGE], lengths={"image": [3, 8, 8]}, batch_limit=limit, tf32=False)


def load(path: Path, architecture: Architecture = ARCHITECTURE) -> TensorRtModel:
    return tensorrt_runtime.TensorRtRuntime().load(path, VARIANT, architecture)


@pytest.fixture
def engine(network: Path, seen: Seen, tmp_path: Path) -> Path:
    """An engine for batches up to 8."""
    build_engine(network, shape_of(8), tmp_path / "small.engine")
    return tmp_path / "small.engine"


def answers(path: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(["logits"], {"image": images})[0]
    return found


def test_symmetric_int8_is_what_tensorrt_reads_and_computes_the_same(network: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    onnx_source.quantize(network, {"image": IMAGES}, 8, target, symmetric=True)
    graph = onnx.load(str(target)).graph
    values = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    makers = {name: x for x in graph.node for name in x.output}
    pairs = [x for x in graph.node if x.op_type in ("QuantizeLinear", "DequantizeLinear")]
    products = [x for x in graph.node if x.op_type in PRODUCTS]
    assert len(products) == 3
    for pair in pairs:
        assert values[pair.input[2]].dtype == np.int8
        assert not values[pair.input[2]].any()
    for dequantize in (x for x in pairs if x.op_type == "DequantizeLinear"):
        assert makers[dequantize.input[0]].op_type == "QuantizeLinear"
    quantized = {x.input[0] for x in pairs if x.op_type == "QuantizeLinear"}
    assert quantized == {"image", "w1", "r1", "w2", "flat", "w3"}  # what products take: no bias, no product's output
    for product in products:
        assert [makers[x].op_type for x in product.input[:2]] == ["DequantizeLinear"] * 2
        assert values[product.input[2]].dtype == np.float32
    found, right = answers(target, IMAGES), answers(network, IMAGES)
    cosines = (found * right).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(right, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(found, right)


@pytest.mark.parametrize(
    ("precision", "make", "cleared", "kinds", "nodes"),
    [
        ("fp32", Make.ENGINE, ["tf32"], {"FLOAT"}, set()),
        ("tf32", Make.ENGINE, [], {"FLOAT"}, set()),
        ("fp16", Make.HALF_ENGINE, ["tf32"], {"FLOAT16"}, {"Cast"}),
        ("int8", Make.INT8_ENGINE, ["tf32"], {"FLOAT", "INT8"}, {"QuantizeLinear", "DequantizeLinear"}),
    ],
)
def test_precision_is_in_the_graph_and_tf32_a_switch(
    network: Path,
    seen: Seen,
    tmp_path: Path,
    precision: str,
    make: Make,
    cleared: list[str],
    kinds: set[str],
    nodes: set[str],
) -> None:
    np.savez(tmp_path / "rows.npz", image=IMAGES)
    target = tmp_path / "small.engine"
    job = Build(
        make=make,
        precision=precision,
        source=str(network),
        rows=str(tmp_path / "rows.npz"),
        batch=64,
        inputs=[IMAGE],
        asked=True,
        target=str(target),
    )
    work(job, [].append)
    assert seen.network_flags == 1 << 1
    assert seen.limits == {"workspace": 4 << 30}
    assert seen.cleared == cleared
    graph = onnx.load_from_string(seen.graph).graph
    assert {onnx.TensorProto.DataType.Name(x.data_type) for x in graph.initializer} == kinds
    assert {x.op_type for x in graph.node} & {"Cast", "QuantizeLinear", "DequantizeLinear"} == nodes
    assert {x.type.tensor_type.elem_type for x in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    assert target.stat().st_size > len(seen.graph)


def test_a_tensorrt_that_has_lost_the_flag_is_asked_for_none(network: Path, seen: Seen, tmp_path: Path) -> None:
    sys.modules["tensorrt"].NetworkDefinitionCreationFlag = SimpleNamespace()  # type: ignore[attr-defined]
    build_engine(network, shape_of(8), tmp_path / "small.engine")
    assert seen.network_flags == 0


@pytest.mark.parametrize(("limit", "rows"), [(64, [(1, 8), (64, 64)]), (8, [(1, 2), (8, 8)]), (2, [(1, 1), (2, 2)])])
def test_one_profile_for_few_rows_and_one_for_many(
    network: Path, seen: Seen, tmp_path: Path, limit: int, rows: list[tuple[int, int]]
) -> None:
    build_engine(network, shape_of(limit), tmp_path / "small.engine")
    rest = (3, 8, 8)
    assert seen.profiles == [{"image": ((1, *rest), (usual, *rest), (most, *rest))} for usual, most in rows]


def test_free_lengths_go_from_one_to_the_usual(network: Path, seen: Seen, tmp_path: Path) -> None:
    inputs = [replace(IMAGE, shape=(-1, 3, -1, -1))]
    build_engine(network, shape_of(1)._replace(inputs=inputs), tmp_path / "small.engine")
    assert seen.profiles == [{"image": ((1, 3, 1, 1), (1, 3, 8, 8), (1, 3, 8, 8))}]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("parse", InvalidModel, "cannot read small.onnx: node 0: unsupported; node 3: wrong type"),
        ("build", InvalidModel, r"cannot build an engine of small.onnx: no tactic for \{Conv\}$"),
        ("no gpu", ConfigError, "needs an NVIDIA GPU .CUDA initialization failure with error: 35"),
    ],
)
def test_why_no_engine_was_built_is_said(
    network: Path, seen: Seen, tmp_path: Path, wrong: str, error: type[Exception], said: str
) -> None:
    seen.wrong = wrong
    with pytest.raises(error, match=said):
        build_engine(network, shape_of(8), tmp_path / "small.engine")
    assert not (tmp_path / "small.engine").exists()


def test_rows_run_in_the_first_profile_that_holds_them(network: Path, engine: Path, seen: Seen, card: Card) -> None:
    model = load(engine)
    assert seen.strategies == ["on profile change"] * 2
    kept = {rows: model.predict({"image": IMAGES[:rows], "unused": IMAGES})["logits"] for rows in (1, 2, 3, 8)}
    assert seen.runs == [(0, 1, 77), (0, 2, 77), (1, 3, 77), (1, 8, 77)]
    assert card.entered == [77] * 4
    for rows, logits in kept.items():
        assert logits.shape == (rows, 5)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, answers(network, IMAGES[:rows]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [IMAGES[:3].copy(), IMAGES[:6:2, :, ::-1]])
def test_inputs_may_be_views_that_cannot_be_written(
    network: Path, engine: Path, card: Card, images: np.ndarray[Any, Any]
) -> None:
    images.setflags(write=False)  # PyTorch would warn, which fails a test
    found = load(engine).predict({"image": images})["logits"]
    np.testing.assert_allclose(found, answers(network, np.ascontiguousarray(images)), rtol=1e-4, atol=1e-5)


def test_answers_have_the_datatype_that_the_architecture_names(network: Path, engine: Path, card: Card) -> None:
    outputs = (replace(ARCHITECTURE.outputs[0], datatype="FP16"),)
    found = load(engine, replace(ARCHITECTURE, outputs=outputs)).predict({"image": IMAGES[:2].astype(np.float64)})
    assert found["logits"].dtype == np.float16
    np.testing.assert_allclose(found["logits"], answers(network, IMAGES[:2]), atol=0.01)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            {"image": IMAGES[:9]},
            r"shape \[9, 3, 8, 8\]; the engine was built for \[1, 3, 8, 8\] to \[8, 3, 8, 8\] .no profile",
        ),
        ({"image": IMAGES[:1, :, :7]}, r"shape \[1, 3, 7, 8\]; the engine was built for"),
        ({"other": IMAGES[:1]}, "needs input 'image'"),
    ],
)
def test_input_that_does_not_fit_fails(engine: Path, card: Card, images: dict[str, Any], said: str) -> None:
    model = load(engine)
    with pytest.raises(VariantFailed, match=said):
        model.predict(images)
    assert model.predict({"image": IMAGES[:8]})["logits"].shape == (8, 5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("run", "could not run this batch: enqueueV3: a tensor has no address"),
        ("raise", "TensorRT failed: CUDA error: an illegal memory access"),
        ("values", "depends on values"),
        ("shapes", "TensorRT failed: __len__"),
    ],
)
def test_a_run_that_goes_wrong_fails(engine: Path, seen: Seen, card: Card, wrong: str, said: str) -> None:
    model = load(engine)
    seen.wrong = wrong
    with pytest.raises(VariantFailed, match=said):
        model.predict({"image": IMAGES[:1]})
    seen.wrong = ""
    assert model.predict({"image": IMAGES[:1]})["logits"].shape == (1, 5)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("bf16", InvalidModel, "'image' is of .*, which cannot be served"),
        ("host", InvalidModel, "'image' gives the shape of another"),
        ("memory", ConfigError, "does not fit on the GPU: out of memory"),
    ],
)
def test_engines_that_cannot_be_served_are_not_loaded(
    engine: Path, seen: Seen, card: Card, wrong: str, error: type[Exception], said: str
) -> None:
    seen.wrong = wrong
    with pytest.raises(error, match=said):
        load(engine)


def test_what_cannot_be_loaded_says_why(
    engine: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    with pytest.raises(InvalidModel, match=r"refuses the engine.*Serialization assertion failed"):
        load(tmp_path / "nonsense")
    outputs = (replace(ARCHITECTURE.outputs[0], name="image"),)
    with pytest.raises(InvalidModel, match=r"no output 'image'; it has \['chances', 'logits'\]"):
        load(engine, replace(ARCHITECTURE, outputs=outputs))
    with pytest.raises(ConfigError, match="run on gpu, not cpu"):
        tensorrt_runtime.TensorRtRuntime().load(engine, replace(VARIANT, hardware=HardwareKind.CPU), ARCHITECTURE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a GPU"):
        load(engine)


def test_memory_is_asked_for_outside_the_batches_and_close_frees(engine: Path, seen: Seen, card: Card) -> None:
    model = load(engine)
    assert card.questions == 1
    card.free = 400
    model.predict({"image": IMAGES[:8]})
    assert card.questions == 1
    assert model.device_memory_bytes() == 600
    card.free = 700
    assert model.device_memory_bytes() == 600
    assert len(seen.alive) == 3  # the engine and two contexts
    before = card.synchronized
    model.close()
    assert (len(seen.alive), card.emptied, card.synchronized - before) == (0, 1, 1)


@pytest.mark.parametrize("missing", ["torch", "tensorrt"])
def test_versions_are_told_where_all_is_there(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    there = {"torch": "2.9", "tensorrt-cu12": "10.16"}

    def version(name: str) -> str:
        if name not in there:
            raise tensorrt_runtime.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(tensorrt_runtime, "version", version)
    assert tensorrt_runtime.TensorRtRuntime().versions() == {"torch": "2.9", "tensorrt": "10.16"}
    del there["torch" if missing == "torch" else "tensorrt-cu12"]
    assert tensorrt_runtime.TensorRtRuntime().versions() == {}
