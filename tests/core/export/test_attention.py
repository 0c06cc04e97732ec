"""F.scaled_dot_product_attention, which no pattern has taken, in the file."""

import math
from collections.abc import Callable

import onnx
import pytest
import torch
from torch.nn import functional as F

from embedl_deploy import export_onnx
from embedl_deploy.export import run_onnx
from support.nets import net, random_input

attend = F.scaled_dot_product_attention
#: Five queries, seven keys that are the values, too, and which are seen: by the third query of the first batch none.
Q, K = random_input(2, 3, 5, 4), random_input(2, 3, 7, 4)
SEEN = (random_input(2, 1, 5, 7) > 0) | torch.eye(5, 7, dtype=torch.bool)
SEEN[0, 0, 2] = False


def numbers(seen: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, -math.inf)


CALLS: dict[str, Callable[..., torch.Tensor]] = {
    "booleans": lambda q, k, seen: attend(q, k, k, seen),
    "numbers": lambda q, k, seen: attend(q, k, k, attn_mask=numbers(seen, q)),
    "as torch.export writes it": lambda q, k, seen: torch.ops.aten.scaled_dot_product_attention.default(
        q, k, k, seen, scale=0.3
    ),
    "fewer heads of keys": lambda q, k, seen: attend(q, k[:, :1], k[:, :1], seen, enable_gqa=True),
    "without a batch": lambda q, k, seen: attend(q[0], k[0], k[0], seen[0]),
    "without heads": lambda q, k, seen: attend(q[0, 0], k[0, 0], k[0, 0], seen[0, 0]),
    "two batch axes": lambda q, k, seen: attend(q[None], k[None], k[None], seen[None]),
    "causal, with a scale": lambda q, k, seen: attend(q, k, k, is_causal=True, scale=0.7),
    "causal, without a batch": lambda q, k, seen: attend(q[0], k[0], k[0], is_causal=True),
}


@pytest.mark.parametrize(
    "options",
    [{}, {"opset": 23}, {"dtype": torch.float16}, {"dynamic_batch": True}],
    ids=["float32", "with the operator Attention", "float16", "open batch"],
)
def test_a_query_that_sees_no_key_gets_0(options: dict[str, object], tmp_path) -> None:
    names = ["booleans", "fewer heads of keys"] if "dynamic_batch" in options else list(CALLS)
    calls = {name: CALLS[name] for name in names}
    model, path = net(lambda m, q, k, seen: [call(q, k, seen) for call in calls.values()]), tmp_path / "a.onnx"
    export_onnx(model, (Q, K, SEEN), path, **options)
    dtype = options.get("dtype", torch.float32)
    tolerance = 1e-5 if dtype is torch.float32 else 4e-3
    found = run_onnx(path, Q.to(dtype), K.to(dtype), SEEN)
    for name, expected, value in zip(calls, model(Q, K, SEEN), found, strict=True):
        torch.testing.assert_close(value.float(), expected, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
        if "causal" not in name:
            assert not value.flatten(0, -3)[0, 2].any() if value.dim() > 2 else not value[2].any()


def test_without_a_mask_nothing_is_added(tmp_path) -> None:
    model = net(lambda m, q, k: attend(q, k, k))
    export_onnx(model, (Q, K), tmp_path / "a.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert sorted(kinds) == ["MatMul", "MatMul", "Mul", "Softmax", "Transpose"]  # keys are transposed and no more


def test_the_operator_attention_is_written_where_there_is_one(tmp_path) -> None:
    model = net(lambda m, q, k: attend(q, k, k))
    export_onnx(model, (Q, K), tmp_path / "a.onnx", opset=23)
    assert [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node] == ["Attention"]
