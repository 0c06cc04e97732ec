"""What stays in float32, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch
from torch import fx

from embedl_deploy.errors import InputError
from embedl_deploy.page import render_page
from embedl_deploy.validation.checked import checked

#: Outputs that are as near as this are right: noise of a hundredth of the largest values.
GOOD_DB = 40.0
#: Where a graph module's ``meta`` has its report.
REPORT = "embedl_deploy.float32"
_LARGEST, _TINY = torch.finfo(torch.float16).max, torch.finfo(torch.float16).tiny


class Float16Limit(Enum):
    """What of float16 does not do.

    Attributes:
        LARGEST: A value is larger than 65504.
        SUM: What is summed up on the way is larger than 65504.
        STEP: Values are so small, or so close together, that its steps are too coarse.
        NEIGHBOUR: It reads, or gives, a value that only float32 holds.
    """

    LARGEST = "largest"
    SUM = "sum"
    STEP = "step"
    NEIGHBOUR = "neighbour"


@checked
@dataclass(frozen=True)
class Float32Node:
    """A part of the model that stays in float32.

    Attributes:
        node: Name of the graph's node.
        module: Path of the module, or of the module whose forward calls the function; empty for the model itself.
        operator: What computes the value that float16 does not hold, such as ``"mul"``.
        limit: What of float16 does not do.
        value: For ``LARGEST`` and ``SUM`` the largest magnitude that was seen; for ``STEP`` the signal to noise that
            float16 would leave of the values, in dB; for ``NEIGHBOUR`` 0.
    """

    node: str
    module: str
    operator: str
    limit: Float16Limit
    value: float

    @property
    def reason(self) -> str:
        """What float16 does not do, with the value, in words."""
        return {
            Float16Limit.LARGEST: f"reaches {self.value:.3g}; the largest float16 number is {_LARGEST:g}",
            Float16Limit.SUM: f"adds up to {self.value:.3g} on the way; the largest float16 number is {_LARGEST:g}",
            Float16Limit.STEP: f"would have {self.value:.1f} dB in float16, whose steps are too coarse for its values",
            Float16Limit.NEIGHBOUR: "reads or returns a value that only float32 can hold",
        }[self.limit]

    def __str__(self) -> str:
        where = f"{self.operator} in {self.module!r}" if self.module else f"{self.operator} ({self.node})"
        return f"{where} {self.reason}"


@checked
@dataclass(frozen=True)
class Float32Report:
    """The parts of a model that stay in float32 when it is converted to float16.

    Attributes:
        nodes: In the order of the graph.
        sqnr_before: Signal to noise of the outputs with everything in float16, in dB; minus infinity where an output
            is not finite.
        sqnr: The same with these nodes in float32.
    """

    nodes: tuple[Float32Node, ...]
    sqnr_before: float
    sqnr: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        nodes = [{**asdict(node), "limit": node.limit.value, "reason": node.reason} for node in self.nodes]
        return {"nodes": nodes, "sqnr_before": self.sqnr_before, "sqnr": self.sqnr}

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(float32=self)

    def __str__(self) -> str:
        if not self.nodes and not self.sqnr >= GOOD_DB:
            return f"Nothing stays in float32, since that would not help: {self.sqnr:.1f} dB in float16 on the data."
        if not self.nodes:
            return f"Everything fits into float16: {self.sqnr:.1f} dB on the data."
        lines = [f"{len(self.nodes)} node(s) stay in float32: {self.sqnr_before:.1f} → {self.sqnr:.1f} dB on the data"]
        return "\n".join([*lines, *(f"  {node}" for node in self.nodes)])


@checked
def float32_report(model: fx.GraphModule) -> Float32Report:
    """What :func:`keep_in_float32` kept in float32, and why.

    Args:
        model: What it returned.

    Raises:
        InputError: The model comes from elsewhere.
    """
    meta: Mapping[str, Any] = model.meta
    report = meta.get(REPORT)
    if not isinstance(report, Float32Report):
        raise InputError("The model has no report on float32: expected the model that keep_in_float32 returned.")
    return report
