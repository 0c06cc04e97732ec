"""What a candidate is worth: its accuracy on data, and the engine that the compiler makes of it."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.compiling import compile as compile_onnx
from embedl_deploy.compiling.guarded import CompilerEndedError
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import CompileError
from embedl_deploy.sensitivity.evaluation import number_from
from embedl_deploy.sensitivity.layers import Layer
from embedl_deploy.sensitivity.partly import PartlyQuantized
from embedl_deploy.state_file import StateFile
from embedl_deploy.tuning.files import Files
from embedl_deploy.tuning.units import Points, by_layer
from embedl_deploy.verify import signal_to_noise
from embedl_deploy.verify.difference import float_tensors

#: What a model is called with.
Call = tuple[tuple[Any, ...], dict[str, Any]]


def key_of(points: Points) -> str:
    """A name for a set of points, the same in every process."""
    text = json.dumps(sorted((point.path, point.label, point.node) for point in points))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Accuracy:
    """Signal to noise of a candidate's outputs on samples, or the user's own measure.

    Args:
        model: A calibrated model with quantizers at all points.
        layers: Its layers.
        calls: What it is called with to measure.
        evaluate: The user's measure of a model.
        known: Values that were measured before, by :func:`key_of`; new ones are added.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        layers: Sequence[Layer],
        calls: Sequence[Call],
        evaluate: Callable[[nn.Module], float] | None,
        known: dict[str, str],
    ) -> None:
        self.model, self.layers, self.calls, self.evaluate, self.known = model, layers, calls, evaluate, known
        self._exact: list[list[torch.Tensor]] | None = None

    @torch.no_grad()
    def __call__(self, points: Points) -> float:
        """The value; more is better."""
        key = key_of(points)
        if key not in self.known:
            self.known[key] = str(self._measured(points))  # JSON has no infinity
        return float(self.known[key])

    def _measured(self, points: Points) -> float:
        candidate = PartlyQuantized(self.model, by_layer(self.layers, points)).eval()
        if self.evaluate is not None:
            value, of = self.evaluate(candidate), f"the model with {len(points)} points quantized"
            return number_from(value, "evaluate", of, infinite=True)
        if self._exact is None:
            exact = PartlyQuantized(self.model, {})
            self._exact = [float_tensors(exact(*args, **kwargs)) for args, kwargs in self.calls]
        return signal_to_noise(self._exact, [float_tensors(candidate(*args, **kwargs)) for args, kwargs in self.calls])


class Builds:
    """Builds engines of candidates, each once.

    Args:
        files: Files with quantizers.
        unquantized: The file with none.
        settings: Arguments of :func:`embedl_deploy.compile`.
        state: Where reports are kept.
        found: What the state holds; new reports are added.
    """

    def __init__(
        self, files: Files, unquantized: Path, settings: dict[str, Any], state: StateFile, found: dict[str, Any]
    ) -> None:
        self.files, self.unquantized, self.settings, self.state, self.found = files, unquantized, settings, state, found
        self.count = 0

    def __call__(self, points: Points) -> EngineReport | None:
        """The report of a candidate's engine; ``None`` if the compiler refuses it."""
        reports: dict[str, Any] = self.found.setdefault("reports", {})
        key = key_of(points)
        if key not in reports:
            self.count += 1
            reports[key] = self._built(points)
            self.state.save(self.found)
        plain = reports[key]
        return None if plain is None else EngineReport.from_dict(plain)

    def _built(self, points: Points) -> dict[str, Any] | None:
        with tempfile.TemporaryDirectory() as folder:
            path = self.unquantized
            if points:
                path = Path(folder) / "candidate.onnx"
                self.files.fitting(points).write(path, points)
            engine = Path(folder) / "candidate.engine"
            for may_repeat in (True, False):
                try:
                    return compile_onnx(path, engine, progress=False, **self.settings).report.to_dict()
                except CompileError as error:
                    # A crash may come from outside, such as a system out of memory; a refusal would come again.
                    if not (may_repeat and isinstance(error.__cause__, CompilerEndedError)):
                        return None
        return None


def worse(value: float, than: float) -> bool:
    """Whether an accuracy is below what has to hold; one that is not a number is."""
    return math.isnan(value) or value < than
