"""Forms of one thing as ONNX graphs: blocks of ViT-B/16 and of Swin-T, each part written in several ways.

Axes: S sequence, E embedding, H heads, D = E/H; for windows W windows of T tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_graphs import Graph, random

S, E, H, D = 197, 768, 12, 64


def _heads(graph: Graph, x: str) -> str:
    return graph.transpose(graph.reshape(x, 1, -1, H, D), 0, 2, 1, 3)


def _one_product(graph: Graph, x: str, number_format: str | None = None) -> list[str]:
    packed = graph.quantized(graph.linear(x, E, 3 * E), number_format)
    return graph.items(graph.transpose(graph.reshape(packed, 1, -1, 3, H, D), 2, 0, 3, 1, 4), 0)


def _split(graph: Graph, x: str) -> list[str]:
    parts = graph.call("Split", graph.linear(x, E, 3 * E), outputs=3, axis=-1, num_outputs=3)
    return [_heads(graph, part) for part in parts]


def _three_products(graph: Graph, x: str) -> list[str]:
    return [_heads(graph, graph.linear(x, E, E)) for _ in range(3)]


def _gemm(graph: Graph, x: str) -> list[str]:
    product = graph.call("Gemm", graph.reshape(x, -1, E), random(3 * E, E), random(3 * E), transB=1)
    parts = graph.call("Split", product, outputs=3, axis=-1, num_outputs=3)
    return [_heads(graph, part) for part in parts]


def _product_per_head(graph: Graph, x: str) -> list[str]:
    rows = graph.reshape(x, 1, 1, -1, E)
    return [graph.call("Add", graph.call("MatMul", rows, random(1, H, E, D)), random(1, H, 1, D)) for _ in range(3)]


def _no_bias(graph: Graph, x: str) -> list[str]:
    rows = graph.reshape(x, 1, 1, -1, E)
    return [graph.call("MatMul", rows, random(1, H, E, D)) for _ in range(3)]


#: Ways from a normalized sequence to queries, keys and values, (1, H, S, D) each.
PROJECTIONS: dict[str, Callable[[Graph, str], list[str]]] = {
    "one product, axes moved, then taken apart": _one_product,
    "one product, split, then heads": _split,
    "three products": _three_products,
    "one Gemm of a matrix, split": _gemm,
    "a product per head": _product_per_head,
    "a product per head, without bias": _no_bias,
}


def _transposed_keys(graph: Graph, keys: str, form: str) -> str:
    if form != "torch":
        return graph.transpose(keys, 0, 1, 3, 2)
    flat = graph.transpose(graph.reshape(keys, H, -1, D), 0, 2, 1)
    return graph.reshape(flat, 1, H, D, -1)


def attention(
    projection: str = "one product, axes moved, then taken apart",
    scale: str = "query",
    operator: str = "",
    length: int = S,
) -> tuple[Graph, str]:
    """Norm, attention, projection and sum of ViT-B/16, in float16."""
    graph = Graph(1, length, E, opset=23 if operator else 20)
    q, k, v = PROJECTIONS[projection](graph, graph.layer_norm(graph.input, E))
    if operator:
        mixed = graph.call("Attention", q, k, v)
    else:
        factors = {"query": (D**-0.5, 1.0), "key": (1.0, D**-0.5), "both": (D**-0.25,) * 2, "torch": (D**-0.25,) * 2}
        for_q, for_k = factors.get(scale, (1.0, 1.0))
        q = graph.scaled(q, for_q) if for_q != 1.0 else q
        keys = _transposed_keys(graph, k, scale)
        keys = graph.scaled(keys, for_k) if for_k != 1.0 else keys
        scores = graph.call("MatMul", q, keys)
        scores = graph.scaled(scores, D**-0.5) if scale == "scores" else scores
        mixed = graph.call("MatMul", graph.call("Softmax", scores, axis=-1), v)
    joined = graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), 1, length, E)
    return graph, graph.call("Add", graph.linear(joined, E, E), graph.input)


def quantized_attention(
    product: str | None = None,
    packed: str | None = None,
    apart: str | None = None,
    scales: tuple[float, float, float] = (0.05, 0.05, 0.05),
    softmax: bool = True,
    out: str | None = None,
) -> tuple[Graph, str]:
    """The same with quantizers: formats of the first product, of q, k and v, and of the last product."""
    graph = Graph(1, S, E)
    x = graph.quantized(graph.layer_norm(graph.input, E), product)
    joint = graph.quantized(graph.linear(x, E, 3 * E, product), packed)
    heads = graph.items(graph.transpose(graph.reshape(joint, 1, S, 3, H, D), 2, 0, 3, 1, 4), 0)
    q, k, v = (graph.quantized(each, apart, scale) for each, scale in zip(heads, scales, strict=True))
    weights = graph.call("Softmax", graph.call("MatMul", q, graph.transpose(k, 0, 1, 3, 2)), axis=-1)
    number_format = packed or apart
    weights = graph.quantized(
        weights, number_format if softmax else None, 1 / 448 if number_format == "fp8" else 1 / 127
    )
    joined = graph.reshape(graph.transpose(graph.call("MatMul", weights, v), 0, 2, 1, 3), 1, S, E)
    attended = graph.linear(graph.quantized(joined, out), E, E, out)
    return graph, graph.call("Add", attended, graph.input)


def mlp(
    first: str | None = None,
    between: str | None = None,
    second: str | None = None,
    activation: str = "Gelu",
    **how: Any,
) -> tuple[Graph, str]:
    """Norm, product, activation, product and sum; formats of the products and of what is between them."""
    graph = Graph(1, S, E)
    x = graph.quantized(graph.layer_norm(graph.input, E), first)
    hidden = graph.linear(x, E, 4 * E, first, **how)
    hidden = graph.call(activation, hidden) if activation else hidden
    out = graph.linear(graph.quantized(hidden, between), 4 * E, E, second, **how)
    return graph, graph.call("Add", out, graph.input)


SIDE, WINDOW, TOKENS = 56, 7, 49


def _partition(graph: Graph, image: str, shift: int, roll: str, width: int) -> str:
    across = SIDE // WINDOW
    if roll == "one Gather":
        places = np.roll(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), (-shift, -shift), (0, 1))
        order = places.reshape(across, WINDOW, across, WINDOW).transpose(0, 2, 1, 3).reshape(-1)
        rows = graph.call("Gather", graph.reshape(image, SIDE * SIDE, width), order, axis=0)
        return graph.reshape(rows, across**2, TOKENS, width)
    for axis in (1, 2) if shift else ():
        if roll == "Gather":
            image = graph.call("Gather", image, np.roll(np.arange(SIDE), -shift), axis=axis)
        else:
            ends = [(shift, SIDE), (0, shift)]
            pieces = [graph.call("Slice", image, *(np.array([n]) for n in (*end, axis))) for end in ends]
            image = graph.call("Concat", *pieces, axis=axis)
    tiles = graph.reshape(image, 1, across, WINDOW, across, WINDOW, width)
    return graph.reshape(graph.transpose(tiles, 0, 1, 3, 2, 4, 5), across**2, TOKENS, width)


def windows(norm: str = "after", roll: str = "Slice and Concat", shift: int = 3) -> tuple[Graph, str]:
    """Norm and the cutting into windows of 56×56 tokens of 96 channels, and a product."""
    graph, width = Graph(1, SIDE, SIDE, 96), 96
    x = graph.layer_norm(graph.input, width) if norm == "before" else graph.input
    x = _partition(graph, x, shift, roll, width)
    x = graph.layer_norm(x, width) if norm == "after" else x
    return graph, graph.linear(x, width, 3 * width)


def window_attention(
    heads: int = 6,
    count: int = 16,
    bias: str = "constant",
    mask: str = "",
    number_format: str | None = None,
) -> tuple[Graph, str]:
    """Attention within windows of 49 tokens, heads of 32 channels, with a bias for relative positions."""
    width = heads * 32
    graph = Graph(count * TOKENS, width)
    packed = graph.quantized(graph.linear(graph.input, width, 3 * width), number_format)
    q, k, v = graph.items(graph.transpose(graph.reshape(packed, count, TOKENS, 3, heads, 32), 2, 0, 3, 1, 4), 0)
    scores = graph.call("MatMul", graph.scaled(q, 32**-0.5), graph.transpose(k, 0, 1, 3, 2))
    if bias == "constant":
        scores = graph.call("Add", scores, random(1, heads, TOKENS, TOKENS))
    elif bias == "table":
        table = graph.transpose(graph.reshape(graph.constant(random(TOKENS**2, heads)), TOKENS, TOKENS, -1), 2, 0, 1)
        scores = graph.call("Add", scores, graph.call("Unsqueeze", table, np.array([0])))
    if mask:
        apart = np.where(random(1, count, 1, TOKENS, TOKENS) > 0, np.float16(0), np.float16(-100))
        shape = (count, heads, TOKENS, TOKENS)
        scores = graph.reshape(graph.call("Add", graph.reshape(scores, 1, *shape), apart), *shape)
    weights = graph.call("Softmax", scores, axis=-1)
    weights = graph.quantized(weights, number_format, 1 / 448 if number_format == "fp8" else 1 / 127)
    joined = graph.transpose(graph.call("MatMul", weights, v), 0, 2, 1, 3)
    return graph, graph.linear(graph.reshape(joined, count * TOKENS, width), width, width)


def convolutions(between: str | None = None, second: str | None = None) -> tuple[Graph, str]:
    """Two convolutions with ReLU, 64 channels of 56×56; formats of what is between them and of the second weight."""
    graph = Graph(1, 64, SIDE, SIDE)
    first = graph.call("Conv", graph.input, random(64, 64, 3, 3), random(64), pads=[1] * 4)
    x = graph.quantized(graph.call("Relu", first), between)
    weight = graph.quantized(graph.constant(random(64, 64, 3, 3)), second)
    return graph, graph.call("Relu", graph.call("Conv", x, weight, random(64), pads=[1] * 4))
