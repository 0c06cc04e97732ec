"""The quantization configuration of one tensor: format, granularity of scales, calibration method."""

from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.validation.checked import checked


class CalibrationMethod(Enum):
    """How the range of a tensor is found.

    Attributes:
        MINMAX: The extremes of all values.
        MOVING_AVERAGE: Exponential average of the batches' extremes; the only one that depends on the order of the
            batches and on how data is split into them.
        PERCENTILE: The magnitude that a given share of the values does not exceed.
        ENTROPY: The range whose quantized distribution diverges least from the original (Migacz 2017).
        MSE: The range with the least mean squared error.
    """

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


#: No row of a weight has more values, nor can files say more.
_LARGEST_BLOCK = 2**31 - 1
_BY_BITS = {4: Precision.INT4, 8: Precision.INT8, 16: Precision.INT16}


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class TensorQuantConfig:
    """How a tensor is quantized.

    Integer formats: q = clamp(round(x / s) + z), x' = (q − z)·s, ties to even. FP8: q = cast(clamp(x / s)), x' = q·s.
    The largest magnitude of a symmetric range becomes the largest number: s = max|x| / high.

    Attributes:
        precision: The number format.
        symmetric: Zero point 0. An asymmetric range has a zero point that makes 0.0 exact.
        per_channel: One scale per output channel, for weights.
        calibration_method: How the range is found.
        percentile: For ``PERCENTILE``, in percent of the values.
        power_of_two: Round scales up to powers of two, as fixed-point hardware needs them.
        block_size: One scale for this many neighbouring inputs of each output, for weights of matrix products. Formats
            that are defined in blocks, such as ``NVFP4``, have their own.
        learnable: After calibration the scale is a parameter that training updates (LSQ, Esser et al. 2020).
        axis: The channel axis of ``per_channel``; ``None`` takes that of the operator's output channels.
        n_bits: 4, 8 or 16, another way to write an integer ``precision``. Always ``None`` once the object is made.
        centered: In files the zero point is 0 and the tensor itself is shifted, for hardware without zero points
            (:mod:`embedl_deploy.quantize.accuracy.centering`, which sets it). A range that is about as far on both
            sides of zero is symmetric even so.
        dynamic: The range is that of each call: the extremes of the tensor that is passed, and 0, as ONNX's
            DynamicQuantizeLinear has it. For activations in asymmetric ``UINT8``; nothing is calibrated, and there is
            no state.

    Raises:
        QuantizationConfigError: The combination makes no sense.
    """

    precision: Precision = Precision.INT8
    symmetric: bool = True
    per_channel: bool = False
    calibration_method: CalibrationMethod = CalibrationMethod.MINMAX
    percentile: float = 99.99
    power_of_two: bool = False
    block_size: int | None = None
    learnable: bool = False
    axis: int | None = None
    n_bits: int | None = None
    centered: bool = False
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.n_bits is not None:
            if self.n_bits not in _BY_BITS:
                *first, last = sorted(_BY_BITS)
                raise _invalid(f"n_bits={self.n_bits!r}; expected {', '.join(map(str, first))} or {last}")
            given = _BY_BITS[self.n_bits]
            if self.precision not in (Precision.INT8, given):
                raise _invalid(f"n_bits={self.n_bits} and precision={self.precision}; give one of them")
            object.__setattr__(self, "precision", given)
            object.__setattr__(self, "n_bits", None)
        if self.precision.format.block is not None:
            self._check_format_in_blocks(self.precision.format.block)
        self._check_combination()

    def _check_combination(self) -> None:
        if self.precision.is_float and not self.symmetric:
            raise _invalid(f"{self.precision.name} with symmetric=False; a floating-point format has no zero point")
        if self.precision.is_unsigned and self.symmetric:
            raise _invalid(f"{self.precision.name} with symmetric=True; an unsigned format needs a zero point")
        if not 0 < self.percentile <= 100:
            raise _invalid(f"percentile={self.percentile!r}; expected more than 0 and at most 100")
        if self.block_size is not None:
            if self.block_size < 1:
                raise _invalid(f"block_size={self.block_size!r}; expected a positive number of values")
            if self.block_size > _LARGEST_BLOCK:
                raise _invalid(f"block_size={self.block_size}; expected at most {_LARGEST_BLOCK}, the inputs of a row")
            if self.per_channel:
                raise _invalid("block_size with per_channel=True; blocks have a scale for each channel already")
            if not self.symmetric:
                raise _invalid("block_size with symmetric=False; blocks have no zero points")
        if self.per_channel and not self.symmetric:
            raise _invalid("per_channel with symmetric=False; zero points per channel are not supported")
        if self.axis is not None and not self.per_channel:
            raise _invalid(f"axis={self.axis} without per_channel=True")
        if self.axis is not None and self.axis < 0:
            raise _invalid(f"axis={self.axis}; expected a dimension of the weight, counted from 0")
        if self.calibration_method is CalibrationMethod.ENTROPY and (self.precision.is_float or not self.symmetric):
            of = "an asymmetric range" if not self.symmetric else self.precision.name
            raise _invalid(f"ENTROPY for {of}; it is defined for symmetric integers. Use MSE")
        if self.power_of_two and self.learnable:
            raise _invalid("power_of_two with learnable=True; a trained scale does not stay a power of two")
        if self.learnable and not self.symmetric:
            raise _invalid("learnable with symmetric=False; zero points are not learned")
        if self.centered and self.symmetric:
            raise _invalid("centered=True with symmetric=True; it is about a zero point. Use quantize(centering=True)")
        if self.dynamic:
            self._check_dynamic()

    def _check_format_in_blocks(self, block: int) -> None:
        """Take the block size that the format is defined with, and refuse what its scales cannot be."""
        name = self.precision.name
        if self.block_size not in (None, block):
            raise _invalid(f"{name} with block_size={self.block_size}; the format is defined in blocks of {block}")
        if self.per_channel:
            raise _invalid(f"{name} with per_channel=True; the format has a scale for each block of {block}")
        if self.power_of_two:
            raise _invalid(f"{name} with power_of_two=True; the format says what numbers its scales are")
        if self.learnable:
            raise _invalid(f"{name} with learnable=True; a trained scale is no number of the format's scales")
        object.__setattr__(self, "block_size", block)

    def _check_dynamic(self) -> None:
        """Refuse what DynamicQuantizeLinear of ONNX does not do."""
        if self.precision is not Precision.UINT8:
            raise _invalid(
                f"dynamic with {self.precision.name}; ranges of each call are in UINT8. Use precision=Precision.UINT8, "
                "symmetric=False"
            )
        if not self.shares_one_scale:
            raise _invalid("dynamic with several scales; a range of each call is that of the whole tensor")
        if self.centered:
            raise _invalid("dynamic with centered=True; a tensor is shifted by a zero point that is known beforehand")
        if self.power_of_two:
            raise _invalid("dynamic with power_of_two=True; the scale of each call is its range divided by 255")
        if self.calibration_method is not CalibrationMethod.MINMAX:
            raise _invalid(
                f"dynamic with {self.calibration_method.name}; the range of each call is that of its extremes, MINMAX"
            )

    @checked(error=QuantizationConfigError)
    def in_precision(self, precision: Precision) -> "TensorQuantConfig":
        """The same settings in another number format, where the format has them.

        A format of floating-point numbers has no zero point, and no ``ENTROPY``; an unsigned one has a zero point, and
        so stands for one scale per tensor alone: a weight with several keeps its own format. Ranges of each call are
        for ``UINT8`` alone; in other formats they are calibrated. A format that is defined in blocks takes the place of
        scales per channel, and scales per channel that of its blocks.
        """
        if precision.is_unsigned and not self.shares_one_scale:
            return self
        symmetric = precision.is_float or (self.symmetric and not precision.is_unsigned)
        undefined = self.calibration_method is CalibrationMethod.ENTROPY and (precision.is_float or not symmetric)
        method = CalibrationMethod.MINMAX if undefined else self.calibration_method
        dynamic = self.dynamic and precision is Precision.UINT8
        scales: dict[str, Any] = {}
        if precision.format.block is not None:
            scales = {"per_channel": False, "axis": None, "block_size": None, "power_of_two": False, "learnable": False}
        elif self.precision.format.block is not None:
            scales = {"per_channel": True, "block_size": None}
        return replace(
            self, precision=precision, calibration_method=method, symmetric=symmetric, dynamic=dynamic, **scales
        )

    @property
    def shares_one_scale(self) -> bool:
        """Whether the whole tensor has a single scale."""
        return not self.per_channel and self.block_size is None

    @property
    def scale_axis(self) -> int:
        """The axis along which scales differ; −1 where there is one scale, and for blocks."""
        return (self.axis or 0) if self.per_channel else -1

    @property
    def scale_block(self) -> int:
        """Values that share a scale along the axis; 0 for no blocks."""
        return self.block_size or 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that are the default's."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default or field.name == "precision":
                plain[field.name] = value.value if isinstance(value, Enum) else value
        return plain

    @staticmethod
    @checked(error=QuantizationConfigError)
    def from_dict(plain: dict[str, Any]) -> "TensorQuantConfig":
        """The inverse of :meth:`to_dict`.

        Raises:
            QuantizationConfigError: A setting is unknown, or has an impossible value.
        """
        known = {field.name for field in fields(TensorQuantConfig)}
        unknown = sorted(set(plain) - known)
        if unknown:
            raise _invalid(f"unknown setting(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return TensorQuantConfig(**plain)

    def __str__(self) -> str:
        grid = "per channel" if self.per_channel else "" if self.block_size is None else f"blocks of {self.block_size}"
        steps = "powers of two" if self.power_of_two else ""
        signs = "" if self.symmetric else "centered" if self.centered else "asymmetric"
        parts = (self.precision.name, grid, signs, steps, "dynamic" if self.dynamic else self.calibration_method.value)
        return " ".join(part for part in parts if part)


def _invalid(what: str) -> QuantizationConfigError:
    return QuantizationConfigError(f"TensorQuantConfig: {what}.")
