"""Further inputs in every way that Python has: optional, keyword-only, any number, integers, structures."""

from fuzz.blocks.block import block
from fuzz.writer import Writer


def _like(w: Writer) -> str:
    """An example as large as the value, as source."""
    return f"torch.randn({', '.join(map(str, w.value.shape))}, generator=g, dtype=FLOAT)"


@block()
def second_input(w: Writer) -> None:
    """A second input of the same shape."""
    name = w.input(_like(w), "other")
    w.put(w.rng.choice((f"{w.value.name} + {name}", f"{w.value.name} * torch.sigmoid({name})")))


@block()
def optional_keyword(w: Writer) -> None:
    """A keyword input that is None by default; given or not."""
    name = w.name("bias")
    w.keyword_only.append(f"{name}=None")
    if w.coin():
        w.kwargs.append(f"{name!r}: {_like(w)}")
    x = w.value.name
    w.line(f"if {name} is not None:\n    {x} = {x} + {name}")
    w.put(f"{x} * 0.5")


@block(when=lambda w: not w.variadic)
def optional_positional(w: Writer) -> None:
    """A positional input with a default, not given."""
    name = w.name("scale")
    default = w.rng.choice(("None", "2.0", "True"))
    w.keyword_only.append(f"{name}={default}")
    x = w.value.name
    test = {
        "None": f"{x} if {name} is None else {x} * {name}",
        "2.0": f"{x} * {name}",
        "True": f"{x}.relu() if {name} else {x}",
    }
    w.put(test[default])


@block()
def keyword_only(w: Writer) -> None:
    """A keyword input without a default."""
    name = w.name("gate")
    w.keyword_only.append(name)
    w.kwargs.append(f"{name!r}: {_like(w)}")
    w.put(f"{w.value.name} * {name}")


@block(when=lambda w: not w.variadic_keywords)
def any_keywords(w: Writer) -> None:
    """Keyword inputs that forward does not name."""
    w.variadic_keywords = "options"
    x = w.value.name
    if w.coin():
        w.kwargs.append(f"'shift': {_like(w)}")
    w.line(f"if 'shift' in options:\n    {x} = {x} + options['shift']")
    w.put(f"{x} * options.get('factor', 1.5)")


@block(when=lambda w: not w.keyword_only and not w.kwargs and not w.variadic)
def structured_input(w: Writer) -> None:
    """A tuple or a dictionary as an input."""
    x = w.value.name
    if w.coin():
        name = w.input(f"({_like(w)}, {_like(w)})", "pair")
        w.put(f"{x} + {name}[0] - {name}[1]")
    else:
        name = w.input(f"{{'a': {_like(w)}}}", "batch")
        w.put(f"{x} + {name}['a']")


@block("sequence", "vector")
def integer_input(w: Writer) -> None:
    """Classes, embedded and added."""
    e, n = w.value.channels, w.value.shape[0]
    labels = w.input(f"torch.randint(0, 5, ({n},), generator=g)", "labels")
    table = w.layer(f"nn.Embedding(5, {e})", "classes")
    unsqueeze = ".unsqueeze(1)" if w.value.kind == "sequence" else ""
    w.put(f"{w.value.name} + {table}({labels}){unsqueeze}")


@block("sequence")
def mask_input(w: Writer) -> None:
    """A mask over steps, for a mean over those that are there."""
    n, s, e = w.value.shape
    mask = w.input(f"torch.arange({s}) < torch.randint(1, {s}, ({n}, 1), generator=g)", "mask")
    m = w.let(f"{mask}.unsqueeze(-1).to({w.value.name}.dtype)")
    w.put(f"({w.value.name} * {m}).sum(1) / {m}.sum(1).clamp(min=1)", (n, e), "vector")


@block(when=lambda w: not w.variadic and not w.keyword_only and not w.kwargs)
def any_number(w: Writer) -> None:
    """Any number of inputs after those that are named."""
    x = w.value.name
    names = [_like(w) for _ in range(w.rng.choice((1, 2)))]
    w.variadic = "rest"
    w.rest.extend(names)
    w.line(f"for item in rest:\n    {x} = {x} + item")
    w.put(f"{x} / (1 + len(rest))")


@block("sequence", when=lambda w: w.value.shape[1] <= 64)
def positions(w: Writer) -> None:
    """Learned positions, looked up."""
    _, s, e = w.value.shape
    table = w.layer(f"nn.Embedding(64, {e})", "positions")
    x = w.value.name
    index = w.buffer("torch.arange(64)", "index", persistent=False)
    w.put(
        w.rng.choice(
            (
                f"{x} + {table}(torch.arange({s}))",
                f"{x} + {table}({index}[:{s}])",
                f"{x} + {table}.weight[:{s}]",
                f"{x} + {table}(torch.arange({x}.size(1), device={x}.device))",
            )
        )
    )
