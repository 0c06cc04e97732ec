"""Freezing: fixed statistics, fixed scales, integer weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import FusedConv, fix_parametrized_weights, named_weights
from embedl_deploy.quantize.calibration.calibrate import quantizers_of
from embedl_deploy.quantize.placing.block_weight import stored_weight
from embedl_deploy.quantize.placing.quantizer import IntegerWeight, Quantizer
from embedl_deploy.validation.checked import checked

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm


@checked
def freeze_batchnorm(model: nn.Module) -> None:
    """Make batch norm use its running statistics without updating them while the rest of the model trains.

    Call it again after every ``model.train()``, which sets all modules to training mode.
    """
    for module in model.modules():
        if isinstance(module, _BATCH_NORMS):
            module.eval()


@checked
def freeze(model: fx.GraphModule, *, weights: bool = True) -> fx.GraphModule:
    """Make the deployable model from a calibrated or trained one.

    Batch norm is folded into weights, scales no longer learn, weights become the integers (or FP8 numbers) that they
    are rounded to, and the model is in evaluation mode. The outputs are those of the model in evaluation mode, to
    within float rounding of the folded batch norm.

    Args:
        model: What :func:`calibrate` has been through. Not modified.
        weights: Store weights as numbers of their format; otherwise they stay in float, with a quantizer before each
            use.

    Raises:
        InputError: The model is not a graph module.
        QuantizationError: A tensor is not calibrated.
    """
    return _frozen(model, deep_copy, weights=weights)


def frozen_to_be_read(model: fx.GraphModule, *, weights: bool) -> fx.GraphModule:
    """As :func:`freeze`, without memory for parameters that freezing does not change: those are the model's own.

    So are weights that are integers already. Weights whose scales are numbers of a format are stored in any case: files
    have no other form for them.
    """
    frozen = _frozen(model, _copy_of_shared_weights, weights=weights)
    if not weights and any(q.config.precision.has_scale_format for q in quantizers_of(frozen).values()):
        fix_parametrized_weights(frozen)
        _store_integers(frozen, with_scale_format=True)
    return frozen


def _copy_of_shared_weights(model: fx.GraphModule) -> fx.GraphModule:
    integers = [part.values for part in model.modules() if isinstance(part, IntegerWeight)]
    return deep_copy(model, {id(tensor): tensor for tensor in (*model.parameters(), *integers)})


def _frozen(model: fx.GraphModule, copied: Callable[[Any], Any], *, weights: bool) -> fx.GraphModule:
    missing = [q.name for q in quantizers_of(model).values() if not q.calibrated]
    if missing:
        raise QuantizationError(
            f"{len(missing)} tensor(s) are not calibrated: {', '.join(missing[:5])}. Run calibrate(model, data) first.",
            tensor=missing[0],
        )
    frozen: fx.GraphModule = copied(model).eval()
    for module in frozen.modules():
        if isinstance(module, FusedConv):
            module.fold_batch_norm()
    for quantizer in quantizers_of(frozen).values():
        _fix_scale(quantizer)
    if weights:
        fix_parametrized_weights(frozen)
        _store_integers(frozen)
    return frozen.eval()


def _fix_scale(quantizer: Quantizer) -> None:
    if isinstance(quantizer.scale, nn.Parameter):
        scale = quantizer.scale.detach().abs()
        del quantizer.scale
        quantizer.register_buffer("scale", scale)


@torch.no_grad()
def _store_integers(model: fx.GraphModule, *, with_scale_format: bool = False) -> None:
    """Turn quantized weights into integers, and drop the float ones that nothing else reads.

    Two fused modules may share an operator: a layer that the model calls twice.

    Args:
        model: Changed in place.
        with_scale_format: Only weights whose scales are numbers of a format.
    """
    stored: set[nn.Module] = set()
    for weight in named_weights(model):
        if not isinstance(weight.stub.quantizer, Quantizer) or weight.operator is None:
            continue  # without one operator, only the module knows which weight is quantized: it stays in float
        if with_scale_format and not weight.stub.quantizer.config.precision.has_scale_format:
            continue
        values = _home_of_weight(weight.operator)["weight"]
        assert values is not None  # dropped only below
        weight.stub.quantizer = stored_weight(weight.stub.quantizer, values)
        stored.add(weight.operator)
    for operator in stored - _read_in_float(model):
        _home_of_weight(operator)["weight"] = None


def _read_in_float(model: fx.GraphModule) -> set[nn.Module]:
    """Parts of modules that the model calls, without those whose weight is stored as integers everywhere in them."""
    paths = dict.fromkeys(str(node.target) for node in model.graph.nodes if node.op == "call_module")
    read: set[nn.Module] = set()
    for module in map(model.get_submodule, paths):
        weights = named_weights(module)
        as_integers = {each.operator for each in weights if isinstance(each.stub.quantizer, IntegerWeight)}
        in_float = {each.operator for each in weights if not isinstance(each.stub.quantizer, IntegerWeight)}
        read.update(part for part in module.modules() if part not in as_integers or part in in_float)
    return read


def _home_of_weight(operator: nn.Module) -> dict[str, Any]:
    """Where the weight is kept: with the parameters, or as a buffer, which is not trained."""
    return operator._parameters if "weight" in operator._parameters else operator._buffers
