"""Keys and values that are repeated for groups of heads are given to grouped attention once."""

import pytest
import torch
import torch.nn.functional as F

from embedl_deploy import transform
from embedl_deploy.modules import ScaledDotProductAttention
from embedl_deploy.recomposition import (
    ConvertDotProductAttentionPattern,
    GroupedKeysPattern,
    RecomposeAttentionPattern,
)
from embedl_deploy.recomposition.grouped_keys import repeat_kv
from support.agreement import check_rewrite, reasons
from support.nets import net, random_input

PATTERNS = [RecomposeAttentionPattern(), ConvertDotProductAttentionPattern(), GroupedKeysPattern()]
#: (B, H, L, D), and keys and values of half as many heads.
Q, K, V = (
    random_input(2, 4, 5, 6).double(),
    random_input(2, 2, 7, 6, seed=2).double(),
    random_input(2, 2, 7, 6).double(),
)
MASK = random_input(2, 4, 5, 7, seed=3).double()


def grouped(function, inputs=(Q, K, V), trace="symbolic"):
    """The attention, the nodes that give it keys and values, and the result."""
    model = net(function)
    result = transform(model, inputs, patterns=PATTERNS, trace=trace, strict=True)
    (attention,) = (m for m in result.model.modules() if isinstance(m, ScaledDotProductAttention))
    (call,) = (n for n in result.model.graph.nodes if n.op == "call_module" and "attention" in str(n.target))
    torch.testing.assert_close(result.model(*inputs), model(*inputs), rtol=1e-12, atol=1e-12)
    return attention, [value.name for value in call.args[1:3]], result


SPELLINGS = {
    "transformers": lambda m, q, k, v: F.scaled_dot_product_attention(q, repeat_kv(k), repeat_kv(v)),
    "unsqueeze": lambda m, q, k, v: F.scaled_dot_product_attention(
        q, *(x.unsqueeze(2).expand(2, 2, 2, 7, 6).contiguous().flatten(1, 2) for x in (k, v)), scale=0.3
    ),
    "interleaved": lambda m, q, k, v: F.scaled_dot_product_attention(
        q, torch.repeat_interleave(k, 2, 1), v.repeat_interleave(2, dim=-3), is_causal=True
    ),
    "by hand": lambda m, q, k, v: (q @ repeat_kv(k).transpose(2, 3) * 0.5).softmax(-1) @ repeat_kv(v),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_keys_are_given_once(name):
    attention, given, _ = grouped(SPELLINGS[name])
    assert attention.grouped and given == ["y", "z"]


def test_through_torch_export():
    attention, _, result = grouped(SPELLINGS["transformers"], trace="export")
    assert attention.grouped
    other, keys = random_input(3, 4, 5, 6).double(), random_input(3, 2, 7, 6).double()
    torch.testing.assert_close(result.model(other, keys, keys), net(SPELLINGS["transformers"])(other, keys, keys))


def test_one_head_for_all_and_a_mask():
    def function(m, q, k, mask):
        wide = k[:, :1].expand(2, 4, 7, 6)
        return F.scaled_dot_product_attention(q, wide, wide, mask)

    attention, given, _ = grouped(function, (Q, K, MASK))
    assert attention.grouped and given == ["getitem", "getitem"]


def test_tokens_before_heads():
    def function(m, q, k, v):
        return F.scaled_dot_product_attention(q, *(x.repeat_interleave(2, 2).transpose(1, 2) for x in (k, v)))

    attention, _, _ = grouped(function, (Q, K.transpose(1, 2).contiguous(), V.transpose(1, 2).contiguous()))
    assert attention.grouped


def test_training_and_a_second_run():
    model = net(SPELLINGS["transformers"])
    check_rewrite(model, (Q.float(), K.float(), V.float()), PATTERNS)


OTHERS = {
    "as a whole": lambda m, q, k, v: F.scaled_dot_product_attention(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1)),
    "keys, not heads": lambda m, q, k, v: F.scaled_dot_product_attention(
        q[:, :2], k.repeat_interleave(2, 2), v.repeat_interleave(2, 2)
    ),
    "heads first": lambda m, q, k, v: F.scaled_dot_product_attention(
        q, *(x[:, None].expand(2, 2, 2, 7, 6).reshape(2, 4, 7, 6) for x in (k, v))
    ),
    "values otherwise": lambda m, q, k, v: F.scaled_dot_product_attention(q, repeat_kv(k), v.repeat(1, 2, 1, 1)),
    "one head of queries": lambda m, q, k, v: F.scaled_dot_product_attention(q[:, :1], repeat_kv(k), repeat_kv(v)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay(name):
    attention, _, _ = grouped(OTHERS[name])
    assert not attention.grouped


def test_repeated_keys_that_are_read_elsewhere_stay():
    def function(m, q, k, v):
        wide = repeat_kv(k)
        return F.scaled_dot_product_attention(q, wide, repeat_kv(v)), wide

    attention, _, result = grouped(function)
    (reason,) = reasons(result)
    assert not attention.grouped and reason.endswith("is an output of the model")


def test_one_head_that_may_be_more_in_another_call_stays():
    """Frames of a video that are joined with the batch: the example has one, where it looks like a head."""

    def function(m, q, frames):  # (B·T, 2, L, D), (B, T, S, D)
        batch, times, keys, width = frames.shape
        k = frames.unsqueeze(2).expand(batch, times, 2, keys, width).reshape(batch * times, 2, keys, width)
        return F.scaled_dot_product_attention(q, k, k)

    attention, _, result = grouped(function, (Q[:1, :2], K[:1, :1]))
    assert not attention.grouped and "may have more" in reasons(result)[0]
    q, frames = Q[:, :2], K[:1]
    wanted = torch.stack([F.scaled_dot_product_attention(q[t], frames[0, t], frames[0, t]) for t in range(2)])
    torch.testing.assert_close(result.model(q, frames), wanted, rtol=1e-12, atol=1e-12)
