"""Operators that could be quantized, and where nothing offers to."""

from collections import OrderedDict

import pytest
import torch
from torch import fx, nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan, load_transformation_plan, transform
from embedl_deploy.export.prepare import reasons_in_float
from embedl_deploy.modules import ConvertedModule
from embedl_deploy.patterns import Pattern
from embedl_deploy.quantize import QuantConfig, insert_qdq, quantization_report
from support.nets import net
from support.quantizable import perceptron
from support.small_patterns import QUANTIZABLE, QLinear


def secret(x):
    """A function that nobody knows."""
    return x.to(x.device) * torch.arange(2, device=x.device)


def squared(x):
    """Another."""
    return x @ x


def report_of(model, config=None, patterns=QUANTIZABLE):
    result = transform(model, patterns=patterns)
    return quantization_report(insert_qdq(result.model, result.matches, config))


def uncovered(function, patterns=QUANTIZABLE, **modules):
    return report_of(net(function, **modules), patterns=patterns).uncovered


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda self, x: x @ x.transpose(-2, -1), "matmul"),
        (lambda self, x: torch.bmm(x, x), "bmm"),
        (lambda self, x: torch.einsum("bij,bjk->bik", x, x), "einsum"),
        (lambda self, x: torch.linalg.multi_dot([x, x, x]), "linalg_multi_dot"),
        (lambda self, x: torch.ops.aten.mm(x, x), "mm"),
        (lambda self, x: torch.sparse.mm(x, x), "_sparse_mm"),
        (lambda self, x: torch.cdist(x, x + 1), "cdist"),
        (lambda self, x: (x.unsqueeze(-1) * x.flip(0)).sum(1), "mul and sum"),
        (lambda self, x: x.addmv(x, x), "addmv"),
        (lambda self, x: nn.functional.cosine_similarity(x, x + 1), "CosineSimilarity"),
        (lambda self, x: torch.nn.functional.bilinear(x, x, x), "Bilinear"),
        (lambda self, x: torch.convolution(x, x, None, [1], [0], [1], False, [0], 1), "convolution"),
    ],
)
def test_products_of_tensors(function, kind):
    ((_, operator, reason),) = uncovered(function)
    computed = "its weight is computed from what flows in, so there is none to quantize beforehand"
    assert (operator, reason) == (
        kind,
        computed if kind in ("Bilinear", "convolution") else "no fusion has taken it",
    )


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda self, x: nn.functional.cosine_similarity(x, x + 1), "CosineSimilarity"),
        (lambda self, x: nn.functional.affine_grid(x.reshape(-1, 2, 3), [4, 1, 4, 4], False), "affine_grid"),
    ],
)
def test_what_multiplies_little_is_bound_by_memory(function, kind):
    result = transform(net(function), torch.ones(4, 6), patterns=QUANTIZABLE)
    ((_, operator, reason),) = quantization_report(insert_qdq(result.model, result.matches, None)).uncovered
    assert (operator, reason) == (
        kind,
        "it multiplies number by number and sums: it is bound by memory, not by arithmetic",
    )


def test_a_product_of_positions_is_the_same_in_every_call():
    """Rotary angles: positions, one for each row, by frequencies that are kept."""

    def rotated(m, x):
        angles = torch.einsum("i,j->ij", torch.arange(x.shape[0]).type_as(m.table), m.table[0])
        return x * angles.cos()

    (told,) = uncovered(rotated, table=nn.Parameter(torch.ones(4, 4)))
    assert told[1:] == ("einsum", "what it computes is the same in every call, of parameters and sizes alone")


def test_what_a_pattern_declined_is_told_with_its_reason():
    class Activated(Pattern):
        tree = (nn.Linear, nn.ReLU)
        graft = nn.Sequential

    found = uncovered(lambda self, x: (y := self.fc(x), torch.relu(y)), [Activated()], fc=nn.Linear(4, 4))
    assert found == (("fc", "Linear", "fc is an output of the model"),)


def test_what_was_switched_off_is_told_as_the_plan_has_it():
    """The report, the file and why_not have one reason; a plan that came from JSON as well."""
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.ones(1, 4)
    plan = get_transformation_plan(model, x, patterns=QUANTIZABLE)
    (pattern,) = (name for name, match in plan.matches["_0"].items() if match.apply)
    assert plan.disable("_0", pattern) == []
    plan = load_transformation_plan(plan.to_json(), model, x, patterns=QUANTIZABLE)
    result = apply_transformation_plan(plan)
    quantized = insert_qdq(result.model)
    assert quantization_report(quantized).uncovered == (("_0", "Linear", "switched off in the plan"),)
    assert reasons_in_float(quantized) == {"0": "switched off in the plan"}
    assert any(line.endswith(": switched off in the plan") for line in result.report.why_not("_0"))


def test_what_failed_is_told_with_its_error():
    class Breaking(Pattern):
        tree = (nn.Linear,)

        def replace(self, match):
            raise ValueError("no place for it")

    found = uncovered(lambda self, x: self.fc(x), [Breaking()], fc=nn.Linear(4, 4))
    assert found == (("fc", "Linear", "Breaking failed: ValueError: no place for it"),)


def test_what_is_not_known():
    """Functions from outside torch, layers from outside torch with a weight, conversions that were not fused."""

    class Projection(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

    class Scores(ConvertedModule):
        def forward(self, q, k):
            return torch.relu(q @ k.transpose(-2, -1))

    class Heads(ConvertedModule):
        def forward(self, x):
            return x.reshape(2, 2)

    graph = fx.Graph()
    x = graph.placeholder("x")
    scores = graph.call_module("scores", (graph.call_module("heads", (x,)), x))
    computed = graph.call_function(secret, (graph.call_module("projection", (scores,)),))
    graph.output(graph.call_function(OrderedDict, ([("y", computed)],)))  # which holds a value, and is known
    model = fx.GraphModule({"scores": Scores(), "heads": Heads(), "projection": Projection()}, graph)
    assert quantization_report(insert_qdq(model)).uncovered == (
        ("scores", "Scores", "no fusion has taken it, or none with places (it computes matmul)"),
        ("projection", "Projection", "it is from outside torch, and whether it multiplies is not known"),
        ("secret", "secret", "it is from outside torch, and whether it multiplies is not known"),
    )


def test_running_a_function_tells_what_it_computes():
    """A function that torch.fx keeps whole, as libraries have them wrapped."""

    def told(function):
        graph = fx.Graph()
        graph.output(graph.call_function(function, (graph.placeholder("x"),)))
        result = transform(fx.GraphModule({}, graph), torch.ones(2, 2), patterns=[])
        return quantization_report(insert_qdq(result.model)).uncovered

    assert told(secret) == ()
    assert told(squared) == (("squared", "squared", "no pattern knows it, and it computes mm"),)


def test_weighted_modules_and_calls():
    def forward(self, x):
        return self.rnn(x)[0], self.up(x), torch.nn.functional.linear(x, self.up.weight[0])

    found = uncovered(forward, rnn=nn.LSTM(4, 4), up=nn.ConvTranspose1d(4, 4, 1))
    assert {(operator, reason) for _, operator, reason in found} == {
        ("LSTM", "no fusion has taken it"),
        ("ConvTranspose1d", "no fusion has taken it"),
        ("Linear", "no fusion has taken it"),
    }


def test_a_module_that_opts_out():
    class OptsOut(QLinear):
        inputs_to_quantize = frozenset()

        def __init__(self, linear):
            super().__init__(linear)
            del self.weight_fake_quant

        def forward(self, x):
            return self.linear(x)

    class OptsOutPattern(Pattern):
        tree = (nn.Linear,)
        qdq_points = frozenset()
        graft = OptsOut

    found = uncovered(lambda self, x: self.fc(x), [OptsOutPattern()], fc=nn.Linear(4, 4))
    assert found == (("fc_1", "OptsOut", "the module, or the pattern that placed it, declares no quantization point"),)


def test_what_is_covered_and_what_has_no_weight_is_not_listed():
    assert (
        uncovered(
            lambda self, x: torch.relu(self.fc(self.norm(x))) * 2 + x.sum(),
            fc=nn.Linear(4, 4),
            norm=nn.LayerNorm(4),
        )
        == ()
    )


def test_a_point_that_was_refused_is_not_uncovered():
    report = report_of(perceptron(), QuantConfig(skip=["*"]))
    assert report.uncovered == () and len(report.not_quantized) == 4
