"""Collects the rules of a package, so that a new rule only needs a new file."""

import re
from types import ModuleType

from embedl_deploy.backend.contract.rules import Rule
from embedl_deploy.collecting import classes_in
from embedl_deploy.validation.checked import checked


@checked
def rules_in(package: ModuleType) -> tuple[Rule, ...]:
    """Make one of each rule class that the files of a package define, in the order of their ids.

    Classes whose names start with an underscore are left out, as bases of others; so are classes that a file only
    imports.

    Args:
        package: A package, such as ``mybackend.checks``. Its modules are imported; folders below it are not looked at.
    """
    rules = [made() for made in classes_in(package, Rule)]  # type: ignore[type-abstract]  # for issubclass
    return tuple(sorted(rules, key=_place))


def _place(rule: Rule) -> list[tuple[str, int]]:
    """Text and numbers of an id by turns, so that ``ACME-10`` comes after ``ACME-9``."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", rule.id)]
