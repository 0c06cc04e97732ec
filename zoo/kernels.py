"""How many of the products that a file asks to be computed on integers are, by the engine's own account."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from embedl_deploy.artifact import is_dequantized
from embedl_deploy.engine import BITS, EngineReport

if TYPE_CHECKING:
    import onnx_ir as ir

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_INTEGER_BITS = 8


def integer_kernels(file: "ir.Model", report: EngineReport) -> dict[str, Any]:
    """Products whose two operands are quantized in a file, and what the engine makes of them.

    Args:
        file: The file that the engine was compiled from.
        report: What the compiler says of the engine.

    Returns:
        ``asked``: how many there are; ``int8``: how many the engine computes in 8 bits; ``in_float``: the others,
        as pairs of the compiler's reason and their number.
    """
    asked = {str(node.name): node for node in file.graph.all_nodes() if _is_asked_for(node)}
    reasons: Counter[str] = Counter()
    computed: set[str] = set()
    for layer in report.layers:
        if layer.kind.is_weighted and BITS.get(layer.precision, 32) <= _INTEGER_BITS:
            computed.update(layer.onnx_nodes)
    why = {name: layer.reason for layer in report.layers for name in layer.onnx_nodes if layer.kind.is_weighted}
    for name, node in asked.items():
        if name not in computed:
            reasons[f"{node.op_type}: {why.get(name) or 'not said'}"] += 1
    return {
        "asked": len(asked),
        "int8": len(asked) - reasons.total(),
        "in_float": [list(pair) for pair in reasons.most_common()],
    }


def _is_asked_for(node: "ir.Node") -> bool:
    return node.op_type in _PRODUCTS and all(is_dequantized(value) for value in node.inputs[:2])
