"""Recurrent layers."""

from fuzz.blocks.block import block
from fuzz.writer import Writer

_SHORT = {"when": lambda w: w.value.shape[1] <= 32}


@block("sequence", **_SHORT)
def recurrent(w: Writer) -> None:
    """LSTM, GRU and RNN, in one or both directions."""
    n, s, e = w.value.shape
    cell, hidden, both = w.rng.choice(("LSTM", "GRU", "RNN")), w.rng.choice((4, 6)), w.coin(0.3)
    layer = w.layer(
        f"nn.{cell}({e}, {hidden}, num_layers={w.rng.choice((1, 1, 2))}, batch_first=True, bidirectional={both}, "
        f"bias={w.coin(0.8)})",
        "rnn",
    )
    width, x = hidden * (2 if both else 1), w.value.name
    out = w.name("t")
    w.line(w.rng.choice((f"{out}, _ = {layer}({x})", f"{out} = {layer}({x})[0]")))
    w.put(out, (n, s, width))


@block("sequence", **_SHORT)
def last_state(w: Writer) -> None:
    """The state that a recurrent layer ends with, from one that is given."""
    n, _, e = w.value.shape
    layer = w.layer(f"nn.GRU({e}, 6, batch_first=True)", "rnn")
    first = f", torch.zeros(1, {n}, 6, dtype=FLOAT)" if w.coin() else ""
    w.put(f"{layer}({w.value.name}{first})[1].squeeze(0)", (n, 6), "vector")


@block("sequence", **_SHORT)
def projected_lstm(w: Writer) -> None:
    """An LSTM whose outputs are projected."""
    n, s, e = w.value.shape
    layer = w.layer(f"nn.LSTM({e}, 6, proj_size=4, batch_first=True)", "rnn")
    w.put(f"{layer}({w.value.name})[0]", (n, s, 4))


@block("sequence", when=lambda w: w.value.shape[1] <= 9)
def cell_in_loop(w: Writer) -> None:
    """A cell, called once for each step: one layer at many places."""
    n, s, e = w.value.shape
    cell = w.layer(f"nn.GRUCell({e}, 6)", "cell")
    state, steps, x = w.name("state"), w.name("steps"), w.value.name
    w.line(f"{state}, {steps} = {x}.new_zeros({n}, 6), []")
    w.line(f"for step in range({s}):\n    {state} = {cell}({x}[:, step], {state})\n    {steps}.append({state})")
    w.put(f"torch.stack({steps}, dim=1)", (n, s, 6))
