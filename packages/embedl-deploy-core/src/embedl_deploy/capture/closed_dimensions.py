"""Finds the line of the model's code that fixes a dimension which should be open."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from embedl_deploy.capture.user_code import running_line
from embedl_deploy.errors import CaptureError
from embedl_deploy.logs import quiet

#: ``graph_module.meta`` entry: the dimensions that the model's code closed, in words.
CLOSED_DIMENSIONS = "embedl_deploy_closed_dimensions"
_LOGGER = "torch.fx.experimental.symbolic_shapes"


class ClosingLines(logging.Filter):
    """Hears what ``torch.export`` logs where it decides something about sizes, and notes the line that is running.

    As a filter of its logger: so nothing of it, up to warnings, reaches the user's terminal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._symbols: list[str] = []
        self._decided: list[tuple[str, str]] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Let errors through."""
        said = str(record.msg)
        if said.startswith("create_symbol %s = ") and record.args:
            self._symbols.append(str(record.args[0]))  # type: ignore[index]  # a dictionary in no message of theirs
        elif "[guard added]" in said:
            line, code = running_line()
            self._decided.append((str(record.args), f"{line} ({code})" if line else ""))
        return record.levelno >= logging.ERROR

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block."""
        logger = logging.getLogger(_LOGGER)
        with quiet(_LOGGER, below=logging.INFO):
            logger.addFilter(self)
            try:
                yield
            finally:
                logger.removeFilter(self)

    def all(self) -> list[str]:
        """Every line at which something about sizes was decided."""
        return list(dict.fromkeys(line for _, line in self._decided if line))

    def line_of(self, number: int) -> str:
        """Where the size that torch named as its ``number``-th became a number; empty if that is not known."""
        if number >= len(self._symbols):
            return ""
        of_symbol = re.compile(rf"\b{re.escape(self._symbols[number])}\b")
        return next((line for text, line in self._decided if line and of_symbol.search(text)), "")


@dataclass(frozen=True)
class Closed:
    """A dimension that was to be open and is not.

    Attributes:
        name: The input's placeholder.
        dimension: Which one.
        size: What it is fixed to.
        place: Which of the values of all inputs has it.
        line: Where the model's code needs it as a number; empty if that is not known.
    """

    name: str
    dimension: int
    size: int
    place: int
    line: str

    def __str__(self) -> str:
        where = f", at {self.line}" if self.line else ""
        return f"dimension {self.dimension} of {self.name} is fixed to {self.size}{where}"


def inputs_of_program(graph: fx.Graph, count: int) -> list[fx.Node]:
    """The placeholders of a program's inputs, the last of all: parameters and buffers come before them."""
    placeholders = list(graph.find_nodes(op="placeholder"))
    return placeholders[len(placeholders) - count :]


def closed_dimensions(graph: fx.Graph, asked: Sequence[dict[int, Any]], lines: ClosingLines) -> list[Closed]:
    """Those that ``torch.export`` has made numbers.

    Args:
        graph: That of the exported program.
        asked: For each value of the inputs, the dimensions that were to be open.
        lines: What was heard meanwhile.
    """
    closed, number = [], 0
    for place, (node, shape) in enumerate(zip(inputs_of_program(graph, len(asked)), asked, strict=True)):
        for at in sorted(shape):  # torch names them in this order
            size = node.meta["val"].shape[at]
            size = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else size
            if size is not None:
                closed.append(Closed(str(node.name), at, size, place, lines.line_of(number)))
            number += 1
    return closed


def refuse_other_sizes(closed: Iterable[Closed], inputs: Any) -> None:
    """Refuse a graph that is fixed to other sizes than those of the inputs, two where they had one.

    Raises:
        CaptureError: It is.
    """
    leaves = pytree.tree_leaves(inputs)
    for one in closed:
        if leaves[one.place].shape[one.dimension] != one.size:
            raise CaptureError(str(replace(one, size=leaves[one.place].shape[one.dimension])))
