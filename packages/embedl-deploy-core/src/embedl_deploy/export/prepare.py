"""Prepares a model for export: frozen, in one floating-point type, with a suitable operator set."""

import inspect
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.export.constants import Replaced, convert
from embedl_deploy.export.zero_points import fold_zero_points, has_centered
from embedl_deploy.graph.edit import copy_of_shared_parameters, deep_copy
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.modules import named_weights
from embedl_deploy.modules.float32 import KeepsFloat32
from embedl_deploy.modules.weights import fix_computed_weights, has_computed_weights
from embedl_deploy.numerics import PointKind, Precision
from embedl_deploy.quantize import QuantizationReport, Quantizer
from embedl_deploy.quantize.freezing import frozen_to_be_read
from embedl_deploy.quantize.grid.onnx_operators import needed_opsets
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.quantize.reporting.report import REPORT

#: LayerNormalization is one operator from 17 on; 18 is the first that torch's exporter writes natively.
SMALLEST_OPSET = 18
#: Convolutions and pooling take bfloat16 from here on, the last of the common operators to do so.
OPSET_OF_BFLOAT16 = 22
_HALF = (torch.float16, torch.bfloat16)
#: What holds quantized numbers of floating-point formats, and no model computes in.
_STORED_FLOATS = frozenset(precision.format.storage for precision in Precision if precision.is_float)


def is_quantized(model: nn.Module) -> bool:
    """Whether there are quantizers, or weights stored as integers, in a model."""
    return any(isinstance(part, StoresFormat) for part in model.modules())


def prepare_model(
    model: nn.Module, dtype: torch.dtype | None, *, integer_weights: bool
) -> tuple[nn.Module, nn.Module, list[Replaced]]:
    """The model to export, the same before it is converted, and what a conversion alone would have spoiled.

    Both are ``model`` itself where nothing has to be changed, and have parameters of ``model`` where these stay.

    Raises:
        InputError: Integer weights are asked of a model without quantizers, or a quantized model is in float64.
        QuantizationError: A tensor is not calibrated.
        ExportError: One is centered, and cannot be shifted.
    """
    if dtype is None and is_quantized(model) and any(p.dtype is torch.float64 for p in model.parameters()):
        raise InputError(
            f"{type(model).__name__} is quantized and has parameters in float64, which QuantizeLinear does not take in "
            "any version of the operator set. Pass dtype=torch.float32, or convert the model before it is quantized: "
            "model.float()."
        )
    if has_computed_weights(model):  # in a file they are constants
        model = copy_of_shared_parameters(model)
        fix_computed_weights(model)
    exact = model
    if isinstance(model, fx.GraphModule) and any(isinstance(part, Quantizer) for part in model.modules()):
        model = exact = frozen_to_be_read(model, weights=False)
        if dtype is torch.float16 or (dtype is None and torch.float16 in _dtypes(model)):
            model = copy_of_shared_parameters(model)
            _to_normal_float16_scales(model)
        if has_centered(model):
            model = copy_of_shared_parameters(model)
            fold_zero_points(model)
        if integer_weights:
            model = frozen_to_be_read(model, weights=True)
    elif integer_weights and not is_quantized(model):
        raise InputError(
            "integer_weights=True, but the model has no quantized weights. Quantize it first: quantize(result, data)."
        )
    if dtype is None or not any(t.is_floating_point() and t.dtype != dtype for t in _tensors(model)):
        return model, exact, []
    converted = deep_copy(model)
    replaced = convert(converted, dtype)
    return converted, exact, replaced


def users_model(model: nn.Module) -> nn.Module:
    """What a file is compared with: the model as it is, in evaluation mode if it is quantized, as its file will be."""
    training = any(part.training for part in model.modules())
    return copy_of_shared_parameters(model).eval() if training and is_quantized(model) else model


def reasons_in_float(model: nn.Module) -> dict[str, str]:
    """By path, why modules of a quantized model have no quantizer at their weight or input; empty for other models."""
    report = getattr(model, "meta", {}).get(REPORT)
    if not isinstance(report, QuantizationReport) or not isinstance(model, fx.GraphModule):
        return {}
    quantized = {point.path for point in report.quantized if point.kind is PointKind.WEIGHT}
    reasons: dict[str, str] = {}
    for point in report.not_quantized:
        if point.kind is PointKind.WEIGHT and point.label != "weight":  # one of several: it goes by its operator's path
            weights = named_weights(model.get_submodule(point.path))
            path = next((weight.path for weight in weights if weight.name == point.label), "")
            reasons[f"{point.path}.{path}"] = point.rule
        if point.path not in quantized:
            reasons.setdefault(point.path, point.rule)
    paths = {
        node.name: str(node.target) if node.op == "call_module" else module_path_of(node) for node in model.graph.nodes
    }
    for name, _operator, reason in report.uncovered:
        if path := paths.get(name, name):  # a part of a module goes by its path
            reasons.setdefault(path, reason)
    return reasons


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*model.parameters(), *model.buffers()) if t.dtype not in _STORED_FLOATS]


def _dtypes(model: nn.Module) -> set[torch.dtype]:
    return {t.dtype for t in _tensors(model)}


def _to_normal_float16_scales(model: nn.Module) -> None:
    """Raise scales that float16 has only as subnormal numbers, which hardware may take for zero."""
    smallest = torch.finfo(torch.float16).tiny
    wide = {part for module in model.modules() if isinstance(module, KeepsFloat32) for part in module.modules()}
    for part in model.modules():
        in_float32 = isinstance(part, Quantizer) and part.config.precision.has_scale_format
        if isinstance(part, Quantizer) and part not in wide and not in_float32:
            part.scale = part.scale.clamp(min=smallest).half().float()


def in_signature_order(model: nn.Module, named: dict[str, Any]) -> dict[str, Any]:
    """Keyword inputs in the order in which the model's ``forward`` declares them, as the file has them.

    Those that it takes as ``**kwargs`` come last, as they were given.
    """
    declared = [name for name in inspect.signature(model.forward).parameters if name in named]
    return {name: named[name] for name in (*declared, *(name for name in named if name not in declared))}


def floating_type(model: nn.Module, inputs: Any) -> torch.dtype:
    """The shortest floating-point type of a model's state and inputs."""
    given = {value.dtype for value in pytree.tree_leaves(inputs) if isinstance(value, torch.Tensor)}
    return next((dtype for dtype in _HALF if dtype in _dtypes(model) | given), torch.float32)


def needed_opset(model: nn.Module) -> tuple[int, str]:
    """The oldest operator set that can say what the model holds, and what asks for it."""
    needed, reason = SMALLEST_OPSET, "torch's exporter"
    # Scales take the type of what they scale, whatever the type that they are kept in.
    half = next((str(dtype).removeprefix("torch.") for dtype in _HALF if dtype in _dtypes(model)), None)
    for part in model.modules():
        if not isinstance(part, StoresFormat):
            continue
        config = part.config
        for opset, what in needed_opsets(config.precision, blocks=config.block_size is not None, half=half):
            if opset > needed:
                needed, reason = opset, what
    return needed, reason


def choose_opset(model: nn.Module, opset: int | None) -> int:
    """The operator set to export for.

    Raises:
        InputError: The one that was asked for is too old, too new, or no version.
    """
    import onnx

    needed, reason = needed_opset(model)
    if opset is None:
        return max(needed, OPSET_OF_BFLOAT16) if torch.bfloat16 in _dtypes(model) else needed
    if opset < needed:
        raise InputError(f"opset is {opset}; {reason} needs {needed} or more.")
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise InputError(f"opset is {opset}; the newest that onnx {onnx.__version__} knows is {newest}.")
    return opset
