"""Activations as modules, functions, methods and in place; dropout."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer

MODULES = (
    *("nn.ReLU()", "nn.ReLU(inplace=True)", "nn.ReLU6()", "nn.GELU()", "nn.GELU(approximate='tanh')", "nn.SiLU()"),
    *("nn.Hardswish()", "nn.Hardsigmoid()", "nn.LeakyReLU(0.1)", "nn.ELU()", "nn.SELU()", "nn.CELU()", "nn.Mish()"),
    *("nn.Softplus()", "nn.Softsign()", "nn.Tanh()", "nn.Sigmoid()", "nn.LogSigmoid()", "nn.Tanhshrink()"),
    *("nn.Hardtanh(-0.5, 0.8)", "nn.PReLU()", "nn.Identity()", "nn.Softmax(dim=1)", "nn.LogSoftmax(dim=-1)"),
)
FUNCTIONS = (
    *("torch.relu({})", "F.relu({})", "F.gelu({})", "F.silu({})", "torch.sigmoid({})", "torch.tanh({})", "F.elu({})"),
    *(
        "F.softmax({}, dim=-1)",
        "torch.softmax({}, 1)",
        "F.hardswish({})",
        "F.mish({})",
        "F.softplus({})",
        "F.relu6({})",
    ),
    *("torch.clamp({}, min=-1, max=0.7)", "torch.maximum({0}, -{0})", "F.leaky_relu({}, 0.3)", "F.hardtanh({})"),
    *(
        "torch.where({0} > 0, {0}, 0.1 * {0})",
        "torch.exp(-{}.abs())",
        "{}.sign() * torch.log1p({}.abs())",
        "F.selu({})",
    ),
)
METHODS = (
    *("{}.relu()", "{}.sigmoid()", "{}.tanh()", "{}.clamp(0, 1.5)", "{}.softmax(-1)", "{}.abs()", "{}.clamp_min(-0.2)"),
    *("{}.square()", "{}.exp().log1p()", "{}.masked_fill({} < -1, -1.0)", "{}.sin()", "-{}", "2 - {}", "{} / 3"),
)
IN_PLACE = (
    *("{}.clone().relu_()", "F.relu({} * 1.5, inplace=True)", "({} + 1).clamp_(-1, 2)", "({} - 0.5).sigmoid_()"),
    *("F.elu({} + 0, inplace=True)", "({} * 2).tanh_()", "torch.relu_({} * 1.0)", "F.leaky_relu_({} + 0.1)"),
)


@block()
def activation_module(w: Writer) -> None:
    """A module."""
    code = w.rng.choice(MODULES)
    x = f"{w.value.name} + 0.0" if "inplace" in code else w.value.name  # values before it may be read again
    w.put(f"{w.layer(code, 'act')}({x})")


@block()
def activation_function(w: Writer) -> None:
    """A function."""
    x = w.value.name
    w.put(w.rng.choice(FUNCTIONS).format(x, x))


@block()
def activation_method(w: Writer) -> None:
    """A method or an operator."""
    x = w.value.name
    w.put(w.rng.choice(METHODS).format(x, x))


@block()
def activation_in_place(w: Writer) -> None:
    """In place, on a value of its own."""
    w.put(w.rng.choice(IN_PLACE).format(w.value.name))


@block(*MAPS)
def prelu_channels(w: Writer) -> None:
    """A slope for each channel."""
    w.put(f"{w.layer(f'nn.PReLU({w.value.channels}, init=0.2)', 'act')}({w.value.name})")


@block()
def dropout(w: Writer) -> None:
    """Dropout as a module and as a function."""
    layer = w.layer(w.rng.choice(("nn.Dropout(0.3)", "nn.AlphaDropout(0.2)")), "drop")
    x = w.value.name
    forms = (f"{layer}({x})", f"F.dropout({x}, 0.2, training=self.training)", f"F.dropout({x}, 0.2, self.training)")
    w.put(w.rng.choice(forms))


@block("sequence", "vector", when=lambda w: w.value.channels % 2 == 0 and w.value.channels > 4)
def gated(w: Writer) -> None:
    """Half of the features gate the others."""
    half = w.value.channels // 2
    x = w.value.name
    if w.coin():
        w.put(f"F.glu({x}, dim=-1)", w.value.with_channels(half))
    else:
        a, b = w.name("a"), w.name("b")
        w.line(f"{a}, {b} = {x}.chunk(2, dim=-1)")
        w.put(f"F.silu({a}) * {b}", w.value.with_channels(half))
