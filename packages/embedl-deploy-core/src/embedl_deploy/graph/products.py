"""What multiplies and accumulates: the operations that hardware has fast integer units for.

torch has some hundred names for convolutions and products of matrices, and gets more with each release: kernels of
one processor or library, forms with a scale, for sparse or grouped operands. All are made of a few words, so words
are what is looked for. Left out are operations whose factors are fixed (interpolation, Fourier transforms), outer
products, which accumulate nothing, and solvers and decompositions, which are algorithms.
"""

import re
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.operators import operation, operation_of_target

#: Words that name a product, in names such as ``_scaled_dot_product_flash_attention_for_cpu``.
_WORDS = frozenset(
    {"mm", "bmm", "addmm", "addbmm", "baddbmm", "smm", "spmm", "dsmm", "hsmm", "hspmm", "saddmm", "sspaddmm"}
    | {"mv", "addmv", "matmul", "rmatmul", "imatmul", "dot", "vdot", "vecdot", "tensordot", "inner", "einsum"}
    | {"linear", "bilinear", "trilinear", "attention", "bag", "rnn", "lstm", "gru", "cov", "corrcoef"}
)
_CONVOLUTION = re.compile(r"conv(olution)?(\dd)?")
#: Names without such a word.
_NAMES = frozenset({"matrix_power", "linalg_matrix_power", "transformer_encoder_layer_fwd"})
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
    name = operation(node)
    if name is None or callable(name):
        name = _torch_name(node.target)
    if name is None or not is_product(name):
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
