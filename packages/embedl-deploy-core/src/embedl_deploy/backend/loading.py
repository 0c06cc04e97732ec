"""Loading plugins, each by itself, so that a broken one is named and the others work."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy
from torch import fx, nn

import embedl_deploy.backend.hookspecs as hookspecs
from embedl_deploy.backend.compilers import Compiler
from embedl_deploy.backend.discovery import PluginSource
from embedl_deploy.backend.hookspecs import PROJECT, BackendInfo
from embedl_deploy.backend.policy import QuantPolicy
from embedl_deploy.backend.rules import Rule, Severity
from embedl_deploy.engine import Device
from embedl_deploy.errors import PatternError, PluginError
from embedl_deploy.patterns import Pattern, validate_pattern


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
    _manager: pluggy.PluginManager = field(repr=False, default_factory=lambda: pluggy.PluginManager(PROJECT))

    @property
    def patterns(self) -> list[Pattern]:
        """Conversions, then fusions."""
        return [*self.conversions, *self.fusions]

    def explain_unfused(self, node: fx.Node) -> str | None:
        """Why the hardware cannot run the operator at ``node``, if the backend knows."""
        hook = "embedl_deploy_explain_unfused"
        try:
            reason = getattr(self._manager.hook, hook)(backend=self.name, node=node)
        except Exception as error:  # noqa: BLE001 - a plugin's hook may raise anything; it must not cost the user the model
            return f"not known: {hook} failed: {type(error).__name__}: {error}"
        if reason is not None and not isinstance(reason, str):
            return f"not known: {hook} returned {reason!r}; expected a string or None"
        return reason


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


def _error(source: PluginSource, what: str) -> PluginError:
    kind = "Extension" if source.is_extension else "Backend"
    message = (
        f"{kind} {source.name!r} (from {source.origin}) {what}. Repair or uninstall {source.distribution}; "
        "other backends are not affected."
    )
    return PluginError(message, plugin=source.name, distribution=source.origin)


def load_plugin(source: PluginSource) -> LoadedPlugin:
    """Import one plugin and check everything about it that can be checked without a model.

    Raises:
        PluginError: It cannot be imported, needs another core, or its hooks are wrong.
    """
    mismatch = source.core_mismatch()
    if mismatch is not None:
        raise _error(source, f"does not fit the installed core: {mismatch}")
    try:
        plugin = source.entry_point.load()
    except (Exception, SystemExit) as error:  # a plugin's import may raise anything
        raise _error(source, f"cannot be imported: {type(error).__name__}: {error}") from error
    return LoadedPlugin(source, plugin, _check_hooks(source, plugin))


def _check_hooks(source: PluginSource, plugin: Any) -> BackendInfo | None:
    known = {name for name in vars(hookspecs) if name.startswith("embedl_deploy_")}
    for name in dir(plugin):
        if not name.startswith("embedl_deploy_"):
            continue
        try:
            function = getattr(plugin, name)
        except Exception as error:  # a property of a plugin may raise anything
            raise _error(source, f"cannot give its hook {name}: {type(error).__name__}: {error}") from error
        if not callable(function):
            continue
        if name not in known:
            raise _error(source, f"defines {name}, which is no hook; the hooks are {', '.join(sorted(known))}")
        if source.is_extension and name == "embedl_deploy_describe":
            raise _error(source, f"defines {name}; only the backend that it extends describes itself")
        if not inspect.isroutine(function):
            raise _error(source, f"defines {name} as {function!r}; expected a function marked with @hookimpl")
        if not hasattr(function, f"{PROJECT}_impl"):
            raise _error(source, f"defines the hook {name} without marking it: put @hookimpl above it")
    manager = _manager()
    try:
        manager.register(plugin, source.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise _error(source, f"has a wrong hook: {' '.join(str(error).split())}") from error
    info = None if source.is_extension else _call(source, manager, "embedl_deploy_describe")
    if not source.is_extension and not isinstance(info, BackendInfo):
        raise _error(source, "does not describe itself: embedl_deploy_describe must return a BackendInfo")
    _patterns(source, manager, "embedl_deploy_conversions", is_conversion=True)
    _patterns(source, manager, "embedl_deploy_fusions", is_conversion=False)
    for module_class in _flat(source, manager, "embedl_deploy_leaf_modules"):
        if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
            raise _error(source, f"returns {module_class!r} from embedl_deploy_leaf_modules; expected module classes")
    _policies(source, manager)
    _rules(source, manager)
    _objects(source, manager, "embedl_deploy_compilers", Compiler)
    _objects(source, manager, "embedl_deploy_devices", Device)
    return info


def _objects(source: PluginSource, manager: pluggy.PluginManager, hook: str, kind: type) -> list[Any]:
    """What a hook returns, all of one kind."""
    objects = _flat(source, manager, hook)
    for value in objects:
        if not isinstance(value, kind) or not isinstance(getattr(value, "name", None), str):
            raise _error(source, f"returns {value!r} from {hook}; expected objects of {kind.__name__}, with a name")
    return objects


def _rules(source: PluginSource, manager: pluggy.PluginManager) -> list[Rule]:
    """The rules of one plugin, checked."""
    hook = "embedl_deploy_check_rules"
    rules: dict[str, Rule] = {}
    for rule in _flat(source, manager, hook):
        if not isinstance(rule, Rule):
            raise _error(source, f"returns {rule!r} from {hook}; expected objects of subclasses of Rule")
        words = {name: getattr(rule, name, None) for name in ("id", "title", "remedy")}
        for name, value in words.items():
            if not isinstance(value, str) or not value.strip():
                raise _error(source, f"returns {type(rule).__name__} from {hook} with {name} {value!r}; expected text")
        if not isinstance(getattr(rule, "severity", None), Severity):
            raise _error(source, f"returns {type(rule).__name__} from {hook} without a Severity as its severity")
        if rule.id in rules:
            both = f"{type(rules[rule.id]).__name__} and {type(rule).__name__}"
            raise _error(source, f"returns two rules with id {rule.id!r} from {hook}: {both}; ids must be unique")
        rules[rule.id] = rule
    return list(rules.values())


def _joined_rules(plugins: Sequence[LoadedPlugin]) -> tuple[tuple[Rule, ...], dict[str, str]]:
    """The rules of a backend and its extensions, and where each comes from; of two with one id the extension's."""
    rules: dict[str, Rule] = {}
    origins: dict[str, str] = {}
    for loaded in plugins:
        manager = _manager()
        manager.register(loaded.plugin)
        for rule in _rules(loaded.source, manager):
            rules[rule.id] = rule
            origins[rule.id] = loaded.source.origin
    return tuple(rules.values()), origins


def _policies(source: PluginSource, manager: pluggy.PluginManager) -> dict[str, QuantPolicy]:
    """Policies by name; of two with one name the first, which is the extension's. The backend's default is first."""
    hook = "embedl_deploy_quantization_policies"
    policies: dict[str, QuantPolicy] = {}
    for result in reversed(_call(source, manager, hook)):
        if not isinstance(result, Mapping) or not all(isinstance(name, str) for name in result):
            raise _error(source, f"returns {result!r} from {hook}; expected a mapping from names to functions, or None")
        for name, policy in result.items():
            if not callable(policy):
                raise _error(source, f"returns {policy!r} as policy {name!r} from {hook}; expected a function")
            policies[name] = policy
    return policies


def _call(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> Any:
    caller = getattr(manager.hook, hook)
    try:
        return caller() if hook == "embedl_deploy_describe" else caller(backend=source.backend)
    except (Exception, SystemExit) as error:  # a plugin's hook may raise anything
        raise _error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error


def _flat(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> list[Any]:
    values: list[Any] = []
    for result in _call(source, manager, hook):
        if not isinstance(result, Sequence) or isinstance(result, str):
            raise _error(source, f"returns {result!r} from {hook}; expected a list or None")
        values.extend(result)
    return values


def _patterns(source: PluginSource, manager: pluggy.PluginManager, hook: str, *, is_conversion: bool) -> list[Pattern]:
    patterns = _flat(source, manager, hook)
    for pattern in patterns:
        try:
            validate_pattern(pattern)
        except PatternError as error:
            raise _error(source, f"returns a wrong pattern from {hook}: {error}") from error
        if pattern.is_conversion != is_conversion:
            raise _error(source, f"returns {pattern.name} from {hook}, but its is_conversion is {not is_conversion}")
    return patterns


def build_backend(main: LoadedPlugin, extensions: Sequence[LoadedPlugin]) -> Backend:
    """Join a backend's plugin and the extensions of it."""
    manager = _manager()
    for loaded in (main, *extensions):  # pluggy calls the last registered first: extensions win
        manager.register(loaded.plugin, f"{loaded.source.name} ({loaded.source.origin})")
    source = main.source
    assert main.info is not None  # load_plugin refuses a backend without one
    rules, rule_origins = _joined_rules((main, *extensions))
    return Backend(
        name=source.name,
        info=main.info,
        origin=source.origin,
        conversions=tuple(_patterns(source, manager, "embedl_deploy_conversions", is_conversion=True)),
        fusions=tuple(_patterns(source, manager, "embedl_deploy_fusions", is_conversion=False)),
        leaf_modules=tuple(_flat(source, manager, "embedl_deploy_leaf_modules")),
        policies=_policies(source, manager),
        extensions=tuple(f"{e.source.name} ({e.source.origin})" for e in extensions),
        compilers=tuple(_objects(source, manager, "embedl_deploy_compilers", Compiler)),
        devices=tuple(_objects(source, manager, "embedl_deploy_devices", Device)),
        check_rules=rules,
        rule_origins=rule_origins,
        _manager=manager,
    )
