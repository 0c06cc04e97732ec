"""Functional calls as the ``torch.nn`` modules that they equal.

A row of the table names the module class and how its constructor's arguments are read from a call. A call is
only given a module form when the module computes the same thing for every input: a slope that is itself a
tensor, or a weight that is computed on the way, has none.

Parameters are shared, never copied: the module built for ``F.linear(x, self.w)`` holds ``self.w`` itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.operators import is_in_place, operation


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization by running statistics, in training mode too.

    The module form of a call ``F.batch_norm(..., training=False)``: the call does not look at any mode.
    """

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self


@dataclass(frozen=True)
class _Form:
    """How one functional operation is read: the module class, its parameters' names in call order, a builder."""

    module_class: type[nn.Module]
    parameters: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], nn.Module | None]


class _NoModuleFormError(Exception):
    """The call's arguments have no counterpart in the module's constructor."""


def _plain(values: Mapping[str, Any], name: str, default: Any) -> Any:
    value = values.get(name, default)
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    if found:
        raise _NoModuleFormError(name)  # a run-time value
    return value


def _activation(module_class: type[nn.Module], **defaults: Any) -> _Form:
    """A module whose constructor keywords carry the same names as the function's arguments after ``input``."""

    def build(values: Mapping[str, Any]) -> nn.Module:
        return module_class(**{name: _plain(values, name, default) for name, default in defaults.items()})

    return _Form(module_class, ("input", *defaults), build)


def _hardtanh(values: Mapping[str, Any]) -> nn.Module:
    low, high, inplace = (_plain(values, n, d) for n, d in (("min_val", -1.0), ("max_val", 1.0), ("inplace", False)))
    if (low, high) == (0, 6):
        return nn.ReLU6(inplace)  # what torch.export makes of ReLU6
    return nn.Hardtanh(low, high, inplace=inplace)


def _set_tensor(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    """Make ``tensor`` the module's parameter or buffer ``name``, without copying it."""
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    if tensor is None or isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _tensor(values: Mapping[str, Any], name: str) -> torch.Tensor | None:
    value = values.get(name)
    if value is None or isinstance(value, torch.Tensor):
        return value
    raise _NoModuleFormError(name)  # computed at run time


def _required_tensor(values: Mapping[str, Any], name: str, rank: int) -> torch.Tensor:
    tensor = _tensor(values, name)
    if tensor is None or tensor.dim() != rank:
        raise _NoModuleFormError(name)
    return tensor


def linear_with(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A ``Linear`` that holds these very tensors.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,) or ``None``.
    """
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    _set_tensor(module, "weight", weight)
    _set_tensor(module, "bias", bias)
    return module


def conv2d_with(weight: torch.Tensor, bias: torch.Tensor | None, *, groups: int = 1, **settings: Any) -> nn.Conv2d:
    """A ``Conv2d`` that holds these very tensors.

    Args:
        weight: (out_channels, in_channels / groups, height, width).
        bias: (out_channels,) or ``None``.
        groups: Number of groups.
        **settings: ``stride``, ``padding`` and ``dilation`` as for ``nn.Conv2d``.
    """
    height, width = weight.shape[2:]
    module = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (height, width),
        groups=groups,
        bias=False,
        device="meta",
        **settings,
    )
    _set_tensor(module, "weight", weight)
    _set_tensor(module, "bias", bias)
    return module


def _linear(values: Mapping[str, Any]) -> nn.Module:
    return linear_with(_required_tensor(values, "weight", 2), _tensor(values, "bias"))


def _conv2d(values: Mapping[str, Any]) -> nn.Module:
    padding = _plain(values, "padding", 0)
    return conv2d_with(
        _required_tensor(values, "weight", 4),
        _tensor(values, "bias"),
        groups=_plain(values, "groups", 1),
        stride=_pair(_plain(values, "stride", 1)),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(_plain(values, "dilation", 1)),
    )


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _batch_norm(values: Mapping[str, Any]) -> nn.Module:
    mean, var = _tensor(values, "running_mean"), _tensor(values, "running_var")
    if mean is None or var is None or _plain(values, "training", False):
        raise _NoModuleFormError("training")  # batch statistics: the module would also update its running ones
    module = FrozenBatchNorm2d(
        mean.shape[0], eps=_plain(values, "eps", 1e-5), momentum=_plain(values, "momentum", 0.1), device="meta"
    )
    for name, tensor in (("running_mean", mean), ("running_var", var)):
        _set_tensor(module, name, tensor)
    for name in ("weight", "bias"):
        _set_tensor(module, name, _tensor(values, name))
    # Only the live form counts batches; on "meta" the counter could not be moved or saved.
    _set_tensor(module, "num_batches_tracked", torch.zeros((), dtype=torch.long, device=mean.device))
    return module.eval()


def _layer_norm(values: Mapping[str, Any]) -> nn.Module:
    weight, bias = _tensor(values, "weight"), _tensor(values, "bias")
    shape = list(_plain(values, "normalized_shape", ()))
    if not shape:
        raise _NoModuleFormError("normalized_shape")
    module = nn.LayerNorm(shape, eps=_plain(values, "eps", 1e-5), elementwise_affine=False)
    module.elementwise_affine = weight is not None
    _set_tensor(module, "weight", weight)
    _set_tensor(module, "bias", bias)
    return module


def _zero_pad(values: Mapping[str, Any]) -> nn.Module:
    padding = _plain(values, "pad", ())
    if len(padding) != 4 or _plain(values, "mode", "constant") != "constant" or _plain(values, "value", None):
        raise _NoModuleFormError("pad")
    return nn.ZeroPad2d(tuple(padding))


_BATCH_NORM_FUNCTIONAL = _Form(
    nn.BatchNorm2d,
    ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    _batch_norm,
)
_BATCH_NORM_NATIVE = _Form(
    nn.BatchNorm2d,
    ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"),
    _batch_norm,
)
_CONV2D = _Form(nn.Conv2d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _conv2d)

_FORMS: dict[str, _Form] = {
    "relu": _activation(nn.ReLU, inplace=False),
    "relu6": _activation(nn.ReLU6, inplace=False),
    "hardtanh": _Form(nn.Hardtanh, ("input", "min_val", "max_val", "inplace"), _hardtanh),
    "leaky_relu": _activation(nn.LeakyReLU, negative_slope=0.01, inplace=False),
    "elu": _Form(
        nn.ELU,
        ("input", "alpha", "inplace"),
        lambda v: nn.ELU(_plain(v, "alpha", 1.0), _plain(v, "inplace", False)),
    ),
    "gelu": _activation(nn.GELU, approximate="none"),
    "silu": _activation(nn.SiLU, inplace=False),
    "mish": _activation(nn.Mish, inplace=False),
    "hardswish": _activation(nn.Hardswish, inplace=False),
    "hardsigmoid": _activation(nn.Hardsigmoid, inplace=False),
    "sigmoid": _activation(nn.Sigmoid),
    "tanh": _activation(nn.Tanh),
    "flatten": _Form(
        nn.Flatten,
        ("input", "start_dim", "end_dim"),
        lambda v: nn.Flatten(_plain(v, "start_dim", 0), _plain(v, "end_dim", -1)),
    ),
    "adaptive_avg_pool2d": _activation(nn.AdaptiveAvgPool2d, output_size=None),
    "avg_pool2d": _activation(
        nn.AvgPool2d,
        kernel_size=None,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    ),
    "max_pool2d": _Form(
        nn.MaxPool2d,
        ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
        lambda v: nn.MaxPool2d(
            _plain(v, "kernel_size", None),
            _plain(v, "stride", None) or None,  # [] and None both mean "as the kernel"
            _plain(v, "padding", 0),
            _plain(v, "dilation", 1),
            _plain(v, "return_indices", False),
            _plain(v, "ceil_mode", False),
        ),
    ),
    "linear": _Form(nn.Linear, ("input", "weight", "bias"), _linear),
    "conv2d": _CONV2D,
    "batch_norm": _BATCH_NORM_FUNCTIONAL,
    "layer_norm": _Form(
        nn.LayerNorm, ("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable"), _layer_norm
    ),
    "pad": _Form(nn.ZeroPad2d, ("input", "pad", "mode", "value"), _zero_pad),
}

#: In-place spellings carry the flag in their name (``relu_``), not in an argument.
_IN_PLACE_FLAG = frozenset(
    {"relu", "relu6", "leaky_relu", "elu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh"}
)


def _form(node: fx.Node) -> _Form | None:
    name = operation(node)
    if not isinstance(name, str):
        return None
    if name == "batch_norm" and getattr(node.target, "__module__", "") != "torch.nn.functional":
        return _BATCH_NORM_NATIVE  # torch.batch_norm and aten put the statistics after the weights
    return _FORMS.get(name)


def _arguments(node: fx.Node, form: _Form) -> dict[str, Any] | None:
    """The call's arguments by name; ``None`` when it has some that the module does not know."""
    if len(node.args) > len(form.parameters):
        return None
    values = dict(zip(form.parameters, node.args, strict=False))
    for name, value in node.kwargs.items():
        if name == "self":
            name = "input"
        elif name not in form.parameters:
            if name == "cudnn_enabled":
                continue
            return None
        values[name] = value
    return values


def module_class_of_call(node: fx.Node) -> type[nn.Module] | None:
    """The module class that a functional call would be, judged by its operation alone."""
    form = _form(node)
    return None if form is None else form.module_class


def module_of_call(node: fx.Node, constant: Callable[[fx.Node], Any]) -> nn.Module | None:
    """Build the module that a functional call equals.

    Args:
        node: A ``call_function`` or ``call_method`` node.
        constant: Gives the tensor that a ``get_attr`` node stands for.

    Returns:
        A module for the call's single tensor input, sharing the call's parameters; ``None`` when no module
        computes the same thing.
    """
    form = _form(node)
    values = None if form is None else _arguments(node, form)
    if form is None or values is None or not isinstance(values.get("input"), fx.Node):
        return None
    if operation(node) in _IN_PLACE_FLAG and is_in_place(node):
        values["inplace"] = True
    resolved = {
        name: constant(value) if isinstance(value, fx.Node) and value.op == "get_attr" else value
        for name, value in values.items()
        if name != "input"
    }
    try:
        return form.build(resolved)
    except _NoModuleFormError:
        return None
