"""The roofline estimate: the time of an engine if every kernel reached the device's peak rates.

The roofline model (Williams, Waterman and Patterson, 2009): a kernel takes at least the time to move its bytes and at
least the time to do its operations, whichever is longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from embedl_deploy.engine.layers import EngineLayer, LayerKind
from embedl_deploy.engine.report import EngineReport
from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class Device:
    """Peak rates of a piece of hardware.

    Attributes:
        name: What it is called.
        target: The compilation target that it runs.
        bandwidth: Bytes that its memory moves in a second.
        operations: Operations a second of its matrix units by element type, such as ``"float16"``; a multiplication
            and an addition count as two. Types that it lacks are left out.
        source: Where the figures are from.
    """

    name: str
    target: str
    bandwidth: float
    operations: Mapping[str, float]
    source: str


@checked
@dataclass(frozen=True)
class LayerEstimate:
    """The least time that a layer takes.

    Attributes:
        layer: The layer.
        seconds: The longer of the two.
        memory_seconds: To move its activations and constants.
        compute_seconds: To do its operations; 0 where the device has no rate for the type.
    """

    layer: EngineLayer
    memory_seconds: float
    compute_seconds: float

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.memory_seconds, self.compute_seconds)

    @property
    def is_memory_bound(self) -> bool:
        """Whether moving bytes takes longer than computing."""
        return self.memory_seconds >= self.compute_seconds


@checked
@dataclass(frozen=True)
class Estimate:
    """The least time that an engine takes on a device: a bound from peak rates, not a measurement.

    Attributes:
        report: The engine.
        device: The hardware.
        layers: In the order in which they run.
    """

    report: EngineReport
    device: Device
    layers: tuple[LayerEstimate, ...]

    @property
    def seconds(self) -> float:
        """The sum over all layers; launches and waiting are not in it."""
        return sum(layer.seconds for layer in self.layers)

    def __str__(self) -> str:
        memory = sum(layer.is_memory_bound for layer in self.layers)
        shapes = f" at {self.report.usual_shapes}" if self.report.usual_shapes else ""
        lines = [
            f"Estimate for {self.report.model} on {self.device.name}{shapes}: at least {self.seconds * 1e6:.0f} µs "
            f"(peak rates, not a measurement; {memory} of {len(self.layers)} kernels bound by memory)",
        ]
        for kind in LayerKind:
            of_kind = [layer for layer in self.layers if layer.layer.kind is kind]
            if of_kind:
                share = sum(layer.seconds for layer in of_kind) / self.seconds if self.seconds else 0.0
                lines.append(f"  {kind.value}: {len(of_kind)} kernels, {share:.0%} of the time")
        lines.append(f"  rates: {self.device.source}")
        return "\n".join(lines)


@checked
def estimate(report: EngineReport, device: Device) -> Estimate:
    """Estimate the least time that an engine takes.

    Args:
        report: The engine's report.
        device: Peak rates, such as a backend's list of devices has them (``get_backend(...).devices``).

    Raises:
        InputError: An argument is of another type.
    """
    if not isinstance(report, EngineReport):
        raise InputError(f"report is a {type(report).__name__}; expected an EngineReport, such as compile returns.")
    if not isinstance(device, Device):
        raise InputError(f"device is {device!r}; expected a Device, such as get_backend(...).devices holds.")
    rows = []
    for layer in (layer for layer in report.layers if layer.is_kernel):
        moved = layer.bytes_read + layer.bytes_written + layer.weight_bytes
        rate = device.operations.get(layer.precision)
        rows.append(LayerEstimate(layer, moved / device.bandwidth, layer.operations / rate if rate else 0.0))
    return Estimate(report, device, tuple(rows))
