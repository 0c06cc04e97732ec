"""The number of dimensions of a value, also where no shape is known."""

import re

from torch import fx

from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation

#: ``conv2d``, ``Conv2d``, ``conv_transpose1d``, ``adaptive_avg_pool2d``, ``InstanceNorm3d``; not ``BatchNorm1d``, which
#: takes two kinds of values.
_OVER_DIMENSIONS = re.compile(r"(?!batchnorm1d)\w*(?:conv|conv_?transpose|pool|norm)([123])d")
#: They leave the number of dimensions as it is; by name, without underscores, as modules and functions have it.
_KEEPS_RANK = frozenset([*(each.module_class.__name__.lower() for each in ACTIVATIONS), "batchnorm", "dropout"])


def is_rank_query(node: fx.Node) -> bool:
    """Whether a node asks for the number of dimensions of a value: ``x.ndim``, ``x.dim()``."""
    if node.op == "call_function" and node.target is getattr:
        return len(node.args) == 2 and node.args[1] == "ndim"
    return node.op == "call_method" and node.target in ("dim", "ndimension")


def rank_of(node: fx.Node) -> int | None:
    """The number of dimensions of a batch that flows here; ``None`` if nothing says it.

    From the shape where shapes were propagated, else from the nearest convolution, pooling or norm before it that has
    dimensions in its name.
    """
    current: object = node
    while isinstance(current, fx.Node):
        shape = shape_of(current)
        if shape is not None:
            return len(shape)
        name = _name(current)
        found = _OVER_DIMENSIONS.fullmatch(name)
        if found is not None:
            return int(found[1]) + 2
        if name.replace("_", "") not in _KEEPS_RANK:
            return None
        current = next(iter((*current.args, *current.kwargs.values())), None)
    return None


def _name(node: fx.Node) -> str:
    """Of the module or function that a node calls, in small letters."""
    root = node.graph.owning_module
    if node.op == "call_module" and root is not None:
        return type(root.get_submodule(str(node.target))).__name__.lower()
    return str(operation(node) or "")
