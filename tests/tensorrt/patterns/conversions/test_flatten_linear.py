"""Flatten → [dropout, activation]* → Linear  becomes  [dropout, activation]* → Conv2d(1×1) → Flatten."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.patterns import FlattenLinearToConv1x1Pattern
from support.agreement import applied, check_rewrite, fused_counts, reasons
from support.nets import net, random_input

PATTERNS = [FlattenLinearToConv1x1Pattern()]
#: (N, C, 1, 1), as global pooling gives it.
X = random_input(3, 6, 1, 1)

FLATTENS = {
    "nn.Flatten()": nn.Flatten(),
    "nn.Flatten(1, 3)": nn.Flatten(1, 3),
    "torch.flatten(x, 1)": lambda x: torch.flatten(x, 1),
    "torch.flatten(x, start_dim=1, end_dim=-1)": lambda x: torch.flatten(x, start_dim=1, end_dim=-1),
    "x.flatten(1)": lambda x: x.flatten(1),
    "x.flatten(start_dim=1)": lambda x: x.flatten(start_dim=1),
    "x.view(x.size(0), -1)": lambda x: x.view(x.size(0), -1),
    "x.view((x.size(0), -1))": lambda x: x.view((x.size(0), -1)),
    "x.view(x.size()[0], -1)": lambda x: x.view(x.size()[0], -1),
    "x.view(x.shape[0], -1)": lambda x: x.view(x.shape[0], -1),
    "x.reshape(x.shape[0], -1)": lambda x: x.reshape(x.shape[0], -1),
    "torch.reshape(x, (x.shape[0], -1))": lambda x: torch.reshape(x, (x.shape[0], -1)),
}


def kinds(model: nn.Module) -> list[str]:
    """Types of the modules that the graph calls, in order."""
    return [type(model.get_submodule(n.target)).__name__ for n in model.graph.nodes if n.op == "call_module"]


@pytest.mark.parametrize("flatten", FLATTENS.values(), ids=FLATTENS)
def test_matches_every_spelling_of_flatten(flatten: object) -> None:
    model = net(lambda m, x: m.fc(m.flatten(x)), flatten=flatten, fc=nn.Linear(6, 4))
    result = check_rewrite(model, (X,), PATTERNS)
    assert [entry[0] for entry in applied(result)] == ["FlattenLinearToConv1x1Pattern"]
    conv = result.model.fc
    assert type(conv) is nn.Conv2d and conv.kernel_size == (1, 1) and conv.weight.shape == (4, 6, 1, 1)
    assert torch.equal(conv.weight.flatten(), model.fc.weight.flatten()) and torch.equal(conv.bias, model.fc.bias)


@pytest.mark.parametrize(
    "between",
    [
        nn.Dropout(0.5),
        nn.Sequential(nn.Dropout(0.3), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Hardswish(), nn.Dropout(0.3, inplace=True)),
        lambda x: F.relu(F.dropout(x, 0.2, training=False)),
    ],
    ids=["dropout", "dropout, relu_", "hardswish, dropout_", "functional"],
)
@pytest.mark.parametrize("shapes", [True, False], ids=["shapes", "no shapes"])
def test_what_stands_between_moves_before_the_convolution(between: object, shapes: bool) -> None:
    """Elements keep their order in memory, so a dropout draws the same mask for them from the same random state."""
    model = net(
        lambda m, x: m.fc(m.between(torch.flatten(m.pool(x), 1))),
        pool=nn.AdaptiveAvgPool2d(1),
        between=between,
        fc=nn.Linear(6, 4),
    )
    result = check_rewrite(model, (random_input(3, 6, 5, 5),), PATTERNS, shapes=shapes)
    assert kinds(result.model)[-1] == "Conv2d"
    assert list(result.model.graph.nodes)[-2].name.startswith("flatten")


def test_without_a_bias() -> None:
    model = net(lambda m, x: m.fc(x.flatten(1)), fc=nn.Linear(6, 4, bias=False))
    assert check_rewrite(model, (X,), PATTERNS).model.fc.bias is None


def test_a_batch_of_one_and_other_batch_sizes_than_the_example() -> None:
    model = net(lambda m, x: m.fc(x.view(x.size(0), -1)), fc=nn.Linear(6, 4))
    converted = transform(model, random_input(1, 6, 1, 1), patterns=PATTERNS).model
    torch.testing.assert_close(converted(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", ["x.size(0)", "pool(x).size(0)"])
def test_the_batch_size_may_be_read_further_up(size: str) -> None:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled = m.pool(m.bn(m.conv(x)))
        return m.fc(pooled.view((x if size == "x.size(0)" else pooled).size(0), -1))

    model = net(
        forward, conv=nn.Conv2d(2, 6, 3), bn=nn.BatchNorm2d(6), pool=nn.AdaptiveAvgPool2d((1, 1)), fc=nn.Linear(6, 4)
    )
    result = check_rewrite(model, (random_input(3, 2, 5, 5),), PATTERNS)
    assert len(applied(result)) == 1


@pytest.mark.parametrize(
    "flatten",
    [nn.Flatten(2), lambda x: x.view(3, -1), lambda x: x.view(x.size(1) // 2, -1), lambda x: x.view(-1, 6)],
    ids=["Flatten(2)", "view(3, -1)", "view(x.size(1) // 2, -1)", "view(-1, 6)"],
)
def test_other_reshapes_do_not_match(flatten: object) -> None:
    model = net(
        lambda m, x: m.fc(m.flatten(x)), flatten=flatten, fc=nn.Linear(1 if isinstance(flatten, nn.Flatten) else 6, 4)
    )
    result = check_rewrite(model, (X,), PATTERNS)
    assert applied(result) == []
    (line,) = result.report.why_not("fc")
    assert line.startswith("fc: FlattenLinearToConv1x1Pattern does not match: fc comes after ")
    assert line.endswith(", expected flatten")


def test_declines_a_map_that_is_not_1x1() -> None:
    model = net(lambda m, x: m.fc(m.flatten(x)), flatten=nn.Flatten(), fc=nn.Linear(24, 4))
    result = check_rewrite(model, (random_input(3, 6, 2, 2),), PATTERNS)
    assert reasons(result) == [
        "flatten: FlattenLinearToConv1x1Pattern declined: the map that is flattened is 2×2, not 1×1"
    ]


def test_declines_an_input_of_another_rank() -> None:
    model = net(lambda m, x: m.fc(m.flatten(x)), flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    result = check_rewrite(model, (random_input(3, 6, 1),), PATTERNS)
    assert reasons(result) == ["flatten: FlattenLinearToConv1x1Pattern declined: x has 3 dimensions, not 4"]


@pytest.mark.parametrize("pool", [None, nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d((1, None))])
def test_declines_an_unknown_shape(pool: nn.Module | None) -> None:
    model = net(
        lambda m, x: m.fc(m.flatten(x if m.pool is None else m.pool(x))),
        pool=pool,
        flatten=nn.Flatten(),
        fc=nn.Linear(6 if pool is None else 24 if pool.output_size == 2 else 30, 4),
    )
    x = X if pool is None else random_input(3, 6, 5, 5)
    result = check_rewrite(model, (x,), PATTERNS, shapes=False)
    assert reasons(result) == [
        f"flatten: FlattenLinearToConv1x1Pattern declined: the shape of {'x' if pool is None else 'pool'} is unknown: "
        "pass example inputs, args="
    ]


def test_without_shapes_a_global_pool_is_looked_for_through_what_keeps_the_size() -> None:
    model = net(
        lambda m, x: m.fc(m.drop(m.act(m.pool(x))).flatten(1)),
        pool=nn.AdaptiveAvgPool2d(1),
        act=nn.SiLU(),
        drop=nn.Dropout(),
        fc=nn.Linear(6, 4),
    )
    result = check_rewrite(model, (random_input(3, 6, 5, 5),), PATTERNS, shapes=False)
    assert len(applied(result)) == 1


def test_declines_hooks() -> None:
    model = net(lambda m, x: m.fc(m.flatten(x)), flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    model.fc.register_forward_hook(lambda module, args, output: output * 2)
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [
        "flatten: FlattenLinearToConv1x1Pattern declined: "
        "hooks on the linear layer, or its parametrization, would be lost"
    ]


def test_declines_a_parametrization() -> None:
    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 2

    model = net(lambda m, x: m.fc(m.flatten(x)), flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    nn.utils.parametrize.register_parametrization(model.fc, "weight", Doubled())
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [
        "flatten: FlattenLinearToConv1x1Pattern declined: "
        "hooks on the linear layer, or its parametrization, would be lost"
    ]


def test_declines_a_layer_that_is_called_twice() -> None:
    model = net(lambda m, x: m.fc(m.fc(m.flatten(x))), flatten=nn.Flatten(), fc=nn.Linear(6, 6))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == ["flatten: FlattenLinearToConv1x1Pattern declined: fc is called 2 times"]


def test_declines_a_weight_that_is_shared() -> None:
    model = net(
        lambda m, x: m.other(m.fc(m.flatten(x))), flatten=nn.Flatten(), fc=nn.Linear(6, 6), other=nn.Linear(6, 6)
    )
    model.other.weight = model.fc.weight
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [
        "flatten: FlattenLinearToConv1x1Pattern declined: its weight is shared: fc.weight, other.weight"
    ]


def test_a_weight_that_is_shared_with_a_functional_call_stays_shared() -> None:
    """The weight belongs to no second module, but another call reads it: nothing may come apart in training."""
    model = net(lambda m, x: m.fc(m.flatten(x)) @ m.fc.weight, flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    check_rewrite(model, (X,), PATTERNS)


def test_features_used_outside_are_kept() -> None:
    model = net(lambda m, x: (f := m.flatten(x), m.fc(f) + f.sum())[1], flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == ["flatten: FlattenLinearToConv1x1Pattern declined: flatten feeds 2 users (fc, sum)"] or (
        reasons(result) == ["flatten: FlattenLinearToConv1x1Pattern declined: flatten feeds 2 users (fc, sum_1)"]
    )


def test_features_that_are_an_output_are_kept() -> None:
    model = net(lambda m, x: (f := m.flatten(x), m.fc(f)), flatten=nn.Flatten(), fc=nn.Linear(6, 4))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == ["flatten: FlattenLinearToConv1x1Pattern declined: flatten is an output of the model"]


def test_an_activation_in_place_on_features_that_share_memory_with_a_later_read() -> None:
    model = net(lambda m, x: (y := x * 1, m.fc(F.relu_(y.flatten(1))), y)[1:], fc=nn.Linear(6, 4))
    result = check_rewrite(model, (X,), PATTERNS, train=False)
    assert applied(result) == []


def test_the_convolution_is_fused_afterwards() -> None:
    model = net(lambda m, x: m.fc(torch.flatten(m.pool(x), 1)), pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(6, 4))
    result = check_rewrite(model, (random_input(2, 6, 5, 5),), TENSORRT_PATTERNS)
    assert fused_counts(result.model) == {"FusedAdaptiveAvgPool2d": 1, "FusedConvBN": 1}
