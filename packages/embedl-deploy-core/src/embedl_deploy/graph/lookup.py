"""Looks up what a node computes: its module, and whether a subclass may stand for its base class."""

from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.functional import module_of_call
from embedl_deploy.graph.memo import remembered

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
