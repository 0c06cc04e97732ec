"""Values and views that are written in place, and out=."""

from fuzz.blocks.block import MAPS, block
from fuzz.writer import Writer


@block("sequence", *MAPS)
def view_written(w: Writer) -> None:
    """A part of a copy is written."""
    x = w.value.name
    y = w.let(w.rng.choice((f"{x}.clone()", f"{x} * 1.0", f"{x} + 0.25")))
    writes = [
        f"{y}[:, :2] += 1",
        f"{y}[:, 1:] *= 0.5",
        f"{y}[..., 0] = 0.0",
        f"{y}[:, :1].mul_(2)",
        f"{y}[:, 0].zero_()",
        f"{y}[:, ::2] = {x}[:, ::2] - 1",
    ]
    if w.value.shape[1] > 1:
        writes += [f"{y}.select(1, 1).add_(0.5)", f"{y}.narrow(1, 0, 2).neg_()"]
    w.line(w.rng.choice(writes))
    w.put(w.rng.choice((f"{y}", f"{y} + {x}")))


@block()
def written_in_place(w: Writer) -> None:
    """The whole of a copy is written, and a view of it is read."""
    x = w.value.name
    y = w.let(f"{x} * 0.5")
    z = w.let(f"{y}.view({y}.shape)") if w.coin() else y
    w.line(
        w.rng.choice(
            (f"{y}.add_({x})", f"{y} += 1", f"{y} *= {x}.sigmoid()", f"{y}.copy_({x}.tanh())", f"{y}.fill_(0.5)")
        )
    )
    w.put(f"{z} + {x}")


@block()
def out_argument(w: Writer) -> None:
    """A result that is written to a place; not for gradients."""
    x = w.value.name
    place = w.let(f"torch.empty_like({x}.detach())")
    w.line(w.rng.choice((f"torch.mul({x}.detach(), 0.5, out={place})", f"torch.sigmoid({x}.detach(), out={place})")))
    w.put(f"{x} + {place}")


@block("vector", "sequence")
def written_between_layers(w: Writer) -> None:
    """What a layer gives is changed before the next layer reads it."""
    c = w.value.channels
    first, second = w.layer(f"nn.Linear({c}, {c})", "fc"), w.layer(f"nn.Linear({c}, {c})", "fc")
    y = w.let(f"{first}({w.value.name})")
    w.line(w.rng.choice((f"{y} += 0.5", f"{y}.relu_()", f"{y}[..., :2] *= 3", f"F.relu({y}, inplace=True)")))
    w.put(f"{second}({y})")


@block("map2d")
def patch_written(w: Writer) -> None:
    """Parts of an empty map are filled one by one."""
    x = w.value.name
    y = w.let(f"torch.zeros_like({x})")
    w.line(f"{y}[:, :, 1:] = {x}[:, :, :-1]\n{y}[:, :, :1] = {x}[:, :, -1:]")
    w.put(f"{y} - {x}")


@block("sequence")
def scattered(w: Writer) -> None:
    """Rows go to places that are given."""
    _, s, _ = w.value.shape
    index = w.buffer(f"torch.arange({s}).flip(0)", "index")
    x = w.value.name
    forms = (
        f"{x}.index_select(1, {index})",
        f"{x}[:, {index}]",
        f"torch.zeros_like({x}).index_add(1, {index}, {x})",
        f"torch.gather({x}, 1, {index}.view(1, -1, 1).expand_as({x}))",
    )
    w.put(w.rng.choice(forms))
