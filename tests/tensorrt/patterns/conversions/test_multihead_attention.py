"""nn.MultiheadAttention becomes MHAInProjection → ScaledDotProductAttention → Linear."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import quantize
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.modules import MHAInProjection, ScaledDotProductAttention
from embedl_deploy.tensorrt.patterns import DecomposeMultiheadAttentionPattern
from support.agreement import applied, check_rewrite, fused_counts, reasons, run
from support.nets import net, random_input

PATTERNS = [DecomposeMultiheadAttentionPattern()]
NAME = "DecomposeMultiheadAttentionPattern"
#: (B, S, E).
X = random_input(2, 5, 8)


def attention(**settings: object) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, **{"batch_first": True, **settings})


def parts(model: nn.Module) -> list[str]:
    """Types of the modules that the graph calls, in order."""
    return [type(model.get_submodule(n.target)).__name__ for n in model.graph.nodes if n.op == "call_module"]


PARTS = ["MHAInProjection", "ScaledDotProductAttention", "NonDynamicallyQuantizableLinear"]

CALLS: dict[str, Callable[..., torch.Tensor]] = {
    "attn(x, x, x)[0]": lambda m, x: m.attn(x, x, x)[0],
    "need_weights=False": lambda m, x: m.attn(x, x, x, need_weights=False)[0],
    "need_weights=True": lambda m, x: m.attn(x, x, x, need_weights=True)[0],
    "keywords": lambda m, x: m.attn(query=x, key=x, value=x, need_weights=False)[0],
    "mixed": lambda m, x: m.attn(x, key=x, value=x)[0],
    "masks of None": lambda m, x: m.attn(x, x, x, None, False, None, True, False)[0],
    "two names": lambda m, x: (r := m.attn(x, x, x), y := r[0], _weights := r[1], y)[3],
    "output taken twice": lambda m, x: (r := m.attn(x, x, x), r[0] + r[0])[1],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_matches_every_spelling_of_plain_self_attention(call: Callable[..., torch.Tensor]) -> None:
    result = check_rewrite(net(call, attn=attention()), (X,), PATTERNS)
    assert applied(result) == [(NAME, "attn")]
    assert parts(result.model) == PARTS


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_that_sees_no_key_gets_what_torch_gives(need_weights: bool) -> None:
    """NaN with ``need_weights``, else 0 behind the products; with gradients, so that torch takes no other path."""
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1] = padding[0, 3] = True
    model = net(lambda m, x, pad: m.attn(x, x, x, key_padding_mask=pad, need_weights=need_weights)[0], attn=attention())
    wanted = model(X, padding)
    assert wanted[1].isnan().all() if need_weights else torch.equal(wanted[1], model.attn.out_proj.bias.expand(5, 8))
    result = transform(model, (X, padding), patterns=TENSORRT_PATTERNS)
    torch.testing.assert_close(result.model(X, padding), wanted, equal_nan=True)
    quantized = quantize(result, [(X, padding)], progress=False)
    assert torch.equal(quantized(X, padding)[1], model.attn.out_proj.bias.expand(5, 8))


@pytest.mark.parametrize(
    "x", [random_input(1, 5, 8), random_input(5, 8), random_input(3, 1, 8)], ids=["batch of 1", "no batch", "1 token"]
)
def test_shapes(x: torch.Tensor) -> None:
    result = check_rewrite(net(CALLS["attn(x, x, x)[0]"], attn=attention()), (x,), PATTERNS)
    assert len(applied(result)) == 1
    # The decomposition does not depend on the example's shape.
    fused = transform(net(CALLS["attn(x, x, x)[0]"], attn=attention()), patterns=PATTERNS).model
    assert fused(x).shape == x.shape


def test_without_biases() -> None:
    result = check_rewrite(net(CALLS["need_weights=False"], attn=attention(bias=False)), (X,), PATTERNS)
    (projection,) = (module for module in result.model.modules() if isinstance(module, MHAInProjection))
    assert projection.linear.bias is None and projection.num_heads == 2


def test_one_head() -> None:
    model = net(CALLS["need_weights=False"], attn=nn.MultiheadAttention(6, 1, batch_first=True))
    assert len(applied(check_rewrite(model, (random_input(2, 4, 6),), PATTERNS))) == 1


def test_dropout_is_kept() -> None:
    """Masks are drawn in another way, so in training mode values cannot be compared."""
    model = net(CALLS["need_weights=False"], attn=attention(dropout=0.5))
    result = check_rewrite(model, (X,), PATTERNS, train=False)
    (sdpa,) = (module for module in result.model.modules() if isinstance(module, ScaledDotProductAttention))
    assert sdpa.dropout == 0.5
    trained = transform(model.train(), patterns=PATTERNS).model
    assert trained.training and all(module.training for module in trained.modules())
    first, second = run(trained, (X,)), run(trained, (X,))
    assert first.shape == X.shape and not torch.equal(first, second)
    trained.eval()
    assert torch.equal(run(trained, (X,)), run(trained, (X,)))


def test_double_precision() -> None:
    model = net(CALLS["need_weights=False"], attn=attention()).double()
    assert len(applied(check_rewrite(model, (X.double(),), PATTERNS, tolerance=1e-12))) == 1


def test_the_parts_hold_the_original_parameters_under_the_modules_path() -> None:
    model = net(CALLS["need_weights=False"], attn=attention())
    decomposed = transform(model, patterns=PATTERNS).model
    assert [name for name, _ in decomposed.attn.named_children()] == ["in_proj", "attention", "out_proj"]
    assert torch.equal(decomposed.attn.in_proj.linear.weight, model.attn.in_proj_weight)
    assert torch.equal(decomposed.attn.out_proj.weight, model.attn.out_proj.weight)
    assert sum(p.numel() for p in decomposed.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_module_that_is_called_twice() -> None:
    model = net(lambda m, x: (y := m.attn(x, x, x)[0], m.attn(y, y, y)[0])[1], attn=attention())
    result = check_rewrite(model, (X,), PATTERNS)
    assert applied(result) == [(NAME, "attn"), (NAME, "attn_1")]


def test_two_modules_that_share_an_output_projection() -> None:
    model = net(lambda m, x: (y := m.a(x, x, x)[0], m.b(y, y, y)[0])[1], a=attention(), b=attention())
    model.b.out_proj = model.a.out_proj
    result = check_rewrite(model, (X,), PATTERNS)
    assert len(applied(result)) == 2
    projections = [m for m in result.model.modules() if type(m).__name__ == "NonDynamicallyQuantizableLinear"]
    assert len({id(m.weight) for m in projections}) == 1


def test_the_parts_are_fused_afterwards() -> None:
    result = check_rewrite(net(CALLS["attn(x, x, x)[0]"], attn=attention()), (X,), TENSORRT_PATTERNS)
    assert fused_counts(result.model) == {
        "FusedMHAInProjection": 1,
        "FusedScaledDotProductAttention": 1,
        "FusedLinear": 1,
    }


def test_what_is_computed_from_the_output_is_kept() -> None:
    model = net(lambda m, x: (y := m.attn(x, x, x)[0], y, y + x)[1:], attn=attention())
    assert len(applied(check_rewrite(model, (X,), PATTERNS))) == 1


#: B 2, H 2, S 5. No row is masked whole.
MASKS: dict[str, torch.Tensor] = {
    "causal, booleans": torch.ones(5, 5).triu(1).bool(),
    "causal, numbers": torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")),
    "numbers": random_input(5, 5),
    "one for each head": random_input(4, 5, 5),
    "booleans for each head": random_input(4, 5, 5) > 1.5,
}
PADDINGS: dict[str, torch.Tensor] = {
    "padding": torch.tensor([[False] * 5, [False] * 3 + [True] * 2]),
    "padding, numbers": random_input(2, 5),
}


def check_masked(call: Callable[..., object], x: torch.Tensor, patterns: list, **settings: object) -> nn.Module:
    model = net(call, attn=attention(**settings))
    for name, mask in {**MASKS, **PADDINGS}.items():
        model.register_buffer(name, mask)
    result = check_rewrite(model, (x,), patterns, tolerance=1e-5)
    assert (NAME, "attn") in applied(result)
    return result.model


@pytest.mark.parametrize("batch_first", [True, False])
class TestMasks:
    @pytest.mark.parametrize("mask", MASKS)
    def test_attention_masks(self, mask: str, batch_first: bool) -> None:
        def call(model: nn.Module, x: torch.Tensor) -> object:
            return model.attn(x, x, x, attn_mask=getattr(model, mask), need_weights=False)[0]

        found = check_masked(call, X if batch_first else X.transpose(0, 1), PATTERNS, batch_first=batch_first)
        assert parts(found) == [PARTS[0], "AttentionMask", *PARTS[1:]]

    @pytest.mark.parametrize("padding", PADDINGS)
    def test_padding_masks(self, padding: str, batch_first: bool) -> None:
        def call(model: nn.Module, x: torch.Tensor) -> object:
            return model.attn(x, x, x, getattr(model, padding))[0]

        check_masked(call, X if batch_first else X.transpose(0, 1), PATTERNS, batch_first=batch_first)

    def test_both_and_fused(self, batch_first: bool) -> None:
        def call(model: nn.Module, x: torch.Tensor) -> object:
            padding, mask = getattr(model, "padding, numbers"), getattr(model, "one for each head")
            return model.attn(x, x, x, padding, attn_mask=mask)[0]

        x = X if batch_first else X.transpose(0, 1)
        found = check_masked(call, x, TENSORRT_PATTERNS, batch_first=batch_first)
        assert fused_counts(found)["FusedScaledDotProductAttention"] == 1


@pytest.mark.parametrize("shape", [(2, 5, 8), (5, 8)], ids=["a batch", "no batch"])
def test_a_batch_that_comes_second(shape: tuple[int, ...]) -> None:
    model = net(CALLS["attn(x, x, x)[0]"], attn=attention(batch_first=False))
    result = check_rewrite(model, (random_input(*shape),), PATTERNS)
    assert applied(result) == [(NAME, "attn")]


def test_masks_without_a_batch() -> None:
    model = net(lambda m, x: m.attn(x, x, x, m.padding, attn_mask=m.mask)[0], attn=attention())
    model.register_buffer("padding", random_input(5))
    model.register_buffer("mask", random_input(2, 5, 5))
    assert len(applied(check_rewrite(model, (random_input(5, 8),), PATTERNS))) == 1


NOT_DECOMPOSED: dict[str, tuple[Callable[..., object], dict[str, object], str]] = {
    "causal": (
        lambda m, x: m.attn(x, x, x, attn_mask=m.mask, is_causal=True)[0],
        {},
        "is_causal is set, with which torch may ignore the mask: pass the mask alone",
    ),
    "embedding sizes": (
        lambda m, x: m.attn(x, x, x)[0],
        {"kdim": 8, "vdim": 8},
        "",  # equal to the query's: torch takes them for the plain case, and so do we
    ),
    "add_bias_kv": (
        lambda m, x: m.attn(x, x, x)[0],
        {"add_bias_kv": True},
        "it adds a bias or zeros to the keys and values",
    ),
    "add_zero_attn": (
        lambda m, x: m.attn(x, x, x)[0],
        {"add_zero_attn": True},
        "it adds a bias or zeros to the keys and values",
    ),
    "weights used": (
        lambda m, x: m.attn(x, x, x)[1],
        {},
        "getitem uses more of its result than the attention output; need_weights=False gives no more",
    ),
    "both are outputs": (
        lambda m, x: m.attn(x, x, x),
        {},
        "output uses more of its result than the attention output; need_weights=False gives no more",
    ),
}


@pytest.mark.parametrize(("call", "settings", "reason"), NOT_DECOMPOSED.values(), ids=NOT_DECOMPOSED)
def test_declines(call: Callable[..., object], settings: dict[str, object], reason: str) -> None:
    model = net(call, attn=attention(**settings))
    model.register_buffer("mask", torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == ([f"attn: {NAME} declined: {reason}"] if reason else [])
    assert len(applied(result)) == (0 if reason else 1)


def test_declines_hooks() -> None:
    model = net(CALLS["need_weights=False"], attn=attention())
    model.attn.register_forward_pre_hook(lambda module, args: tuple(arg + 1 for arg in args))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [f"attn: {NAME} declined: hooks or parametrizations on the module would be lost"]


def test_a_hook_on_the_output_projection_which_attention_never_runs() -> None:
    """``nn.MultiheadAttention`` reads the projection's weight and does not call it."""
    model = net(CALLS["need_weights=True"], attn=attention())
    model.attn.out_proj.register_forward_hook(lambda module, args, output: output * 2)
    check_rewrite(model, (X,), PATTERNS)


def test_declines_a_parametrization() -> None:
    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 2

    model = net(CALLS["need_weights=True"], attn=attention())
    nn.utils.parametrize.register_parametrization(model.attn.out_proj, "weight", Doubled())
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [f"attn: {NAME} declined: hooks or parametrizations on the module would be lost"]
