"""Collects the patterns of a package, so that a new pattern only needs a new file."""

import math
from types import ModuleType

from embedl_deploy.collecting import classes_in
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.validation.checked import checked


@checked
def patterns_in(package: ModuleType) -> list[Pattern]:
    """Make one of each pattern class that the files of a package define, in the order in which they are to be tried.

    Those that can take more nodes come first, because the first that takes a node has it; equals come in the order of
    their files' names, and of the lines of a file. Classes whose names start with an underscore are left out, as bases
    of others; so are classes that a file only imports.

    Args:
        package: A package, such as ``mybackend.patterns.fusions``. Its modules are imported; folders below it are not
            looked at.

    Raises:
        PatternError: A pattern's tree is not well formed.
    """
    made = [pattern_class() for pattern_class in classes_in(package, Pattern)]
    return sorted(made, key=_most_nodes, reverse=True)  # equals stay as they are


def _most_nodes(pattern: Pattern) -> float:
    """Of a pattern that finds its places itself nothing is known: it may take any number."""
    return math.inf if pattern.tree is None else pattern.compiled_tree().most_nodes()
