"""Activations: computed element by element, and over a dimension."""

from torch import nn

from embedl_deploy.graph.forms.fixed_mode import FrozenRReLU, in_mode
from embedl_deploy.graph.forms.form import Call, Form, from_constructor, set_tensor


def _hardtanh(call: Call) -> nn.Module:
    low, high = call.setting("min_val"), call.setting("max_val")
    inplace = call.in_place or bool(call.setting("inplace"))
    if (low, high) == (0, 6):
        return nn.ReLU6(inplace)  # what torch.export makes of ReLU6
    return nn.Hardtanh(low, high, inplace=inplace)


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


FORMS = (
    from_constructor(nn.ReLU, "relu"),
    from_constructor(nn.ReLU6, "relu6"),
    Form(("hardtanh",), nn.Hardtanh, _hardtanh),
    from_constructor(nn.LeakyReLU, "leaky_relu"),
    Form(("rrelu",), nn.RReLU, _rrelu),
    Form(("prelu",), nn.PReLU, _prelu),
    from_constructor(nn.ELU, "elu"),
    from_constructor(nn.SELU, "selu"),
    from_constructor(nn.CELU, "celu"),
    from_constructor(nn.GELU, "gelu"),
    from_constructor(nn.SiLU, "silu"),
    from_constructor(nn.Mish, "mish"),
    from_constructor(nn.Hardswish, "hardswish"),
    from_constructor(nn.Hardsigmoid, "hardsigmoid"),
    from_constructor(nn.Hardshrink, "hardshrink"),
    from_constructor(nn.Softshrink, "softshrink"),
    from_constructor(nn.Tanhshrink, "tanhshrink"),
    from_constructor(nn.Softplus, "softplus"),
    from_constructor(nn.Softsign, "softsign"),
    from_constructor(nn.Sigmoid, "sigmoid"),
    from_constructor(nn.LogSigmoid, "log_sigmoid"),
    from_constructor(nn.Tanh, "tanh"),
    from_constructor(nn.Threshold, "threshold"),
    from_constructor(nn.GLU, "glu"),
    from_constructor(nn.Softmax, "softmax", ignored=("_stacklevel",)),
    from_constructor(nn.Softmin, "softmin", ignored=("_stacklevel",)),
    from_constructor(nn.LogSoftmax, "log_softmax", ignored=("_stacklevel",)),
)
