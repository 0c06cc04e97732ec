"""nn.Fold, F.fold  becomes  sums of blocks that are laid out as a map; nn.Unfold of a grid  a permutation.

    windows ─▶ Fold ─▶ map        windows ─▶ SummedFold ─▶ map
    map ─▶ Unfold ─▶ windows      map ─▶ PermutedUnfold ─▶ windows, where these lie side by side

ONNX has the operator as ``Col2Im``, which compilers of hardware do not take. :class:`SummedFold` pads, adds and
permutes, and where windows do not overlap there is nothing to add. A transposed convolution with a constant kernel
would give the same, but multiplies every value by as many numbers as a window has, all but one of them zeros; that is
slow, makes NaN beside an infinite value, and is a weight that must not be quantized.

The map's size may be computed on the way, from the size of what the windows were cut from.

``Unfold`` is written as ``Gather`` along rows and columns, and stays so where windows overlap or have gaps. Where they
do not, each value is in one window, and no index is needed.

Declined: hooks on the module, which would be lost; windows whose settings are computed on the way.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.graph.lookup import behaves_as, get_module, has_hooks, resolve_module
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.settings import per_dimension, settings_of
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.modules.fold import PermutedUnfold, SummedFold
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match

_WINDOW = ("kernel_size", "dilation", "padding", "stride")


def is_fold(node: fx.Node) -> bool:
    """Whether a node adds up windows of a map: a module or a call."""
    if node.op == "call_module":
        module = get_module(node)
        return isinstance(module, nn.Fold) and behaves_as(module, nn.Fold)
    return operation(node) in ("fold", "col2im")


def _settings(node: fx.Node) -> dict[str, Any]:
    """What a fold is called or made with, by name; ``input`` and ``output_size`` may be nodes."""
    module = get_module(node) if node.op == "call_module" else None
    if module is not None:
        names = ("output_size", *_WINDOW)
        return {"input": node.all_input_nodes[0], **{name: getattr(module, name) for name in names}}
    bound = bind_call(node)
    return {} if bound is None else dict(bound.values)


class DecomposeFoldPattern(Pattern):
    """Fold by padding, adding and permuting."""

    tree = (is_fold,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Fold((6, 8), 2, stride=2), (torch.randn(2, 12, 12),), "adjacent windows"),
            Example(_Refolding(3, stride=2, padding=1), (torch.randn(2, 4, 7, 8),), "they overlap: outlook attention"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Unfold(2, stride=2), (torch.randn(2, 3, 6, 8),), "it cuts windows out"),
            Example(nn.PixelShuffle(2), (torch.randn(2, 12, 3, 4),), "a map already, with fewer pixels"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take windows that are known."""
        node = match.tree_match.last
        module = get_module(node)
        if node.op == "call_module" and module is not None and has_hooks(module):
            return "hooks on the module would be lost"
        found = _settings(node)
        for name in _WINDOW:
            nodes: list[fx.Node] = []
            fx.map_arg(found.get(name), nodes.append)
            if name not in found or nodes:
                return f"its {name} is computed on the way: expected numbers"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        found = _settings(pattern_match.tree_match.last)
        module = SummedFold(*(per_dimension(found[name], 2) for name in _WINDOW))
        call = insert_call(pattern_match, module, [found["input"], found["output_size"]])
        replace_match(pattern_match, call)
        return [call]


def cuts_into_a_grid(node: fx.Node) -> bool:
    """Whether a node cuts a map into windows that lie side by side."""
    module = get_module(node)
    if not isinstance(module, nn.Unfold) or not behaves_as(module, nn.Unfold):
        return False
    settings = settings_of(module)
    return bool(settings["stride"] == settings["kernel_size"] and settings["dilation"] == (1, 1))


class PermuteUnfoldPattern(Pattern):
    """Cut a map into a grid of windows by a permutation."""

    tree = (cuts_into_a_grid,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Unfold(2, stride=2), (torch.randn(2, 3, 6, 8),), "patches of 2×2, as in MobileViTV2"),
            Example(nn.Unfold((2, 3), padding=(1, 0), stride=(2, 3)), (torch.randn(2, 3, 5, 8),), "padded, and a rest"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        maps = (torch.randn(2, 3, 8, 8),)
        return [
            Example(nn.Unfold(3, stride=2), maps, "they overlap"),
            Example(nn.Unfold(2, stride=3), maps, "there are gaps"),
            Example(nn.Unfold(2, dilation=2, stride=2), maps, "a window has gaps"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Keep a module that the user watches."""
        node = match.tree_match.last
        module = get_module(node)
        watched = node.op == "call_module" and module is not None and has_hooks(module)
        return "hooks on the module would be lost" if watched else None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        node = pattern_match.tree_match.last
        settings = settings_of(resolve_module(node, nn.Unfold))
        module = PermutedUnfold(settings["kernel_size"], settings["padding"])
        call = insert_call(pattern_match, module, [node.all_input_nodes[0]])
        replace_match(pattern_match, call)
        return [call]


class _Refolding(nn.Module):
    """Cuts a map into windows and adds them up again, for examples."""

    def __init__(self, kernel_size: int, **settings: int) -> None:
        super().__init__()
        self.kernel_size, self.settings = kernel_size, settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        return F.fold(F.unfold(x, self.kernel_size, **self.settings), x.shape[-2:], self.kernel_size, **self.settings)
