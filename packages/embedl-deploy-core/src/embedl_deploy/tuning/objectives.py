"""What a search makes smaller: a figure of an engine's report, or the time of its runs."""

from collections.abc import Callable
from dataclasses import dataclass

from embedl_deploy.backend import Backend
from embedl_deploy.engine import EngineReport, estimate
from embedl_deploy.errors import InputError
from embedl_deploy.tuning.builds import Built

#: A change that gains less than this share of a figure is not worth a decision; of a measured time, which varies.
_LEAST_GAIN, _LEAST_GAIN_OF_TIME = 1e-3, 0.02
_LATENCY = "latency"
_ESTIMATE = "estimate:"
_FIGURES: dict[str, Callable[[EngineReport], float]] = {
    "activation_bytes": lambda report: float(report.activation_bytes),
    "kernels": lambda report: float(report.kernels),
    "engine_bytes": lambda report: float(report.engine_bytes),
}


@dataclass(frozen=True)
class Objective:
    """What becomes smaller.

    Attributes:
        name: What it is called.
        figure: From the report of an engine to a number, of which less is better; ``None`` for the time of its runs.
    """

    name: str
    figure: Callable[[EngineReport], float] | None

    @property
    def is_time(self) -> bool:
        """Whether it is measured, and varies."""
        return self.figure is None

    @property
    def least_gain(self) -> float:
        """A change that gains less than this share is not worth a decision."""
        return _LEAST_GAIN_OF_TIME if self.is_time else _LEAST_GAIN

    def __call__(self, built: Built) -> float | None:
        """The value for an engine; in seconds for times."""
        return built.seconds if self.figure is None else self.figure(built.report)


def objective_of(asked: str | Callable[[EngineReport], float], backend: Backend) -> Objective:
    """The objective that is asked for.

    Args:
        asked: A name: ``"activation_bytes"``, ``"kernels"``, ``"engine_bytes"``, ``"latency"``, or ``"estimate:"`` with
            the name of one of the backend's devices; or a function.
        backend: Whose devices.

    Raises:
        InputError: There is no such objective.
    """
    if not isinstance(asked, str):
        return Objective(getattr(asked, "__name__", "objective"), asked)
    if asked == _LATENCY:
        return Objective(asked, None)
    if asked in _FIGURES:
        return Objective(asked, _FIGURES[asked])
    if asked.startswith(_ESTIMATE):
        name = asked.removeprefix(_ESTIMATE)
        device = next((device for device in backend.devices if device.name == name), None)
        if device is not None:
            return Objective(asked, lambda report: estimate(report, device).seconds)
        known = ", ".join(f"{_ESTIMATE}{device.name}" for device in backend.devices) or "none"
        raise InputError(f"objective is {asked!r}; backend {backend.name!r} estimates times for: {known}.")
    raise InputError(
        f"objective is {asked!r}; expected one of {', '.join(map(repr, (*_FIGURES, _LATENCY)))}, or "
        f"'{_ESTIMATE}DEVICE' for a lower bound of the run time, or a function of the engine's report."
    )
