"""The arguments of a call, however they are passed: by name, by position, and which of them a tensor flows through."""

import inspect
from typing import Any

from torch import fx

from embedl_deploy.graph.functional import inputs_of_call, module_class_of_call
from embedl_deploy.graph.lookup import get_module, owner, submodule
from embedl_deploy.graph.signatures import bind_call


def _bind_arguments(node: fx.Node) -> inspect.BoundArguments:
    called: Any = owner(node).get_submodule(str(node.target)).forward if node.op == "call_module" else node.target
    return inspect.signature(called).bind(*node.args, **node.kwargs)


def arguments_by_name(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by the names of its parameters, defaults included.

    Args:
        node: A call of a module, or of a function whose signature Python can read.
    """
    bound = _bind_arguments(node)
    bound.apply_defaults()
    return bound.arguments


def positional_arguments(node: fx.Node) -> list[Any]:
    """All arguments of a module call by position, those that were passed by keyword included."""
    if not node.kwargs:
        return list(node.args)
    bound = _bind_arguments(node)
    last = max(list(bound.signature.parameters).index(name) for name in bound.arguments)
    bound.apply_defaults()
    return list(bound.arguments.values())[: last + 1]


def constant_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a module call that no tensor flows through and that differ from their defaults, by name."""
    if all(isinstance(value, fx.Node) for value in (*node.args, *node.kwargs.values())):
        return {}
    found: dict[str, Any] = {}
    bound = _bind_arguments(node)
    for name, value in bound.arguments.items():
        inside: list[fx.Node] = []
        fx.map_arg(value, inside.append)
        if not inside and value != bound.signature.parameters[name].default:
            found[name] = value
    return found


def argument_at(node: fx.Node, index: int) -> Any:
    """An argument of a module call by its position in ``forward``, however it is passed; ``None`` if it is not."""
    if index < len(node.args):
        return node.args[index]
    name = _name_at(node, index)
    return None if name is None else node.kwargs.get(name)


def set_argument(node: fx.Node, index: int, value: Any) -> None:
    """Change an argument that a module call has, by its position in ``forward``, leaving the way of passing it."""
    name = None if index < len(node.args) else _name_at(node, index)
    if name is None:
        node.args = (*node.args[:index], value, *node.args[index + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def _name_at(node: fx.Node, index: int) -> str | None:
    if not node.kwargs:
        return None
    names = list(inspect.signature(submodule(owner(node), str(node.target)).forward).parameters)
    return names[index] if index < len(names) else None


def tensor_inputs(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values flow into a call, in the order of its parameters, repeated as often as they are passed.

    Which they are is told by the arguments' roles, not by what they come from. Of a functional call that equals a
    module, the weights belong to the call (``self.w`` in ``F.linear(x, self.w)``), and everything that is in the place
    of an input flows in, a parameter of the model as well (``self.table`` in ``F.linear(self.table, self.w)``). In an
    operation without a module form (``x + self.pos``) everything flows in.
    """
    if node.op in ("call_function", "call_method"):
        if module_class_of_call(node) is not None and get_module(node) is not None:
            return list(inputs_of_call(node))
        arguments = _in_order_of_signature(node) if node.kwargs else node.args
    elif node.op == "call_module" and node.kwargs:
        arguments = tuple(_bind_arguments(node).arguments.values())
    else:
        arguments = (node.args, node.kwargs)
    found: list[fx.Node] = []
    fx.map_arg(arguments, found.append)
    return found


def _in_order_of_signature(node: fx.Node) -> Any:
    """Arguments in the order of the function's parameters, where they can be told; else as they are written."""
    bound = bind_call(node)
    return (node.args, node.kwargs) if bound is None else tuple(bound.values.values())


def constants_of(node: fx.Node) -> list[fx.Node]:
    """The parameters and buffers that belong to a call, as nodes: those that do not flow in."""
    inputs = tensor_inputs(node)
    return [source for source in node.all_input_nodes if source.op == "get_attr" and source not in inputs]
