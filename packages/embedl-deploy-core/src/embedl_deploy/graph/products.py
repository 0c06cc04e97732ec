"""Operations that multiply and accumulate, for which hardware has fast integer units.

torch has some hundred names for convolutions and products of matrices, and gets more with each release: kernels of
one processor or library, forms with a scale, for sparse or grouped operands. All are made of a few words, so words
are what is looked for. Left out are operations whose factors are fixed (interpolation, Fourier transforms), outer
products, which accumulate nothing, and solvers and decompositions, which are algorithms.

A product may also be written as what it is: a multiplication, and a sum or mean over what both factors have.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.einsum import operands_of_einsum
from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import operation, operation_of_target

#: Words that name a product, in names such as ``_scaled_dot_product_flash_attention_for_cpu``.
_WORDS = frozenset(
    {"mm", "bmm", "addmm", "addbmm", "baddbmm", "smm", "spmm", "dsmm", "hsmm", "hspmm", "saddmm", "sspaddmm"}
    | {"mv", "addmv", "matmul", "rmatmul", "imatmul", "dot", "vdot", "vecdot", "tensordot", "inner", "einsum"}
    | {"linear", "bilinear", "trilinear", "attention", "bag", "rnn", "lstm", "gru", "cov", "corrcoef"}
    | {"cdist", "euclidean", "cosine"}  # the distance and the angle between any two rows
)
_CONVOLUTION = re.compile(r"conv(olution)?(\dd)?")
#: Names without such a word.
_NAMES = frozenset({"matrix_power", "linalg_matrix_power", "transformer_encoder_layer_fwd"})
#: A matrix of 2×3 or 3×4 for each picture, times the coordinates of its places: so few products for each number.
_GRIDS = frozenset({"affine_grid", "affine_grid_generator", "cudnn_affine_grid_generator"})
_NAMES |= _GRIDS
#: Interpolation by fixed factors, which is called linear, too.
_INTERPOLATION = "upsample"

#: Modules of ``torch.nn`` with a weight that something is multiplied with.
WEIGHTED: tuple[type[nn.Module], ...] = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.modules.rnn.RNNBase,
    nn.modules.rnn.RNNCellBase,
    *(getattr(nn, name) for name in ("LinearCrossEntropyLoss",) if hasattr(nn, name)),  # from torch 2.13 on
)

#: Modules of ``torch.nn`` without a weight that multiply and accumulate.
UNWEIGHTED: tuple[type[nn.Module], ...] = (nn.CosineSimilarity, nn.CosineEmbeddingLoss)

#: Why a product with a weight of one axis stays in float.
BY_ONE_VECTOR = "its weight is one vector: the product is bound by memory, not by arithmetic"
#: How a multiplication that is summed is named.
SUM_OF_PRODUCTS = "mul and sum"
_SUMS = frozenset({"sum", "nansum", "mean", "nanmean"})
#: Products for each number that is read or written, up to which reading and writing is all that takes time.
_FEW = 2
#: What changes the layout of a value or its type, and no number.
_LAYOUTS = frozenset(
    {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "unsqueeze", "squeeze"}
    | {"contiguous", "clone", "to", "_to_copy", "float", "half", "bfloat16", "double", "type", "expand", "_unsafe_view"}
)


def is_product(name: str) -> bool:
    """Whether the operation of that name, one of torch's, multiplies and accumulates."""
    words = name.strip("_").split("_")
    if _INTERPOLATION in words:
        return False
    return name.strip("_") in _NAMES or any(word in _WORDS or _CONVOLUTION.fullmatch(word) for word in words)


def product_of_call(node: fx.Node) -> str | None:
    """What a call of a function or method multiplies and accumulates by; ``None`` if it does not.

    Returns:
        The class of ``torch.nn`` that the call equals, or the name of the operation.
    """
    if summed_factors(node) is not None:
        return SUM_OF_PRODUCTS
    name = operation(node)
    if name is None or callable(name):
        name = _torch_name(node.target)
    if name is None or not is_product(name) or (name == "einsum" and len(operands_of_einsum(node)) == 1):
        return None
    form = module_class_of_call(node)
    return name if form is None or form.__name__.startswith("_") else form.__name__


def _torch_name(target: Callable[..., Any] | str) -> str | None:
    """The name of a function of torch that has no common one with other spellings."""
    name = operation_of_target(target)
    if isinstance(name, str):
        return name
    home = getattr(target, "__module__", None) or ""
    ours = home == "torch" or home.startswith("torch.")
    return getattr(target, "__name__", None) if ours else None


def summed_factors(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The two tensors whose products a node sums, as in ``(x.unsqueeze(-1) * w).sum(1)``; ``None`` if it does not.

    Where shapes are known, something must be summed that both have: the sum of what a gate, one number a channel,
    scales is the sum, scaled.
    """
    if operation(node) not in _SUMS or not node.all_input_nodes:
        return None
    value, same_layout = node.all_input_nodes[0], True
    while operation(value) in _LAYOUTS and value.all_input_nodes:
        value, same_layout = value.all_input_nodes[0], False
    factors = [factor for factor in value.args if isinstance(factor, fx.Node)] if operation(value) == "mul" else []
    if len(factors) != 2 or factors[0] is factors[1]:
        return None
    dtype, shapes = dtype_of(value), [shape_of(factor) for factor in factors]
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        return None
    if shapes[0] is None or shapes[1] is None:
        return factors[0], factors[1]
    rank = max(map(len, shapes))  # type: ignore[arg-type]  # none is None
    sizes = [(1,) * (rank - len(shape)) + shape for shape in shapes if shape is not None]
    dims = _summed_dims(node, rank) if same_layout else range(rank)
    return (factors[0], factors[1]) if any(sizes[0][dim] > 1 and sizes[1][dim] > 1 for dim in dims) else None


def is_bound_by_memory(node: fx.Node) -> bool:
    """Whether a multiplication that is summed does little with each number that it reads or writes.

    A gate of channels reads a number for each product. A product of matrices has rows, which only one factor has, and
    columns, which only the other has; where these are few, as in the nine neighbours that optical flow is upsampled
    from, it does little as well.
    """
    name = operation(node)
    if name in _GRIDS:
        return True
    factors = tuple(node.all_input_nodes) if name == "cosine_similarity" else summed_factors(node)
    shapes = [] if factors is None else [shape_of(factor) for factor in factors]
    known = [shape for shape in shapes if shape is not None]
    result = shape_of(node)
    if len(known) != 2 or result is None:
        return False
    rank = max(map(len, known))
    sizes = [(1,) * (rank - len(shape)) + shape for shape in known]
    products = math.prod(max(pair) for pair in zip(*sizes, strict=True))
    numbers = sum(math.prod(shape) for shape in (*sizes, result))
    return bool(products <= _FEW * numbers)


def _summed_dims(node: fx.Node, rank: int) -> list[int]:
    """The dimensions that a sum is over; all where none are given, or they cannot be told."""
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis"))
    dims = given if isinstance(given, (tuple, list)) else (given,)
    told = [dim % rank for dim in dims if isinstance(dim, int)] if rank else []
    return told if told and len(told) == len(dims) else list(range(rank))
