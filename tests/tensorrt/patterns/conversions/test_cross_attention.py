"""nn.MultiheadAttention whose keys are not its queries becomes three Linear, ScaledDotProductAttention and Linear."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.quantize import quantization_report, quantize
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.patterns import DecomposeMultiheadAttentionPattern
from support.agreement import applied, assert_close, check_rewrite, fused_counts, reasons, run
from support.nets import net, random_input

PATTERNS = [DecomposeMultiheadAttentionPattern()]
NAME = "DecomposeMultiheadAttentionPattern"
#: (B, S, E), and more, fewer and narrower positions to attend to.
X, LONGER, SHORTER, NARROW = (random_input(2, n, e) for n, e in ((5, 8), (7, 8), (3, 8), (4, 6)))


def attention(**settings: object) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, **{"batch_first": True, **settings})


def decomposed(model: nn.Module, *inputs: torch.Tensor, patterns: object = PATTERNS) -> nn.Module:
    """The rewritten model, whose results and gradients are those of the model."""
    result = check_rewrite(model, inputs, patterns, train=False)
    assert (NAME, "attn") in applied(result)
    wanted, found = (run(m.train(), inputs).square().sum() for m in (model, result.model))
    wanted.backward()
    found.backward()
    whole, parts = model.attn, result.model.attn
    for kind in ("weight", "bias"):
        stored = getattr(whole, f"in_proj_{kind}")
        if stored is not None:
            linears = [getattr(parts, name) for name in ("query", "key", "value")]
            linears = [getattr(linear, "linear", linear) for linear in linears]
            assert_close(torch.cat([getattr(linear, kind) for linear in linears]), stored)
            assert_close(torch.cat([getattr(linear, kind).grad for linear in linears]), stored.grad, 1e-4)
    return result.model


CALLS: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "an encoder's memory": (lambda m, x, y: m.attn(x, y, y)[0], (X, LONGER)),
    "a shorter memory": (lambda m, x, y: m.attn(query=x, key=y, value=y, need_weights=False)[0], (X, SHORTER)),
    "positions in keys and queries": (lambda m, x: (q := x + 1, m.attn(q, q, x)[0])[1], (X,)),
    "three tensors": (lambda m, x: m.attn(x, x * 2, x - 1)[0], (X,)),
    "without a batch": (lambda m, x, y: m.attn(x, y, y)[0], (X[0], LONGER[0])),
    "a padding mask": (lambda m, x, y: m.attn(x, y, y, key_padding_mask=y[..., 0] > 0.5)[0], (X, LONGER)),
    "a mask": (lambda m, x, y, mask: m.attn(x, y, y, attn_mask=mask)[0], (X, LONGER, random_input(5, 7))),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("call", "inputs"), CALLS.values(), ids=CALLS)
def test_is_taken_apart(call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], bias: bool) -> None:
    decomposed(net(call, attn=attention(bias=bias)), *inputs)


def test_a_batch_that_comes_second() -> None:
    model = net(lambda m, x, y: m.attn(x, y, y)[0], attn=attention(batch_first=False))
    decomposed(model, X.transpose(0, 1), LONGER.transpose(0, 1))


@pytest.mark.parametrize("sizes", [{"kdim": 6, "vdim": 6}, {"kdim": 6}], ids=str)
def test_keys_and_values_of_another_size_keep_their_parameters(sizes: dict[str, int]) -> None:
    def call(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return model.attn(x, y, y if "vdim" in sizes else torch.cat((y, y[..., :2]), -1))[0]

    model = net(call, attn=attention(**sizes))
    found = decomposed(model, X, NARROW)
    for name, stored in (("query", "q"), ("key", "k"), ("value", "v")):
        assert torch.equal(getattr(found.attn, name).weight, getattr(model.attn, f"{stored}_proj_weight"))


def test_frozen_projections_stay_frozen() -> None:
    model = net(CALLS["three tensors"][0], attn=attention())
    model.attn.in_proj_weight.requires_grad_(False)
    found = transform(model, patterns=PATTERNS).model.attn
    assert [p.requires_grad for p in (found.query.weight, found.value.weight, found.key.bias)] == [False, False, True]


SHARED = f"{NAME} declined: query, key and value are not the same tensor, and what projects all three is used elsewhere"


def test_one_that_is_called_twice_is_declined() -> None:
    model = net(lambda m, x, y: m.attn(x, y, y)[0] + m.attn(x, x, x)[0], attn=attention())
    result = check_rewrite(model, (X, LONGER), PATTERNS)
    assert [reason[: len(SHARED) + 6] for reason in reasons(result)] == [f"attn: {SHARED}"]


def test_one_whose_projection_another_module_has_is_declined() -> None:
    model = net(lambda m, x, y: m.other(m.attn(x, y, y)[0], y, y)[0], attn=attention(), other=attention())
    model.other.in_proj_weight = model.attn.in_proj_weight
    assert len(reasons(check_rewrite(model, (X, LONGER), PATTERNS))) == 2


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_parts_are_fused_quantized_and_exported(tmp_path, batch_first: bool) -> None:
    model = net(lambda m, x, y: m.attn(x, y, y)[0], attn=attention(batch_first=batch_first)).eval()
    inputs = (X, LONGER) if batch_first else (X.transpose(0, 1), LONGER.transpose(0, 1))
    result = transform(model, inputs, patterns=TENSORRT_PATTERNS)
    assert fused_counts(result.model) == {"FusedScaledDotProductAttention": 1, "FusedLinear": 4}
    quantized = quantize(result, [inputs], progress=False)
    assert {(p.path, p.label) for p in quantization_report(quantized).quantized} == {
        *((f"attn.{name}", place) for name in ("query", "key", "value", "out_proj") for place in ("input 0", "weight")),
        *(("attn.attention", place) for place in ("input 0", "input 1", "input 2", "softmax_quant")),
    }
    with torch.no_grad():
        assert (quantized(*inputs) - model(*inputs)).norm() < 0.03 * model(*inputs).norm()
    assert export_onnx(quantized, inputs, tmp_path / "cross.onnx").difference.max_rel < 1e-5
