"""Number formats, one row each; whatever lists or distinguishes formats reads this table."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch

from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True, kw_only=True)
class NumberFormat:
    """The properties of a number format.

    Attributes:
        name: As configurations, recipes and policies write it.
        bits: Of one value.
        low: The most negative number.
        high: The largest number.
        smallest: The smallest number above zero.
        mantissa_bits: Stored bits of the mantissa of a floating-point format; ``None`` for integers.
        storage: The dtype that holds the numbers. Formats that torch has no dtype for are stored in a wider one.
        onnx_type: Name of the tensor element type in ONNX (``onnx.TensorProto.DataType``).
        opset: First version of ONNX's operator set whose QuantizeLinear and DequantizeLinear take it.
        engine_type: What reports of engines, and devices, call it.
        for_activations: Whether activations may be quantized to it, and not only weights.
        block: Number of values that always share a scale; ``None`` leaves that to the configuration.
        scale_dtype: Type of the scales of blocks; ``None`` for the type of the values.
        second_scale: Whether the scales of blocks have a scale of their own, one per tensor.
    """

    name: str
    bits: int
    low: float
    high: float
    smallest: float
    mantissa_bits: int | None = None
    storage: torch.dtype
    onnx_type: str
    opset: int
    engine_type: str
    for_activations: bool = True
    block: int | None = None
    scale_dtype: torch.dtype | None = None
    second_scale: bool = False


def _unsigned(name: str, bits: int, storage: torch.dtype, opset: int) -> NumberFormat:
    """0…2ᵇ − 1; with a zero point, it holds negative values as well."""
    return replace(_integer(name, bits, storage, opset), low=0.0, high=float(2**bits - 1))


def _integer(name: str, bits: int, storage: torch.dtype, opset: int, *, for_activations: bool = True) -> NumberFormat:
    """Two's complement: −2ᵇ⁻¹…2ᵇ⁻¹ − 1."""
    return NumberFormat(
        name=name,
        bits=bits,
        low=-float(2 ** (bits - 1)),
        high=float(2 ** (bits - 1) - 1),
        smallest=1.0,
        storage=storage,
        onnx_type=name.upper(),
        opset=opset,
        engine_type=name,
        for_activations=for_activations,
    )


_E4M3 = NumberFormat(
    name="float8_e4m3fn",
    bits=8,
    low=-448.0,
    high=448.0,
    smallest=2.0**-9,  # subnormal
    mantissa_bits=3,
    storage=torch.float8_e4m3fn,
    onnx_type="FLOAT8E4M3FN",
    opset=19,
    engine_type="float8_e4m3",
)
#: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, each of which E4M3 has: torch has a type for two of them in a byte,
#: ``float4_e2m1fn_x2``, which torch 2.13 can neither copy nor convert on a CPU.
_E2M1 = replace(
    _E4M3,
    name="float4_e2m1fn",
    bits=4,
    low=-6.0,
    high=6.0,
    smallest=0.5,
    mantissa_bits=1,
    onnx_type="FLOAT4E2M1",
    engine_type="float4_e2m1",
)


def _in_blocks(
    name: str, element: NumberFormat, opset: int, block: int, scale: torch.dtype, *, for_activations: bool = True
) -> NumberFormat:
    """Numbers of another format, so many of which share a scale that is a number of a format itself."""
    return replace(
        element,
        name=name,
        opset=opset,
        for_activations=for_activations,
        block=block,
        scale_dtype=scale,
        second_scale=scale is torch.float8_e4m3fn,
    )


class Precision(Enum):
    """A number format that values are rounded to. Its value is the format's name, ``"int8"``.

    Attributes:
        INT8: −128…127.
        UINT8: 0…255; with a zero point, which makes negative values fit.
        INT16: −32768…32767.
        INT7: −64…63; for weights, stored as INT8. On processors that add two products of 8 bits in 16, as x86 ones
            with AVX2 or AVX-512 but without VNNI do, larger weights can overflow.
        INT4: −8…7; for weights.
        FP8: E4M3 without infinities (``float8_e4m3fn``), −448…448 (Micikevicius et al. 2022).
        NVFP4: E2M1, −6…6, in blocks of 16; their scales are numbers of E4M3, which one float32 scale of the tensor
            multiplies ("Pretraining Large Language Models with NVFP4", 2025, section 2).
        MXFP8: E4M3 in blocks of 32, whose scales are powers of two, E8M0 (OCP Microscaling Formats (MX) Specification
            1.0, 2023, table 1).
        MXFP4: E2M1 in blocks of 32, whose scales are powers of two, E8M0 (the same table); for weights.
    """

    INT8 = _integer("int8", 8, torch.int8, opset=18)  # the oldest operator set that files are written for
    UINT8 = _unsigned("uint8", 8, torch.uint8, opset=18)
    INT16 = _integer("int16", 16, torch.int16, opset=21)
    INT7 = replace(
        _integer("int7", 7, torch.int8, opset=18, for_activations=False), onnx_type="INT8", engine_type="int8"
    )
    INT4 = _integer("int4", 4, torch.int8, opset=21, for_activations=False)
    FP8 = _E4M3
    NVFP4 = _in_blocks("nvfp4", _E2M1, opset=23, block=16, scale=torch.float8_e4m3fn)
    MXFP8 = _in_blocks("mxfp8", _E4M3, opset=24, block=32, scale=torch.float8_e8m0fnu)
    MXFP4 = _in_blocks(  # no compiler has an operator that finds scales of such blocks while a model runs
        "mxfp4", _E2M1, opset=24, block=32, scale=torch.float8_e8m0fnu, for_activations=False
    )

    _value_: str
    format: NumberFormat

    def __new__(cls, row: Any) -> "Precision":  # Any: for mypy, Precision("int8") passes its argument here
        """A member whose value is the name of its format."""
        member = object.__new__(cls)
        member._value_ = row.name
        member.format = row
        return member

    @property
    def has_scale_format(self) -> bool:
        """Whether the scales of its blocks are numbers of a format, too."""
        return self.format.scale_dtype is not None

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point format, whose numbers are denser near zero."""
        return self.format.mantissa_bits is not None

    @property
    def is_unsigned(self) -> bool:
        """Whether it has no negative numbers, and so needs a zero point."""
        return self.format.low == 0

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return self.format.bits

    @property
    def span(self) -> tuple[float, float]:
        """The smallest value above zero, and the largest, of a tensor whose own scale is 1.

        Where scales of blocks have a scale, these are numbers of the format times the least and the greatest of those
        scales: 2⁻⁹ · 0.5 and 448 · 6 of NVFP4.
        """
        if not self.format.second_scale:
            return self.smallest, self.high
        return self.smallest * _E4M3.smallest, self.high * _E4M3.high

    @property
    def smallest(self) -> float:
        """The smallest number above zero; of E4M3 the smallest subnormal one, 2⁻⁹."""
        return self.format.smallest

    @property
    def low(self) -> float:
        """The most negative number."""
        return self.format.low

    @property
    def high(self) -> float:
        """The largest number."""
        return self.format.high
