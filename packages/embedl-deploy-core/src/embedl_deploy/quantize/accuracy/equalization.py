"""Cross-layer equalization: rescales the channels between two convolutions so that weight ranges are equal.

A positive factor of a channel passes through a ReLU, so it can be moved from the rows of one weight into the columns of
the next without changing what the two compute (Nagel et al. 2019, section 4.1):

    W₁[c] ← W₁[c] / s_c,   W₂[:, c] ← s_c · W₂[:, c],   s_c = √(r₁_c / r₂_c)

with r the largest magnitudes, batch norm folded. ReLU6 clips at a constant, which a factor would have to move with, so
pairs around it are declined: replacing it by a ReLU, as that paper does, would change the outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

EQUALIZATION = "equalization"
#: Passes over all pairs; a chain of convolutions settles step by step.
_PASSES = 20
_SETTLED = 1e-3


@dataclass
class Pair:
    """Two convolutions with nothing between them.

    Attributes:
        first: The call of the one.
        second: The call of the other.
        problem: Why they are not equalized.
        factors: By which the columns of the second weight were multiplied, (C,); ``None`` before.
    """

    first: fx.Node
    second: fx.Node
    problem: NotCorrected | None = None
    factors: torch.Tensor | None = None

    @property
    def where(self) -> str:
        """Which pair it is, for the report."""
        return f"{self.first.target} → {self.second.target}"

    @property
    def applied(self) -> bool:
        """Whether something was changed."""
        return self.problem is None

    def told(self) -> Correction:
        """What became of it."""
        return correction(EQUALIZATION, self.where, self.problem or "equalized")


@dataclass(frozen=True)
class Chain:
    """Equalized pairs of which the second convolution of one is the first of the next: their factors belong together.

    Attributes:
        pairs: In the order of the graph.
    """

    pairs: list[Pair]

    @property
    def where(self) -> list[str]:
        """Which pairs they are, for the report."""
        return [pair.where for pair in self.pairs]

    def places(self, model: fx.GraphModule) -> tuple[list[fx.Node], list[fx.Node]]:
        """The first node, in a copy of the model with quantizers, and the last, whose outputs must stay."""
        nodes = {node.name: node for node in model.graph.nodes}
        return [nodes[self.pairs[0].first.name]], [nodes[self.pairs[-1].second.name]]

    @contextmanager
    def tried(self, model: fx.GraphModule) -> Iterator[None]:
        """Within the block the pairs are equalized in a copy of the model; its parts are not put back."""
        nodes = {node.name: node for node in model.graph.nodes}
        for pair in self.pairs:
            first, second = (_module(nodes[node.name]) for node in (pair.first, pair.second))
            assert pair.factors is not None  # it was equalized
            declined = _move(first, second, pair.factors)
            assert declined is None  # as it was not before
        yield


def chains_of(pairs: Sequence[Pair]) -> list[Chain]:
    """The chains of those pairs that were equalized."""
    chains: list[Chain] = []
    for pair in (pair for pair in pairs if pair.applied):
        before = next((chain for chain in chains if chain.pairs[-1].second is pair.first), None)
        if before is None:
            chains.append(Chain([pair]))
        else:
            before.pairs.append(pair)
    return chains


@torch.no_grad()
def equalize(
    model: fx.GraphModule, decisions: list[Decision], declined: Mapping[str, NotCorrected] | None = None
) -> list[Pair]:
    """Equalize all pairs of convolutions with nothing between them, whose weights are to be quantized.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        decisions: What will be quantized, on this model or the one that it is a copy of.
        declined: Pairs to leave out, by :attr:`Pair.where`, and why.

    Returns:
        Each pair, and what became of it.
    """
    pairs = _find_pairs(model, decisions)
    for pair in pairs:
        pair.problem = pair.problem or (declined or {}).get(pair.where)
    for _ in range(_PASSES):
        moved = max((_equalize_pair(pair) for pair in pairs if pair.problem is None), default=0.0)
        if moved < _SETTLED:
            break
    return pairs


def _module(node: fx.Node) -> FusedConv:
    module = get_module(node)
    assert isinstance(module, FusedConv)  # _find_pairs has looked
    return module


def _find_pairs(model: fx.GraphModule, decisions: list[Decision]) -> list[Pair]:
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
            pairs.append(Pair(source, node, cause))
            continue
        if not isinstance(first, FusedConv) or not isinstance(second, FusedConv):
            continue
        pair = Pair(source, node)
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


def _equalize_pair(pair: Pair) -> float:
    """Move factors once; returns the largest |log s|."""
    first, second = _module(pair.first), _module(pair.second)
    rows = rows_of(first.folded_weight(), first.conv).abs().flatten(1).amax(1)
    columns = _by_column(second.folded_weight(), second).abs().flatten(3).amax((1, 3)).flatten()
    # A channel that is dead on one side has no range to share.
    factors = torch.where((rows == 0) | (columns == 0), 1.0, (rows / columns).sqrt())
    declined = _move(first, second, factors)
    if declined is not None:
        pair.problem = not_corrected(WhyNotCorrected.MODULE_DECLINES, reason=declined)
        return 0.0
    pair.factors = factors if pair.factors is None else pair.factors * factors
    return float(factors.log().abs().max())


def _move(first: FusedConv, second: FusedConv, factors: torch.Tensor) -> str | None:
    """Divide the rows of the first weight by factors, and multiply the columns of the second; why not, if it cannot."""
    declined = first.scale_outputs(1 / factors)
    if declined is not None:
        return declined
    own = _by_column(second.conv.weight, second)
    spread = factors.reshape(second.conv.groups, 1, -1, *(1,) * (own.dim() - 3))
    rows = (own * spread).flatten(0, 1)
    second.conv = with_parameters(second.conv, weight_of_rows(rows, second.conv), second.conv.bias)
    return None


def _by_column(weight: torch.Tensor, module: FusedConv) -> torch.Tensor:
    """A convolution's weight as (groups, out_channels / groups, in_channels / groups, *kernel)."""
    rows = rows_of(weight, module.conv)
    return rows.reshape(module.conv.groups, -1, *rows.shape[1:])
