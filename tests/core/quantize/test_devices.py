"""Quantizers are where the tensors are that they quantize; the meta device stands for any that is not the processor."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import Quantizer, insert_qdq
from support.nets import random_input
from support.small_patterns import QUANTIZABLE


def devices(model):
    return {path: part.scale.device.type for path, part in model.named_modules() if isinstance(part, Quantizer)}


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()


def test_quantizers_are_put_where_the_model_is(model):
    found = devices(insert_qdq(transform(model.to("meta"), patterns=QUANTIZABLE).model))
    assert len(found) == 4
    assert set(found.values()) == {"meta"}


def test_of_a_model_on_two_devices(model):
    model[3].to("meta")
    found = devices(insert_qdq(transform(model, patterns=QUANTIZABLE).model))
    weights = [device for path, device in sorted(found.items()) if path.endswith("weight_fake_quant.quantizer")]
    assert weights == ["cpu", "meta"]


def test_a_quantizer_follows_what_it_observes(model):
    quantized = insert_qdq(transform(model, random_input(1, 4, 8, 8), patterns=QUANTIZABLE).model)
    quantizer = next(part for part in quantized.modules() if isinstance(part, Quantizer))

    class Seen:
        def observe(self, x):
            pass

    quantizer.observer = Seen()
    quantizer(torch.empty(2, 3, device="meta"))
    assert quantizer.scale.device.type == "meta"
