"""The assumed limits of the engine: each function returns why something cannot run, or ``None``.

The patterns ask before they take a match, the report asks about what was left, and the rules ask about ONNX files, so
all three always say the same. The README tells which limits are from public documents of Lattice and which are assumed.
"""

from typing import TypeVar

from torch import fx, nn

from embedl_deploy.patterns import dtype_of, shape_of

#: What there is, for everything that has no limit of its own.
ENGINE = (
    "the engine runs only convolutions with batch norm and ReLU, sums of two maps, 2×2 max pooling, "
    "global average pooling and linear layers"
)
#: A size, ``None`` in settings that may keep the size that is there.
SizeT = TypeVar("SizeT", int, int | None)

_KERNELS = ((1, 1), (3, 3))
_STRIDES = ((1, 1), (2, 2))
#: Sides of average pooling windows that fit into a 3×3 kernel. A window of one pixel does not pool.
_AVERAGE_SIDES = (2, 3)


def pair(value: SizeT | tuple[SizeT, ...]) -> tuple[SizeT, SizeT]:
    """A setting for height and width, where one value may stand for both."""
    return (value[0], value[1]) if isinstance(value, (tuple, list)) else (value, value)


def times(sizes: tuple[int | None, ...]) -> str:
    """Sizes for messages, such as ``3×3``; ``?`` for one that is open."""
    return "×".join("?" if size is None else str(size) for size in sizes)


def conv_limit(conv: nn.Conv2d) -> str | None:
    """Why the engine cannot run a convolution: its kernel, stride, groups, dilation or padding."""
    if tuple(conv.kernel_size) not in _KERNELS:
        return f"kernel is {times(conv.kernel_size)}; the engine has 1×1 and 3×3"
    if tuple(conv.stride) not in _STRIDES:
        return f"stride is {times(conv.stride)}; the engine has 1 and 2, the same in both directions"
    if conv.groups != 1 and not conv.groups == conv.in_channels == conv.out_channels:
        return (
            f"{conv.in_channels} to {conv.out_channels} channels in {conv.groups} groups; "
            "the engine has one group, or depthwise with one filter per channel"
        )
    if tuple(conv.dilation) != (1, 1):
        return f"dilation is {times(conv.dilation)}; the engine has none"
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
    if pair(pool.kernel_size) != (2, 2) or pair(pool.stride) != (2, 2):
        found = f"window {times(pair(pool.kernel_size))} with stride {times(pair(pool.stride))}"
        return f"{found}; the engine has 2×2 with stride 2"
    if pair(pool.padding) != (0, 0) or pair(pool.dilation) != (1, 1):
        return f"padding {pool.padding}, dilation {pool.dilation}; the engine's max pooling has neither"
    if pool.ceil_mode:
        return "ceil_mode; the engine drops what does not fill a window"
    if pool.return_indices:
        return "return_indices; the engine returns values only"
    return None


def average_pool_limit(pool: nn.AvgPool2d) -> str | None:
    """Why an average pooling is not a depthwise convolution that the engine runs."""
    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    if any(side not in _AVERAGE_SIDES for side in kernel):
        return f"window is {times(kernel)}; the engine averages over 2×2, 3×3 and the whole map"
    if stride not in _STRIDES:
        return f"stride is {times(stride)}; the engine has 1 and 2, the same in both directions"
    if pool.ceil_mode:
        return "ceil_mode averages over windows of different size, which a convolution does not"
    if pair(pool.padding) != (0, 0) and not pool.count_include_pad and pool.divisor_override is None:
        return "count_include_pad=False divides by a different number at the border, which a convolution does not"
    return None


def global_pool_limit(pool: nn.AdaptiveAvgPool2d) -> str | None:
    """Why the engine cannot run an adaptive average pooling: it gives more than one number for a channel."""
    size = pair(pool.output_size)
    return None if size == (1, 1) else f"output is {times(size)}; the engine averages over the whole map, to 1×1"


def mean_limit(node: fx.Node) -> str | None:
    """Why a call of ``mean`` is not a global average pooling: its dimensions, its type, or an unknown shape."""
    shape = shape_of(node.all_input_nodes[0])
    if shape is None:
        return "the shape of its input is unknown: pass example inputs, args="
    if node.kwargs.get("dtype") is not None:
        return f"it also changes the type, to {node.kwargs['dtype']}"
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    over = list(dims) if isinstance(dims, (tuple, list)) else [dims]
    if len(shape) != 4 or sorted(dim % 4 for dim in over if isinstance(dim, int)) != [2, 3]:
        return f"it averages {times(shape)} over {over}; the engine averages (N, C, H, W) over H and W"
    return None


def linear_limit(input_shape: tuple[int | None, ...] | None) -> str | None:
    """Why the engine cannot run a linear layer on an input of this shape; an unknown shape is taken to fit.

    Args:
        input_shape: (N, features), (features,), or ``None`` if it is unknown.
    """
    if input_shape is not None and len(input_shape) > 2:
        return f"its input is {times(input_shape)}; the engine takes one vector per sample"
    return None


def add_limit(node: fx.Node) -> str | None:
    """Why the engine cannot run a sum; operands of unknown shape are taken to fit.

    Args:
        node: The call of ``add``.
    """
    if node.kwargs.get("alpha", 1) != 1:
        return f"it multiplies what it adds by {node.kwargs['alpha']}; the engine adds two maps as they are"
    operands = [value for value in node.args if isinstance(value, fx.Node)]
    if len(operands) != 2 or any(value.op == "get_attr" for value in operands):
        return "it adds a constant; the engine adds two maps"
    shapes, types = [shape_of(value) for value in operands], [dtype_of(value) for value in operands]
    if None not in shapes and shapes[0] != shapes[1]:
        return f"it adds {times(shapes[0] or ())} and {times(shapes[1] or ())}; the engine adds maps of one shape"
    if None not in types and types[0] != types[1]:
        return f"it adds {types[0]} and {types[1]}; the engine has one type"
    return None
