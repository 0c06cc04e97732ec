"""The ONNX translations of the custom operators of a backend's plugins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from embedl_deploy.backend.loader.asking import ask_alone, plugins_in_order
from embedl_deploy.backend.loader.conflicts import NOT_USED, in_each_others_way
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.plugins import plugin_error
from embedl_deploy.errors import PLUGIN_FAILURES


@dataclass(frozen=True)
class Translations:
    """What operators are in ONNX.

    Attributes:
        functions: By operator.
        conflicts: Where a translation of an extension is not used, because another comes first, in words.
    """

    functions: dict[Callable[..., Any], Callable[..., Any]]
    conflicts: tuple[str, ...]


def translations_from(manager: pluggy.PluginManager, sources: Mapping[str, PluginSource], opset: int) -> Translations:
    """What the operators of a backend's plugins are in ONNX; of two translations of one operator the first.

    Raises:
        PluginError: A plugin's hook fails, or gives something else than functions for operators.
    """
    from torch._ops import OpOverload

    hook = "embedl_deploy_onnx_translations"
    found: dict[Callable[..., Any], Callable[..., Any]] = {}
    owners: dict[Callable[..., Any], PluginSource] = {}
    conflicts: dict[str, None] = {}
    for name in plugins_in_order(manager, hook):
        source = sources[name]
        try:
            answers = ask_alone(manager, name, hook, backend=source.backend, opset=opset)
        except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything
            raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error
        for answer in answers:
            if not isinstance(answer, Mapping):
                raise plugin_error(
                    source, f"returns {answer!r} from {hook}; expected a mapping from operators, or None"
                )
            for operator, function in answer.items():
                if not isinstance(operator, OpOverload):
                    raise plugin_error(
                        source,
                        f"returns {operator!r} as an operator from {hook}; expected an overload, such as "
                        "torch.ops.acme.clip.default",
                    )
                if not callable(function):
                    raise plugin_error(
                        source, f"returns {function!r} for {operator} from {hook}; expected a function of onnxscript"
                    )
                found.setdefault(operator, function)
                first = owners.setdefault(operator, source)
                if first is not source and source.is_extension:  # that one comes before its backend is meant
                    conflicts[in_each_others_way(f"a translation of {operator} to ONNX", first, source, NOT_USED)] = (
                        None
                    )
    return Translations(found, tuple(conflicts))
