"""Laws of training mode: outputs, what is kept, and gradients, from the same random state."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.testing.tensors import in_memory_order
from fuzz.laws.law import Broken, LeftOut, law
from fuzz.laws.subject import Subject, distance, leaves


@law()
def train_mode(subject: Subject) -> None:
    """Two steps in training mode give the same outputs, and the same running statistics."""
    original = _still(subject.make()).train()
    rewritten = subject.transform(_still(subject.make()).train(), trace=_trace(subject)).model
    if not rewritten.training:
        raise Broken("a model in training mode comes back in evaluation mode")
    for seed in (1, 2):
        with _DrawnByIndex():
            wanted, got = (subject.run(model, seed, keep=True) for model in (original, rewritten))
        subject.agree(got, wanted, f"training mode, step {seed}", train=True)
    kept = list(rewritten.buffers())
    before = dict(subject.make().named_buffers())
    for name, buffer in original.named_buffers():
        if torch.equal(buffer, before[name]):
            continue  # nothing is kept in it, or nobody reads it
        alike = [b for b in kept if b.numel() == buffer.numel()]
        if not any(distance([b.reshape(buffer.shape)], [buffer]) <= max(subject.tolerance, 1e-3) for b in alike):
            raise Broken(f"training mode: nothing in the result has the values of the buffer {name!r}")


@law(share=0.7)
def gradients(subject: Subject) -> None:
    """Gradients of inputs and parameters are the same."""
    original = subject.make()
    result = subject.transform(subject.make(), trace=_trace(subject))
    if any("disables or enables gradients" in note for note in result.report["notes"]):
        raise LeftOut  # told: a symbolic graph cannot hold it
    rewritten = result.model
    keys = _by_value(original), _by_value(rewritten)
    wanted_inputs, got_inputs = _backward(subject, original), _backward(subject, rewritten)
    known = [*wanted_inputs, *(parameter.grad for parameter in original.parameters())]
    largest = max((float(grad.abs().max()) for grad in known if grad is not None and grad.numel()), default=0.0)
    for position, (got, wanted) in enumerate(zip(got_inputs, wanted_inputs, strict=True)):
        if (got is None) != (wanted is None):
            raise Broken(f"gradients: that of input {position} is {'missing' if got is None else 'there'}")
        if wanted is not None:
            _close(subject, got, wanted, largest, f"input {position}")
    for key, parameters in keys[0].items():
        others = keys[1].get(key, [])
        if all(parameter.grad is None for parameter in parameters):
            continue  # nobody reads it
        if len(others) != len(parameters):
            if _is_split(key, keys[1]) or bool((parameters[0] == parameters[0].flatten()[0]).all()):
                continue  # the projections of attention, one by one; or zeros, of which there may be more then
            raise Broken(f"gradients: {len(parameters)} parameters of one value became {len(others)}")
        got, wanted = _total(others), _total(parameters)
        if (got is None) != (wanted is None):
            raise Broken(f"gradients: that of a parameter of {tuple(parameters[0].shape)} is missing on one side")
        if wanted is not None:
            _close(subject, got, wanted, largest, f"a parameter of {tuple(parameters[0].shape)}")


class _DrawnByIndex(TorchDispatchMode):
    """Draws what dropout keeps in the order of indices, not of memory: rewriting may give a value other strides."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.bernoulli_.float:
            return func(*args, **(kwargs or {}))
        return args[0].copy_(func(torch.empty(args[0].shape), *args[1:], **(kwargs or {})))


def _trace(subject: Subject) -> str:
    """How the model is captured; torch.export, where torch.fx cannot, is dear."""
    return "auto" if subject.rng("trace in training").random() < 0.25 else "symbolic"


def _still(model: nn.Module) -> nn.Module:
    """Without dropout in attention, whose masks are drawn in another order when it is taken apart."""
    layers = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    for module in (part for layer in model.modules() if isinstance(layer, layers) for part in layer.modules()):
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _backward(subject: Subject, model: nn.Module) -> list[torch.Tensor | None]:
    args, kwargs = subject.inputs(1)
    inputs = [leaf for leaf in leaves((args, kwargs)) if leaf.is_floating_point()]
    for leaf in inputs:
        leaf.requires_grad_()
    torch.manual_seed(1)
    outputs = [leaf for leaf in leaves(model(*args, **kwargs)) if leaf.requires_grad]
    if outputs:
        sum(
            (leaf.double() * (1 + torch.arange(leaf.numel()).view(leaf.shape) % 3)).sum() for leaf in outputs
        ).backward()
    return [leaf.grad for leaf in inputs]


def _by_value(model: nn.Module) -> dict[bytes, list[nn.Parameter]]:
    """Parameters by what they hold in memory: a rewrite may move, reshape and transpose them, but not change values."""
    found = defaultdict(list)
    for parameter in model.parameters():
        found[in_memory_order(parameter.detach()).contiguous().numpy().tobytes()].append(parameter)
    return found


def _is_split(key: bytes, found: dict[bytes, list[nn.Parameter]]) -> bool:
    """Whether what a parameter held is there in three parts."""
    size = len(key) // 3
    return all(key[start : start + size] in found for start in range(0, 3 * size, size))


def _total(parameters: list[nn.Parameter]) -> torch.Tensor | None:
    grads = [in_memory_order(p.grad, p).flatten() for p in parameters if p.grad is not None]
    return sum(grads[1:], grads[0]) if grads else None  # type: ignore[return-value]


def _close(subject: Subject, got: torch.Tensor, wanted: torch.Tensor, largest: float, what: str) -> None:
    """Raise unless gradients agree. What rounding leaves of one that is zero, as of a bias before a norm, is none.

    Args:
        subject: The network.
        got: That of the result.
        wanted: That of the model.
        largest: The largest number of all gradients of the model.
        what: What it is of.
    """
    if max(float(each.abs().max()) if each.numel() else 0.0 for each in (got, wanted)) < 20 * subject.nudge * largest:
        return
    apart = distance([got.reshape(wanted.shape)], [wanted])
    if apart > 20 * subject.tolerance:
        raise Broken(f"gradients: that of {what} is {apart:.3g} of its largest value off")
