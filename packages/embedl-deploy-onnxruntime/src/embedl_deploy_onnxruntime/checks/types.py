"""The rules about types that the runtime has no kernels for: of quantized numbers and scales, and of floats."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, input_of, nodes_of, quantized_type_name
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that the runtime has no kernel for in bfloat16, on a processor; others have one, or were not tried.
_NOT_IN_BFLOAT16 = frozenset(
    {
        *("Abs", "Add", "AveragePool", "Ceil", "Conv", "Cos", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp"),
        *("Expand", "Floor", "Gelu", "Gemm", "GlobalAveragePool", "Greater", "HardSigmoid", "HardSwish", "LeakyRelu"),
        *("Less", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Pad"),
        *("Pow", "PRelu", "RMSNormalization", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("ReduceProd", "ReduceSum", "Relu", "Round", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign"),
        *("Sqrt", "Sub", "Sum", "Tanh", "Tile"),
    }
)


class NarrowFloats(Rule):
    """ORT-20. ONNX Runtime 1.31: no session can be made, because QuantizeLinear and DequantizeLinear have no kernels
    for E2M1, nor for scales in E8M0.
    """

    id = "ORT-20"
    severity = Severity.ERROR
    title = "No tensor is quantized to E2M1 (NVFP4, MXFP4), and no scale is in E8M0 (MX formats)."
    remedy = (
        "Store the same numbers in E4M3 and the scales in float32, as export_onnx does for this backend; or use INT4."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the numbers and the scale of every QuantizeLinear and DequantizeLinear."""
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            scale = input_of(node, 1)
            if quantized_type_name(node) == "FLOAT4E2M1":
                yield Violation(node, "numbers in FLOAT4E2M1: no session can be made, there is no kernel for them")
            elif scale is not None and scale.dtype is not None and scale.dtype.name == "FLOAT8E8M0":
                yield Violation(node, "scales in FLOAT8E8M0: no session can be made, there is no kernel for them")


class BFloat16(Rule):
    """ORT-21. ONNX Runtime 1.31: no session can be made; 52 operators were tried one by one, on an x86 processor. Those
    that only move values have kernels, and float16 is computed in float32, with casts that the runtime inserts.
    """

    id = "ORT-21"
    severity = Severity.ERROR
    title = "Nothing is computed in bfloat16."
    remedy = "Export with dtype=torch.float32, and take torch.autocast and casts to bfloat16 out of the model."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the first input of every such operator."""
        for node in nodes_of(model, *_NOT_IN_BFLOAT16):
            first = input_of(node, 0)
            if first is not None and first.dtype is not None and first.dtype.name == "BFLOAT16":
                yield Violation(node, f"{node.op_type} in bfloat16: no session can be made, there is no kernel for it")
