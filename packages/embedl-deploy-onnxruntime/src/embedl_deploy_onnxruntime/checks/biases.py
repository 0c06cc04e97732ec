"""The rule about biases of quantized convolutions and products."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedl_deploy.artifact import (
    Constants,
    array,
    fixed_sizes_of,
    input_of,
    nodes_of,
    producer,
    quantized_type_name,
    sizes_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    WEIGHTED,
    dequantizer,
    quantizer_behind,
    reads_integers,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: The largest number in INT32.
_LARGEST = 2**31 - 1
#: How much the scale of a bias may differ from that of the products that it is added to.
_TOLERANCE = 0.01


class Biases(Rule):
    """ORT-05. ONNX Runtime 1.31: a float bias is quantized by the runtime where the operator's output is quantized, and
    keeps the operator in float where it is not. One that INT32 cannot hold in steps of input × weight, as where the
    weights of a channel are nearly zero, becomes another number. A bias in INT32 of another scale keeps a convolution
    in float; a Gemm adds its integers as they are, so that its output is wrong. A MatMul and the Add of a bias of one
    dimension become a Gemm if the shape is known.
    """

    id = "ORT-05"
    severity = Severity.WARNING
    title = (
        "A bias is a constant of one dimension: INT32 with scale input × weight, or float if the output is quantized."
    )
    remedy = "Store the bias in INT32 with the product of both scales, as export_onnx does, or quantize the output."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the bias of every convolution and product of quantized numbers."""
        constants = Constants()
        for node in nodes_of(model, *WEIGHTED):
            if not reads_integers(node):
                continue
            adder, bias = _bias(node, constants)
            if adder is None or bias is None:
                continue
            dequantize = producer(bias, "DequantizeLinear")
            if dequantize is None:
                yield from _of_float(node, adder, bias, constants)
            elif quantized_type_name(dequantize) != "INT32":
                yield Violation(
                    node, f"computed in float: its bias is {quantized_type_name(dequantize)}; expected INT32"
                )
            else:
                yield from _of_integers(node, dequantize)


def _bias(node: "ir.Node", constants: Constants) -> "tuple[ir.Node | None, ir.Value | None]":
    """The node that adds the bias, and the bias; of a MatMul only where the runtime makes them a Gemm."""
    if node.op_type != "MatMul":
        return node, input_of(node, 2)
    uses = list(node.outputs[0].uses())
    adder = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Add" else None
    if adder is None or fixed_sizes_of(node.outputs[0]) is None or len(fixed_sizes_of(node.inputs[1]) or ()) != 2:
        return None, None
    bias = adder.inputs[1 - uses[0].idx]
    return (adder, bias) if bias in constants and len(sizes_of(bias) or ()) == 1 else (None, None)


def _of_float(
    node: "ir.Node", adder: "ir.Node", bias: "ir.Value", constants: Constants
) -> Iterator[Violation | Undecided]:
    if bias not in constants:
        yield Violation(node, "computed in float: its bias is computed at run time")
        return
    behind, sizes = quantizer_behind(adder), sizes_of(bias)
    if node.op_type == "Gemm" and sizes is not None and len(sizes) != 1:
        yield Violation(node, f"computed in float: its bias has {len(sizes)} dimensions; expected 1")
    elif node.op_type != "Conv" and isinstance(behind, str):  # of a convolution: ORT-01
        yield Violation(node, f"computed in float: its bias is in float, and its output is not quantized ({behind})")
    elif not isinstance(behind, str):
        yield from _too_large(node, bias)


def _too_large(node: "ir.Node", bias: "ir.Value") -> Iterator[Violation]:
    """Of a float bias that the runtime quantizes: where INT32 ends."""
    expected, values = _scale_of_products(node), array(bias)
    if expected is None or values is None or expected.size not in (1, values.size):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.abs(values.astype(np.float64).ravel()) / expected
    wrong = int((steps > _LARGEST).sum())
    if wrong:
        channels = f"{wrong} of {values.size} channels"
        message = (
            f"the runtime rounds its bias to INT32, which cannot hold it in {channels}, so that the output is wrong"
        )
        yield Violation(node, message, Severity.ERROR)


def _scale_of_products(node: "ir.Node") -> "npt.NDArray[np.float64] | None":
    """Input × weight, one number or one for each output; ``None`` if they are not in the file."""
    sources = [dequantizer(value) for value in node.inputs[:2]]
    scales = [None if source is None else array(source.inputs[1]) for source in sources]
    if scales[0] is None or scales[1] is None or 1 not in (scales[0].size, scales[1].size):
        return None
    return scales[0].astype(np.float64).ravel() * scales[1].astype(np.float64).ravel()


def _of_integers(node: "ir.Node", dequantize: "ir.Node") -> Iterator[Violation | Undecided]:
    found, expected = array(dequantize.inputs[1]), _scale_of_products(node)
    if expected is None or found is None:
        yield Undecided(node, "the scales of its input, weight and bias are not all in the file")
        return
    try:
        fits = np.allclose(found.astype(np.float64).ravel(), expected, rtol=_TOLERANCE, atol=0)
    except ValueError:  # of other shapes: ONNX-2 and ORT-06 are about those
        return
    if not fits:
        said = f"its bias has the scale {found.ravel()[0]:.4g}, input × weight is {expected[0]:.4g}"
        if node.op_type == "Conv":
            yield Violation(node, f"computed in float: {said}")
        else:
            yield Violation(node, f"the runtime ignores the scale, so that the output is wrong: {said}", Severity.ERROR)
