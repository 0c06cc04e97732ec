"""Parts that are used more than once, and weights that are one."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer


@block("vector", "sequence")
def called_twice(w: Writer) -> None:
    """One layer at two places."""
    c, x = w.value.channels, w.value.name
    layer = w.layer(f"nn.Linear({c}, {c})", "shared")
    w.put(
        w.rng.choice(
            (
                f"{layer}({layer}({x}).relu())",
                f"{layer}({x}) + {layer}({x} * 2)",
                f"torch.relu({layer}({x})) * {layer}({x})",
            )
        )
    )


@block("map1d", "map2d")
def conv_called_twice(w: Writer) -> None:
    """One convolution under two batch norms."""
    n, c, x = len(w.value.spatial), w.value.channels, w.value.name
    layer = w.layer(f"nn.Conv{n}d({c}, {c}, 3, padding=1)", "shared")
    norms = [w.layer(f"nn.BatchNorm{n}d({c})", "norm") for _ in range(2)]
    for norm in norms:
        w.init.append(f"nn.init.uniform_({norm}.running_var, 0.5, 2.0)")
    w.put(
        w.rng.choice(
            (
                f"{norms[1]}({layer}(torch.relu({norms[0]}({layer}({x})))))",
                f"{norms[0]}({layer}({x})) + {norms[1]}({layer}({x} + 1))",
            )
        )
    )


@block("vector", "sequence")
def tied_weights(w: Writer) -> None:
    """Two layers with one weight."""
    c, x = w.value.channels, w.value.name
    a, b = w.layer(f"nn.Linear({c}, {c})", "one"), w.layer(f"nn.Linear({c}, {c})", "two")
    w.init.append(w.rng.choice((f"{b}.weight = {a}.weight", f"{b}.weight, {b}.bias = {a}.weight, {a}.bias")))
    w.put(w.rng.choice((f"{b}({a}({x}).relu())", f"{a}({x}) - {b}({x}.tanh())", f"F.linear({b}({x}), {a}.weight)")))


@block("vector", "sequence")
def tied_transposed(w: Writer) -> None:
    """An autoencoder whose decoder is the encoder's transpose."""
    c, x = w.value.channels, w.value.name
    layer = w.layer(f"nn.Linear({c}, 6)", "encode")
    w.put(f"F.linear(torch.relu({layer}({x})), {layer}.weight.t(), {w.parameter(c)})")


@block("vector", "sequence")
def listed_layers(w: Writer) -> None:
    """Layers in a list or a dictionary, called in a loop."""
    c, x, y = w.value.channels, w.value.name, w.name("t")
    if w.coin():
        layers = w.layer(f"nn.ModuleList([nn.Linear({c}, {c}) for _ in range(2)])", "layers")
        w.line(f"{y} = {x}\nfor layer in {layers}:\n    {y} = torch.relu(layer({y}))")
    else:
        layers = w.layer(f"nn.ModuleDict({{'a': nn.Linear({c}, {c}), 'b': nn.GELU()}})", "layers")
        w.line(f"{y} = {layers}['b']({layers}['a']({x}))")
    w.put(y)


@block(*MAPS)
def block_called_twice(w: Writer) -> None:
    """A block of one's own class, called twice."""
    w.top(
        "class Unit(nn.Module):\n    def __init__(self, conv, norm, scale=1.0):\n        super().__init__()\n"
        "        self.conv, self.norm, self.scale = conv, norm, scale\n\n    def forward(self, x, *, twice=False):\n"
        "        y = torch.relu(self.norm(self.conv(x)))\n        return y * 2 if twice else y + x * self.scale"
    )
    n, c, x = len(w.value.spatial), w.value.channels, w.value.name
    unit = w.layer(f"Unit(nn.Conv{n}d({c}, {c}, 3, padding=1, bias=False), nn.BatchNorm{n}d({c}), scale=0.5)", "unit")
    w.put(w.rng.choice((f"{unit}({unit}({x}))", f"{unit}({x}) + {unit}({x}, twice=True)", f"{unit}({x}, twice=True)")))


@block("map2d", "map1d")
def norm_shared(w: Writer) -> None:
    """One batch norm behind two convolutions."""
    n, c, x = len(w.value.spatial), w.value.channels, w.value.name
    a, b = (w.layer(f"nn.Conv{n}d({c}, {c}, 1)", "conv") for _ in range(2))
    norm = w.layer(f"nn.BatchNorm{n}d({c})", "norm")
    w.init.append(f"nn.init.uniform_({norm}.running_var, 0.5, 2.0)")
    w.put(f"torch.relu({norm}({a}({x}))) + {norm}({b}({x}))")


@block("vector", "sequence")
def module_twice_registered(w: Writer) -> None:
    """One layer under two names."""
    c, x = w.value.channels, w.value.name
    a = w.layer(f"nn.Linear({c}, {c})", "first")
    b = w.layer(a, "alias")
    w.put(f"{b}({a}({x}).relu())")


@block("vector", "sequence")
def same_bias(w: Writer) -> None:
    """One parameter as a bias at two places."""
    c, x = w.value.channels, w.value.name
    bias, weight = w.parameter(c), w.parameter(c, c)
    w.put(f"F.linear(F.linear({x}, {weight}, {bias}).relu(), {weight}, {bias})")
