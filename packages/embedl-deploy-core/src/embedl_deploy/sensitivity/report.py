"""The sensitivity report, as a table and as JSON."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from embedl_deploy.page import render_page
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer costs.

    All values are of the metric of the report.

    Attributes:
        path: The module.
        node: The node that calls it.
        module: Class of the module.
        group: The same for layers of equal structure, such as those of all blocks of a transformer.
        alone: With only this layer quantized.
        weight_alone: With only its weights quantized; ``None`` where that was not measured.
        activation_alone: With only its activations quantized; ``None`` where that was not measured.
        left_in_float: With everything but this layer quantized.
        share: Its share of the noise of all layers, 0 to 1.
    """

    path: str
    node: str
    module: str
    group: str
    alone: float
    weight_alone: float | None
    activation_alone: float | None
    left_in_float: float
    share: float


@checked
@dataclass(frozen=True)
class SensitivityReport:
    """What quantizing each layer of a model costs.

    Attributes:
        metric: ``"sqnr"`` in dB, more is better; ``"kl"`` in nats, less is better; or ``"evaluate"``, the user's own.
        quantized: The metric with everything quantized.
        layers: In graph order.
        batches: How many batches were measured; 0 for ``"evaluate"``, which has its own data.
        probes: How many random probes the values of the layers are means of.
    """

    metric: str
    quantized: float
    layers: tuple[LayerSensitivity, ...]
    batches: int = 0
    probes: int = 0

    @property
    def uncertainty(self) -> float:
        """Standard deviation of a layer's noise that comes from the number of probes, as a share of it.

        √(2/n) for n probes, if the error reaches the outputs with many components (Hutchinson 1989).
        """
        return math.sqrt(2 / self.probes) if self.probes else 0.0

    def ranking(self) -> tuple[LayerSensitivity, ...]:
        """The layers, those that cost most first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.share))

    def groups(self) -> dict[str, float]:
        """The share of the noise of each group of layers of equal structure, the largest first."""
        shares: dict[str, float] = {}
        for layer in self.layers:
            shares[layer.group] = shares.get(layer.group, 0.0) + layer.share
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; infinite ones as ``None``."""
        layers = [{name: _plain(value) for name, value in asdict(layer).items()} for layer in self.layers]
        return {
            "metric": self.metric,
            "quantized": _plain(self.quantized),
            "batches": self.batches,
            "layers": layers,
            "groups": self.groups(),
        }

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(sensitivity=self)

    def __str__(self) -> str:
        head = f"Sensitivity, {self.metric}: {self.quantized:.4g} with everything quantized"
        if self.probes:
            head += f"; {self.probes} probes, so the noise of a layer is known to ±{self.uncertainty:.0%}"
        titles = ("layer", "noise", "alone", "weight", "activation", "in float")
        rows = [titles, *map(_row, self.ranking())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
        return "\n".join((head, *(_line(row, widths) for row in rows)))


def _row(layer: LayerSensitivity) -> tuple[str, ...]:
    values = (layer.alone, layer.weight_alone, layer.activation_alone, layer.left_in_float)
    return (layer.path, f"{layer.share:.1%}", *("" if value is None else f"{value:.4g}" for value in values))


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join((first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
