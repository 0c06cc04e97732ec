"""Calibration data in the forms that users have it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.errors import EmbedlDeployError, FusedModuleError, InputError, QuantizationError
from embedl_deploy.exclusive import called_exclusively
from embedl_deploy.graph.input_fit import misfit
from embedl_deploy.graph.inputs import describe_inputs, names_of_inputs, require_samples
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.graph.placement import fused_modules_named
from embedl_deploy.graph.wrong_inputs import require_no_arrays
from embedl_deploy.modules.device import device_of
from embedl_deploy.quantize.calibration.progress import progress_bar
from embedl_deploy.validation.quoting import quoted
from embedl_deploy.verify.difference import run_on_given

#: A function that is called with the model and runs it, or any iterable of batches.
CalibrationData = Callable[[nn.Module], Any] | Iterable[Any]


def number_of_inputs(model: nn.Module) -> int | None:
    """How many inputs a graph module takes; ``None`` for any other module."""
    if not isinstance(model, fx.GraphModule):
        return None
    return len(model.graph.find_nodes(op="placeholder"))


def as_call(model: nn.Module, batch: Any, device: torch.device | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs in a batch: a tensor, a tuple or list of inputs, or a dictionary of keyword inputs.

    A tuple that is longer than the model's inputs is cut: a data loader's labels are left out. Tensors are moved to
    ``device``, by default that of the model's parameters.

    Raises:
        InputError: The batch is something else.
    """
    device = device_of(model) if device is None else device
    if isinstance(batch, torch.Tensor):
        return (batch.to(device),), {}
    if isinstance(batch, Mapping) and all(isinstance(name, str) for name in batch):
        require_no_arrays((), dict(batch))
        _require_no_labels(model, batch)
        return (), {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        taken = batch[: number_of_inputs(model)]
        require_no_arrays(taken, {})
        return tuple(_moved(value, device) for value in taken), {}
    require_no_arrays((batch,), {})
    raise InputError(
        f"it is {quoted(batch)}; expected a tensor, a tuple of inputs or a dictionary of keyword inputs. For other "
        "data, pass a function that takes the model and runs it."
    )


def _require_no_labels(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Refuse a dictionary with all that the model takes and more: what is left out is for the user to say.

    Raises:
        InputError: It is one.
    """
    names = names_of_inputs(model) if isinstance(model, fx.GraphModule) else None
    if names is None or not set(names) < set(batch):
        return
    more = ", ".join(repr(name) for name in batch if name not in names)
    raise InputError(
        f"it holds {more}, which is not an input of the model ({', '.join(names)}). Pass the batches without it: "
        f"[{{name: batch[name] for name in {names!r}}} for batch in data]; or a function that takes the model and runs "
        "it on each."
    )


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def check_data(data: Any) -> None:
    """Check calibration data as far as that is possible without using it up.

    Raises:
        InputError: It is neither a function nor an iterable of batches.
    """
    if isinstance(data, (torch.Tensor, Mapping, str, bytes, type)) or not (
        callable(data) or isinstance(data, Iterable)
    ):
        raise InputError(
            f"Calibration data is {quoted(data)}; expected a function that takes the model and runs it, or "
            "an iterable of batches, such as a DataLoader or [batch]."
        )


#: The user's own model, while its transformed model is calibrated: running it shows whether a batch or a module fails.
_users_model: ContextVar[nn.Module | None] = ContextVar("users_model", default=None)


@contextmanager
def asking(model: nn.Module | None) -> Iterator[None]:
    """Within the block, a batch at which a module of a pattern raises is tried on the user's own model as well."""
    token = _users_model.set(model)
    try:
        yield
    finally:
        _users_model.reset(token)


def run_data(model: nn.Module, data: CalibrationData, *, progress: bool, ranks: Ranks = ALONE) -> None:
    """Run the model over all data, without gradients; the bar is the first rank's.

    Raises:
        InputError: A batch does not fit the model.
        DistributedError: Another rank has failed.
        QuantizationError: There is no data, or the model fails on a batch.
        FusedModuleError: A module that a pattern put there raises.
    """
    with torch.no_grad(), called_exclusively(model), _checked_before_calls(model, ranks):
        if not isinstance(data, Iterable):
            with fused_modules_named(model):
                data(model)
            return
        number = 0
        with progress_bar("calibrating", data, shown=progress and ranks.first) as shown:
            for number, batch in enumerate(shown, 1):
                _run_batch(model, batch, number)
        if number == 0:
            raise QuantizationError("The calibration data is empty: it has no batches. Pass at least one.")


@contextmanager
def _checked_before_calls(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Within the block, a call of the model raises if another rank has failed."""
    handle = model.register_forward_pre_hook(lambda *_: ranks.check())
    try:
        yield
    finally:
        handle.remove()


def for_each_call(
    model: nn.Module,
    data: CalibrationData,
    function: Callable[[tuple[Any, ...], dict[str, Any]], None],
    *,
    progress: bool,
    ranks: Ranks = ALONE,
) -> None:
    """Run the model over all data, and call a function with the inputs of each call, before it.

    Args:
        model: The model; the function may call it.
        data: The data.
        function: Takes positional and keyword inputs.
        progress: Show a progress bar, on a terminal.
        ranks: Who runs it, each on data of its own.

    Raises:
        InputError: A batch does not fit the model.
        QuantizationError: There is no data, or the model fails on a batch.
        FusedModuleError: A module that a pattern put there raises.
        DistributedError: Another rank has failed.
    """
    busy = False

    def called(_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal busy
        if busy:
            return  # by the function itself
        busy = True
        try:
            function(args, kwargs)
        finally:
            busy = False

    handle = model.register_forward_pre_hook(called, with_kwargs=True)
    try:
        run_data(model, data, progress=progress, ranks=ranks)
    finally:
        handle.remove()


def first_calls(
    model: nn.Module, data: CalibrationData, number: int, *, progress: bool
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Run the model over all data, and return copies of the inputs of the first calls.

    Copies, because the model or a function that is the data may write to them later. Errors: :func:`for_each_call`.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(calls) < number:
            calls.append(copy_of_call(args, kwargs))

    for_each_call(model, data, keep, progress=progress)
    return calls


def copy_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of a call whose tensors nobody else writes to."""
    copied: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
        torch.Tensor, lambda x: x.detach().clone(), (args, kwargs)
    )
    return copied


def _run_batch(model: nn.Module, batch: Any, number: int) -> None:
    which = f"Batch {number} of the calibration data"
    args, kwargs = (batch,), {}  # type: tuple[Any, ...], dict[str, Any]
    try:
        args, kwargs = as_call(model, batch)
        require_samples(args, kwargs)
        with fused_modules_named(model):
            model(*args, **kwargs)
    except InputError as error:
        raise InputError(f"{which} cannot be used: {error}") from error
    except Exception as error:  # a model and its modules may raise anything
        if is_out_of_memory(error):
            raise
        different, users = misfit(model, args, kwargs), _users_model.get()
        if isinstance(error, FusedModuleError) and users is not None:
            try:
                run_on_given(users, args, kwargs)
            except InputError as refusal:
                if not different:
                    raise InputError(f"{which} cannot be used: {refusal}") from error
            else:
                raise
        if isinstance(error, EmbedlDeployError) and not (different and isinstance(error, FusedModuleError)):
            raise
        if isinstance(error, FusedModuleError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the batch is to blame, not the module
        reason = " ".join(str(error).partition("\n\nWhile executing")[0].split()).rstrip(".")
        what = f"{which}, {describe_inputs(args, kwargs)}, "
        if different:
            raise InputError(
                f"{what}does not fit the model and differs from its example inputs: {different.rstrip('.')}. The model "
                f"raised {type(error).__name__}: {reason}"
            ) from error
        raise QuantizationError(
            f"{what}makes the model raise {type(error).__name__}: {reason}. Pass batches that the model accepts."
        ) from error
