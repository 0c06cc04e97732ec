"""torchvision's shifted_window_attention  becomes  five modules.

    SwinWindowPartition → MHAInProjection → SwinAttention → Linear → SwinWindowReverse

torchvision computes Swin's attention in one opaque function, in V1 (scaled dot product) and V2 (cosine attention with a
learned temperature, keys without bias) alike. The parts hold the original parameters.

Declined: a projection weight that is computed on the way instead of being a parameter.
"""

import operator
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.conversions.example_swin import WindowAttention
from embedl_deploy.graph import get_constant
from embedl_deploy.modules import (
    MHAInProjection,
    SwinAttention,
    SwinWindowPartition,
    SwinWindowReverse,
    linear_with,
)
from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    arguments_by_name,
    get_module,
    insert_call,
    replace_match,
)

_WEIGHTS = ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")


def is_shifted_window_attention(node: fx.Node) -> bool:
    """A call of torchvision's function, told by name so that torchvision need not be installed."""
    target = node.target
    return (
        node.op == "call_function"
        and getattr(target, "__name__", "") == "shifted_window_attention"
        and getattr(target, "__module__", "") == "torchvision.models.swin_transformer"
    )


class DecomposeSwinAttentionPattern(Pattern):
    """Decompose Swin attention so that its parts can be fused and quantized."""

    tree = (is_shifted_window_attention,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(WindowAttention(), (torch.randn(2, 4, 4, 4),), "windows of 2×2, shifted by one"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(WindowAttention(scaled=True), (torch.randn(2, 4, 4, 4),), "its weight is computed at run time"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take it if its weights are parameters."""
        call = arguments_by_name(match.tree_match.get_node(0))
        for name in _WEIGHTS:
            value = call[name]
            if value is not None and not (isinstance(value, fx.Node) and value.op == "get_attr"):
                return f"{name} is computed at run time"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the five parts there."""
        node = pattern_match.tree_match.last
        call = arguments_by_name(node)
        weights: dict[str, Any] = {name: call[name] and get_constant(call[name]) for name in _WEIGHTS}
        window = (int(call["window_size"][0]), int(call["window_size"][1]))
        shift = (int(call["shift_size"][0]), int(call["shift_size"][1]))
        image, logit_scale = call["input"], call["logit_scale"]
        weight_path = str(call["qkv_weight"].target)
        # The ShiftedWindowAttention's path, if the function was called by one.
        home = weight_path.removesuffix(".qkv.weight") if weight_path.endswith(".qkv.weight") else node.name

        def call_part(module: nn.Module, args: tuple[Any, ...], name: str) -> fx.Node:
            placed = insert_call(pattern_match, module, args, path=f"{home}.{name}")
            module.train(bool(call["training"]))  # after the placing, which takes over the model's flag
            return placed

        def item(source: fx.Node, index: int) -> fx.Node:
            with node.graph.inserting_before(node):
                return node.graph.call_function(operator.getitem, (source, index))

        partition = SwinWindowPartition(window, shift)
        windows = call_part(partition, (image,), "partition")
        mask = None
        new = [windows]
        if partition.shifted:
            windows, mask = item(windows, 0), item(windows, 1)
            new += [windows, mask]
        qkv = linear_with(weights["qkv_weight"], weights["qkv_bias"])
        in_proj = MHAInProjection(qkv, call["num_heads"], zero_key_bias=logit_scale is not None)
        packed = call_part(in_proj, (windows,), "in_proj")
        parts = [item(packed, index) for index in range(3)]
        attention = SwinAttention(call["attention_dropout"])
        args = (*parts, call["relative_position_bias"], mask, logit_scale)
        attended = call_part(attention, args, "attention")
        projection = linear_with(weights["proj_weight"], weights["proj_bias"])
        output = call_part(projection, (attended,), "out_proj")
        new += [packed, *parts, attended, output]
        if call["dropout"] > 0:
            output = call_part(nn.Dropout(call["dropout"]), (output,), "dropout")
            new.append(output)
        reverse = call_part(SwinWindowReverse(window, shift), (output, _of_its_size(image)), "reverse")
        replace_match(pattern_match, reverse)
        return [*new, reverse]


def _of_its_size(image: fx.Node) -> fx.Node:
    """What a norm before the attention reads: of the same size, and the norm's result then has no other reader."""
    return image.all_input_nodes[0] if isinstance(get_module(image), nn.LayerNorm) else image
