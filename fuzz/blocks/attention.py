"""Attention in every form, with every kind of mask."""

from fuzz.blocks.block import block
from fuzz.writer import Writer

_FEW = {"when": lambda w: w.value.shape[1] <= 32 and w.value.channels % 2 == 0}


def _heads(w: Writer) -> int:
    return w.rng.choice([h for h in (1, 2, 4) if w.value.channels % h == 0])


@block("sequence", **_FEW)
def multihead_attention(w: Writer) -> None:
    """nn.MultiheadAttention on itself, with or without masks."""
    n, s, e = w.value.shape
    x = w.value.name
    layer = w.layer(
        f"nn.MultiheadAttention({e}, {_heads(w)}, batch_first=True, bias={w.coin(0.8)}, add_bias_kv={w.coin(0.1)})",
        "attention",
    )
    mask = w.rng.choice(("", "", "key", "attn", "float"))
    option = ""
    if mask == "key":
        name = w.input(f"torch.rand({n}, {s}, generator=g).argsort(1) == 0", "padding")
        option = f", key_padding_mask={name}"
    elif mask == "attn":
        option = f", attn_mask={w.buffer(f'torch.ones({s}, {s}).triu(1).bool()', 'mask')}"
    elif mask == "float":
        option = f", attn_mask={w.buffer(f'torch.randn({s}, {s})', 'mask')}"
    w.put(f"{layer}({x}, {x}, {x}{option}, need_weights={w.coin(0.3)})[0]")


@block("sequence", **_FEW)
def cross_attention(w: Writer) -> None:
    """nn.MultiheadAttention on something else, batch second."""
    n, _, e = w.value.shape
    x = w.value.name
    layer = w.layer(f"nn.MultiheadAttention({e}, {_heads(w)}, kdim=6, vdim=6)", "attention")
    memory = w.input(f"torch.randn(4, {n}, 6, generator=g, dtype=FLOAT)", "memory")
    out = w.name("t")
    w.line(f"{out}, _ = {layer}({x}.transpose(0, 1), {memory}, {memory}, need_weights=False)")
    w.put(f"{x} + {out}.transpose(0, 1)")


def _split(w: Writer, heads: int) -> list[str]:
    """Queries, keys and values (N, H, S, D) from one projection or from three."""
    n, s, e = w.value.shape
    x, d = w.value.name, e // heads
    if w.coin():
        qkv = w.layer(f"nn.Linear({e}, {3 * e}, bias={w.coin()})", "qkv")
        whole = w.let(f"{qkv}({x}).reshape({n}, {s}, 3, {heads}, {d}).permute(2, 0, 3, 1, 4)")
        names = [w.name("q") for _ in range(3)]
        w.line(
            f"{', '.join(names)} = {whole}[0], {whole}[1], {whole}[2]"
            if w.coin()
            else f"{', '.join(names)} = {whole}.unbind(0)"
        )
        return names
    layers = [w.layer(f"nn.Linear({e}, {e})", name) for name in ("query", "key", "val")]
    return [w.let(f"{layer}({x}).view({n}, {s}, {heads}, {d}).transpose(1, 2)", "q") for layer in layers]


def _merge(w: Writer, code: str) -> None:
    n, s, e = w.value.shape
    out = w.layer(f"nn.Linear({e}, {e})", "out")
    w.put(f"{out}({code}.transpose(1, 2).reshape({n}, {s}, {e}))")


@block("sequence", **_FEW)
def scaled_dot_product(w: Writer) -> None:
    """F.scaled_dot_product_attention with every kind of mask; rows may see no key at all."""
    n, s, _ = w.value.shape
    heads = _heads(w)
    q, k, v = _split(w, heads)
    mask = w.rng.choice(("none", "causal", "bool", "rows", "float", "dropout"))
    option = {
        "none": "",
        "causal": ", is_causal=True",
        "dropout": ", dropout_p=0.0 if self.training else 0.0",
    }.get(mask)
    if mask == "bool":
        given = w.input(f"torch.rand({n}, 1, {s}, {s}, generator=g) > 0.4", "mask")
        option = f", attn_mask={given}"
    elif mask == "rows":
        given = w.input(f"torch.rand({n}, 1, {s}, 1, generator=g).expand({n}, 1, {s}, {s}) > 0.3", "mask")
        option = f", attn_mask={given}"
    elif mask == "float":
        option = f", attn_mask={w.parameter(heads, s, s)}"
    scale = ", scale=0.3" if w.coin(0.2) else ""
    _merge(w, f"F.scaled_dot_product_attention({q}, {k}, {v}{option}{scale})")


@block("sequence", when=lambda w: w.value.channels % 4 == 0 and w.value.shape[1] <= 32)
def grouped_query(w: Writer) -> None:
    """Fewer keys than queries."""
    n, s, e = w.value.shape
    x, d = w.value.name, e // 4
    layers = [(w.layer(f"nn.Linear({e}, {h * d})", name), h) for name, h in (("query", 4), ("key", 2), ("val", 2))]
    q, k, v = (w.let(f"{layer}({x}).view({n}, {s}, {h}, {d}).transpose(1, 2)", "q") for layer, h in layers)
    if w.coin():
        _merge(w, f"F.scaled_dot_product_attention({q}, {k}, {v}, enable_gqa=True)")
    else:
        k, v = (w.let(f"{t}.repeat_interleave(2, dim=1)", "q") for t in (k, v))
        _merge(w, f"F.scaled_dot_product_attention({q}, {k}, {v}, is_causal=True)")


@block("sequence", **_FEW)
def attention_by_hand(w: Writer) -> None:
    """Written out, with a scale and a bias."""
    _, s, e = w.value.shape
    heads = _heads(w)
    q, k, v = _split(w, heads)
    scores = w.let(
        w.rng.choice(
            (
                f"({q} @ {k}.transpose(-2, -1)) / math.sqrt({e // heads})",
                f"torch.matmul({q} * {(e // heads) ** -0.5}, {k}.mT)",
                f"torch.einsum('nhsd,nhtd->nhst', {q}, {k}) * {(e // heads) ** -0.5}",
            )
        )
    )
    mask = w.rng.choice(("", "bias", "causal"))
    if mask == "bias":
        scores = w.let(f"{scores} + {w.parameter(heads, s, s)}")
    elif mask == "causal":
        scores = w.let(
            f"{scores}.masked_fill({w.buffer(f'torch.ones({s}, {s}).triu(1).bool()', 'mask')}, float('-inf'))"
        )
    _merge(w, f"(F.softmax({scores}, dim=-1) @ {v})")


@block("sequence", **_FEW)
def encoder(w: Writer) -> None:
    """nn.TransformerEncoderLayer and nn.TransformerEncoder."""
    n, s, e = w.value.shape
    first = w.coin(0.3)
    option = f"dim_feedforward=16, batch_first=True, norm_first={first}, activation={w.rng.choice(('relu', 'gelu'))!r}"
    code = f"nn.TransformerEncoderLayer({e}, {_heads(w)}, {option})"
    mask = w.rng.choice(("", "", "key", "causal"))
    if w.coin(0.4):
        code = f"nn.TransformerEncoder({code}, {w.rng.choice((1, 2))}, enable_nested_tensor=False)"
    layer = w.layer(code, "encoder")
    given = ""
    if mask == "key":
        given = f", src_key_padding_mask={w.input(f'torch.rand({n}, {s}, generator=g).argsort(1) == 0', 'padding')}"
    elif mask == "causal":
        name = "mask" if "TransformerEncoder(" in code else "src_mask"
        given = f", {name}={w.buffer(f'torch.ones({s}, {s}).triu(1).bool()', 'mask')}"
    w.put(f"{layer}({w.value.name}{given})")


@block("sequence", **_FEW)
def decoder(w: Writer) -> None:
    """nn.TransformerDecoderLayer and nn.TransformerDecoder."""
    n, s, e = w.value.shape
    code = (
        f"nn.TransformerDecoderLayer({e}, {_heads(w)}, dim_feedforward=16, batch_first=True, norm_first={w.coin(0.3)})"
    )
    if w.coin(0.3):
        code = f"nn.TransformerDecoder({code}, 1)"
    memory = w.input(f"torch.randn({n}, 4, {e}, generator=g, dtype=FLOAT)", "memory")
    mask = f", tgt_mask={w.buffer(f'torch.ones({s}, {s}).triu(1).bool()', 'mask')}" if w.coin() else ""
    w.put(f"{w.layer(code, 'decoder')}({w.value.name}, {memory}{mask})")


@block("sequence", when=lambda w: w.value.channels % 4 == 0 and w.value.shape[1] <= 32)
def rotary(w: Writer) -> None:
    """Positions as rotations, by a helper function."""
    w.top("def rotate_half(x):\n    a, b = x.chunk(2, dim=-1)\n    return torch.cat((-b, a), dim=-1)")
    _, s, e = w.value.shape
    angles = f"torch.arange({s}).outer(10.0 ** -torch.arange({e // 2}).div({e // 2})).repeat(1, 2)"
    cos, sin = (
        w.buffer(f"({angles}).cos()", "cos", persistent=False),
        w.buffer(f"({angles}).sin()", "sin", persistent=False),
    )
    x = w.value.name
    w.put(f"{x} * {cos} + rotate_half({x}) * {sin}")
