"""Which dimensions of a model's inputs may be of any size, in whatever form they were given.

``torch.export`` takes them as a structure like that of the inputs. Here they go by the name of the input and the place
of the tensor in it, so that inputs may be given by position once and by keyword the next time.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.graph.derived_sizes import DerivedSize, root_of, upper_limit
from embedl_deploy.graph.dynamic_shapes import Dimensions, dimensions_of
from embedl_deploy.validation.quoting import quoted

#: ``graph_module.meta`` entry of the :class:`OpenDimensions` that the user asked for.
OPEN_DIMENSIONS = "embedl_deploy_open_dimensions"


@dataclass(frozen=True)
class OpenDimensions:
    """Dimensions that may be of any size.

    Attributes:
        by_input: For each input, and each value in it in the order of ``torch.utils._pytree``, what ``torch.export``
            takes for its dimensions; empty for what is not a tensor, or has fixed ones.
    """

    by_input: Mapping[str, tuple[Dimensions, ...]]

    @staticmethod
    def asked(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> "OpenDimensions":
        """Those that a user gives in the notation of ``torch.export``; inputs that are not named are fixed.

        Raises:
            InputError: They do not fit the inputs.
        """
        inputs = named_inputs(model, args, kwargs)
        if isinstance(dynamic_shapes, torch.export.ShapesCollection):
            dynamic_shapes = dynamic_shapes.dynamic_shapes(model, args, kwargs)  # type: ignore[no-untyped-call]
        if isinstance(dynamic_shapes, (tuple, list)):
            if len(dynamic_shapes) > len(inputs):
                raise InputError(
                    f"dynamic_shapes has {len(dynamic_shapes)} entries, and there are the inputs {', '.join(inputs)}."
                )
            dynamic_shapes = dict(zip(inputs, dynamic_shapes, strict=False))
        if not isinstance(dynamic_shapes, dict):
            raise InputError(
                f"dynamic_shapes is {quoted(dynamic_shapes)}; expected what torch.export takes: a dictionary from "
                "input names to dimensions, such as {'x': {0: torch.export.Dim('batch')}}, or a tuple in their order."
            )
        dynamic_shapes = dict(dynamic_shapes)
        for name, parameter in inspect.signature(model.forward).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD and name not in inputs:
                dynamic_shapes |= dynamic_shapes.pop(name, None) or {}  # as torch.export writes them
        unknown = [str(name) for name in dynamic_shapes if name not in inputs]
        if unknown:
            raise InputError(
                f"dynamic_shapes names {', '.join(map(repr, unknown))}; the inputs are {', '.join(map(repr, inputs))}."
            )
        return OpenDimensions(
            {name: tuple(dimensions_of(f"{name!r}", inputs[name], shape)) for name, shape in dynamic_shapes.items()}
        )

    @staticmethod
    def first_of_all(
        model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dim: Any = torch.export.Dim.AUTO
    ) -> "OpenDimensions":
        """Dimension 0 of every tensor, by default as far as the model leaves it open.

        Beside a batch of several, a size of one is not a batch: a mask, a scale or positions that all samples share.
        """
        given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim() > 0]
        smallest = 2 if any(x.shape[0] > 1 for x in given) else 0

        def first(value: Any) -> Dimensions:
            is_batch = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] >= smallest
            return {0: dim} if is_batch else {}

        inputs = named_inputs(model, args, kwargs)
        return OpenDimensions({name: tuple(map(first, pytree.tree_leaves(value))) for name, value in inputs.items()})

    def __bool__(self) -> bool:
        return any(any(values) for values in self.by_input.values())

    def storable(self) -> "OpenDimensions":
        """The same with sizes that are computed from others (``32 * height``) as what Python can pickle."""
        return self._with_each(lambda dim: dim if root_of(dim) is dim else DerivedSize.of(dim))

    def restored(self) -> "OpenDimensions":
        """From what :meth:`storable` gave, what ``torch.export`` takes."""
        return self._with_each(lambda dim: dim.dim() if isinstance(dim, DerivedSize) else dim)

    @property
    def is_mixed(self) -> bool:
        """Whether some are named and others are not, as sizes are that were computed from named ones."""
        dims = [dim for tensors in self.by_input.values() for value in tensors for dim in value.values()]
        return 0 < sum(type(dim) is torch.export.Dim for dim in dims) < len(dims)

    def without_names(self) -> "OpenDimensions":
        """The same dimensions within the same limits, each by itself, where the model leaves them open."""

        def unnamed(dim: Any) -> Any:
            if type(dim) is not torch.export.Dim:
                return dim
            return torch.export.Dim.AUTO(min=int(dim.min), max=upper_limit(dim.max))

        return self._with_each(unnamed)

    def _with_each(self, change: Callable[[Any], Any]) -> "OpenDimensions":
        return OpenDimensions(
            {
                name: tuple({at: change(dim) for at, dim in value.items()} for value in values)
                for name, values in self.by_input.items()
            }
        )

    def with_more(self, other: "OpenDimensions") -> "OpenDimensions":
        """These and others, which win where both name a dimension."""
        found = dict(self.by_input)
        for name, values in other.by_input.items():
            before = found.get(name, ({},) * len(values))
            found[name] = tuple({**a, **b} for a, b in zip(before, values, strict=True))
        return OpenDimensions(found)

    def varying_together(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, list[Dimensions]]:
        """By name, those that follow one size, for each value of the inputs; those without a name by their place.

        What is computed from a size (``2 * h``) follows that one; :func:`size_where` tells how.
        """

        def name_of(at: int, dim: Any) -> str:
            named = root_of(dim)
            return str(named.__name__) if isinstance(named, torch.export.Dim) else f"dimension {at}"

        found = self.of_tensors(model, args, kwargs)
        names = dict.fromkeys(name_of(at, dim) for dims in found for at, dim in dims.items())
        return {
            name: [{at: dim for at, dim in dims.items() if name_of(at, dim) == name} for dims in found]
            for name in names
        }

    def of_tensors(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Dimensions]:
        """The dimensions of each value of ``(args, kwargs)``, in the order of its leaves."""
        leaves = pytree.tree_leaves((args, kwargs))
        if not self:
            return [{} for _ in leaves]
        by_value: dict[int, Dimensions] = {}
        for name, value in named_inputs(model, args, kwargs).items():
            found = zip(pytree.tree_leaves(value), self.by_input.get(name, ()), strict=False)
            by_value.update((id(leaf), shape) for leaf, shape in found if shape)
        return [by_value.get(id(leaf), {}) for leaf in leaves]

    def for_export(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What to give to ``torch.export`` as ``dynamic_shapes``; ``None`` if all is fixed."""
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        leaves = pytree.tree_leaves((args, kwargs))
        for value, found in zip(leaves, self.of_tensors(model, args, kwargs), strict=True):
            if isinstance(value, torch.Tensor):
                shapes[value] = found  # also if empty: torch.onnx takes a tuple with None in it for a tensor's sizes
        return shapes.dynamic_shapes(model, args, kwargs) if self else None

    def without_ones(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs for ``torch.export``, with two in place of one in open dimensions: it takes one for a constant.

        It notes on a tensor which dimensions are open, so the user's own are kept from it.
        """
        leaves, structure = pytree.tree_flatten((args, kwargs))
        found = self.of_tensors(model, args, kwargs)
        given: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(
            [_without_ones(value, shape) for value, shape in zip(leaves, found, strict=True)], structure
        )
        return given


def _without_ones(value: Any, shape: Dimensions) -> Any:
    wide = [at for at in shape if value.shape[at] == 1]
    for at in wide:
        value = torch.cat([value, value], at)  # of the same memory format
    return value.detach().requires_grad_(value.requires_grad) if shape else value


def named_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Inputs by the names that the model's ``forward`` has for them; those of ``**kwargs`` by their own."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{type(model).__name__} does not take these inputs: {error}.") from error
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return found


def open_dimensions_of(model: nn.Module) -> OpenDimensions | None:
    """Those that the user asked for when a graph was captured."""
    found = model.meta.get(OPEN_DIMENSIONS) if isinstance(model, fx.GraphModule) else None
    return found.restored() if isinstance(found, OpenDimensions) else None
