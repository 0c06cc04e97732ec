"""ZeroPad2d → Conv2d  becomes  one convolution that pads.

Padding that is the same on both ends of a dimension goes into the ``padding`` of a plain ``Conv2d``; padding that is
not, as TensorFlow's ``SAME`` makes it for a stride of two, into a :class:`PaddedConv2d`, which patterns for ``Conv2d``
match. Weight and bias stay the original parameters.

Declined: negative padding (a crop), a convolution that pads with anything but zeros or by name ("same"), and a
convolution with hooks, which would be lost.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.lookup import get_module, has_hooks, resolve_module
from embedl_deploy.modules.padded_conv import PaddedConv2d
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import replace_tree


class FoldZeroPadIntoConvPattern(Pattern):
    """Fold explicit zero-padding into the convolution that follows."""

    tree = (nn.ZeroPad2d, nn.Conv2d)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(
                nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 6, 3, stride=2)),
                (torch.randn(2, 4, 8, 8),),
                "TensorFlow's SAME",
            ),
            Example(
                nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 6, 3, padding=1)),
                (torch.randn(2, 4, 8, 8),),
                "alike on all sides",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(
                nn.Sequential(nn.ZeroPad2d((-1, 1, 0, 1)), nn.Conv2d(4, 6, 3)), (torch.randn(2, 4, 8, 8),), "it crops"
            ),
            Example(
                nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")),
                (torch.randn(2, 4, 8, 8),),
                "reflection",
            ),
            Example(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(4, 6, 3)), (torch.randn(2, 4, 8, 8),), "no zeros"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the convolution can express."""
        pad = resolve_module(match.tree_match.get_node(0), nn.ZeroPad2d)
        conv = resolve_module(match.tree_match.get_node(1), nn.Conv2d)
        if min(pad.padding) < 0:
            return f"padding {tuple(pad.padding)} crops"
        if conv.padding_mode != "zeros" or conv.padding == "same":
            return f"the convolution has its own padding (padding={conv.padding!r}, mode {conv.padding_mode!r})"
        if has_hooks(conv) or has_hooks(pad):
            return "hooks on the modules would be lost"
        if nn.utils.parametrize.is_parametrized(conv):
            return "the convolution's weight is parametrized"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the padded convolution there."""
        left, right, top, bottom = resolve_module(pattern_match.tree_match.get_node(0), nn.ZeroPad2d).padding
        conv = get_module(pattern_match.tree_match.get_node(1))
        assert isinstance(conv, nn.Conv2d)
        if isinstance(conv, PaddedConv2d):
            sides = (left + conv.sides[0], right + conv.sides[1], top + conv.sides[2], bottom + conv.sides[3])
        else:
            height, width = (0, 0) if isinstance(conv.padding, str) else conv.padding
            sides = (left + width, right + width, top + height, bottom + height)
        home = pattern_match.tree_match.get_node(1)
        return replace_tree(pattern_match, [PaddedConv2d.of(conv, sides)], home=home)
