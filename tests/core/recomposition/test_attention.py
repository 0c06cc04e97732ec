"""Attention that is written out becomes one module, with the same numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import ScaledDotProductAttention
from embedl_deploy.recomposition import RecomposeAttentionPattern
from support.agreement import check_rewrite, reasons
from support.nets import net, random_input

PATTERN = RecomposeAttentionPattern()
NAMES = [example.note for example in PATTERN.examples()]
#: (B, H, S, D): five queries, seven keys.
Q, K, V = (random_input(2, 3, n, 4, seed=n).double() for n in (5, 7, 7))
BLIND = torch.ones(5, 7, dtype=torch.bool).tril(1)
BLIND[2] = False  # the third query sees nothing


def example(name):
    return next(example for example in PATTERN.examples() if example.note == name)


def recomposed(model, inputs=(Q, K, V), trace="symbolic"):
    """The module that takes the attention's place, and the result."""
    result = transform(model, inputs, patterns=[PATTERN], trace=trace, strict=True)
    found = [module for module in result.model.modules() if isinstance(module, ScaledDotProductAttention)]
    assert len(found) == result.report["applied_count"] == 1, reasons(result)
    return found[0], result


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_to_twelve_digits(name, trace):
    model, inputs = example(name).model.double().eval(), tuple(x.double() for x in example(name).args)
    _, result = recomposed(model, inputs, trace)
    torch.testing.assert_close(result.model(*inputs), model(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_mask_of_joined_batch_and_heads_is_for_every_batch(trace, size):
    alibi = example("a slope for each head, as ALiBi has it")
    model, inputs = alibi.model.double().eval(), tuple(x.double()[:size] for x in alibi.args)
    _, result = recomposed(model, inputs, trace)
    for other in (1, 2, 3):
        given = [random_input(other, 2, 5, 4, seed=n).double() for n in (1, 2, 3)]
        torch.testing.assert_close(result.model(*given), model(*given), rtol=1e-12, atol=1e-12)


def test_training_and_a_second_run():
    model = net(
        lambda m, q, k, v: (q @ k.mT * m.temperature.exp() + m.bias).softmax(-1) @ v,
        temperature=nn.Parameter(torch.ones(3, 1, 1)),
        bias=nn.Parameter(torch.ones(3, 5, 7)),
    )
    check_rewrite(model, tuple(x.float() for x in (Q, K, V)), [PATTERN])
    check_rewrite(
        net(lambda m, x: (torch.tanh(x @ x.mT) * 2).softmax(-1) @ m.up(x), up=nn.Linear(4, 6)), [Q.float()], [PATTERN]
    )


SETTINGS = {
    "a factor behind": (lambda m, q, k, v: (q @ k.mT / 8).softmax(-1) @ v, {"scale": 0.125}),
    "two factors": (lambda m, q, k, v: (2 * (q @ k.mT) * 0.25).softmax(-1) @ v, {"scale": 0.5}),
    "none": (lambda m, q, k, v: (q @ k.mT).softmax(-1) @ v, {"scale": 1.0}),
    "a module": (lambda m, q, k, v: m.softmax(q @ k.mT) @ v, {"scale": 1.0}),
    "by position": (lambda m, q, k, v: torch.softmax(torch.matmul(q, k.mT), 3) @ v, {"scale": 1.0}),
    "a cap of one": (lambda m, q, k, v: (q @ k.mT).tanh().softmax(-1) @ v, {"softcap": 1.0}),
    "a cap": (lambda m, q, k, v: (3 * torch.tanh(q @ k.mT / 2)).softmax(-1) @ v, {"softcap": 3.0, "scale": 1.5}),
    "a capped sum": (lambda m, q, k, v: (3 * torch.tanh(q @ k.mT / 3) - m.bias).softmax(-1) @ v, {"softcap": 3.0}),
    "scaled with its bias": (lambda m, q, k, v: ((q @ k.mT + m.bias) / 2).softmax(-1) @ v, {"scale": 0.5}),
    "in place": (lambda m, q, k, v: (q @ k.mT).mul_(0.5).add_(m.bias).softmax(-1) @ v, {"scale": 0.5}),
    "dropout": (lambda m, q, k, v: m.drop((q @ k.mT).softmax(-1)) @ v, {"dropout": 0.3}),
    "dropout, off": (lambda m, q, k, v: F.dropout((q @ k.mT).softmax(-1), 0.3, m.training) @ v, {"dropout": 0.0}),
    "upcast": (lambda m, q, k, v: (q @ k.mT).double().softmax(-1).to(q.dtype) @ v, {"softmax_dtype": torch.float64}),
    "filled": (lambda m, q, k, v: (q @ k.mT).masked_fill(m.hidden, -1e4).softmax(-1) @ v, {"hidden_score": -1e4}),
    "filled twice": (
        lambda m, q, k, v: (q @ k.mT).masked_fill(m.hidden, -1e4).masked_fill(m.hidden.flip(0), -1e4).softmax(-1) @ v,
        {"hidden_score": -1e4},
    ),
    "where": (lambda m, q, k, v: torch.where(m.hidden, -1e4, q @ k.mT).softmax(-1) @ v, {"hidden_score": -1e4}),
    "seen": (
        lambda m, q, k, v: (q @ k.mT + m.bias).masked_fill(~m.seen, -math.inf).softmax(-1) @ v,
        {"unseen_is_nan": True, "hidden_score": -math.inf},
    ),
    "a factor for each query": (lambda m, q, k, v: (q @ k.mT / q.norm(dim=-1, keepdim=True)).softmax(-1) @ v, {}),
    "a number from the shape": (lambda m, q, k, v: (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v, {"scale": 1.0}),
    "keys by columns": (lambda m, q, k, v: (q @ k.view(2, 3, 4, 7)).softmax(-1) @ v, {}),
    "one head of keys": (lambda m, q, k, v: (q @ k[:, :1].mT).softmax(-1) @ v[:, :1], {}),
    "weights behind": (lambda m, q, k, v: v.mT @ (q @ k.mT).softmax(-1).mT, {}),
    "scores behind": (lambda m, q, k, v: torch.einsum("bhji,bhjd->bdhi", (k @ q.mT).mT.mT.softmax(-2), v), None),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name):
    function, wanted = SETTINGS[name]
    model = net(
        function, bias=nn.Parameter(torch.zeros(3, 5, 7)), softmax=nn.Softmax(-1), drop=nn.Dropout(0.3)
    ).double()
    model.register_buffer("hidden", ~BLIND)
    model.register_buffer("seen", torch.ones(5, 7).tril().bool())
    if wanted is None:
        assert transform(model, (Q, K, V), patterns=[PATTERN]).report["applied_count"] == 0
        return
    module, result = recomposed(model)
    assert {key: getattr(module, key) for key in wanted} == wanted
    torch.testing.assert_close(result.model(Q, K, V), model(Q, K, V), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("type_", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_hidden_by_the_lowest_number_of_the_models_type(type_):
    """As DeBERTa has it; captured by torch.export, the number follows the model into another type."""

    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, q, hidden):
            scores = (q * self.weight) @ q.mT
            return scores.masked_fill(hidden, torch.finfo(self.weight.dtype).min).softmax(-1) @ q

    q = torch.linspace(-1, 1, 24).reshape(1, 2, 3, 4)
    hidden = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 1]]).bool()  # the second row sees nothing
    model = Hiding().eval()
    result = transform(model, (q, hidden), patterns=[PATTERN], trace="export")
    assert result.report["applied_count"] == 1
    changed, wanted = result.model.to(type_), model.to(type_)
    with torch.no_grad():
        torch.testing.assert_close(changed(q.to(type_), hidden), wanted(q.to(type_), hidden))


def test_a_row_without_keys_is_what_torch_makes_of_it():
    """NaN where all scores are −∞; the mean of the values where all are one number; in the rows beside, the softmax."""
    model = net(lambda m, q, k, v: (q @ k.mT).masked_fill(~m.seen, m.number).softmax(-1) @ v, number=-math.inf).double()
    model.register_buffer("seen", BLIND)
    _, result = recomposed(model)
    attended = result.model(Q, K, V)
    assert attended[:, :, 2].isnan().all() and attended[:, :, [0, 1, 3, 4]].isfinite().all()
    model.number = -1e30
    _, result = recomposed(model)
    attended = result.model(Q, K, V)
    torch.testing.assert_close(attended[:, :, 2], V.mean(-2), rtol=1e-12, atol=1e-12)
    first = (Q[:, :, :1] @ K[:, :, :2].mT).softmax(-1) @ V[:, :, :2]  # the first query sees two keys
    torch.testing.assert_close(attended[:, :, :1], first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("infinite", [True, False])
def test_an_input_that_is_added_may_hide_all_keys(infinite):
    """A mask that comes from outside may be −∞; one that is made of parameters is not looked at."""
    model = net(
        lambda m, q, k, v: (q @ k.mT + (v.mean() + q if infinite else m.bias)).softmax(-1) @ v,
        bias=nn.Parameter(torch.zeros(5, 1)),
    )
    x = random_input(1, 2, 5, 5)
    module, _ = recomposed(model, (x, x, x))
    assert module.unseen_is_nan is infinite


class Windows(nn.Module):
    """As Swin writes it, over any number of images of two windows."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.randn(2, 4, 4))
        self.register_buffer("mask", torch.randn(2, 4, 4))

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) + self.bias
        scores = scores.view(-1, 2, 2, tokens, tokens) + self.mask.unsqueeze(1).unsqueeze(0)
        return (scores.view(-1, 2, tokens, tokens).softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)


def test_windows_keep_an_open_batch():
    model = Windows().double().eval()
    _, result = recomposed(model, (torch.randn(4, 4, 8).double(),))
    for batch in (2, 4, 6):
        x = torch.randn(batch, 4, 8).double()
        torch.testing.assert_close(result.model(x), model(x), rtol=1e-12, atol=1e-12)


REASONS = {
    "filled by a tensor": (
        lambda m, q, k, v: (q @ k.mT).masked_fill(q[..., :1] > 0, v.mean()).softmax(-1) @ v,
        "masked_fill replaces scores by mean, which is not a literal number in the graph",
    ),
    "weights twice": (lambda m, q, k, v: ((w := (q @ k.mT).softmax(-1)) @ v, w), "softmax is an output of the model"),
    "scores twice": (
        lambda m, q, k, v: (s := q @ k.mT).softmax(-1) @ v * s.sum(),
        "matmul feeds 2 users (softmax, sum_1)",
    ),
    "across heads": (
        lambda m, q, k, v: m.mix(q @ k.mT).softmax(-1) @ v,
        "mix (Conv2d) stands between the softmax and a product of queries and keys",
    ),
    "cut": (
        lambda m, q, k, v: (q @ k.mT)[..., 1:].softmax(-1) @ v[:, :, 1:],
        "getitem (getitem) stands between the softmax and a product of queries and keys",
    ),
    "a factor for each key": (
        lambda m, q, k, v: (q @ k.mT * m.keys).softmax(-1) @ v,
        "mul scales the scores by keys, which is not one factor for each query",
    ),
    "masked, then capped": (
        lambda m, q, k, v: torch.tanh(q @ k.mT + m.keys).softmax(-1) @ v,
        "tanh caps scores that are masked or capped already",
    ),
    "hidden, then biased": (
        lambda m, q, k, v: ((q @ k.mT).masked_fill(q[:, :, :, :1] > 0, -9.0) + m.keys).softmax(-1) @ v,
        "add adds to scores of which some are hidden already",
    ),
    "dropped whatever the mode": (
        lambda m, q, k, v: F.dropout((q @ k.mT).softmax(-1), 0.3, training=True) @ v,
        "dropout drops attention weights in evaluation mode too",
    ),
    "broadcast": (
        lambda m, q, k, v: ((q[:1] @ k[:1].mT) + q[:, :, :1, :1]).softmax(-1) @ v,
        "add changes the shape of the scores",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_in_the_way_is_told(name):
    function, reason = REASONS[name]
    model = net(function, mix=nn.Conv2d(3, 3, 1), keys=nn.Parameter(torch.ones(7))).double()
    result = transform(model, (Q, K, V), patterns=[PATTERN], strict=True, verify_capture=False)
    assert result.report["applied_count"] == 0
    assert [told.rpartition("declined: ")[2] for told in reasons(result)] == [reason]


def test_a_number_of_a_softmax_is_not_transposed():
    model = net(lambda m, q, k, v: m.mix.softmax(-1)[0] * (q @ k.mT), mix=nn.Parameter(torch.ones(2))).double()
    assert transform(model, (Q, K, V), patterns=[PATTERN], strict=True).report["applied_count"] == 0


def test_without_shapes_nothing_is_taken():
    result = transform(net(lambda m, q, k, v: (q @ k.mT).softmax(-1) @ v), patterns=[PATTERN])
    assert result.report["applied_count"] == 0


def test_a_hook_on_the_softmax_keeps_it():
    model = net(lambda m, q, k, v: m.softmax(q @ k.mT) @ v, softmax=nn.Softmax(-1))
    model.softmax.register_forward_hook(lambda module, args, output: None)
    result = transform(model, tuple(x.float() for x in (Q, K, V)), patterns=[PATTERN])
    assert [told.rpartition("declined: ")[2] for told in reasons(result)] == ["hooks on softmax would be lost"]


def test_an_upcast_is_kept_in_half_precision():
    """In float32 the function does all of it; in float16 the softmax is computed in float32, as the author wrote."""
    model = net(lambda m, q, k, v: (q @ k.mT).softmax(-1, dtype=torch.float32).to(q.dtype) @ v)
    inputs = tuple(x.float() for x in (Q, K, V))
    _, result = recomposed(model, inputs)
    halves = tuple(x.half() for x in inputs)
    assert torch.equal(result.model.half()(*halves), model.half()(*halves))


def test_float16_values_may_be_weighed_by_scores_in_float32():
    """As GPT-J writes it: queries and keys are upcast, values are not, and weights follow the values."""
    model = net(lambda m, q, k, v: (q.float() @ k.float().mT).softmax(-1).to(v.dtype) @ v)
    _, result = recomposed(model, tuple(x.float() for x in (Q, K, V)), trace="export")
    halves = tuple(x.half() for x in (Q, K, V))
    attended = result.model.half()(*halves)
    assert attended.dtype == torch.float16
    assert torch.equal(attended, model.half()(*halves))


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_a_factor_for_each_key_of_which_the_example_has_one_stays(trace):
    """Attention between the samples of a batch of one: factors for queries and for keys look alike."""
    model = net(lambda m, q, w: ((q @ q.t()) * w).softmax(-1) @ q)
    result = transform(model, (random_input(1, 4), random_input(1)), patterns=[PATTERN], trace=trace)
    assert "may be a factor for each key" in reasons(result)[0]
    q, factors = random_input(3, 4), random_input(3, seed=2)
    wanted = (torch.einsum("id,jd,j->ij", q, q, factors)).softmax(-1) @ q
    torch.testing.assert_close(result.model(q, factors), wanted)


def test_a_factor_that_is_one_for_each_query_in_every_call_is_taken_with_one_key():
    model = net(lambda m, q, k, v: ((q @ k.mT) * m.gate(q).sigmoid()).softmax(-1) @ v, gate=nn.Linear(4, 1)).double()
    _, result = recomposed(model, (Q, K[:, :, :1], V[:, :, :1]))
    torch.testing.assert_close(result.model(Q, K, V), model(Q, K, V), rtol=1e-12, atol=1e-12)
