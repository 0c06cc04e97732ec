"""Leaving training behind: fixed statistics, fixed scales, integer weights."""

from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import FusedConv, WeightFakeQuantize, fix_parametrized_weights
from embedl_deploy.quantize.calibration import quantizers_of
from embedl_deploy.quantize.decisions import weighted_operator
from embedl_deploy.quantize.quantizer import IntegerWeight, Quantizer

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm


def freeze_batchnorm(model: nn.Module) -> None:
    """Let batch norm use its running statistics, and no longer update them, while the rest of the model trains.

    Call it again after every ``model.train()``, which sets all modules to training mode.
    """
    for module in model.modules():
        if isinstance(module, _BATCH_NORMS):
            module.eval()


def freeze(model: fx.GraphModule, *, weights: bool = True) -> fx.GraphModule:
    """Make of a calibrated or trained model the one to deploy.

    Batch norm is folded into weights, scales no longer learn, weights become the integers (or FP8 numbers) that they
    are rounded to, and the model is in evaluation mode. The outputs are those of the model in evaluation mode, to
    within float rounding of the folded batch norm.

    Args:
        model: What :func:`calibrate` has been through. Not modified.
        weights: Store weights as numbers of their format; otherwise they stay in float, with a quantizer before each
            use.

    Raises:
        InputError: The model is no graph module.
        QuantizationError: A tensor is not calibrated.
    """
    if not isinstance(model, fx.GraphModule):
        raise InputError(f"model is a {type(model).__name__}; expected what calibrate or quantize has been through.")
    missing = [q.name for q in quantizers_of(model).values() if not q.calibrated]
    if missing:
        raise QuantizationError(
            f"{len(missing)} tensor(s) are not calibrated: {', '.join(missing[:5])}. Run calibrate(model, data) first.",
            tensor=missing[0],
        )
    frozen = deep_copy(model).eval()
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
def _store_integers(model: fx.GraphModule) -> None:
    """Turn quantized weights into integers, and drop the float ones that nothing else reads.

    Two fused modules may share an operator: a layer that the model calls twice.
    """
    paths = dict.fromkeys(str(node.target) for node in model.graph.nodes if node.op == "call_module")
    called = {id(part): part for part in map(model.get_submodule, paths)}
    readers = Counter(id(part) for module in called.values() for part in module.modules())
    stored: Counter[nn.Module] = Counter()
    for owner in list(model.modules()):
        stub, operator = owner._modules.get("weight_fake_quant"), weighted_operator(owner)
        if not isinstance(stub, WeightFakeQuantize) or not isinstance(stub.quantizer, Quantizer) or operator is None:
            continue  # without one operator, only the module knows which weight is quantized: it stays in float
        weight = _home_of_weight(operator)["weight"]
        assert weight is not None  # dropped only below
        stub.quantizer = IntegerWeight(stub.quantizer, weight)
        stored[operator] += 1
    for operator, count in stored.items():
        if count >= readers[id(operator)]:
            _home_of_weight(operator)["weight"] = None


def _home_of_weight(operator: nn.Module) -> dict[str, Any]:
    """Where the weight is kept: with the parameters, or as a buffer, which is not trained."""
    return operator._parameters if "weight" in operator._parameters else operator._buffers
