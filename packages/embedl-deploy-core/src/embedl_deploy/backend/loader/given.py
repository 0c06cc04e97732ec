"""Checks the return values of a plugin's hooks; the error names the plugin and its distribution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pluggy
from torch import nn

from embedl_deploy.backend.contract.compilers import Compiler
from embedl_deploy.backend.contract.hookspecs import BackendInfo
from embedl_deploy.backend.contract.rules import Rule, Severity
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.plugins import plugin_error
from embedl_deploy.engine import Device
from embedl_deploy.errors import PLUGIN_FAILURES, PatternError
from embedl_deploy.numerics import QuantPolicy
from embedl_deploy.patterns import Pattern, validate_pattern

_NamedT = TypeVar("_NamedT")


@dataclass(frozen=True)
class Given:
    """What one plugin brings; each hook was called once, when the plugin was loaded.

    Attributes:
        info: What a backend says of itself; ``None`` of an extension.
        conversions: From ``embedl_deploy_conversions``; the others from the hooks of their names.
        fusions: Fusions.
        leaf_modules: Module classes.
        policies: Policies by name.
        rules: Rules, no two with one id.
        compilers: Compilers.
        devices: Devices.
    """

    info: BackendInfo | None
    conversions: tuple[Pattern, ...] = ()
    fusions: tuple[Pattern, ...] = ()
    leaf_modules: tuple[type[nn.Module], ...] = ()
    policies: Mapping[str, QuantPolicy] | None = None
    rules: tuple[Rule, ...] = ()
    compilers: tuple[Compiler, ...] = ()
    devices: tuple[Device, ...] = ()


def given_by(source: PluginSource, manager: pluggy.PluginManager) -> Given:
    """Call the hooks of a plugin, each once, and check what they give.

    Args:
        source: Where the plugin is from.
        manager: With this plugin alone.

    Raises:
        PluginError: A hook fails, or gives something else than it should.
    """
    info = None if source.is_extension else _call(source, manager, "embedl_deploy_describe")
    if not source.is_extension and not isinstance(info, BackendInfo):
        raise plugin_error(source, "does not describe itself: embedl_deploy_describe must return a BackendInfo")
    conversions = _patterns(source, manager, "embedl_deploy_conversions", is_conversion=True)
    return Given(
        info=info,
        conversions=conversions,
        fusions=_patterns(source, manager, "embedl_deploy_fusions", is_conversion=False),
        leaf_modules=_leaf_modules(source, manager),
        policies=_policies(source, manager),
        rules=_rules(source, manager),
        compilers=_named(source, manager, "embedl_deploy_compilers", Compiler),  # type: ignore[type-abstract]  # for isinstance
        devices=_named(source, manager, "embedl_deploy_devices", Device),
    )


def _call(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> Any:
    """The results of a hook, as pluggy collects them."""
    caller = getattr(manager.hook, hook)
    if any(each.wrapper or each.hookwrapper for each in caller.get_hookimpls()):
        raise plugin_error(
            source,
            f"wraps {hook}, which is called for each plugin alone, so that there is nothing to wrap. Give patterns, "
            "rules or policies of your own, in front of others with @hookimpl(tryfirst=True)",
        )
    try:
        return caller() if hook == "embedl_deploy_describe" else caller(backend=source.backend)
    except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything
        raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error


def _values(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """The lists that a hook returns, as one."""
    values: list[Any] = []
    for result in _call(source, manager, hook):
        if not isinstance(result, Sequence) or isinstance(result, str):
            raise plugin_error(source, f"returns {result!r} from {hook}; expected a list or None")
        values.extend(result)
    return values


def _named(source: PluginSource, manager: pluggy.PluginManager, hook: str, kind: type[_NamedT]) -> tuple[_NamedT, ...]:
    """What a hook returns, all of one kind."""
    objects = _values(source, manager, hook)
    for value in objects:
        if not isinstance(value, kind) or not isinstance(getattr(value, "name", None), str):
            raise plugin_error(
                source, f"returns {value!r} from {hook}; expected objects of {kind.__name__}, with a name"
            )
    return tuple(objects)


def _leaf_modules(source: PluginSource, manager: pluggy.PluginManager) -> tuple[type[nn.Module], ...]:
    classes = _values(source, manager, "embedl_deploy_leaf_modules")
    for module_class in classes:
        if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
            raise plugin_error(
                source, f"returns {module_class!r} from embedl_deploy_leaf_modules; expected module classes"
            )
    return tuple(classes)


def _rules(source: PluginSource, manager: pluggy.PluginManager) -> tuple[Rule, ...]:
    hook = "embedl_deploy_check_rules"
    rules: dict[str, Rule] = {}
    for rule in _values(source, manager, hook):
        if not isinstance(rule, Rule):
            raise plugin_error(source, f"returns {rule!r} from {hook}; expected objects of subclasses of Rule")
        words = {name: getattr(rule, name, None) for name in ("id", "title", "remedy")}
        for name, value in words.items():
            if not isinstance(value, str) or not value.strip():
                raise plugin_error(
                    source, f"returns {type(rule).__name__} from {hook} with {name} {value!r}; expected text"
                )
        if not isinstance(getattr(rule, "severity", None), Severity):
            raise plugin_error(source, f"returns {type(rule).__name__} from {hook} without a Severity as its severity")
        if rule.id in rules:
            both = f"{type(rules[rule.id]).__name__} and {type(rule).__name__}"
            raise plugin_error(source, f"returns two rules with id {rule.id!r} from {hook}: {both}; ids must be unique")
        rules[rule.id] = rule
    return tuple(rules.values())


def _policies(source: PluginSource, manager: pluggy.PluginManager) -> dict[str, QuantPolicy]:
    """Policies by name, in the plugin's own order."""
    hook = "embedl_deploy_quantization_policies"
    policies: dict[str, QuantPolicy] = {}
    for result in _call(source, manager, hook):
        if not isinstance(result, Mapping) or not all(isinstance(name, str) for name in result):
            raise plugin_error(
                source, f"returns {result!r} from {hook}; expected a mapping from names to functions, or None"
            )
        for name, policy in result.items():
            if not callable(policy):
                raise plugin_error(source, f"returns {policy!r} as policy {name!r} from {hook}; expected a function")
            policies.setdefault(name, policy)
    return policies


def _patterns(
    source: PluginSource, manager: pluggy.PluginManager, hook: str, *, is_conversion: bool
) -> tuple[Pattern, ...]:
    """The patterns that a hook returns; each is told where it is from."""
    patterns = _values(source, manager, hook)
    for pattern in patterns:
        try:
            validate_pattern(pattern)
        except PatternError as error:
            raise plugin_error(source, f"returns a wrong pattern from {hook}: {error}") from error
        if pattern.is_conversion != is_conversion:
            raise plugin_error(
                source, f"returns {pattern.name} from {hook}, but its is_conversion is {not is_conversion}"
            )
        pattern.origin = pattern.origin or source.origin  # one that another plugin brings as well keeps the first
    return tuple(patterns)
