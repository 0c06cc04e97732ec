"""Activations, one row each: whatever lists or distinguishes activations reads this table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from torch import nn

from embedl_deploy.graph.forms.fixed_mode import FrozenRReLU, in_mode
from embedl_deploy.graph.forms.form import Call, Form, NoModuleFormError, from_constructor, set_tensor
from embedl_deploy.validation.checked import checked

#: An activation that fusions take with the convolution or product before it. Usable as a type, in ``isinstance``
#: and as an element of a pattern's tree.
#:
#: ``Sigmoid`` and ``Tanh``, which compilers merge as well, are left out, and nothing is lost: no quantizer stands
#: between a layer and an activation in either case, so the exported file is the same.
ActivationLike = nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.ELU | nn.GELU | nn.SiLU | nn.Hardswish | nn.Hardsigmoid


@checked
@dataclass(frozen=True, kw_only=True)
class Activation:
    """What is known of an activation of ``torch.nn``. Its result is a new tensor, unless it works in place.

    Attributes:
        module_class: The class.
        operations: Names of the function and ATen operators that it equals, as :func:`embedl_deploy.graph.operation`
            gives them.
        elementwise: Whether each value of the result is computed from the one at the same place alone.
        keeps_shape: Whether the result has the shape of the input.
        keeps_layout: Whether the result lies in memory as the input does, channels last for one.
        homogeneous: Whether f(s·x) = s·f(x) for every s > 0.
        onnx: Operators of ONNX that it is computed by.
        written_out: Modules that code may compute by hand, in small operations.
        build: Makes the module from a call; ``None`` where the arguments have the names that the constructor has.
        ignored: Arguments of the function that change nothing.
    """

    module_class: type[nn.Module]
    operations: tuple[str, ...]
    elementwise: bool = True
    keeps_shape: bool = True
    keeps_layout: bool = True
    homogeneous: bool = False
    onnx: tuple[str, ...] = ()
    written_out: tuple[Callable[[], nn.Module], ...] = ()
    build: Callable[[Call], nn.Module] | None = None
    ignored: tuple[str, ...] = ()

    @property
    def is_fused(self) -> bool:
        """Whether fusions take it with what stands before it: whether it is :data:`ActivationLike`."""
        return self.module_class in get_args(ActivationLike)

    @property
    def form(self) -> Form:
        """How calls of the function are read as the module."""
        if self.build is None:
            return from_constructor(self.module_class, *self.operations, ignored=self.ignored)
        return Form(self.operations, self.module_class, self.build)


def _hardtanh(call: Call) -> nn.Module:
    low, high = call.setting("min_val"), call.setting("max_val")
    inplace = call.in_place or bool(call.setting("inplace"))
    if (low, high) == (0, 6):
        return nn.ReLU6(inplace)  # what torch.export makes of ReLU6
    return nn.Hardtanh(low, high, inplace=inplace)


def _clamp(call: Call) -> nn.Module:
    """What ReLU and ReLU6 are in MobileNets of other frameworks."""
    bounds = call.setting("min"), call.setting("max")
    is_float = call.dtype is not None and call.dtype.is_floating_point
    if not is_float and any(isinstance(bound, float) for bound in bounds):
        raise NoModuleFormError("min")  # of integers it makes floats
    if bounds == (0, 6):
        return nn.ReLU6(call.in_place)
    if bounds == (0, None):
        return nn.ReLU(call.in_place)
    raise NoModuleFormError("max")


def _rrelu(call: Call) -> nn.Module:
    call.require_defaults("generator")
    inplace = call.in_place or bool(call.setting("inplace"))
    module = FrozenRReLU(call.setting("lower"), call.setting("upper"), inplace)
    return in_mode(module, training=bool(call.setting("training")))


def _prelu(call: Call) -> nn.Module:
    weight = call.parameter("weight", 1)
    module = nn.PReLU(weight.shape[0], device="meta")
    set_tensor(module, "weight", weight)
    return module


def _row(module_class: type[nn.Module], operation: str, *onnx: str, **columns: Any) -> Activation:
    return Activation(module_class=module_class, operations=(operation,), onnx=onnx, **columns)


def _over_a_dimension(module_class: type[nn.Module], operation: str, *onnx: str, **columns: Any) -> Activation:
    return _row(module_class, operation, *onnx, elementwise=False, **columns)


#: Every activation of ``torch.nn``, as an :class:`Activation`.
ACTIVATIONS: tuple[Activation, ...] = (
    _row(nn.ReLU, "relu", "Relu", homogeneous=True),
    _row(nn.ReLU6, "relu6", "Clip"),
    _row(nn.Hardtanh, "hardtanh", "Clip", build=_hardtanh),
    _row(nn.LeakyReLU, "leaky_relu", "LeakyRelu", homogeneous=True),
    _row(nn.RReLU, "rrelu", build=_rrelu, keeps_layout=False),
    _row(nn.PReLU, "prelu", "PRelu", homogeneous=True, build=_prelu),
    _row(nn.ELU, "elu", "Elu"),
    _row(nn.SELU, "selu", "Selu"),
    _row(nn.CELU, "celu", "Celu"),
    _row(nn.GELU, "gelu", "Gelu", "Erf", written_out=(nn.GELU, partial(nn.GELU, "tanh"))),
    _row(nn.SiLU, "silu", "Swish", written_out=(nn.SiLU,)),
    _row(nn.Mish, "mish", "Mish", written_out=(nn.Mish,)),
    _row(nn.Hardswish, "hardswish", "HardSwish", written_out=(nn.Hardswish,)),
    _row(nn.Hardsigmoid, "hardsigmoid", "HardSigmoid", written_out=(nn.Hardsigmoid,)),
    _row(nn.Hardshrink, "hardshrink"),
    _row(nn.Softshrink, "softshrink"),
    _row(nn.Tanhshrink, "tanhshrink"),
    _row(nn.Softplus, "softplus", "Softplus"),
    _row(nn.Softsign, "softsign", "Softsign"),
    _row(nn.Sigmoid, "sigmoid", "Sigmoid"),
    _row(nn.LogSigmoid, "log_sigmoid", keeps_layout=False),
    _row(nn.Tanh, "tanh", "Tanh"),
    _row(nn.Threshold, "threshold", "ThresholdedRelu"),
    _over_a_dimension(nn.GLU, "glu", keeps_shape=False),
    _over_a_dimension(nn.Softmax, "softmax", "Softmax", ignored=("_stacklevel",)),
    _over_a_dimension(nn.Softmin, "softmin", ignored=("_stacklevel",)),
    _over_a_dimension(nn.LogSoftmax, "log_softmax", "LogSoftmax", ignored=("_stacklevel",)),
)

FORMS = (
    *(activation.form for activation in ACTIVATIONS),
    Form(("clamp",), nn.Module, _clamp),
    Form(("clamp_min",), nn.ReLU, _clamp),
)
