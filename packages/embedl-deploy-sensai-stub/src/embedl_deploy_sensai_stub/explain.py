"""Explains why the engine cannot run an unfused operator.

An answer names the constraint and, where a rewrite computes the same, the rewrite. Two kinds of operator get no
answer: those that the engine could run but that a plan left alone, and those that compute nothing on the engine:
reshapes, sizes, and what is gone at inference.
"""

from torch import fx, nn

from embedl_deploy.graph import ACTIVATIONS
from embedl_deploy.patterns import get_module, shape_of
from embedl_deploy_sensai_stub.limits import (
    ENGINE,
    add_limit,
    average_pool_limit,
    batch_norm_limit,
    conv_limit,
    global_pool_limit,
    linear_limit,
    max_pool_limit,
    mean_limit,
)
from embedl_deploy_sensai_stub.rewrites import rewrite_for

_ONLY_RELU = "the engine has only ReLU"
_NO_ATTENTION = "the engine has no attention and no product of two computed values"
_NO_ARITHMETIC = "the engine has no element-wise arithmetic but sums of two maps"
_NO_POOLING = "the engine has 2×2 max pooling with stride 2 and global average pooling"
_ONLY_AS_CONV = "the engine averages by a depthwise convolution, which this was not made into (args= given?)"
_NO_NORM = "no normalization but batch norm folded into a convolution"
_NO_MOVES = "the engine does not move data between dimensions"

#: What happens to a tensor's shape, or at training time only: nothing for the engine to do.
_FREE_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_FREE_OPERATIONS = frozenset(
    (
        *("flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "squeeze", "unsqueeze"),
        *("getitem", "getattr", "size", "dim", "numel", "contiguous", "detach", "clone", "assert"),
        *("dropout", "dropout2d", "alpha_dropout", "feature_dropout", "stochastic_depth"),
    )
)
#: The module that torch.export adds to check a model's inputs. Its class is made when a graph is unlifted.
_EXPORT_GUARDS = "GuardsFn"
#: What gives sizes; arithmetic on sizes alone is done before the engine runs.
_SIZES = frozenset({"size", "dim", "numel"})

#: The most specific classes first: the first that fits gives the reason.
_MODULES: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    (nn.ReLU, "the engine supports it only directly after a convolution, a linear layer or a sum"),
    (nn.MultiheadAttention, _NO_ATTENTION),
    (nn.modules.conv._ConvNd, "the engine has only two-dimensional convolutions, not transposed"),
    (nn.modules.batchnorm._NormBase, _NO_NORM),
    ((nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm), _NO_NORM),
    (nn.RNNBase, "the engine keeps no state from step to step"),
    ((nn.Embedding, nn.EmbeddingBag), "the engine has no table look-up"),
    (nn.modules.padding._ConstantPadNd, "the engine pads only as part of a convolution"),
    (nn.Upsample, "the engine does not resize"),
)
#: Classes that come in families, by the last word of their module path.
_MODULE_FAMILIES = {"activation": _ONLY_RELU, "pooling": _NO_POOLING, "normalization": _NO_NORM}
#: Functions and methods that equal no module, by reason.
_NAMES_BY_REASON = {
    _NO_ARITHMETIC: "sub mul div truediv floordiv neg pow sqrt rsqrt exp log abs clamp",
    _NO_ATTENTION: "matmul bmm baddbmm einsum scaled_dot_product_attention",
    _NO_MOVES: "permute transpose t movedim swapaxes roll flip expand repeat",
    _NO_POOLING: "sum amax max min adaptive_max_pool2d lp_pool2d",
    _NO_NORM: "group_norm instance_norm batch_norm normalize",
    "the engine neither joins nor splits maps": "cat concat concatenate stack chunk split unbind",
    "the engine does not resize": "interpolate upsample grid_sample",
    "the engine pads only as part of a convolution": "pad",
    "its weight is computed at run time; the engine has constant weights": "conv2d linear",
}
_OPERATIONS = {
    **{name: _ONLY_RELU for each in ACTIVATIONS if each.module_class is not nn.ReLU for name in each.operations},
    **{name: reason for reason, names in _NAMES_BY_REASON.items() for name in names.split()},
}
#: Functions that the engine runs, within limits.
_LIMITS = {"add": add_limit, "mean": mean_limit}


def explain_unfused(node: fx.Node) -> str | None:
    """Why the engine cannot run the operator at ``node``.

    Returns:
        ``"<operator>: <reason>"``, with ``". Exact rewrite: <what to do>"`` after it where there is one; ``None`` when
        there is nothing that the engine could not do.
    """
    module = get_module(node)
    if module is not None:
        if isinstance(module, _FREE_MODULES) or type(module).__name__ == _EXPORT_GUARDS:
            return None
        name, reason = type(module).__name__, _module(node, module)
    else:
        name = operation_name(node)
        if name in _FREE_OPERATIONS or computes_sizes(node):
            return None
        reason = _LIMITS[name](node) if name in _LIMITS else _OPERATIONS.get(name, ENGINE)
    if reason is None:
        return None
    rewrite = None if module is None else rewrite_for(node, module)
    return f"{name}: {reason}" if rewrite is None else f"{name}: {reason}. Exact rewrite: {rewrite}"


def _module(node: fx.Node, module: nn.Module) -> str | None:
    """The limit that a module breaks; ``None`` for one that the engine could run."""
    if isinstance(module, nn.Conv2d):
        return conv_limit(module)
    if isinstance(module, nn.MaxPool2d):
        return max_pool_limit(module)
    if isinstance(module, nn.Linear):
        return linear_limit(shape_of(node.all_input_nodes[0]))
    if isinstance(module, nn.BatchNorm2d):
        return batch_norm_limit(module)
    if isinstance(module, nn.AvgPool2d):
        return average_pool_limit(module) or _ONLY_AS_CONV
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return global_pool_limit(module)
    for classes, reason in _MODULES:
        if isinstance(module, classes):
            return reason
    home = next((cls.__module__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn.")), "")
    return _MODULE_FAMILIES.get(home.rpartition(".")[2], ENGINE)


def operation_name(node: fx.Node) -> str:
    """The name of a call's function or method, the same for in-place forms: ``add`` for ``add_`` and ``iadd``."""
    target = node.target
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    name = name.partition(".")[0].strip("_")
    known = name in _OPERATIONS or name in _LIMITS or name in _FREE_OPERATIONS
    return name[1:] if not known and name.startswith("i") and name[1:] in {*_OPERATIONS, *_LIMITS} else name


def computes_sizes(node: fx.Node) -> bool:
    """Whether a call gives numbers made of tensors' sizes only, such as ``x.shape[0] * 2``."""
    if operation_name(node) in _SIZES or (operation_name(node) == "getattr" and node.args[1:] == ("shape",)):
        return True
    inputs = node.all_input_nodes
    return node.op == "call_function" and bool(inputs) and all(computes_sizes(value) for value in inputs)
