"""SmoothQuant: what is divided and what is multiplied make up for each other, and quantization gains."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, QuantizationConfigError, QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import ChannelScale
from embedl_deploy.quantize import (
    ModulesToSkip,
    Precision,
    QuantConfig,
    SmoothQuantConfig,
    TensorQuantConfig,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.accuracy.group_statistics import measured_groups
from embedl_deploy.quantize.accuracy.smoothing import smooth
from embedl_deploy.quantize.placing.placement import decide_for
from support.nets import net, random_input

X = random_input(8, 5, 16)


def layers():
    return {
        "norm": nn.LayerNorm(16),
        "a": nn.Linear(16, 24),
        "b": nn.Linear(16, 24, bias=False),
        "c": nn.Linear(24, 8),
    }


def pre_norm(self, x):
    y = self.norm(x)
    return torch.sigmoid(self.a(y)) * self.b(y)


def dropped(self, x):
    y = F.dropout(self.norm(x), 0.5, self.training)
    return self.a(y) + self.b(y)


def post_norm(self, x):
    y = self.norm(x)
    return F.gelu(self.a(y)).sum(-1, keepdim=True) + y


def chained(self, x):
    return self.c(F.relu(self.a(self.norm(x))))


def behind_gelu(self, x):
    return self.c(F.gelu(self.a(x)))


def twice(self, x):
    return self.a(self.norm(x)) + self.b(self.norm(x + 1))


def gated(self, x):
    y = rms_norm(x) * self.norm.weight
    return self.c(F.silu(self.a(y)) * self.b(y))


def gated_with_one(self, x):
    """Both factors have another reader, or one channel."""
    y = self.a(self.norm(x))
    return self.c(F.silu(y) * y.mean(-1, keepdim=True))


def cast(self, x):
    y = (rms_norm(x.float()) * (1 + self.norm.weight.float())).type_as(x)
    return self.a(y) + self.b(y)


def rms_norm(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def transformed(forward):
    model = net(forward, **layers())
    with torch.no_grad():
        model.norm.weight[3] = 40.0
    return transform(model, (X,), backend="tensorrt")


def smoothed(result, config=None, exceptions=()):
    model = deep_copy(result.model)
    decisions, _ = decide_for(result.model, result.matches, None)
    groups, _ = measured_groups(model, decisions, [X], exceptions, progress=False)
    done = smooth(model, groups, config or SmoothQuantConfig())
    return model, {told.where: told.outcome for told in (smoothing.told() for smoothing in done)}


def scales(model):
    return [part for part in model.modules() if isinstance(part, ChannelScale)]


@pytest.mark.parametrize("alpha", [None, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("forward", [pre_norm, dropped, post_norm, chained, behind_gelu, twice, gated, cast])
def test_float_outputs_stay(forward, alpha):
    result = transformed(forward)
    model, done = smoothed(result, SmoothQuantConfig(alpha))
    assert done
    torch.testing.assert_close(model(X), result.model(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("forward", "where", "outcome"),
    [
        (pre_norm, "norm_1", "folded into norm"),
        (dropped, "dropout", "folded into norm"),
        (chained, "a_1", "folded into a"),
        (gated, "norm_1", "folded into norm"),
        (gated, "mul_2", "folded into b"),
        (gated_with_one, "mul", "by mul_smooth, because it cannot be folded into mul (it is not a fused module)"),
        (cast, "type_as", "folded into norm"),
        (
            post_norm,
            "norm_1",
            "by norm_1_smooth, because it cannot be folded into norm_1 (other operators read its output)",
        ),
        (behind_gelu, "a_1", "by a_1_smooth, because it cannot be folded into a_1 (GELU does not let factors through)"),
    ],
)
def test_where_the_division_goes(forward, where, outcome):
    model, done = smoothed(transformed(forward), SmoothQuantConfig(0.5))
    assert done[where].startswith(outcome)
    assert len(scales(model)) == sum(text.startswith("by ") for text in done.values())


@pytest.mark.parametrize("forward", [post_norm, behind_gelu])
def test_without_operators_of_its_own(forward):
    result = transformed(forward)
    model, done = smoothed(result, SmoothQuantConfig(0.5, explicit=False))
    assert not scales(model)
    assert any(text.startswith("declined: cannot be folded into") for text in done.values())
    torch.testing.assert_close(model(X), result.model(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smooth_quant", [True, 0.5, SmoothQuantConfig(0.6)], ids=str)
@pytest.mark.parametrize("forward", [pre_norm, dropped, post_norm])
def test_outliers_cost_less(forward, smooth_quant):
    result = transformed(forward)
    wanted = result.model(X)
    plain, gained = (
        float((quantize(result, [X], smooth_quant=method, progress=False)(X) - wanted).detach().square().sum())
        for method in (False, smooth_quant)
    )
    assert gained < 0.5 * plain


def test_what_needs_no_smoothing_is_left_alone():
    def forward(self, x):
        return self.a(torch.sign(x))

    model = net(forward, a=nn.Linear(16, 8))
    with torch.no_grad():
        model.a.weight.sign_()
    result = transform(model, (X,), backend="tensorrt")
    model, done = smoothed(result)
    assert done == {"sign": "declined: no migration strength would reduce the error"}
    assert torch.equal(model(X), result.model(X))


def test_dead_channels_stay_dead():
    result = transformed(pre_norm)
    with torch.no_grad():
        result.model.norm.layer_norm.weight[5] = 0
        result.model.norm.layer_norm.bias[5] = 0
        result.model.a.linear.weight[:, 7] = 0
    for alpha in (None, 0.0, 1.0):
        model, _ = smoothed(result, SmoothQuantConfig(alpha))
        torch.testing.assert_close(model(X), result.model(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "selector",
    [nn.LayerNorm, nn.Linear, "norm", "a", lambda point: point.path == "b"],
    ids=["norms", "products", "a norm", "a product", "predicate"],
)
def test_exceptions(selector):
    result = transformed(pre_norm)
    quantized = quantize(result, [X], QuantConfig(skip=ModulesToSkip(smooth={selector})), smooth_quant=True)
    (correction,) = quantization_report(quantized).corrections
    assert correction.outcome.startswith("declined: skip: ") and correction.declined
    assert "Smoothing: 0 of 1 places" in str(quantization_report(quantized))


def test_products_in_float_are_left_alone():
    result = transformed(pre_norm)
    assert quantization_report(quantize(result, [X], QuantConfig(activation=None), smooth_quant=True)).corrections == ()


def test_the_transformed_model_is_not_changed():
    result = transformed(pre_norm)
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    quantize(result, [X], smooth_quant=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.state_dict().items())


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_wrong_strengths(alpha):
    with pytest.raises(QuantizationConfigError, match="expected a number from 0 to 1"):
        quantize(transformed(pre_norm), [X], smooth_quant=alpha)


def test_data_that_can_be_read_once():
    with pytest.raises(InputError, match="reads the calibration data twice, but it is a generator"):
        quantize(transformed(pre_norm), (x for x in [X]), smooth_quant=True)


def test_data_that_does_not_reach_a_product():
    quantized = transformed(pre_norm)
    with pytest.raises(QuantizationError, match="did not run the model"):
        quantize(quantized, lambda _model: None, smooth_quant=True)


def test_a_product_that_is_called_twice_is_left_alone():
    model = net(lambda self, x, y: self.a(x) - self.a(y), a=nn.Linear(16, 8))
    x, y = random_input(8, 16) * torch.logspace(-2, 2, 16), random_input(8, 16, seed=2)
    result = transform(model, (x, y), backend="tensorrt")
    int16 = TensorQuantConfig(Precision.INT16)
    quantized = quantize(result, [(x, y)], QuantConfig(int16, int16), smooth_quant=True, progress=False)
    wanted = model(x, y)
    assert float((quantized(x, y) - wanted).detach().abs().max() / wanted.detach().abs().max()) < 1e-3
    outcomes = [correction.outcome for correction in quantization_report(quantized).corrections]
    assert len(outcomes) == 2
    assert all("is called 2 times, and its weight cannot make up for a division at each" in text for text in outcomes)


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer_that_is_called_twice(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    model = net(lambda self, x: self.layer(self.layer(x)), layer=layer)
    x = X * torch.logspace(-1, 1, 16)
    int16 = TensorQuantConfig(Precision.INT16)
    result = transform(model, (x,), backend="tensorrt")
    quantized = quantize(result, [x], QuantConfig(int16, int16), smooth_quant=True, progress=False)
    wanted = model(x)
    assert float((quantized(x) - wanted).detach().abs().max() / wanted.detach().abs().max()) < 1e-3


def test_a_norm_whose_hooks_come_after_it_is_not_scaled():
    result = transformed(pre_norm)
    result.model.norm.layer_norm.register_forward_hook(lambda module, args, output: output + 1)
    model, done = smoothed(result, SmoothQuantConfig(0.5))
    assert "it has hooks, which may not let factors through" in done["norm_1"]
    torch.testing.assert_close(model(X), result.model(X), rtol=1e-4, atol=1e-4)
