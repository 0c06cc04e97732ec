"""AvgPool2d  becomes  a depthwise 3×3 Conv2d with constant weights.

    y[n, c, i, j] = Σ_{u<k, v<k} x[n, c, s·i+u, s·j+v] / k²

is a convolution of each channel with a kernel whose entries are all 1/k². The engine has no average pooling but runs
depthwise 3×3 convolutions, so a 2×2 window is written as a 3×3 kernel with a row and a column of zeros, and as much
more zero-padding at the bottom and on the right; the outputs stay as many. The result is the same up to rounding
(1/9 is not a binary fraction), for finite inputs: zero times infinity is not a number.

The weights are a parameter without gradient: pooling has nothing to learn, and training must not make it a filter.

Declined: what `limits` names; an unknown number of channels; hooks on the pool, which would be lost.
"""

from collections.abc import Sequence

import torch
from torch import fx, nn

from embedl_deploy.modules import PaddedConv2d, conv2d_with
from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    dtype_of,
    has_hooks,
    replace_tree,
    resolve_module,
    shape_of,
)
from embedl_deploy_sensai_stub.limits import average_pool_limit, pair
from embedl_deploy_sensai_stub.small_models import image

_KERNEL = 3


class AvgPoolToDepthwiseConvPattern(Pattern):
    """Replace average pooling by the equivalent depthwise convolution."""

    tree = (nn.AvgPool2d,)
    is_conversion = True

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the resulting convolution expresses, and the engine runs."""
        return why_no_convolution(match.tree_match.get_node(0))

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the convolution there."""
        node, source = pattern_match.tree_match.get_node(0), pattern_match.tree_match.inputs()[0]
        pool = resolve_module(node, nn.AvgPool2d)
        shape = shape_of(source)
        assert shape is not None  # check() has seen it
        dtype = dtype_of(source) or torch.get_default_dtype()
        return replace_tree(pattern_match, [averaging_conv(pool, shape[-3], dtype, _device(source))])

    def examples(self) -> Sequence[Example]:
        """The usual window, and one that overlaps and is padded."""
        return (
            Example(nn.AvgPool2d(2), image(side=9), "one row and one column are left out"),
            Example(nn.AvgPool2d(3, stride=1, padding=1), image(), "divides by 9 at the border, too"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Averages that no 3×3 convolution computes."""
        return (
            Example(nn.AvgPool2d(4), image(), "the window is larger than a kernel of the engine"),
            Example(nn.AvgPool2d(3), image(side=9), "the engine has no stride of 3"),
            Example(nn.AvgPool2d(2, padding=1, count_include_pad=False), image(), "divides by 1, 2 or 4"),
        )


def why_no_convolution(node: fx.Node) -> str | None:
    """Why a call of average pooling does not become a convolution."""
    pool = resolve_module(node, nn.AvgPool2d)
    reason = average_pool_limit(pool)
    if reason is not None:
        return reason
    shape = shape_of(node.all_input_nodes[0])
    if shape is None:
        return "the number of channels is unknown: pass example inputs, args="
    if len(shape) not in (3, 4):
        return f"its input has {len(shape)} dimensions, expected (N, C, H, W)"
    return "hooks on the pool would be lost" if has_hooks(pool) else None


def averaging_conv(
    pool: nn.AvgPool2d, channels: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> nn.Conv2d:
    """The depthwise 3×3 convolution that computes what ``pool`` computes on that many channels.

    Args:
        pool: With a window of at most 3×3, as `average_pool_limit` allows.
        channels: C of the input, (N, C, H, W).
        dtype: Of the weight, (C, 1, 3, 3).
        device: Of the weight.
    """
    (height, width), (down, right), stride = (pair(v) for v in (pool.kernel_size, pool.padding, pool.stride))
    weight = torch.zeros(channels, 1, _KERNEL, _KERNEL, dtype=dtype, device=device)
    weight[..., :height, :width] = 1 / (pool.divisor_override or height * width)
    conv = conv2d_with(nn.Parameter(weight, requires_grad=False), None, groups=channels, stride=stride)
    return PaddedConv2d.of(conv, (right, right + _KERNEL - width, down, down + _KERNEL - height))


def _device(node: fx.Node) -> torch.device | None:
    """The device of the model that the node is part of; ``None``, torch's default, for one without tensors."""
    model = node.graph.owning_module
    tensors = [] if model is None else [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else None
