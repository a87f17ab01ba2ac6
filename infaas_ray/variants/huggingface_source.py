"""Turns a Hugging Face folder on disk into an exported program. Runs in build jobs.

Rule: only safetensors, only classes of the installed transformers, nothing from the network, no code from the folder.
"""

import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Array
from infaas_ray.errors import InvalidModel, MissingExtra
from infaas_ray.variants.torch_runtime import import_torch

_EXAMPLE_ROWS = 2
_LARGEST_BATCH = 4096


def load(folder: Path) -> Any:
    """The model of the folder, of the class that its `config.json` names, in fp32."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            "transformers is not installed: pip install 'infaas_ray[transformers]'", "transformers"
        ) from error
    try:
        named = json.loads((folder / "config.json").read_text()).get("architectures") or ["AutoModel"]
        kind = getattr(transformers, str(named[0]), None)
        if kind is None:
            raise InvalidModel(f"transformers has no class {named[0]!r}, which {folder.name}/config.json names")
        torch = import_torch()
        model = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{folder} is not a model that transformers can read: {error}") from error
    return model.eval()


def input_names(model: Any, arrays: list[str]) -> list[str]:
    """The arguments of its `forward` that the validation set has, in the order of the signature."""
    names = [x for x in inspect.signature(model.forward).parameters if x in arrays]
    if not names:
        takes = ", ".join(list(inspect.signature(model.forward).parameters)[:6])
        raise InvalidModel(f"the validation set has none of the model's inputs: {takes}, ...; it has {arrays}")
    return names


def export(model: Any, rows: Mapping[str, Array], target: Path) -> None:
    """Save the exported program: `rows` by argument name are its inputs, its first output tensor its one output."""
    torch = import_torch()
    torch.manual_seed(0)
    example = {name: torch.from_numpy(np.resize(x, (_EXAMPLE_ROWS, *x.shape[1:]))) for name, x in rows.items()}
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    program = torch.export.export(
        _first_output(torch, model, list(rows)), tuple(example.values()), dynamic_shapes=({0: batch},) * len(rows)
    )
    torch.export.save(program, target)


def _first_output(torch: Any, model: Any, names: list[str]) -> Any:
    """The model with positional inputs and one named output: logits where it has a head, else the hidden states."""
    parameters = ", ".join(names)
    given = ", ".join(f"{x}={x}" for x in names)
    # torch.export names inputs by the signature, so the signature has to carry these names.
    space: dict[str, Any] = {}
    source = f"def forward(self, {parameters}):\n    return self.named(self.model({given}, return_dict=True))\n"
    assert all(x.isidentifier() for x in names)
    exec(source, space)  # noqa: S102 - only argument names of an installed class, checked above

    class FirstOutput(torch.nn.Module):  # type: ignore[misc]
        forward = space["forward"]

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        @staticmethod
        def named(result: Any) -> dict[str, Any]:
            name = "logits" if "logits" in result else next(iter(result))
            return {name: result[name]}

    return FirstOutput().eval()
