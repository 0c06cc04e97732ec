"""Fusions that start with a convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import get_transformation_plan, transform
from embedl_deploy.patterns import QDQPoint
from embedl_deploy.tensorrt import TENSORRT_FUSION_PATTERNS
from embedl_deploy.tensorrt.modules import (
    FusedConvBN,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from embedl_deploy.tensorrt.patterns import (
    ConvBNActPattern,
    ConvBNAddActPattern,
    ConvBNAddReLUPattern,
    ConvBNPattern,
    ConvBNReLUPattern,
    StemConvBNActMaxPoolPattern,
    StemConvBNReLUMaxPoolPattern,
)
from support.agreement import applied, check_rewrite, fused_counts, reasons
from support.nets import net, random_input
from support.spellings import ACTIVATIONS, NOT_ACTIVATIONS, NOT_SUMS, SUMS, Activation, Sum

X = random_input(2, 3, 8, 8)
STEM_X = random_input(2, 3, 16, 16)


def conv(channels: int = 3, out: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


def test_the_names_of_0_6_are_the_same_classes() -> None:
    assert ConvBNActPattern is ConvBNReLUPattern
    assert ConvBNAddActPattern is ConvBNAddReLUPattern
    assert StemConvBNActMaxPoolPattern is StemConvBNReLUMaxPoolPattern


def test_where_quantizers_go() -> None:
    for pattern in (StemConvBNReLUMaxPoolPattern, ConvBNReLUPattern, ConvBNPattern):
        assert pattern.qdq_points == {QDQPoint.INPUT}
    assert ConvBNAddReLUPattern.qdq_points == {QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT}


class TestConvBN:
    def test_matches_with_and_without_batch_norm(self) -> None:
        model = net(lambda m, x: m.bn(m.b(m.a(x))), a=conv(), b=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert applied(result) == [("ConvBNPattern", "a"), ("ConvBNPattern", "b", "bn")]
        assert result.model.a.bn is None and not result.model.a.bn_foldable
        assert isinstance(result.model.b.bn, nn.BatchNorm2d) and result.model.b.bn_foldable

    def test_matches_functional_spellings_and_shares_their_parameters(self) -> None:
        model = net(
            lambda m, x: F.batch_norm(
                F.conv2d(x, m.weight, m.bias, stride=2, padding=1), m.mean, m.var, m.scale, m.shift, False, 0.1, 1e-3
            ),
            weight=nn.Parameter(torch.empty(4, 3, 3, 3)),
            bias=nn.Parameter(torch.empty(4)),
            scale=nn.Parameter(torch.empty(4)),
            shift=nn.Parameter(torch.empty(4)),
            mean=nn.Parameter(torch.empty(4), requires_grad=False),
            var=nn.Parameter(torch.empty(4), requires_grad=False),
        )
        with torch.no_grad():
            model.var.abs_().add_(0.5)
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedConvBN))
        assert fused.conv.stride == (2, 2) and fused.conv.padding == (1, 1)
        assert fused.bn.eps == 1e-3 and not fused.bn.training

    def test_takes_no_second_batch_norm(self) -> None:
        model = net(lambda m, x: m.bn2(m.bn1(m.a(x))), a=conv(), bn1=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert applied(result) == [("ConvBNPattern", "a", "bn1")]
        assert isinstance(result.model.bn2, nn.BatchNorm2d)

    def test_declines_batch_statistics_of_a_functional_batch_norm(self) -> None:
        """Such a call updates the statistics that it is given only if it is asked to, which no module form says."""
        model = net(
            lambda m, x: F.batch_norm(m.a(x), None, None, m.scale, m.shift, training=True),
            a=conv(),
            scale=nn.Parameter(torch.empty(3)),
            shift=nn.Parameter(torch.empty(3)),
        )
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert applied(result) == [("ConvBNPattern", "a")]

    def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_a_convolution(self) -> None:
        class PaddedByHand(nn.Conv2d):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return F.conv2d(F.pad(x, (0, 1, 0, 1), value=1.0), self.weight, self.bias)

        model = net(lambda m, x: m.bn(m.a(x)), a=PaddedByHand(3, 3, 3), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert len(applied(result)) == 1  # the F.conv2d inside it, with the batch norm
        assert "ConstantPad2d" in result.report["unfused"].values()

    def test_a_convolution_used_twice_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.a(x), m.bn(y) + y)[1], a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert applied(result) == [("ConvBNPattern", "a")]
        assert reasons(result) == ["a: ConvBNPattern declined: a feeds 2 users (bn, add)"]

    def test_a_graph_output_in_the_middle_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.a(x), m.bn(y)), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert applied(result) == [("ConvBNPattern", "a")]
        assert reasons(result) == ["a: ConvBNPattern declined: a is an output of the model"]

    def test_a_shared_convolution_and_batch_norm_stay_shared(self) -> None:
        model = net(lambda m, x: m.bn(m.a(m.bn(m.a(x)))), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNPattern()])
        assert len(applied(result)) == 2
        assert fused_counts(result.model) == {"FusedConvBN": 1}

    def test_why_not(self) -> None:
        plan = get_transformation_plan(
            net(lambda m, x: m.bn(torch.tanh(m.a(x))), a=conv(), bn=nn.BatchNorm2d(3)), patterns=[ConvBNPattern()]
        )
        (line,) = plan.why_not("bn")
        assert line.startswith(
            "bn: ConvBNPattern does not match: bn comes after tanh (Tanh), expected Conv1d or Conv2d or"
        )

    def test_a_batch_norm_over_the_positions_of_one_sequence_is_not_taken(self) -> None:
        """As many positions as channels: that a batch is missing only the shape says."""
        model = net(lambda m, x: m.bn(m.a(x)), a=nn.Conv1d(3, 6, 3), bn=nn.BatchNorm1d(6))
        result = check_rewrite(model, (random_input(3, 8),), [ConvBNPattern()], train=False)
        assert applied(result) == [("ConvBNPattern", "a")]


def test_families_of_any_dimension() -> None:
    """Each family with everything that can come behind it, by module and by function."""
    for dims in (1, 2, 3):
        for prefix in ("Conv", "ConvTranspose"):
            kind, norm = getattr(nn, f"{prefix}{dims}d"), getattr(nn, f"BatchNorm{dims}d")
            function = getattr(F, f"conv{dims}d" if prefix == "Conv" else f"conv_transpose{dims}d")
            model = net(
                lambda m, x: F.gelu(m.call(F.relu(m.bn2(m.b(m.act(m.bn(m.a(x))))) + x), m.weight)),
                a=kind(4, 4, 3, padding=1),
                bn=norm(4),
                act=nn.SiLU(),
                b=kind(4, 4, 3, padding=1, groups=2, bias=False),
                bn2=norm(4),
                call=function,
                weight=nn.Parameter(torch.empty(4, 4, *(1,) * dims)),
            )
            x = random_input(2, 4, *(4, 5, 3)[:dims])
            result = check_rewrite(model, (x,), TENSORRT_FUSION_PATTERNS)
            counts = {"FusedConvBNReLU": 2, "FusedConvBNAddReLU": 1}
            assert fused_counts(result.model) == counts, (prefix, dims)


class TestConvBNReLU:
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_matches_every_spelling_of_an_activation(self, activation: Activation) -> None:
        model = net(lambda m, x: m.act(m.bn(m.a(x))), a=conv(), bn=nn.BatchNorm2d(3), act=activation.make())
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()])
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedConvBNReLU))
        assert type(fused.act) is activation.module_class
        assert {name: getattr(fused.act, name) for name, _ in activation.settings} == dict(activation.settings)
        assert isinstance(fused.bn, nn.BatchNorm2d)

    def test_matches_without_batch_norm(self) -> None:
        result = check_rewrite(net(lambda m, x: F.relu(m.a(x)), a=conv()), (X,), [ConvBNReLUPattern()])
        assert applied(result) == [("ConvBNReLUPattern", "a", "relu")]
        assert result.model.a.bn is None

    @pytest.mark.parametrize("other", NOT_ACTIVATIONS, ids=str)
    def test_does_not_take_other_functions(self, other: Activation) -> None:
        model = net(lambda m, x: m.act(m.bn(m.a(x))), a=conv(), bn=nn.BatchNorm2d(3), act=other.make())
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()])
        assert applied(result) == []
        (line,) = result.report.why_not("bn")
        assert line.startswith("bn: ConvBNReLUPattern does not match: bn is followed by ")
        assert line.endswith("expected ReLU or ReLU6 or LeakyReLU or ELU or GELU or SiLU or Hardswish or Hardsigmoid")

    def test_a_batch_norm_used_twice_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.bn1(m.conv1(x)), F.relu(y) + y.tanh())[1], conv1=conv(), bn1=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["conv1: ConvBNReLUPattern declined: bn1 feeds 2 users (relu, tanh)"]

    def test_a_graph_output_in_the_middle_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.bn(m.a(x)), F.relu(y)), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["a: ConvBNReLUPattern declined: bn is an output of the model"]

    def test_an_in_place_activation_of_a_value_that_is_read_later_is_kept(self) -> None:
        """``relu_`` overwrites what the convolution gave, and the sum reads it through a view that was made before."""
        model = net(lambda m, x: (y := m.a(x), v := y.view(-1), y.relu_().sum() + v)[2], a=conv())
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()])
        assert applied(result) == []

    def test_an_input_overwritten_between_convolution_and_activation_is_declined(self) -> None:
        model = net(lambda m, x: (y := m.a(x), x.mul_(0.0), F.relu(y) + x)[2], a=conv())
        # PyTorch itself refuses to differentiate this.
        result = check_rewrite(model, (X,), [ConvBNReLUPattern()], train=False)
        assert applied(result) == []
        assert reasons(result) == ["a: ConvBNReLUPattern declined: mul_ changes x in place between a and the end"]


class TestConvBNAddReLU:
    @pytest.mark.parametrize("commuted", [False, True], ids=["a, b", "b, a"])
    @pytest.mark.parametrize("sum_", SUMS, ids=str)
    def test_matches_every_spelling_and_order_of_a_sum(self, sum_: Sum, commuted: bool) -> None:
        def forward(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            z = m.bn(m.a(x))
            # A sum in place overwrites its first operand; y is the caller's, so a copy is what is overwritten.
            return F.relu(sum_.compute(y.clone(), z) if commuted else sum_.compute(z, y))

        model = net(forward, a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X, random_input(2, 3, 8, 8, seed=2)), [ConvBNAddReLUPattern()])
        assert fused_counts(result.model) == {"FusedConvBNAddReLU": 1}

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_matches_every_spelling_of_an_activation(self, activation: Activation) -> None:
        model = net(lambda m, x: m.act(m.bn(m.a(x)) + x), a=conv(), bn=nn.BatchNorm2d(3), act=activation.make())
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedConvBNAddReLU))
        assert type(fused.act) is activation.module_class

    @pytest.mark.parametrize("other", NOT_SUMS, ids=str)
    def test_does_not_take_other_operations(self, other: Sum) -> None:
        model = net(lambda m, x: F.relu(other.compute(m.bn(m.a(x)), x)), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        assert applied(result) == []

    def test_does_not_take_a_convolution_without_batch_norm(self) -> None:
        model = net(lambda m, x: F.relu(m.a(x) + x), a=conv())
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        assert applied(result) == []
        assert result.report.why_not("add") == [
            "add: ConvBNAddReLUPattern does not match: add comes after a (Conv2d) and the model's input, "
            "expected BatchNorm1d or BatchNorm2d or BatchNorm3d"
        ]

    def test_a_residual_that_broadcasts(self) -> None:
        model = net(lambda m, x, y: F.relu(m.bn(m.a(x)) + y), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X, random_input(3, 1, 1)), [ConvBNAddReLUPattern()])
        assert fused_counts(result.model) == {"FusedConvBNAddReLU": 1}

    def test_a_residual_of_another_type_leaves_the_sum_in_place_as_it_is(self) -> None:
        """``z += y`` keeps the type of z; a fused sum would promote. Whatever is done, the result must be the same."""

        def forward(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            z = m.bn(m.a(x))
            z += y
            return F.relu(z)

        model = net(forward, a=conv(), bn=nn.BatchNorm2d(3))
        check_rewrite(model, (X, random_input(2, 3, 8, 8).double()), [ConvBNAddReLUPattern()])

    def test_of_two_convolutions_the_first_operand_is_fused(self) -> None:
        model = net(
            lambda m, x: F.relu(m.bn1(m.a(x)) + m.bn2(m.b(x))),
            a=conv(),
            b=conv(),
            bn1=nn.BatchNorm2d(3),
            bn2=nn.BatchNorm2d(3),
        )
        result = check_rewrite(model, (X,), TENSORRT_FUSION_PATTERNS)
        assert applied(result) == [
            ("ConvBNAddReLUPattern", "a", "bn1", "add", "relu"),
            ("ConvBNPattern", "b", "bn2"),
        ]

    def test_a_value_added_to_itself_is_declined(self) -> None:
        model = net(lambda m, x: (y := m.bn(m.a(x)), F.relu(y + y))[1], a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["a: ConvBNAddReLUPattern declined: bn is also the match's own other input"]

    def test_a_sum_used_twice_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.bn(m.a(x)) + x, F.relu(y) * y)[1], a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["a: ConvBNAddReLUPattern declined: add feeds 2 users (relu, mul)"]

    def test_a_graph_output_in_the_middle_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.bn(m.a(x)) + x, F.relu(y)), a=conv(), bn=nn.BatchNorm2d(3))
        result = check_rewrite(model, (X,), [ConvBNAddReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["a: ConvBNAddReLUPattern declined: add is an output of the model"]

    def test_two_convolutions_in_a_row_of_which_the_first_is_also_the_residual(self) -> None:
        """The sum of one match is the residual of the next: both are applied."""
        model = net(
            lambda m, x: (y := F.relu(m.bn1(m.a(x)) + x), F.relu(m.bn2(m.b(y)) + y))[1],
            a=conv(),
            b=conv(),
            bn1=nn.BatchNorm2d(3),
            bn2=nn.BatchNorm2d(3),
        )
        result = check_rewrite(model, (X,), TENSORRT_FUSION_PATTERNS)
        assert fused_counts(result.model) == {"FusedConvBNAddReLU": 2}


class TestStem:
    @staticmethod
    def stem(**settings: object) -> nn.Conv2d:
        return nn.Conv2d(3, 4, 7, stride=2, padding=3, **settings)

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_matches_every_spelling_of_an_activation(self, activation: Activation) -> None:
        model = net(
            lambda m, x: m.pool(m.act(m.bn(m.a(x)))),
            a=self.stem(),
            bn=nn.BatchNorm2d(4),
            act=activation.make(),
            pool=nn.MaxPool2d(3, 2, 1),
        )
        result = check_rewrite(model, (STEM_X,), [StemConvBNReLUMaxPoolPattern()])
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedConvBNReLUMaxPool))
        assert type(fused.act) is activation.module_class

    @pytest.mark.parametrize(
        "pool",
        [
            lambda x: F.max_pool2d(x, 3, 2, 1),
            lambda x: F.max_pool2d(x, kernel_size=(3, 2), ceil_mode=True),
            lambda x: torch.max_pool2d(x, 2),
        ],
        ids=["F", "F, ceil_mode", "torch"],
    )
    def test_matches_without_batch_norm_and_functional_pooling(self, pool: object) -> None:
        model = net(lambda m, x: m.pool(F.relu(m.a(x))), a=self.stem(), pool=pool)
        result = check_rewrite(model, (STEM_X,), [StemConvBNReLUMaxPoolPattern()])
        assert fused_counts(result.model) == {"FusedConvBNReLUMaxPool": 1}

    @pytest.mark.parametrize(
        ("first", "reason"),
        [
            (nn.Conv2d(3, 4, 5, padding=2), "the convolution is (5, 5) over 3 channels, not (7, 7) over 3"),
            (nn.Conv2d(1, 4, 7, padding=3), "the convolution is (7, 7) over 1 channels, not (7, 7) over 3"),
        ],
        ids=["kernel", "channels"],
    )
    def test_declines_what_is_no_stem(self, first: nn.Conv2d, reason: str) -> None:
        model = net(lambda m, x: m.pool(F.relu(m.a(x))), a=first, pool=nn.MaxPool2d(2))
        x = random_input(2, first.in_channels, 16, 16)
        result = check_rewrite(model, (x,), [StemConvBNReLUMaxPoolPattern()])
        assert applied(result) == []
        assert reasons(result) == [f"a: StemConvBNReLUMaxPoolPattern declined: {reason}"]

    def test_average_pooling_does_not_match(self) -> None:
        model = net(lambda m, x: m.pool(F.relu(m.a(x))), a=self.stem(), pool=nn.AvgPool2d(2))
        result = check_rewrite(model, (STEM_X,), [StemConvBNReLUMaxPoolPattern()])
        assert applied(result) == []
        (line,) = result.report.why_not("relu")
        assert line.endswith("relu is followed by pool (AvgPool2d), expected MaxPool2d")

    def test_an_activation_used_twice_is_kept(self) -> None:
        model = net(
            lambda m, x: (y := F.relu(m.a(x)), m.pool(y) + F.avg_pool2d(y, 2))[1], a=self.stem(), pool=nn.MaxPool2d(2)
        )
        result = check_rewrite(model, (STEM_X,), TENSORRT_FUSION_PATTERNS)
        assert ("ConvBNReLUPattern", "a", "relu") in applied(result)
        assert "a: StemConvBNReLUMaxPoolPattern declined: relu feeds 2 users (pool, avg_pool2d)" in reasons(result)

    def test_a_graph_output_in_the_middle_is_kept(self) -> None:
        model = net(lambda m, x: (y := F.relu(m.a(x)), m.pool(y)), a=self.stem(), pool=nn.MaxPool2d(2))
        result = check_rewrite(model, (STEM_X,), [StemConvBNReLUMaxPoolPattern()])
        assert reasons(result) == ["a: StemConvBNReLUMaxPoolPattern declined: relu is an output of the model"]

    def test_pooling_that_returns_indices_too(self) -> None:
        model = net(lambda m, x: m.pool(F.relu(m.a(x))), a=self.stem(), pool=nn.MaxPool2d(2, return_indices=True))
        check_rewrite(model, (STEM_X,), [StemConvBNReLUMaxPoolPattern()])


def test_the_longest_pattern_wins_and_the_others_say_so() -> None:
    model = net(
        lambda m, x: m.maxpool(m.relu(m.bn1(m.conv1(x)))),
        conv1=nn.Conv2d(3, 4, 7, padding=3),
        bn1=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(2),
    )
    result = transform(model, patterns=TENSORRT_FUSION_PATTERNS)
    assert applied(result) == [("StemConvBNReLUMaxPoolPattern", "conv1", "bn1", "relu", "maxpool")]
    assert [(m.pattern_name, m.reason) for m in result.matches["relu"].values()] == [
        ("ConvBNReLUPattern", "overlaps StemConvBNReLUMaxPoolPattern at maxpool")
    ]


def test_mode_of_the_modules_is_kept() -> None:
    """A batch norm that the user froze in a model in training mode stays frozen."""
    model = net(lambda m, x: F.relu(m.bn(m.a(x))), a=conv(), bn=nn.BatchNorm2d(3)).train()
    model.bn.eval()
    fused = transform(model, patterns=TENSORRT_FUSION_PATTERNS).model.a
    assert fused.training and fused.conv.training and not fused.bn.training
