"""Why the engine cannot run an operator, in words: the answer for everything that no fusion took.

Two kinds of operator get no reason: those that the engine could run but that a plan left alone, and those that
compute nothing on the engine: reshapes, sizes, and what is gone at inference.
"""

from torch import fx, nn

from embedl_deploy.patterns import get_module, shape_of
from embedl_deploy_sensai_stub.limits import (
    average_pool_limit,
    batch_norm_limit,
    conv_limit,
    linear_limit,
    max_pool_limit,
)

_ENGINE = "the engine runs only convolutions with batch norm and ReLU, 2×2 max pooling and linear layers"
_ONLY_RELU = "the engine has only ReLU"
_NO_ATTENTION = "the engine has no attention and no product of two computed values"
_NO_ARITHMETIC = "the engine has no element-wise arithmetic"
_NO_POOLING = "the engine pools only 2×2 maxima with stride 2"
_ONLY_AS_CONV = "the engine averages only by a depthwise convolution, which this was not made into (args= given?)"
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
    (nn.ReLU, "the engine has it only right behind a convolution or linear layer"),
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
    _NO_ARITHMETIC: "add sub mul div truediv floordiv neg pow sqrt rsqrt exp log abs clamp",
    _NO_ATTENTION: "matmul bmm baddbmm einsum scaled_dot_product_attention",
    _ONLY_RELU: "softmax log_softmax softplus selu celu prelu logsigmoid hardtanh",
    _NO_MOVES: "permute transpose t movedim swapaxes roll flip expand repeat",
    _NO_POOLING: "mean sum amax max min adaptive_max_pool2d lp_pool2d",
    _NO_NORM: "group_norm instance_norm batch_norm normalize",
    "the engine neither joins nor splits maps": "cat concat concatenate stack chunk split unbind",
    "the engine does not resize": "interpolate upsample grid_sample",
    "the engine pads only as part of a convolution": "pad",
    "its weight is computed at run time; the engine has constant weights": "conv2d linear",
}
_OPERATIONS = {name: reason for reason, names in _NAMES_BY_REASON.items() for name in names.split()}


def explain_unfused(node: fx.Node) -> str | None:
    """Why the engine cannot run the operator at ``node``.

    Returns:
        ``"<operator>: <reason>"``, or ``None`` when there is nothing that the engine could not do.
    """
    module = get_module(node)
    if module is not None:
        free = isinstance(module, _FREE_MODULES) or type(module).__name__ == _EXPORT_GUARDS
        return None if free else _labelled(type(module).__name__, _module(node, module))
    name = operation_name(node)
    if name in _FREE_OPERATIONS or computes_sizes(node):
        return None
    return _labelled(name, _OPERATIONS.get(name, _ENGINE))


def _labelled(name: str, reason: str | None) -> str | None:
    return None if reason is None else f"{name}: {reason}"


def _module(node: fx.Node, module: nn.Module) -> str | None:
    """The limit that a module breaks; ``None`` for one that the engine could run."""
    if isinstance(module, nn.Conv2d):
        return conv_limit(module)
    if isinstance(module, nn.MaxPool2d):
        return max_pool_limit(module)
    if isinstance(module, nn.Linear):
        return linear_limit(shape_of(node.all_input_nodes[0]))
    if isinstance(module, nn.BatchNorm2d):
        return batch_norm_limit(module) or _NO_NORM
    if isinstance(module, nn.AvgPool2d):
        return average_pool_limit(module) or _ONLY_AS_CONV
    for classes, reason in _MODULES:
        if isinstance(module, classes):
            return reason
    return _MODULE_FAMILIES.get(type(module).__module__.rpartition(".")[2], _ENGINE)


def operation_name(node: fx.Node) -> str:
    """The name of a call's function or method, the same for in-place forms: ``add`` for ``add_`` and ``iadd``."""
    target = node.target
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    name = name.partition(".")[0].strip("_")
    known = name in _OPERATIONS or name in _FREE_OPERATIONS
    return name[1:] if not known and name.startswith("i") and name[1:] in _OPERATIONS else name


def computes_sizes(node: fx.Node) -> bool:
    """Whether a call gives numbers made of tensors' sizes only, such as ``x.shape[0] * 2``."""
    if operation_name(node) in _SIZES or (operation_name(node) == "getattr" and node.args[1:] == ("shape",)):
        return True
    inputs = node.all_input_nodes
    return node.op == "call_function" and bool(inputs) and all(computes_sizes(value) for value in inputs)
