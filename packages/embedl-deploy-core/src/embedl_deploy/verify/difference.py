"""How far two models' outputs are apart, measured without changing either."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.containers.known import know_containers
from embedl_deploy.containers.unknown import how_to_register
from embedl_deploy.errors import EmbedlDeployError, InputError
from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.graph.input_fit import misfit
from embedl_deploy.graph.inputs import describe_inputs, require_samples, tensors_in
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.graph.placement import fused_modules_named
from embedl_deploy.graph.wrong_inputs import require_no_arrays, what_to_pass
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify.memory import CopiedBeforeWrites
from embedl_deploy.verify.state import State, state_kept


@checked
class Difference(NamedTuple):
    """The largest difference between two outputs.

    Attributes:
        max_abs: max|a - b| over all output values.
        max_rel: The largest over the output tensors of each one's max|a - b| divided by its max|a|, with a the
            reference; of max|a - b| alone where a is zero.
    """

    max_abs: float
    max_rel: float

    def __str__(self) -> str:
        return f"max |Δ| = {self.max_abs:.3g} ({self.max_rel:.3g} of the largest output)"


def output_tensors(output: Any) -> list[torch.Tensor]:
    """The tensors in a model's output, in order, whatever structures hold them."""
    return tensors_in(output)


def float_tensors(output: Any) -> list[torch.Tensor]:
    """Those of a model's output tensors that are in floating point."""
    return [tensor for tensor in output_tensors(output) if tensor.is_floating_point()]


def difference(reference: Any, other: Any) -> Difference:
    """Compare two outputs tensor by tensor, in double precision. NaN equals NaN, infinity itself.

    Raises:
        InputError: They do not hold the same number of tensors of the same shapes, or none.
    """
    a, b = _comparable(reference, other)
    max_abs = max_rel = 0.0
    for x, y in zip(a, b, strict=True):
        wide = torch.complex128 if x.is_complex() else torch.float64
        x, y = x.detach().to(wide), y.detach().to(x.device, wide)
        same = (x == y) | (x.isnan() & y.isnan())
        delta = torch.where(same, torch.zeros_like(x), x - y).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        finite = x.abs()[x.isfinite()]
        apart = float(delta.max()) if delta.numel() else 0.0
        largest = float(finite.max()) if finite.numel() else 0.0
        max_abs = max(max_abs, apart)
        max_rel = max(max_rel, apart / largest if largest else apart)
    return Difference(max_abs, max_rel)


def _comparable(reference: Any, other: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The tensors of two outputs, as many and of the same shapes.

    Raises:
        InputError: They are not.
    """
    a, b = output_tensors(reference), output_tensors(other)
    if not a and not b:
        raise InputError(
            f"The outputs cannot be compared: a {type(reference).__name__} holds no tensors that can be found. Return "
            "a tensor, or a tuple, list, dictionary or named tuple of tensors; make another class known with "
            f"{how_to_register(reference)}."
        )
    if [t.shape for t in a] != [t.shape for t in b]:
        raise InputError(
            f"The outputs cannot be compared: {[tuple(t.shape) for t in a]} against {[tuple(t.shape) for t in b]}."
        )
    return a, b


def signal_to_noise(reference: Any, other: Any) -> float:
    """10·log₁₀(Σ y² / Σ (y' − y)²) over all tensors, in dB; infinite without noise, −infinite with any on no signal.

    Infinities (as in masks) and NaN are neither signal nor noise where both have them. If only one has them,
    they are infinite noise.

    Raises:
        InputError: As for :func:`difference`.
    """
    signal = noise = 0.0
    for x, y in zip(*_comparable(reference, other), strict=True):
        wide = torch.complex128 if x.is_complex() else torch.float64
        x, y = x.detach().to(wide), y.detach().to(x.device, wide)
        signal += float(torch.where(x.isfinite(), x, 0.0).abs().square().sum())
        noise += float(torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, y - x).abs().square().sum())
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


@contextmanager
def _nothing_remains(model: nn.Module) -> Iterator[State]:
    """After the block the model is what it was, whatever ran in it, and so are generators of random numbers."""
    devices = sorted({t.device.index or 0 for t in (*model.parameters(), *model.buffers()) if t.is_cuda})
    # One thread at a time: what one changes and puts back, another would see.
    with (
        random_numbers_kept(devices),
        torch.no_grad(),
        fused_modules_named(model),
        state_kept(model) as state,
        CopiedBeforeWrites(state.parameters),
    ):
        yield state


@checked
def run_unchanged(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a model without side effects: on copies of the inputs, with its state and random numbers restored.

    A model in training mode therefore updates no running statistics.

    Raises:
        FusedModuleError: A module that a pattern put there raises; what others raise passes as it is.
    """
    with _nothing_remains(model) as state:
        return state.apart(_call(model, args, kwargs))


def two_calls_unchanged(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """What a model gives when it is called twice in succession, and nothing remains of it.

    A model that the first call has not changed, and that drew no random numbers, is not called again: it would give the
    same. For errors see :func:`run_unchanged`.
    """
    with _nothing_remains(model) as state:
        first = state.apart(_call(model, args, kwargs))
        return first, state.apart(_call(model, args, kwargs)) if state.has_changed() else first


def again_with_the_same_numbers(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any, list[str]]:
    """Call a model twice with the same random numbers, and restore its state.

    Returns:
        The outputs of the first call and of the second, and the attributes that the first call changed. If it changed
        none, the model is called only once.
    """
    with _nothing_remains(model) as state:
        numbers = torch.random.get_rng_state()
        first = state.apart(_call(model, args, kwargs))
        changed = state.in_order({change.name for change in state.changes()} - {""})
        if not changed:
            return first, first, changed
        torch.random.set_rng_state(numbers)
        return first, state.apart(_call(model, args, kwargs)), changed


def _call(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, (args, kwargs))
    return model(*args, **kwargs)


def run_on_given(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str = "",
    transformed: nn.Module | None = None,
) -> Any:
    """Run a user's own model on the inputs that the user gives, as :func:`run_unchanged` does.

    Args:
        model: The model.
        args: Its inputs.
        kwargs: Its keyword inputs.
        name: What the user calls it; by default its class.
        transformed: What it was transformed into, whose example inputs an error compares the inputs with.

    Raises:
        InputError: It cannot be run on them.
        FusedModuleError: A module that a pattern put there raises.
    """
    try:
        return run_unchanged(model, args, kwargs)
    except EmbedlDeployError:
        raise
    except Exception as error:  # a user's model may raise anything
        if is_out_of_memory(error):
            raise
        require_no_arrays(args, kwargs)
        reason = " ".join(str(error).partition("\n\nWhile executing")[0].split())
        different = misfit(transformed, args, kwargs) if transformed is not None else ""
        compared = f"They differ from the example inputs: {different.rstrip('.')}. " if different else ""
        raise InputError(
            f"{name or type(model).__name__} cannot be run on the inputs {describe_inputs(args, kwargs)}: "
            f"{type(error).__name__}: {reason.rstrip('.')}. {compared}{what_to_pass(model, args, kwargs)}"
        ) from error


@checked
def compare_models(
    reference: nn.Module, other: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> Difference:
    """Run both models on the same inputs from the same random state, and compare what they give.

    Raises:
        InputError: The first cannot be run on them, or there is no sample in them.
        FusedModuleError: A module that a pattern put there raises.
    """
    kwargs = kwargs or {}
    know_containers()
    require_samples(args, kwargs)
    return difference(run_on_given(reference, args, kwargs, transformed=other), run_unchanged(other, args, kwargs))
