"""A model's inputs: which of a graph's placeholders takes which, and how messages describe them."""

import inspect
from typing import Any

import torch
from torch import fx, nn
from torch.fx._pytree import tree_flatten_spec
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.graph.exported_inputs import check_exported_inputs
from embedl_deploy.graph.fixed_inputs import FIXED_INPUTS, without_fixed
from embedl_deploy.graph.wrong_inputs import described, require_no_arrays, wrong_names


class BoundInterpreter(fx.Interpreter):
    """Runs a graph as its generated code would, on inputs from :func:`bind_inputs`.

    Attributes:
        current: The node that is computed, or was the last to be.
    """

    current: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """The value of one node."""
        self.current = n
        return super().run_node(n)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The next input; one for all of ``*args``, and one for all of ``**kwargs``."""
        return next(self.args_iter)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function with lists and dictionaries of its own, which it may change."""
        return super().call_function(target, *_mutable((args, kwargs)))


def _mutable(value: Any) -> Any:
    """Lists and dictionaries in place of the immutable ones that a graph's nodes hold."""
    if isinstance(value, immutable_list):
        return [_mutable(item) for item in value]
    if isinstance(value, immutable_dict):
        return {key: _mutable(item) for key, item in value.items()}
    return tuple(map(_mutable, value)) if type(value) is tuple else value


def _flatten_as_exported(codegen: fx.graph._PyTreeCodeGen, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Inputs in the order of an exported graph's placeholders, which are the leaves of nested inputs."""
    spec = codegen.pytree_info.in_spec
    # torch.export records positional and keyword inputs, symbolic tracing with nested inputs positional ones only.
    parts = spec.children()
    by_name = len(parts) == 2 and parts[1].type is dict
    if by_name:
        args, kwargs = _as_exported(codegen, len(parts[0].children()), args, kwargs)
    nested = (args, kwargs) if by_name else args
    try:
        return list(tree_flatten_spec(nested, spec))
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"The model was exported for inputs of another structure than {describe_inputs(args, kwargs)}: {error}. "
            "Pass args and kwargs as it was exported."
        ) from error


def _as_exported(
    codegen: fx.graph._PyTreeCodeGen, positional: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs by place and by name as they were exported, however they are given: as the graph's forward takes them.

    Raises:
        InputError: An input is given twice.
    """
    names = [name for name in codegen.pytree_info.orig_args if name != "self"]
    given = dict(zip(names, args, strict=False))
    values = {**given, **kwargs}
    twice = sorted(given.keys() & kwargs.keys())
    if twice:
        raise InputError(f"The inputs {describe_inputs(args, kwargs)} have {twice[0]} twice. Give it once.")
    if len(given) < len(args) or not values.keys() >= set(names[:positional]):
        return args, kwargs
    return tuple(values.pop(name) for name in names[:positional]), values


def tensors_in(*values: Any) -> list[torch.Tensor]:
    """The tensors in values, in order, whatever tuples and dictionaries hold them."""
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def require_samples(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse inputs without a sample: of what is computed from nothing, nothing can be said.

    Raises:
        InputError: There are tensors, and dimension 0 of each is empty.
    """
    tensors = [tensor for tensor in tensors_in(args, kwargs) if tensor.dim() > 0]
    if tensors and all(tensor.shape[0] == 0 for tensor in tensors):
        raise InputError(f"the inputs {describe_inputs(args, kwargs)} hold no sample. Pass at least one.")


def describe_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Shapes and dtypes of example inputs, for messages; of those in containers as well."""
    parts = [*map(described, args), *(f"{name}={described(value)}" for name, value in kwargs.items())]
    return f"({', '.join(parts)})"


def bind_inputs(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arrange example inputs in the order of the graph's placeholders.

    Raises:
        InputError: Too many or too few inputs, a keyword that the model does not take, an input that is fixed, or a
            NumPy array.
    """
    require_no_arrays(args, kwargs)
    args, kwargs = without_fixed(graph_module, args, kwargs)
    codegen = graph_module.graph._codegen
    if isinstance(codegen, fx.graph._PyTreeCodeGen):
        check_exported_inputs(graph_module, args, kwargs)
        return _flatten_as_exported(codegen, args, kwargs)
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    starred = [str(node.target) for node in placeholders if str(node.target).startswith("*")]
    names = [str(node.target) for node in placeholders if node.target not in starred]
    values = dict(zip(names, args, strict=False))
    more = {name: value for name, value in kwargs.items() if name not in names}
    twice = [name for name in kwargs if name in values]
    values.update(kwargs)
    for name in starred:
        values[name] = more if name.startswith("**") else args[len(names) :]
    is_taken = {name.count("*") for name in starred}
    unknown = [] if 2 in is_taken else list(more)
    missing = [str(n.target) for n in placeholders if str(n.target) not in values and not n.args]
    count = 0 if 1 in is_taken else len(args)
    if count > len(names) or unknown or twice or missing:
        raise InputError(wrong_names(names, describe_inputs(args, kwargs), count, missing, unknown, twice))
    return [values.get(str(node.target), node.args[0] if node.args else None) for node in placeholders]


def names_of_inputs(graph_module: fx.GraphModule) -> tuple[str, ...] | None:
    """The inputs that a graph's model takes by name, in order; ``None`` if it takes any.

    Those that the graph is fixed to are among them: the model may be called with them.
    """
    codegen = graph_module.graph._codegen
    if isinstance(codegen, fx.graph._PyTreeCodeGen):
        return tuple(name for name in codegen.pytree_info.orig_args if name != "self")
    names = [str(node.target) for node in graph_module.graph.find_nodes(op="placeholder")]
    fixed = graph_module.meta.get(FIXED_INPUTS)
    if any(name.startswith("*") for name in names):
        return None
    return tuple(dict.fromkeys((*names, *(fixed.values if fixed is not None else ()))))


def require_one_by_one(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], function: str) -> None:
    """Refuse inputs that are in one container where the model takes what is in it.

    Args:
        model: The model.
        args: Its inputs.
        kwargs: Its keyword inputs.
        function: What was called with them.

    Raises:
        InputError: They are.
    """
    if kwargs or len(args) != 1 or not isinstance(args[0], (tuple, list, dict)):
        return
    signature, inside = inspect.signature(model.forward), args[0]
    if _fits(signature, (inside,), {}):
        return
    named = {str(name): value for name, value in inside.items()} if isinstance(inside, dict) else {}
    if not inside or not _fits(signature, () if named else tuple(inside), named):
        return
    names = [f"{name}={name}" for name in named] or list(signature.parameters)[: len(inside)]
    raise InputError(
        f"{function} was given one {type(inside).__name__}, and {type(model).__name__} takes what is in it: pass the "
        f"inputs one by one, {function}({', '.join(names)})."
    )


def _fits(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
