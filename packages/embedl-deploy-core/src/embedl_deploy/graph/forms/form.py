"""What a form is: which calls equal a module of a class, and how that module is made."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.validation.checked import checked


class NoModuleFormError(Exception):
    """No module computes what this call computes: a setting has no counterpart, or is known at run time only."""


@checked
@dataclass(frozen=True)
class Call:
    """A call of a function or method, as a form's builder reads it.

    Attributes:
        operation: The name of what is called, as :func:`embedl_deploy.graph.operation` gives it.
        values: The arguments by name, defaults included. Parameters and buffers of the model are tensors; what flows
            in, or is computed on the way, is a node.
        defaults: The defaults of those that have one.
        shape: Shape of the first input, where it is known.
        rank: Its number of dimensions, where that is known; also without a shape, after a convolution.
        in_place: Whether the call is spelled as one that overwrites its first input.
        dtype: Type of the first input, where it is known.
    """

    operation: str
    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    rank: int | None = None
    in_place: bool = False
    dtype: torch.dtype | None = None

    @checked
    def setting(self, name: str, default: Any = None) -> Any:
        """An argument that is known without running the model; sizes are tuples, however they were written.

        Raises:
            NoModuleFormError: It is computed on the way.
        """
        value = self.values.get(name, default)
        found: list[fx.Node] = []
        fx.map_arg(value, found.append)
        if found or isinstance(value, torch.Tensor):
            raise NoModuleFormError(name)
        return tuple(value) if isinstance(value, (list, tuple)) else value

    @checked
    def tensor(self, name: str, rank: int | None = None) -> torch.Tensor | None:
        """A parameter or buffer of the model, or ``None`` if the call has none of that name.

        Raises:
            NoModuleFormError: It is computed on the way, or has another number of dimensions than ``rank``.
        """
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, torch.Tensor) or (rank is not None and value.dim() != rank):
            raise NoModuleFormError(name)
        return value

    @checked
    def parameter(self, name: str, rank: int) -> torch.Tensor:
        """A parameter or buffer that the call must have.

        Raises:
            NoModuleFormError: It has none, or one of another number of dimensions.
        """
        tensor = self.tensor(name, rank)
        if tensor is None:
            raise NoModuleFormError(name)
        return tensor

    @checked
    def require_defaults(self, *names: str) -> None:
        """Go on only if these arguments are not given, or given as their defaults.

        Raises:
            NoModuleFormError: One is.
        """
        for name in names:
            if name in self.values and self.setting(name) != self.defaults.get(name):
                raise NoModuleFormError(name)


@dataclass(frozen=True)
class Form:
    """Calls that equal a module.

    Attributes:
        operations: Names of the operations, as :func:`embedl_deploy.graph.operation` gives them, or functions from
            outside torch themselves.
        module_class: The class of the module, or a base of the classes that it may be.
        build: Makes the module. It raises :class:`NoModuleFormError` where no module computes the same.
        inputs: Names of the arguments that flow in, in the order in which the module takes them. Everything else
            belongs to the module.
    """

    operations: tuple[Any, ...]
    module_class: type[nn.Module]
    build: Callable[[Call], nn.Module]
    inputs: tuple[str, ...] = ("input",)


def constructor_parameters(module_class: type[nn.Module]) -> tuple[str, ...]:
    """Names of the settings that a class of ``torch.nn`` is made with."""
    constructor: Any = module_class.__init__
    names = list(inspect.signature(constructor).parameters)[1:]
    return tuple(name for name in names if name not in ("device", "dtype", "args", "kwargs"))


def from_constructor(
    module_class: type[nn.Module],
    *operations: str,
    inputs: tuple[str, ...] = ("input",),
    ignored: Iterable[str] = (),
) -> Form:
    """A form whose arguments have the names that the module's constructor has for them.

    Arguments that the constructor does not know must be left at their defaults, except those in ``ignored``.
    """
    names = constructor_parameters(module_class)
    expected = {*names, *inputs, *ignored}

    def build(call: Call) -> nn.Module:
        settings = {name: call.setting(name) for name in names if name in call.values}
        if "stride" in settings:
            settings["stride"] = settings["stride"] or None  # () and None both mean "as the kernel"
        if "inplace" in names and call.in_place:
            settings["inplace"] = True
        call.require_defaults(*(name for name in call.values if name not in expected))
        return module_class(**settings)

    return Form(operations, module_class, build, inputs)


def set_tensor(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    """Make ``tensor`` the module's parameter or buffer ``name``, without copying it."""
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    if tensor is None or isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)
