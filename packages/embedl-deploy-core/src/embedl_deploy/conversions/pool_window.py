"""A pool whose window is larger than the padded map  becomes  one whose window is cut to the map.

    AvgPool2d(320, ceil_mode=True) of a map of 7×7   ─▶   an average over 7×7

Compilers limit the size of a window, and what lies beyond the map is not looked at. :class:`ClippedPool` cuts to the
map of each call, so the model remains right for maps of other sizes.

Declined: sides of the map that ``dynamic_shapes`` leaves open, for which a file has to name one window; a dilated
window; indices of the maximum; hooks on the pool, which would be lost.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.fixed_sizes import is_left_open
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.settings import settings_of
from embedl_deploy.modules.clipped_pool import CLIPPED_POOLS, ClippedPool
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match


def _axes_beyond(node: fx.Node) -> list[int]:
    """The axes, counted from the last, along which a pool's window is larger than the padded map; none if unknown."""
    module = get_module(node)
    if module is None or type(module) not in CLIPPED_POOLS:
        return []
    shape = shape_of(node.all_input_nodes[0])
    settings = settings_of(module)
    kernel, padding = settings["kernel_size"], settings["padding"]
    dilation = settings.get("dilation", (1,) * len(kernel))
    if shape is None or len(shape) < len(kernel):
        return []
    return [
        axis
        for axis in range(-len(kernel), 0)
        if dilation[axis] * (kernel[axis] - 1) + 1 > shape[axis] + 2 * padding[axis]
    ]


def reaches_beyond_the_map(node: fx.Node) -> bool:
    """Whether a node pools with a window that is larger than the padded map."""
    return bool(_axes_beyond(node))


class ClipPoolWindowPattern(Pattern):
    """Cut a pool's window to the map."""

    tree = (reaches_beyond_the_map,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.AvgPool2d(320, ceil_mode=True), (torch.randn(2, 4, 7, 7),), "as in EfficientNet"),
            Example(
                nn.MaxPool1d((9,), 9, padding=1, ceil_mode=True), (torch.randn(2, 4, 6),), "the largest of a sequence"
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        maps = (torch.randn(2, 4, 7, 7),)
        return [
            Example(nn.AvgPool2d(7), maps, "it is as large as the map"),
            Example(nn.AvgPool2d(9, padding=1), maps, "as large as the padded map"),
            Example(nn.AvgPool2d(4, ceil_mode=True), maps, "the last windows alone reach beyond it"),
            Example(nn.MaxPool2d(3, stride=5, dilation=4, ceil_mode=True), maps, "it is dilated"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take windows of which only the map is looked at, and maps of one size."""
        node = match.tree_match.last
        module = get_module(node)
        assert module is not None  # the tree has seen it
        if node.op == "call_module" and has_hooks(module):
            return "hooks on the pool would be lost"
        settings, axes = settings_of(module), _axes_beyond(node)
        if settings.get("return_indices"):
            return "it gives the places of the maximum as well"
        if any(settings.get("dilation", (1,) * len(settings["kernel_size"]))[axis] != 1 for axis in axes):
            return f"its window is dilated: dilation={settings['dilation']}"
        source = node.all_input_nodes[0]
        if any(is_left_open(source, axis) for axis in axes):
            window = "×".join(map(str, settings["kernel_size"]))
            return f"dynamic_shapes leaves sizes of the map open, and its window of {window} is cut for one size"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        node = pattern_match.tree_match.last
        module = get_module(node)
        assert module is not None  # the tree has seen it
        call = insert_call(pattern_match, ClippedPool(module), [node.all_input_nodes[0]])
        replace_match(pattern_match, call)
        return [call]
