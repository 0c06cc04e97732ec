"""Suggests equivalent layers for those that the engine does not have.

Only exact ones are named: two 3×3 convolutions are not a 5×5 one, and a ReLU is not a GELU. What
can be rewritten without asking is a conversion, in ``patterns/``.
"""

from torch import fx, nn

from embedl_deploy.patterns import get_module, shape_of
from embedl_deploy_sensai_stub.limits import average_pool_limit, conv_limit, pair
from embedl_deploy_sensai_stub.modules import SensaiLinear


def rewrite_for(node: fx.Node, module: nn.Module) -> str | None:
    """How to write a layer that the engine cannot run with what it has.

    Args:
        node: The call.
        module: What it calls.

    Returns:
        The rewrite in words, or ``None`` if there is none that computes the same.
    """
    source = node.all_input_nodes[0]
    shape = shape_of(source)
    if isinstance(module, nn.Conv2d):
        return _for_conv(module)
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return _for_pool(module)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return _for_adaptive_pool(module, shape)
    if isinstance(module, nn.Linear) and shape is not None and len(shape) in (3, 4):
        return "keep the features in dimension 1 of a map, (N, C, H, W), and use a 1×1 convolution"
    if isinstance(module, nn.ReLU) and (shape is None or len(shape) == 4):
        return "put a depthwise 1×1 convolution with weights of one in front of it"
    before = get_module(source)
    if isinstance(module, nn.BatchNorm1d) and isinstance(before, SensaiLinear) and before.relu is None:
        return "fold it into the linear layer, torch.nn.utils.fusion.fuse_linear_bn_eval"
    return None


def _for_conv(conv: nn.Conv2d) -> str | None:
    if max(conv.kernel_size) <= 3 and conv_limit(_changed(conv, kernel_size=3)) is None:
        return "fill the kernel up with zeros to 3×3, and pad by as much more"
    if conv.groups > 1 and conv_limit(_changed(conv, groups=1)) is None:
        return f"use one group with zeros between the groups, at {conv.groups} times the products"
    return None


def _changed(conv: nn.Conv2d, *, kernel_size: int | None = None, groups: int | None = None) -> nn.Conv2d:
    """A convolution like ``conv`` but for one setting, without weights."""
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel_size or conv.kernel_size,  # type: ignore[arg-type]  # stored as a tuple of two
        conv.stride,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=groups or conv.groups,
        padding_mode=conv.padding_mode,
        device="meta",
    )


def _for_pool(pool: nn.MaxPool2d | nn.AvgPool2d) -> str | None:
    """A window of 2ⁿ×2ⁿ that moves by its own size is n times 2×2."""
    size = pair(pool.kernel_size)[0]
    plain = pair(pool.kernel_size) == pair(pool.stride) == (size, size) and pair(pool.padding) == (0, 0)
    if isinstance(pool, nn.MaxPool2d):
        plain = plain and pair(pool.dilation) == (1, 1) and not pool.return_indices
    else:
        plain = plain and pool.divisor_override is None
    if size is None or size <= 2 or size & (size - 1) or not plain or pool.ceil_mode:
        return None
    return f"use {size.bit_length() - 1} 2×2 poolings in sequence"


def _for_adaptive_pool(pool: nn.AdaptiveAvgPool2d, shape: tuple[int, ...] | None) -> str | None:
    """For maps of one size, windows are of one size if the output's size divides the map's."""
    if shape is None:
        return None
    (height, width), (rows, columns) = shape[-2:], pair(pool.output_size)
    rows, columns = rows or height, columns or width
    if height % rows or width % columns:
        return None
    window = (height // rows, width // columns)
    if window == (1, 1):
        return "leave it out: it changes nothing on maps of this size"
    if average_pool_limit(nn.AvgPool2d(window)) is None:
        return f"use AvgPool2d({window}), which is the same on maps of this size"
    return None
