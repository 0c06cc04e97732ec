"""A transformed model with everything that candidates of it are made of."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch import fx, nn

from embedl_deploy.artifact import read_onnx
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import QuantizationError
from embedl_deploy.export import OnnxExport
from embedl_deploy.graph.fingerprint import fingerprint
from embedl_deploy.graph.lookup import submodule
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.api import quantize
from embedl_deploy.quantize.placing.placement import decide_for
from embedl_deploy.quantize.reporting.report import PointReport, quantization_report
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.tuning.accuracy import Accuracy, key_of
from embedl_deploy.tuning.builds import Built
from embedl_deploy.tuning.file_digest import digest_of
from embedl_deploy.tuning.files import Files
from embedl_deploy.tuning.task import Task
from embedl_deploy.tuning.units import Points, Unit, name_of, place_of, units_of

if TYPE_CHECKING:
    import onnx_ir as ir


class Subject:
    """The model that one plan makes, quantized at all points in each format, with what is known of its candidates.

    Args:
        result: The transformed model, in float32.
        quantized: The same with quantizers at all points, calibrated.
        task: What the search is about.

    Attributes:
        values: Objective and accuracy of the candidates that were tried, by :func:`key_of`.
    """

    def __init__(self, result: TransformationResult, quantized: fx.GraphModule, task: Task) -> None:
        self.result, self.quantized, self.task = result, quantized, task
        self.values: dict[str, tuple[float, float]] = {}
        self.report = quantization_report(quantized)
        self.layers = layers_of(quantized, self.report)
        self.name = fingerprint(result.model)[:20]
        self.folder = task.folder / self.name
        self.folder.mkdir(exist_ok=True)
        self.configs: dict[str, QuantConfig] = {}
        self._arrange({}, {})

    def _arrange(self, others: Mapping[str, Points], quantizers: Mapping[PointReport, nn.Module]) -> None:
        self.units: list[Unit] = units_of(self.layers, others)
        measured = self.task.found.setdefault("accuracy", {}) if self.task.evaluate is None else {}
        known = measured.setdefault(self.name, {})
        evaluate = self.task.evaluate
        self.accuracy = Accuracy(self.quantized, self.layers, quantizers, self.task.calls, evaluate, known)
        self.files = Files(self.quantized, self.units, quantizers, self.folder, self.task.export)

    def add_formats(self, configs: Mapping[str, QuantConfig]) -> None:
        """Calibrate the model in further formats, whose points may take the place of its own.

        Args:
            configs: A configuration for each format, by the format's name.
        """
        others: dict[str, Points] = {}
        quantizers: dict[PointReport, nn.Module] = {}
        for name, config in configs.items():
            try:
                model = quantize(self.result, self.task.data, config, progress=self.task.progress)
            except QuantizationError:  # the hardware has no place for the format in this model
                continue
            points = quantization_report(model).quantized
            others[name] = frozenset(points)
            for point in points:
                quantizers[point] = getattr(submodule(model, point.stub), "quantizer")  # noqa: B009 - any module
        self.configs = dict(configs)
        self._arrange(others, quantizers)

    @cached_property
    def unquantized(self) -> OnnxExport:
        """The export of the model in float."""
        return self.task.export(self.result.model, self.folder / f"{self.task.float_name}.onnx")

    @cached_property
    def digest(self) -> str:
        """Of the file of the model in float."""
        return digest_of(read_onnx(self.unquantized.path))

    def engine(self, points: Points) -> Built | None:
        """A candidate's engine; ``None`` if the compiler refuses it."""
        return self.task.builds.built(self.key(points), lambda: self.file(points))

    def key(self, points: Points) -> str:
        """What a candidate's engine is known by, in every run."""
        return f"{self.name} {key_of(points)}"

    def file(self, points: Points) -> "ir.Model":
        """A candidate's file."""
        placed = self.files.fitting(points).placed(points) if points else read_onnx(self.unquantized.path)
        return self.task.finished(placed)

    def starts(self) -> dict[str, Points]:
        """Nothing quantized, everything, and what each policy of the backend quantizes, in each format."""
        own = frozenset(self.report.quantized)
        starts = {self.task.float_name: Points(), "everything": own}
        policies = {name: replace(self.task.config, policy=name) for name in self.task.backend.policies}
        if self.task.config.policy is not None and not isinstance(self.task.config.policy, str):
            policies["the given policy"] = self.task.config
        for name, config in policies.items():
            starts[name] = self._wanted(config, own)
        for name, config in self.configs.items():
            points = Points().union(*(unit.others.get(name, Points()) for unit in self.units))
            starts[f"everything in {name}"] = points
            for policy in self.task.backend.policies:
                starts[f"{policy} in {name}"] = self._wanted(replace(config, policy=policy), points)
        unlike: dict[Points, str] = {}
        for name, points in starts.items():
            unlike.setdefault(points, name)
        return {name: points for points, name in unlike.items()}

    def _wanted(self, config: QuantConfig, among: Points) -> Points:
        decisions, _ = decide_for(self.result.model, self.result.matches, config)
        wanted = {(each.point.path, each.point.label) for each in decisions if each.config is not None}
        return frozenset(point for point in among if (point.path, point.label) in wanted)

    def translated(self, points: Points) -> Points:
        """A candidate of another plan's model, as far as there are the same points here.

        Args:
            points: Its points, in their formats.
        """
        here = {(place_of(point)[:2], name_of(point)): point for unit in self.units for point in unit.every}
        asked = ((place_of(point)[:2], name_of(point)) for point in points)
        return frozenset(here[key] for key in asked if key in here)

    def is_consistent(self, points: Points) -> bool:
        """Whether no output that is quantized is read in another format, for which it would be rounded twice."""
        stubs = {place_of(point): point.stub for point in self.report.quantized}
        outputs = {stubs[place_of(point)]: name_of(point) for point in points if point.kind is PointKind.OUTPUT}
        found = ((stubs[place_of(point)], name_of(point)) for point in points)
        return all(outputs.get(stub, name) == name for stub, name in found)

    def by_bytes(self, points: Points) -> list[Unit]:
        """The units, those whose modules move most in a candidate's engine first."""
        built = self.engine(points)
        if built is None:
            return list(self.units)
        return sorted(self.units, key=lambda unit: -_bytes_of(unit, built.report))

    def value(self, points: Points) -> tuple[float, float]:
        """Objective and accuracy of a candidate; not a number where it was not tried."""
        return self.values.get(key_of(points), (math.nan, math.nan))


def _bytes_of(unit: Unit, report: EngineReport) -> int:
    paths = {point.path for point in unit.points}
    return sum(layer.bytes_read + layer.bytes_written for path in paths for layer in report.layers_of(path))
