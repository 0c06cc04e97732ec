"""The reference of a backend's rules for ONNX files, from the rules."""

import inspect

from embedl_deploy.backend import Rule, get_backend


def rule_reference(backend: str) -> str:
    """A section for each rule: what it asks, how bad it is to break it, how to mend, and what is known of it."""
    return "\n\n".join(_section(rule) for rule in get_backend(backend).check_rules)


def _section(rule: Rule) -> str:
    known = (inspect.getdoc(type(rule)) or "").removeprefix(f"{rule.id}. ")
    return (
        f"### {rule.id}\n\n**{rule.title}**\n\n{rule.severity.value.capitalize()}. To mend: {rule.remedy}\n\n"
        f"```{{eval-rst}}\n{known}\n```"
    )
