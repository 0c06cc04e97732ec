"""Leaving training behind: fixed statistics, fixed scales, integer weights."""

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import FusedConv, QuantStub, WeightFakeQuantize
from embedl_deploy.quantize.calibration import quantizers_of
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
        for module in list(frozen.modules()):
            _store_integers(module)
    return frozen


def _fix_scale(quantizer: Quantizer) -> None:
    if isinstance(quantizer.scale, nn.Parameter):
        scale = quantizer.scale.detach().abs()
        del quantizer.scale
        quantizer.register_buffer("scale", scale)


@torch.no_grad()
def _store_integers(owner: nn.Module) -> None:
    """Turn the quantized weight of a module into integers, and drop the float one."""
    stub = owner._modules.get("weight_fake_quant")
    if not isinstance(stub, WeightFakeQuantize) or not isinstance(stub.quantizer, Quantizer):
        return
    holders = [
        (part, name, tensor)
        for part in owner.modules()
        if not isinstance(part, (QuantStub, Quantizer))
        for name, tensor in part._parameters.items()
        if tensor is not None and name == "weight" and isinstance(part, (nn.modules.conv._ConvNd, nn.Linear))
    ]
    if len(holders) != 1:
        return  # which weight the quantizer sees is known only to the module; it stays in float
    part, name, weight = holders[0]
    stub.quantizer = IntegerWeight(stub.quantizer, weight)
    part._parameters[name] = None
