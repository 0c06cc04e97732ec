"""Quantization-aware training: what learns, what does not, and that it helps."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    calibrate,
    freeze,
    freeze_batchnorm,
)
from support.nets import net, random_input
from support.quantizable import IMAGES, ROWS, calibrated, one_thread, perceptron, residual_block, scales_of

LEARNED = QuantConfig(TensorQuantConfig(learnable=True), TensorQuantConfig(per_channel=True, learnable=True))
FOUR_BITS = TensorQuantConfig(n_bits=4, per_channel=True)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def step(model, x, rate=0.05):
    """One step of gradient descent; returns the loss before it."""
    optimizer = torch.optim.SGD(model.parameters(), rate)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


class TestGradients:
    @pytest.mark.parametrize("config", [None, LEARNED, QuantConfig(TensorQuantConfig(Precision.FP8))], ids=str)
    def test_reach_every_parameter_and_the_input(self, config):
        model = calibrated(residual_block(), IMAGES, config).train()
        x = IMAGES.clone().requires_grad_()
        model(x).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            # A bias before a batch norm has none: the batch norm takes its mean away again.
            assert parameter.grad.abs().max() > 0 or name == "conv2.conv.bias", name
        assert x.grad.abs().max() > 0

    def test_are_nearly_those_of_the_float_model(self):
        original = perceptron()
        model = calibrated(original, ROWS)
        model(ROWS).square().sum().backward()
        original(ROWS).square().sum().backward()
        wanted = original.first.weight.grad
        got = model.get_parameter("first.linear.weight").grad
        assert float(torch.cosine_similarity(got.flatten(), wanted.flatten(), dim=0)) > 0.99

    def test_stop_where_values_are_clipped(self):
        model = calibrated(net(lambda self, x: self.fc(x), fc=nn.Linear(12, 1)), ROWS.clamp(-1, 1))
        x = ROWS.clone().requires_grad_()
        model(x).sum().backward()
        assert torch.equal(x.grad == 0, ROWS.abs() > 127.5 / 127)

    def test_scales_get_none_unless_they_learn(self):
        fixed, learned = (calibrated(perceptron(), ROWS, config) for config in (None, LEARNED))
        assert not [name for name, _ in fixed.named_parameters() if "scale" in name]
        names = [name for name, _ in learned.named_parameters() if "scale" in name]
        assert len(names) == 4
        learned(ROWS).square().sum().backward()
        assert all(learned.get_parameter(name).grad.abs().max() > 0 for name in names)


class TestSteps:
    @pytest.mark.parametrize("config", [None, LEARNED, QuantConfig(weight=FOUR_BITS)], ids=["int8", "learned", "int4"])
    def test_lower_the_loss(self, config):
        model = calibrated(perceptron(), ROWS, config).train()
        losses = [step(model, ROWS) for _ in range(20)]
        assert losses[-1] < 0.5 * losses[0]

    def test_move_weights_and_leave_scales(self):
        model = calibrated(perceptron(), ROWS).train()
        scales, weight = scales_of(model), model.get_parameter("first.linear.weight").detach().clone()
        step(model, ROWS)
        assert all(torch.equal(scale, scales[path]) for path, scale in scales_of(model).items())
        assert not torch.equal(model.get_parameter("first.linear.weight"), weight)

    def test_move_scales_that_learn_and_freezing_keeps_them(self):
        model = calibrated(residual_block(), IMAGES, LEARNED).train()
        before = scales_of(model)
        step(model, IMAGES)
        after = scales_of(model)
        same = {path for path in before if torch.equal(after[path], before[path])}
        assert same <= {"flatten_quant.quantizer"}, "what is rounded to a grid already gives its scale no gradient"
        model.eval()
        frozen = freeze(model, weights=False)
        assert all(torch.equal(scale, after[path].abs()) for path, scale in scales_of(frozen).items())
        torch.testing.assert_close(freeze(model)(IMAGES), model(IMAGES), rtol=0, atol=1e-5)

    def test_training_recovers_what_four_bits_lose(self):
        x, teacher = random_input(64, 12), perceptron()
        wanted = teacher(x).detach()
        model = calibrated(teacher, x, QuantConfig(weight=FOUR_BITS)).train()
        before = float((model(x) - wanted).square().mean().detach())
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (model(x) - wanted).square().mean()
            loss.backward()
            optimizer.step()
        assert float((model.eval()(x) - wanted).square().mean().detach()) < 0.6 * before


class TestBatchNorm:
    def test_is_live_in_training_mode(self):
        model = calibrated(residual_block(), IMAGES).train()
        before = statistics(model)
        model(IMAGES)
        assert all(not torch.equal(value, before[name]) for name, value in statistics(model).items())

    def test_uses_the_batchs_statistics_as_the_float_model_does(self):
        original = residual_block().train()
        # Weights alone: ranges of activations are calibrated in evaluation mode.
        config = QuantConfig(None, TensorQuantConfig(Precision.INT16, per_channel=True))
        model = calibrated(original, IMAGES, config)
        assert model.training
        torch.testing.assert_close(model(IMAGES), original(IMAGES), rtol=0, atol=2e-3)
        assert not torch.allclose(model(IMAGES), model.eval()(IMAGES), rtol=0, atol=0.1)

    def test_rests_when_it_is_frozen(self):
        model = calibrated(residual_block(), IMAGES).train()
        evaluated = copy.deepcopy(model).eval()(IMAGES)
        freeze_batchnorm(model)
        before = statistics(model)
        torch.testing.assert_close(model(IMAGES), evaluated)
        step(model, IMAGES)
        assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())
        assert model.get_parameter("conv1.bn.weight").grad.abs().max() > 0
        model.train()
        model(IMAGES)
        assert not torch.equal(statistics(model)["conv1.bn.running_mean"], before["conv1.bn.running_mean"])

    def test_freezing_after_training_is_evaluation_mode(self):
        model = calibrated(residual_block(), IMAGES).train()
        for _ in range(5):
            step(model, IMAGES)
        wanted = model.eval()(IMAGES).detach()
        # A weight whose scale was found before training may be clipped now; freezing clips the same.
        torch.testing.assert_close(freeze(model)(IMAGES), wanted, rtol=0, atol=1e-4)


class TestCompiled:
    @pytest.fixture(autouse=True)
    def reset(self):
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    @pytest.mark.parametrize(
        ("backend", "name"),
        [
            ("eager", "int8"),
            ("aot_eager", "int8"),
            ("aot_eager", "fp8"),
            ("aot_eager", "asymmetric"),
            ("aot_eager", "learned"),
            ("aot_eager", "int4"),
        ],
    )
    def test_gives_the_same(self, backend, name):
        config = {
            "int8": None,
            "fp8": QuantConfig(TensorQuantConfig(Precision.FP8)),
            "asymmetric": QuantConfig(TensorQuantConfig(symmetric=False)),
            "learned": LEARNED,
            "int4": QuantConfig(weight=TensorQuantConfig(n_bits=4, block_size=4)),
        }[name]
        model = calibrated(perceptron(), ROWS, config)
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        assert torch.equal(compiled(ROWS), model(ROWS))
        frozen = freeze(model)
        assert torch.equal(torch.compile(frozen, backend=backend, fullgraph=True)(ROWS), frozen(ROWS))

    @pytest.mark.parametrize(("backend", "live"), [("eager", True), ("aot_eager", True), ("aot_eager", False)])
    def test_trains_a_step(self, backend, live):
        model = calibrated(residual_block(), IMAGES, LEARNED).train()
        if not live:
            freeze_batchnorm(model)
        plain = copy.deepcopy(model)
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        losses = [step(one, IMAGES) for one in (compiled, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)

    def test_calibrating_again_is_seen(self):
        model = calibrated(perceptron(), ROWS)
        compiled = torch.compile(model, backend="eager")
        before = compiled(ROWS)
        calibrate(model, [ROWS * 9])
        assert not torch.equal(compiled(ROWS), before)
        assert torch.equal(compiled(ROWS), model(ROWS))


def test_a_copy_trains_apart():
    model = calibrated(perceptron(), ROWS, LEARNED)
    wanted = model(ROWS).detach()
    copied = copy.deepcopy(model).train()
    step(copied, ROWS)
    assert torch.equal(model(ROWS), wanted)
    assert all(part.observer is None for part in copied.modules() if isinstance(part, Quantizer))
