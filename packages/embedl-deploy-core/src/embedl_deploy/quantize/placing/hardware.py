"""The backend's quantization settings: number formats and policies."""

from dataclasses import dataclass

from embedl_deploy.backend import Backend, Contribution, get_backend
from embedl_deploy.backend.loader.joined_policy import JoinedPolicy, PolicyPart
from embedl_deploy.errors import (
    PLUGIN_FAILURES,
    EmbedlDeployError,
    InputError,
    PluginError,
    QuantizationConfigError,
    QuantizationError,
)
from embedl_deploy.numerics.config import ModulesToSkip, QuantConfig
from embedl_deploy.numerics.points import QuantPoint, QuantPolicy
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.reporting.causes import PointCause, WhyPoint
from embedl_deploy.validation.checked import checked

_INT8 = QuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True), ModulesToSkip(), (), {})


@checked
def default_config(transformed_for: str | Backend | None) -> QuantConfig:
    """The configuration that :func:`quantize` uses by default: the formats of a backend's hardware.

    Args:
        transformed_for: A backend or its name; ``None`` for no backend.

    Returns:
        What the backend's hook ``embedl_deploy_quantization_config`` gives, with INT8 where that leaves a format open.

    Raises:
        BackendError: The backend cannot be loaded, or gives something else.
    """
    if isinstance(transformed_for, str):
        transformed_for = get_backend(transformed_for)
    given = None if transformed_for is None else transformed_for.quantization_config()
    return _INT8 if given is None else given.completed_by(_INT8)


def complete_config(config: QuantConfig | None, transformed_for: str | None) -> QuantConfig:
    """A configuration in which what was left out is that of the hardware.

    Args:
        config: What was given, if anything was.
        transformed_for: The backend that the model was transformed for, if it was for one.

    Raises:
        InputError: ``config`` is something else.
        BackendError: The backend cannot be loaded, or its own configuration is none.
    """
    config = QuantConfig() if config is None else config
    if not isinstance(config, QuantConfig):
        raise InputError(f"config is {config!r}; expected a QuantConfig.")
    if config.left_out <= {"backend"}:
        return config
    return config.completed_by(default_config(config.backend or transformed_for))


@dataclass(frozen=True)
class ChosenPolicy:
    """The policy that is asked.

    Attributes:
        name: Its name, for people.
        function: The policy itself; ``None`` where there is none, and nothing is objected to.
        owner: Who ships it; ``None`` for a user's own function, and for one that several plugins give.
    """

    name: str
    function: QuantPolicy | None
    owner: Contribution | None = None

    def objection(self, point: QuantPoint) -> PointCause | None:
        """Why nothing should be quantized at a point; the words of an extension come with its distribution.

        Raises:
            PluginError: It fails, or answers with something that is not a reason, and is a plugin's.
            QuantizationError: The same, of a user's own function.
        """
        parts: list[tuple[QuantPolicy, Contribution | PolicyPart | None]]
        if isinstance(self.function, JoinedPolicy):
            parts = [(part.function, part) for part in self.function.parts]
        else:
            parts = [] if self.function is None else [(self.function, self.owner)]
        for function, owner in parts:
            reason = self._answer(function, owner, point)
            if reason is not None:
                told = owner is not None and (len(parts) > 1 or "." in owner.plugin)
                shipped = f" (from {owner.origin})" if owner is not None and told else ""
                return PointCause(WhyPoint.POLICY, f"{self.name}{shipped}", reason)
        return None

    def _answer(self, function: QuantPolicy, owner: Contribution | PolicyPart | None, point: QuantPoint) -> str | None:
        try:
            reason: object = function(point)
        except PLUGIN_FAILURES as error:  # a policy of a plugin or a user may raise anything
            raise self._failure(owner, f"fails at {point}: {type(error).__name__}: {error}") from error
        if reason is None or (isinstance(reason, str) and reason.strip()):
            return reason
        raise self._failure(owner, f"returned {reason!r} at {point}; expected a reason in words, or None.")

    def _failure(self, owner: Contribution | PolicyPart | None, what: str) -> EmbedlDeployError:
        if owner is None:
            return QuantizationError(f"Policy {self.name} {what}")
        return PluginError(
            f"Policy {self.name} (from {owner.origin}) {what.rstrip('.')}. Repair or uninstall "
            f"{owner.origin.split()[0]}, or choose another policy: QuantConfig(policy=...).",
            plugin=owner.plugin,
            distribution=owner.origin,
        )


def choose_policy(config: QuantConfig, transformed_for: str | None) -> ChosenPolicy:
    """The policy that a configuration means.

    Raises:
        QuantizationConfigError: There is no policy of that name.
        BackendError: The backend cannot be loaded.
    """
    if config.policy is not None and not isinstance(config.policy, str):
        return ChosenPolicy(getattr(config.policy, "__name__", "the given policy"), config.policy)
    backend_name = config.backend or transformed_for
    if backend_name is None:
        if config.policy is None:
            return ChosenPolicy("none", None)
        raise QuantizationConfigError(
            f"QuantConfig: policy={config.policy!r} names a backend's policy, but the model was transformed with a "
            "list of patterns. Say whose it is, QuantConfig(backend=...), or pass the policy itself."
        )
    backend = get_backend(backend_name)
    name = next(iter(backend.policies), None) if config.policy is None else config.policy
    if name is None:
        return ChosenPolicy("none", None)
    if name not in backend.policies:
        raise QuantizationConfigError(
            f"QuantConfig: backend {backend_name!r} has no policy {name!r}; it has "
            f"{', '.join(backend.policies) or 'none'}."
        )
    owner = next((c for c in backend.contributions if (c.kind, c.name) == ("policy", name)), None)
    return ChosenPolicy(f"{backend_name}'s {name!r}", backend.policies[name], owner)
