"""TensorRT's words for types and layers in the core's."""

import re
from collections.abc import Sequence

from embedl_deploy.engine import EngineTensor, LayerKind

_TYPES = {
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "int8": "int8",
    "fp8": "float8_e4m3",
    "float8": "float8_e4m3",
    "int4": "int4",
    "fp4": "float4_e2m1",
    "fp4e2m1": "float4_e2m1",
    "fp8ue8m0": "float8_e8m0",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "uint8": "uint8",
}
_WORDS = {
    LayerKind.CONVOLUTION: (
        "correlation",
        "convolution",
        "conv",
        "deconvolution",
        "caskconvolution",
        "caskdeconvolution",
    ),
    LayerKind.GEMM: ("gemm", "caskgemm", "matrixmultiply", "matmul"),
    LayerKind.ATTENTION: ("fmha", "mha"),
    LayerKind.POINTWISE: ("kgen", "pointwise", "pointwisev2"),
    LayerKind.NORMALIZATION: ("normalization",),
    LayerKind.POOLING: ("pooling", "caskpooling", "pool"),
    LayerKind.SYNCHRONIZATION: ("signal", "wait"),
    LayerKind.REFORMAT: ("reformat", "shuffle", "cast"),
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
_FUSED = (("gemm", LayerKind.GEMM), ("matmul", LayerKind.GEMM), ("conv", LayerKind.CONVOLUTION))
_GENERATORS = frozenset({"kgen", "runtime_fusion"})
#: Those that multiply matrices, by their names, such as ``_gemm_mha_v2_myl0_5`` and ``__myl_FcAddAdd_myl0_6``.
_GENERATED = (
    (re.compile(r"_[a-z]+_mha_"), LayerKind.ATTENTION),
    (re.compile(r"__myl_([A-Z][a-z]*)*?Fc(?![a-z])"), LayerKind.GEMM),
)


def dtype_of(word: str) -> str:
    """An element type; an unknown word stays as it is."""
    word = word.strip()
    return _TYPES.get(word.lower(), word.lower())


def kind_of(
    word: str,
    name: str,
    inputs: Sequence[EngineTensor],
    outputs: Sequence[EngineTensor],
) -> LayerKind:
    """What a layer does, by TensorRT's word for it.

    A generated kernel with one input and one output, whose name tells of no arithmetic, only moves values.
    """
    if word.strip().lower() in _GENERATORS:
        for pattern, generated in _GENERATED:
            if pattern.match(name):
                return generated
    kind = _KINDS.get(word.strip().lower(), LayerKind.OTHER)
    if kind is LayerKind.OTHER:
        return next((fused for text, fused in _FUSED if text in word.lower()), kind)
    if kind is LayerKind.POINTWISE and _only_moves(name) and len(inputs) == len(outputs) == 1:
        return LayerKind.REFORMAT
    return kind


#: Parts of the names of generated kernels, such as ``__myl_TranCast_myl0_3``, that compute nothing.
_MOVES = ("Tran", "Cast", "Resh", "Move", "Copy", "Repl", "Slic", "Squeeze", "Unsq")


def _only_moves(name: str) -> bool:
    """Whether the operations in the name of a generated kernel only move values or change their type."""
    body = name.removeprefix("__myl_").partition("_")[0]
    while body:
        part = next((move for move in _MOVES if body.startswith(move)), None)
        if part is None:
            return False
        body = body.removeprefix(part)
    return name.startswith("__myl_")


#: Names stand in brackets, apart by a separator that no name holds.
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*?)\](?=[\x1e\x1f\[]|$)")


def onnx_nodes_in(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes that a layer's metadata lists."""
    return tuple(_ONNX_NODE.findall(metadata.strip()))
