"""Parts in other number types."""

from fuzz.blocks.block import block
from fuzz.writer import Writer


@block()
def half_part(w: Writer) -> None:
    """A few operations in 16 bits."""
    w.halves = True
    x = w.value.name
    dtype = w.rng.choice(("torch.bfloat16", "torch.float16"))
    inner = w.rng.choice(("({} * 0.5)", "torch.relu({})", "{}.sigmoid()", "({} + 1)"))
    w.put(f"{inner.format(f'{x}.to({dtype})')}.to(FLOAT)")


@block("vector", "sequence", when=lambda w: w.dtype == "torch.float32")
def autocast_part(w: Writer) -> None:
    """A product in bfloat16 by autocast."""
    w.halves = True
    c = w.value.channels
    layer, y = w.layer(f"nn.Linear({c}, {c})", "fc"), w.name("t")
    w.line(f"with torch.autocast('cpu', dtype=torch.bfloat16):\n    {y} = {layer}({w.value.name})")
    w.put(f"{y}.to(FLOAT)")


@block("vector", "sequence", when=lambda w: w.dtype == "torch.float32")
def wide_part(w: Writer) -> None:
    """A product in float64."""
    c, out = w.value.channels, 6
    layer = w.layer(f"nn.Linear({c}, {out}, dtype=torch.float64)", "wide")
    w.put(f"{layer}({w.value.name}.double()).float()", w.value.with_channels(out))


@block()
def comparison(w: Writer) -> None:
    """Booleans and integers on the way."""
    x = w.value.name
    forms = (
        f"{x} * ({x} > 0)",
        f"torch.where({x}.abs() > 0.5, {x}, torch.zeros_like({x}))",
        f"{x} + ({x} > 10).to(torch.int32) * 2",
        f"{x}.masked_fill({x}.isnan(), 0.0)",
    )
    w.put(w.rng.choice(forms))


@block("vector", when=lambda w: w.dtype == "torch.float32")
def disabled_autocast(w: Writer) -> None:
    """A product that must not be in 16 bits."""
    c = w.value.channels
    layer, y = w.layer(f"nn.Linear({c}, {c})", "fc"), w.name("t")
    w.line(f"with torch.autocast('cpu', enabled=False):\n    {y} = {layer}({w.value.name}.float())")
    w.put(f"{y} + 0")
