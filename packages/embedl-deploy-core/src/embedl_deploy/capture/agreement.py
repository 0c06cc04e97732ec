"""Compares a captured graph with its model by running both on the example inputs.

Capture follows Python code that may depend on what no tracer sees: the class of a value, the time, a file. Such a model
takes one branch while it is captured and another when it runs. Two forward passes tell. A model or graph that a call
changes, or that draws random numbers, is called twice, for its second call may give something else than the first.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.recording import recorded_values
from embedl_deploy.verify import difference, output_tensors, run_unchanged
from embedl_deploy.verify.difference import two_calls_unchanged

#: How far outputs may be apart, as a part of the largest, where the same operations ran in the same order: kernels of
#: torch are not reproducible to the last bit in every setting. A wrong branch is farther off.
_TOLERANCES = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-3, torch.float64: 1e-6}
_CLOSELY = 1e-2


@dataclass(frozen=True)
class Disagreement:
    """How a graph differs from its model.

    Attributes:
        what: A sentence's end: what differs, and by how much.
        module: Path of the first module that gives something else, ``""`` for the model itself.
        refused: Whether the graph refuses the inputs, in words of its own.
    """

    what: str
    module: str
    refused: bool = False

    def __str__(self) -> str:
        where = f"first in module {self.module!r}" if self.module else "in the model's own forward"
        return f"{self.what}, {where}"


def find_disagreement(
    model: nn.Module,
    graph_module: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    closely: bool = False,
) -> Disagreement | None:
    """Run a model and its graph on the same inputs from the same random state, twice if the first call leaves a trace.

    Args:
        model: The user's model. Not changed.
        graph_module: What was captured of it. Not changed.
        args: Example inputs.
        kwargs: Example keyword inputs.
        closely: Of a graph that was traced in another type than the model's: code that asks for its type may take
            another way and change little, so a hundredth of what is accepted otherwise is too much.

    Returns:
        ``None`` if they agree, or if there is nothing to compare: outputs that nobody can look into, tensors without
        values (on the meta device, or fake).

    Raises:
        InputError: The model itself fails.
    """
    if not is_comparable(model, args, kwargs):
        return None
    accepted = _CLOSELY if closely else 1.0
    try:
        expected = two_calls_unchanged(model, args, kwargs)
    except Exception as error:  # the model's own code runs here and may raise anything
        raise InputError(
            f"The model itself fails on the example inputs {describe_inputs(args, kwargs)}: {type(error).__name__}: "
            f"{error}. Pass inputs that it accepts, or transform it with verify_capture=False if it cannot run here."
        ) from error
    try:
        found = two_calls_unchanged(graph_module, args, kwargs)
    except Exception as error:  # noqa: BLE001 - the user's operators run here and may raise anything
        raised = f"the graph fails where the model does not: {type(error).__name__}: {error}"
        return Disagreement(raised, "", refused=isinstance(error, InputError))
    what = _difference(expected[0], found[0], accepted)
    if what is not None:
        return Disagreement(what, _first_module(model, graph_module, args, kwargs))
    what = _difference(expected[1], found[1], accepted)
    return None if what is None else Disagreement(f"{what}, when it is called again", "")


def is_comparable(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a model and its inputs have values, which tensors on the meta device and fake ones have not."""
    tensors = output_tensors((args, kwargs, list(model.parameters()), list(model.buffers())))
    return not any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors)


def _difference(expected: Any, found: Any, accepted: float = 1.0) -> str | None:
    wanted, given = pytree.tree_leaves(expected), pytree.tree_leaves(found)
    if not output_tensors(expected) and not output_tensors(found):
        return None  # an object that nobody can look into
    if len(wanted) != len(given):
        return f"it returns {len(given)} values, the model {len(wanted)}"
    for a, b in zip(wanted, given, strict=True):
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                return f"it returns {describe_inputs((b,), {})[1:-1]}, the model {describe_inputs((a,), {})[1:-1]}"
            apart = difference(a, b).max_rel
            if apart > accepted * _TOLERANCES.get(a.dtype, 0):
                return f"its output is off by {apart:.2g} of the largest value"
        elif type(a) is not type(b) or (isinstance(a, (int, float, str, bool)) and a != b):
            return f"it returns {type(b).__name__} {b!r}, the model {type(a).__name__} {a!r}"
    return None


def _first_module(model: nn.Module, graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The first module to return whose output in the graph is another one."""
    in_graph = _outputs_in_graph(graph_module, args, kwargs)
    for call, output in _outputs_of_modules(model, args, kwargs):
        value = in_graph.get(call)
        if isinstance(value, torch.Tensor) and _difference(output, value) is not None:
            return call[0]
    return ""


#: A module's path, and which of its calls it is.
_Call = tuple[str, int]


def _outputs_of_modules(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[_Call, torch.Tensor]]:
    """What each call of a module returns, in order, where that is one tensor."""
    copied = deep_copy(model)
    calls: Counter[str] = Counter()
    outputs: list[tuple[_Call, torch.Tensor]] = []

    def recorder(path: str) -> Any:
        def record(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not output.is_nested:
                outputs.append(((path, calls[path]), output.detach().clone()))
            calls[path] += 1

        return record

    for path, module in copied.named_modules():
        if path:
            module.register_forward_hook(recorder(path))
    run_unchanged(copied, args, kwargs)
    return outputs


def _outputs_in_graph(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[_Call, Any]:
    """The value of the last node of each call of a module, as tracers note them in ``nn_module_stack``."""
    last: dict[str, tuple[str, fx.Node]] = {}
    for node in graph_module.graph.nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            last[key] = (path, node)
    with random_numbers_kept():
        values = recorded_values(deep_copy(graph_module), args, kwargs)
    calls: Counter[str] = Counter()
    found = {}
    for path, node in last.values():
        found[path, calls[path]] = values.get(node.name)
        calls[path] += 1
    return found
