"""Compares each fused module with the nodes that it replaced, on the same inputs.

The graph with its conversions, before any fusion, is run node by node. Where a fusion's last node is reached, the
module that was put there is called with what flows into it at that moment. So no module is blamed for what another
does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.graph.expected import describe_value
from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs, tensors_in
from embedl_deploy.graph.placement import Placement, fused_modules_named
from embedl_deploy.patterns import MatchStatus, PatternMatch
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.stages.layers import LayerDifference
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import Difference, difference, signal_to_noise

#: Largest difference that is rounding, relative to the largest output: a few reordered additions.
_ROUNDING, _ROUNDING_IN_HALF = 1e-3, 5e-2
#: Stands for what a module gives where that cannot be told.
_UNKNOWN = object()


@checked
@dataclass(frozen=True)
class RewriteDifference(LayerDifference):
    """How far a fused module is from what it replaced, on the same inputs.

    Attributes:
        kind: Class of the module.
        pattern: Name of the pattern that put it there.
        origin: Distribution and version that ship the pattern; empty if it was not loaded from a plugin.
        half: Whether it computes in 16 bits.
        problem: What is wrong where the outputs cannot be compared, being of another kind, shape or dtype; else empty.
    """

    kind: str = ""
    pattern: str = ""
    origin: str = ""
    half: bool = False
    problem: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it is further away than rounding explains."""
        return not self.difference.max_rel <= (_ROUNDING_IN_HALF if self.half else _ROUNDING)

    def __str__(self) -> str:
        placement = Placement(self.module, self.pattern, self.origin)
        how_far = self.problem or f"{self.sqnr:.1f} dB, {self.difference}"
        return f"{self.module} ({self.kind}, placed by {placement}): {how_far}"


class _SideBySide(BoundInterpreter):
    """Runs the converted graph, and beside the last node of each fusion the module that replaced it."""

    def __init__(self, result: TransformationResult) -> None:
        super().__init__(result.report.plan.converted, garbage_collect_values=False)
        self.found: list[RewriteDifference] = []
        self.fused = result.model
        self.placed: dict[str, tuple[fx.Node, PatternMatch]] = {}
        fused_nodes = {node.name: node for node in result.model.graph.nodes}
        #: By the name of a node of the fused graph, that of the node with the same value in the converted graph.
        self.same_value: dict[str, str] = {}
        for match in result.report.with_status(MatchStatus.APPLIED):
            last = fused_nodes.get(match.replaced_by[-1]) if match.replaced_by else None
            if match.stage == "fusion" and last is not None and last.op == "call_module":
                self.placed[match.node_name] = (last, match)
                self.same_value[last.name] = match.node_name

    def run_node(self, n: fx.Node) -> Any:
        beside = self._run_fused(n) if n.name in self.placed else _UNKNOWN
        value = super().run_node(n)
        if beside is not _UNKNOWN and tensors_in(value):
            self.found.append(self._compared(*self.placed[n.name], value, beside))
        return value

    def _compared(self, node: fx.Node, match: PatternMatch, value: Any, beside: Any) -> RewriteDifference:
        given = tensors_in(value), tensors_in(beside)
        kinds = [[(part.shape, part.dtype) for part in parts] for parts in given]
        same = isinstance(value, torch.Tensor) == isinstance(beside, torch.Tensor) and kinds[0] == kinds[1]
        problem = "" if same else f"returns {describe_value(beside)}, expected {describe_value(value)}"
        return RewriteDifference(
            node=node.name,
            module=str(node.target),
            sqnr=signal_to_noise(value, beside) if same else -math.inf,
            difference=difference(value, beside) if same else Difference(math.inf, math.inf),
            kind=type(self.fused.get_submodule(str(node.target))).__name__,
            pattern=match.pattern_name,
            origin=match.pattern.origin,
            half=any(part.dtype in (torch.float16, torch.bfloat16) for part in given[0]),
            problem=problem,
        )

    def call_module(self, target: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return _called(self.fetch_attr(target), args, dict(kwargs))

    def _run_fused(self, last: fx.Node) -> Any:
        """What the module gives that replaced ``last`` and others; unknown if an input of it cannot be told."""
        node, _ = self.placed[last.name]
        values = {each.name: value for each, value in self.env.items()}
        names = {each.name: self.same_value.get(each.name, each.name) for each in node.all_input_nodes}
        if not values.keys() >= set(names.values()):
            return _UNKNOWN
        given = fx.map_arg((node.args, node.kwargs), lambda each: values[names[each.name]])
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, given)
        with random_numbers_kept():  # what replaced nodes draw is drawn again
            return _called(self.fused.get_submodule(str(node.target)), args, dict(kwargs))


def _called(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call on copies of the module's buffers, which stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return torch.func.functional_call(module, buffers, tuple(args), kwargs)


@torch.no_grad()
def compare_rewrites(
    result: TransformationResult, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[RewriteDifference, ...]:
    """Call every fused module of a result with the inputs of the nodes that it replaced, and compare the outputs.

    Args:
        result: Not changed.
        args: Inputs of the model.
        kwargs: Keyword inputs.

    Returns:
        In graph order. What gives no tensor is left out.

    Raises:
        FusedModuleError: One of them raises.
    """
    beside = _SideBySide(result)
    inputs = pytree.tree_map_only(torch.Tensor, torch.clone, bind_inputs(result.report.plan.converted, args, kwargs))
    with random_numbers_kept(), fused_modules_named():
        beside.run(*inputs, enable_io_processing=False)
    return tuple(beside.found)
