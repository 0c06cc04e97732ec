"""Putting modules in the place of a match."""

import inspect
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.edit import add_module, erase, inherit_training, put_module
from embedl_deploy.graph.expected import expected_of, with_inputs
from embedl_deploy.graph.forms.fixed_mode import class_name
from embedl_deploy.graph.lookup import constants_of, get_module, owner, submodule, tensor_inputs
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.placement import Placement, note_expected, note_placement
from embedl_deploy.graph.uses import target_uses
from embedl_deploy.modules.base import ConvertedModule, FusedModule
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.validation.checked import checked

#: ``node.meta`` entry: names of the nodes, as captured, that a node stands for.
SOURCES = "embedl_deploy.sources"


@checked
def sources_of(node: fx.Node) -> tuple[str, ...]:
    """Names of the nodes of the captured graph that ``node`` stands for; its own name if it was never rewritten."""
    return tuple(node.meta.get(SOURCES, (node.name,)))


def graph_module_of(match: PatternMatch) -> fx.GraphModule:
    """The graph module that a match is in.

    Raises:
        PatternError: The graph has another owner.
    """
    module = owner(match.nodes[0])
    if not isinstance(module, fx.GraphModule):
        raise PatternError(f"{match!r}: the graph's owner is a {type(module).__name__}, expected a GraphModule.")
    return module


def _home(node: fx.Node) -> str:
    """The module path that a node's computation comes from: of a function, its name in the module that calls it."""
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0] or node.name
    for constant in constants_of(node):
        if "." in str(constant.target):
            return str(constant.target).rpartition(".")[0]
    stack = node.meta.get("nn_module_stack") or {}
    caller, kind = next(reversed(stack.values())) if stack else ("", "")
    name, module = operation(node), get_module(node)
    if not caller or not isinstance(name, str) or not _is_container(owner(node), caller):
        return node.name
    # torch.export opens modules of torch.nn, too: what equals such a module has its path.
    whole = module is not None and str(kind).rpartition(".")[2] == class_name(module)
    return str(caller) if whole else f"{caller}.{name}"


def _is_container(root: nn.Module, path: str) -> bool:
    """Whether a module can be placed below a path: nothing that computes lives there or on the way."""
    module: nn.Module | None = root
    for part in path.split("."):
        if not (part.isidentifier() or part.isdecimal()):
            return False
        module = module._modules.get(part) if module is not None else None
        if module is not None and type(module) is not nn.Module:
            return False
    return True


@checked
def insert_call(
    pattern_match: PatternMatch,
    module: nn.Module,
    args: Sequence[Any],
    *,
    path: str | None = None,
    home: fx.Node | None = None,
    owned: Collection[fx.Node] = (),
) -> fx.Node:
    """Insert a call of ``module`` before the last node of a match.

    Args:
        pattern_match: The match that is being replaced.
        module: The module to place; its training flag is set to that of the modules matched.
        args: Positional arguments of the call.
        path: Where to place the module; a number is appended if something lives there.
        home: The matched node whose module's path to take over, if nothing else uses it. By default the first one
            that calls a module. It may be one of ``owned``: then it is the path of the module that holds the tensor.
        owned: Nodes that stand for tensors of the model which the module holds from now on.

    Returns:
        The new node.

    Raises:
        PatternError: ``module`` is a fused or converted module whose ``forward`` does not take that many inputs.
    """
    graph_module = graph_module_of(pattern_match)
    matched = pattern_match.nodes
    if pattern_match.expected is None:  # later the modules of the match may be gone
        pattern_match.expected = expected_of(matched)
    is_ours = isinstance(module, (FusedModule, ConvertedModule))  # not the user's, and no plain one of torch's
    if is_ours:
        _check_inputs(pattern_match, module, args)
    called = [m for n in matched if n.op == "call_module" and (m := get_module(n)) is not None]
    inherit_training(module, called, graph_module.training)
    if path is None:
        if home is None:
            home = next((node for node in matched if get_module(node) is not None), matched[-1])
        path = _claim(graph_module, _home(home), module, matched, owned)
    else:
        path = add_module(graph_module, path, module)
    if is_ours:
        pattern = pattern_match.pattern
        note_placement(module, Placement(path, pattern.name, pattern.origin))
    return call_module_there(pattern_match, path, args)


def _check_inputs(match: PatternMatch, module: nn.Module, args: Sequence[Any]) -> None:
    kind: type = type(module)
    problem = _input_problem(kind, len(args))
    if problem is not None:
        shipped = f" (from {match.pattern.origin})" if match.pattern.origin else ""
        given = ", ".join(map(str, args))
        raise PatternError(
            f"Pattern {match.pattern_name!r}{shipped}: {type(module).__name__} does not take what flows into the match "
            f"at {match.node_name!r}, {len(args)} value(s) ({given}): {problem}. Give forward a parameter for each of "
            "them, branches first, in the order of the tree; or define replace()."
        )


@lru_cache(maxsize=1024)
def _input_problem(kind: type, count: int) -> str | None:
    signature = inspect.signature(kind.forward)  # type: ignore[attr-defined]  # it is a module's
    try:
        signature.bind(*(None,) * (count + 1))  # one for self
    except TypeError as error:
        return f"forward{signature}: {error}"
    return None


@checked
def claim_container(pattern_match: PatternMatch, home: fx.Node) -> str:
    """Make room for several modules in the place of one: an empty container that takes over its path.

    Args:
        pattern_match: The match that is being replaced.
        home: The matched node whose module's path to take over, if nothing else uses it.

    Returns:
        The container's path; place modules below it with ``insert_call(..., path=f"{container}.name")``.
    """
    container, graph_module = nn.Module(), graph_module_of(pattern_match)
    replaced = get_module(home) if home.op == "call_module" else None
    inherit_training(container, [] if replaced is None else [replaced], graph_module.training)
    return _claim(graph_module, _home(home), container, pattern_match.nodes)


def call_module_there(pattern_match: PatternMatch, path: str, args: Sequence[Any]) -> fx.Node:
    """Insert a call of the module at a path where a match ends, with what is known of the matched nodes."""
    last = pattern_match.tree_match.last
    with last.graph.inserting_before(last):
        node = last.graph.create_node("call_module", path, tuple(args))
    node.meta[SOURCES] = tuple(dict.fromkeys(name for n in pattern_match.nodes for name in sources_of(n)))
    if "stack_trace" in last.meta:
        node.meta["stack_trace"] = last.meta["stack_trace"]
    return node


def _claim(
    graph_module: fx.GraphModule,
    path: str,
    module: nn.Module,
    matched: list[fx.Node],
    owned: Collection[fx.Node] = (),
) -> str:
    """Place ``module`` at ``path`` if only the matched nodes use what lives there, else beside it."""
    graph, inside = graph_module.graph, set(matched)
    try:
        current = submodule(graph_module, path)
    except AttributeError:
        return add_module(graph_module, path, module)
    paths: list[str] = []  # of the module, what it holds, and their tensors
    for name, part in current.named_modules():
        here = f"{path}.{name}" if name else path
        computed = [key for key, value in vars(part).items() if isinstance(value, torch.Tensor)]  # by a hook
        paths += [here, *(f"{here}.{tensor}" for tensor in (*part._parameters, *part._buffers, *computed))]
    own = [node for node in matched if node.op == "call_module"]
    flowing = {value for node in matched for value in tensor_inputs(node)}
    constants = [n for node in matched for n in constants_of(node) if n not in flowing]
    own += [constant for constant in (*constants, *owned) if inside.issuperset(constant.users)]
    uses, ours = target_uses(graph), Counter(str(node.target) for node in dict.fromkeys(own))
    if any(uses.count(target) > ours[target] for target in paths):
        return add_module(graph_module, path, module)
    put_module(graph_module, path, module)
    return path


@checked
def replace_match(pattern_match: PatternMatch, output: fx.Node) -> None:
    """Give ``output`` to everything that used the match's value, and remove the matched nodes.

    ``output`` takes over the recorded shape of that value.
    """
    last = pattern_match.tree_match.last
    for key in ("tensor_meta", "val", "type"):
        if key in last.meta and key not in output.meta:
            output.meta[key] = last.meta[key]
    module = get_module(output) if output.op == "call_module" else None
    if module is not None and pattern_match.expected is not None:
        note_expected(module, with_inputs(pattern_match.expected, output))
    last.replace_all_uses_with(output)
    for node in sorted(pattern_match.nodes, reverse=True):
        erase(node)


@checked
def replace_tree(
    pattern_match: PatternMatch, modules: Sequence[nn.Module], *, home: fx.Node | None = None
) -> list[fx.Node]:
    """Replace a match by a chain of modules.

    The first is called with the match's inputs in tree order, each further one with the result of the one before.

    Args:
        pattern_match: The match to replace.
        modules: One or more modules.
        home: As for :func:`insert_call`.

    Returns:
        The new nodes, in order.

    Raises:
        PatternError: ``modules`` is empty or holds something else.
    """
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise PatternError(f"{pattern_match!r}: replace_tree was given {modules!r}; expected one or more modules.")
    args: Sequence[Any] = pattern_match.tree_match.call_arguments()
    nodes: list[fx.Node] = []
    for module in modules:
        # The first takes over the path of what is replaced; the others come to lie beside it.
        path = str(nodes[0].target) if nodes else None
        nodes.append(insert_call(pattern_match, module, args, path=path, home=home))
        args = (nodes[-1],)
    replace_match(pattern_match, nodes[-1])
    return nodes
