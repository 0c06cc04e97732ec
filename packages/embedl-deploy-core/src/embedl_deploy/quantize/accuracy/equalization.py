"""Cross-layer equalization: rescales the channels between two convolutions so that weight ranges are equal.

A positive factor of a channel passes through a ReLU, so it can be moved from the rows of one weight into the columns of
the next without changing what the two compute (Nagel et al. 2019, section 4.1):

    W₁[c] ← W₁[c] / s_c,   W₂[:, c] ← s_c · W₂[:, c],   s_c = √(r₁_c / r₂_c)

with r the largest magnitudes, batch norm folded. ReLU6 clips at a constant, which a factor would have to move with, so
pairs around it are declined: replacing it by a ReLU, as that paper does, would change the outputs.
"""

from dataclasses import dataclass

import torch
from torch import fx

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.uses import times_read
from embedl_deploy.modules import FusedConv, named_weights, with_parameters
from embedl_deploy.modules.convolution import rows_of, weight_of_rows
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)

_WHAT = "equalization"
#: Passes over all pairs; a chain of convolutions settles step by step.
_PASSES = 20
_SETTLED = 1e-3


@dataclass
class _Pair:
    first: fx.Node
    second: fx.Node
    problem: NotCorrected | None = None

    @property
    def modules(self) -> tuple[FusedConv, FusedConv]:
        first, second = get_module(self.first), get_module(self.second)
        assert isinstance(first, FusedConv)  # _find_pairs has looked
        assert isinstance(second, FusedConv)
        return first, second


@torch.no_grad()
def equalize(model: fx.GraphModule, decisions: list[Decision]) -> list[Correction]:
    """Equalize all pairs of convolutions with nothing between them, whose weights are to be quantized.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        decisions: What will be quantized, on this model or the one that it is a copy of.

    Returns:
        What became of each pair.
    """
    pairs = _find_pairs(model, decisions)
    for _ in range(_PASSES):
        moved = max((_equalize_pair(pair) for pair in pairs if pair.problem is None), default=0.0)
        if moved < _SETTLED:
            break
    return [correction(_WHAT, f"{p.first.target} → {p.second.target}", p.problem or "equalized") for p in pairs]


def _find_pairs(model: fx.GraphModule, decisions: list[Decision]) -> list[_Pair]:
    weights = {d.point.node.name for d in decisions if d.config is not None and d.point.kind is PointKind.WEIGHT}
    targets = [node.target for node in model.graph.nodes if node.op == "call_module"]
    pairs = []
    for node in model.graph.nodes:
        source = argument_at(node, 0) if node.name in weights else None
        if not isinstance(source, fx.Node) or source.name not in weights:
            continue
        first, second = get_module(source), get_module(node)
        several = next((part for part in (first, second) if part is not None and len(named_weights(part)) > 1), None)
        if several is not None:
            cause = not_corrected(WhyNotCorrected.SEVERAL_WEIGHTS, module=type(several).__name__)
            pairs.append(_Pair(source, node, cause))
            continue
        if not isinstance(first, FusedConv) or not isinstance(second, FusedConv):
            continue
        pair = _Pair(source, node)
        if len(source.users) > 1:
            pair.problem = not_corrected(WhyNotCorrected.SEVERAL_READERS, source=source.name, count=len(source.users))
        elif times_read(source) > 1:
            pair.problem = not_corrected(
                WhyNotCorrected.READ_SEVERAL_TIMES, reader=node.name, source=source.name, count=times_read(source)
            )
        elif targets.count(source.target) > 1 or targets.count(node.target) > 1:
            pair.problem = not_corrected(WhyNotCorrected.MODULE_CALLED_SEVERAL_TIMES)
        elif any(has_hooks(part) for part in first.modules()):
            pair.problem = not_corrected(WhyNotCorrected.HOOKS, module=source.target)
        elif second.conv.in_channels != first.conv.out_channels:
            pair.problem = not_corrected(WhyNotCorrected.CHANNELS_DO_NOT_CORRESPOND)
        pairs.append(pair)
    return pairs


def _equalize_pair(pair: _Pair) -> float:
    """Move factors once; returns the largest |log s|."""
    first, second = pair.modules
    rows = rows_of(first.folded_weight(), first.conv).abs().flatten(1).amax(1)
    weight = rows_of(second.folded_weight(), second.conv)
    by_group = weight.reshape(second.conv.groups, -1, *weight.shape[1:])
    columns = by_group.abs().flatten(3).amax((1, 3)).flatten()
    # A channel that is dead on one side has no range to share.
    factors = torch.where((rows == 0) | (columns == 0), 1.0, (rows / columns).sqrt())
    declined = first.scale_outputs(1 / factors)
    if declined is not None:
        pair.problem = not_corrected(WhyNotCorrected.MODULE_DECLINES, reason=declined)
        return 0.0
    own = rows_of(second.conv.weight, second.conv).reshape(second.conv.groups, -1, *weight.shape[1:])
    spread = factors.reshape(second.conv.groups, 1, -1, *(1,) * (weight.dim() - 2))
    scaled = weight_of_rows((own * spread).reshape(weight.shape), second.conv)
    second.conv = with_parameters(second.conv, scaled, second.conv.bias)
    return float(factors.log().abs().max())
