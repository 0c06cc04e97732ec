"""Rules about operators and types that TensorRT does not have."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, is_standard, nodes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.refused import refusals, said

if TYPE_CHECKING:
    import onnx_ir as ir

#: ONNX operators (onnx 1.23) that the parser of TensorRT for RTX 1.7.1 says it does not support
#: (``OnnxParser.supports_operator``), of sequences, text and chance, which the table of ``refused.py`` lacks.
_UNSUPPORTED = frozenset(
    {
        *("ConcatFromSequence", "MaxRoiPool", "Multinomial", "Optional", "OptionalHasElement", "RegexFullMatch"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"),
        *("SequenceMap", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit"),
    }
)
#: ONNX Runtime's operators that the same parser supports.
_MICROSOFT = frozenset(
    {
        *("Attention", "CausalConvWithState", "GatherND", "Gelu", "GridSample", "GroupQueryAttention"),
        *("LinearAttention", "MatMulNBits", "MultiHeadAttention", "Pad", "QMoE", "Range", "RotaryEmbedding"),
        *("SkipSimplifiedLayerNormalization", "Trilu"),
    }
)
_INTEGER_OPERATORS = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention", "QGemm"}
)
#: Types for which the same parser has no name.
_UNKNOWN_TYPES = frozenset(
    {
        *("INT16", "UINT16", "UINT32", "UINT64", "UINT4", "STRING", "COMPLEX64", "COMPLEX128"),
        *("FLOAT8E5M2", "FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
    }
)


#: What may read UINT8: a conversion, and exponents of scales.
_TAKING_UINT8 = frozenset({"Cast", "TRT_MXFP8DequantizeLinear"})


def is_integer_operator(kind: str) -> bool:
    """Whether an operator of this name computes on quantized numbers itself."""
    return kind.startswith("QLinear") or kind.endswith("Integer") or kind in _INTEGER_OPERATORS


class IntegerOperators(Rule):
    """TRT-Q06. TensorRT for RTX 1.7: refused by the parser."""

    id = "TRT-Q06"
    severity = Severity.ERROR
    title = "No operators compute on quantized values themselves, as QLinearConv and MatMulInteger do."
    remedy = "Quantize with pairs of QuantizeLinear and DequantizeLinear (in ONNX Runtime: QuantFormat.QDQ)."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the names of all operators, whatever their domain."""
        for node in model.graph.all_nodes():
            if is_integer_operator(node.op_type):
                yield Violation(node, f"TensorRT has no {node.op_type}")


class Operators(Rule):
    """TRT-O01. TensorRT for RTX 1.7: refused by the parser; operators of other domains are refused where no plugin has
    their name, and taken for ONNX's own where one of those has it.
    """

    id = "TRT-O01"
    severity = Severity.ERROR
    title = "TensorRT supports every operator."
    remedy = "Write the model without the operator, compute it outside the engine, or load a plugin for it."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the names and domains of all operators."""
        for node in model.graph.all_nodes():
            if not is_integer_operator(node.op_type):  # those are TRT-Q06
                yield from self._of(node)

    def _of(self, node: "ir.Node") -> Iterator[Violation | Undecided]:
        kind = node.op_type
        if kind in _UNSUPPORTED:
            yield Violation(node, f"TensorRT has no {kind}")
        elif is_standard(node) or kind.startswith("TRT_"):
            words = None if kind not in refusals() else refusals()[kind].whole
            if words is not None:
                yield Violation(node, said(kind, words))
        elif node.domain == "com.microsoft":
            if kind not in _MICROSOFT:
                yield Violation(node, f"TensorRT has no {kind} of ONNX Runtime")
        else:
            yield Undecided(node, f"whether there is a plugin for {node.domain}::{kind} is not in the file")


class Types(Rule):
    """TRT-O02. TensorRT for RTX 1.7: refused by the parser; UINT8 may be an input or output and converted, no more."""

    id = "TRT-O02"
    severity = Severity.ERROR
    title = "TensorRT supports the type of every tensor; UINT8 is for inputs and outputs only."
    remedy = "Use INT32 or INT64 for integers, and put a Cast directly after a UINT8 input."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the types of all inputs of operators; those of Q/DQ are TRT-Q25 and TRT-Q08."""
        quantizers = {id(node) for node in nodes_of(model, QUANTIZE, DEQUANTIZE)}
        for node in model.graph.all_nodes():
            if id(node) in quantizers or is_integer_operator(node.op_type):
                continue
            for value in node.inputs:
                kind = None if value is None or value.dtype is None else value.dtype.name
                if kind in _UNKNOWN_TYPES:
                    yield Violation(node, f"reads {value.name!r} of type {kind}" if value else "")
                    break
                if kind == "UINT8" and node.op_type not in _TAKING_UINT8 and not self._is_quantized(value):
                    yield Violation(node, f"reads {value.name!r} of type UINT8; only Cast can" if value else "")
                    break

    def _is_quantized(self, value: "ir.Value | None") -> bool:
        maker = None if value is None else value.producer()
        return maker is not None and maker.op_type in (QUANTIZE, "DynamicQuantizeLinear")
