"""Residuals, concatenation, splitting, and every way to move axes about."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer


def _alike(w: Writer) -> list[str]:
    """Earlier values of the same shape."""
    return [v.name for v in w.history if v.shape == w.value.shape and v.kind == w.value.kind and v.name != "ids"]


@block(when=lambda w: bool(_alike(w)))
def residual(w: Writer) -> None:
    """The sum with an earlier value."""
    x, other = w.value.name, w.rng.choice(_alike(w))
    w.put(
        w.rng.choice(
            (f"{x} + {other}", f"torch.add({other}, {x})", f"{other}.add({x}, alpha=0.5)", f"{x} * 0.5 + {other}")
        )
    )


@block()
def concatenated(w: Writer) -> None:
    """Channels of two values after one another."""
    x, axis, c = w.value.name, w.value.channel_axis, w.value.channels
    other = w.rng.choice([*_alike(w), f"{x}.tanh()"])
    call = w.rng.choice(
        ("torch.cat([{0}, {1}], dim={2})", "torch.cat(({1}, {0}), {2})", "torch.concat([{0}, {1}], {2})")
    )
    w.put(call.format(x, other, axis), w.value.with_channels(2 * c))


@block(when=lambda w: w.value.channels % 2 == 0)
def split(w: Writer) -> None:
    """Two halves of the channels, changed and put together."""
    x, axis, half = w.value.name, w.value.channel_axis, w.value.channels // 2
    a, b = w.name("a"), w.name("b")
    cut = w.rng.choice(
        (
            "{x}.chunk(2, {axis})",
            "torch.split({x}, {half}, dim={axis})",
            "{x}.split([{half}, {half}], {axis})",
            "torch.chunk({x}, 2, dim={axis})",
        )
    )
    w.line(f"{a}, {b} = {cut.format(x=x, axis=axis, half=half)}")
    w.put(w.rng.choice((f"torch.cat([{b}.relu(), {a}], {axis})", f"torch.cat([{a} * {b}, {b}], dim={axis})")))


@block()
def stacked(w: Writer) -> None:
    """Values on an axis of their own, and back."""
    x = w.value.name
    y = w.let(f"torch.stack([{x}, {x} * 2], dim=0)")
    w.put(w.rng.choice((f"{y}.mean(0)", f"{y}.unbind(0)[1]", f"{y}[1] - {y}[0]", f"torch.sum({y}, dim=0)")))


@block("map2d", "map3d")
def transposed_axes(w: Writer) -> None:
    """The last two axes change places."""
    x, s = w.value.name, w.value.shape
    n = len(s)
    order = (*range(n - 2), n - 1, n - 2)
    shape = tuple(s[i] for i in order)
    w.put(
        w.rng.choice((f"{x}.transpose(-1, -2)", f"{x}.permute{order}", f"torch.permute({x}, {order}).contiguous()")),
        shape,
    )


@block("map2d", when=lambda w: w.value.spatial[0] % 2 == 0 and w.value.spatial[1] % 2 == 0)
def windows(w: Writer) -> None:
    """Windows of a map become channels, as einops would write it."""
    n, c, h, v = w.value.shape
    x = w.value.name
    if w.coin():
        w.put(f"F.pixel_unshuffle({x}, 2)", (n, 4 * c, h // 2, v // 2))
    else:
        w.put(
            f"{x}.reshape({n}, {c}, {h // 2}, 2, {v // 2}, 2).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)",
            (n, 4 * c, h // 2, v // 2),
        )


@block("map2d", when=lambda w: w.value.channels % 4 == 0)
def pixel_shuffle(w: Writer) -> None:
    """Channels become places."""
    n, c, h, v = w.value.shape
    w.put(f"F.pixel_shuffle({w.value.name}, 2)", (n, c // 4, 2 * h, 2 * v))


@block("map2d", when=lambda w: w.value.channels % 2 == 0)
def channel_shuffle(w: Writer) -> None:
    """Channels of groups change places."""
    n, c, h, v = w.value.shape
    x = w.value.name
    w.put(f"{x}.view({n}, 2, {c // 2}, {h}, {v}).transpose(1, 2).reshape({n}, {c}, {h}, {v})")


@block("sequence", *MAPS)
def moved(w: Writer) -> None:
    """Rolls, flips and slices that keep the shape."""
    x = w.value.name
    forms = (
        f"torch.roll({x}, 1, dims=1)",
        f"{x}.flip(-1)",
        f"torch.roll({x}, shifts=(1, -1), dims=(1, 2))",
        f"torch.cat([{x}[:, 1:], {x}[:, :1]], dim=1)",
        f"{x}[:, torch.arange({w.value.shape[1]} - 1, -1, -1)]",
    )
    w.put(w.rng.choice(forms))


@block()
def there_and_back(w: Writer) -> None:
    """Axes that come and go."""
    x = w.value.name
    forms = (
        f"{x}.unsqueeze(1).squeeze(1)",
        f"{x}[None][0]",
        f"{x}[:, None].expand(-1, 2, {'-1, ' * (len(w.value.shape) - 1)}).mean(1)",
        f"{x}.contiguous()",
        f"{x}[..., None].sum(-1)",
        f"{x}.repeat(1, {'1, ' * (len(w.value.shape) - 1)})",
        f"{x}.movedim(0, -1).movedim(-1, 0)",
    )
    w.put(w.rng.choice(forms))


@block("sequence")
def class_token(w: Writer) -> None:
    """A learned first step."""
    n, s, e = w.value.shape
    token = w.parameter(1, 1, e)
    w.put(f"torch.cat([{token}.expand({n}, -1, -1), {w.value.name}], dim=1)", (n, s + 1, e))


@block()
def reduced(w: Writer) -> None:
    """A statistic of all, taken off or multiplied."""
    x, axis = w.value.name, w.value.channel_axis
    forms = (
        f"{x} - {x}.mean()",
        f"{x} - {x}.amax({axis}, keepdim=True)",
        f"{x} / ({x}.abs().sum({axis}, keepdim=True) + 1)",
        f"{x} - torch.logsumexp({x}, dim={axis}, keepdim=True)",
        f"{x}.cumsum({axis}) / {w.value.channels}",
        f"{x} * {x}.std({axis}, keepdim=True).clamp(min=0.1)",
    )
    w.put(w.rng.choice(forms))
