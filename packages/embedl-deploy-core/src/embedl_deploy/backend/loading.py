"""Loading plugins, each by itself, so that a broken one is named and the others work."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pluggy
from torch import fx, nn

import embedl_deploy.backend.hookspecs as hookspecs
from embedl_deploy.backend.compilers import Compiler
from embedl_deploy.backend.contributions import (
    call_hook,
    objects_of,
    patterns_of,
    plugin_error,
    policies_of,
    rules_of,
    values_of,
)
from embedl_deploy.backend.discovery import PluginSource
from embedl_deploy.backend.hookspecs import PROJECT, BackendInfo
from embedl_deploy.backend.origins import Contribution, contributions_of, culprit_of
from embedl_deploy.backend.policy import QuantPolicy
from embedl_deploy.backend.rules import Rule
from embedl_deploy.engine import Device
from embedl_deploy.patterns import Pattern

_Config = TypeVar("_Config")


@dataclass(frozen=True, eq=False)
class Backend:
    """A loaded backend: a hardware target with the patterns for it.

    Attributes:
        name: Under which it is chosen.
        info: What it says of itself.
        origin: Distribution and version that ship it.
        conversions: Structural rewrites, in order.
        fusions: Fusions, in order of priority.
        leaf_modules: Further module classes that capture keeps whole.
        policies: Policies that say where quantizers do not pay, by name, the default first.
        extensions: Origins of the extensions that take part.
        check_rules: Rules that ONNX files have to keep: the backend's, then those of extensions.
        rule_origins: By the id of a rule, the distribution and version that ship it.
        compilers: Compilers that can be called, the preferred first; an extension's before the backend's.
        devices: Peak rates of devices that it compiles for.
        contributions: All of these one by one, each with the distribution that ships it.
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
    _manager: pluggy.PluginManager = field(repr=False, default_factory=lambda: _manager())
    _sources: Mapping[str, PluginSource] = field(repr=False, default_factory=dict)

    @property
    def patterns(self) -> list[Pattern]:
        """Conversions, then fusions."""
        return [*self.conversions, *self.fusions]

    def quantization_config(self, kind: type[_Config]) -> _Config | None:
        """The number formats of the hardware; ``None`` if the backend names none.

        Args:
            kind: ``QuantConfig``, which is defined on a floor above this one.

        Raises:
            PluginError: The hook fails, or gives something else.
        """
        hook = "embedl_deploy_quantization_config"

        try:
            answer: object = getattr(self._manager.hook, hook)(backend=self.name)
        except (Exception, SystemExit) as error:  # a plugin's hook may raise anything
            source = culprit_of(self._manager, self._sources, hook, kind, backend=self.name)
            raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error
        if answer is None or isinstance(answer, kind):
            return answer
        source = culprit_of(self._manager, self._sources, hook, kind, backend=self.name)
        raise plugin_error(source, f"returns {answer!r} from {hook}; expected a {kind.__name__} or None")

    def explain_unfused(self, node: fx.Node) -> str | None:
        """Why the hardware cannot run the operator at ``node``, if the backend knows."""
        hook = "embedl_deploy_explain_unfused"
        try:
            reason: object = getattr(self._manager.hook, hook)(backend=self.name, node=node)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's hook may raise anything; it must not cost the user the model
            wrong = f"failed: {type(error).__name__}: {error}"
        else:
            if reason is None or isinstance(reason, str):
                return reason
            wrong = f"returned {reason!r}; expected a string or None"
        source = culprit_of(self._manager, self._sources, hook, str, backend=self.name, node=node)
        return f"not known: {hook} of {source.origin} {wrong}"


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin object that was imported and whose hooks were checked; ``info`` is ``None`` for an extension."""

    source: PluginSource
    plugin: Any
    info: BackendInfo | None


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def load_plugin(source: PluginSource) -> LoadedPlugin:
    """Import one plugin and check everything about it that can be checked without a model.

    Raises:
        PluginError: It cannot be imported, needs another core, or its hooks are wrong.
    """
    mismatch = source.core_mismatch()
    if mismatch is not None:
        raise plugin_error(source, f"does not fit the installed core: {mismatch}")
    try:
        plugin = source.entry_point.load()
    except (Exception, SystemExit) as error:  # a plugin's import may raise anything
        raise plugin_error(source, f"cannot be imported: {type(error).__name__}: {error}") from error
    return LoadedPlugin(source, plugin, _check_hooks(source, plugin))


def _check_hooks(source: PluginSource, plugin: Any) -> BackendInfo | None:
    known = {name for name in vars(hookspecs) if name.startswith("embedl_deploy_")}
    for name in dir(plugin):
        if not name.startswith("embedl_deploy_"):
            continue
        try:
            function = getattr(plugin, name)
        except Exception as error:  # a property of a plugin may raise anything
            raise plugin_error(source, f"cannot give its hook {name}: {type(error).__name__}: {error}") from error
        if not callable(function):
            continue
        if name not in known:
            raise plugin_error(source, f"defines {name}, which is no hook; the hooks are {', '.join(sorted(known))}")
        if source.is_extension and name == "embedl_deploy_describe":
            raise plugin_error(source, f"defines {name}; only the backend that it extends describes itself")
        if not inspect.isroutine(function):
            raise plugin_error(source, f"defines {name} as {function!r}; expected a function marked with @hookimpl")
        if not hasattr(function, f"{PROJECT}_impl"):
            raise plugin_error(source, f"defines the hook {name} without marking it: put @hookimpl above it")
    manager = _manager()
    try:
        manager.register(plugin, source.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise plugin_error(source, f"has a wrong hook: {' '.join(str(error).split())}") from error
    info = None if source.is_extension else call_hook(source, manager, "embedl_deploy_describe")
    if not source.is_extension and not isinstance(info, BackendInfo):
        raise plugin_error(source, "does not describe itself: embedl_deploy_describe must return a BackendInfo")
    patterns_of(source, manager, "embedl_deploy_conversions", is_conversion=True)
    patterns_of(source, manager, "embedl_deploy_fusions", is_conversion=False)
    for module_class in values_of(source, manager, "embedl_deploy_leaf_modules"):
        if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
            raise plugin_error(
                source, f"returns {module_class!r} from embedl_deploy_leaf_modules; expected module classes"
            )
    policies_of(source, manager)
    rules_of(source, manager)
    objects_of(source, manager, "embedl_deploy_compilers", Compiler)
    objects_of(source, manager, "embedl_deploy_devices", Device)
    return info


def _joined_rules(plugins: Sequence[LoadedPlugin]) -> tuple[tuple[Rule, ...], dict[str, str]]:
    """The rules of a backend and its extensions, and where each comes from; of two with one id the extension's."""
    rules: dict[str, Rule] = {}
    origins: dict[str, str] = {}
    for loaded in plugins:
        manager = _manager()
        manager.register(loaded.plugin)
        for rule in rules_of(loaded.source, manager):
            rules[rule.id] = rule
            origins[rule.id] = loaded.source.origin
    return tuple(rules.values()), origins


def build_backend(main: LoadedPlugin, extensions: Sequence[LoadedPlugin]) -> Backend:
    """Join a backend's plugin and the extensions of it."""
    manager = _manager()
    sources = {}
    for loaded in (main, *extensions):  # pluggy calls the last registered first: extensions win
        registered = f"{loaded.source.name} ({loaded.source.origin})"
        manager.register(loaded.plugin, registered)
        sources[registered] = loaded.source
    source = main.source
    assert main.info is not None  # load_plugin refuses a backend without one
    rules, rule_origins = _joined_rules((main, *extensions))
    return Backend(
        name=source.name,
        info=main.info,
        origin=source.origin,
        conversions=tuple(patterns_of(source, manager, "embedl_deploy_conversions", is_conversion=True)),
        fusions=tuple(patterns_of(source, manager, "embedl_deploy_fusions", is_conversion=False)),
        leaf_modules=tuple(values_of(source, manager, "embedl_deploy_leaf_modules")),
        policies=policies_of(source, manager),
        extensions=tuple(f"{e.source.name} ({e.source.origin})" for e in extensions),
        compilers=tuple(objects_of(source, manager, "embedl_deploy_compilers", Compiler)),
        devices=tuple(objects_of(source, manager, "embedl_deploy_devices", Device)),
        check_rules=rules,
        rule_origins=rule_origins,
        contributions=tuple(contributions_of(manager, sources)),
        _manager=manager,
        _sources=sources,
    )
