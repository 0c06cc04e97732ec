"""The quantization configuration of a model: formats, exceptions, policy."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum

from torch import nn

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.numerics.points import QuantPolicy
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.validation.checked import checked

_FORMATS_OF_ACTIVATIONS = [precision for precision in Precision if precision.format.for_activations]


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class ModulesToSkip:
    """Modules that stay in float, as collections of selectors.

    Attributes:
        stub: No quantizers at these modules' inputs, outputs and inner places.
        weight: No quantized weight in these.
        smooth: No smoothing across these.
    """

    stub: Collection[Selector] = frozenset()
    weight: Collection[Selector] = frozenset()
    smooth: Collection[Selector] = frozenset()


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class LayerQuantConfig:
    """The formats of some modules.

    Attributes:
        activation: For what flows in and out; ``None`` to leave it in float.
        weight: For the weight; ``None`` to leave it in float.
    """

    activation: TensorQuantConfig | None
    weight: TensorQuantConfig | None


class LeftOpen(Enum):
    """Stands for a format that the hardware may choose."""

    FORMAT = "the hardware's"

    def __repr__(self) -> str:
        return f"<{self.value}>"


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class QuantConfig:
    """How a model is quantized. Settings that are left out come from the backend's configuration.

    Attributes:
        activation: Format of activations, one scale per tensor, or one that is defined in blocks; ``None`` for weights
            only.
        weight: Format of weights; ``None`` for activations only.
        skip: What to leave in float: a :class:`ModulesToSkip`, or a collection of selectors for everything at once.
        skip_weight_quant_for: Module classes whose weight is left in float; they may be wrapped in a fused module.
        overrides: Other formats for some modules: selector → :class:`LayerQuantConfig`, or ``None`` for float. Of
            several that fit, the last wins. Those of the hardware are dropped with its formats: where ``activation``
            or ``weight`` is given, and this is not, there are none.
        policy: Name of one of the backend's policies, or a function from :class:`QuantPoint` to the reason why
            nothing should be quantized there.
        backend: Whose formats and policies; by default those of the backend that the model was transformed for.

    Raises:
        QuantizationConfigError: A combination makes no sense.
    """

    activation: TensorQuantConfig | LeftOpen | None = LeftOpen.FORMAT
    weight: TensorQuantConfig | LeftOpen | None = LeftOpen.FORMAT
    skip: ModulesToSkip | Collection[Selector] | None = None
    skip_weight_quant_for: Collection[type[nn.Module]] | None = None
    overrides: Mapping[Selector, LayerQuantConfig | None] | None = None
    policy: str | QuantPolicy | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        activation, weight = (None if isinstance(v, LeftOpen) else v for v in (self.activation, self.weight))
        _check_formats(activation, weight, "QuantConfig")
        if self.skip is not None and not isinstance(self.skip, ModulesToSkip):
            everything = frozenset(self.skip)
            object.__setattr__(self, "skip", ModulesToSkip(stub=everything, weight=everything, smooth=everything))
        for selector, formats in (self.overrides or {}).items():
            if formats is not None:
                _check_formats(formats.activation, formats.weight, f"overrides[{selector!r}]")

    @property
    def exceptions(self) -> ModulesToSkip:
        """``skip``, always in its long form."""
        assert self.skip is None or isinstance(self.skip, ModulesToSkip)  # __post_init__ has made it one
        return ModulesToSkip() if self.skip is None else self.skip

    @property
    def formats(self) -> LayerQuantConfig:
        """``activation`` and ``weight``; where they are left open, INT8, with a scale for each output channel."""
        return LayerQuantConfig(
            TensorQuantConfig() if isinstance(self.activation, LeftOpen) else self.activation,
            TensorQuantConfig(per_channel=True) if isinstance(self.weight, LeftOpen) else self.weight,
        )

    @property
    def left_out(self) -> set[str]:
        """Names of the attributes that nothing was given for."""
        return {each.name for each in fields(self) if getattr(self, each.name) is each.default}

    @checked
    def completed_by(self, other: "QuantConfig") -> "QuantConfig":
        """A copy that takes from ``other`` what is left out here."""
        taken = {name: getattr(other, name) for name in self.left_out}
        if "overrides" in taken and not taken.keys() >= {"activation", "weight"}:
            taken["overrides"] = {}
        return replace(self, **taken)


def _check_activation(activation: TensorQuantConfig, where: str) -> None:
    precision = activation.precision
    if precision not in _FORMATS_OF_ACTIVATIONS:
        *first, last = (each.name for each in _FORMATS_OF_ACTIVATIONS)
        why = ": no compiler has an operator that finds scales of its blocks" if precision.has_scale_format else ""
        raise QuantizationConfigError(
            f"{where}: activation is {precision.name}; {precision.name} is for weights{why}. Use {', '.join(first)} or "
            f"{last}."
        )
    if not activation.shares_one_scale and not precision.has_scale_format:
        raise QuantizationConfigError(
            f"{where}: activation is {activation}; activations have one scale per tensor, or are in a format that is "
            "defined in blocks. Only weights can be per_channel or in blocks of your own."
        )
    if precision.has_scale_format and activation.calibration_method is not CalibrationMethod.MINMAX:
        raise QuantizationConfigError(
            f"{where}: activation is {precision.name} calibrated by {activation.calibration_method.name}; scales of "
            "its blocks are those of each call, by their largest magnitudes, MINMAX."
        )


def _check_formats(activation: TensorQuantConfig | None, weight: TensorQuantConfig | None, where: str) -> None:
    if activation is not None:
        _check_activation(activation, where)
    for name, config in (("activation", activation), ("weight", weight)):
        if config is not None and config.centered:
            raise QuantizationConfigError(
                f"{where}: {name} is {config}; which tensors can be centered depends on the model. Use a symmetric "
                "format, and quantize(..., centering=True), which finds them."
            )
    if weight is not None and weight.dynamic:
        raise QuantizationConfigError(
            f"{where}: weight is dynamic; a weight is the same in every call. Leave dynamic=True out."
        )
    if weight is not None and weight.calibration_method not in (CalibrationMethod.MINMAX, CalibrationMethod.MSE):
        raise QuantizationConfigError(
            f"{where}: weight is calibrated by {weight.calibration_method.name}; a weight is known exactly, so only "
            "MINMAX and MSE are offered for it."
        )
