"""Edits that fx leaves to its users: placing modules in the tree, and cleaning up after a rewrite."""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import fx, nn

from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.gradient_hooks import copy_what_hangs_on_tensors
from embedl_deploy.graph.lookup import submodule
from embedl_deploy.graph.storable import StorableGraphModule

CopiedT = TypeVar("CopiedT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def deep_copy(value: CopiedT, instead: Mapping[int, Any] | None = None) -> CopiedT:
    """A deep copy of a graph or model; of a graph node for node in the same order, with metadata copied shallowly.

    Hooks and attributes of parameters are copied, too.

    Args:
        value: What to copy.
        instead: What takes the place of copies of parts of a model, by the ids of those parts.
    """
    # What is ignored is so for the whole process, so one thread at a time: the last to leave puts back what it found.
    with global_state, warnings.catch_warnings():
        # torch deprecates a class that its own copy of an exported graph's calling convention still uses.
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        if not isinstance(value, nn.Module):
            return copy.deepcopy(value)
        memory = {**_memory(value), **(instead or {})}
        copied = copy.deepcopy(value, memory)
        copy_what_hangs_on_tensors(value, memory)
        return copied


def copy_of_shared_parameters(model: ModuleT) -> ModuleT:
    """A deep copy of a model but for its parameters, which are those of the model; for who only reads these."""
    return deep_copy(model, {id(parameter): parameter for parameter in model.parameters()})


def _memory(model: nn.Module) -> dict[int, Any]:
    """What ``deepcopy`` is to take as copied."""
    return {**_empty_tables(model), **_computed_weights(model)}


def _computed_weights(model: nn.Module) -> dict[int, Any]:
    """Copies of weights that hooks compute again in every call; torch copies none that have a gradient.

    ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` keep them as plain attributes.
    """
    hooked = (module for module in model.modules() if module._forward_pre_hooks)
    values = (value for module in hooked for value in vars(module).values())
    return {
        id(value): value.detach().clone() for value in values if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def _empty_tables(model: nn.Module) -> dict[int, Any]:
    """A start for ``deepcopy``'s memory: new empty dictionaries for the model's empty ones.

    Every module has a dozen tables of hooks, nearly always empty, and ``deepcopy`` spends half of its time on them.
    """
    tables = (table for module in model.modules() for table in vars(module).values())
    return {id(table): OrderedDict() for table in tables if type(table) is OrderedDict and not table}


def is_free(graph_module: nn.Module, path: str) -> bool:
    """Whether nothing lives at the dotted ``path``."""
    parent: nn.Module = graph_module
    *parents, name = path.split(".")
    for part in parents:
        child = parent._modules.get(part)
        if child is None:
            return not hasattr(parent, part)
        parent = child
    return not hasattr(parent, name)


def _unblocked(graph_module: nn.Module, path: str) -> str:
    """``path``, with a number on the first part at which something lives that is not a module, such as a parameter."""
    parts = path.split(".")
    parent: nn.Module = graph_module
    for index, part in enumerate(parts[:-1]):
        free, count = part, 0
        while parent._modules.get(free) is None and hasattr(parent, free):
            count += 1
            free = f"{part}_{count}"
        parts[index] = free
        child = parent._modules.get(free)
        if child is None:
            break
        parent = child
    return ".".join(parts)


def add_module(graph_module: fx.GraphModule, path: str, module: nn.Module) -> str:
    """Place ``module`` at ``path``, or at the first free ``path_1``, ``path_2``, … and return where."""
    path = _unblocked(graph_module, path)
    free, count = path, 0
    while not is_free(graph_module, free):
        count += 1
        free = f"{path}_{count}"
    graph_module.add_submodule(free, module)
    return free


def put_module(graph_module: fx.GraphModule, path: str, module: nn.Module) -> None:
    """Place ``module`` at ``path``, over whatever lives there."""
    parent, _, name = path.rpartition(".")
    setattr(submodule(graph_module, parent) if parent else graph_module, name, module)


def add_call(graph_module: fx.GraphModule, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
    """Call a new module on the value of a node, at the graph's point of insertion; its result has the same shape."""
    path = add_module(graph_module, name, module)
    node = graph_module.graph.create_node("call_module", path, (source,), name=name)
    if "tensor_meta" in source.meta:
        node.meta["tensor_meta"] = source.meta["tensor_meta"]
    return node


def inherit_training(module: nn.Module, sources: list[nn.Module], default: bool) -> None:
    """Set the training flags of a new module, and of new modules in it, to that of the modules that it replaces.

    The replaced modules inside it keep theirs, and so does a module that decides for itself (it overrides ``train``).
    """
    flag = any(source.training for source in sources) if sources else default
    old = {id(part) for source in sources for part in source.modules()}
    for part in module.modules():
        if id(part) not in old and type(part).train is nn.Module.train:
            object.__setattr__(part, "training", flag)


def rebuild(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A graph module with the same graph that holds only the modules and parameters that the graph uses.

    Modules, parameters and buffers are passed on, not copied. Class name, metadata and training flag are kept. It can
    be pickled.
    """
    _read_where_it_is_computed(graph_module)
    rebuilt = StorableGraphModule(graph_module, graph_module.graph, class_name=type(graph_module).__name__)
    rebuilt.meta.update(graph_module.meta)
    called = {str(node.target) for node in rebuilt.graph.nodes if node.op == "call_module"}
    for path, module in rebuilt.named_modules():
        # Empty containers that fx makes to hold a path start in training mode, whatever the model is in.
        if type(module) is nn.Module and path not in called:
            object.__setattr__(module, "training", rebuilt.training)
    return rebuilt


def _read_where_it_is_computed(graph_module: fx.GraphModule) -> None:
    """Read what a hook computes, such as ``torch.nn.utils.weight_norm``'s weight, from the module that is called.

    A rewrite may have given the module another path. At the old one its tensor would be as it was then, forever.
    """
    called = dict.fromkeys(str(node.target) for node in graph_module.graph.find_nodes(op="call_module"))
    paths: dict[nn.Module, str] = {}
    for path in called:
        for inner, part in submodule(graph_module, path).named_modules():
            paths.setdefault(part, f"{path}.{inner}" if inner else path)
    for node in graph_module.graph.find_nodes(op="get_attr"):
        parent, _, name = str(node.target).rpartition(".")
        owner = submodule(graph_module, parent) if parent else graph_module
        if owner in paths and isinstance(vars(owner).get(name), torch.Tensor):
            node.target = f"{paths[owner]}.{name}"


def erase(node: fx.Node) -> None:
    """Remove an unused node, and constants that only it used."""
    constants = [n for n in node.all_input_nodes if n.op == "get_attr"]
    node.graph.erase_node(node)
    for constant in constants:
        if not constant.users:
            constant.graph.erase_node(constant)
