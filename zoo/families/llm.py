"""Language models, as they come: with a cache among their outputs."""

from typing import Any

from zoo.families.transformers_member import SIZES, VOCABULARY, member, tokens

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **SIZES,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

MEMBERS = [
    member("BloomForCausalLM", tokens(), vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4),
    member("CohereForCausalLM", tokens(), **_GROUPED),
    member("FalconForCausalLM", tokens(), **_SMALL, new_decoder_architecture=False),
    member("Gemma2ForCausalLM", tokens(), **_GROUPED, head_dim=16, sliding_window=64),
    member("Gemma3ForCausalLM", tokens(), config="Gemma3TextConfig", **_GROUPED, head_dim=16, sliding_window=64),
    member("GemmaForCausalLM", tokens(), **_GROUPED, head_dim=16),
    member("GPT2LMHeadModel", tokens(), **_GPT2),
    member("GPTBigCodeForCausalLM", tokens(), **_GPT2),
    member("GPTJForCausalLM", tokens(), **_GPT2, rotary_dim=8),
    member("GPTNeoXForCausalLM", tokens(), **_SMALL),
    member("GraniteForCausalLM", tokens(), **_GROUPED),
    member("LlamaForCausalLM", tokens(), **_GROUPED),
    member(
        "MambaForCausalLM",
        tokens(),
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        state_size=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
    member("MistralForCausalLM", tokens(), **_GROUPED, sliding_window=64),
    member("MixtralForCausalLM", tokens(), **_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    member("OlmoForCausalLM", tokens(), **_GROUPED),
    member("OPTForCausalLM", tokens(), **_SMALL, ffn_dim=128, word_embed_proj_dim=64, max_position_embeddings=64),
    member("Phi3ForCausalLM", tokens(), **_GROUPED),
    member("PhiForCausalLM", tokens(), **_SMALL),
    member("Qwen2ForCausalLM", tokens(), **_GROUPED),
    member("Qwen2MoeForCausalLM", tokens(), **_GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64),
    member("Qwen3ForCausalLM", tokens(), **_GROUPED, head_dim=16),
    member("StableLmForCausalLM", tokens(), **_GROUPED),
    member("Starcoder2ForCausalLM", tokens(), **_GROUPED),
]
