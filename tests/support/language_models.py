"""Sizes of small language models of transformers."""

from typing import Any

VOCABULARY, LAYERS = 50, 2
#: As configurations of most models name them.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}
#: As GPT-2's configuration names them.
GPT2_SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": LAYERS, "n_head": 4}
