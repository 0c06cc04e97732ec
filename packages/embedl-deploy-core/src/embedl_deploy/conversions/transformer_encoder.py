"""nn.TransformerEncoder  becomes  its layers, one after another, and nn.TransformerEncoderLayer its parts.

Tracing keeps both whole, because their forwards branch on values, so nothing inside them could be fused or quantized.
The parts are the original modules, called as the layer calls them: attention, normalizations, products, dropout.

Declined: causal hints (``is_causal=True``); a padding mask where torch may pack the sequences
(``use_nested_tensor``), which gives zeros at padded positions or not as the mode and the gradients have it; layers
of another class; activations that are neither modules nor torch's ReLU or GELU; hooks on what is taken apart.
"""

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


def _tokens() -> tuple[torch.Tensor]:
    return (torch.randn(2, 5, 8),)


def _layer(**settings: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **settings)


class UnrollTransformerEncoderPattern(Pattern):
    """Call the layers of an encoder one after another."""

    tree = (nn.TransformerEncoder,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        plain = nn.TransformerEncoder(_layer(), 2)
        normed = nn.TransformerEncoder(_layer(norm_first=True), 1, nn.LayerNorm(8), enable_nested_tensor=False)
        return [
            Example(nn.Sequential(plain), _tokens()),
            Example(nn.Sequential(normed), _tokens(), "with a normalization at the end"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        watched = nn.TransformerEncoder(_layer(), 1)
        watched.register_forward_hook(lambda module, args, output: None)
        return [Example(nn.Sequential(watched), _tokens(), "a hook watches it")]

    def check(self, match: PatternMatch) -> str | None:
        """Take what is computed in one way only."""
        node = match.tree_match.last
        encoder = resolve_module(node, nn.TransformerEncoder)
        call = arguments_by_name(node)
        if call["is_causal"]:
            return "is_causal is set"
        if call["src_key_padding_mask"] is not None and encoder.use_nested_tensor:
            return "with a padding mask its result depends on the mode: build it with enable_nested_tensor=False"
        if any(type(layer) is not nn.TransformerEncoderLayer for layer in encoder.layers):
            return "its layers are not nn.TransformerEncoderLayer"
        return "hooks on the module would be lost" if has_hooks(encoder) else None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the layers there."""
        node = pattern_match.tree_match.last
        encoder = resolve_module(node, nn.TransformerEncoder)
        call = arguments_by_name(node)
        x, mask, padding = call["src"], call["mask"], call["src_key_padding_mask"]
        home = claim_container(pattern_match, node)
        masks = () if mask is None and padding is None else (mask, padding)
        new = []
        for index, layer in enumerate(encoder.layers):
            x = insert_call(pattern_match, layer, (x, *masks), path=f"{home}.layers.{index}")
            new.append(x)
        if encoder.norm is not None:
            x = insert_call(pattern_match, encoder.norm, (x,), path=f"{home}.norm")
            new.append(x)
        replace_match(pattern_match, x)
        return new


class DecomposeTransformerEncoderLayerPattern(Pattern):
    """Decompose a layer so that its products can be fused and quantized, and its attention converted."""

    tree = (nn.TransformerEncoderLayer,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(_layer()), _tokens()),
            Example(nn.Sequential(_layer(norm_first=True, activation="gelu")), _tokens(), "normalized first"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        watched = _layer()
        watched.register_forward_hook(lambda module, args, output: None)
        return [
            Example(nn.Sequential(watched), _tokens(), "a hook watches it"),
            Example(nn.Sequential(_layer(activation=F.silu)), _tokens(), "its activation is another function"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take what is computed in one way only."""
        node = match.tree_match.last
        layer = resolve_module(node, nn.TransformerEncoderLayer)
        if arguments_by_name(node)["is_causal"]:
            return "is_causal is set"
        return "hooks on the module would be lost" if has_hooks(layer) else unknown_activation(layer)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the parts there."""
        node = pattern_match.tree_match.last
        layer = resolve_module(node, nn.TransformerEncoderLayer)
        call = arguments_by_name(node)
        x, mask, padding = call["src"], call["src_mask"], call["src_key_padding_mask"]
        parts = LayerParts(pattern_match, layer)

        def attend(value: fx.Node) -> fx.Node:
            return parts.attend("self_attn", "dropout1", value, value, mask, padding)

        x = parts.residual("norm1", x, attend)
        x = parts.residual("norm2", x, lambda value: parts.feed_forward("dropout2", value))
        replace_match(pattern_match, x)
        return parts.new
