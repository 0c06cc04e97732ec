"""What the hooks of a plugin give, checked: each wrong value is an error that names the plugin and its distribution."""

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from embedl_deploy.backend.discovery import PluginSource
from embedl_deploy.backend.policy import QuantPolicy
from embedl_deploy.backend.rules import Rule, Severity
from embedl_deploy.errors import PatternError, PluginError
from embedl_deploy.patterns import Pattern, validate_pattern


def plugin_error(source: PluginSource, what: str) -> PluginError:
    """The error to raise for a plugin that is broken."""
    kind = "Extension" if source.is_extension else "Backend"
    message = (
        f"{kind} {source.name!r} (from {source.origin}) {what.rstrip('.')}. Repair or uninstall {source.distribution}; "
        "other backends are not affected."
    )
    return PluginError(message, plugin=source.name, distribution=source.origin)


def objects_of(source: PluginSource, manager: pluggy.PluginManager, hook: str, kind: type) -> list[Any]:
    """What a hook returns, all of one kind."""
    objects = values_of(source, manager, hook)
    for value in objects:
        if not isinstance(value, kind) or not isinstance(getattr(value, "name", None), str):
            raise plugin_error(
                source, f"returns {value!r} from {hook}; expected objects of {kind.__name__}, with a name"
            )
    return objects


def rules_of(source: PluginSource, manager: pluggy.PluginManager) -> list[Rule]:
    """The rules of one plugin, checked."""
    hook = "embedl_deploy_check_rules"
    rules: dict[str, Rule] = {}
    for rule in values_of(source, manager, hook):
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
    return list(rules.values())


def policies_of(source: PluginSource, manager: pluggy.PluginManager) -> dict[str, QuantPolicy]:
    """Policies by name; of two with one name the first, which is the extension's. The backend's default is first."""
    hook = "embedl_deploy_quantization_policies"
    policies: dict[str, QuantPolicy] = {}
    for result in reversed(call_hook(source, manager, hook)):
        if not isinstance(result, Mapping) or not all(isinstance(name, str) for name in result):
            raise plugin_error(
                source, f"returns {result!r} from {hook}; expected a mapping from names to functions, or None"
            )
        for name, policy in result.items():
            if not callable(policy):
                raise plugin_error(source, f"returns {policy!r} as policy {name!r} from {hook}; expected a function")
            policies[name] = policy
    return policies


def call_hook(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> Any:
    """The results of a hook, as pluggy collects them."""
    caller = getattr(manager.hook, hook)
    try:
        return caller() if hook == "embedl_deploy_describe" else caller(backend=source.backend)
    except (Exception, SystemExit) as error:  # a plugin's hook may raise anything
        raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error


def values_of(source: PluginSource, manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """The lists that a hook returns, as one."""
    values: list[Any] = []
    for result in call_hook(source, manager, hook):
        if not isinstance(result, Sequence) or isinstance(result, str):
            raise plugin_error(source, f"returns {result!r} from {hook}; expected a list or None")
        values.extend(result)
    return values


def patterns_of(
    source: PluginSource, manager: pluggy.PluginManager, hook: str, *, is_conversion: bool
) -> list[Pattern]:
    """The patterns that a hook returns."""
    patterns = values_of(source, manager, hook)
    for pattern in patterns:
        try:
            validate_pattern(pattern)
        except PatternError as error:
            raise plugin_error(source, f"returns a wrong pattern from {hook}: {error}") from error
        if pattern.is_conversion != is_conversion:
            raise plugin_error(
                source, f"returns {pattern.name} from {hook}, but its is_conversion is {not is_conversion}"
            )
    return patterns
