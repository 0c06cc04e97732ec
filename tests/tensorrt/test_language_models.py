"""Language models of transformers, as they come."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicCache

from embedl_deploy import TransformationResult, transform
from embedl_deploy.errors import InputError
from support.language_models import GPT2_SIZES, SIZES

IDS = torch.tensor([[5, 3, 9, 4, 7]])


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def mistral() -> nn.Module:
    return MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=8)).eval()


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, n_positions=32, bos_token_id=1, eos_token_id=1)).eval()


@pytest.mark.parametrize("make", [llama, gpt2])
def test_as_they_come(make):
    result = transform(make(), IDS, backend="tensorrt")
    assert result.verify(IDS).max_rel < 1e-5
    output = result.model(IDS)
    assert type(output.past_key_values) is DynamicCache
    assert output.past_key_values.get_seq_length() == 5


@pytest.fixture(scope="module")
def decoder() -> TransformationResult:
    model = mistral()
    return transform(
        model, kwargs={"input_ids": IDS[:, :1], "past_key_values": model(IDS).past_key_values}, backend="tensorrt"
    )


def test_a_cache_that_is_given_is_not_changed(decoder):
    model = decoder.report.plan.original
    cache = model(IDS).past_key_values
    assert decoder.verify(input_ids=IDS[:, :1], past_key_values=cache).max_rel < 1e-5
    output = decoder.model(input_ids=IDS[:, :1], past_key_values=cache)
    assert (cache.get_seq_length(), output.past_key_values.get_seq_length()) == (5, 6)


def test_a_cache_that_has_dropped_tokens_is_refused(decoder):
    model = decoder.report.plan.original
    cache = model(torch.randint(1, 20, (1, 12))).past_key_values
    with pytest.raises(
        InputError, match=r"'past_key_values' is .* with a DynamicCache of 4 values and another content"
    ):
        decoder.model(input_ids=IDS[:, :1], past_key_values=cache)
