"""Products of what flows in with a weight of the model, however they are written, as a module would compute them."""

from dataclasses import dataclass

from torch import fx, nn

from embedl_deploy.graph.einsum import product_by_axes
from embedl_deploy.graph.forms.products import linear_with
from embedl_deploy.graph.functional import inputs_of_call, module_class_of_call, module_of_call, state_of_call
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.shapes import shape_of
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.graph.state_values import is_state, value_of_state

_MODULES = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class WeightedProduct:
    """A product as a module would compute it.

    Attributes:
        x: What flows in.
        state: The nodes that its weight and bias are, by name.
        transposed: Whether the weight is the transpose of that of a ``Linear``; ``None`` where the call has the form
            of a module.
    """

    x: fx.Node
    state: dict[str, fx.Node]
    transposed: bool | None = None


def weighted_product(node: fx.Node) -> WeightedProduct | None:
    """How a module would compute a call; ``None`` if it is not a product, or of other things than parameters."""
    if operation(node) in ("addmm", "mm", "matmul"):
        product = _of_matrices(node)
    elif operation(node) in ("einsum", "inner", "tensordot"):
        product = _by_axes(node)
    else:
        product = _of_form(node)
    if product is None or "weight" not in product.state or is_state(product.x):
        return None
    return product if all(map(is_state, product.state.values())) else None


def _of_form(node: fx.Node) -> WeightedProduct | None:
    form = module_class_of_call(node)
    if form is None or not issubclass(form, _MODULES):
        return None
    inputs = list(inputs_of_call(node))
    return WeightedProduct(inputs[0], state_of_call(node)) if len(inputs) == 1 else None


def _of_matrices(node: fx.Node) -> WeightedProduct | None:
    """``x @ w``, or ``b + x @ w``, of a matrix."""
    if operation(node) == "addmm":
        bound = bind_call(node)
        given = {} if bound is None else bound.values
        if given.get("beta", 1) != 1 or given.get("alpha", 1) != 1:
            return None
        x, state = given.get("mat1"), {"weight": given.get("mat2"), "bias": given.get("input")}
    else:
        x, state = (*node.args, None)[0], {"weight": (*node.args, None, None)[1]}
    if node.kwargs.keys() & {"out"} or not isinstance(x, fx.Node):
        return None
    found = {name: value for name, value in state.items() if isinstance(value, fx.Node)}
    return WeightedProduct(x, found, transposed=True) if len(found) == len(state) else None


def _by_axes(node: fx.Node) -> WeightedProduct | None:
    """A sum over the last axis of what flows in and one of a matrix, such as ``einsum("bnd,ed->bne", x, w)``."""
    read = product_by_axes(node)
    if read is None:
        return None
    x, weight, axes = read
    if len(axes.right) != 2 or axes.batch or axes.summed != axes.left[-1:] or axes.result != axes.rows + axes.columns:
        return None
    return WeightedProduct(x, {"weight": weight}, transposed=axes.right[0] == axes.summed)


def module_of(node: fx.Node, product: WeightedProduct) -> nn.Module | None:
    """The module that computes the call, holding the values of today."""
    if product.transposed is None:
        return module_of_call(node, lambda each: value_of_state(each) if is_state(each) else each)
    weight = value_of_state(product.state["weight"])
    bias = value_of_state(product.state["bias"]) if "bias" in product.state else None
    if weight.dim() != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        return None
    shape = shape_of(product.x)
    if shape is not None and len(shape) < 2:
        return None
    return linear_with(weight.t() if product.transposed else weight, bias)
