"""nn.TransformerDecoder  becomes  its layers, nn.TransformerDecoderLayer its parts, nn.Transformer encoder and decoder.

As for encoders: tracing keeps them whole, and the parts are the original modules, called as torch calls them.

Declined: causal hints (``tgt_is_causal=True``, ``memory_is_causal=True``); layers, encoders and decoders of another
class; activations that are neither modules nor torch's ReLU or GELU; hooks on what is taken apart.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from embedl_deploy.conversions.transformer_parts import LayerParts, unknown_activation
from embedl_deploy.graph.arguments import arguments_by_name
from embedl_deploy.graph.lookup import has_hooks, resolve_module
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import claim_container, insert_call, replace_match

_HOOKS = "hooks on the module would be lost"


class _WithMemory(nn.Module):
    """``inner(x, x with its positions in reverse order)``, for examples."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        """(B, S, E), to the same shape."""
        return self.inner(x, x.flip(1))


def _example(inner: nn.Module, note: str = "") -> Example:
    return Example(_WithMemory(inner), (torch.randn(2, 5, 8),), note)


def _watched(inner: nn.Module) -> nn.Module:
    inner.register_forward_hook(lambda module, args, output: None)
    return inner


def _layer(
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu", **settings: Any
) -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True, **settings)


def _transformer() -> nn.Transformer:
    return nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)


class UnrollTransformerPattern(Pattern):
    """Call the encoder, and the decoder with its result."""

    tree = (nn.Transformer,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [_example(_transformer())]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [_example(_watched(_transformer()), "a hook watches it")]

    def check(self, match: PatternMatch) -> str | None:
        """Take torch's own encoder and decoder."""
        model = resolve_module(match.tree_match.last, nn.Transformer)
        if type(model.encoder) is not nn.TransformerEncoder or type(model.decoder) is not nn.TransformerDecoder:
            return "its encoder or decoder is a class of its own"
        return _HOOKS if has_hooks(model) else None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the two there."""
        node = pattern_match.tree_match.last
        model = resolve_module(node, nn.Transformer)
        call = arguments_by_name(node)
        home = claim_container(pattern_match, node)
        given = (call["src"], call["src_mask"], call["src_key_padding_mask"], call["src_is_causal"])
        memory = insert_call(pattern_match, model.encoder, given, path=f"{home}.encoder")
        masks = (call[name] for name in _MASKS)
        decoded = insert_call(pattern_match, model.decoder, (call["tgt"], memory, *masks), path=f"{home}.decoder")
        replace_match(pattern_match, decoded)
        return [memory, decoded]


#: Behind target and memory, in the order in which decoders and their layers take them.
_MASKS = (
    *("tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask"),
    *("tgt_is_causal", "memory_is_causal"),
)


class UnrollTransformerDecoderPattern(Pattern):
    """Call the layers of a decoder one after another."""

    tree = (nn.TransformerDecoder,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            _example(nn.TransformerDecoder(_layer(), 2)),
            _example(nn.TransformerDecoder(_layer(), 1, nn.LayerNorm(8)), "with a normalization at the end"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [_example(_watched(nn.TransformerDecoder(_layer(), 1)), "a hook watches it")]

    def check(self, match: PatternMatch) -> str | None:
        """Take what is computed in one way only."""
        node = match.tree_match.last
        decoder = resolve_module(node, nn.TransformerDecoder)
        if any(type(layer) is not nn.TransformerDecoderLayer for layer in decoder.layers):
            return "its layers are not nn.TransformerDecoderLayer"
        return _HOOKS if has_hooks(decoder) else _causal_hint(node)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the layers there."""
        node = pattern_match.tree_match.last
        decoder = resolve_module(node, nn.TransformerDecoder)
        call = arguments_by_name(node)
        home = claim_container(pattern_match, node)
        x, rest = call["tgt"], (call["memory"], *(call[name] for name in _MASKS[:4]))
        new = []
        for index, layer in enumerate(decoder.layers):
            x = insert_call(pattern_match, layer, (x, *rest), path=f"{home}.layers.{index}")
            new.append(x)
        if decoder.norm is not None:
            x = insert_call(pattern_match, decoder.norm, (x,), path=f"{home}.norm")
            new.append(x)
        replace_match(pattern_match, x)
        return new


class DecomposeTransformerDecoderLayerPattern(Pattern):
    """Decompose a layer so that its products can be fused and quantized, and its attentions converted."""

    tree = (nn.TransformerDecoderLayer,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [_example(_layer()), _example(_layer("gelu", norm_first=True), "normalized first")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            _example(_watched(_layer()), "a hook watches it"),
            _example(_layer(F.silu), "its activation is another function"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take what is computed in one way only."""
        node = match.tree_match.last
        layer = resolve_module(node, nn.TransformerDecoderLayer)
        return _HOOKS if has_hooks(layer) else _causal_hint(node) or unknown_activation(layer)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the parts there."""
        node = pattern_match.tree_match.last
        call = arguments_by_name(node)
        x, memory = call["tgt"], call["memory"]
        masks, paddings = (call[name] for name in _MASKS[:2]), (call[name] for name in _MASKS[2:4])
        (own, memorys), (own_padding, memorys_padding) = masks, paddings
        parts = LayerParts(pattern_match, resolve_module(node, nn.TransformerDecoderLayer))

        def attend(value: fx.Node) -> fx.Node:
            return parts.attend("self_attn", "dropout1", value, value, own, own_padding)

        def look_up(value: fx.Node) -> fx.Node:
            return parts.attend("multihead_attn", "dropout2", value, memory, memorys, memorys_padding)

        x = parts.residual("norm1", x, attend)
        x = parts.residual("norm2", x, look_up)
        x = parts.residual("norm3", x, lambda value: parts.feed_forward("dropout3", value))
        replace_match(pattern_match, x)
        return parts.new


def _causal_hint(node: fx.Node) -> str | None:
    call = arguments_by_name(node)
    return next((f"{name} is set" for name in _MASKS[4:] if call[name]), None)
