"""F.scaled_dot_product_attention becomes a module that is fused and quantized."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantization_report, quantize
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.patterns import ConvertDotProductAttentionPattern
from support.agreement import applied, assert_close, check_rewrite, fused_counts, reasons
from support.nets import net, random_input

PATTERNS = [ConvertDotProductAttentionPattern()]
NAME = "ConvertDotProductAttentionPattern"
#: (B, H, S, D): five queries, seven keys.
Q, K, V = (random_input(2, 3, n, 4) for n in (5, 7, 7))
MASK = torch.ones(5, 7).tril(1).bool()
#: The third query sees nothing, as a padded one does.
PADDED = MASK.clone()
PADDED[2] = False
attend = F.scaled_dot_product_attention

CALLS: dict[str, Callable[..., torch.Tensor]] = {
    "plain": lambda m, q, k, v: attend(q, k, v),
    "keywords": lambda m, q, k, v: attend(query=q, key=k, value=v, attn_mask=None, dropout_p=0.0),
    "positions": lambda m, q, k, v: attend(q, k, v, None, 0.0, True),
    "causal": lambda m, q, k, v: attend(q, k, v, is_causal=True),
    "a factor": lambda m, q, k, v: attend(q, k, v, scale=0.3),
    "a factor of 0": lambda m, q, k, v: attend(q, k, v, scale=0.0),
    "booleans": lambda m, q, k, v: attend(q, k, v, m.mask),
    "numbers": lambda m, q, k, v: attend(q, k, v, attn_mask=m.mask * 0.7),
    "a query that sees no key": lambda m, q, k, v: attend(q, k, v, m.padded),
    "numbers for no key": lambda m, q, k, v: attend(
        q, k, v, torch.zeros_like(q @ k.mT).masked_fill(~m.padded, -math.inf)
    ),
    "fewer heads of keys": lambda m, q, k, v: attend(q, k[:, :1], v[:, :1], enable_gqa=True),
    "one for each head": lambda m, q, k, v: attend(q, k, v, attn_mask=q @ k.transpose(-2, -1)),
}


def model_of(call: Callable[..., torch.Tensor]) -> nn.Module:
    model = net(call).eval()
    model.register_buffer("mask", MASK)
    model.register_buffer("padded", PADDED)
    return model


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_matches_every_spelling(call: Callable[..., torch.Tensor], trace: str) -> None:
    model = model_of(call)
    result = transform(model, (Q, K, V), patterns=PATTERNS, trace=trace, strict=True)
    assert applied(result) == [(NAME, "scaled_dot_product_attention")]
    assert torch.equal(result.model(Q, K, V), model(Q, K, V))
    check_rewrite(model, (Q, K, V), PATTERNS)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_in_steps_it_computes_the_same(call: Callable[..., torch.Tensor]) -> None:
    """Quantized in 16 bits, where the steps are taken one by one."""
    model = model_of(call)
    result = transform(model, (Q, K, V), patterns=TENSORRT_PATTERNS)
    (attention,) = (m for m in result.model.modules() if type(m).__name__ == "FusedScaledDotProductAttention")
    attention.softmax_quant.quantizer = nn.Identity()
    if not attention.softmax_quant.enabled:
        pytest.fail("the steps are not taken")
    assert_close(result.model(Q, K, V), model(Q, K, V), 1e-5)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_other_ranks(rank: int) -> None:
    x = random_input(2, 2, 3, 5, 4)[(0,) * (5 - rank)]
    check_rewrite(net(lambda m, x: attend(x, x * 2, x)), (x,), PATTERNS)


class Block(nn.Module):
    """As vision transformers of today write it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = attend(q, k, v, dropout_p=0.5 if self.training else 0.0)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


def test_a_transformer_is_fused_quantized_and_exported(tmp_path) -> None:
    model, x = nn.Sequential(Block(), Block()).eval(), random_input(2, 5, 8)
    result = transform(model, (x,), patterns=TENSORRT_PATTERNS)
    assert fused_counts(result.model) == {"FusedLinear": 4, "FusedScaledDotProductAttention": 2}
    quantized = quantize(result, [x], progress=False)
    paths = {point.path for point in quantization_report(quantized).quantized}
    assert {f"{block}.scaled_dot_product_attention" for block in (0, 1)} <= paths
    with torch.no_grad():
        assert (quantized(x) - model(x)).norm() < 0.05 * model(x).norm()
    exported = export_onnx(quantized, x, tmp_path / "blocks.onnx", dynamic_batch=True)
    assert exported.difference.max_rel < 1e-5


def test_queries_that_see_no_key_are_calibrated_quantized_and_exported(tmp_path) -> None:
    inputs = (Q, K, PADDED.expand(2, 1, 5, 7))
    model = net(lambda m, q, k, mask: attend(q, k, k, mask))
    wanted = model(*inputs)
    result = transform(model, inputs, patterns=TENSORRT_PATTERNS)
    quantized = quantize(result, [inputs], progress=False)
    for dtype in (torch.float32, torch.float16):
        export_onnx(quantized, inputs, path := tmp_path / "a.onnx", dtype=dtype)
        for found in (quantized(*inputs), *run_onnx(path, Q.to(dtype), K.to(dtype), inputs[2])):
            assert not found[:, :, 2].any()
            assert (found - wanted).norm() < 0.05 * wanted.norm()
    seeing = quantize(result, [(Q, K, MASK.expand(2, 1, 5, 7))], progress=False)(*inputs)
    assert torch.equal(seeing, quantized(*inputs)), "scales that depend on rows that nothing reads"


NOT_CONVERTED: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "dropout": (
        lambda m, q, k, v: attend(q, k, v, dropout_p=0.5),
        "it drops 50% of the attention weights in evaluation mode too",
    ),
}


@pytest.mark.parametrize(("call", "reason"), NOT_CONVERTED.values(), ids=NOT_CONVERTED)
def test_declines(call: Callable[..., torch.Tensor], reason: str) -> None:
    result = transform(model_of(call), (Q, K, V), patterns=PATTERNS)
    assert reasons(result) == [f"scaled_dot_product_attention: {NAME} declined: {reason}"]


def test_a_block_in_training_mode_drops_whatever_the_mode() -> None:
    result = transform(Block().train(), patterns=PATTERNS)
    assert len(reasons(result)) == 1 and not applied(result)
