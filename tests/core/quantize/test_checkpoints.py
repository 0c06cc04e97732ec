"""Quantized models are saved and loaded like any other: without pickles, before, during and after training."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    freeze,
    quantize,
)
from support.quantizable import IMAGES, inserted, one_thread, residual_block, same_state, state_of
from support.small_patterns import LinearPattern

CONFIGS = {
    "int8": QuantConfig(),
    "fp8": QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True)),
    "asymmetric": QuantConfig(TensorQuantConfig(symmetric=False)),
    "learned": QuantConfig(TensorQuantConfig(learnable=True), TensorQuantConfig(per_channel=True, learnable=True)),
    "int4": QuantConfig(weight=TensorQuantConfig(n_bits=4, block_size=4)),
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(params=["safetensors", "torch"])
def through_a_file(request, tmp_path):
    """Write a state and read it again."""

    def run(state):
        path = tmp_path / "state"
        if request.param == "safetensors":
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
            return load_file(path)
        torch.save(state, path)
        return torch.load(path, weights_only=True)

    return run


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def calibrated(config):
    model = inserted(residual_block(), config)
    calibrate(model, [IMAGES])
    return model


def fresh(config):
    """The same architecture with other weights, transformed and with quantizers, never calibrated."""
    original = residual_block()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.mul_(-0.5)
    return inserted(original, config)


def train(model, optimizer, steps):
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)


def test_a_calibrated_model(config, through_a_file):
    model, other = calibrated(config), fresh(config)
    with pytest.raises(QuantizationError, match="not calibrated"):
        other(IMAGES)
    loaded = other.load_state_dict(through_a_file(model.state_dict()))
    assert not loaded.missing_keys and not loaded.unexpected_keys
    assert torch.equal(other(IMAGES), model(IMAGES))
    assert same_state(state_of(other), state_of(model))


def test_a_frozen_model(config, through_a_file):
    model = calibrated(config)
    frozen = freeze(model)
    other = fresh(config)
    calibrate(other, [IMAGES])
    other = freeze(other)
    assert not torch.equal(other(IMAGES), frozen(IMAGES))
    other.load_state_dict(through_a_file(frozen.state_dict()))
    assert torch.equal(other(IMAGES), frozen(IMAGES))


@pytest.mark.parametrize("config", ["int8", "learned"], indirect=True)
def test_training_goes_on_where_it_was(config, through_a_file):
    model = calibrated(config)
    optimizer = sgd(model)
    train(model, optimizer, 2)
    state, momentum = through_a_file(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    other = fresh(config)
    other.load_state_dict(state)
    other_optimizer = sgd(other)
    other_optimizer.load_state_dict(momentum)
    for one, its_optimizer in ((model, optimizer), (other, other_optimizer)):
        train(one, its_optimizer, 2)
        one.eval()
    assert torch.equal(other(IMAGES), model(IMAGES))
    assert same_state(state_of(other), state_of(model))
    torch.testing.assert_close(freeze(other)(IMAGES), model(IMAGES), rtol=0, atol=0.02)


def test_an_optimizer_made_before_loading_trains_what_was_loaded(config):
    """Loading a scale must not put another parameter in the place of the one that the optimizer holds."""
    model, other = calibrated(config), calibrated(config)
    train(model, sgd(model), 1)
    optimizer = sgd(other)
    other.load_state_dict(model.state_dict())
    before = {name: parameter.detach().clone() for name, parameter in other.named_parameters()}
    train(other, optimizer, 1)
    still = {name for name, parameter in other.named_parameters() if torch.equal(parameter, before[name])}
    assert still <= {"conv2.conv.bias", "flatten_quant.quantizer.scale"}


def test_calibration_keeps_the_parameters_that_an_optimizer_may_hold():
    model = inserted(residual_block(), CONFIGS["learned"])
    parameters = {id(parameter) for parameter in model.parameters()}
    calibrate(model, [IMAGES])
    assert {id(parameter) for parameter in model.parameters()} == parameters


def test_a_model_loads_its_own_earlier_state():
    model = calibrated(QuantConfig())
    state, wanted = state_of(model), model(IMAGES)
    calibrate(model, [IMAGES * 4])
    assert not torch.equal(model(IMAGES), wanted)
    model.load_state_dict(state)
    assert torch.equal(model(IMAGES), wanted)


def test_names_are_those_of_the_places():
    names = set(calibrated(CONFIGS["asymmetric"]).state_dict())
    assert {
        "conv1.conv.weight",
        "conv1.bn.running_mean",
        "conv1.weight_fake_quant.quantizer.scale",
        "x_quant.quantizer.scale",
        "x_quant.quantizer.zero_point",
    } <= names
    frozen = set(freeze(calibrated(QuantConfig())).state_dict())
    assert {"conv1.weight_fake_quant.quantizer.values", "conv1.weight_fake_quant.quantizer.scale"} <= frozen
    assert not frozen & {"conv1.conv.weight", "conv1.bn.weight"}


def test_a_state_without_quantizers_is_missing_them():
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*x_quant\.quantizer\.scale"):
        calibrated(QuantConfig()).load_state_dict(inserted(residual_block(), QuantConfig(None, None)).state_dict())


WEIGHTS_OF_INT4 = QuantConfig(weight=TensorQuantConfig(n_bits=4, per_channel=True))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_state_of_another_format_is_refused(frozen, strict, tmp_path):
    made, other = (calibrated(config) for config in (QuantConfig(), WEIGHTS_OF_INT4))
    if frozen:
        made, other = freeze(made), freeze(other)
    torch.save(made.state_dict(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    before = state_of(other)
    text = "weight: the state is of INT8 per channel of axis 0, and the model quantizes to INT4 per channel of axis 0"
    with pytest.raises(RuntimeError, match=text):
        other.load_state_dict(state, strict=strict)
    after = state_of(other)
    kept = [name for name in after if "weight_fake_quant" in name]
    assert kept and all(torch.equal(after[name], before[name]) for name in kept)


class Added(nn.Module):
    """Two sums, in either order, so that nodes of one name are other tensors."""

    def __init__(self, *, swapped=False):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.swapped = swapped

    def forward(self, x):
        small = self.b if self.swapped else self.a
        large = self.a if self.swapped else self.b
        return small(x + 1) + large(x + 100)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_state_of_another_tensor_under_the_same_path_is_refused(frozen, tmp_path):
    def quantized(*, swapped):
        model = transform(Added(swapped=swapped), patterns=[LinearPattern()]).model
        return quantize(model, [torch.ones(2, 4)], freeze_weights=frozen)

    torch.save(quantized(swapped=False).state_dict(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    same, other = quantized(swapped=False), quantized(swapped=True)
    assert set(state) == set(other.state_dict())
    same.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"add_quant.*is read by a input 0, and the model has it for b input 0"):
        other.load_state_dict(state)


def test_what_scales_mean_is_the_format_whatever_found_them():
    found = QuantConfig(TensorQuantConfig(calibration_method=CalibrationMethod.MSE))
    fresh(QuantConfig()).load_state_dict(calibrated(found).state_dict())
    plain = dict(calibrated(QuantConfig()).state_dict())  # no metadata: nothing is known of the format
    fresh(WEIGHTS_OF_INT4).load_state_dict(plain)
