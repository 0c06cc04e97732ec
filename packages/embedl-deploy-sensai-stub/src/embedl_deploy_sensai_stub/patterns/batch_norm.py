"""BatchNorm2d that no convolution comes before  gets  a depthwise 1×1 Conv2d with weights of one before it.

The convolution changes nothing (a product with one is exact), and makes the batch norm one that is folded into the
convolution before it:

    y = BN(1 · x),   folded: w' = γ/√(σ²+ε),   b' = β − μ·w'

so networks that normalize before they convolve, such as DenseNet, run. The batch norm itself stays as it is: in
training it continues using and updating its statistics. The ones are a parameter without gradient, because the batch
norm's own weight does what they could learn.

Left alone is a batch norm after a convolution that it is folded into. Declined: what `limits` names.
"""

from collections.abc import Sequence

import torch
from torch import fx, nn

from embedl_deploy.modules import FrozenBatchNorm2d, conv2d_with
from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    dtype_of,
    get_module,
    insert_call,
    replace_match,
    resolve_module,
    shape_of,
)
from embedl_deploy_sensai_stub.limits import batch_norm_limit, conv_limit
from embedl_deploy_sensai_stub.patterns.avg_pool import why_no_convolution
from embedl_deploy_sensai_stub.small_models import batch_norm, image


def batch_norm_without_a_convolution(node: fx.Node) -> bool:
    """Whether a call is a batch norm that is not folded into the convolution before it."""
    if type(get_module(node)) not in (nn.BatchNorm2d, FrozenBatchNorm2d):
        return False
    source = node.all_input_nodes[0]
    before = get_module(source)
    is_conv = isinstance(before, nn.Conv2d) and conv_limit(before) is None
    is_conv_soon = isinstance(before, nn.AvgPool2d) and why_no_convolution(source) is None
    return not (is_conv or is_conv_soon) or len(source.users) > 1


class BatchNormToDepthwiseConvPattern(Pattern):
    """Insert the convolution that a batch norm needs."""

    tree = (batch_norm_without_a_convolution,)
    is_conversion = True

    def check(self, match: PatternMatch) -> str | None:
        """Take only a batch norm that can be folded, and a function only where its input is known to be an image."""
        node = match.tree_match.get_node(0)
        if node.op != "call_module" and shape_of(match.tree_match.inputs()[0]) is None:
            return "the shape of its input is unknown: pass example inputs, args="
        return batch_norm_limit(resolve_module(node, nn.BatchNorm2d))

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put convolution and batch norm there."""
        bn = resolve_module(pattern_match.tree_match.get_node(0), nn.BatchNorm2d)
        statistics = bn.running_mean
        assert statistics is not None  # check() has seen them
        source = pattern_match.tree_match.inputs()[0]
        dtype = dtype_of(source) or statistics.dtype
        ones = torch.ones(bn.num_features, 1, 1, 1, dtype=dtype, device=statistics.device)
        module = conv2d_with(nn.Parameter(ones, requires_grad=False), None, groups=bn.num_features)
        conv = insert_call(pattern_match, module, (source,))
        norm = insert_call(pattern_match, bn, (conv,), path=str(conv.target))  # beside the convolution
        replace_match(pattern_match, norm)
        return [conv, norm]

    def examples(self) -> Sequence[Example]:
        """A network that normalizes first, and a batch norm after pooling."""
        return (
            Example(nn.Sequential(batch_norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3)), image(), "as in DenseNet"),
            Example(nn.Sequential(nn.MaxPool2d(2), batch_norm(4)), image(), "behind pooling"),
            Example(nn.Sequential(nn.Conv2d(4, 4, 5), batch_norm(4)), image(), "after an unsupported layer"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Batch norms that are folded anyway, and one that cannot be."""
        return (
            Example(nn.Sequential(nn.Conv2d(4, 4, 3), batch_norm(4)), image(), "is folded into the convolution"),
            Example(nn.BatchNorm2d(4, track_running_stats=False), image(), "its statistics are the batch's"),
        )
