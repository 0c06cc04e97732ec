"""The methods that scale channels, in one form, so that one search can judge each of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import fx

from embedl_deploy.quantize.accuracy.awq import AWQ, AwqConfig, scale_weights
from embedl_deploy.quantize.accuracy.equalization import EQUALIZATION, chains_of, equalize
from embedl_deploy.quantize.accuracy.group_scaling import GroupScaling
from embedl_deploy.quantize.accuracy.product_groups import InputsAre, ProductGroup
from embedl_deploy.quantize.accuracy.scaling_trials import Scaling
from embedl_deploy.quantize.accuracy.smoothing import SMOOTHING, SmoothQuantConfig, smooth
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import Correction, NotCorrected


class Done(NamedTuple):
    """What a method did: what became of each place, and what was changed, to be tried."""

    told: list[Correction]
    scalings: Sequence[Scaling]


class Method(Protocol):
    """A way to scale channels."""

    @property
    def what(self) -> str:
        """Its name."""

    def __call__(self, model: fx.GraphModule, declined: Mapping[str, NotCorrected]) -> Done:
        """Scale channels in a model, in place, but not where it is told why not."""


class Asked(NamedTuple):
    """Which methods were asked for.

    Attributes:
        equalization: Whether to equalize, before all others.
        smoothing: How to smooth; ``None`` not to.
        awq: How to scale weights whose inputs stay in float; ``None`` not to.
    """

    equalization: bool = False
    smoothing: SmoothQuantConfig | None = None
    awq: AwqConfig | None = None

    @property
    def inputs_are(self) -> list[InputsAre]:
        """Of which groups of products the inputs have to be measured."""
        wanted = {InputsAre.QUANTIZED: self.smoothing, InputsAre.FLOAT: self.awq}
        return [kind for kind, method in wanted.items() if method is not None]

    def methods(self, groups: list[ProductGroup], decisions: list[Decision]) -> list[Method]:
        """The methods in their order.

        Args:
            groups: Of products, measured.
            decisions: What will be quantized.
        """
        found: list[Method] = [_Equalize(decisions)] if self.equalization else []
        if self.smoothing is not None:
            found.append(_Smooth([group for group in groups if group.config is not None], self.smoothing))
        if self.awq is not None:
            found.append(_ScaleWeights([group for group in groups if group.config is None], self.awq))
        return found


class _Equalize(NamedTuple):
    decisions: list[Decision]
    what: str = EQUALIZATION

    def __call__(self, model: fx.GraphModule, declined: Mapping[str, NotCorrected]) -> Done:
        pairs = equalize(model, self.decisions, declined)
        return Done([pair.told() for pair in pairs], chains_of(pairs))


class _Smooth(NamedTuple):
    groups: list[ProductGroup]
    config: SmoothQuantConfig
    what: str = SMOOTHING

    def __call__(self, model: fx.GraphModule, declined: Mapping[str, NotCorrected]) -> Done:
        return _of_groups(smooth(model, self.groups, self.config, declined))


class _ScaleWeights(NamedTuple):
    groups: list[ProductGroup]
    config: AwqConfig
    what: str = AWQ

    def __call__(self, model: fx.GraphModule, declined: Mapping[str, NotCorrected]) -> Done:
        return _of_groups(scale_weights(model, self.groups, self.config, declined))


def _of_groups(done: list[GroupScaling]) -> Done:
    return Done([each.told() for each in done], [each for each in done if each.applied])
