"""Rules about scales: along which axis, how many, and whether they are stored."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    attribute,
    axis_of,
    fixed_sizes_of,
    input_of,
    is_per_axis,
    nodes_of,
    producer,
    scale_shape,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    RECTIFIERS,
    WEIGHTED,
    dequantizer,
    is_mover,
    label,
    reads_integers,
)

if TYPE_CHECKING:
    import onnx_ir as ir


class WeightAxes(Rule):
    """ORT-06. ONNX Runtime 1.31 does not look at the axis: it takes the scales for those of the output channels. If
    there are as many input channels, the output is wrong; if not, the kernel fails when it is run. With a bias it does
    look, and computes in float.
    """

    id = "ORT-06"
    severity = Severity.ERROR
    title = "The scales of a weight lie along its output channels: axis 0 of Conv, the last of MatMul."
    remedy = "Quantize weights per output channel, or with one scale."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the weight of every convolution and product of quantized numbers."""
        constants = Constants()
        for node in nodes_of(model, *WEIGHTED):
            weight = dequantizer(node.inputs[1])
            if (
                weight is None
                or weight.inputs[0] not in constants
                or not is_per_axis(weight)
                or not reads_integers(node)
            ):
                continue
            axis, rank = _axis_at(node, weight), len(fixed_sizes_of(weight.inputs[0]) or ())
            expected = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else rank - 1
            if axis is None or not rank:
                yield Undecided(node, "the weight is reshaped on its way; where its axis of scales goes is not known")
            elif axis != expected:
                bias = node.op_type != "MatMul" and input_of(node, 2) is not None
                effect = "is computed in float" if bias else "computes wrong numbers, or fails when it is run"
                message = (
                    f"{effect}: the scales of its weight lie along axis {axis}; the output channels are axis {expected}"
                )
                yield Violation(node, message, Severity.WARNING if bias else None)


def _axis_at(node: "ir.Node", weight: "ir.Node") -> int | None:
    """The axis of a weight's scales as an operator reads it; ``None`` if it is moved in another way than transposed."""
    chain, maker = [], producer(node.inputs[1])
    while maker is not None and maker is not weight:
        chain.append(maker)
        maker = producer(maker.inputs[0])
    axis = axis_of(weight)
    for step in reversed(chain):
        order = attribute(step, "perm", None)
        if step.op_type != "Transpose" or order is None or axis not in order:
            return None
        axis = list(order).index(axis)
    return axis


class OneScaleOfActivations(Rule):
    """ORT-07. ONNX Runtime 1.31: Conv and MatMul fail when they are run, Add and Sigmoid when the session is made; Gemm
    and what only moves numbers are computed in float.
    """

    id = "ORT-07"
    severity = Severity.ERROR
    title = "Activations have one scale."
    remedy = "Quantize activations per tensor."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every DequantizeLinear of a tensor that is computed."""
        constants = Constants()
        for node in nodes_of(model, DEQUANTIZE):
            if node.inputs[0] in constants or not is_per_axis(node):
                continue
            readers = [use.node for use in node.outputs[0].uses()]
            kernel = next((reader for reader in readers if reads_integers(reader) and reader.op_type != "Gemm"), None)
            shape = "×".join(map(str, scale_shape(node) or ()))
            if kernel is None:
                message = f"a computed tensor has {shape} scales; what reads it is computed in float"
                yield Violation(node, message, Severity.WARNING)
            else:
                yield Violation(node, f"a computed tensor has {shape} scales; {label(kernel)} takes one, and fails")


class StoredScales(Rule):
    """ORT-08. ONNX Runtime 1.31 makes most integer kernels with scales that are computed at run time, and without zero
    points. These are computed in float: a Gemm and what only moves numbers without a zero point; what only moves
    numbers, a Clip, and a convolution with a bias, with a scale that is computed; a ReLU with a zero point that is.
    """

    id = "ORT-08"
    severity = Severity.WARNING
    title = "Scales are constants, and zero points are constants that are written."
    remedy = "Calibrate, so that scales are stored; at run time quantize with DynamicQuantizeLinear and MatMulInteger."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what is in front of every QuantizeLinear, and what reads every DequantizeLinear."""
        constants = Constants()
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            zero_point = input_of(node, 2)
            computed = [value.name for value in node.inputs[1:] if value is not None and value not in constants]
            of_run_time = node.op_type == DEQUANTIZE and producer(node.inputs[0], "DynamicQuantizeLinear") is not None
            if of_run_time or (zero_point is not None and not computed) or node.inputs[0] in constants:
                continue
            harmed = _harmed(node, node.inputs[1] in constants, zero_point in constants, zero_point is not None)
            if harmed is not None:
                what = f"{computed[0]!r} is computed at run time" if computed else "there is no zero point"
                yield Violation(node, f"{what}: {label(harmed)} is computed in float")


def _harmed(node: "ir.Node", stored_scale: bool, stored_zero: bool, written: bool) -> "ir.Node | None":
    """What is computed in float because of a scale or a zero point; a zero point that is left out is a stored one."""
    if node.op_type == QUANTIZE:
        maker = producer(node.inputs[0], *RECTIFIERS)
        clipped = maker is not None and maker.op_type == "Clip" and not stored_scale
        cut = not stored_zero or (not written and not stored_scale)
        return maker if clipped or cut else None
    for use in node.outputs[0].uses():
        reader = use.node
        if reader.op_type == "Gemm" and not written:
            return reader
        if reader.op_type == "Conv" and not stored_scale and use.idx == 0 and input_of(reader, 2) is not None:
            return reader
        if is_mover(reader) and reader.op_type not in ("Identity", "Dropout"):
            return reader
    return None
