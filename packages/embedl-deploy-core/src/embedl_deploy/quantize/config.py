"""What a user says about a whole model: formats, exceptions, and whose judgement to follow."""

import fnmatch
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from embedl_deploy.backend import QuantPoint, QuantPolicy
from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.quantize.formats import CalibrationMethod, Precision, TensorQuantConfig

#: A module, a module class, a glob over module paths (``"features.*.conv"``), or a predicate on points.
Selector = nn.Module | type[nn.Module] | str | Callable[[QuantPoint], bool]

_FORMATS_OF_ACTIVATIONS = (Precision.INT8, Precision.INT16, Precision.FP8)


@dataclass(frozen=True)
class ModulesToSkip:
    """Exceptions, each a collection of selectors.

    Attributes:
        stub: No quantizers at these modules' inputs, outputs and inner places.
        weight: No quantized weight in these.
        smooth: No smoothing across these.
    """

    stub: Collection[Selector] = frozenset()
    weight: Collection[Selector] = frozenset()
    smooth: Collection[Selector] = frozenset()

    def __post_init__(self) -> None:
        for name in ("stub", "weight", "smooth"):
            check_selectors(getattr(self, name), f"ModulesToSkip({name}=...)")


@dataclass(frozen=True)
class LayerQuantConfig:
    """The formats of some modules.

    Attributes:
        activation: For what flows in and out; ``None`` to leave it in float.
        weight: For the weight; ``None`` to leave it in float.
    """

    activation: TensorQuantConfig | None
    weight: TensorQuantConfig | None


def _default_weight() -> TensorQuantConfig:
    return TensorQuantConfig(per_channel=True)


@dataclass(frozen=True)
class QuantConfig:
    """How a model is quantized.

    Attributes:
        activation: Format of activations, one scale per tensor; ``None`` for weights only.
        weight: Format of weights, by default INT8 per output channel; ``None`` for activations only.
        skip: What to leave in float: a :class:`ModulesToSkip`, or a collection of selectors for everything at once.
        skip_weight_quant_for: Module classes whose weight is left in float; they may be wrapped in a fused module.
        overrides: Other formats for some modules: selector → :class:`LayerQuantConfig`, or ``None`` for float. Of
            several that fit, the last wins.
        policy: Name of one of the backend's policies, or a function from :class:`QuantPoint` to the reason why
            nothing should be quantized there. ``None`` takes the backend's default.
        backend: Whose policies; by default those of the backend that the model was transformed for.

    Raises:
        QuantizationConfigError: A combination makes no sense.
    """

    activation: TensorQuantConfig | None = field(default_factory=TensorQuantConfig)
    weight: TensorQuantConfig | None = field(default_factory=_default_weight)
    skip: ModulesToSkip | Collection[Selector] = field(default_factory=ModulesToSkip)
    skip_weight_quant_for: Collection[type[nn.Module]] = ()
    overrides: Mapping[Any, LayerQuantConfig | None] = field(default_factory=dict)
    policy: str | QuantPolicy | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        _check_formats(self.activation, self.weight, "QuantConfig")
        check_selectors(self.skip_weight_quant_for, "skip_weight_quant_for")
        if not isinstance(self.skip, ModulesToSkip):
            check_selectors(self.skip, "skip")
            everything = frozenset(self.skip)
            object.__setattr__(self, "skip", ModulesToSkip(stub=everything, weight=everything, smooth=everything))
        check_selectors(self.overrides, "overrides")
        for selector, formats in self.overrides.items():
            if formats is not None and not isinstance(formats, LayerQuantConfig):
                raise QuantizationConfigError(
                    f"QuantConfig: overrides[{selector!r}] is {formats!r}; expected a LayerQuantConfig, or None."
                )
            if formats is not None:
                _check_formats(formats.activation, formats.weight, f"overrides[{selector!r}]")
        if not (self.policy is None or isinstance(self.policy, str) or callable(self.policy)):
            raise QuantizationConfigError(f"QuantConfig: policy is {self.policy!r}; expected a name or a function.")

    @property
    def exceptions(self) -> ModulesToSkip:
        """``skip``, always in its long form."""
        assert isinstance(self.skip, ModulesToSkip)  # __post_init__ has made it one
        return self.skip


def _check_formats(activation: Any, weight: Any, where: str) -> None:
    for name, value in (("activation", activation), ("weight", weight)):
        if value is not None and not isinstance(value, TensorQuantConfig):
            raise QuantizationConfigError(f"{where}: {name} is {value!r}; expected a TensorQuantConfig, or None.")
    if activation is not None:
        if not activation.shares_one_scale:
            raise QuantizationConfigError(
                f"{where}: activation is {activation}; activations have one scale per tensor. Only weights can be "
                "per_channel or in blocks."
            )
        if activation.precision not in _FORMATS_OF_ACTIVATIONS:
            raise QuantizationConfigError(
                f"{where}: activation is {activation.precision.name}; INT4 is for weights. Use INT8, INT16 or FP8."
            )
    if weight is not None and weight.calibration_method not in (CalibrationMethod.MINMAX, CalibrationMethod.MSE):
        raise QuantizationConfigError(
            f"{where}: weight is calibrated by {weight.calibration_method.name}; a weight is known exactly, so only "
            "MINMAX and MSE are offered for it."
        )


def check_selectors(selectors: Any, where: str) -> None:
    """Check a collection of selectors.

    Raises:
        QuantizationConfigError: It is no collection, or holds something else.
    """
    if isinstance(selectors, (str, nn.Module)) or not isinstance(selectors, Collection):
        raise QuantizationConfigError(f"{where} is {selectors!r}; expected a collection, such as {{nn.LayerNorm}}.")
    for selector in selectors:
        if not isinstance(selector, (str, nn.Module)) and not callable(selector):
            raise QuantizationConfigError(
                f"{where} holds {selector!r}; expected modules, module classes, globs over module paths or predicates."
            )


def selects(selector: Any, point: QuantPoint) -> bool:
    """Whether a selector means the module of a point: that module itself, or one that it wraps."""
    if isinstance(selector, str):
        return fnmatch.fnmatchcase(point.path, selector)
    if isinstance(selector, nn.Module):
        return any(part is selector for part in point.module.modules())
    if isinstance(selector, type):
        return any(isinstance(part, selector) for part in point.module.modules())
    return bool(selector(point))


def describe_selector(selector: Any) -> str:
    """A selector in words."""
    if isinstance(selector, str):
        return repr(selector)
    if isinstance(selector, nn.Module):
        return f"this very {type(selector).__name__}"
    return getattr(selector, "__name__", repr(selector))
