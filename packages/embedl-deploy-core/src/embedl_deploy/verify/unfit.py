"""Errors about example inputs that the model does not accept, the most frequent cause of failures."""

from typing import Any

from torch import nn

from embedl_deploy.errors import FusedModuleError, InputError
from embedl_deploy.graph.input_fit import misfit
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.verify.difference import run_on_given


def refuse_unfit_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> None:
    """Say of something that failed on inputs that it is for the inputs, if the model cannot be run on them either.

    Args:
        model: The user's own model where it is known, else what it failed on.
        args: Inputs as they were given.
        kwargs: Keyword inputs.
        error: What was raised; its text goes first.

    Raises:
        InputError: The model cannot be run on them.
    """
    different = ""
    try:
        run_on_given(model, args, kwargs)
        return
    except InputError:
        different = misfit(model, args, kwargs)
    except (FusedModuleError, MemoryError, RuntimeError) as failure:
        if not isinstance(failure, FusedModuleError) and not is_out_of_memory(failure):
            raise
        different = misfit(model, args, kwargs)
        if not different:
            return  # the module's fault, as the error says, or that of the machine
    why = f", which are not like its example inputs: {different.rstrip('.')}" if different else " itself"
    raise InputError(
        f"{str(error).rstrip('.')}. {type(model).__name__} cannot be run on these inputs{why}. Pass inputs as the "
        "model is called."
    ) from error
