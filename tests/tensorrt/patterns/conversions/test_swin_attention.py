"""torchvision's shifted_window_attention becomes five modules."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import swin_transformer
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from embedl_deploy import transform
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.modules import MHAInProjection, SwinAttention, SwinWindowPartition
from embedl_deploy.tensorrt.patterns import DecomposeSwinAttentionPattern
from support.agreement import applied, check_rewrite, fused_counts, reasons, run
from support.nets import net, random_input, scrambled
from support.time_limit import time_limit

PATTERNS = [DecomposeSwinAttentionPattern()]
NAME = "DecomposeSwinAttentionPattern"
VERSIONS = pytest.mark.parametrize("version", [ShiftedWindowAttention, ShiftedWindowAttentionV2], ids=["v1", "v2"])


def attention(version: type[nn.Module], window: list[int], shift: list[int], **settings: object) -> nn.Module:
    """Attention over 8 channels with 2 heads, in a model that holds it as ``attn``."""
    model = net(lambda m, x: m.attn(x), attn=version(8, window, shift, 2, **settings))
    return scrambled(model).eval()


@VERSIONS
@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((8, 8), [4, 4], [0, 0]),
        ((8, 8), [4, 4], [2, 2]),
        ((8, 12), [4, 4], [1, 3]),
        ((7, 9), [4, 4], [0, 0]),
        ((7, 9), [4, 4], [2, 2]),
        ((8, 8), [2, 4], [1, 2]),
        ((3, 3), [4, 4], [0, 0]),
        ((3, 3), [4, 4], [2, 2]),
        ((4, 12), [4, 4], [2, 2]),
        ((12, 3), [4, 4], [2, 2]),
        ((8, 8), [4, 4], [2, 0]),
    ],
    ids=[
        "plain",
        "shifted",
        "shifted differently",
        "padded",
        "padded, shifted",
        "rectangular windows",
        "window larger than the map",
        "window larger than the map, shifted",
        "one row of windows, shifted",
        "one column of windows, padded, shifted",
        "shifted in one direction",
    ],
)
def test_agrees(version: type[nn.Module], size: tuple[int, int], window: list[int], shift: list[int]) -> None:
    model = attention(version, window, shift)
    result = check_rewrite(model, (random_input(2, *size, 8),), PATTERNS)
    assert [entry[0] for entry in applied(result)] == [NAME]
    (partition,) = (module for module in result.model.modules() if isinstance(module, SwinWindowPartition))
    assert (partition.window_size, partition.shift_size) == (tuple(window), tuple(shift))


@VERSIONS
@pytest.mark.parametrize("shift", [[0, 0], [2, 2]], ids=["plain", "shifted"])
def test_one_decomposition_serves_every_size_of_image(version: type[nn.Module], shift: list[int]) -> None:
    model = attention(version, [4, 4], shift)
    decomposed = transform(model, random_input(1, 8, 8, 8), patterns=PATTERNS).model
    for x in (random_input(1, 8, 8, 8), random_input(3, 4, 4, 8), random_input(2, 9, 13, 8), random_input(1, 1, 2, 8)):
        torch.testing.assert_close(decomposed(x), model(x), rtol=1e-5, atol=1e-5)


@VERSIONS
def test_without_biases(version: type[nn.Module]) -> None:
    model = attention(version, [4, 4], [2, 2], qkv_bias=False, proj_bias=False)
    result = check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)
    (projection,) = (module for module in result.model.modules() if isinstance(module, MHAInProjection))
    assert projection.linear.bias is None


@VERSIONS
def test_double_precision(version: type[nn.Module]) -> None:
    model = attention(version, [4, 4], [2, 2]).double()
    check_rewrite(model, (random_input(2, 7, 8, 8).double(),), PATTERNS, tolerance=1e-12)


def test_v2_takes_the_keys_bias_as_zero_and_v1_does_not() -> None:
    for version, zero in ((ShiftedWindowAttention, False), (ShiftedWindowAttentionV2, True)):
        model = transform(attention(version, [4, 4], [0, 0]), patterns=PATTERNS).model
        (projection,) = (module for module in model.modules() if isinstance(module, MHAInProjection))
        assert projection.zero_key_bias is zero
        assert projection.linear.bias[8:16].abs().min() > 0  # the parameter itself is left alone


def test_a_large_logit_scale_is_clamped() -> None:
    model = attention(ShiftedWindowAttentionV2, [4, 4], [2, 2])
    with torch.no_grad():
        model.attn.logit_scale.fill_(7.0)  # more than log(100)
    check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)


def test_dropouts_are_kept() -> None:
    """Masks are drawn in the same order and shapes, so they are the same ones."""
    model = attention(ShiftedWindowAttention, [4, 4], [2, 2], attention_dropout=0.3, dropout=0.4)
    result = check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)
    (decomposed,) = (module for module in result.model.modules() if isinstance(module, SwinAttention))
    assert decomposed.dropout == 0.3
    (dropout,) = (module for module in result.model.modules() if isinstance(module, nn.Dropout))
    assert dropout.p == 0.4


def test_attention_that_is_frozen_in_a_model_in_training_stays_frozen() -> None:
    model = attention(ShiftedWindowAttention, [4, 4], [2, 2], attention_dropout=0.3, dropout=0.4).train()
    model.attn.eval()
    decomposed = transform(model, patterns=PATTERNS).model
    x = random_input(2, 8, 8, 8)
    torch.testing.assert_close(run(decomposed, (x,)), run(model, (x,)), rtol=1e-5, atol=1e-5)


def test_the_parts_hold_the_original_parameters_under_the_modules_path() -> None:
    model = attention(ShiftedWindowAttention, [4, 4], [2, 2])
    decomposed = transform(model, patterns=PATTERNS).model
    called = [node.target for node in decomposed.graph.nodes if node.op == "call_module"]
    assert called == ["attn.partition", "attn.in_proj", "attn.attention", "attn.out_proj", "attn.reverse"]
    assert torch.equal(decomposed.attn.in_proj.linear.weight, model.attn.qkv.weight)
    assert torch.equal(decomposed.attn.out_proj.weight, model.attn.proj.weight)


@VERSIONS
def test_the_parts_are_fused_afterwards(version: type[nn.Module]) -> None:
    result = check_rewrite(attention(version, [4, 4], [2, 2]), (random_input(2, 8, 8, 8),), TENSORRT_PATTERNS)
    expected = {"FusedMHAInProjection": 1, "FusedSwinAttention": 1, "FusedLinear": 1}
    if version is ShiftedWindowAttentionV2:  # its bias comes from a small network: Linear → ReLU → Linear
        expected |= {"FusedLinearReLU": 1, "FusedLinear": 2}
    assert fused_counts(result.model) == expected


def test_a_module_that_is_called_twice() -> None:
    model = attention(ShiftedWindowAttention, [4, 4], [2, 2])
    twice = net(lambda m, x: m.attn(m.attn(x)), attn=model.attn)
    result = check_rewrite(twice, (random_input(2, 8, 8, 8),), PATTERNS)
    assert len(applied(result)) == 2


def functional(function: Callable[..., torch.Tensor]) -> nn.Module:
    """A model that calls the function with weights of its own."""
    return net(
        function,
        qkv=nn.Parameter(torch.empty(24, 8)),
        proj=nn.Parameter(torch.empty(8, 8)),
        bias=nn.Parameter(torch.empty(1, 2, 16, 16)),
    )


def test_matches_a_call_of_the_function_by_keywords() -> None:
    model = functional(
        lambda m, x: swin_transformer.shifted_window_attention(
            input=x,
            qkv_weight=m.qkv,
            proj_weight=m.proj,
            relative_position_bias=m.bias,
            window_size=[4, 4],
            num_heads=2,
            shift_size=[2, 2],
            training=False,
        )
    )
    with time_limit(60):  # the weights live at the top: looking for a place below "qkv", a parameter, has no end
        result = check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)
    assert len(applied(result)) == 1


def test_declines_a_weight_that_is_computed_on_the_way() -> None:
    model = functional(
        lambda m, x: swin_transformer.shifted_window_attention(
            x, m.qkv, m.proj * 2, m.bias, [4, 4], 2, [2, 2], training=False
        )
    )
    result = check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)
    assert reasons(result) == [f"shifted_window_attention: {NAME} declined: proj_weight is computed at run time"]


def test_a_function_of_the_same_name_from_elsewhere_does_not_match() -> None:
    model = net(lambda m, x: _wrapped(x))
    result = check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS)
    assert applied(result) == [] and reasons(result) == []
    assert result.report.why_not("mul") == ["mul: no pattern has an element for it"]


def _wrapped(x: torch.Tensor) -> torch.Tensor:
    return x * 2


_wrapped.__name__ = "shifted_window_attention"


def test_an_image_used_elsewhere_is_kept() -> None:
    model = net(
        lambda m, x: (y := x * 2, m.attn(y) + y, y)[1:], attn=attention(ShiftedWindowAttention, [4, 4], [2, 2]).attn
    )
    assert len(applied(check_rewrite(model, (random_input(2, 8, 8, 8),), PATTERNS))) == 1
