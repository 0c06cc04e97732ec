"""Batch norm by fixed statistics, written out behind a convolution."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.conversions import every_conversion
from embedl_deploy.modules import FrozenBatchNorm2d
from embedl_deploy.quantize import quantize

MAPS = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Written(nn.Module):
    """A convolution, and a function of its result and of tensors of each channel."""

    def __init__(self, function, **shapes):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.rand(shape) + 0.5))
        self.function = function

    def forward(self, x):
        return self.function(self, self.conv(x))


CHANNELS = (1, 4, 1, 1)
FORMS = {
    "scale and shift": lambda m, y: y * m.a + m.b,
    "operands turned": lambda m, y: m.b + m.a * y,
    "shift first": lambda m, y: (y + m.b) * m.a,
    "by a deviation": lambda m, y: (y - m.b) / m.a,
    "all of it": lambda m, y: (y - m.b) / torch.sqrt(m.a + 1e-5) * m.c + m.b,
    "a scale": lambda m, y: y.mul(m.a),
    "a number on the way": lambda m, y: (y * 2 + 1) * m.a,
    "torch's functions": lambda m, y: torch.sub(torch.divide(y, m.a), m.b),
}


def transformed(model, x=MAPS, **settings):
    return transform(model.eval(), x, patterns=every_conversion(), **settings)


def norms(result):
    return [part for part in result.model.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", FORMS)
def test_it_is_one_batch_norm_that_gives_the_same(name):
    model = Written(FORMS[name], a=CHANNELS, b=CHANNELS, c=CHANNELS)
    result = transformed(model)
    assert len(norms(result)) == 1
    assert [node.op for node in result.model.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    assert result.verify(MAPS).max_rel < 1e-6


@pytest.mark.parametrize("training", [False, True])
def test_the_same_parameters_are_trained_as_before(training):
    model = Written(FORMS["all of it"], a=CHANNELS, b=CHANNELS, c=CHANNELS).train(training)
    result = transform(model, MAPS, patterns=every_conversion())
    (norm,) = norms(result)
    assert isinstance(norm, FrozenBatchNorm2d)
    assert not norm.training
    own = list(result.model.parameters())
    pairs = [(p, next(q for q in own if torch.equal(p, q))) for p in model.parameters()]
    assert len({id(q) for _, q in pairs}) == len(pairs) == len(own)
    for each in (model, result.model):
        (each(MAPS) ** 2).sum().backward()
    for wanted, found in pairs:
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-4)


def test_its_weight_and_bias_are_what_the_formula_says():
    model = Written(FORMS["all of it"], a=CHANNELS, b=CHANNELS, c=CHANNELS)
    (norm,) = norms(transformed(model))
    scale = model.c / torch.sqrt(model.a + 1e-5)
    torch.testing.assert_close(norm.weight, scale.flatten())
    torch.testing.assert_close(norm.bias, (model.b - model.b * scale).flatten())
    assert (norm.eps, norm.running_mean.abs().max(), norm.running_var.unique()) == (0, 0, 1)


def test_quantization_folds_it_into_the_weight(tmp_path):
    model = Written(lambda m, y: torch.relu(y * m.a + m.b), a=CHANNELS, b=CHANNELS)
    result = transform(model.eval(), MAPS, backend="tensorrt")
    assert [type(part).__name__ for part in result.model.children()] == ["FusedConvBNReLU"]
    quantized = quantize(result, [MAPS], progress=False)
    weight = model.conv.weight * model.a.reshape(4, 1, 1, 1)
    scale = weight.abs().amax((1, 2, 3)) / 127
    (fused,) = [part for part in quantized.children() if hasattr(part, "weight_fake_quant")]
    torch.testing.assert_close(fused.weight_fake_quant.quantizer.scale.flatten(), scale)
    assert export_onnx(quantized, MAPS, tmp_path / "m.onnx").difference.max_rel < 0.02


REST = {
    "of columns": (lambda m, y: y * m.a, (1, 1, 1, 4)),
    "of places": (lambda m, y: y * m.a, (1, 4, 4, 4)),
    "of all channels": (lambda m, y: y * 2 + 1, CHANNELS),
    "a constant divided": (lambda m, y: m.a / y, CHANNELS),
    "in place, of what is read again": (lambda m, y: y.mul_(m.a), CHANNELS),
    "a scaled summand": (lambda m, y: torch.add(y, m.a, alpha=2), CHANNELS),
    "a summand alone": (lambda m, y: y + m.a, CHANNELS),
}


@pytest.mark.parametrize("name", REST)
def test_what_is_none_stays(name):
    function, shape = REST[name]
    model = Written(function, a=shape)
    if name == "of columns":
        model.conv = nn.Conv2d(3, 4, 3)
        x = torch.randn(1, 3, 6, 6)
    else:
        x = MAPS
    result = transformed(model, x)
    assert norms(result) == []
    assert result.verify(x).max_rel < 1e-6


def test_what_is_declined_has_a_reason():
    wide = Written(lambda m, y: y * m.a, a=CHANNELS)
    wide.a = nn.Parameter(wide.a.detach().double())
    assert norms(transformed(wide)) == []
    assert "is computed in another type than torch.float32" in str(transformed(wide).report.why_not("mul"))
    unknown = transform(Written(lambda m, y: y * m.a, a=CHANNELS).eval(), patterns=every_conversion())
    assert "pass example inputs" in str(unknown.report.why_not("mul"))


def test_statistics_that_the_model_updates_stay():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("mean", torch.zeros(4, 1, 1))

        def forward(self, x):
            y = self.conv(x)
            self.mean.add_(1)
            return y * self.mean

    assert norms(transformed(Counting())) == []


def trained(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (model(MAPS) ** 2).mean().backward()
        optimizer.step()
    return model(MAPS).detach()


SHARED = {
    "as scale and shift": lambda m, y: y * m.a + m.a,
    "behind two convolutions": lambda m, y: m.other(y * m.a) * m.a,
}


@pytest.mark.parametrize("name", SHARED)
def test_a_parameter_that_is_read_twice_stays_one(name):
    model = Written(SHARED[name], a=(4, 1, 1))
    model.other = nn.Conv2d(4, 4, 1)
    copied = copy.deepcopy(transformed(model).model)
    torch.testing.assert_close(trained(copied), trained(copy.deepcopy(model)), rtol=1e-5, atol=1e-6)


def test_a_detached_parameter_is_not_trained():
    model = Written(lambda m, y: y * m.a.detach(), a=(4, 1, 1))
    rewritten = transformed(model).model
    assert len(norms(transformed(model))) == 1
    rewritten(MAPS).sum().backward()
    assert all(p.grad is None for p in rewritten.parameters() if p.numel() == 4 and p.dim() == 3)


def test_numbers_are_multiplied_as_exactly_as_the_map():
    model = Written(lambda m, y: y * 0.1 * 0.3 / 7 * m.a, a=CHANNELS).double()
    result = transformed(model, MAPS.double())
    assert len(norms(result)) == 1
    assert result.verify(MAPS.double()).max_rel < 1e-15


def test_complex_maps_are_left_alone():
    model = Written(lambda m, y: y * m.a, a=CHANNELS)
    model.conv.weight = nn.Parameter(model.conv.weight.detach().to(torch.complex64))
    model.conv.bias = None
    model.a = nn.Parameter(model.a.detach().to(torch.complex64))
    result = transformed(model, MAPS.to(torch.complex64))
    assert norms(result) == []
    assert "batch norm does not compute in torch.complex64" in str(result.report.why_not("mul"))
