"""Paths of modules: a path means the module and everything inside it, as modules nest."""

import difflib
import fnmatch
from collections.abc import Collection, Iterable

from torch import fx, nn

from embedl_deploy.graph.metadata import module_path_of


def with_containers(path: str) -> list[str]:
    """``a.b.c`` as ``a``, ``a.b`` and ``a.b.c``: a module and those around it, outermost first."""
    parts = path.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def fits(glob: str, path: str) -> bool:
    """Whether a path, or glob over paths, means the module at ``path``: that one, or one around it."""
    return any(fnmatch.fnmatchcase(each, glob) for each in with_containers(path))


def modules_around(node: fx.Node) -> list[nn.Module]:
    """The modules around the one that a node calls, outermost first; none if the graph belongs to no module."""
    root = node.graph.owning_module
    if root is None or node.op != "call_module":
        return []
    return [root, *(root.get_submodule(path) for path in with_containers(str(node.target))[:-1])]


def nodes_named(graph: fx.Graph, name: str) -> list[fx.Node]:
    """The node of that name; else the nodes of the module at that path, and of all that is inside it."""
    named = [node for node in graph.nodes if node.name == name]
    called = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if named or called:
        return named or called
    inside = [node for node in graph.nodes if node.op.startswith("call_") and _lies_in(node, name)]
    return [node for node in inside if node.users]  # an assertion or guard computes nothing


def paths_called(graph: fx.Graph) -> set[str]:
    """Paths of the modules that nodes call or come from, and of those around them."""
    calls = [node for node in graph.nodes if node.op.startswith("call_") and node.users]
    paths = {module_path_of(node) for node in calls}
    paths |= {str(node.target) for node in calls if node.op == "call_module"}
    return {each for path in paths - {""} for each in with_containers(path)}


def _lies_in(node: fx.Node, container: str) -> bool:
    paths = [module_path_of(node), *([str(node.target)] if node.op == "call_module" else [])]
    return any(container in with_containers(path) for path in paths)


def near_names(name: str, known: Iterable[str], *, first: str) -> str:
    """What a name that is not there may have been meant for, as a sentence; those of the first level if none is near.

    Args:
        name: What was asked for.
        known: Names that there are.
        first: How the sentence starts that lists the first level, such as ``"Paths begin with"``.
    """
    names = sorted({each for each in known if each})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or _same_end(name, names)
    if near:
        return f"Near it: {', '.join(map(repr, near))}."
    begin = sorted({each.partition(".")[0] for each in names})
    more = f", … {len(begin) - 20} more" if len(begin) > 20 else ""
    return f"{first} {', '.join(begin[:20])}{more}."


def _same_end(name: str, names: Collection[str]) -> list[str]:
    last = name.rpartition(".")[2]
    return [each for each in names if last and each.rpartition(".")[2] == last][:3]
