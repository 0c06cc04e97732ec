"""Norms."""

from typing import Any

import torch
from torch import nn

from embedl_deploy.graph.forms import fixed_mode
from embedl_deploy.graph.forms.form import Call, Form, NoModuleFormError, from_constructor, set_tensor

_BATCH: dict[int, Any] = {
    2: fixed_mode.FrozenBatchNorm1d,
    3: fixed_mode.FrozenBatchNorm1d,
    4: fixed_mode.FrozenBatchNorm2d,
    5: fixed_mode.FrozenBatchNorm3d,
}
#: By the number of dimensions of a batch: the module, and the one that stays with its running statistics.
_INSTANCE: dict[int, tuple[Any, Any]] = {
    3: (nn.InstanceNorm1d, fixed_mode.FrozenInstanceNorm1d),
    4: (nn.InstanceNorm2d, fixed_mode.FrozenInstanceNorm2d),
    5: (nn.InstanceNorm3d, fixed_mode.FrozenInstanceNorm3d),
}


def _set_statistics(module: nn.Module, mean: torch.Tensor, var: torch.Tensor) -> None:
    set_tensor(module, "running_mean", mean)
    set_tensor(module, "running_var", var)
    # Only the live form counts batches; on "meta" the counter could not be moved or saved.
    set_tensor(module, "num_batches_tracked", torch.zeros((), dtype=torch.long, device=mean.device))


def _set_affine(module: nn.Module, call: Call) -> nn.Module:
    weight, bias = call.tensor("weight"), call.tensor("bias")
    set_tensor(module, "weight", weight)
    set_tensor(module, "bias", bias)
    return module


def _batch_norm(call: Call) -> nn.Module:
    mean, var = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or var is None or call.setting("training"):
        raise NoModuleFormError("training")  # batch statistics: the module would also update its running ones
    module_class = _BATCH.get(call.rank or 0)
    if module_class is None:
        raise NoModuleFormError("input")  # of unknown rank: images, sequences and vectors have norms of their own
    module = module_class(mean.shape[0], eps=call.setting("eps"), momentum=call.setting("momentum"), device="meta")
    module.affine = call.tensor("weight") is not None
    _set_statistics(module, mean, var)
    return fixed_mode.in_mode(_set_affine(module, call), training=False)


def _instance_norm(call: Call) -> nn.Module:
    by_batch = call.setting("use_input_stats")
    mean, var = call.tensor("running_mean"), call.tensor("running_var")
    classes = None if call.shape is None else _INSTANCE.get(len(call.shape))
    if classes is None or call.shape is None or (by_batch and mean is not None) or not (by_batch or mean is not None):
        raise NoModuleFormError("input")  # of unknown shape, or with statistics that the call updates
    live, frozen = classes
    module = (live if mean is None else frozen)(
        call.shape[1],
        eps=call.setting("eps"),
        momentum=call.setting("momentum"),
        affine=call.tensor("weight") is not None,
        track_running_stats=mean is not None,
        device="meta",
    )
    if mean is not None and var is not None:
        _set_statistics(module, mean, var)
        fixed_mode.in_mode(module, training=False)
    return _set_affine(module, call)


def _group_norm(call: Call) -> nn.Module:
    weight, groups = call.tensor("weight"), call.setting("num_groups")
    channels = weight.shape[0] if weight is not None else None if call.shape is None else call.shape[1]
    if channels is None:
        raise NoModuleFormError("input")  # of unknown shape
    module = nn.GroupNorm(groups, channels, eps=call.setting("eps"), affine=weight is not None, device="meta")
    return _set_affine(module, call)


def _layer_norm(call: Call) -> nn.Module:
    shape = call.setting("normalized_shape")
    if not shape:
        raise NoModuleFormError("normalized_shape")
    module = nn.LayerNorm(shape, eps=call.setting("eps"), elementwise_affine=False)
    module.elementwise_affine = call.tensor("weight") is not None
    return _set_affine(module, call)


def _rms_norm(call: Call) -> nn.Module:
    weight = call.tensor("weight")
    module = nn.RMSNorm(call.setting("normalized_shape"), eps=call.setting("eps"), elementwise_affine=False)
    module.elementwise_affine = weight is not None
    set_tensor(module, "weight", weight)
    return module


FORMS = (
    Form(("batch_norm",), nn.modules.batchnorm._BatchNorm, _batch_norm),
    Form(("instance_norm",), nn.modules.instancenorm._InstanceNorm, _instance_norm),
    Form(("group_norm",), nn.GroupNorm, _group_norm),
    Form(("layer_norm",), nn.LayerNorm, _layer_norm),
    Form(("rms_norm",), nn.RMSNorm, _rms_norm),
    from_constructor(nn.LocalResponseNorm, "local_response_norm"),
)
