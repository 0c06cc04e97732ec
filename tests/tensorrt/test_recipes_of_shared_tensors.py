"""Recipe and state restore what corrections made of shared, tied and computed tensors, bit for bit."""

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.utils import parametrizations

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import QuantizationRecipe, freeze, quantization_recipe, quantize
from support.nets import net, random_input, scrambled

METHODS = {
    "plain": {},
    "smoothed": {"smooth_quant": 0.5},
    "bias": {"bias_correction": True},
    "rounding": {"learned_rounding": True},
    "equalized": {"equalization": True},
    "all": {"equalization": True, "smooth_quant": 0.5, "learned_rounding": True},
}
ROWS = random_input(4, 16) * torch.linspace(0.1, 20, 16)
MAPS = random_input(4, 8, 3, 3) * torch.linspace(0.1, 20, 8)[:, None, None]


def tied(*names, data=False):
    """Two layers with tensors in common."""
    model = net(lambda m, x: m.b(torch.relu(m.a(x))), a=nn.Linear(16, 16), b=nn.Linear(16, 16))
    for name in names:
        if data:
            getattr(model.b, name).data = getattr(model.a, name).data
        else:
            setattr(model.b, name, getattr(model.a, name))
    return model


def two_batch_norms(**settings):
    norms = {"n1": nn.BatchNorm2d(8, **settings), "n2": nn.BatchNorm2d(8, **settings)}
    return net(lambda m, x: m.n2(m.conv(torch.relu(m.n1(m.conv(x))))), conv=nn.Conv2d(8, 8, 1, bias=False), **norms)


def block_called_twice():
    block = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU())
    return net(lambda m, x: m.out(m.block(x) + m.again(m.block(x))), block=block, again=block, out=nn.Linear(16, 4))


def tied_embedding():
    model = net(lambda m, x: m.head(m.norm(m.table(x))), table=nn.Embedding(6, 16), norm=nn.LayerNorm(16))
    model.head = nn.Linear(16, 6, bias=False)
    model.head.weight = model.table.weight
    return model


def read_by_a_function():
    return net(lambda m, x: torch.relu(m.a(x)) @ m.a.weight + m.a(x), a=nn.Linear(16, 16))


def parametrized(parametrize, *, shared=False):
    first = parametrize(nn.Linear(16, 16))
    second = first if shared else nn.Linear(16, 16)
    blocks = (nn.LayerNorm(16, elementwise_affine=False), first, nn.ReLU(), nn.LayerNorm(16), second)
    return scrambled(nn.Sequential(*blocks)).eval()


def parametrized_convolutions():
    norm = parametrizations.weight_norm
    blocks = (norm(nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8), nn.ReLU(), norm(nn.Conv2d(8, 8, 1, bias=False)))
    return scrambled(nn.Sequential(*blocks)).eval()


MODELS = {
    "weight and bias": (lambda: tied("weight", "bias"), ROWS),
    "weight alone": (lambda: tied("weight"), ROWS),
    "one memory": (lambda: tied("weight", data=True), ROWS),
    "one convolution, two batch norms": (two_batch_norms, MAPS),
    "batch norms without weights": (lambda: two_batch_norms(affine=False), MAPS),
    "a block called twice": (block_called_twice, ROWS),
    "embedding and head": (tied_embedding, torch.tensor([[0, 1, 2], [3, 4, 5]])),
    "layer and function": (read_by_a_function, ROWS),
    "weight norm": (lambda: parametrized(parametrizations.weight_norm), ROWS),
    "spectral norm, shared": (lambda: parametrized(parametrizations.spectral_norm, shared=True), ROWS),
    "convolutions with weight norm": (parametrized_convolutions, MAPS),
}
ONE_EACH = ["smoothed", "bias", "rounding", "equalized"]
LAW = [(model, methods) for i, model in enumerate(MODELS) for methods in ("plain", ONE_EACH[i % 4], "all")]


def rebuilt(text, model, x):
    return QuantizationRecipe.from_json(text).rebuild(transform(model, x, backend="tensorrt")).eval()


@pytest.mark.parametrize(("model", "methods"), LAW)
def test_what_comes_back_computes_the_same(model, methods, tmp_path):
    make, x = MODELS[model]
    quantized = quantize(transform(make(), x, backend="tensorrt"), [x], progress=False, **METHODS[methods]).eval()
    other = make()
    with torch.no_grad():  # the numbers are in the state alone
        for parameter in other.parameters():
            parameter.mul_(0.7)
    for saved in (quantized, freeze(quantized)):
        text = quantization_recipe(saved).to_json()
        restored = rebuilt(text, other, x)
        assert quantization_recipe(restored).to_json() == text
        restored.load_state_dict({name: tensor.clone() for name, tensor in saved.state_dict().items()})
        assert torch.equal(restored(x), saved(x))
    if methods == "plain":
        file = tmp_path / "model.safetensors"  # which holds shared tensors once
        save_model(quantized, file)
        again = rebuilt(quantization_recipe(quantized).to_json(), other, x)
        load_model(again, file)
        assert torch.equal(again(x), quantized(x))


def test_a_model_whose_tensors_are_not_shared_will_do():
    quantized = quantize(transform(tied("weight"), backend="tensorrt"), [ROWS], progress=False)
    restored = rebuilt(quantization_recipe(quantized).to_json(), tied(), ROWS)
    restored.load_state_dict(quantized.state_dict())
    assert restored.a.linear.weight is restored.b.linear.weight and torch.equal(restored(ROWS), quantized(ROWS))


@pytest.fixture(scope="module")
def recipe():
    result = transform(parametrized(parametrizations.weight_norm), backend="tensorrt")
    return quantization_recipe(quantize(result, [ROWS], progress=False)).to_json()


class TestRefused:
    def test_a_weight_that_was_computed(self, recipe):
        with pytest.raises(QuantizationError, match=r"has a module at '1.linear.parametrizations.*Rebuild from"):
            rebuilt(recipe, parametrized(lambda linear: linear), ROWS)

    def test_another_shape(self, recipe):
        other = parametrized(parametrizations.weight_norm)
        other[4] = nn.Linear(16, 5)
        with pytest.raises(QuantizationError, match=r"'4.linear.weight' is 5x16, in the recipe 16x16"):
            rebuilt(recipe, other, ROWS)

    def test_a_tensor_too_many_or_too_few(self, recipe):
        other = parametrized(parametrizations.weight_norm)
        other[3] = nn.LayerNorm(16, elementwise_affine=False)
        without = recipe.replace(',\n    "4.linear.bias": "16"', "")
        assert "4.linear.bias" in recipe and "4.linear.bias" not in without
        with pytest.raises(QuantizationError, match=r"'4.linear.bias' are not in the recipe"):
            rebuilt(without, other, ROWS)
        more = recipe.replace('"4.linear.bias"', '"4.linear.steps": "16",\n    "4.linear.bias"')
        with pytest.raises(QuantizationError, match=r"'4.linear.steps' are only in the recipe"):
            rebuilt(more, other, ROWS)
