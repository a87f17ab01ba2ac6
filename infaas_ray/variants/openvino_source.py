"""Quantises a model with NNCF for OpenVINO. Runs in build jobs."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infaas_ray.domain import Array
from infaas_ray.errors import MissingExtra
from infaas_ray.variants.openvino_runtime import import_openvino, pack, read_model


def quantize(source: Path, rows: Mapping[str, Array], batch: int, target: Path) -> None:
    """Write the ONNX file `source` in 8 bits to `target`, calibrated on all `rows`, `batch` at a time.

    A graph with attention gets NNCF's settings for transformers, which keep softmax and norms in fp32.
    """
    openvino = import_openvino()
    nncf = _import_nncf()
    model = read_model(openvino.Core(), source)
    count = len(next(iter(rows.values())))
    starts = range(0, count, batch)
    dataset = nncf.Dataset([{name: x[start : start + batch] for name, x in rows.items()} for start in starts])
    kind = nncf.ModelType.TRANSFORMER if _attends(model) else None
    quantized = nncf.quantize(model, dataset, subset_size=len(starts), model_type=kind)
    xml = target.with_suffix(".xml")
    openvino.save_model(quantized, str(xml), compress_to_fp16=False)
    pack(xml, xml.with_suffix(".bin"), target)


def _attends(model: Any) -> bool:
    kinds = {x.get_type_name() for x in model.get_ops()}
    return "ScaledDotProductAttention" in kinds or ({"Softmax", "MatMul"} <= kinds and "Convolution" not in kinds)


def _import_nncf() -> Any:
    try:
        return importlib.import_module("nncf")
    except ImportError as error:
        raise MissingExtra("NNCF is not installed: pip install 'infaas_ray[openvino]'", "openvino") from error
