"""Readers of a tensor that a call has written to  become  readers of what the call gives.

``y = x.add_(1)`` gives ``x`` itself. Who reads ``x`` afterwards, as in ``x.relu()`` and ``y.tanh()``, reads one tensor
under two names, and to patterns these are two: the sum seems to be used by others, and ``x`` to be read after it was
overwritten. With one name for it a sum or an activation in place is a step of a chain like any other. Nothing changes
in what is computed or written. What was read before stays as it is, and so does what is read through a view or an
attribute of the model, which ``graph/effects.py`` is asked about.

A number is not written to: ``m = n = x.shape[0]; m += 1`` leaves ``n`` as it is. The code that ``torch.fx`` makes of
``operator.iadd``, the statement ``n += 1``, would not, so it becomes ``operator.add``. Of what may be a number or a
tensor, such as ``x.stride(0)``, ``n`` and ``m`` are two names: ``m = (n,)[0]; m += 1`` is right for both.
"""

import operator
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.kinds import ONE_TENSOR
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.graph.sizes import is_number, is_python_operator


def read_results_of_writes(graph_module: fx.GraphModule) -> None:
    """Give every write in place the readers that its tensor has after it; the graph is changed in place.

    Several writes to one tensor are a chain afterwards. Shapes should be known: of ``x += 1`` nothing is said
    unless ``x`` is surely a tensor.
    """
    order = {node: at for at, node in enumerate(graph_module.graph.nodes)}
    changed = False
    for write in order:
        if is_python_operator(write) and is_in_place(write) and is_number(write.args[0]):
            name = write.target.__name__[1:]
            write.target = getattr(operator, name, None) or getattr(operator, f"{name}_")  # and_, or_
            changed = True
            continue
        tensor = tensor_given_back(write)
        if tensor is None and is_python_operator(write) and is_in_place(write) and write.target is not operator.setitem:
            changed |= _give_second_name(write, order)
        if tensor is None or tensor.op == "get_attr":
            continue
        for reader in _readers_behind(tensor, write, order):
            reader.replace_input_with(tensor, write)
            changed = True
    if changed:
        graph_module.recompile()


def _readers_behind(value: fx.Node, write: fx.Node, order: dict[fx.Node, int]) -> list[fx.Node]:
    return [user for user in value.users if order.get(user, -1) > order[write]]  # -1: of a second name, made just now


def _give_second_name(write: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Have ``n += 1`` be computed under a name of its own, if ``n`` is read afterwards."""
    value = write.args[0]
    if not isinstance(value, fx.Node) or not _readers_behind(value, write, order):
        return False
    with write.graph.inserting_before(write):
        write.args = (write.graph.call_function(operator.getitem, ((value,), 0)), *write.args[1:])
    return True


def tensor_given_back(node: fx.Node) -> fx.Node | None:
    """The input that a call writes to and gives back, the very same tensor; ``None`` if it is not sure to do so."""
    given = None
    if node.op == "call_module":
        given = argument_at(node, 0) if _is_layer_in_place(get_module(node)) else None
    elif isinstance(node.target, OpOverload):
        given = _written_by_operator(node, node.target)
    elif node.op == "call_method":
        name = str(node.target)
        if is_in_place(node) and name != "__setitem__" and hasattr(torch.Tensor, name):
            given = node.args[0]
    elif node.op == "call_function":
        given = _written_by_function(node)
    return given if isinstance(given, fx.Node) else None


def _is_layer_in_place(module: nn.Module | None) -> bool:
    """Whether a module is an activation or a dropout of ``torch.nn`` that was asked to work in place."""
    if module is None or getattr(module, "inplace", False) is not True:
        return False
    is_torchs = type(module).__module__.startswith("torch.nn.modules.")
    return is_torchs and "forward" not in vars(module) and not has_hooks(module)


def _written_by_function(node: fx.Node) -> Any:
    if is_python_operator(node):
        # An operator takes numbers and lists as well, and torch has no x @= y in place.
        named = f"__{getattr(node.target, '__name__', '')}__"
        writes = is_in_place(node) and hasattr(torch.Tensor, named) and named != "__setitem__"
        return node.args[0] if writes and _is_tensor(node.args[0]) else None
    if not isinstance(operation(node), str):
        return None  # nothing is known of a function from outside torch
    if "out" in node.kwargs:
        return node.kwargs["out"]
    if is_in_place(node) or _is_asked_to_work_in_place(node):
        return node.args[0] if node.args else node.kwargs.get("input")
    return None


def _is_asked_to_work_in_place(node: fx.Node) -> bool:
    """Whether ``inplace`` of an activation or a dropout is set."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"] is True
    return len(node.args) > 1 and node.args[-1] is True and getattr(get_module(node), "inplace", False) is True


def _is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and (dtype_of(value) is not None or isinstance(get_module(value), ONE_TENSOR))


def _written_by_operator(node: fx.Node, target: OpOverload) -> Any:
    at = _place_given_back(target)
    if at is None:
        return None
    name = target._schema.arguments[at].name
    return node.args[at] if at < len(node.args) else node.kwargs.get(name)


@lru_cache(maxsize=1024)
def _place_given_back(target: OpOverload) -> int | None:
    """Which argument of an operator its only result is, by the schema: ``add_(Tensor(a!) self, …) -> Tensor(a!)``."""
    schema = target._schema
    if len(schema.returns) != 1:
        return None
    given = schema.returns[0].alias_info
    if given is None or not given.is_write:
        return None
    for at, argument in enumerate(schema.arguments):
        info = argument.alias_info
        if info is not None and info.is_write and info.before_set == given.before_set:
            return at
    return None
