"""Checks conditions on open sizes that torch cannot prove, by trying the allowed sizes.

``torch.export`` refuses a dimension with a name and limits if its own reasoning leaves a condition that it cannot
prove for all of them. ``min(16 * s + 16, 32 * s + 32) == 16 * s + 16``, which it makes of the strides of repeated keys,
is always true. Such a program is exported without names, where conditions are checked when the graph runs, and kept if
the limits are still those that were asked for and the conditions hold for sizes between them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from embedl_deploy.capture.closed_dimensions import inputs_of_program
from embedl_deploy.graph.open_dimensions import OpenDimensions

_UNPROVEN = "Constraints violated"
#: Where no upper limit was asked for, sizes are tried up to this.
_LARGE = 4099


def is_unproven(error: BaseException) -> bool:
    """Whether ``torch.export`` refuses named dimensions because of a condition that it cannot prove for all of them."""
    cause: BaseException | None = error
    while cause is not None:
        if _UNPROVEN in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def export_open(
    export: Callable[[Any], torch.export.ExportedProgram],
    opened: OpenDimensions,
    given: tuple[nn.Module, tuple[Any, ...], dict[str, Any]],
) -> torch.export.ExportedProgram:
    """The program of a model with open dimensions.

    Args:
        export: Makes it, with what ``torch.export`` takes as ``dynamic_shapes``. Whatever it raises is raised.
        opened: The dimensions.
        given: The model and its inputs.
    """
    try:
        return export(opened.for_export(*given))
    except Exception as error:
        if not is_unproven(error):
            raise
        program = export(opened.without_names().for_export(*given))
        if not _holds(program, opened.of_tensors(*given)):
            raise
        return program


def _holds(program: torch.export.ExportedProgram, asked: list[dict[int, Any]]) -> bool:
    """Whether the conditions of a program hold for the sizes that were asked for, as far as they are tried.

    A condition between sizes of two names, such as that of a mask and of a cache, is asked when the graph runs, as it
    is where ``torch.export`` takes the names.
    """
    values = [node.meta["val"] for node in inputs_of_program(program.graph, len(asked))]
    names: dict[Any, str] = {}
    limits: dict[str, tuple[int, int]] = {}
    environment: Any = None
    for value, dimensions in zip(values, asked, strict=True):
        for at, dim in dimensions.items():
            size = value.shape[at]
            symbols = list(size.node.expr.free_symbols) if isinstance(size, torch.SymInt) else []
            if len(symbols) != 1:
                return False
            symbol = symbols[0]
            dim = getattr(dim, "root", dim)  # of one that is computed from another
            environment = size.node.shape_env
            range_ = environment.var_to_range.get(symbol, None)
            if range_ is None:
                return False
            is_named = isinstance(dim, torch.export.Dim)
            low, high = (dim.min, dim.max) if is_named else (range_.lower, range_.upper)
            if is_named and (int(range_.lower) > max(int(low), 2) or range_.upper < high):
                return False
            names[symbol] = str(dim.__name__) if is_named else str(symbol)
            limits[names[symbol]] = max(int(low), 2), int(min(high, _LARGE))
    for guard in environment.guards:
        inside = {symbol: names[symbol] for symbol in guard.expr.free_symbols if symbol in names}
        if len(set(inside.values())) == 1 and len(inside) == len(guard.expr.free_symbols):
            low, high = limits[next(iter(inside.values()))]
            tried = {low, min(low + 1, high), (low + high) // 2, high}
            if any(guard.expr.xreplace(dict.fromkeys(inside, size)) == False for size in tried):  # noqa: E712
                return False
    return True
