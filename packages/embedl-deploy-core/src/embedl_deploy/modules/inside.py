"""Finds products in a fused module without quantization points, as far as its ``forward`` can be traced.

A factor has a place if it is an input of the module, or goes through a stub after the last product or softmax that it
is made by. The weights of convolutions and products that are modules are told by :mod:`embedl_deploy.modules.weights`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.graph.lookup import is_plain_torch_module
from embedl_deploy.graph.products import SUM_OF_PRODUCTS, UNWEIGHTED, WEIGHTED, product_of_call, summed_factors
from embedl_deploy.modules.slots import QuantStub
from embedl_deploy.modules.tracer import LeafTracer
from embedl_deploy.validation.checked import checked

_NEW_VALUES = (nn.Softmax, nn.LayerNorm, nn.GroupNorm)
_NAMES_OF_NEW_VALUES = frozenset({"softmax", "layer_norm", "group_norm"})


class _InsideTracer(LeafTracer):
    """Keeps stubs and the modules of torch whole, and nothing else."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a call of ``m`` becomes one node."""
        return isinstance(m, QuantStub) or is_plain_torch_module(m)


@checked
@dataclass(frozen=True)
class InnerProduct:
    """A product in a fused module with a factor that has no quantization point.

    Attributes:
        path: Of the parameter or the operator, or the name of the operation where it is neither.
        product: The class of ``torch.nn`` that it equals, or the operation.
        of_parameter: Whether the factor is a parameter; else it is what another product, or a softmax, gives.
    """

    path: str
    product: str
    of_parameter: bool


@checked
def products_without_place(module: nn.Module) -> list[InnerProduct]:
    """The products in a fused module with a factor in float, in the order of its ``forward``.

    Empty where ``forward`` cannot be traced.
    """
    found: dict[InnerProduct, None] = {}
    for node, product, traced in _products(module):
        factors = _factors(node, product)
        for path in (path for factor in factors for path in _attributes(factor)):
            if not isinstance(traced.get_submodule(path.rpartition(".")[0]), WEIGHTED):
                found[InnerProduct(path, product, of_parameter=True)] = None
        if any(_is_new(factor) for factor in factors):
            path = str(node.target) if node.op == "call_module" else node.name
            found[InnerProduct(path, product, of_parameter=False)] = None
    return list(found)


def _products(module: nn.Module) -> Iterator[tuple[fx.Node, str, nn.Module]]:
    try:
        graph = _InsideTracer().trace(module)
    except PLUGIN_FAILURES:  # forward is a backend's code, and may ask for what tracing does not have
        return
    traced = fx.GraphModule(module, graph)
    for node in traced.graph.nodes:
        product = _product(node)
        if product is not None:
            yield node, product, traced


def _product(node: fx.Node) -> str | None:
    called = _called(node)
    if called is not None:
        return type(called).__name__ if isinstance(called, (*WEIGHTED, *UNWEIGHTED)) else None
    return product_of_call(node) if node.op in ("call_function", "call_method") else None


def _called(node: fx.Node) -> nn.Module | None:
    owner = node.graph.owning_module
    return owner.get_submodule(str(node.target)) if owner is not None and node.op == "call_module" else None


def _factors(node: fx.Node, product: str) -> list[Any]:
    """The arguments of a product that are multiplied: neither biases nor masks."""
    if product == SUM_OF_PRODUCTS:
        return list(summed_factors(node) or ())
    given = pytree.tree_leaves((node.args, node.kwargs))
    tensors = [value for value in given if isinstance(value, fx.Node)]
    if "attention" in product.lower():
        return tensors[:3]
    if product.startswith(("add", "badd")):
        return tensors[1:3]
    return tensors if product == "einsum" else tensors[:2]


def _attributes(value: fx.Node) -> list[str]:
    """Paths of the parameters and buffers that a value is computed from, if from nothing else."""
    if value.op == "get_attr":
        return [str(value.target)]
    inputs = value.all_input_nodes
    if not inputs or value.op == "placeholder" or isinstance(_called(value), QuantStub):
        return []
    found = [_attributes(each) for each in inputs]
    return [path for paths in found for path in paths] if all(found) else []


def _is_new(value: fx.Node) -> bool:
    """Whether a value is made by a product or softmax, without a stub after it."""
    called = _called(value)
    if value.op in ("get_attr", "placeholder") or isinstance(called, QuantStub):
        return False
    name = getattr(value.target, "__name__", str(value.target))
    if _product(value) is not None or isinstance(called, _NEW_VALUES) or name in _NAMES_OF_NEW_VALUES:
        return True
    return any(_is_new(each) for each in value.all_input_nodes)
