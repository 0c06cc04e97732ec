"""A quantized file compared without rounding to its quantizers' grids.

A value near the edge of a step falls to one side or the other by chance. In a deep network a few that fall to the other
side carry others over an edge, until the outputs of a right file differ from the model's by as much as quantization
changes them, and comparing them says nothing. What does not jump can still be compared: the file without
QuantizeLinear and DequantizeLinear where activations pass, with the model without its quantizers there; and each grid
of the file with the one that the model has in that place.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from embedl_deploy.artifact import QUANTIZE, inline_functions, module_of, read_onnx
from embedl_deploy.export.file_grid import IN_BLOCKS, Grid
from embedl_deploy.export.pass_by_dynamic import DYNAMIC, pass_by_dynamic
from embedl_deploy.export.pass_by_static import pass_by_static
from embedl_deploy.export.runtime import run_onnx
from embedl_deploy.graph.edit import deep_copy

if TYPE_CHECKING:
    import onnx_ir as ir

    from embedl_deploy.quantize import DynamicQuantizer, Quantizer

#: What a file needs besides to be a file of more than 2 GB.
_WEIGHTS = "model.onnx.data"


#: The range of each call.
_DYNAMIC_GRID = Grid((), (), "dynamic")


def without_quantizers(model: nn.Module) -> nn.Module:
    """A copy of a model whose activations pass as they are; its weights are quantized as before."""
    copied = deep_copy(model)
    for path in _of_activations(copied):
        copied.set_submodule(path, nn.Identity())
    return copied


def run_without_quantizers(
    path: Path, model: nn.Module, inputs: list[torch.Tensor]
) -> tuple[list[torch.Tensor] | None, int]:
    """What a file computes if its activations pass as they are, and how many quantizers they passed.

    Args:
        path: The file.
        model: What was exported.
        inputs: One tensor per input of the file.

    Returns:
        The outputs; ``None`` if the file has grids that the model has not in that place, or the other way round, or
        none.
    """
    import onnx_ir as ir

    file = read_onnx(path)
    inline_functions(file)
    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    wanted = {path: _grid_of(part, dtype) for path, part in _of_activations(model).items()}
    grids: list[Grid] = []
    for node in _quantizing_activations(file):
        grid = _pass_by(node)
        # What was quantized again after a cast says which product it is for, and is found among all of them only.
        if grid is None or wanted.get(f"{module_of(node)}.quantizer", grid) != grid:
            return None, 0
        grids.append(grid)
    if not grids or set(grids) != set(wanted.values()):
        return None, 0
    with tempfile.TemporaryDirectory() as folder:
        passing = Path(folder) / "model.onnx"
        ir.save(file, os.fspath(passing), external_data=_WEIGHTS)
        return run_onnx(passing, *inputs), len(grids)


def _of_activations(model: nn.Module) -> "dict[str, Quantizer | DynamicQuantizer]":
    from embedl_deploy.quantize import DynamicQuantizer, Quantizer  # here: who does not export need not wait for it

    parts = model.named_modules(remove_duplicate=False)
    return {
        path: part
        for path, part in parts
        if isinstance(part, DynamicQuantizer) or (isinstance(part, Quantizer) and not part.is_weight)
    }


def _grid_of(part: "Quantizer | DynamicQuantizer", dtype: torch.dtype) -> Grid:
    from embedl_deploy.quantize import DynamicQuantizer  # as above

    if part.config.precision.has_scale_format:
        scales = () if isinstance(part, DynamicQuantizer) else (float(part.scale),)
        return Grid(scales, (), IN_BLOCKS)
    if isinstance(part, DynamicQuantizer):
        return _DYNAMIC_GRID
    scale = part.scale.detach().to(dtype).double().flatten().tolist()
    zero = [0.0] * len(scale) if part.zero_point is None else part.zero_point.double().flatten().tolist()
    return Grid(tuple(scale), tuple(zero), part.config.precision.value.replace("_", ""))


def _quantizing_activations(file: "ir.Model") -> "list[ir.Node]":
    """The nodes that quantize what depends on the file's inputs."""
    depends = {id(value) for value in file.graph.inputs}
    found = []
    for node in file.graph:
        if any(id(value) in depends for value in node.inputs):
            depends |= {id(value) for value in node.outputs}
            if node.op_type in (QUANTIZE, DYNAMIC):
                found.append(node)
    return found


def _pass_by(quantize: "ir.Node") -> Grid | None:
    if quantize.op_type == DYNAMIC:
        return _DYNAMIC_GRID if pass_by_dynamic(quantize) else None
    return pass_by_static(quantize)
