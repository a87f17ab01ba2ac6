"""`infaas register`, `variants` and `profile` as a person types them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from infaas_ray.cli import main

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def run(home: Path, *arguments: str, fails: bool = False) -> str:
    command, *rest = arguments
    result = CliRunner().invoke(main, [command, "--home", str(home), *rest])
    assert (result.exit_code != 0) == fails, result.output + str(result.exception)
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system with one registered network, and what `register --json` printed."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 4)).astype(np.float32)
    x = random.standard_normal((80, 8)).astype(np.float32)
    np.savez(folder / "points.npz", x=x, label=(x @ weights).argmax(axis=1))
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", float32, ["batch", 8])],
        [onnx.helper.make_tensor_value_info("logits", float32, ["batch", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9),
        str(folder / "m.onnx"),
    )
    named = ("--name", "tiny", "--task", "classification", "--dataset", "points")
    recipes = ("--threads", "1", "--recipe", "onnxruntime-fp32", "--recipe", "onnxruntime-int8-dynamic")
    files = (str(folder / "m.onnx"), "--validation", str(folder / "points.npz"))
    (folder / "said.json").write_text(run(folder, "register", *files, *named, *recipes, "--json"))
    (folder / "shown.txt").write_text(run(folder, "register", *files, *named, *recipes))
    return folder


def said(home: Path) -> Any:
    return json.loads((home / "said.json").read_text())


def test_register_tells_variants_and_which_are_offered(home: Path) -> None:
    found = said(home)
    names = {x["variant"] for x in found["variants"]}
    assert names == {f"tiny@onnxruntime-{x}-cpu-t1-b16" for x in ("fp32", "int8-dynamic")}
    assert any(x["offered"] for x in found["variants"])
    low, high = found["variants"][0]["accuracy_interval"]
    assert low < 1.0 == found["variants"][0]["accuracy"]
    assert high == pytest.approx(1.0)


def test_register_ends_with_the_picture(home: Path) -> None:
    shown = (home / "shown.txt").read_text()
    assert "median latency of one row" in shown
    assert "●" in shown


def test_register_measures_the_output_that_was_chosen(home: Path, tmp_path: Path) -> None:
    model = onnx.load(str(home / "m.onnx"))
    integer = onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["batch"])
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["class"], axis=1, keepdims=0))
    model.graph.output.insert(0, integer)
    onnx.save(model, str(tmp_path / "two.onnx"))
    arguments = (str(tmp_path / "two.onnx"), "--validation", str(home / "points.npz"), "--recipe", "onnxruntime-fp32")
    named = ("--name", "two", "--task", "classification", "--dataset", "two", "--threads", "1", "--json")
    assert "top1_accuracy needs" in json.loads(run(tmp_path, "register", *arguments, *named, fails=True))["error"]
    found = json.loads(run(tmp_path, "register", *arguments, *named, "--output", "logits"))
    assert found["variants"][0]["accuracy"] == 1.0


def test_variants_tells_prices_by_worker_type(home: Path) -> None:
    prices = home / "prices.yaml"
    prices.write_text(
        "worker_types:\n  - {name: small, resources: {CPU: 2}, memory_gib: 8, usd_per_hour: 0.1}\n"
        "  - {name: gpu, resources: {GPU: 1}, memory_gib: 8, usd_per_hour: 1.0}\n"
    )
    config = home / "config.yaml"
    config.write_text(f"prices: {{catalog: {prices}}}\n")
    rows = json.loads(run(home, "variants", "classification:points", "--all", "--config", str(config), "--json"))
    assert len(rows) == 2
    assert [list(x["usd_per_1k"]) for x in rows] == [["small"], ["small"]]  # no CPU is sold with that GPU
    assert all(x["usd_per_1k"]["small"] > 0 for x in rows)
    offered = json.loads(run(home, "variants", "tiny", "--json"))
    assert {x["variant"] for x in offered} == {x["variant"] for x in said(home)["variants"] if x["offered"]}
    assert "USD/1k small" in run(home, "variants", "tiny", "--config", str(config))
    assert "unknown target" in json.loads(run(home, "variants", "nothing", "--json", fails=True))["error"]


def test_profiles_go_to_a_file_and_come_in_elsewhere(home: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "p.json")
    assert json.loads(run(home, "profile", "--export", file, "--json")) == {"exported": 2}
    elsewhere = tmp_path / "elsewhere"
    assert len(json.loads(run(elsewhere, "profile", "--import", file, "--json"))["added"]) == 2
    assert json.loads(run(elsewhere, "variants", "tiny", "--json")) == []  # no artifacts there, so none is offered
    assert len(json.loads(run(elsewhere, "variants", "tiny", "--all", "--json"))) == 2
    assert "give one of" in json.loads(run(home, "profile", "--json", fails=True))["error"]
