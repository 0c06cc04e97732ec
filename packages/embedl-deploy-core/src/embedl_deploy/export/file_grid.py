"""What a node of a file rounds to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import DEQUANTIZE, block_of, producer, quantized_type_name

if TYPE_CHECKING:
    import onnx_ir as ir

#: Scales of blocks that are those of each call, and of them one that is not, where there is one.
IN_BLOCKS = "in blocks"


@dataclass(frozen=True)
class Grid:
    """What values are rounded to; the format by its name, without marks."""

    scales: tuple[float, ...]
    zeros: tuple[float, ...]
    format: str


def grid_in(node: "ir.Node") -> Grid | None:
    """The grid of a node, if its scales and zero points are constants."""
    from onnx_ir.convenience import get_const_tensor

    scale, zero = (get_const_tensor(value) if value else None for value in (*node.inputs[1:3], None)[:2])
    if scale is None and block_of(node):
        return _grid_in_blocks(node)
    if scale is None or zero is None:  # a zero point is always written, since its type is the format
        return None
    scales, zeros = (tuple(tensor.numpy().astype(np.float64).flatten().tolist()) for tensor in (scale, zero))
    return Grid(scales, zeros, zero.dtype.name.lower().replace("_", ""))


def _grid_in_blocks(node: "ir.Node") -> Grid | None:
    """The same of blocks whose scales are computed: the constant that they are multiplied with, of those in E4M3."""
    from onnx_ir.convenience import get_const_tensor

    if quantized_type_name(node) != "FLOAT4E2M1":
        return Grid((), (), IN_BLOCKS)
    of_scales = producer(node.inputs[1], DEQUANTIZE)
    value = None if of_scales is None else of_scales.inputs[1]
    cast = producer(value, "Cast")
    source = value if cast is None else cast.inputs[0]
    tensor = None if source is None else get_const_tensor(source)
    return None if tensor is None else Grid((float(tensor.numpy()),), (), IN_BLOCKS)
