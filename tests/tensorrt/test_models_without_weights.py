"""Models on the meta device are transformed as they are on the CPU."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from embedl_deploy import transform
from support.language_models import GPT2_SIZES, SIZES

IDS = torch.tensor([[5, 3, 9, 4, 7]])
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, use_cache=False)).eval(),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, n_positions=32, use_cache=False)).eval(),
}


@pytest.mark.parametrize(("name", "device"), [("llama", "meta"), ("gpt2", "cpu")])
def test_the_graph_is_that_of_the_model_with_weights(name, device):
    with torch.device("meta"):
        empty = MODELS[name]()
    wanted = transform(MODELS[name](), IDS, backend="tensorrt")
    found = transform(empty, IDS.to(device), backend="tensorrt")
    assert str(found.model.graph) == str(wanted.model.graph)
    assert found.report.plan.notes == wanted.report.plan.notes
    shapes = [{n: t.shape for n, t in result.model.state_dict().items()} for result in (found, wanted)]
    assert shapes[0] == shapes[1]
    assert {n for n, t in found.model.named_parameters() if not t.is_meta} == set()
