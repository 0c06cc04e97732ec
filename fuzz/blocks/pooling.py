"""Pooling, upsampling, and the ways from maps to sequences and vectors."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer

_SIZED = {"when": lambda w: min(w.value.spatial) >= 4}


@block(*MAPS, **_SIZED)
def pool(w: Writer) -> None:
    """Pooling over windows."""
    n, x = len(w.value.spatial), w.value.name
    ceil = w.coin(0.3)
    sizes = tuple((s + 1) // 2 if ceil else s // 2 for s in w.value.spatial)
    kind = w.rng.choice(("Max", "Avg"))
    if w.coin():
        code = f"{w.layer(f'nn.{kind}Pool{n}d(2, ceil_mode={ceil})', 'pool')}({x})"
    else:
        code = f"F.{kind.lower()}_pool{n}d({x}, 2, ceil_mode={ceil})"
    w.put(code, (*w.value.shape[:2], *sizes))


@block(*MAPS, **_SIZED)
def pool_overlapping(w: Writer) -> None:
    """Windows that overlap, padded."""
    n = len(w.value.spatial)
    option = w.rng.choice(("", ", count_include_pad=False"))
    layer = w.rng.choice((f"nn.MaxPool{n}d(3, 1, 1)", f"nn.AvgPool{n}d(3, 1, 1{option})"))
    w.put(f"{w.layer(layer, 'pool')}({w.value.name})")


@block(*MAPS)
def pool_adaptive(w: Writer) -> None:
    """To a size that is given."""
    n, x = len(w.value.spatial), w.value.name
    size = w.rng.choice((1, 2, 3))
    shape = (*w.value.shape[:2], *(size,) * n)
    kind = w.rng.choice(("Avg", "Max"))
    if w.coin():
        w.put(f"{w.layer(f'nn.Adaptive{kind}Pool{n}d({size})', 'pool')}({x})", shape)
    else:
        w.put(f"F.adaptive_{kind.lower()}_pool{n}d({x}, {size})", shape)


@block("map2d", "map1d", when=lambda w: w.value.numel < 1200)
def upsample(w: Writer) -> None:
    """Interpolation to twice the size."""
    linear = "linear" if w.value.kind == "map1d" else "bilinear"
    x, sizes = w.value.name, tuple(2 * s for s in w.value.spatial)
    forms = (
        f"F.interpolate({x}, scale_factor=2)",
        f"F.interpolate({x}, size={sizes!r}, mode={linear!r}, align_corners=False)",
        f"{w.layer(f'nn.Upsample(scale_factor=2, mode={linear!r}, align_corners=True)', 'up')}({x})",
    )
    w.put(w.rng.choice(forms), (*w.value.shape[:2], *sizes))


@block(*MAPS)
def to_vector(w: Writer) -> None:
    """Global pooling, in every spelling."""
    n, x = len(w.value.spatial), w.value.name
    axes = tuple(range(2, 2 + n))
    forms = (
        f"{x}.mean({axes})",
        f"F.adaptive_avg_pool{n}d({x}, 1).flatten(1)",
        f"torch.amax({x}, dim={axes})",
        f"{w.layer(f'nn.AdaptiveAvgPool{n}d(1)', 'pool')}({x}).reshape({x}.shape[0], -1)",
    )
    w.put(w.rng.choice(forms), w.value.shape[:2], "vector")


@block("sequence")
def sequence_to_vector(w: Writer) -> None:
    """One vector for a sequence."""
    x = w.value.name
    forms = (f"{x}.mean(1)", f"{x}[:, 0]", f"{x}[:, -1, :]", f"{x}.max(dim=1).values", f"{x}.sum(dim=1)")
    w.put(w.rng.choice(forms), (w.value.shape[0], w.value.channels), "vector")


@block(*MAPS)
def to_sequence(w: Writer) -> None:
    """Places of a map become steps of a sequence."""
    x = w.value.name
    steps = w.value.numel // (w.value.shape[0] * w.value.channels)
    w.put(f"{x}.flatten(2).transpose(1, 2)", (w.value.shape[0], steps, w.value.channels), "sequence")


@block("sequence")
def sequence_to_map(w: Writer) -> None:
    """Steps become places of a map of one axis."""
    n, s, e = w.value.shape
    w.put(w.rng.choice(("{}.transpose(1, 2)", "{}.permute(0, 2, 1)", "{}.mT")).format(w.value.name), (n, e, s), "map1d")


@block("vector")
def vector_to_map(w: Writer) -> None:
    """A vector, spread over a small map."""
    n, e = w.value.shape
    out = w.rng.choice((3, 4))
    layer = w.layer(f"nn.Linear({e}, {out * 25})", "spread")
    w.put(f"{layer}({w.value.name}).view(-1, {out}, 5, 5)", (n, out, 5, 5), "map2d")


@block(drawn=False)
def shrink(w: Writer) -> None:
    """Keeps large values small."""
    x, kind = w.value.name, w.value.kind
    if kind in ("map1d", "map2d", "map3d"):
        n = len(w.value.spatial)
        size = {1: 9, 2: 5, 3: 4}[n]
        layer = w.layer(f"nn.Conv{n}d({w.value.channels}, 4, 1)", "shrink")
        w.put(f"F.adaptive_avg_pool{n}d({layer}({x}), {size})", (w.value.shape[0], 4, *(size,) * n))
    elif kind == "sequence":
        layer = w.layer(f"nn.Linear({w.value.channels}, 8)", "shrink")
        steps = min(w.value.shape[1], 6)
        w.put(f"{layer}({x}[:, :{steps}])", (w.value.shape[0], steps, 8))
    else:
        w.put(f"{w.layer(f'nn.Linear({w.value.channels}, 8)', 'shrink')}({x})", (w.value.shape[0], 8))
