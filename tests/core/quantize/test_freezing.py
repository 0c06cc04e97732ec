"""The model to deploy is the trained one, with integers for weights."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.modules import FusedConv
from embedl_deploy.quantize import (
    IntegerWeight,
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    calibrate,
    freeze,
    freeze_batchnorm,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.freezing import frozen_to_be_read
from support.nets import net
from support.quantizable import (
    IMAGES,
    ROWS,
    calibrated,
    inserted,
    one_thread,
    perceptron,
    residual_block,
    same_state,
    scales_of,
    state_of,
)

INT8, PER_CHANNEL = TensorQuantConfig(), TensorQuantConfig(per_channel=True)
FORMATS = {
    "int8": QuantConfig(),
    "one scale a weight": QuantConfig(weight=INT8),
    "fp8": QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True)),
    "int16": QuantConfig(TensorQuantConfig(Precision.INT16), TensorQuantConfig(Precision.INT16)),
    "int4 weights": QuantConfig(weight=TensorQuantConfig(n_bits=4, block_size=4)),
    "weights alone": QuantConfig(activation=None),
    "activations alone": QuantConfig(weight=None),
    "asymmetric": QuantConfig(TensorQuantConfig(symmetric=False), TensorQuantConfig(symmetric=False)),
    "learned": QuantConfig(TensorQuantConfig(learnable=True), TensorQuantConfig(per_channel=True, learnable=True)),
    "powers of two": QuantConfig(TensorQuantConfig(power_of_two=True), TensorQuantConfig(power_of_two=True)),
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.mark.parametrize("weights", [True, False], ids=["integer weights", "float weights"])
@pytest.mark.parametrize("name", FORMATS)
class TestOutputs:
    def test_of_matrix_products_are_exactly_those_of_evaluation_mode(self, name, weights):
        model = calibrated(perceptron(), ROWS, FORMATS[name])
        wanted = model(ROWS)
        model.train()
        frozen = freeze(model, weights=weights)
        torch.testing.assert_close(frozen(ROWS), wanted, rtol=1e-6, atol=1e-6)

    def test_of_convolutions_are_those_of_evaluation_mode(self, name, weights):
        model = calibrated(residual_block(), IMAGES, FORMATS[name])
        wanted = model(IMAGES)
        frozen = freeze(model, weights=weights)
        # Folding rounds otherwise; a value on the edge between two numbers of FP8's grid may land on the other.
        atol = 1e-2 if name == "fp8" else 1e-5
        torch.testing.assert_close(frozen(IMAGES), wanted, rtol=0, atol=atol)


class TestState:
    def test_weights_are_integers_and_nothing_in_float_remains_of_them(self):
        model = calibrated(residual_block(), IMAGES)
        frozen = freeze(model)
        stored = {path: part for path, part in frozen.named_modules() if isinstance(part, IntegerWeight)}
        assert len(stored) == 4
        assert all(part.values.dtype == torch.int8 for part in stored.values())
        assert not [name for name, _ in frozen.named_parameters() if not name.endswith("bias")]
        assert frozen.get_submodule("conv2.conv").weight is None
        size = sum(t.numel() * t.element_size() for t in frozen.state_dict().values())
        before = sum(t.numel() * t.element_size() for t in residual_block().state_dict().values())
        assert size < 0.5 * before

    def test_integers_are_those_of_the_folded_weight(self):
        model = calibrated(residual_block(), IMAGES)
        conv = model.get_submodule("conv2")
        weight, scale = conv.folded_weight().detach(), conv.weight_fake_quant.quantizer.scale
        stored = freeze(model).get_submodule("conv2.weight_fake_quant").quantizer
        wanted = (weight / scale.reshape(-1, 1, 1, 1)).round().clamp(-128, 127)
        assert torch.equal(stored.values.float(), wanted)
        assert torch.equal(stored.scale, scale)

    def test_without_weights_they_stay_in_float_with_a_quantizer(self):
        frozen = freeze(calibrated(residual_block(), IMAGES), weights=False)
        assert not any(isinstance(part, IntegerWeight) for part in frozen.modules())
        assert sum(isinstance(part, Quantizer) for part in frozen.modules()) == 10
        assert frozen.get_submodule("conv2.conv").weight.dtype == torch.float32

    @pytest.mark.parametrize("weights", [True, False])
    def test_batch_norm_is_folded_everywhere(self, weights):
        frozen = freeze(calibrated(residual_block(), IMAGES), weights=weights)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in frozen.modules())
        assert all(part.bn is None for part in frozen.modules() if isinstance(part, FusedConv))
        assert all(part.conv.bias is not None for part in frozen.modules() if isinstance(part, FusedConv))

    def test_batch_norm_is_folded_where_nothing_is_quantized_too(self):
        model = calibrated(residual_block(), IMAGES, QuantConfig(skip=["conv*", "down"]))
        frozen = freeze(model)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in frozen.modules())
        torch.testing.assert_close(frozen(IMAGES), model(IMAGES), rtol=0, atol=1e-5)

    def test_batch_norm_without_statistics_stays(self):
        model = net(
            lambda self, x: self.bn(self.conv(x)),
            conv=nn.Conv2d(3, 4, 1),
            bn=nn.BatchNorm2d(4, track_running_stats=False),
        )
        quantized = calibrated(model, IMAGES)
        frozen = freeze(quantized)
        assert isinstance(frozen.get_submodule("conv").bn, nn.BatchNorm2d)
        torch.testing.assert_close(frozen(IMAGES), quantized(IMAGES), rtol=0, atol=1e-5)
        assert float(frozen(IMAGES).detach().std()) == pytest.approx(float(model(IMAGES).detach().std()), rel=0.05)

    @pytest.mark.parametrize("methods", [{}, {"bias_correction": True}], ids=["plain", "corrected"])
    def test_a_weight_that_is_a_buffer_is_stored_as_integers_too(self, methods):
        model = net(lambda self, x: self.norm(self.conv(x)), conv=nn.Conv2d(4, 4, 3), norm=nn.BatchNorm2d(4)).eval()
        fixed = model.conv.weight.detach().clone()
        del model.conv.weight
        model.conv.register_buffer("weight", fixed)
        x = torch.randn(2, 4, 6, 6)
        quantized = quantize(transform(model, x, backend="tensorrt"), [x], progress=False, **methods)
        frozen = freeze(quantized)
        assert torch.allclose(frozen(x), quantized(x), atol=1e-5)
        weights = [tensor for tensor in frozen.state_dict().values() if tensor.shape == fixed.shape]
        assert [weight.dtype for weight in weights] == [torch.int8]

    def test_scales_learn_no_more(self):
        frozen = freeze(calibrated(residual_block(), IMAGES, FORMATS["learned"]), weights=False)
        assert len(scales_of(frozen)) == 10
        assert not [name for name, _ in frozen.named_parameters() if "scale" in name]
        assert all((scale > 0).all() for scale in scales_of(frozen).values())

    def test_the_report_comes_along(self):
        model = calibrated(perceptron(), ROWS)
        assert quantization_report(freeze(model)) == quantization_report(model)

    def test_twice_is_once(self):
        model = calibrated(residual_block(), IMAGES)
        for weights in (True, False):
            frozen = freeze(model, weights=weights)
            again = freeze(frozen, weights=weights)
            assert same_state(state_of(frozen), state_of(again))
            assert torch.equal(again(IMAGES), frozen(IMAGES))
        assert torch.equal(freeze(freeze(model, weights=False))(IMAGES), freeze(model)(IMAGES))

    def test_a_module_called_twice_stays_one(self):
        model = calibrated(net(lambda self, x: self.fc(self.fc(x)), fc=nn.Linear(12, 12)), ROWS)
        frozen = freeze(model)
        assert sum(isinstance(part, IntegerWeight) for part in frozen.modules()) == 1
        torch.testing.assert_close(frozen(ROWS), model(ROWS))

    @pytest.mark.parametrize("skip", [(), {nn.ReLU}], ids=["both quantized", "one in float"])
    def test_two_fused_modules_around_one_layer(self, skip):
        model = net(lambda self, x: self.fc(torch.relu(self.fc(x))), fc=nn.Linear(12, 12))
        quantized = calibrated(model, ROWS, QuantConfig(skip=skip))
        frozen = freeze(quantized)
        torch.testing.assert_close(frozen(ROWS), quantized(ROWS))
        assert sum(isinstance(part, IntegerWeight) for part in frozen.modules()) == (1 if skip else 2)
        assert ("fc_1.linear.weight" in dict(frozen.named_parameters())) is bool(skip)

    @pytest.mark.parametrize("weights", [True, False])
    def test_every_module_is_in_evaluation_mode(self, weights):
        frozen = freeze(calibrated(perceptron(), ROWS).train(), weights=weights)
        assert not any(part.training for part in frozen.modules())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["int8", "learned"])
def test_the_model_is_not_modified(name, training):
    model = calibrated(residual_block(), IMAGES, FORMATS[name]).train(training)
    state, code = state_of(model), model.code
    frozen = freeze(model)
    assert same_state(state, state_of(model)) and model.code == code
    assert all(part.training is training for part in model.modules())
    assert not {t.data_ptr() for t in frozen.state_dict().values()} & {
        t.data_ptr() for t in model.state_dict().values()
    }
    assert sum(isinstance(part, nn.BatchNorm2d) for part in model.modules()) == 3
    copied = copy.deepcopy(frozen)
    assert torch.equal(copied(IMAGES), frozen(IMAGES))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("make", [residual_block, perceptron])
def test_what_is_only_read_has_no_copies_of_parameters_that_stay(make, weights):
    x = IMAGES if make is residual_block else ROWS
    model = calibrated(make(), x)
    state, own = state_of(model), {id(parameter) for parameter in model.parameters()}
    found, wanted = frozen_to_be_read(model, weights=weights), freeze(model, weights=weights)
    assert torch.equal(found(x), wanted(x))
    assert same_state(state, state_of(model)) and own == {id(parameter) for parameter in model.parameters()}
    new = [name for name, parameter in found.named_parameters() if id(parameter) not in own]
    folded = {
        f"{path}.conv.{of}"
        for path, part in found.named_modules()
        if isinstance(part, FusedConv)
        for of in ("weight", "bias")
    }
    assert set(new) == folded & dict(found.named_parameters()).keys()


@pytest.mark.parametrize("weights", [True, False])
def test_a_frozen_model_is_calibrated_anew(weights):
    frozen = freeze(calibrated(perceptron(), ROWS, FORMATS["int8"]), weights=weights)
    before = state_of(frozen)
    assert calibrate(frozen, [2 * ROWS]) == []
    after = state_of(frozen)
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert changed and not [name for name in changed if "weight" in name], "of activations alone"
    (input_scale,) = (name for name in changed if torch.equal(after[name], 2 * before[name]))
    assert len(changed) == 2 and input_scale.endswith("scale")


def test_what_is_not_calibrated_is_named():
    with pytest.raises(QuantizationError, match=r"4 tensor\(s\) are not calibrated: ") as caught:
        freeze(inserted(perceptron()))
    assert caught.value.tensor in str(caught.value)
    for name in ("first weight", "second weight", "the output of x", "the output of first_1"):
        assert name in str(caught.value)


def test_freeze_batchnorm_touches_nothing_else():
    model = inserted(residual_block()).train()
    freeze_batchnorm(model)
    assert all(part.training is not isinstance(part, nn.BatchNorm2d) for part in model.modules())
