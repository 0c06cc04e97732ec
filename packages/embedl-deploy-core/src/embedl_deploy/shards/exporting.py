"""Exports a model that was quantized block by block, without loading it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedl_deploy.export import OnnxExport, export_onnx
from embedl_deploy.export.weights_later import Read, may_come_later, stand_in, weights_later
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.shards.loading import place_of_tensor, put_empty, put_tensor, read_recipe
from embedl_deploy.shards.source import Shards, open_shards
from embedl_deploy.shards.writing import CONSTANTS
from embedl_deploy.validation.checked import checked


@checked
def export_quantized(
    result: TransformationResult,
    folder: str | os.PathLike[str],
    args: Any,
    path: str | os.PathLike[str],
    *,
    kwargs: dict[str, Any] | None = None,
    opset: int | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> OnnxExport:
    """Write the quantized model that :func:`quantize_shards` wrote to a folder as an ONNX file.

    Weights of more than four million numbers are read from the shards when they are written to the file, or to
    ``path + ".data"`` beside it, one after the other: in memory is one of them, and all smaller ones. The file is
    checked by ``onnx.checker``; it is not run, because a runtime loads it whole.

    Args:
        result: What ``transform`` gave for the model, on torch's meta device. Not modified.
        folder: The folder.
        args: Example inputs: a tuple, or one tensor.
        path: The file to write.
        kwargs: Example keyword inputs.
        opset: As for ``export_onnx``.
        dynamic_shapes: As for ``export_onnx``.
        input_names: Names for the inputs.
        output_names: Names for the outputs.

    Raises:
        InputError: The folder holds no finished model, or a file is missing or damaged.
        QuantizationError: It holds another model.
        ExportError: The exporter or the checker refuses the model, or computes something from a weight that is to be
            read later.
    """
    place = Path(folder)
    model = read_recipe(place).rebuild(result).eval()
    later: dict[int, Read] = {}
    kept: list[torch.Tensor] = []  # so that no address is used twice
    for shards in (open_shards(place), open_shards(place / CONSTANTS)):
        for name, stored in shards.tensors.items():
            if may_come_later(stored.shape):
                value = stand_in(stored.shape, stored.dtype)
                kept.append(value)
                later[value.data_ptr()] = _reading(shards, name)
                table, key = place_of_tensor(model, name, shards)
                is_parameter = isinstance(table[key], nn.Parameter)
                put_tensor(model, name, shards, nn.Parameter(value, requires_grad=False) if is_parameter else value)
            else:
                put_tensor(model, name, shards)
    put_empty(model)
    with weights_later(later):
        return export_onnx(
            model,
            args,
            path,
            kwargs=kwargs,
            opset=opset,
            integer_weights=True,
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=output_names,
            tolerance=None,
        )


def _reading(shards: Shards, name: str) -> Read:
    return lambda: shards.read(name)
