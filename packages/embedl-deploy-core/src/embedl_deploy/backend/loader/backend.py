"""A backend in use: the contributions of its plugin and its extensions, joined."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy
from torch import fx, nn

from embedl_deploy.backend.contract.compilers import Compiler
from embedl_deploy.backend.contract.hookspecs import BackendInfo
from embedl_deploy.backend.contract.rules import Rule
from embedl_deploy.backend.loader.asking import ask_alone, culprit_of, plugins_in_order
from embedl_deploy.backend.loader.contributions import Contribution
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.plugins import plugin_error, plugin_manager
from embedl_deploy.backend.loader.translations import translations_from
from embedl_deploy.engine import Device
from embedl_deploy.errors import PLUGIN_FAILURES, InputError
from embedl_deploy.numerics import QuantConfig, QuantPolicy
from embedl_deploy.patterns import Pattern
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


@checked
@dataclass(frozen=True, eq=False)
class Backend:
    """A loaded backend: a hardware target with the patterns for it.

    What several plugins bring is in the order of the plugins: those that ask for ``tryfirst``, then extensions by name,
    then the backend itself, then those that ask for ``trylast``. Of rules with one id, and of compilers and devices
    with one name, the first is kept.

    Attributes:
        name: Under which it is chosen.
        info: What it says of itself.
        origin: Distribution and version that ship it.
        conversions: Structural rewrites, in order.
        fusions: Fusions, in order of priority.
        leaf_modules: Further module classes that capture keeps whole.
        policies: Policies that say where quantizers do not pay, by name, the default first. Those of one name are
            joined: each may object.
        extensions: Origins of the extensions that take part.
        check_rules: Rules that ONNX files have to keep.
        rule_origins: By the id of a rule, the distribution and version that ship it.
        compilers: Compilers that can be called, the preferred first.
        devices: Peak rates of devices that it compiles for.
        contributions: All of these one by one, each with the distribution that ships it.
        conflicts: What extensions bring that is not used, or that two of them bring, in words.
    """

    name: str
    info: BackendInfo
    origin: str
    conversions: tuple[Pattern, ...]
    fusions: tuple[Pattern, ...]
    leaf_modules: tuple[type[nn.Module], ...]
    policies: Mapping[str, QuantPolicy] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    check_rules: tuple[Rule, ...] = ()
    rule_origins: Mapping[str, str] = field(default_factory=dict)
    compilers: tuple[Compiler, ...] = ()
    devices: tuple[Device, ...] = ()
    contributions: tuple[Contribution, ...] = ()
    conflicts: tuple[str, ...] = ()
    _manager: pluggy.PluginManager = field(repr=False, default_factory=lambda: plugin_manager())
    _sources: Mapping[str, PluginSource] = field(repr=False, default_factory=dict)

    @property
    def patterns(self) -> list[Pattern]:
        """Conversions, then fusions."""
        return [*self.conversions, *self.fusions]

    @checked
    def patterns_from(self, plugin: str) -> list[Pattern]:
        """Those of the patterns that a plugin brings.

        Args:
            plugin: Name of its entry point: the backend's, or ``"<backend>.<extension>"``.
        """
        listed = [each for each in self.contributions if each.kind in ("conversion", "fusion")]  # in the same order
        return [p for p, each in zip(self.patterns, listed, strict=True) if each.plugin == plugin] if listed else []

    @checked
    def quantization_config(self) -> QuantConfig | None:
        """The number formats of the hardware; ``None`` if the backend names none.

        Raises:
            PluginError: The hook fails, or gives something else.
        """
        hook = "embedl_deploy_quantization_config"
        try:
            answer: object = getattr(self._manager.hook, hook)(backend=self.name)
        except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything
            source = culprit_of(self._manager, self._sources, hook, QuantConfig, backend=self.name)
            raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error
        if answer is None or isinstance(answer, QuantConfig):
            return answer
        source = culprit_of(self._manager, self._sources, hook, QuantConfig, backend=self.name)
        raise plugin_error(source, f"returns {answer!r} from {hook}; expected a QuantConfig or None")

    @checked
    def onnx_translations(self, opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
        """What the backend's own operators are in ONNX, for a version of the operator set; of two for one, the first.

        Raises:
            PluginError: The hook fails, or gives something else.
        """
        return translations_from(self._manager, self._sources, opset).functions

    @checked
    def onnx_translation_conflicts(self, opset: int) -> tuple[str, ...]:
        """Where a translation to ONNX of an extension is not used, in words.

        They are not among ``conflicts``: the hook may import ``onnxscript``, and is not called on loading.

        Raises:
            PluginError: As for :meth:`onnx_translations`.
        """
        return translations_from(self._manager, self._sources, opset).conflicts

    def finish_onnx(self, model: "ir.Model") -> bool:
        """Let the backend's plugins change an exported file, in place, the backend itself first.

        Returns:
            Whether one of them has such a hook.

        Raises:
            InputError: It is no model.
            PluginError: A hook fails, or gives something.
        """
        if not hasattr(model, "graph"):
            raise InputError(f"model is {model!r}; expected an onnx_ir.Model.")
        hook = "embedl_deploy_finish_onnx"
        names = plugins_in_order(self._manager, hook)
        for name in reversed(names):
            try:
                answers = ask_alone(self._manager, name, hook, backend=self.name, model=model)
            except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything
                raise plugin_error(self._sources[name], f"fails in {hook}: {type(error).__name__}: {error}") from error
            if answers:
                raise plugin_error(self._sources[name], f"returns {answers[0]!r} from {hook}; expected None")
        return bool(names)

    @checked
    def explain_unfused(self, node: fx.Node) -> str | None:
        """Why the hardware cannot run the operator at ``node``, if the backend knows."""
        hook = "embedl_deploy_explain_unfused"
        try:
            reason: object = getattr(self._manager.hook, hook)(backend=self.name, node=node)
        except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything; it must not cost the user the model
            wrong = f"failed: {type(error).__name__}: {error}"
        else:
            if reason is None or isinstance(reason, str):
                return reason
            wrong = f"returned {reason!r}; expected a string or None"
        source = culprit_of(self._manager, self._sources, hook, str, backend=self.name, node=node)
        return f"not known: {hook} of {source.origin} {wrong}"
