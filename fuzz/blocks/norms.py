"""Normalization of every kind."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer


def _liven(w: Writer, norm: str) -> str:
    """Weights that are not all one and biases that are not all zero, so that a lost one shows."""
    w.init.append(f"nn.init.uniform_({norm}.weight, 0.5, 1.5)")
    return norm


@block("vector", *MAPS)
def batch_norm(w: Writer) -> None:
    """Batch norm, with and without its options."""
    n = max(1, len(w.value.spatial))
    options = w.rng.choice(("", ", affine=False", ", momentum=None", ", track_running_stats=False", ", eps=1e-3"))
    norm = w.layer(f"nn.BatchNorm{n}d({w.value.channels}{options})", "norm")
    if "affine" not in options:
        _liven(w, norm)
        w.init.append(f"nn.init.normal_({norm}.bias)")
    if "track" not in options:
        w.init.append(f"nn.init.uniform_({norm}.running_var, 0.5, 2.0)")
    w.put(f"{norm}({w.value.name})")


@block("vector", *MAPS)
def batch_norm_functional(w: Writer) -> None:
    """Batch norm by its function, with buffers of the network."""
    c = w.value.channels
    mean, var = w.buffer(f"torch.randn({c})", "mean"), w.buffer(f"torch.rand({c}) + 0.5", "var")
    training = w.rng.choice(("self.training", "False"))
    affine = w.rng.choice(("", f", weight={w.parameter(c)}, bias={w.parameter(c)}"))
    w.put(f"F.batch_norm({w.value.name}, {mean}, {var}{affine}, training={training})")


@block("vector", "sequence")
def layer_norm(w: Writer) -> None:
    """Layer norm over features."""
    c = w.value.channels
    options = w.rng.choice(("", ", bias=False", ", eps=1e-3"))
    norm = _liven(w, w.layer(f"nn.LayerNorm({c}{options})", "norm"))
    w.put(f"{norm}({w.value.name})")


@block("vector", "sequence")
def layer_norm_functional(w: Writer) -> None:
    """Layer norm by its function."""
    c = w.value.channels
    affine = w.rng.choice(("", f", {w.parameter(c)}, {w.parameter(c)}"))
    w.put(f"F.layer_norm({w.value.name}, ({c},){affine})")


@block("map2d")
def layer_norm_channels(w: Writer) -> None:
    """Layer norm over the channels of a map, as ConvNeXt has it."""
    norm = _liven(w, w.layer(f"nn.LayerNorm({w.value.channels})", "norm"))
    w.put(f"{norm}({w.value.name}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)")


@block("vector", "sequence")
def rms_norm(w: Writer) -> None:
    """Root mean square norm: the module, the function, by hand."""
    c, x = w.value.channels, w.value.name
    norm = _liven(w, w.layer(f"nn.RMSNorm({c}, eps=1e-6)", "norm"))
    weight = w.parameter(c)
    forms = (
        f"{norm}({x})",
        f"F.rms_norm({x}, ({c},), {weight})",
        f"{weight} * {x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-6)",
    )
    w.put(w.rng.choice(forms))


@block(*MAPS)
def group_norm(w: Writer) -> None:
    """Group norm."""
    c = w.value.channels
    norm = _liven(w, w.layer(f"nn.GroupNorm({w.divisor(c)}, {c})", "norm"))
    w.put(f"{norm}({w.value.name})")


@block(*MAPS, when=lambda w: min(w.value.spatial) >= 2)
def instance_norm(w: Writer) -> None:
    """Instance norm, with and without statistics."""
    options = w.rng.choice(("", ", affine=True", ", affine=True, track_running_stats=True"))
    norm = w.layer(f"nn.InstanceNorm{len(w.value.spatial)}d({w.value.channels}{options})", "norm")
    w.put(f"{norm}({w.value.name})")


@block(*MAPS)
def local_response_norm(w: Writer) -> None:
    """Across channels, as AlexNet had it."""
    layer = w.layer("nn.LocalResponseNorm(3, alpha=1e-2)", "norm")
    w.put(f"{layer}({w.value.name}.contiguous())")  # torch's own needs it in three dimensions


@block()
def norm_by_hand(w: Writer) -> None:
    """Mean and variance written out."""
    axis, x = w.value.channel_axis, w.value.name
    mean = w.let(f"{x}.mean({axis}, keepdim=True)")
    var = w.let(f"({x} - {mean}).pow(2).mean({axis}, keepdim=True)")
    w.put(f"({x} - {mean}) / torch.sqrt({var} + 1e-3)")


@block("vector", "sequence")
def normalize(w: Writer) -> None:
    """To length one."""
    w.put(f"F.normalize({w.value.name}, dim=-1)")
