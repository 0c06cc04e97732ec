"""The functions that patterns match, which capture must keep whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.patterns.elements import Element
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.tree import CompiledFork, CompiledTree, CompiledWildcard


def has_an_element_for(patterns: Sequence[Pattern], function: Callable[..., Any]) -> bool:
    """Whether a call of a function, whatever it is given, is an element of some pattern's tree."""
    call = fx.Graph().call_function(function)
    return any(_accepts(element, call) for pattern in patterns for element in _elements_of(pattern))


def _accepts(element: Element, call: fx.Node) -> bool:
    try:
        return element.accepts(call)
    except PLUGIN_FAILURES:  # a predicate may ask for arguments, which this call does not have
        return False


def _elements_of(pattern: Pattern) -> Iterator[Element]:
    if pattern.tree is not None:
        yield from _elements(pattern.compiled_tree())


def _elements(tree: CompiledTree) -> Iterator[Element]:
    for element in tree.elements:
        if isinstance(element, CompiledFork):
            yield element.join
            for branch in element.branches:
                yield from _elements(branch)
        else:
            yield element.element if isinstance(element, CompiledWildcard) else element
