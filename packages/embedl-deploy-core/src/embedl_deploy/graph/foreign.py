"""Runs functions from outside torch to see whether they multiply and accumulate."""

import dataclasses
from typing import Any

from torch import fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.graph.operators import operation_of_target
from embedl_deploy.graph.products import is_product

#: ``node.meta`` entry: the names of the products that a function from outside torch has computed, as shapes were found.
PRODUCTS_INSIDE = "embedl_deploy.products_inside"
_NAMESPACES = ("aten", "prims", "prim", "embedl_deploy")
_KNOWN = ("torch", "_operator", "builtins", "math", "embedl_deploy")


def is_foreign(node: fx.Node) -> bool:
    """Whether a node calls a function of which its name does not tell what it computes."""
    target: Any = node.target
    if node.op != "call_function":
        return False
    if holds_values(node):
        return False
    if isinstance(target, OpOverload):
        return target.namespace not in _NAMESPACES
    return (getattr(target, "__module__", None) or "torch").partition(".")[0] not in _KNOWN


def holds_values(node: fx.Node) -> bool:
    """Whether a node makes a container and computes nothing: an ``OrderedDict``, a named tuple, a model's output."""
    kind: Any = node.target
    is_class = node.op == "call_function" and isinstance(kind, type)
    return is_class and (issubclass(kind, (dict, list, tuple, set)) or dataclasses.is_dataclass(kind))


class ProductsNoted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Within the block, notes what is multiplied and accumulated by.

    Attributes:
        products: Names of operations, each once; operators that are not torch's are taken for products of their own.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.products: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation_of_target(func)
        if func.namespace not in _NAMESPACES:
            self.products[str(func)] = None
        elif isinstance(name, str) and is_product(name):
            self.products[name] = None
        return func(*args, **(kwargs or {}))
