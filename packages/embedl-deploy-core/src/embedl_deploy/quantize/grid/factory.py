"""Creates the observer for a configuration."""

from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.grid.known_range import KnownRangeObserver
from embedl_deploy.quantize.grid.observers import HistogramObserver, Observer, RangeObserver, WeightObserver


def make_observer(config: TensorQuantConfig, name: str, *, is_weight: bool, amax: float | None = None) -> Observer:
    """The observer that a configuration asks for; ``amax`` is the largest magnitude where that is known beforehand."""
    if amax is not None:
        return KnownRangeObserver(config, name, amax)
    if is_weight:
        return WeightObserver(config, name)
    if config.calibration_method in (CalibrationMethod.MINMAX, CalibrationMethod.MOVING_AVERAGE):
        return RangeObserver(config, name)
    return HistogramObserver(config, name)
