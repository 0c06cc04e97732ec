"""The accuracy of a candidate on data."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.evaluation import number_from
from embedl_deploy.sensitivity.layers import Layer
from embedl_deploy.sensitivity.partly import PartlyQuantized
from embedl_deploy.sensitivity.with_points import with_points
from embedl_deploy.tuning.units import Points, by_layer
from embedl_deploy.verify import signal_to_noise
from embedl_deploy.verify.difference import float_tensors

#: What a model is called with.
Call = tuple[tuple[Any, ...], dict[str, Any]]


def key_of(points: Points) -> str:
    """A name for a set of points in their formats, the same in every process."""
    text = json.dumps(sorted((point.path, point.label, point.node, point.config) for point in points))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def worse(value: float, than: float) -> bool:
    """Whether an accuracy is below what has to hold; one that is not a number is."""
    return math.isnan(value) or value < than


class Accuracy:
    """Signal to noise of a candidate's outputs on samples, or the user's own measure.

    Args:
        model: A calibrated model with quantizers at all points.
        layers: Its layers.
        others: Calibrated quantizers of points in other formats.
        calls: What it is called with to measure.
        evaluate: The user's measure of a model.
        known: Values that were measured before, by :func:`key_of`; new ones are added.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        layers: Sequence[Layer],
        others: Mapping[PointReport, nn.Module],
        calls: Sequence[Call],
        evaluate: Callable[[nn.Module], float] | None,
        known: dict[str, str],
    ) -> None:
        self.model, self.layers, self.others, self.calls = model, layers, others, calls
        self.evaluate, self.known = evaluate, known
        self._exact: list[list[torch.Tensor]] | None = None

    @torch.no_grad()
    def __call__(self, points: Points) -> float:
        """The value; more is better."""
        key = key_of(points)
        if key not in self.known:
            self.known[key] = str(self._measured(points))  # JSON has no infinity
        return float(self.known[key])

    def _measured(self, points: Points) -> float:
        of_layers = by_layer(self.layers, points)
        if self.evaluate is not None:
            value = self.evaluate(with_points(self.model, of_layers, self.others))
            of = f"the model with {len(points)} points quantized"
            return number_from(value, "evaluate", of, infinite=True)
        candidate = PartlyQuantized(self.model, of_layers, self.others).eval()
        if self._exact is None:
            exact = PartlyQuantized(self.model, {})
            self._exact = [float_tensors(exact(*args, **kwargs)) for args, kwargs in self.calls]
        return signal_to_noise(self._exact, [float_tensors(candidate(*args, **kwargs)) for args, kwargs in self.calls])
