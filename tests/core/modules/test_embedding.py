"""FusedEmbedding: a table with a place for its quantizer."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from embedl_deploy import transform
from embedl_deploy.errors import InputError
from embedl_deploy.modules import FusedEmbedding, FusedMatmul, named_weights
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import (
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantization_report,
    quantize,
)


class Table(Pattern):
    tree = (nn.Embedding,)
    qdq_points = frozenset({QDQPoint.WEIGHT})
    graft = FusedEmbedding


class Product(Pattern):
    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedMatmul


TOKENS = torch.tensor([[0, 3, 3, 1], [2, 0, 5, 7]])
WEIGHTS = QuantConfig(activation=None, weight=TensorQuantConfig(per_channel=True))


def net(**settings):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 6, **settings), nn.Linear(6, 3))


def transformed(model):
    return transform(model, TOKENS, patterns=[Table(), Product()])


def test_its_weight_is_the_table():
    (weight,) = named_weights(FusedEmbedding(table := nn.Embedding(9, 6)))
    assert weight.name == "weight"
    assert weight.operator is table
    assert weight.value is table.weight


def test_a_table_that_changes_when_it_is_read_is_refused():
    with pytest.raises(InputError, match=r"max_norm=2\.0; expected one without"):
        FusedEmbedding(nn.Embedding(9, 6, max_norm=2.0))


def test_a_table_of_integers_is_refused():
    with pytest.raises(InputError, match=r"torch\.int64; expected a real floating-point type"):
        FusedEmbedding(nn.Embedding.from_pretrained(torch.arange(6).reshape(3, 2)))


def test_channels_are_rows():
    """The table of row i is i/127 · k: with a scale for each row all numbers are met exactly."""
    model = net().eval()
    rows = torch.arange(1, 10.0)[:, None] / 127 * torch.tensor([127.0, -127, 0, 5, -64, 1])
    with torch.no_grad():
        model[0].weight.copy_(rows)
    quantized = quantize(transformed(model), config=WEIGHTS)
    torch.testing.assert_close(quantized(TOKENS), model[1](rows[TOKENS]), rtol=0, atol=0.02)
    (place,) = [part for part in quantized.modules() if isinstance(part, FusedEmbedding)]
    torch.testing.assert_close(place(TOKENS), rows[TOKENS], rtol=1e-6, atol=0)


def test_the_row_of_padding_is_not_trained():
    quantized = quantize(transformed(net(padding_idx=0, sparse=True)), config=WEIGHTS).train()
    quantized(TOKENS).sum().backward()
    (place,) = [part for part in quantized.modules() if isinstance(part, FusedEmbedding)]
    grad = place.embedding.weight.grad
    assert grad.layout is torch.strided
    assert not grad[[0, 4, 6, 8]].any()  # padding, and rows that were not read
    assert grad[[1, 2, 3, 5, 7]].any(1).all()


@pytest.mark.parametrize("method", ["bias_correction", "learned_rounding"])
def test_methods_for_products_say_that_it_is_none(method):
    model = net().eval()
    quantized = quantize(transformed(model), [TOKENS], WEIGHTS, **{method: True})
    told = {each.where: each.outcome for each in quantization_report(quantized).corrections}
    assert "Embedding" in told["0"]
    assert torch.equal(quantized.get_submodule("0").embedding.weight, model[0].weight)


def test_frozen_and_from_a_recipe_it_is_the_same():
    quantized = quantize(transformed(net().eval()), config=WEIGHTS)
    wanted = quantized(TOKENS)
    frozen = freeze(quantized)
    assert torch.equal(frozen(TOKENS), wanted)
    assert not any(part.weight is not None for part in frozen.modules() if isinstance(part, nn.Embedding))
    recipe = QuantizationRecipe.from_json(quantization_recipe(quantized).to_json())
    again = recipe.rebuild(transformed(net().eval()))
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(TOKENS), wanted)


def test_a_computed_table_is_fixed():
    model = net().eval()
    parametrizations.weight_norm(model[0])
    quantized = quantize(transformed(model), config=WEIGHTS)
    frozen = freeze(quantized)
    torch.testing.assert_close(frozen(TOKENS), quantized(TOKENS))
    assert not hasattr(frozen.get_submodule("0").embedding, "parametrizations")
