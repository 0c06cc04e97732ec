"""Zero-padding before a convolution goes into the convolution."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.conversions import FoldZeroPadIntoConvPattern
from embedl_deploy.modules import PaddedConv2d
from support.agreement import check_rewrite, reasons
from support.nets import net, random_input

FOLD = [FoldZeroPadIntoConvPattern()]
X = random_input(2, 3, 7, 9)


def folded(*modules, shapes=False):
    """The one module that a sequence has become, and its result."""
    model = net(lambda self, x: self.body(x), body=nn.Sequential(*modules))
    result = check_rewrite(model, [X], FOLD, shapes=shapes)
    (call,) = [node for node in result.model.graph.nodes if node.op == "call_module"]
    return result.model.get_submodule(call.target), result


def left_alone(*modules):
    """The one reason why a sequence was left as it is."""
    model = net(lambda self, x: self.body(x), body=nn.Sequential(*modules))
    result = check_rewrite(model, [X], FOLD)
    assert result.report["applied_count"] == 0
    (reason,) = reasons(result)
    return reason


class TestBecomes:
    @pytest.mark.parametrize("shapes", [False, True])
    def test_a_plain_convolution_if_symmetric(self, shapes):
        conv, _ = folded(nn.ZeroPad2d((2, 2, 1, 1)), nn.Conv2d(3, 4, 3), shapes=shapes)
        assert type(conv) is nn.Conv2d
        assert conv.padding == (1, 2)

    @pytest.mark.parametrize("shapes", [False, True])
    def test_a_padded_convolution_if_not(self, shapes):
        conv, _ = folded(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, stride=2), shapes=shapes)
        assert type(conv) is PaddedConv2d
        assert conv.sides == (0, 1, 0, 1)
        assert conv.padding == (0, 0)
        assert conv.stride == (2, 2)

    @pytest.mark.parametrize(
        "pad",
        [
            lambda x: F.pad(x, (0, 1, 2, 3)),
            lambda x: F.pad(x, [0, 1, 2, 3], "constant", 0),
            lambda x: F.pad(x, pad=(0, 1, 2, 3), mode="constant", value=0.0),
        ],
    )
    def test_however_the_padding_is_written(self, pad):
        model = net(lambda self, x: self.conv(pad(x)), conv=nn.Conv2d(3, 4, 3))
        result = check_rewrite(model, [X], FOLD)
        assert result.report["applied_count"] == 1
        assert result.model.get_submodule("conv").sides == (0, 1, 2, 3)

    def test_with_a_functional_convolution(self):
        model = net(
            lambda self, x: F.conv2d(F.pad(x, (0, 1, 2, 3)), self.w, None, 2, 1), w=nn.Parameter(torch.ones(4, 3, 3, 3))
        )
        result = check_rewrite(model, [X], FOLD)
        (conv,) = [m for m in result.model.modules() if isinstance(m, nn.Conv2d)]
        assert conv.sides == (1, 2, 3, 4)

    def test_own_padding_is_added(self):
        assert folded(nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(3, 4, 3, padding=(5, 6)))[0].sides == (7, 8, 8, 9)
        assert folded(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=(5, 6)))[0].padding == (6, 7)
        assert folded(nn.ZeroPad2d((1, 0, 0, 0)), nn.Conv2d(3, 4, 3, padding="valid"))[0].sides == (1, 0, 0, 0)

    def test_a_chain_adds_up(self):
        conv, result = folded(nn.ZeroPad2d((1, 0, 2, 0)), nn.ZeroPad2d((0, 3, 0, 4)), nn.Conv2d(3, 4, 3))
        assert conv.sides == (1, 3, 2, 4)
        assert result.report["applied_count"] == 2

    def test_a_chain_that_becomes_symmetric_is_plain(self):
        conv, _ = folded(nn.ZeroPad2d((0, 1, 0, 1)), nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 4, 3))
        assert type(conv) is nn.Conv2d
        assert conv.padding == (1, 1)

    @pytest.mark.parametrize("settings", [{"groups": 3}, {"dilation": 2}, {"bias": False}, {"stride": (1, 3)}])
    def test_other_settings_are_kept(self, settings):
        conv, _ = folded(nn.ZeroPad2d((1, 0, 0, 2)), nn.Conv2d(3, 6, 3, **settings))
        original = nn.Conv2d(3, 6, 3, **settings)
        for name in ("groups", "dilation", "stride", "in_channels", "out_channels", "kernel_size"):
            assert getattr(conv, name) == getattr(original, name), name
        assert (conv.bias is None) == (original.bias is None)

    def test_numbers_are_equal_to_the_bit_in_train_and_eval(self):
        _, result = folded(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 4, 3))
        assert result.verify(X).max_abs == 0
        result.report.plan.original.train()
        result.model.train()
        assert result.verify(X).max_abs == 0


class TestSharing:
    def test_parameters_are_the_captured_ones(self):
        model = net(
            lambda self, x: (self.conv(self.pad(x)), self.conv(x)),
            conv=nn.Conv2d(3, 4, 3),
            pad=nn.ZeroPad2d((0, 1, 0, 1)),
        )
        result = check_rewrite(model, [X], FOLD)
        assert result.report["applied_count"] == 1
        convs = [m for m in result.model.modules() if isinstance(m, nn.Conv2d)]
        assert len(convs) == 2
        assert convs[0].weight is convs[1].weight
        assert convs[0].bias is convs[1].bias

    def test_a_shared_pad_serves_several(self):
        model = net(
            lambda self, x: self.a(self.pad(x)) + self.b(self.pad(x)),
            a=nn.Conv2d(3, 4, 3),
            b=nn.Conv2d(3, 4, 3),
            pad=nn.ZeroPad2d((0, 1, 0, 1)),
        )
        assert check_rewrite(model, [X], FOLD).report["applied_count"] == 2

    def test_a_padded_value_used_elsewhere_is_kept(self):
        def forward(self, x):
            y = self.pad(x)
            return self.conv(y), y

        model = net(forward, conv=nn.Conv2d(3, 4, 3), pad=nn.ZeroPad2d((0, 1, 0, 1)))
        result = check_rewrite(model, [X], FOLD)
        assert result.report["applied_count"] == 0
        assert "pad is an output of the model" in reasons(result)[0]


class TestDeclined:
    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_other_padding_modes(self, mode):
        reason = left_alone(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode))
        assert f"has its own padding (padding=(1, 1), mode {mode!r})" in reason

    def test_padding_same(self):
        assert "padding='same'" in left_alone(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding="same"))

    def test_crops(self):
        assert "padding (-1, 0, 0, 2) crops" in left_alone(nn.ZeroPad2d((-1, 0, 0, 2)), nn.Conv2d(3, 4, 3))

    @pytest.mark.parametrize("on", [0, 1])
    def test_hooks(self, on):
        modules = [nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)]
        modules[on].register_forward_hook(lambda module, args, output: output * 2)
        assert "hooks on the modules would be lost" in left_alone(*modules)

    def test_parametrization(self):
        conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        assert "parametrized" in left_alone(nn.ZeroPad2d(1), conv)

    @pytest.mark.parametrize("pad", [nn.ConstantPad2d(1, 2.0), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1)])
    def test_other_pads_do_not_match(self, pad):
        model = net(lambda self, x: self.conv(self.pad(x)), conv=nn.Conv2d(3, 4, 3), pad=pad)
        result = check_rewrite(model, [X], FOLD)
        assert result.report["applied_count"] == 0

    def test_a_functional_pad_with_another_value_does_not_match(self):
        model = net(lambda self, x: self.conv(F.pad(x, (0, 1, 0, 1), value=1.0)), conv=nn.Conv2d(3, 4, 3))
        assert check_rewrite(model, [X], FOLD).report["applied_count"] == 0

    def test_a_padding_of_channels_does_not_match(self):
        model = net(lambda self, x: self.conv(F.pad(x, (0, 1, 0, 1, 0, 1))), conv=nn.Conv2d(4, 4, 3))
        assert check_rewrite(model, [X], FOLD).report["applied_count"] == 0


def test_onnx_has_one_convolution_with_four_pads(tmp_path):
    _, result = folded(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(3, 4, 3, stride=2))
    written = export_onnx(result, X, tmp_path / "model.onnx")
    nodes = onnx.load(written.path).graph.node
    assert written.difference.max_rel < 1e-5
    convs = [node for node in nodes if node.op_type == "Conv"]
    assert len(convs) == 1
    pads = {a.name: list(a.ints) for a in convs[0].attribute}["pads"]
    assert pads == [2, 0, 3, 1]  # top, left, bottom, right
    assert [node.op_type for node in nodes] == ["Conv"]
