"""The exported files that candidates are made of: one, or one more for each form that float modules have.

A module that computes something on its way, such as the softmax of an attention, is written in operators where that is
quantized, and may be one function where it is not. So a file is exported for each set of such modules in float.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import fx, nn

from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.lookup import submodule
from embedl_deploy.modules import QuantStub
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.tuning.placed_file import PlacedFile
from embedl_deploy.tuning.units import Points, Unit


class Files:
    """Files with quantizers, each exported when it is needed first.

    Args:
        model: A calibrated model with quantizers at all points.
        units: What is switched.
        others: Calibrated quantizers of points in other formats.
        folder: Where files go.
        export: Writes a model to a path.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        units: Sequence[Unit],
        others: Mapping[PointReport, nn.Module],
        folder: Path,
        export: Callable[[fx.GraphModule, Path], object],
    ) -> None:
        self.model, self.others, self.folder, self.export = model, others, folder, export
        self.points = frozenset[PointReport]().union(*(unit.points for unit in units))
        self.computing = [unit for unit in units if any(point.kind is PointKind.INNER for point in unit.points)]
        self._files: dict[frozenset[str], PlacedFile] = {}

    def fitting(self, points: Points) -> PlacedFile:
        """The file that a candidate is made of."""
        off = [unit for unit in self.computing if not unit.every & points]
        form = frozenset(unit.name for unit in off)
        if form not in self._files:
            path = self.folder / f"form_{len(self._files)}.onnx"
            self.export(self._in_float(off), path)
            self._files[form] = PlacedFile(path, self.points, self.others)
        return self._files[form]

    def _in_float(self, units: Sequence[Unit]) -> fx.GraphModule:
        """The model without the quantizers inside the modules of some units."""
        if not units:
            return self.model
        copied = deep_copy(self.model)
        for unit in units:
            for point in unit.points:
                stub = submodule(copied, point.stub)
                if point.stub.startswith(f"{point.path}.") and isinstance(stub, QuantStub):
                    stub.quantizer = None
        return copied
