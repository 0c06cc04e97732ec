"""Products: linear layers, einsum, matmul and its relatives."""

from fuzz.blocks.block import block
from fuzz.writer import Writer

WIDTHS = (6, 8, 12)


@block("vector", "sequence")
def linear(w: Writer) -> None:
    """A linear layer, called in every way."""
    out, x = w.rng.choice(WIDTHS), w.value.name
    layer = w.layer(f"nn.Linear({w.value.channels}, {out}, bias={w.coin(0.7)})", "fc")
    w.put(w.rng.choice((f"{layer}({x})", f"{layer}(input={x})", f"{layer}.forward({x})")), w.value.with_channels(out))


@block("vector", "sequence")
def mlp(w: Writer) -> None:
    """Two linear layers with an activation and dropout between them."""
    c, hidden = w.value.channels, w.rng.choice((8, 16))
    act = w.rng.choice(("nn.ReLU()", "nn.GELU()", "nn.SiLU()", "nn.Tanh()"))
    layer = w.layer(f"nn.Sequential(nn.Linear({c}, {hidden}), {act}, nn.Dropout(0.1), nn.Linear({hidden}, {c}))", "mlp")
    w.put(w.rng.choice(("{}({})", "{}({}) + {}", "{}({}).relu()")).format(layer, w.value.name, w.value.name))


@block("vector", "sequence")
def linear_functional(w: Writer) -> None:
    """A linear layer by its function."""
    c, out, x = w.value.channels, w.rng.choice(WIDTHS), w.value.name
    weight, bias = w.parameter(out, c), w.parameter(out)
    forms = (
        f"F.linear({x}, {weight}, {bias})",
        f"F.linear({x}, weight={weight})",
        f"torch.matmul({x}, {weight}.t()) + {bias}",
        f"{x} @ {weight}.T",
        f"F.linear(bias={bias}, input={x}, weight={weight})",
    )
    w.put(w.rng.choice(forms), w.value.with_channels(out))


@block("vector")
def mm(w: Writer) -> None:
    """Products of matrices."""
    n, c = w.value.shape
    out, x = w.rng.choice(WIDTHS), w.value.name
    weight, bias = w.parameter(c, out), w.parameter(out)
    forms = (
        f"torch.mm({x}, {weight})",
        f"torch.addmm({bias}, {x}, {weight})",
        f"torch.addmm({bias}, {x}, {weight}, beta=0.5, alpha=2)",
        f"{x}.mm({weight}).add({bias})",
        f"torch.tensordot({x}, {weight}, dims=([1], [0]))",
        f"torch.inner({x}, {weight}.T)",
        f"torch.linalg.multi_dot([{x}, {weight}, torch.diag({bias})])",
        f"torch.linalg.matmul({x}, {weight})",
        f"torch.stack([torch.mv({weight}.t(), row) for row in {x}.unbind(0)])",
    )
    w.put(w.rng.choice(forms), (n, out))


@block("sequence")
def einsum(w: Writer) -> None:
    """Einstein's summation."""
    n, s, e = w.value.shape
    out, x = w.rng.choice(WIDTHS), w.value.name
    if w.coin():
        w.put(f"torch.einsum('nse,fe->nsf', {x}, {w.parameter(out, e)})", (n, s, out))
    elif w.coin():
        w.put(f"torch.einsum('...e,ef->...f', {x}, {w.parameter(e, out)})", (n, s, out))
    else:
        w.put(f"torch.einsum('nse,nte,nts->nse', {x}, {x}, torch.einsum('nte,nse->nts', {x}, {x}).softmax(1))")


@block("sequence")
def bmm(w: Writer) -> None:
    """Products of batches of matrices."""
    n, s, e = w.value.shape
    x = w.value.name
    scores = w.rng.choice(
        (f"torch.bmm({x}, {x}.transpose(1, 2))", f"{x} @ {x}.mT", f"torch.matmul({x}, {x}.permute(0, 2, 1))")
    )
    scores = w.let(f"({scores} / {e}).softmax(-1)")
    bias = w.parameter(s, e)
    forms = (
        f"torch.bmm({scores}, {x})",
        f"torch.baddbmm({bias}.expand({n}, {s}, {e}), {scores}, {x}, beta=0.5)",
        f"torch.baddbmm({x}, {scores}, {x}, alpha=0.5)",
        f"{scores}.matmul({x})",
    )
    w.put(w.rng.choice(forms))


@block("vector", "sequence")
def bilinear(w: Writer) -> None:
    """A bilinear form of a value with itself."""
    c, out, x = w.value.channels, w.rng.choice(WIDTHS), w.value.name
    layer = w.layer(f"nn.Bilinear({c}, {c}, {out}, bias={w.coin()})", "bilinear")
    w.put(w.rng.choice((f"{layer}({x}, {x}.tanh())", f"torch.tanh({layer}({x}, {x}))")), w.value.with_channels(out))


@block("vector", "sequence")
def swiglu(w: Writer) -> None:
    """The feed-forward part of language models."""
    c, hidden, x = w.value.channels, w.rng.choice((8, 16)), w.value.name
    gate, up, down = (
        w.layer(f"nn.Linear({a}, {b}, bias=False)", name)
        for a, b, name in ((c, hidden, "gate"), (c, hidden, "up"), (hidden, c, "down"))
    )
    w.put(f"{x} + {down}(F.silu({gate}({x})) * {up}({x}))")


@block("sequence")
def parameter_as_activation(w: Writer) -> None:
    """A table of positions through a layer of its own."""
    _, s, e = w.value.shape
    table, layer = w.parameter(s, 4), w.layer(f"nn.Linear(4, {e})", "position")
    act = w.rng.choice(("{}", "torch.relu({})", "F.layer_norm({}, (" + str(e) + ",))"))
    w.put(f"{w.value.name} + {act.format(f'{layer}({table})')}")


@block("vector", "sequence")
def low_rank(w: Writer) -> None:
    """A layer with a learned update of its weight."""
    c, x = w.value.channels, w.value.name
    base = w.layer(f"nn.Linear({c}, {c})", "base")
    a, b = w.parameter(c, 2), w.parameter(2, c)
    w.put(w.rng.choice((f"{base}({x}) + {x} @ {a} @ {b}", f"F.linear({x}, {base}.weight + {a} @ {b}, {base}.bias)")))


@block("sequence", drawn=False, when=lambda w: w.embedding is not None and w.value.channels == w.embedding[2])
def tied_head(w: Writer) -> None:
    """Logits by the table of the embedding."""
    table, count, width = w.embedding  # type: ignore[misc]
    if w.coin():
        head = w.layer(f"nn.Linear({width}, {count}, bias=False)", "head")
        w.init.append(f"{head}.weight = {table}.weight")
        w.put(f"{head}({w.value.name})", w.value.with_channels(count))
    else:
        w.put(f"F.linear({w.value.name}, {table}.weight)", w.value.with_channels(count))
