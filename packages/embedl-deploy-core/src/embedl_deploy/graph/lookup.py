"""Looks up what a node computes: its module, and whether a subclass may stand for its base class."""

import inspect
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.functional import inputs_of_call, module_class_of_call, module_of_call
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.signatures import bind_call

ModuleT = TypeVar("ModuleT", bound=nn.Module)

#: Methods of ``torch.nn`` classes that say nothing about what the module computes.
_NOT_COMPUTING = frozenset(
    {"__init__", "__repr__", "__setstate__", "__getstate__", "extra_repr", "reset_parameters", "__new__"}
)


def owner(node: fx.Node) -> nn.Module:
    """The module whose graph the node belongs to.

    Raises:
        PatternError: The graph belongs to no ``GraphModule``.
    """
    module = node.graph.owning_module
    if module is None:
        raise PatternError(
            f"Node {node.name!r} belongs to a graph that no GraphModule owns, so its modules cannot be looked up. "
            "Pass nodes of a torch.fx.GraphModule."
        )
    return module


def get_constant(node: fx.Node) -> Any:
    """The tensor (or other object) that a ``get_attr`` node stands for."""
    value: Any = owner(node)
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value


def _constant_or_node(node: fx.Node) -> Any:
    """What a ``get_attr`` node stands for; any other node, and one that a hook computes anew in each call, as it is."""
    if node.op != "get_attr":
        return node
    parent, _, name = str(node.target).rpartition(".")
    holder = submodule(owner(node), parent) if parent else owner(node)
    computed = has_hooks(holder) and isinstance(vars(holder).get(name), torch.Tensor)
    return node if computed else get_constant(node)


def submodule(root: nn.Module, path: str) -> nn.Module:
    """``root.get_submodule(path)`` by dictionary, many times faster; matching does little else."""
    module: nn.Module | None = root
    for name in path.split("."):
        module = None if module is None else module._modules.get(name)
    return root.get_submodule(path) if module is None else module


def get_module(node: fx.Node) -> nn.Module | None:
    """The module that a node calls.

    For a functional call that equals a ``torch.nn`` module (``F.relu(x)``, ``F.conv2d(x, self.w)``,
    ``x.flatten(1)``) a module is made that computes the same and shares the same parameters.

    Returns:
        The module; ``None`` when the node is not a call, or a call that no module equals.
    """
    return remembered(_module_of, node)


def _module_of(node: fx.Node) -> nn.Module | None:
    if node.op == "call_module":
        return submodule(owner(node), str(node.target))
    if node.op in ("call_function", "call_method"):
        return module_of_call(node, _constant_or_node)
    return None


def resolve_module(node: fx.Node, cls: type[ModuleT]) -> ModuleT:
    """The module that a node calls, known to be of class ``cls``.

    Raises:
        PatternError: The node calls no module, or one of another class.
    """
    module = get_module(node)
    if not isinstance(module, cls):
        found = "no module" if module is None else f"a {type(module).__name__}"
        raise PatternError(
            f"Node {node.name!r} ({node.op} {node.target}) was expected to call a {cls.__name__} but calls {found}."
        )
    return module


@lru_cache(maxsize=4096)
def _class_behaves_as(cls: Any, base: Any) -> bool:
    if cls is base or getattr(cls, "stands_for_base", False):
        return True
    computing = {
        name
        for ancestor in base.__mro__
        if ancestor not in (nn.Module, object)
        for name, value in vars(ancestor).items()
        if callable(value) and name not in _NOT_COMPUTING
    } | {"forward", "__call__"}
    below = cls.__mro__[: cls.__mro__.index(base)]
    return not any(name in vars(ancestor) for ancestor in below for name in computing)


def behaves_as(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether ``module`` computes what a plain ``base`` with its settings and weights would compute.

    True for ``base`` itself, for subclasses that override none of its computing methods, and for classes that
    promise it with ``stands_for_base = True``. A ``Conv2d`` subclass that pads by hand in its own ``forward`` does
    not behave as a ``Conv2d``.
    """
    if not isinstance(module, base) or "forward" in vars(module):
        return False
    own: Any = _own_class(module)  # typed loosely: mypy takes the methods of a class for those of its type
    wanted: Any = base
    return _class_behaves_as(own, wanted)


def _own_class(module: nn.Module) -> type[nn.Module]:
    """The module's class, looking through the one that torch generates for parametrized tensors."""
    cls = type(module)
    return cls.__mro__[1] if "parametrizations" in module._modules else cls


def is_plain_torch_module(module: nn.Module) -> bool:
    """Whether a tracer may treat ``module`` as one call of ``torch.nn``: it is one, or behaves as one."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    for ancestor in _own_class(module).__mro__:
        if ancestor is nn.Module:
            return False
        if ancestor.__module__ == "torch.nn.utils.parametrizations" and next(module.buffers(), None) is None:
            return False  # a function of a layer's parameters, which is seen through: it keeps nothing
        if ancestor.__module__.startswith("torch.nn"):
            return behaves_as(module, ancestor)
    return False


def has_hooks(module: nn.Module) -> bool:
    """Whether user hooks run when the module is called; rewriting it into another module would lose them."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


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
