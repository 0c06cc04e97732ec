"""The elements of a pattern's tree: what a single node may be.

An element is written as one of

- a module class (``nn.Conv2d``): a call of such a module, or a functional call that equals one;
- a tuple of elements, or a union of classes (``nn.ReLU | nn.SiLU``): any of them;
- a function (``operator.add``, ``torch.flatten``): a call of that operation in any of its spellings;
- a string (``"relu"``): the operation by the name of its tensor method;
- a predicate: a Python function of one ``fx.Node`` that returns whether it fits. It must not change the graph.

A function counts as a predicate when its only required parameter is annotated as ``fx.Node`` or not annotated, and
as a function to be called otherwise.
"""

import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.index import CallIndex
from embedl_deploy.graph.lookup import behaves_as, get_module
from embedl_deploy.graph.operators import Operation, operation, operation_of_target


class Element(ABC):
    """One position of a compiled tree."""

    @abstractmethod
    def accepts(self, node: fx.Node) -> bool:
        """Whether the node is what the element asks for."""

    @abstractmethod
    def describe(self) -> str:
        """What the element asks for, for messages."""

    def candidates(self, index: CallIndex) -> Iterable[fx.Node]:
        """Nodes among which are all that the element accepts."""
        return index.calls

    #: How many modules the element gives to a graft: 1, 0, or ``None`` when that depends on the node.
    modules: int | None = 1


@dataclass(frozen=True)
class ModuleElement(Element):
    """A call of a module of one of several classes."""

    classes: tuple[type[nn.Module], ...]

    def accepts(self, node: fx.Node) -> bool:
        """Match a module call or the functional call that equals one."""
        if node.op == "call_module":
            module = get_module(node)
            return isinstance(module, self.classes) and any(behaves_as(module, cls) for cls in self.classes)
        if node.op in ("call_function", "call_method"):
            form = module_class_of_call(node)
            if form is None or not any(issubclass(form, cls) or issubclass(cls, form) for cls in self.classes):
                return False  # decided without building a module
            return isinstance(get_module(node), self.classes)
        return False

    def candidates(self, index: CallIndex) -> Iterable[fx.Node]:
        """Calls of such modules, and functional calls."""
        yield from index.calling(self.classes)
        yield from (node for node in index.functional if self.accepts(node))

    def describe(self) -> str:
        """The class names."""
        return " or ".join(cls.__name__ for cls in self.classes)


@dataclass(frozen=True)
class OperationElement(Element):
    """A call of one operation, in any spelling."""

    name: Operation
    modules = 0

    def accepts(self, node: fx.Node) -> bool:
        """Match a call of the function or method; a module that computes the same is another element."""
        return node.op in ("call_function", "call_method") and operation(node) == self.name

    def candidates(self, index: CallIndex) -> Iterable[fx.Node]:
        """Functional calls."""
        return (node for node in index.functional if self.accepts(node))

    def describe(self) -> str:
        """The operation's name."""
        return self.name if isinstance(self.name, str) else getattr(self.name, "__name__", repr(self.name))


@dataclass(frozen=True)
class PredicateElement(Element):
    """A node of which a predicate is true."""

    predicate: Callable[[fx.Node], bool]
    modules = None

    def accepts(self, node: fx.Node) -> bool:
        """Ask the predicate; placeholders, constants and the output are never asked."""
        return node.op.startswith("call_") and bool(self.predicate(node))

    def describe(self) -> str:
        """The predicate's name, as words: ``is_flatten`` as "flatten"."""
        name = getattr(self.predicate, "__name__", repr(self.predicate))
        return name.strip("_").removeprefix("is_").replace("_", " ")


@dataclass(frozen=True)
class AnyElement(Element):
    """A node that any of several elements accepts."""

    options: tuple[Element, ...]

    def __post_init__(self) -> None:
        counts = {option.modules for option in self.options}
        object.__setattr__(self, "modules", counts.pop() if len(counts) == 1 else None)

    def accepts(self, node: fx.Node) -> bool:
        """Ask each option in order."""
        return any(option.accepts(node) for option in self.options)

    def candidates(self, index: CallIndex) -> Iterable[fx.Node]:
        """What any of the options could accept."""
        return (node for option in self.options for node in option.candidates(index))

    def describe(self) -> str:
        """The options' descriptions."""
        return " or ".join(option.describe() for option in self.options)


def _is_predicate(function: Callable[..., Any]) -> bool:
    """Tell a predicate on nodes from a function to be found in the graph, by its signature."""
    if isinstance(operation_of_target(function), str):
        return False  # torch and operator functions
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return False  # built-in without a signature
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) != 1:
        return False
    annotation = required[0].annotation
    return annotation in (inspect.Parameter.empty, fx.Node) or (
        isinstance(annotation, str) and annotation.split(".")[-1] == "Node"
    )


def compile_element(element: Any, where: str) -> Element:
    """Read one element of a tree.

    Args:
        element: The element as a pattern writes it.
        where: The pattern's name, for messages.

    Raises:
        PatternError: It is none of the kinds that the language knows.
    """
    if isinstance(element, type) and issubclass(element, nn.Module):
        return ModuleElement((element,))
    if isinstance(element, types.UnionType) or typing.get_origin(element) is typing.Union:
        return compile_element(typing.get_args(element), where)
    if isinstance(element, tuple) and element:
        options = tuple(compile_element(option, where) for option in element)
        if all(isinstance(option, ModuleElement) for option in options):
            return ModuleElement(tuple(cls for option in options for cls in getattr(option, "classes", ())))
        return AnyElement(options)
    if isinstance(element, str):
        return OperationElement(operation_of_target(element))
    if callable(element) and not isinstance(element, (type, nn.Module)):
        if _is_predicate(element):
            return PredicateElement(element)
        return OperationElement(operation_of_target(element))
    raise PatternError(
        f"{where}: the tree contains {element!r}. Expected a module class, a tuple of classes, a function, a method "
        "name, a predicate on fx.Node, a Wildcard or (first in its branch) a Fork."
    )
