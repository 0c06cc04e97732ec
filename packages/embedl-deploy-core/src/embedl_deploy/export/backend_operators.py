"""What the operators of a model's backend are in ONNX."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from embedl_deploy.backend import get_backend
from embedl_deploy.errors import BackendNotFoundError
from embedl_deploy.pipeline import BACKEND


def backend_translations(model: nn.Module, opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``: what the hooks of the model's backends give.

    Args:
        model: Transformed models in it name their backends. One that is not installed here brings nothing.
        opset: Version of the operator set.

    Raises:
        PluginError: A backend is broken, or its hook fails.
    """
    graphs = [part for part in model.modules() if isinstance(part, fx.GraphModule)]
    names = dict.fromkeys(str(graph.meta[BACKEND]) for graph in graphs if BACKEND in graph.meta)
    found: dict[Callable[..., Any], Callable[..., Any]] = {}
    for name in names:
        try:
            found.update(get_backend(name).onnx_translations(opset))
        except BackendNotFoundError:
            continue  # transformed elsewhere; an operator that is missed is named by the exporter
    return found
