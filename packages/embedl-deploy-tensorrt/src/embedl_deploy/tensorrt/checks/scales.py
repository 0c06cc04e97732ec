"""Rules about scales: their values, shapes and types."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    array,
    axis_of,
    block_of,
    input_of,
    nodes_of,
    opset_of,
    producer,
    scale_shape,
    sizes_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import WEIGHTED, distinct_quantizers

if TYPE_CHECKING:
    import onnx_ir as ir

_OPSET_OF_FLOAT16 = 19
#: TensorRT's own operators that find scales while the engine runs.
_DYNAMIC = ("TRT_FP4DynamicQuantize", "TRT_MXFP8DynamicQuantize")


def _is_of_each_call(scale: "ir.Value | None") -> bool:
    """Whether a scale is one that TensorRT finds while the engine runs, or made of one by a constant."""
    maker = None if scale is None else scale.producer()
    if maker is not None and maker.op_type == DEQUANTIZE and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker is not None and maker.op_type in _DYNAMIC


class ScaleValues(Rule):
    """TRT-Q02. TensorRT for RTX 1.7: zero, negative and NaN are refused by the parser; infinity is taken and makes
    zeros, as does a zero among the scales of NVFP4 before they are scaled. A scale that is computed from inputs ends
    the whole process (segmentation fault) in the builder; those that TensorRT's own operators find are taken.
    """

    id = "TRT-Q02"
    severity = Severity.ERROR
    title = "Scales are constants, finite and greater than zero."
    remedy = "Calibrate with data that reaches the tensor, and export the scales as initializers."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every scale once, at the first node that reads it."""
        seen, constants = set(), Constants()
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            scale = input_of(node, 1)
            if scale is None or id(scale) in seen:
                continue
            seen.add(id(scale))
            values = array(scale)
            maker = producer(scale)
            if values is not None:
                values = values.astype(np.float32).ravel()
                wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
                if wrong.size:
                    where = f"scale {wrong[0]} is {values[wrong[0]]:g}" if values.size > 1 else f"it is {values[0]:g}"
                    yield Violation(node, f"{wrong.size} of {values.size} scales are not finite and positive: {where}")
            elif _is_of_each_call(scale):
                continue
            elif scale in constants:
                yield from self._computed(node, scale, maker)
            else:
                yield Violation(node, f"the scale {scale.name!r} is computed at run time; expected a constant")

    def _computed(self, node: "ir.Node", scale: "ir.Value", maker: "ir.Node | None") -> Iterator[Violation | Undecided]:
        """Of scales that are dequantized themselves, as those of NVFP4 are, the stored numbers; their own scale is
        looked at where it is read.
        """
        stored = None if maker is None or maker.op_type != DEQUANTIZE else array(maker.inputs[0])
        if stored is None:
            yield Undecided(node, f"the scale {scale.name!r} is computed in the graph, from constants")
            return
        values = stored.astype(np.float32).ravel()
        wrong = int((~(np.isfinite(values) & (values > 0))).sum())
        if wrong:
            yield Violation(
                node, f"{wrong} of {values.size} scales are not finite and positive, before they are scaled"
            )


class ScaleShapes(Rule):
    """TRT-Q03. TensorRT for RTX 1.7: another number of scales than slices, a wrong axis, a wrong rank and blocks along
    any but the last two dimensions are refused by the parser; one scale in a list is taken, and what reads it is
    computed in float.
    """

    id = "TRT-Q03"
    severity = Severity.ERROR
    title = "A scale is one number, one per slice along the axis, or one per block of one of the last two dimensions."
    remedy = "Give the scale the shape that its tensor and axis require; a single scale has no dimensions."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every pair of QuantizeLinear and DequantizeLinear, and at those without a partner."""
        for node in distinct_quantizers(model):
            shape, sizes = scale_shape(node), sizes_of(input_of(node, 0))
            if shape == () or _is_of_each_call(input_of(node, 1)):
                continue
            if shape is None or sizes is None:
                yield Undecided(node, f"the shape of the {'scale' if shape is None else 'tensor'} is not known")
            elif len(shape) == 1 and len(sizes) != 1:
                yield from self._per_axis(node, shape[0], sizes)
            elif len(shape) != len(sizes):
                yield Violation(node, f"the scale has {len(shape)} dimensions, its tensor {len(sizes)}")
            elif len(shape) > 1 or block_of(node):
                yield from self._blocks(node, shape, sizes)
            else:
                yield from self._per_axis(node, shape[0], sizes)

    def _per_axis(self, node: "ir.Node", count: int, sizes: tuple[int | None, ...]) -> Iterator[Violation | Undecided]:
        axis = axis_of(node)
        if not 0 <= axis < len(sizes):
            if count > 1:
                yield Violation(node, f"axis {axis} of a tensor of {len(sizes)} dimensions")
            return
        size = sizes[axis]
        if size is None and count > 1:
            yield Undecided(node, f"dimension {axis} is open, and there are {count} scales for it")
        elif count == 1 and size != 1:
            message = f"one scale in a list, for {size or 'an open number of'} slices along axis {axis}"
            yield Violation(node, f"{message}; what reads it is computed in float", Severity.WARNING)
        elif size not in (count, None):
            yield Violation(node, f"{count} scales for {size} slices along axis {axis}")

    def _blocks(
        self, node: "ir.Node", shape: tuple[int, ...], sizes: tuple[int | None, ...]
    ) -> Iterator[Violation | Undecided]:
        axis, block = axis_of(node), block_of(node)
        if not block:
            yield Violation(node, f"a scale of {len(shape)} dimensions without block_size")
        elif axis < len(sizes) - 2:
            yield Violation(node, f"blocks along axis {axis} of {len(sizes)}; TensorRT has the last two")
        elif None in sizes:
            yield Undecided(node, "the tensor has an open dimension")
        else:
            wanted = tuple(size // block if at == axis else size for at, size in enumerate(sizes) if size is not None)
            whole = not (sizes[axis] or 0) % block
            if not whole or shape != wanted:
                yield Violation(node, f"scales of shape {shape} for {sizes} in blocks of {block} along axis {axis}")


class ScaleTypes(Rule):
    """TRT-Q04. TensorRT for RTX 1.7: scales of another float type are taken, but what is dequantized has their type; an
    operator with inputs of two float types is refused by the parser. Scales in float16 are taken in old operator sets.
    """

    id = "TRT-Q04"
    severity = Severity.WARNING
    title = "Scales have the floating-point type of their tensor; float16 scales need operator set 19."
    remedy = "Write scales in the type of the tensor, as export_onnx(..., dtype=torch.float16) does."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every QuantizeLinear, then at the operators that read what is dequantized."""
        old = opset_of(model) < _OPSET_OF_FLOAT16
        for node in nodes_of(model, QUANTIZE):
            x, scale = input_of(node, 0), input_of(node, 1)
            if x is None or scale is None or x.dtype is None or scale.dtype is None:
                yield Undecided(node, "the type of the tensor or of the scale is not known")
            elif x.dtype != scale.dtype:
                yield Violation(node, f"the scale is {scale.dtype.name}, its tensor {x.dtype.name}")
            elif old and scale.dtype.name == "FLOAT16":
                yield Violation(node, f"scales in float16 since operator set 19; the file says {opset_of(model)}")
        for node in nodes_of(model, *WEIGHTED):
            types = {value.dtype.name for value in node.inputs if value is not None and value.dtype is not None}
            if len(types) > 1 and any(producer(value, DEQUANTIZE) for value in node.inputs):
                message = f"the inputs are {' and '.join(sorted(types))}; TensorRT converts none of them"
                yield Violation(node, message, Severity.ERROR)
