"""Buffers that are read, counted and averaged; constants."""

from fuzz.blocks.block import block
from fuzz.writer import Writer


def _channelwise(w: Writer) -> str:
    """The shape that broadcasts along the channels, as source."""
    after = len(w.value.shape) - w.value.channel_axis - 1
    return ", ".join([str(w.value.channels), *("1",) * after])


@block()
def buffer_read(w: Writer) -> None:
    """Means and deviations that are given."""
    mean = w.buffer(f"torch.randn({_channelwise(w)})", "mean", w.coin())
    std = w.buffer(f"torch.rand({_channelwise(w)}) + 0.5", "std", w.coin())
    w.put(f"({w.value.name} - {mean}) / {std}")


@block()
def buffer_counted(w: Writer) -> None:
    """A counter of calls."""
    count = w.buffer("torch.zeros((), dtype=torch.long)", "calls")
    w.line(w.rng.choice((f"{count} += 1", f"{count}.add_(1)")))
    w.put(f"{w.value.name} + {count} * 0.125")


@block()
def running_mean(w: Writer) -> None:
    """An average that is kept in training."""
    axes = tuple(i for i in range(len(w.value.shape)) if i != w.value.channel_axis)
    mean = w.buffer(f"torch.zeros({_channelwise(w)})", "average")
    x = w.value.name
    update = w.rng.choice(
        (
            f"{mean}.mul_(0.9).add_(0.1 * {x}.detach().mean({axes}).view_as({mean}))",
            f"{mean} = 0.9 * {mean} + 0.1 * {x}.detach().mean({axes}).view_as({mean})",
        )
    )
    w.line(f"if self.training:\n    {update}")
    w.put(f"{x} - {mean}")


@block()
def constant(w: Writer) -> None:
    """Constants that are made in forward."""
    c, x = w.value.channels, w.value.name
    shape = _channelwise(w)
    forms = (
        f"{x} * torch.tensor([1.5], dtype={x}.dtype)",
        f"{x} + torch.arange({c}, dtype=FLOAT).view({shape})",
        f"{x} * torch.ones({shape}, dtype={x}.dtype)",
        f"{x} + torch.zeros_like({x})",
        f"{x} * torch.linspace(0.5, 1.5, {c}, dtype=FLOAT).reshape({shape})",
        f"torch.full_like({x}, 0.25) + {x}",
        f"{x} * math.pi",
    )
    w.put(w.rng.choice(forms))


@block()
def attribute(w: Writer) -> None:
    """Numbers and tensors that are plain attributes."""
    number = w.layer("1.25", "gain")
    tensor = w.layer("torch.full((), 0.5, dtype=FLOAT)", "plain")
    w.put(w.rng.choice((f"{w.value.name} * {number}", f"{w.value.name} + {tensor}")))


@block()
def scale_parameter(w: Writer) -> None:
    """A scale for each channel, as LayerScale has it, or one for all."""
    axis = w.value.channel_axis
    after = (1,) * (len(w.value.shape) - axis - 1)
    gamma = w.parameter(w.value.channels, *after, scale=1.0) if w.coin() else w.parameter(1, scale=1.0)
    w.put(f"{w.value.name} * {gamma}")
