"""Checks that a pattern's result can be exported, and computes the same in ONNX Runtime."""

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from embedl_deploy.errors import ExportError
from embedl_deploy.export import export_onnx
from embedl_deploy.patterns import Example
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, trying
from embedl_deploy.testing.subjects import PatternSubject, declared, for_each_example
from embedl_deploy.testing.tensors import with_distinct_weights
from embedl_deploy.testing.translations import read_translations_once


def has_onnxruntime() -> bool:
    """Whether what runs ONNX files is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def require_onnxruntime() -> None:
    """Raise if what runs ONNX files is missing.

    Raises:
        DoesNotApply: It is.
    """
    if not has_onnxruntime():
        raise DoesNotApply("ONNX Runtime is not installed: pip install 'embedl-deploy-core[onnxruntime]'")


class _Beside(nn.Module):
    """Models side by side, each with a tuple of inputs of its own: one export instead of many."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, *inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """All results."""
        return tuple(model(*given) for model, given in zip(self.models, inputs, strict=True))


def exports_to_onnx(subject: PatternSubject) -> None:
    """What the examples become is exported, and ONNX Runtime computes what PyTorch computes."""
    require_onnxruntime()
    models, inputs = [], []
    for where, example in declared(subject.pattern.examples(), "example"):
        with trying(where):
            models.append(subject.rewrite(with_distinct_weights(example.model), example).model)
            inputs.append(example.args)
    if not models:
        raise DoesNotApply("it declares no examples")
    try:
        _export(_Beside(*models).eval(), tuple(inputs))
    except ConformanceFailure:
        _export_one_by_one(subject)  # says which it was
        raise


@for_each_example
def _export_one_by_one(subject: PatternSubject, example: Example) -> None:
    _export(subject.rewrite(with_distinct_weights(example.model), example).model, example.args)


def _export(model: nn.Module, args: tuple[Any, ...]) -> None:
    read_translations_once()
    with TemporaryDirectory() as folder:
        try:
            export_onnx(model, args, Path(folder, "example.onnx"))
        except ExportError as error:
            raise ConformanceFailure(str(error), "a file that agrees with PyTorch") from error
