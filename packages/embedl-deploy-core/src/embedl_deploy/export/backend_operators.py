"""The ONNX translations of the custom operators of a model's backends."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from embedl_deploy.backend import Backend, get_backend
from embedl_deploy.errors import BackendNotFoundError
from embedl_deploy.pipeline import BACKEND

#: Functions that write operators in ONNX, by operator.
Functions = dict[Callable[..., Any], Callable[..., Any]]


def backend_translations(model: nn.Module, opset: int) -> tuple[Functions, tuple[str, ...]]:
    """For ``torch.onnx.export(custom_translation_table=...)``: what the hooks of the model's backends give.

    Args:
        model: Transformed models in it name their backends. One that is not installed here brings nothing.
        opset: Version of the operator set.

    Returns:
        The functions, of two for one operator the first; and where there are two, in words.

    Raises:
        PluginError: A backend is broken, or its hook fails.
    """
    found: Functions = {}
    owners: dict[Callable[..., Any], str] = {}
    conflicts: list[str] = []
    for backend in backends_of(model):
        name = backend.name
        conflicts += backend.onnx_translation_conflicts(opset)
        for operator, function in backend.onnx_translations(opset).items():
            owner = owners.setdefault(operator, name)
            if owner != name and found[operator] is not function:
                conflicts.append(
                    f"Parts of the model are for the backends {owner!r} and {name!r}, which both bring a translation "
                    f"of {operator} to ONNX: that of {owner!r} is used for all. Export the parts by themselves."
                )
            found.setdefault(operator, function)
    return found, tuple(conflicts)


def backends_of(model: nn.Module) -> Iterator[Backend]:
    """The backends that parts of a model were transformed for, as far as they are installed here.

    Raises:
        PluginError: One is broken.
    """
    graphs = [part for part in model.modules() if isinstance(part, fx.GraphModule)]
    for name in dict.fromkeys(str(graph.meta[BACKEND]) for graph in graphs if BACKEND in graph.meta):
        try:
            yield get_backend(name)
        except BackendNotFoundError:
            continue  # transformed elsewhere; an operator that is missed is named by the exporter
