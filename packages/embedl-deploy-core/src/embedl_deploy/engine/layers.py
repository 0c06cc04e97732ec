"""A layer of a compiled engine, described independently of the compiler."""

import enum
import math
from dataclasses import asdict, dataclass
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.plain_values import value_of
from embedl_deploy.validation.checked import checked

_TYPES_BY_BITS = {
    64: ("float64", "int64", "uint64"),
    32: ("float32", "int32", "uint32"),
    16: ("float16", "bfloat16", "int16", "uint16"),
    8: ("float8_e4m3", "float8_e5m2", "float8_e8m0", "int8", "uint8", "bool"),
    4: ("int4", "uint4", "float4_e2m1"),
}
#: Bits of an element.
BITS = {dtype: bits for bits, dtypes in _TYPES_BY_BITS.items() for dtype in dtypes}

#: Types of indices and conditions.
_INDICES = frozenset({"int64", "int32", "bool"})

#: What a layer's plain values hold besides its fields, for programs that read JSON.
_DERIVED = ("precision", "bytes_read", "bytes_written", "weight_bytes")


class LayerKind(str, enum.Enum):
    """What a layer does.

    Attributes:
        CONVOLUTION: A convolution, with what the compiler fused to it.
        GEMM: A product of matrices.
        ATTENTION: Attention as one kernel.
        POINTWISE: Operations on single values: sums, activations, quantization.
        NORMALIZATION: Layer norm and the like.
        POOLING: Pooling.
        REFORMAT: Another type, layout or place for the same values.
        SYNCHRONIZATION: Nothing: it waits for another stream or wakes one. Not counted as a kernel.
        OTHER: Anything else, or what the compiler's word leaves open.
    """

    CONVOLUTION = "convolution"
    GEMM = "gemm"
    ATTENTION = "attention"
    POINTWISE = "pointwise"
    NORMALIZATION = "normalization"
    POOLING = "pooling"
    REFORMAT = "reformat"
    SYNCHRONIZATION = "synchronization"
    OTHER = "other"

    @property
    def is_weighted(self) -> bool:
        """Whether it multiplies matrices, which is what lower precision makes faster."""
        return self in (LayerKind.CONVOLUTION, LayerKind.GEMM, LayerKind.ATTENTION)


@checked
@dataclass(frozen=True)
class EngineTensor:
    """A tensor that a layer reads or writes.

    Attributes:
        name: The compiler's name for it.
        shape: Sizes; −1 for a dimension that is open.
        dtype: Element type, as in :data:`BITS`; any other name counts as 32 bits.
        layout: How it lies in memory, in the compiler's words.
        elements: How many elements it has at the usual shapes of the engine's inputs, where dimensions are open;
            ``None`` where that is not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    elements: int | None = None

    def __post_init__(self) -> None:
        if self.bytes >= 2**63:
            raise ValueError(f"the tensor {self.name!r} has the shape {self.shape}, more bytes than can be addressed")

    @property
    def bytes(self) -> int:
        """Size without padding; where it :attr:`is_unknown`, the least that it can be."""
        elements = math.prod(map(abs, self.shape)) if self.elements is None else self.elements
        return math.ceil(elements * BITS.get(self.dtype, 32) / 8)

    @property
    def is_open(self) -> bool:
        """Whether the engine takes several sizes of it."""
        return any(size < 0 for size in self.shape)

    @property
    def is_unknown(self) -> bool:
        """Whether its size is not known: it is open, and nobody could tell how large it usually is."""
        return self.is_open and self.elements is None


@checked
@dataclass(frozen=True)
class EngineLayer:
    """A kernel, or what the compiler runs as one.

    Attributes:
        name: The compiler's name for it.
        kind: What it does.
        type: The compiler's word for that.
        inputs: Activations that it reads.
        outputs: Activations that it writes.
        constants: Weights and other constants that it reads.
        onnx_nodes: Names of the ONNX nodes that went into it.
        modules: Paths of the PyTorch modules that those came from.
        operations: Multiplications and additions of its convolutions and matrix products; 0 where there are none.
        reason: Why it computes in a wider type than the file has, if the compiler says so; its words, else empty.
        computed_in: The type that it computes in, where that is not the type of what it reads: a product that
            quantizes its input by itself.
        seconds: How long it takes, measured; the median of several runs. ``None`` where it was not measured.
    """

    name: str
    kind: LayerKind
    type: str
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    constants: tuple[EngineTensor, ...] = ()
    onnx_nodes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    operations: int = 0
    reason: str = ""
    computed_in: str = ""
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise InputError(f"The layer {self.name!r} has seconds {self.seconds!r}; expected a positive number.")

    @property
    def bytes_read(self) -> int:
        """Bytes of activations that it reads."""
        return sum(tensor.bytes for tensor in self.inputs)

    @property
    def bytes_written(self) -> int:
        """Bytes of activations that it writes."""
        return sum(tensor.bytes for tensor in self.outputs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of its constants."""
        return sum(tensor.bytes for tensor in self.constants)

    @property
    def precision(self) -> str:
        """The type that it computes in; if none is said, that of its first input, constant or output that holds values.

        Indices and conditions are no values, unless there is nothing else.
        """
        if self.computed_in:
            return self.computed_in
        types = [tensor.dtype for tensor in (*self.inputs, *self.constants, *self.outputs)]
        return next((dtype for dtype in types if dtype not in _INDICES), types[0] if types else "")

    @property
    def is_kernel(self) -> bool:
        """Whether it computes or moves something; otherwise it waits for another stream or wakes one."""
        return self.kind is not LayerKind.SYNCHRONIZATION

    @property
    def is_reformat(self) -> bool:
        """Whether it changes only type, layout or place."""
        return self.kind is LayerKind.REFORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with precision and bytes, which follow from the tensors."""
        return {**asdict(self), "kind": self.kind.value, **{name: getattr(self, name) for name in _DERIVED}}

    @classmethod
    @checked
    def from_dict(cls, plain: dict[str, Any]) -> "EngineLayer":
        """From what :meth:`to_dict` gave, before or after JSON.

        Raises:
            InputError: Something is missing, or of another type.
        """
        try:
            return value_of(cls, plain)
        except ValueError as error:
            raise InputError(f"plain is not an engine layer: {error}.") from error
