"""Greedy generation in ONNX Runtime, with a file for the prompt and one for each token after it, against PyTorch."""

import copy

import onnxruntime
import pytest
import torch
import transformers as hf
from torch.export import Dim

from embedl_deploy import export_onnx, transform
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from support.language_models import GPT2_SIZES, LAYERS, SIZES, VOCABULARY

STEPS = 32
IDS = torch.tensor([[3, 14, 15, 9, 26]])
GROUPED = {**SIZES, "num_key_value_heads": 2, "initializer_range": 0.3}
AUDIO = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def qwen3():
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=8))


def gemma3():
    types = ["sliding_attention", "full_attention"]
    return hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=8, layer_types=types, tie_word_embeddings=False)
    )


def mixtral():
    return hf.MixtralForCausalLM(hf.MixtralConfig(**GROUPED, num_local_experts=4))


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED))


def gpt2():
    return hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2_SIZES, initializer_range=0.5, **SPECIAL))


def whisper():
    return hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            max_source_positions=20,
            max_target_positions=64,
            init_std=0.5,
            decoder_start_token_id=1,
            **AUDIO,
            **SPECIAL,
        )
    )


def greedy(first, next_, inputs, ids):
    """Tokens, and the inputs of the second call."""
    tokens, second = [], None
    with torch.no_grad():
        output = first(**inputs)
        encoded = output.get("encoder_last_hidden_state")
        while True:
            token = output.logits[:, -1:].argmax(-1)
            tokens.append(token.item())
            if len(tokens) == STEPS:
                return tokens, second
            kwargs = {ids: token, "past_key_values": output.past_key_values}
            if encoded is not None:
                kwargs["encoder_outputs"] = (encoded,)
            second = second or copy.deepcopy(kwargs)
            output = next_(**kwargs)


def greedy_of_files(first, next_, inputs, ids):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    sessions = [onnxruntime.InferenceSession(path, options) for path in (first, next_)]
    feed, tokens, encoded, session = {name: value.numpy() for name, value in inputs.items()}, [], None, sessions[0]
    while True:
        output = dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))
        encoded = output.get("encoder_last_hidden_state") if encoded is None else encoded
        token = output["logits"][:, -1:].argmax(-1)
        tokens.append(token.item())
        if len(tokens) == STEPS:
            return tokens
        session = sessions[1]
        known = {ids: token, "encoder_outputs.0": encoded}
        feed = {
            name: known[name] if name in known else output[name.replace("past_key_values", "present")]
            for name in (value.name for value in session.get_inputs())
        }


@pytest.mark.parametrize("make", [llama, qwen3, gemma3, gpt2, mixtral, whisper])
def test_files_give_the_tokens_of_the_model(tmp_path, make):
    model = make().eval()
    inputs, ids, layer = (
        {"input_ids": IDS},
        "input_ids",
        {name: {2: Dim("past", min=2, max=40)} for name in ("key", "value")},
    )
    if make is whisper:
        inputs, ids, layer = (
            {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": IDS},
            "decoder_input_ids",
            layer,
        )
    expected, step = greedy(model, model, inputs, ids)
    assert len(set(expected)) > 2
    if make is gemma3:  # a cache that drops nothing
        inputs = {**inputs, "past_key_values": hf.DynamicCache()}
        _, step = greedy(model, model, {**inputs, "past_key_values": hf.DynamicCache()}, ids)
    if make is whisper:
        layer = {"decoder": layer, "encoder": None}
    opened = ({ids: {1: Dim("length", min=2, max=20)}}, {"past_key_values": [layer] * LAYERS})
    results = [
        transform(model, kwargs=kwargs, backend="tensorrt", dynamic_shapes=sizes)
        for kwargs, sizes in zip((inputs, step), opened, strict=True)
    ]
    paths = [tmp_path / "prefill.onnx", tmp_path / "decode.onnx"]
    for result, path, kwargs in zip(results, paths, (inputs, step), strict=True):
        export_onnx(result, (), path, kwargs=kwargs)
    plain = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    assert greedy_of_files(*paths, plain, ids) == expected
    int4 = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, block_size=16))
    pairs = zip(results, (inputs, step), strict=True)
    quantized = [quantize(result, [kwargs], int4, progress=False) for result, kwargs in pairs]
    for one, path, kwargs in zip(quantized, paths, (inputs, step), strict=True):
        export_onnx(one, (), path, kwargs=kwargs, integer_weights=True)
    assert greedy_of_files(*paths, plain, ids) == greedy(*quantized, inputs, ids)[0]
