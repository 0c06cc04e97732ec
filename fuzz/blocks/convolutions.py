"""Convolutions of every rank, plain, transposed, functional, grouped, padded in every way."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer

CHANNELS = (4, 6, 8, 12)
_SIZED = {"when": lambda w: min(w.value.spatial) >= 4}


def rank(w: Writer) -> int:
    """How many axes a map has after its channels."""
    return len(w.value.spatial)


def convolution(w: Writer, *, out: int | None = None, plain: bool = False) -> tuple[str, tuple[int, ...]]:
    """Draw a convolution; returns its code, and the shape of what it gives."""
    channels = w.value.channels
    kernel, stride, dilation = w.rng.choice((1, 3)), w.rng.choice((1, 1, 2)), w.rng.choice((1, 1, 2))
    if min(w.value.spatial) < 5:
        dilation = 1
    padding: int | str = w.rng.choice((0, kernel // 2))
    out = out or w.rng.choice(CHANNELS)
    groups = w.rng.choice([g for g in (1, 1, 2, channels) if channels % g == 0 and out % g == 0])
    mode = "zeros"
    if plain:
        stride = dilation = groups = 1
        padding = kernel // 2
    elif w.coin(0.2):
        padding, stride = w.rng.choice(("same", "valid")), 1
    elif padding and w.coin(0.25):
        mode = w.rng.choice(("reflect", "replicate", "circular"))
    pad = {"same": dilation * (kernel - 1) / 2, "valid": 0}.get(padding, padding)  # type: ignore[call-overload]
    sizes = tuple(int((s + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1) for s in w.value.spatial)
    code = (
        f"nn.Conv{rank(w)}d({channels}, {out}, {kernel}, stride={stride}, padding={padding!r}, dilation={dilation}, "
        f"groups={groups}, bias={w.coin(0.7)}, padding_mode={mode!r})"
    )
    return code, (w.value.shape[0], out, *sizes)


@block(*MAPS, **_SIZED)
def conv(w: Writer) -> None:
    """A convolution."""
    code, shape = convolution(w)
    w.put(f"{w.layer(code, 'conv')}({w.value.name})", shape)


@block(*MAPS, **_SIZED)
def conv_by_keyword(w: Writer) -> None:
    """A convolution that gets its input by keyword."""
    code, shape = convolution(w)
    w.put(f"{w.layer(code, 'conv')}(input={w.value.name})", shape)


@block(*MAPS, **_SIZED)
def conv_norm_act(w: Writer) -> None:
    """The commonest fusion."""
    code, shape = convolution(w)
    conv = w.layer(code, "conv")
    norm = w.layer(f"nn.BatchNorm{rank(w)}d({shape[1]})", "norm")
    w.init.append(f"nn.init.uniform_({norm}.running_var, 0.5, 2.0)")
    w.init.append(f"nn.init.normal_({norm}.running_mean)")
    act = w.rng.choice(("torch.relu({})", "F.silu({})", "{}.relu_()", "F.hardswish({})", "F.relu6({})", "{}.tanh()"))
    w.put(act.format(f"{norm}({conv}({w.value.name}))"), shape)


@block(*MAPS, **_SIZED)
def conv_sum(w: Writer) -> None:
    """A residual block."""
    conv = w.layer(convolution(w, out=w.value.channels, plain=True)[0], "conv")
    x = w.value.name
    sums = (
        f"{conv}({x}) + {x}",
        f"{x} + {conv}({x})",
        f"torch.add({conv}({x}), {x}, alpha=2)",
        f"{conv}({x}).add_({x})",
    )
    act = w.rng.choice(("torch.relu({})", "{}", "F.relu({}, inplace=True)", "F.leaky_relu({}, 0.2)"))
    w.put(act.format(w.rng.choice(sums)))


@block(*MAPS, **_SIZED)
def conv_functional(w: Writer) -> None:
    """A convolution by its function, with parameters of the network."""
    out, n = w.rng.choice(CHANNELS), rank(w)
    weight = w.parameter(out, w.value.channels, *(3,) * n, scale=0.1)
    bias = w.rng.choice(("", f", bias={w.parameter(out)}"))
    call = w.rng.choice((f"F.conv{n}d", f"torch.conv{n}d"))
    w.put(f"{call}({w.value.name}, {weight}{bias}, padding=1)", (w.value.shape[0], out, *w.value.spatial))


@block(*MAPS)
def conv_transpose(w: Writer) -> None:
    """A transposed convolution."""
    channels, out = w.value.channels, w.rng.choice(CHANNELS)
    kernel, stride = w.rng.choice((2, 3)), w.rng.choice((1, 2)) if w.value.numel < 800 else 1
    groups = w.rng.choice([g for g in (1, 1, 2) if channels % g == 0 and out % g == 0])
    padding, dilation = w.rng.choice((0, 1)), w.rng.choice((1, 1, 2))
    extra = w.rng.choice((0, 1)) if stride == 2 else 0
    sizes = tuple((s - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1 for s in w.value.spatial)
    if min(sizes) < 1:
        padding, sizes = 0, tuple(s + 2 * padding for s in sizes)
    layer = w.layer(
        f"nn.ConvTranspose{rank(w)}d({channels}, {out}, {kernel}, stride={stride}, padding={padding}, "
        f"output_padding={extra}, groups={groups}, bias={w.coin()}, dilation={dilation})",
        "up",
    )
    call = f"{layer}({w.value.name})"
    if extra and w.coin(0.3):
        call = f"{layer}({w.value.name}, output_size={list(sizes)})"
    w.put(w.rng.choice(("{}", "torch.relu({})")).format(call), (w.value.shape[0], out, *sizes))


@block("map2d", when=lambda w: min(w.value.spatial) >= 4)
def depthwise_separable(w: Writer) -> None:
    """A depthwise and a pointwise convolution."""
    c, out = w.value.channels, w.rng.choice(CHANNELS)
    first = w.layer(f"nn.Conv2d({c}, {c}, 3, padding=1, groups={c}, bias=False)", "depthwise")
    second = w.layer(f"nn.Conv2d({c}, {out}, 1)", "pointwise")
    w.put(f"{second}(F.relu6({first}({w.value.name})))", (w.value.shape[0], out, *w.value.spatial))


@block("map2d")
def squeeze_excite(w: Writer) -> None:
    """A gate for each channel, from the mean of all."""
    c = w.value.channels
    down, up = w.layer(f"nn.Conv2d({c}, 2, 1)", "reduce"), w.layer(f"nn.Conv2d(2, {c}, 1)", "expand")
    x = w.value.name
    mean = w.rng.choice((f"F.adaptive_avg_pool2d({x}, 1)", f"{x}.mean((2, 3), keepdim=True)"))
    w.put(f"{x} * {up}(F.silu({down}({mean}))).sigmoid()")


@block("map2d", when=lambda w: min(w.value.spatial) >= 4)
def conv_subclass(w: Writer) -> None:
    """A class of one's own that computes its weight."""
    w.top(
        "class StandardizedConv2d(nn.Conv2d):\n    def forward(self, x):\n"
        "        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)\n"
        "        return F.conv2d(x, weight, self.bias, self.stride, self.padding)"
    )
    out = w.rng.choice(CHANNELS)
    layer = w.layer(f"StandardizedConv2d({w.value.channels}, {out}, 3, padding=1)", "conv")
    w.put(f"{layer}({w.value.name})", (w.value.shape[0], out, *w.value.spatial))


@block("map2d", when=lambda w: min(w.value.spatial) >= 4)
def padded_conv(w: Writer) -> None:
    """Padding of its own in front of a convolution."""
    c, out = w.value.channels, w.rng.choice(CHANNELS)
    n, _, height, width = w.value.shape
    pad = w.layer("nn.ZeroPad2d((0, 1, 1, 2))", "pad") if w.coin() else ""
    x = (
        f"{pad}({w.value.name})"
        if pad
        else f"F.pad({w.value.name}, (0, 1, 1, 2), {w.rng.choice(('value=0.0', 'value=1.0'))})"
    )
    layer = w.layer(f"nn.Conv2d({c}, {out}, 3)", "conv")
    w.put(f"{layer}({x})", (n, out, height + 1, width - 1))
