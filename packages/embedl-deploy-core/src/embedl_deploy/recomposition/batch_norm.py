"""conv(x) · s + t, with a scale and a shift of each channel that parameters make,  becomes  conv → batch norm.

    scale = w * (running_var + eps).rsqrt()                        FrozenBatchNorm2d,  weight = scale
    conv(x) * scale + (b - running_mean * scale)                   bias = b − running_mean · scale

    (conv(x) - mean) / std * w + b                                 weight = w/std,  bias = b − mean · w/std
    conv(x) * gamma                                                weight = gamma  (LayerScale over maps)

This is how detectors write batch norm that is not trained on. The module has mean 0, variance 1 and ε 0, and stays in
evaluation mode; its weight and bias are computed from the model's own parameters, which are trained as before. Fusions
for batch norm then match, so hardware computes it in the convolution.

A value on the way that is used elsewhere ends it. Declined: a shape that is not known; another type than that of the
map; a tensor that the graph writes to.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.forms.fixed_mode import FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d
from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.graph.state_values import is_state, made_from, value_of_state
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import replace_match
from embedl_deploy.patterns.state_tensors import insert_at_state, only_read_by, set_from_state
from embedl_deploy.patterns.tree_match import TreeMatch
from embedl_deploy.recomposition import batch_norm_examples
from embedl_deploy.recomposition.written_numbers import number_of

_FROZEN = {3: FrozenBatchNorm1d, 4: FrozenBatchNorm2d, 5: FrozenBatchNorm3d}
#: With a constant as the second operand; the first two with it as the first one, too.
_STEPS: dict[str, Any] = {"mul": torch.mul, "add": torch.add, "div": torch.div, "sub": torch.sub}
_OF_NUMBERS = {"mul": operator.mul, "add": operator.add, "div": operator.truediv, "sub": operator.sub}
_COMMUTING = ("mul", "add")


@dataclass(frozen=True)
class _Step:
    """One operation on what a convolution gives: its name, and the tensor or number beside it."""

    node: fx.Node
    name: str
    operand: fx.Node | float


def _is_convolution(node: fx.Node) -> bool:
    form = type(get_module(node)) if node.op == "call_module" else module_class_of_call(node)
    return form is not None and issubclass(form, nn.modules.conv._ConvNd)


def _step(node: fx.Node, before: fx.Node) -> _Step | None:
    """How a node goes on with ``before``; ``None`` if it is not by a constant."""
    name = operation(node)
    if name not in _STEPS or node.kwargs or len(node.args) != 2 or is_in_place(node):
        return None
    first, second = node.args
    given = second if first is before else first if name in _COMMUTING and second is before else before
    number = None if isinstance(given, fx.Node) and shape_of(given) != () else number_of(given)
    if number is not None:
        return _Step(node, name, number)
    return _Step(node, name, given) if isinstance(given, fx.Node) and given is not before and is_state(given) else None


def _steps(conv: fx.Node) -> list[_Step]:
    """What is done by constants with what a convolution gives, as long as nothing else reads it."""
    found: list[_Step] = []
    node = conv
    while len(node.users) == 1:
        step = _step(next(iter(node.users)), node)
        if step is None:
            break
        found.append(step)
        node = step.node
    while found and isinstance(found[-1].operand, float):  # what hardware computes for one number is no batch norm
        found.pop()
    return found


def _why_not(conv: fx.Node, steps: list[_Step]) -> str | None:
    """Why steps are no scale and shift of each channel, or cannot be told to be."""
    shape, dtype = shape_of(conv), dtype_of(conv)
    if shape is None or dtype is None:
        return "the shape of what is scaled is not known: pass example inputs, args="
    if len(shape) not in _FROZEN:
        return f"a map without batch, of shape {list(shape)}"
    if not dtype.is_floating_point:
        return f"batch norm does not compute in {dtype}"
    for step in steps:
        value = value_of_state(step.operand) if isinstance(step.operand, fx.Node) else None
        if value is None:
            continue
        if not isinstance(value, torch.Tensor) or value.dtype is not dtype:
            return f"{step.node.name} is computed in another type than {dtype}"
    effects = remembered(Effects, conv.graph)
    for each in _state_of(steps):
        writer = next(iter(effects.written_after(each)), None)
        if writer is not None:
            return f"{writer.name} changes {each.name}, of which its weight is made, in place"
    return None


def _is_by_channel(conv: fx.Node, step: _Step) -> bool:
    """Whether the tensor beside a step has one number for each channel, or one at all, as far as can be told."""
    shape = shape_of(conv)
    value = value_of_state(step.operand) if isinstance(step.operand, fx.Node) else None
    if shape is None or value is None:
        return True
    if not isinstance(value, torch.Tensor) or value.dim() > len(shape):
        return False
    sizes = (1,) * (len(shape) - value.dim()) + tuple(value.shape)
    return all(size == (shape[1] if axis == 1 else 1) for axis, size in enumerate(sizes))


def _by_channel(conv: fx.Node) -> list[_Step]:
    """The steps up to the first that is not by channel; none if none of them scales channels."""
    steps = _steps(conv)
    end = next((index for index, step in enumerate(steps) if not _is_by_channel(conv, step)), len(steps))
    steps = steps[:end]
    scales = any(step.name in ("mul", "div") and isinstance(step.operand, fx.Node) for step in steps)
    return steps if scales else []


class RecomposeBatchNormPattern(Pattern):
    """Batch norm by fixed statistics, or a scale of each channel, behind a convolution."""

    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return batch_norm_examples.examples()

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return batch_norm_examples.near_misses()

    def match(self, graph_module: fx.GraphModule) -> Matches:
        """Look behind every convolution."""
        found: list[PatternMatch] = []
        declined: list[Declined] = []
        for conv in graph_module.graph.nodes:
            steps = _by_channel(conv) if _is_convolution(conv) and not is_state(conv) else []
            if not steps:
                continue
            nodes = [step.node for step in steps]
            reason = _why_not(conv, steps)
            if reason is not None:
                declined.append(Declined(self.name, tuple(node.name for node in nodes), reason))
                continue
            own = only_read_by(_state_of(steps), nodes)
            inner = [each for each in own if each.op != "get_attr"]
            found.append(PatternMatch(self, TreeMatch((*sorted([*inner, *nodes[:-1]]), nodes[-1]))))
        return Matches(found, declined)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        read = (source for node in pattern_match.nodes for source in node.all_input_nodes)
        conv = next(source for source in read if _is_convolution(source) and not is_state(source))
        steps = _by_channel(conv)
        value = value_of_state(next(step.operand for step in steps if isinstance(step.operand, fx.Node)))
        shape = shape_of(conv)
        assert shape is not None  # it has been looked at
        channels = shape[1]
        module = _FROZEN[len(shape)](channels, eps=0.0, device=value.device, dtype=value.dtype)
        scale, shift, made = _combined(steps)
        sources = {name: source for name, source in (("weight", scale), ("bias", shift)) if source is not None}
        if shift is None:
            module.register_parameter("bias", None)
        flat = {name: (source, torch.reshape, (channels,)) for name, source in sources.items()}
        set_from_state(pattern_match, module, flat)
        for node in reversed(made):
            node.graph.erase_node(node)
        call = insert_at_state(pattern_match, module, conv, _state_of(steps), "batch_norm")
        replace_match(pattern_match, call)
        return [call]


def _state_of(steps: list[_Step]) -> list[fx.Node]:
    return sorted({each for s in steps if isinstance(s.operand, fx.Node) for each in made_from(s.operand)})


def _combined(steps: list[_Step]) -> tuple[fx.Node | None, fx.Node | None, list[fx.Node]]:
    """The scale and the shift that steps make together, and the nodes that compute these, beside what there was."""
    graph, made = steps[-1].node.graph, list[fx.Node]()

    def compute(name: str, first: Any, second: Any) -> Any:
        if not isinstance(first, fx.Node) and not isinstance(second, fx.Node):
            return _OF_NUMBERS[name](first, second)
        node = graph.call_function(_STEPS[name], (first, second))
        made.append(node)
        return node

    scale: Any = None
    shift: Any = None
    with graph.inserting_before(steps[-1].node):
        for step in steps:
            if step.name in ("mul", "div"):
                if shift is not None:
                    shift = compute(step.name, shift, step.operand)
                if scale is not None or step.name == "div":
                    scale = compute(step.name, 1.0 if scale is None else scale, step.operand)
                else:
                    scale = step.operand
            elif shift is not None or step.name == "sub":
                shift = compute(step.name, 0.0 if shift is None else shift, step.operand)
            else:
                shift = step.operand
    return scale, shift, made
