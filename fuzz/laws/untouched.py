"""The law that the user's model is never changed."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import quantize
from fuzz.laws.law import Broken, law
from fuzz.laws.subject import Subject

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything that can be seen of a model, by name; tensors by identity, version and value."""
    state: dict[str, Any] = {"random numbers": torch.random.get_rng_state().numpy().tobytes()}
    for path, module in model.named_modules(remove_duplicate=False):
        state[f"{path}: class"] = type(module)
        state[f"{path}: mode"] = module.training
        for hooks in _HOOKS:
            state[f"{path}: {hooks}"] = list(getattr(module, hooks).values())
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):  # weight_norm computes it anew whenever it is called
                value = value.detach().contiguous().numpy().tobytes()
            plain = isinstance(value, (int, float, str, bytes, tuple, type(None)))
            state[f"{path}: attribute {name}"] = value if plain else id(value)
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        value = tensor.detach().contiguous().numpy().tobytes()
        state[f"tensor {name}"] = (id(tensor), tensor.requires_grad, tensor.grad is None, value)
    return state


@law()
def untouched(subject: Subject) -> None:
    """Transforming, and quantizing what came of it, changes nothing in the user's model, nor its random numbers."""
    model = subject.make().train(subject.rng("untouched").random() < 0.3)
    args, kwargs = subject.inputs(0)
    torch.manual_seed(5)
    before = _state(model)
    result = subject.transform(model)
    _same(before, _state(model), "transform")
    drops = any("training=True" in note for note in result.report["notes"])  # told: it draws whenever it runs
    if subject.rng("untouched quantize").random() < 0.2 and not drops:
        with suppress(QuantizationError):  # nothing in it may be quantized, and that changes nothing either
            quantize(result, lambda m: m(*args, **kwargs))
        _same(before, _state(model), "quantize")


def _same(before: dict[str, Any], after: dict[str, Any], who: str) -> None:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise Broken(f"{who} changed the user's model: {', '.join(changed[:3])}")
