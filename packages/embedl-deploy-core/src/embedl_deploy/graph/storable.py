"""A graph module that can be pickled without changing.

fx stores generated code and traces it again when it is loaded: nodes lose their metadata, the model its notes, and the
tracer is one that was not made to be used twice. Here the nodes themselves are stored.
"""

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx.node import map_aggregate
from torch.nn.utils import parametrizations, parametrize

from embedl_deploy.errors import InputError
from embedl_deploy.graph.exported_inputs import check_exported_inputs
from embedl_deploy.graph.fixed_inputs import without_fixed

_INSTEAD = "Save a quantized model as quantization_recipe(model).to_json() and model.state_dict(), without code."


@dataclass(frozen=True)
class _Reference:
    """Stands for a node in the arguments of another."""

    name: str


@dataclass(frozen=True)
class _Operator:
    """Stands for an operator of ``torch.ops``, such as ``aten::add.Tensor``."""

    name: str

    @staticmethod
    def of(target: OpOverload | OpOverloadPacket) -> "_Operator":
        """What stands for an operator, or for all of its overloads."""
        name = target.name() if isinstance(target, OpOverload) else target._qualified_op_name  # type: ignore[no-untyped-call]
        return _Operator(name)

    def find(self) -> Any:
        """The operator."""
        namespace, _, name = self.name.partition("::")
        found = getattr(torch.ops, namespace)
        for part in name.split("."):
            found = getattr(found, part)
        return found


class StorableGraphModule(fx.GraphModule):
    """A graph module that pickles its graph: names, arguments and metadata of nodes, and the notes in ``meta``.

    It is called as the model that it was captured from.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph.

        Raises:
            InputError: An input that the graph is fixed to a value of is given, and is another; or inputs are of
                another structure than those that torch.export was given.
        """
        args, kwargs = without_fixed(self, args, kwargs)
        check_exported_inputs(self, args, kwargs)
        return super().__call__(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``pickle`` and ``torch.save``.

        Raises:
            InputError: The graph calls, or a part of the model holds, something that cannot be pickled, such as a hook
                that was defined in a function; or a part is parametrized, or is a check of inputs by torch.export.
        """
        for path, part in self.named_modules():
            if parametrize.is_parametrized(part):
                raise InputError(
                    f"{type(self).__name__} cannot be pickled: {path!r} is parametrized, and its class exists in this "
                    f"process alone. Call torch.nn.utils.parametrize.remove_parametrizations first. {_INSTEAD}"
                )
            if not _can_be_dumped(vars(part).get("forward")):
                raise InputError(
                    f"{type(self).__name__} cannot be pickled: the forward of {path!r} is a function that was made in "
                    "this process, as torch.export makes them to check inputs. Transform the model symbolically, "
                    f"trace='symbolic'. {_INSTEAD}"
                )
            _drop_stale_hooks(part)
            for name, value in _functions_in(part):
                if not _can_be_dumped(value):
                    raise InputError(
                        f"{type(self).__name__} cannot be pickled: {name!r} of {path!r} holds "
                        f"{getattr(value, '__qualname__', value)!r}, which has no pickle. Define functions at the top "
                        f"of a module, or remove the hook. {_INSTEAD}"
                    )
        state = {name: value for name, value in vars(self).items() if name not in ("_graph", "_code", "_tracer_cls")}
        nodes = [_stored_node(node, type(self).__name__) for node in self.graph.nodes]
        return _restored, (type(self).__name__, state, nodes, self.graph._codegen)


def _drop_stale_hooks(part: nn.Module) -> None:
    """Forget what torch's weight norm leaves behind when it is removed: a function without a pickle.

    It renames tensors of an older ``state_dict`` for a parametrization that is there no longer.
    """
    hooks = part._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        if getattr(_unwrapped(hook), "__module__", "") == parametrizations.__name__:
            del hooks[key]


def _functions_in(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module that are functions, and its hooks: attribute and function."""
    for name, value in vars(part).items():
        if name.endswith("_hooks") and isinstance(value, dict):
            yield from ((name, _unwrapped(hook)) for hook in value.values())
        elif isinstance(value, FunctionType):
            yield name, value


def _unwrapped(hook: Any) -> Any:
    return getattr(hook, "hook", hook)


def _stored_node(node: fx.Node, model: str) -> bytes:
    """A node as a pickle of its own: ``torch.save`` has an old protocol, in which not every function has a name."""
    target = node.target
    named = _Operator.of(target) if isinstance(target, (OpOverload, OpOverloadPacket)) else target
    arguments = map_aggregate((node.args, node.kwargs), _without_nodes)
    try:
        _dumped((named, arguments))
    except Exception as error:  # pickling runs code of any class
        raise InputError(
            f"{model} cannot be pickled: node {node.name!r} calls {target!r} with what has no pickle: {error}. Define "
            f"functions at the top of a module. {_INSTEAD}"
        ) from error
    meta = {key: value for key, value in node.meta.items() if _can_be_dumped(value)}
    annotation = node.type if _can_be_dumped(node.type) else None
    return _dumped((node.op, named, arguments, node.name, annotation, meta))


def _without_nodes(part: Any) -> Any:
    return _Reference(part.name) if isinstance(part, fx.Node) else part


class _Plain(pickle.Pickler):
    """A pickler for nodes."""

    def reducer_override(self, value: Any) -> Any:
        """Refuse tensors, as fake ones in metadata cannot be read back; name torch's constants by where they live.

        A ``torch.memory_format`` is named by itself as ``"torch.contiguous_format"``, and pickle takes the first module
        that has a ``torch``: any script's.
        """
        if isinstance(value, torch.Tensor):
            raise pickle.PicklingError(f"a {type(value).__name__}")
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return _constant_of_torch, (str(value).removeprefix("torch."),)
        return NotImplemented


def _constant_of_torch(name: str) -> Any:
    return getattr(torch, name)


def _dumped(value: Any) -> bytes:
    stream = io.BytesIO()
    _Plain(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def _can_be_dumped(value: Any) -> bool:
    try:
        _dumped(value)
    except Exception:  # noqa: BLE001 - as above; metadata does not decide what is computed
        return False
    return True


def _restored(name: str, state: dict[str, Any], nodes: list[bytes], codegen: Any) -> StorableGraphModule:
    """The graph module that was pickled."""
    graph, made = fx.Graph(), dict[str, fx.Node]()
    graph.set_codegen(codegen)
    for stored in nodes:
        op, target, arguments, node_name, annotation, meta = pickle.loads(stored)
        args, kwargs = map_aggregate(arguments, lambda part: made[part.name] if isinstance(part, _Reference) else part)
        target = target.find() if isinstance(target, _Operator) else target
        made[node_name] = graph.create_node(op, target, args, kwargs, node_name, annotation)
        made[node_name].meta = meta
    module = StorableGraphModule(nn.Module(), fx.Graph(), name)
    vars(module).update(state)
    module.graph = graph
    return module
