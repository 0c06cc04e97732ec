"""Flatten → [dropout, activation]* → Linear  becomes  [dropout, activation]* → Conv2d(1×1) → Flatten.

A matrix product over the channels of a 1×1 map is a 1×1 convolution:

    y[n, o] = Σ_c w[o, c] · x[n, c, 0, 0]

so the classifier becomes part of the convolutional network, with the same layout and the same fusions. The weight
(out, in) is seen as (out, in, 1, 1); no memory is copied.

Declined: a map that is not, or not known to be, 1×1 (there a feature is a channel at a place); a weight that another
operator shares, or that hooks or a parametrization compute.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph import ACTIVATIONS, POOLS, erase, get_constant, owner
from embedl_deploy.modules import ActivationLike, conv2d_with
from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    Wildcard,
    get_module,
    has_hooks,
    insert_call,
    operation,
    resolve_module,
    shape_of,
)

#: Modules that keep the batch dimension and, of these, those that keep the spatial size as well.
_KEEP_SIZE = (
    *(activation.module_class for activation in ACTIVATIONS if activation.elementwise),
    *(nn.Dropout, nn.BatchNorm2d, nn.Identity),
)
_KEEP_BATCH = (*_KEEP_SIZE, *POOLS, nn.Conv2d, nn.ZeroPad2d)


def is_flatten(node: fx.Node) -> bool:
    """Whether a node joins all dimensions after the batch: ``flatten(1)``, or a view as (batch, -1)."""
    module = get_module(node)
    if isinstance(module, nn.Flatten):
        return int(module.start_dim) == 1 and int(module.end_dim) in (-1, 3)
    if operation(node) not in ("view", "reshape") or len(node.args) < 2:
        return False
    source, *sizes = node.args
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = list(sizes[0])
    if not isinstance(source, fx.Node) or len(sizes) != 2:
        return False
    first, rest = sizes
    is_rest = isinstance(rest, int) and rest == -1
    return isinstance(first, fx.Node) and is_rest and _is_batch_size_of(first, source)


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


class FlattenLinearToConv1x1Pattern(Pattern):
    """Turn a linear classifier over a 1×1 map into a convolution."""

    tree = (is_flatten, Wildcard((nn.Dropout, nn.functional.dropout, ActivationLike)), nn.Linear)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)), _maps()),
            Example(
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.ReLU(), nn.Linear(4, 6)),
                _maps(),
                "between",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        twice = nn.Linear(4, 4)
        return [
            Example(nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 8, 6)), _maps(), "the map is 8×8"),
            Example(
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), twice, nn.ReLU(), twice),
                _maps(),
                "the layer is called twice",
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take only a 1×1 map, and a weight that is the module's alone."""
        source = match.tree_match.get_node(0).all_input_nodes[0]
        linear_node = match.tree_match.get_node(2)
        linear = resolve_module(linear_node, nn.Linear)
        shape = shape_of(source)
        if shape is not None and len(shape) != 4:
            return f"{source.name} has {len(shape)} dimensions, not 4"
        if shape is not None and shape[2:] != (1, 1):
            return f"the map that is flattened is {shape[2]}×{shape[3]}, not 1×1"
        if shape is None and not _is_pooled_to_one(source):
            return f"the shape of {source.name} is unknown: pass example inputs, args="
        if has_hooks(linear) or nn.utils.parametrize.is_parametrized(linear):
            return "hooks on the linear layer, or its parametrization, would be lost"
        return _sharing(linear_node, linear)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Move the flatten after a convolution."""
        match = pattern_match.tree_match
        flatten, between, linear_node = match.get_node(0), match.get_node(1).nodes, match.get_node(2)
        linear, graph = resolve_module(linear_node, nn.Linear), linear_node.graph
        source = flatten.all_input_nodes[0]
        weight = linear.weight.detach().reshape(linear.out_features, linear.in_features, 1, 1)
        if isinstance(linear.weight, nn.Parameter):
            weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
        if between:
            between[0].replace_input_with(flatten, source)
            for node in between:
                node.meta.pop("tensor_meta", None)
                if "tensor_meta" in source.meta:
                    node.meta["tensor_meta"] = source.meta["tensor_meta"]
        last = between[-1] if between else source
        conv = insert_call(pattern_match, conv2d_with(weight, linear.bias), (last,), home=linear_node)
        known = linear_node.meta.get("tensor_meta")  # (N, features)
        if known is not None:
            conv.meta["tensor_meta"] = known._replace(
                shape=torch.Size([*known.shape, 1, 1]), stride=(*known.stride, 1, 1)
            )
        with graph.inserting_after(conv):
            moved = graph.node_copy(flatten, lambda node: conv if node is source else node)
        moved.meta = dict(linear_node.meta)
        linear_node.replace_all_uses_with(moved)
        for node in (linear_node, flatten):
            erase(node)
        return [conv, moved]


def _is_batch_size_of(size: fx.Node, value: fx.Node) -> bool:
    """Whether ``size`` is ``x.size(0)`` or ``x.shape[0]`` of ``value`` or of what it is computed from, batch kept."""
    if operation(size) == "size" and size.args[1:] == (0,):
        measured = size.args[0]
    elif operation(size) == "getitem" and size.args[1] == 0 and isinstance(size.args[0], fx.Node):
        shape = size.args[0]
        is_shape = operation(shape) == "getattr" or getattr(shape.target, "__name__", "") == "getattr"
        if not (operation(shape) == "size" and len(shape.args) == 1) and not (is_shape and shape.args[1] == "shape"):
            return False
        measured = shape.args[0]
    else:
        return False
    seen: set[fx.Node] = set()
    while value is not measured and value not in seen:
        seen.add(value)
        inputs = value.all_input_nodes
        keeps = isinstance(get_module(value), _KEEP_BATCH) or operation(value) in ("add", "mul", "dropout")
        if not keeps or not inputs:
            return False
        value = inputs[0]
    return value is measured


def _is_pooled_to_one(node: fx.Node) -> bool:
    """Whether a value is surely (N, C, 1, 1), judged without shapes: it comes from global pooling."""
    while True:
        module = get_module(node)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return module.output_size in (1, (1, 1), [1, 1])
        if not isinstance(module, _KEEP_SIZE) or not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]


def _sharing(linear_node: fx.Node, linear: nn.Linear) -> str | None:
    """Who else uses the layer or its tensors, as a reason to decline."""
    graph_module = owner(linear_node)
    if linear_node.op == "call_module":
        calls = linear_node.graph.find_nodes(op="call_module", target=linear_node.target)
        if len(calls) > 1:
            return f"{linear_node.target} is called {len(calls)} times"
    holders = [
        f"{path}.{name}" if path else name
        for path, module in graph_module.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is linear.weight
    ]
    if len(holders) > 1:
        return f"its weight is shared: {', '.join(holders)}"
    readers = [
        node.name
        for node in linear_node.graph.nodes
        if node.op == "get_attr" and node not in linear_node.all_input_nodes and get_constant(node) is linear.weight
    ]
    if readers:
        return f"its weight is also read as {readers[0]}"
    return None
