"""Which values of a graph carry numbers of inputs or learned weights, and not only positions, counts and sizes."""

import torch
from torch import fx, nn

from embedl_deploy.graph.casts import is_cast, written_type
from embedl_deploy.graph.lookup import get_constant, get_module
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import operation

#: What tells of a tensor and holds none of its values.
_TELLING = frozenset(
    {"size", "sym_size", "stride", "sym_stride", "dim", "numel", "sym_numel", "is_floating_point", "get_device"}
    | {"ones_like", "zeros_like", "full_like", "empty_like", "rand_like", "randn_like"}
    | {"new_ones", "new_zeros", "new_full", "new_empty", "new_tensor"}
)
_TELLING_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "is_cuda", "requires_grad"})


def carries_numbers(node: fx.Node) -> bool:
    """Whether a value is made of an input in floating point, a parameter, or what a module with parameters gives.

    What is made of integers, sizes and literals alone, such as a table of positions, carries none.
    """
    return node in remembered(_carrying, node.graph)


def _carrying(graph: fx.Graph) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if _carries(node, found):
            found.add(node)
    return frozenset(found)


def _carries(node: fx.Node, found: set[fx.Node]) -> bool:
    dtype = dtype_of(node)
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        return False
    if node.op == "placeholder":
        return True
    if node.op == "get_attr":
        return isinstance(get_constant(node), nn.Parameter)
    if node.op == "call_module":
        module = get_module(node)
        if module is not None and next(module.parameters(), None) is not None:
            return True
    elif tells_no_numbers(node):
        return False
    return any(value in found for value in node.all_input_nodes)


def tells_no_numbers(node: fx.Node) -> bool:
    """Whether a value is what a tensor's size, type or device tells, or made of these alone."""
    return operation(node) in _TELLING or (node.target is getattr and node.args[1] in _TELLING_ATTRIBUTES)


def is_upcast(node: fx.Node) -> bool:
    """Whether a value was cast to 32 bits or more by the model's author, whatever moved its axes afterwards."""
    while operation(node) in _MOVES and node.all_input_nodes:
        node = node.all_input_nodes[0]
    dtype = written_type(node) if is_cast(node) else None
    return dtype is not None and dtype.is_floating_point and torch.finfo(dtype).bits >= 32


#: What moves or repeats the values of its first input.
_MOVES = frozenset(
    {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "movedim"}
    | {"unsqueeze", "squeeze", "select", "slice", "getitem", "contiguous", "clone"}
    | {"expand", "expand_as", "repeat", "repeat_interleave"}
)
#: What an angle may go through before its sine is taken.
_OF_ANGLES = _MOVES | {"mul", "cat", "stack", "add", "neg", "to", "_to_copy", "float"}


def are_angles(node: fx.Node) -> bool:
    """Whether the sine or cosine of a value is taken."""
    waiting, seen = [node], {node}
    while waiting:
        for user in waiting.pop().users:
            if operation(user) in ("sin", "cos", "polar"):
                return True
            if user not in seen and operation(user) in _OF_ANGLES:
                seen.add(user)
                waiting.append(user)
    return False
