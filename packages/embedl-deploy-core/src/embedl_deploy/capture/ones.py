"""Handles open dimensions of size one, which ``torch.export`` excludes.

``torch.export`` takes an open size to be two or more: a branch for one (``if x.shape[1] > 1``) is not in the graph, and
no guard says so. So model and graph are compared there, and a graph that gives something else refuses ones.
"""

from collections.abc import Mapping
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.capture.agreement import find_disagreement
from embedl_deploy.errors import InputError
from embedl_deploy.graph.derived_sizes import size_where
from embedl_deploy.graph.exported_inputs import EXPORTED_INPUTS, ExportedInputs
from embedl_deploy.graph.open_dimensions import OpenDimensions


def refuse_wrong_ones(
    model: nn.Module,
    graph_module: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    opened: OpenDimensions,
) -> None:
    """Have a graph refuse sizes of one where the model computes something else for them, one dimension after another.

    Args:
        model: The model.
        graph_module: The graph; its ``meta`` is changed.
        args: Example inputs, on which the two agree.
        kwargs: Example keyword inputs.
        opened: The dimensions that are open.
    """
    fixed_to = graph_module.meta.get(EXPORTED_INPUTS)
    if not isinstance(fixed_to, ExportedInputs):
        return
    leaves, structure = pytree.tree_flatten((args, kwargs))
    for places in opened.varying_together(model, args, kwargs).values():
        cut = [_cut(value, dims) for value, dims in zip(leaves, places, strict=True)]
        if any(a is not b for a, b in zip(leaves, cut, strict=True)) and _differ(
            model, graph_module, *pytree.tree_unflatten(cut, structure)
        ):
            fixed_to = fixed_to.refusing_ones(
                [[at for at, dim in dims.items() if size_where(dim, 1) == 1] for dims in places]
            )
    graph_module.meta[EXPORTED_INPUTS] = fixed_to


def _cut(value: Any, dimensions: Mapping[int, Any]) -> Any:
    for at, dim in dimensions.items():
        size = size_where(dim, 1)
        value = value.narrow(at, 0, size) if value.shape[at] > size > 0 else value
    return value


def _differ(model: nn.Module, graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        found = find_disagreement(model, graph_module, args, kwargs)
    except InputError:  # the model does not take them
        return False
    return found is not None and not found.refused
