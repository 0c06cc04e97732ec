"""Joins a backend's plugin and its extensions in one order, and reports what is overridden.

The order is pluggy's: those that ask for ``tryfirst``, then extensions by name, then the backend itself, then those
that ask for ``trylast``, of whom the first by name comes last. Patterns are tried in that order, policies of one name
are all asked in it, and of rules, compilers and devices of one name the first is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from embedl_deploy.backend.loader.asking import plugins_in_order
from embedl_deploy.backend.loader.backend import Backend
from embedl_deploy.backend.loader.conflicts import NOT_USED, in_each_others_way, title_of
from embedl_deploy.backend.loader.contributions import Contribution
from embedl_deploy.backend.loader.joined_policy import JoinedPolicy, PolicyPart
from embedl_deploy.backend.loader.loading import LoadedPlugin
from embedl_deploy.backend.loader.plugins import plugin_manager
from embedl_deploy.numerics import QuantPolicy

ValueT = TypeVar("ValueT")
#: What several plugins give, each with the plugin.
Entries = list[tuple[LoadedPlugin, ValueT]]

_LATER = "that of {first} is tried first"


def build_backend(main: LoadedPlugin, extensions: Sequence[LoadedPlugin]) -> Backend:
    """Join a backend's plugin and the extensions of it.

    Args:
        main: The backend's own plugin.
        extensions: In the order of their names.
    """
    manager = plugin_manager()
    plugins: dict[str, LoadedPlugin] = {}
    for loaded in (main, *reversed(extensions)):  # pluggy calls the last registered first
        registered = title_of(loaded.source)
        manager.register(loaded.plugin, registered)
        plugins[registered] = loaded

    def entries(hook: str, values: Callable[[LoadedPlugin], Sequence[ValueT]]) -> Entries[ValueT]:
        ordered = [plugins[name] for name in plugins_in_order(manager, hook)]
        return [(loaded, value) for loaded in ordered for value in values(loaded)]

    conversions = entries("embedl_deploy_conversions", lambda each: each.given.conversions)
    fusions = entries("embedl_deploy_fusions", lambda each: each.given.fusions)
    leaves = entries("embedl_deploy_leaf_modules", lambda each: each.given.leaf_modules)
    policies = entries("embedl_deploy_quantization_policies", lambda each: [*(each.given.policies or {}).items()])
    rules = entries("embedl_deploy_check_rules", lambda each: each.given.rules)
    compilers = entries("embedl_deploy_compilers", lambda each: each.given.compilers)
    devices = entries("embedl_deploy_devices", lambda each: each.given.devices)
    named: dict[str, list[tuple[LoadedPlugin, str]]] = {
        "conversion": [(loaded, pattern.name) for loaded, pattern in conversions],
        "fusion": [(loaded, pattern.name) for loaded, pattern in fusions],
        "policy": [(loaded, name) for loaded, (name, _) in policies],
        "rule": [(loaded, rule.id) for loaded, rule in rules],
        "compiler": [(loaded, compiler.name) for loaded, compiler in compilers],
        "device": [(loaded, device.name) for loaded, device in devices],
    }
    conflicts = [
        *_same_extension_names(extensions),
        *_same_trees([*conversions, *fusions]),
        *(text for kind in ("conversion", "fusion") for text in _same_names(kind, named[kind], _LATER)),
        *(text for kind in ("rule", "compiler", "device") for text in _same_names(kind, named[kind], NOT_USED)),
    ]
    configured = plugins_in_order(manager, "embedl_deploy_quantization_config")
    number_formats = [(plugins[name], "embedl_deploy_quantization_config") for name in configured]
    conflicts += _same_names("number formats from", number_formats, "{first} is asked first")
    source = main.source
    assert main.given.info is not None  # load_plugin refuses a backend without one
    first_rules = {rule.id: (loaded, rule) for loaded, rule in reversed(rules)}
    return Backend(
        name=source.name,
        info=main.given.info,
        origin=source.origin,
        conversions=tuple(pattern for _, pattern in conversions),
        fusions=tuple(pattern for _, pattern in fusions),
        leaf_modules=tuple(module_class for _, module_class in leaves),
        policies=_joined_policies(main, policies),
        extensions=tuple(title_of(each.source) for each in extensions),
        compilers=_firsts(compilers, lambda compiler: compiler.name),
        devices=_firsts(devices, lambda device: device.name),
        check_rules=_firsts(rules, lambda rule: rule.id),
        rule_origins={key: loaded.source.origin for key, (loaded, _) in first_rules.items()},
        contributions=tuple(
            Contribution(kind, name, loaded.source.name, loaded.source.origin)
            for kind, rows in named.items()
            for loaded, name in rows
        ),
        conflicts=tuple(dict.fromkeys(conflicts)),
        _manager=manager,
        _sources={name: loaded.source for name, loaded in plugins.items()},
    )


def _firsts(entries: Entries[ValueT], key: Callable[[ValueT], str]) -> tuple[ValueT, ...]:
    """One value for each key: of those with the same, the first."""
    firsts: dict[str, ValueT] = {}
    for _, value in entries:
        firsts.setdefault(key(value), value)
    return tuple(firsts.values())


def _joined_policies(main: LoadedPlugin, entries: Entries[tuple[str, QuantPolicy]]) -> Mapping[str, QuantPolicy]:
    """Policies by name, the backend's first, so that its default stays the default."""
    names = dict.fromkeys([*(main.given.policies or {}), *(name for _, (name, _) in entries)])
    joined: dict[str, QuantPolicy] = {}
    for name in names:
        parts = [
            PolicyPart(policy, loaded.source.name, loaded.source.origin)
            for loaded, (given, policy) in entries
            if given == name
        ]
        joined[name] = parts[0].function if len(parts) == 1 else JoinedPolicy(name, tuple(parts))
    return joined


def _same_names(kind: str, entries: list[tuple[LoadedPlugin, str]], outcome: str) -> Iterator[str]:
    """Things of one name of which an extension's is not used, or comes after another extension's.

    That an extension comes before the backend is what it is for, and that patterns of the backend follow is harmless.
    """
    firsts: dict[str, LoadedPlugin] = {}
    for loaded, name in entries:
        first = firsts.setdefault(name, loaded)
        if first is loaded or not loaded.source.is_extension:
            continue
        if not first.source.is_extension and outcome is _LATER:
            continue  # it comes after the backend's because it asks for that
        label = f"{kind} {name}" if " " in kind else f"{kind} {name!r}"
        yield in_each_others_way(label, first.source, loaded.source, outcome)


def _same_trees(entries: Entries[Any]) -> Iterator[str]:
    """Patterns of two extensions that look for the same nodes."""
    mine = [(loaded, pattern) for loaded, pattern in entries if loaded.source.is_extension]
    for index, (later, pattern) in enumerate(mine):
        for first, other in mine[:index]:
            same = pattern.tree is not None and pattern.tree == other.tree and pattern.name != other.name
            if first is not later and same and pattern.is_conversion == other.is_conversion:
                titles = title_of(first.source), title_of(later.source)
                yield (
                    f"{other.name} of {titles[0]} and {pattern.name} of {titles[1]} look for the same nodes: "
                    f"{other.name} is tried first. Switch one of them off in the plan, or uninstall one of them."
                )


def _same_extension_names(extensions: Sequence[LoadedPlugin]) -> Iterator[str]:
    for index, loaded in enumerate(extensions):
        for other in extensions[:index]:
            if other.source.name == loaded.source.name:
                yield (
                    f"Extension {loaded.source.name!r} is provided by two distributions, {other.source.origin} and "
                    f"{loaded.source.origin}: both take part. Uninstall the one that is not meant."
                )
