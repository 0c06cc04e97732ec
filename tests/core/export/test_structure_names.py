"""What a file calls tensors that lie in structures."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from embedl_deploy import export_onnx, transform
from support.nets import random_input

Pair = namedtuple("Pair", "left right")


def cache_of(x: torch.Tensor) -> DynamicCache:
    cache = DynamicCache()
    cache.update(x, x + 1, 0)
    return cache


class Giving(nn.Module):
    def __init__(self, give) -> None:
        super().__init__()
        self.give = give

    def forward(self, x, *more, past_key_values=None):
        for tensor in torch.utils._pytree.tree_leaves((more, past_key_values)):
            x = x if tensor is None else x + tensor
        return self.give(x * 2)


OF_CACHE = ["present.0.key", "present.0.value"]
GIVEN = {
    "a dictionary": (
        lambda x: {"x": x, "boxes": [x + 1, (x + 2,)], "pair": Pair(x + 3, None), "held": cache_of(x)},
        ["x_out", "boxes.0", "boxes.1.0", "pair.left", *OF_CACHE],
    ),
    "a tuple": (
        lambda x: (x, Pair(x + 1, {"a": x + 2}), cache_of(x)),
        [..., "output.1.left", "output.1.right.a", *OF_CACHE],
    ),
    "two caches": (
        lambda x: {"a": cache_of(x), "b": cache_of(x + 5), "past_key_values": ((x + 2, x + 3),)},
        [*(f"present.{head}.0.{name}" for head in "ab" for name in ("key", "value")), "present.0.0", "present.0.1"],
    ),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_outputs(tmp_path, kind):
    give, expected = GIVEN[kind]
    x = random_input(1, 2, 3, 4)
    written = export_onnx(transform(Giving(give), x, patterns=[], trace="export"), x, tmp_path / "m.onnx")
    assert [
        ... if wanted is ... else name for name, wanted in zip(written.output_names, expected, strict=True)
    ] == expected
    assert written.difference.max_rel < 1e-6


def test_inputs(tmp_path):
    x = random_input(1, 2, 3, 4)
    args, kwargs = (x, x + 1, [x, {"a": x}]), {"past_key_values": EncoderDecoderCache(cache_of(x), cache_of(x))}
    result = transform(Giving(lambda x: x), args, kwargs=kwargs, patterns=[], trace="export")
    written = export_onnx(result, args, tmp_path / "m.onnx", kwargs=kwargs)
    assert list(written.input_names) == [
        *("x", "more_0", "more_1.0", "more_1.1.a"),
        *(f"past_key_values.0.{part}.{name}" for part in ("decoder", "encoder") for name in ("key", "value")),
    ]
    assert written.difference.max_rel < 1e-6
