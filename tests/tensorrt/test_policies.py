"""Where quantizers stand on TensorRT: what the patterns offer, and what the policies leave of it."""

import dataclasses
import re

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from embedl_deploy import transform
from embedl_deploy.backend import PointKind
from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    insert_qdq,
    quantization_report,
    quantize,
)
from embedl_deploy.tensorrt.modules import FusedScaledDotProductAttention
from embedl_deploy.tensorrt.plugin import TENSORRT_POLICIES
from support.nets import net, random_input

IMAGES = random_input(2, 8, 6, 6)
TOKENS = random_input(2, 5, 8)


def report_of(model, config=None, **settings):
    result = transform(model, backend="tensorrt", **settings)
    return quantization_report(insert_qdq(result.model, result.matches, config))


def points(report, module):
    """What became of the points of the only module of a class: the rule, if it is in float, else the kind of format."""
    return {p.label: p.config.split()[0] if p.quantized else p.rule for p in report.points if p.module == module}


def attention():
    def forward(self, x):
        return self.norm(self.attention(x, x, x, need_weights=False)[0])

    return net(forward, attention=nn.MultiheadAttention(8, 2, batch_first=True), norm=nn.LayerNorm(8))


def network():
    """A stem, a depthwise convolution, one that is neither, and global pooling."""
    return net(
        lambda self, x: self.head(self.pool(self.point(self.depth(torch.relu(self.stem(x))))).flatten(1)),
        stem=nn.Conv2d(3, 8, 3),
        depth=nn.Conv2d(8, 8, 3, groups=8),
        point=nn.Conv2d(8, 8, 1),
        pool=nn.AdaptiveAvgPool2d(1),
        head=nn.Linear(8, 4),
    )


class TestPooling:
    """Average pooling in INT8 needs INT8 on both sides."""

    @staticmethod
    def found(forward):
        parts = {"pool": nn.AdaptiveAvgPool2d(1), "norm": nn.LayerNorm(8), "head": nn.Linear(8, 4)}
        return points(report_of(net(forward, **parts)), "FusedAdaptiveAvgPool2d")

    def test_stays_in_float_where_all_that_reads_it_is_a_normalization(self):
        def forward(self, x):
            return self.head(self.norm(self.pool(x).permute(0, 2, 3, 1).flatten(1)))

        reason = "what it pools is normalized next, in float: pooling in INT8 needs INT8 on both sides"
        rule = f"policy tensorrt's 'all': {reason}"
        assert self.found(forward) == {"input 0": rule, "output": rule}

    def test_is_quantized_where_something_else_reads_it_too(self):
        def forward(self, x):
            pooled = self.pool(x).flatten(1)
            return self.head(self.norm(pooled)) + self.head(pooled)

        assert self.found(forward) == {"input 0": "INT8", "output": "INT8"}

    def test_is_quantized_where_it_is_the_end(self):
        assert self.found(lambda self, x: self.pool(x)) == {"input 0": "INT8", "output": "INT8"}


class TestPlaces:
    @pytest.mark.parametrize(
        ("function", "modules", "fused", "labels"),
        [
            (lambda m, x: m.conv(x), {"conv": nn.Conv2d(8, 4, 1)}, "FusedConvBN", ["input 0", "weight"]),
            (
                lambda m, x: m.act(m.bn(m.conv(x)) + x),
                {"conv": nn.Conv2d(8, 8, 1), "bn": nn.BatchNorm2d(8), "act": nn.ReLU()},
                "FusedConvBNAddReLU",
                ["input 0", "input 1", "weight"],
            ),
            (
                lambda m, x: m.fc(x.flatten(2)),
                {"fc": nn.Linear(36, 3)},
                "FusedLinear",
                ["input 0", "weight"],
            ),
            (lambda m, x: m.act(x) + x, {"act": nn.SiLU()}, "FusedActAdd", ["input 0", "input 1"]),
            (
                lambda m, x: m.pool(x),
                {"pool": nn.AdaptiveAvgPool2d(2)},
                "FusedAdaptiveAvgPool2d",
                ["input 0", "output"],
            ),
            (lambda m, x: m.norm(x), {"norm": nn.LayerNorm(6)}, "FusedLayerNorm", []),
        ],
        ids=["convolution", "residual block", "matrix product", "sum", "pooling", "layer norm"],
    )
    def test_of_fused_modules(self, function, modules, fused, labels):
        result = transform(net(function, **modules), backend="tensorrt")
        assert fused in {type(part).__name__ for part in result.model.modules()}
        report = quantization_report(insert_qdq(result.model, result.matches))
        assert sorted(points(report, fused)) == labels
        assert len(report.points) == len(labels) and not report.not_quantized and not report.uncovered

    def test_of_attention(self):
        report = report_of(attention(), args=TOKENS)
        assert points(report, "FusedMHAInProjection") == {"input 0": "INT8", "weight": "INT8"}
        assert points(report, "FusedScaledDotProductAttention") == dict.fromkeys(
            ("input 0", "input 1", "input 2", "softmax_quant"), "INT8"
        )
        assert points(report, "FusedLinear") == {"input 0": "INT8", "weight": "INT8"}
        assert not points(report, "FusedLayerNorm")
        assert {p.stub.rpartition(".")[2] for p in report.points if p.label == "softmax_quant"} == {"softmax_quant"}

    @pytest.mark.parametrize(("precision", "high"), [(Precision.INT8, 127), (Precision.FP8, 448)])
    def test_the_softmax_has_a_fixed_scale_and_the_query_is_scaled_before_it_is_quantized(self, precision, high):
        result = transform(attention(), TOKENS, backend="tensorrt")
        seen = {}
        part = next(m for m in result.model.modules() if isinstance(m, FusedScaledDotProductAttention))
        handle = part.register_forward_pre_hook(lambda _, args: seen.update(query=args[0].detach()))
        result.model(TOKENS)
        handle.remove()
        model = quantize(result, [TOKENS], QuantConfig(TensorQuantConfig(precision)))
        part = next(m for m in model.modules() if isinstance(m, FusedScaledDotProductAttention))
        assert float(part.softmax_quant.quantizer.scale) == pytest.approx(1 / high)
        wanted = seen["query"].abs().max() * 4**-0.5 / high
        torch.testing.assert_close(part.query_quant.quantizer.scale, wanted, rtol=1e-5, atol=0)
        wanted = result.model(TOKENS).detach()
        torch.testing.assert_close(model(TOKENS), wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))

    def test_a_softmax_whose_module_has_no_quantized_input_stays_in_float(self):
        model = net(lambda m, x: m.attention(x), attention=ShiftedWindowAttention(8, [3, 3], [0, 0], 2))
        report = report_of(model, args=random_input(1, 6, 6, 8))
        assert not any(p.label == "softmax_quant" and p.quantized for p in report.points)
        assert points(report, "FusedMHAInProjection") == {"input 0": "INT8", "weight": "INT8"}

    @pytest.mark.parametrize(
        ("groups", "channels", "fits"), [(1, 8, True), (2, 8, True), (4, 8, False), (8, 8, True), (2, 12, False)]
    )
    def test_grouped_convolutions_without_int8_kernels_opt_out(self, groups, channels, fits):
        model = net(lambda m, x: m.conv(x), conv=nn.Conv2d(channels, channels, 1, groups=groups))
        report = report_of(model)
        assert len(report.points) == (2 if fits else 0)
        assert [(node, kind) for node, kind, _ in report.uncovered] == ([] if fits else [("conv_1", "FusedConvBN")])
        assert all("both must be multiples of 4" in reason for _, _, reason in report.uncovered)
        result = transform(model, backend="tensorrt")
        quantized = insert_qdq(result.model, result.matches)
        if not fits:
            x = random_input(1, channels, 4, 4)
            assert torch.equal(quantized(x), model(x))


class TestPolicies:
    def test_all_is_the_default_and_objects_to_nothing_in_int8(self):
        assert list(TENSORRT_POLICIES) == ["all", "mixed", "rtx"]
        report = report_of(network())
        assert report.policy == "tensorrt's 'all'"
        assert not report.not_quantized and len(report.points) == 10
        assert report.points == report_of(network(), QuantConfig(policy="all")).points

    def test_mixed_leaves_what_does_not_pay_in_float(self):
        report = report_of(network(), QuantConfig(policy="mixed"))
        prefix = "policy tensorrt's 'mixed': "
        assert {p.path: p.rule for p in report.not_quantized} == {
            "stem": prefix + "a stem over 3 channels leaves INT8 kernels mostly empty",
            "depth": prefix + "a depthwise convolution (8 groups) is bound by memory",
            "pool": prefix + "global pooling is bound by memory",
        }
        assert {p.path for p in report.quantized} == {"point", "head"}
        assert len(report.not_quantized) == 6

    @pytest.mark.parametrize(("channels", "quantized"), [(1, False), (3, False), (4, True), (8, True)])
    def test_mixed_knows_a_stem_by_its_channels(self, channels, quantized):
        model = net(lambda m, x: m.conv(x), conv=nn.Conv2d(channels, 8, 3))
        report = report_of(model, QuantConfig(policy="mixed"))
        assert bool(report.quantized) is quantized and bool(report.not_quantized) is not quantized

    def test_an_unknown_one_is_an_error_that_lists_what_there_is(self):
        with pytest.raises(QuantizationConfigError, match="'tensorrt' has no policy 'best'; it has all, mixed, rtx"):
            report_of(network(), QuantConfig(policy="best"))

    def test_the_backend_may_be_named_for_a_model_of_patterns(self):
        result = transform(network(), backend="tensorrt")
        del result.model.meta["embedl_deploy.backend"]
        with pytest.raises(QuantizationConfigError, match="names a backend's policy"):
            insert_qdq(result.model, result.matches, QuantConfig(policy="mixed"))
        config = QuantConfig(policy="mixed", backend="tensorrt")
        report = quantization_report(insert_qdq(result.model, result.matches, config))
        assert report.policy == "tensorrt's 'mixed'" and len(report.not_quantized) == 6

    def test_a_users_own_may_build_on_one(self):
        def mixed_without_heads(point):
            return "a head" if point.path == "head" else TENSORRT_POLICIES["mixed"](point)

        report = report_of(network(), QuantConfig(policy=mixed_without_heads))
        assert {p.path for p in report.quantized} == {"point"}
        assert report.policy == "mixed_without_heads"

    def test_what_mixed_leaves_computes_in_float(self):
        x = random_input(2, 3, 8, 8)
        result = transform(network(), backend="tensorrt")
        only = QuantConfig(policy=lambda point: None if point.kind is PointKind.OUTPUT else "not here")
        model = insert_qdq(result.model, result.matches, only)
        calibrate(model, [x])
        assert [p.label for p in quantization_report(model).quantized] == ["output"]
        kept = insert_qdq(result.model, result.matches, QuantConfig(policy=lambda point: "nothing"))
        assert torch.equal(kept(x), result.model(x))


class TestFP8:
    """TensorRT has FP8 kernels for dense convolutions over enough channels only."""

    FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8))

    @pytest.mark.parametrize("policy", ["all", "mixed", "rtx"])
    @pytest.mark.parametrize(
        ("conv", "reason"),
        [
            (nn.Conv2d(8, 8, 3, groups=8), "depthwise|8 groups"),
            (nn.Conv2d(16, 16, 3, groups=2), "no FP8 kernel for a convolution in 2 groups"),
            (nn.Conv2d(3, 8, 3), "over 3 channels"),
        ],
        ids=["depthwise", "grouped", "stem"],
    )
    def test_what_has_no_kernel_stays_in_float(self, policy, conv, reason):
        result = transform(nn.Sequential(conv).eval(), backend="tensorrt")
        model = insert_qdq(result.model, config=dataclasses.replace(self.FP8, policy=policy))
        report = quantization_report(model)
        assert report.quantized == []
        assert all(re.search(reason, point.rule) for point in report.not_quantized)

    def test_the_rest_is_quantized(self):
        result = transform(nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)).eval(), backend="tensorrt")
        assert len(quantization_report(insert_qdq(result.model, config=self.FP8)).quantized) == 4


class TestTransposed:
    """TensorRT for RTX computes transposed convolutions in float; who knows better, says so."""

    @staticmethod
    def report(config=None):
        model = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 2, 2, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        quantized = quantize(transform(model.eval(), backend="tensorrt"), [IMAGES], config, progress=False)
        return quantization_report(quantized), quantized

    def test_they_stay_in_float_with_the_reason(self):
        report, _ = self.report()
        assert {point.path for point in report.quantized} == {"3"}
        assert {point.path for point in report.not_quantized} == {"0"}
        assert all("no kernel for a quantized transposed convolution" in p.rule for p in report.not_quantized)

    def test_an_override_quantizes_them_by_output_channel(self):
        weights = TensorQuantConfig(per_channel=True)
        formats = LayerQuantConfig(TensorQuantConfig(), weights)
        report, model = self.report(QuantConfig(overrides={nn.ConvTranspose2d: formats}))
        assert not report.not_quantized
        fused, quantizer = model.get_submodule("0"), model.get_submodule("0.weight_fake_quant.quantizer")
        factor = (fused.bn.weight / (fused.bn.running_var + 1e-5).sqrt()).reshape(2, 1, 4, 1)
        folded = (fused.conv.weight.reshape(2, 4, 4, 4) * factor).detach()
        # A scale along axis 1 is for a channel of each group.
        torch.testing.assert_close(quantizer.scale, folded.abs().amax((0, 1, 3)) / 127)
