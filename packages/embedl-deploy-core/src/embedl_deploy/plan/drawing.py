"""A transformed graph as plain values, to be drawn: what is called, in which module, and what it reads."""

from collections.abc import Mapping
from typing import Any

from torch import fx

from embedl_deploy.graph.forms.fixed_mode import class_name
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.metadata import module_path_of


def graph_rows(graph: fx.Graph) -> list[dict[str, Any]]:
    """The nodes of a graph in the order in which they run, those left out that only hold a tensor of the model.

    Args:
        graph: A graph.

    Returns:
        For each node ``node``, its name; ``op``, as ``torch.fx`` has it; ``module``, the path of the module that it
        calls, or whose forward calls the function; ``kind``, class of the module, name of the function, or
        ``"input"``; and ``inputs``, the names of the nodes that it reads.
    """
    drawn = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    modules: dict[fx.Node, str] = {}
    for node in drawn:
        modules[node] = str(node.target) if node.op == "call_module" else _caller(node, modules)
    return [
        {
            "node": node.name,
            "op": node.op,
            "module": modules[node],
            "kind": "input" if node.op == "placeholder" else kind_of(node),
            "inputs": [read.name for read in node.all_input_nodes if read in modules],
        }
        for node in drawn
    ]


def _caller(node: fx.Node, modules: Mapping[fx.Node, str]) -> str:
    """The module whose forward calls a function; of one that a rewrite has made, the caller of what it reads."""
    if "nn_module_stack" in node.meta or node.op == "placeholder":
        return module_path_of(node)
    read = next((read for read in node.all_input_nodes if read in modules), None)
    if read is None:
        return ""
    return modules[read].rpartition(".")[0] if read.op == "call_module" else modules[read]


def kind_of(node: fx.Node) -> str:
    """Class of the module, or name of the function."""
    module = get_module(node)
    if module is not None:
        return class_name(module)
    return str(getattr(node.target, "__name__", node.target))
