"""The reference of a backend's rules for ONNX files, from the rules."""

import inspect

from embedl_deploy.backend import Rule, get_backend
from embedl_deploy.checking.checker import RULES_OF_EVERY_BACKEND


def rule_reference(backend: str | None = None) -> str:
    """A section for each rule: what it asks, how bad it is to break it, how to mend, and what is known of it.

    Without a backend, the rules of every one.
    """
    rules = RULES_OF_EVERY_BACKEND if backend is None else get_backend(backend).check_rules
    return "\n\n".join(_section(rule) for rule in rules)


def _section(rule: Rule) -> str:
    known = (inspect.getdoc(type(rule)) or "").removeprefix(f"{rule.id}. ")
    return (
        f"### {rule.id}\n\n**{rule.title}**\n\n{rule.severity.value.capitalize()}. To mend: {rule.remedy}\n\n"
        f"```{{eval-rst}}\n{known}\n```"
    )
