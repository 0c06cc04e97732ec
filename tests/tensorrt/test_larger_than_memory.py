"""A Llama that is quantized from shards, and exported from them: as in memory, to the byte."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError
from embedl_deploy.export import weights_later
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.shards import export_quantized, load_quantized, quantize_shards
from support.language_models import SIZES

CONFIG = LlamaConfig(**{**SIZES, "vocab_size": 64, "hidden_size": 64}, use_cache=False, tie_word_embeddings=True)
PROMPTS = list(torch.randint(0, 64, (5, 2, 6), generator=torch.Generator().manual_seed(0)))
CASES = {
    "INT4": (None, QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, block_size=16)), {}),
    "INT8": (PROMPTS, None, {"smooth_quant": 0.5}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Transformed with weights and without, and the weights."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    weights = tmp_path_factory.mktemp("llama")
    model.save_pretrained(weights, max_shard_size="60kB")
    with torch.device("meta"):
        empty = LlamaForCausalLM(CONFIG).eval()
    empty.model.rotary_emb = LlamaRotaryEmbedding(CONFIG)
    return *(transform(each, PROMPTS[0], backend="tensorrt") for each in (model, empty)), weights


@pytest.mark.parametrize("case", CASES)
def test_as_in_memory(tmp_path, models, monkeypatch, case):
    monkeypatch.setattr(weights_later, "LARGEST", 1200)  # all matrices
    data, config, methods = CASES[case]
    result, empty, weights = models
    wanted = quantize(result, data, config, **methods, judged_by="layers", freeze_weights=True, progress=False)
    quantize_shards(empty, weights, tmp_path / "out", data, config, **methods, progress=False)
    loaded = load_quantized(empty, tmp_path / "out")
    found = loaded.state_dict()
    assert found.keys() == wanted.state_dict().keys()
    assert [name for name, tensor in wanted.state_dict().items() if not torch.equal(tensor, found[name])] == []
    exported = export_quantized(empty, tmp_path / "out", PROMPTS[0], tmp_path / "streamed.onnx")
    export_onnx(wanted, PROMPTS[0], tmp_path / "whole.onnx", integer_weights=True)
    assert exported.difference is None
    assert (tmp_path / "streamed.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_what_is_computed_before_is_told(tmp_path, models, monkeypatch):
    monkeypatch.setattr(weights_later, "LARGEST", 8)  # among them vectors, of which equal ones are stored once
    _, empty, weights = models
    quantize_shards(empty, weights, tmp_path / "out", config=CASES["INT4"][1], progress=False)
    with pytest.raises(ExportError, match=r"weights of the file are computed from those of the model"):
        export_quantized(empty, tmp_path / "out", PROMPTS[0], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
