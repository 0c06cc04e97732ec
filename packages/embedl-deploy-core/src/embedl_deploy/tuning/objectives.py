"""What a search makes smaller, read from the compiler's report of an engine."""

from collections.abc import Callable

from embedl_deploy.backend import Backend
from embedl_deploy.engine import EngineReport, estimate
from embedl_deploy.errors import InputError

#: From the report of an engine to a number, of which less is better.
Objective = Callable[[EngineReport], float]

_OBJECTIVES: dict[str, Objective] = {
    "activation_bytes": lambda report: float(report.activation_bytes),
    "kernels": lambda report: float(report.kernels),
    "engine_bytes": lambda report: float(report.engine_bytes),
}
_ESTIMATE = "estimate:"


def objective_of(asked: str | Objective, backend: Backend) -> tuple[str, Objective]:
    """The name of an objective, and the objective.

    Args:
        asked: A name: ``"activation_bytes"``, ``"kernels"``, ``"engine_bytes"``, or ``"estimate:"`` with the name of
            one of the backend's devices; or a function.
        backend: Whose devices.

    Raises:
        InputError: There is no such objective.
    """
    if not isinstance(asked, str):
        return getattr(asked, "__name__", "objective"), asked
    if asked in _OBJECTIVES:
        return asked, _OBJECTIVES[asked]
    if asked.startswith(_ESTIMATE):
        name = asked.removeprefix(_ESTIMATE)
        device = next((device for device in backend.devices if device.name == name), None)
        if device is not None:
            return asked, lambda report: estimate(report, device).seconds
        known = ", ".join(f"{_ESTIMATE}{device.name}" for device in backend.devices) or "none"
        raise InputError(f"objective is {asked!r}; backend {backend.name!r} estimates times for: {known}.")
    raise InputError(
        f"objective is {asked!r}; expected one of {', '.join(map(repr, _OBJECTIVES))}, or '{_ESTIMATE}DEVICE' for a "
        "lower bound of the run time, or a function of the engine's report."
    )
