"""What the engine is taken to run: each limit is a question that is answered by the reason why not, or ``None``.

The patterns ask before they take a match, the report asks about what was left, so both always say the same. All
limits are assumptions; the README lists them.
"""

from torch import nn

_KERNELS = ((1, 1), (3, 3))
_STRIDES = ((1, 1), (2, 2))
#: Sides of average pooling windows that fit into a 3×3 kernel. A window of one pixel is no pooling.
_AVERAGE_SIDES = (2, 3)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _times(pair: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in pair)


def conv_limit(conv: nn.Conv2d) -> str | None:
    """Why the engine cannot run a convolution: its kernel, stride, groups, dilation or padding."""
    if tuple(conv.kernel_size) not in _KERNELS:
        return f"kernel is {_times(conv.kernel_size)}; the engine has 1×1 and 3×3"
    if tuple(conv.stride) not in _STRIDES:
        return f"stride is {_times(conv.stride)}; the engine has 1 and 2, the same in both directions"
    if conv.groups != 1 and not conv.groups == conv.in_channels == conv.out_channels:
        return (
            f"{conv.in_channels} to {conv.out_channels} channels in {conv.groups} groups; "
            "the engine has one group, or depthwise with one filter per channel"
        )
    if tuple(conv.dilation) != (1, 1):
        return f"dilation is {_times(conv.dilation)}; the engine has none"
    if conv.padding_mode != "zeros":
        return f"padding mode is {conv.padding_mode!r}; the engine pads with zeros"
    return None


def batch_norm_limit(bn: nn.BatchNorm2d) -> str | None:
    """Why a batch norm cannot be folded into the convolution before it: only constants can be."""
    if bn.running_mean is None:
        return "the batch norm keeps no running statistics; the engine folds constants into the convolution"
    return None


def max_pool_limit(pool: nn.MaxPool2d) -> str | None:
    """Why the engine cannot run a max-pooling: its window, stride, or what it returns."""
    if _pair(pool.kernel_size) != (2, 2) or _pair(pool.stride) != (2, 2):
        found = f"window {_times(_pair(pool.kernel_size))} with stride {_times(_pair(pool.stride))}"
        return f"{found}; the engine has 2×2 with stride 2"
    if _pair(pool.padding) != (0, 0) or _pair(pool.dilation) != (1, 1):
        return f"padding {pool.padding}, dilation {pool.dilation}; the engine's max pooling has neither"
    if pool.ceil_mode:
        return "ceil_mode; the engine drops what does not fill a window"
    if pool.return_indices:
        return "return_indices; the engine returns values only"
    return None


def average_pool_limit(pool: nn.AvgPool2d) -> str | None:
    """Why an average pooling is no depthwise convolution that the engine runs."""
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    if any(side not in _AVERAGE_SIDES for side in kernel):
        return f"window is {_times(kernel)}; only 2×2 and 3×3 fit into a kernel that the engine has"
    if stride not in _STRIDES:
        return f"stride is {_times(stride)}; the engine has 1 and 2, the same in both directions"
    if pool.ceil_mode:
        return "ceil_mode averages over windows of different size, which a convolution does not"
    if _pair(pool.padding) != (0, 0) and not pool.count_include_pad and pool.divisor_override is None:
        return "count_include_pad=False divides by a different number at the border, which a convolution does not"
    return None


def linear_limit(input_shape: tuple[int, ...] | None) -> str | None:
    """Why the engine cannot run a linear layer on an input of this shape; an unknown shape is taken to fit.

    Args:
        input_shape: (N, features), (features,), or ``None`` if it is unknown.
    """
    if input_shape is not None and len(input_shape) > 2:
        return f"its input is {_times(input_shape)}; the engine takes one vector per sample"
    return None
