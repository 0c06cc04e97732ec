"""Keeps ``torch.nn`` modules whole in ``torch.export``, so that its graphs look like those of ``torch.fx``.

While a model is exported, each call of a leaf is one call of an operator of this package, which computes on fake
tensors what the leaf would. Afterwards it becomes a ``call_module`` node under the leaf's own path, with the arguments
that the model's code gave it. So a graph holds the modules that the user wrote; and exporting takes half the time,
because torch does not look into them.

A function that a library has told ``torch.fx`` to keep whole (``torch.fx.wrap``) is a leaf as well where a pattern
knows it; of others nothing would be seen.

A call goes through to the leaf's own code, which is exported as any other, where one node would not do: the types of
values are chosen by ``torch.autocast``, it is under ``torch.vmap`` or the like, or it is given something else than
tensors, numbers, texts and structures of them.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import FunctionType
from typing import Any, cast

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import _wrapped_fns_to_patch
from torch.fx.node import has_side_effect
from torch.utils import _pytree as pytree

from embedl_deploy.capture.operand_types import OperandsOfOneType
from embedl_deploy.containers.paths import leaves_with_paths
from embedl_deploy.graph.leaf_results import result_of_leaf
from embedl_deploy.modules import LeafTracer

_PLAIN = (int, float, bool, str, complex, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout)
_DEVICES = ("cpu", "cuda", "mps", "xpu")

_library: Any = torch.library.Library("embedl_deploy", "FRAGMENT")  # type: ignore[no-untyped-call]  # and kept: torch
# forgets the operator when the object goes
_library.define("leaf_call(Tensor[] tensors, SymInt[] sizes, int key) -> Tensor[]")
#: The calls of the models that are being exported, by their key.
_calls: dict[int, "_Call"] = {}
_keys = count()


@dataclass
class _Call:
    """One call of a leaf.

    Attributes:
        leaf: The leaf's path, or the function that is one.
        compute: The leaf's own code.
        module: The leaf, if it is a module.
        values: The leaves of the structure of its arguments; what flows in has been left out.
        form: That structure: positional arguments and keyword ones.
        tensors: Where tensors belong in ``values``.
        sizes: Where sizes that are not known belong.
        outputs: The paths of the tensors in what it returns.
        returned: What it returns, on fake tensors.
    """

    leaf: str | Callable[..., Any]
    compute: Callable[..., Any]
    module: nn.Module | None
    values: list[Any]
    form: pytree.TreeSpec
    tensors: list[int]
    sizes: list[int]
    outputs: list[pytree.KeyPath] = field(default_factory=list)
    returned: Any = None

    def arguments(self, tensors: Sequence[Any], sizes: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call with these values in the places of those that flow in."""
        values = list(self.values)
        for at, value in (*zip(self.tensors, tensors, strict=True), *zip(self.sizes, sizes, strict=True)):
            values[at] = value
        args, kwargs = pytree.tree_unflatten(values, self.form)
        return args, kwargs

    def run(self, tensors: Sequence[torch.Tensor], sizes: Sequence[Any]) -> list[torch.Tensor]:
        """Compute it; the tensors that it returns."""
        args, kwargs = self.arguments(tensors, sizes)
        known = None if self.module is None else result_of_leaf(self.module, args, kwargs)
        self.returned = self.compute(*args, **kwargs) if known is None else known
        found = [(p, v) for p, v in leaves_with_paths(self.returned) if isinstance(v, torch.Tensor)]
        self.outputs = [path for path, _ in found]
        # An operator may not return what it was given; the leaf may, and does so again in the graph.
        given = {id(tensor) for tensor in tensors}
        return [value.clone() if id(value) in given else value for _, value in found]


def _run(tensors: list[torch.Tensor], sizes: list[Any], key: int) -> list[torch.Tensor]:
    return _calls[key].run(tensors, sizes)


_library.impl("leaf_call", _run, "CompositeExplicitAutograd")
torch.library.register_fake("embedl_deploy::leaf_call", _run, lib=_library)
_operator = torch.ops.embedl_deploy.leaf_call.default
has_side_effect(_operator)  # the leaf may write to its input


@contextmanager
def leaves_kept_whole(
    model: nn.Module,
    leaf_modules: Iterable[type[nn.Module]],
    is_leaf_function: Callable[[Callable[..., Any]], bool] | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[None]:
    """Within the block, an export of ``model`` holds one call for each call of a leaf. One thread at a time.

    Args:
        model: The model.
        leaf_modules: Classes of leaves, beside those of ``torch.nn``.
        is_leaf_function: Of the functions that ``torch.fx`` keeps whole, which are kept here.
        dtype: The model's type, in which layers get their inputs.
    """
    tracer = LeafTracer(leaf_modules)
    leaves = [
        (path, leaf)
        for path, leaf in model.named_modules()
        if path and leaf._compiled_call_impl is None and tracer.is_leaf_module(leaf, path)
    ]
    wrapped: Any = ((scope, name, scope.get(name)) for (_, name), scope in _wrapped_fns_to_patch.items())
    is_leaf = (lambda function: False) if is_leaf_function is None else is_leaf_function
    functions = [each for each in wrapped if isinstance(each[2], FunctionType) and is_leaf(each[2])]
    first = next(_keys)
    try:
        for path, leaf in leaves:  # what nn.Module.__call__ asks first
            leaf._compiled_call_impl = _standing_for(path, leaf._call_impl, leaf, dtype)
        for scope, name, function in functions:
            scope[name] = _standing_for(function, function)
        yield
    finally:
        for scope, name, function in functions:
            scope[name] = function
        for _, leaf in leaves:
            leaf._compiled_call_impl = None
        for key in [key for key in _calls if key > first]:
            del _calls[key]


def _standing_for(
    leaf: str | Callable[..., Any],
    own: Callable[..., Any],
    module: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> Callable[..., Any]:
    """What is called in place of a leaf, whose forward and hooks are ``own``."""
    operands = None if module is None or dtype is None else OperandsOfOneType(dtype)

    def call(*args: Any, **kwargs: Any) -> Any:
        if module is not None and operands is not None:
            args, kwargs = operands.of_layer(module, args, kwargs)
        values, form = pytree.tree_flatten((args, kwargs))
        tensors = [at for at, value in enumerate(values) if isinstance(value, torch.Tensor)]
        sizes = [at for at, value in enumerate(values) if isinstance(value, torch.SymInt)]
        known = all(isinstance(value, (torch.Tensor, torch.SymInt, *_PLAIN)) for value in values)
        if not tensors or not known or _is_in_a_context():
            return own(*args, **kwargs)
        kept = [None if isinstance(value, (torch.Tensor, torch.SymInt)) else value for value in values]
        made = _Call(leaf, own, module, kept, form, tensors, sizes)
        key = next(_keys)
        _calls[key] = made
        found = iter(_operator([values[at] for at in tensors], [values[at] for at in sizes], key))
        return pytree.tree_map_only(torch.Tensor, lambda _: next(found), made.returned)

    return call


def _is_in_a_context() -> bool:
    """Whether what is computed depends on more than the leaf and its arguments."""
    return torch._C._functorch.peek_interpreter_stack() is not None or any(map(torch.is_autocast_enabled, _DEVICES))


def call_the_leaves(graph_module: fx.GraphModule, model: nn.Module) -> None:
    """Put a call of its leaf in place of each call that stands for one, also in the graphs inside.

    The graphs are in the model's mode, whatever mode torch.export has put them in, and leaves in their own.

    Args:
        graph_module: What was exported, within :func:`leaves_kept_whole`; changed in place.
        model: The model that was.
    """
    for part in graph_module.modules():
        part.training = model.training
    for part in [part for part in graph_module.modules() if isinstance(part, fx.GraphModule)]:
        for node in part.graph.find_nodes(op="call_function", target=_operator):
            call = _calls[cast("int", node.args[2])]
            if isinstance(call.leaf, str):
                part.add_submodule(call.leaf, model.get_submodule(call.leaf))
            _replace(node, call)
        for read in part.graph.find_nodes(op="get_attr"):
            if not read.users:  # the leaf reads it
                part.graph.erase_node(read)
        part.recompile()


def _replace(node: fx.Node, call: _Call) -> None:
    graph = node.graph
    tensors, sizes, _ = node.args
    args, kwargs = call.arguments(cast("list[Any]", tensors), cast("list[Any]", sizes))
    with graph.inserting_before(node):
        leaf = call.leaf
        new = (
            graph.call_module(leaf, args, kwargs) if isinstance(leaf, str) else graph.call_function(leaf, args, kwargs)
        )
    new.meta = {**node.meta, "val": call.returned}
    for use in list(node.users):
        path = call.outputs[cast("int", use.args[1])]
        value = new
        with graph.inserting_before(use):
            for key in path:
                value = _item(value, key)
        if value is not new:
            value.meta = dict(use.meta)
        use.replace_all_uses_with(value)
        graph.erase_node(use)
    graph.erase_node(node)


def _item(value: fx.Node, key: Any) -> fx.Node:
    """One step on the way to a tensor in what a leaf returns."""
    graph = value.graph
    if isinstance(key, pytree.GetAttrKey):
        return graph.call_function(getattr, (value, key.name))
    return graph.call_function(operator.getitem, (value, key.key if isinstance(key, pytree.MappingKey) else key.idx))
