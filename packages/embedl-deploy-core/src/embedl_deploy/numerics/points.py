"""Quantization points, and policies about them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from torch import fx, nn

from embedl_deploy.modules import NamedWeight, named_weights
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.validation.checked import checked


class PointKind(Enum):
    """What is quantized at a point.

    Attributes:
        INPUT: A tensor on its way into a module, before the call.
        OUTPUT: A module's result.
        WEIGHT: A weight, inside the module.
        INNER: A value that a module computes on its way, such as a softmax.
    """

    INPUT = "input"
    OUTPUT = "output"
    WEIGHT = "weight"
    INNER = "inner"


@checked
@dataclass(frozen=True)
class QuantPoint:
    """A quantization point: a place where a quantizer can go.

    Attributes:
        node: The call of the module.
        path: Where the module lives.
        module: The fused module.
        kind: What is quantized.
        index: Argument position, for inputs.
        label: Name of the place within the module: ``"input 0"``, ``"weight"`` (``"reduce.weight"`` where there are
            several), ``"softmax_quant"``.
        pattern: Name of the pattern that put the module there; empty if that is not known.
        precision: When a policy is asked: the name of the number format that is meant, such as ``"int8"`` or
            ``"float8_e4m3fn"``.
    """

    node: fx.Node
    path: str
    module: nn.Module
    kind: PointKind
    index: int = 0
    label: str = ""
    pattern: str = ""
    precision: str = ""

    @property
    def number_format(self) -> Precision | None:
        """The number format that ``precision`` names; ``None`` where it names none."""
        return Precision(self.precision) if self.precision else None

    @property
    def weight(self) -> NamedWeight | None:
        """The weight that is meant, with its operator; ``None`` unless the point is one of a weight."""
        if self.kind is not PointKind.WEIGHT:
            return None
        return next((weight for weight in named_weights(self.module) if weight.name == self.label), None)

    @property
    def parts(self) -> list[nn.Module]:
        """The module and what it wraps; for a weight without what the module wraps for its other weights."""
        parts, weight = list(self.module.modules()), self.weight
        if weight is None:
            return parts
        own = set(_wrapped(weight, self.module))
        others = {part for other in named_weights(self.module) for part in _wrapped(other, self.module)}
        return [part for part in parts if part in own or part not in others]

    def __str__(self) -> str:
        return f"{self.path} {self.label}"


def _wrapped(weight: NamedWeight, module: nn.Module) -> Iterable[nn.Module]:
    """The part of a module that computes with a weight: the operator where that is the module itself."""
    part = weight.operator if weight.owner is module else weight.owner
    return () if part is None else part.modules()


#: Says why the hardware is better off without a quantizer at a point, or ``None`` to have one there.
QuantPolicy = Callable[[QuantPoint], str | None]
