"""Small layers of ``nn.TransformerEncoder`` and ``nn.TransformerDecoder``: 8 features, 2 heads."""

from typing import Any

from torch import nn

#: What layers of both kinds are made with, beside the usual settings.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"norm_first": True},
    {"activation": "gelu", "bias": False},
    {"activation": nn.SiLU()},
    {"batch_first": False},
]
USUAL: dict[str, Any] = {"dropout": 0.0, "batch_first": True}


def encoder_layer(**settings: Any) -> nn.TransformerEncoderLayer:
    """A layer of an encoder; batches first and no dropout, unless settings say otherwise."""
    return nn.TransformerEncoderLayer(8, 2, 16, **{**USUAL, **settings})


def decoder_layer(**settings: Any) -> nn.TransformerDecoderLayer:
    """A layer of a decoder, likewise."""
    return nn.TransformerDecoderLayer(8, 2, 16, **{**USUAL, **settings})
