"""The settings of a module of ``torch.nn``, in one form however they were written."""

from typing import Any

from torch import nn

from embedl_deploy.graph.forms.form import constructor_parameters

#: Settings that torch takes as one number for all dimensions, or one for each.
_PER_DIMENSION = frozenset(
    {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "size", "scale_factor"}
)


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The settings that a module of ``torch.nn`` was made with, the same however they were written.

    ``nn.MaxPool2d(2)`` keeps ``kernel_size`` as ``2``, and what torch.export makes of it has ``(2, 2)``. Here sizes are
    tuples with one number for each dimension of the class, and other sequences are tuples. The class ``nn.Upsample``
    does not say of how many dimensions it is: one number stands for sizes that are all equal, and ``align_corners`` is
    ``False`` where it is not given.

    Args:
        module: A module of ``torch.nn``, or of a subclass.

    Returns:
        By the names of the constructor's parameters, those that the module keeps; ``bias`` is a flag.
    """
    base = next((cls for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn")), nn.Module)
    dimensions = _dimensions(base)
    found: dict[str, Any] = {}
    for name in constructor_parameters(base):
        if not hasattr(module, name):
            continue
        value = getattr(module, name)
        if name == "bias":
            value = value is not None
        elif name == "align_corners":
            value = bool(value)
        elif name in _PER_DIMENSION and not isinstance(value, str):
            value = per_dimension(value, dimensions)
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def _dimensions(cls: type[nn.Module]) -> int | None:
    if issubclass(cls, (nn.Fold, nn.Unfold)):
        return 2
    digit = cls.__name__[-2:-1]
    return int(digit) if cls.__name__.endswith("d") and digit.isdecimal() else None


def per_dimension(value: Any, dimensions: int | None) -> Any:
    """A setting as a tuple of one number for each dimension; ``None`` stays, and one number where there is no count."""
    if value is None:
        return None
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if dimensions is None:
        return values[0] if len(set(values)) == 1 else values
    return values * dimensions if len(values) == 1 else values
