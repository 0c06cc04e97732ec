"""Shapes of the values in a graph, found without running the model.

Shapes are propagated with fake tensors: no arithmetic is done, no random number drawn, no running statistic
updated. Tensors on the meta device, which have no values, are taken for tensors on the CPU, as which they will be
loaded: so a model without weights takes real inputs. Shapes are stored where ``torch.fx.passes.shape_prop.ShapeProp``
stores them, so shapes that a user has already propagated count as well.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.fx.passes.shape_prop import _extract_tensor_metadata
from torch.utils import _pytree as pytree

from embedl_deploy.errors import FusedModuleError, InputError
from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.foreign import PRODUCTS_INSIDE, ProductsNoted, is_foreign
from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs, describe_inputs
from embedl_deploy.graph.leaf_results import result_of_leaf
from embedl_deploy.graph.lookup import has_hooks
from embedl_deploy.graph.metadata import dtype_of as dtype_of
from embedl_deploy.graph.metadata import shape_of as shape_of
from embedl_deploy.graph.placement import describe_failed_module, fused_modules_named
from embedl_deploy.graph.process_hooks import call_hooks_set_aside
from embedl_deploy.graph.weights_there import weights_not_there
from embedl_deploy.graph.wrong_inputs import layer_in_words, what_to_pass
from embedl_deploy.logs import fake_tensors_quiet
from embedl_deploy.validation.checked import checked

_logger = logging.getLogger(__name__)


class FakeInterpreter(BoundInterpreter):
    """Runs a graph on fake tensors, and writes the shape of every value into its node's ``meta``.

    Args:
        root: The module that the graph's paths start from. Not changed.
        mode: The mode of the fake tensors.
        graph: The graph; that of ``root`` if it is a graph module.
    """

    def __init__(self, root: nn.Module, mode: FakeTensorMode, graph: fx.Graph | None = None) -> None:
        super().__init__(root, graph=graph)
        self.mode = mode

    def run_node(self, n: fx.Node) -> Any:
        """The value of one node, whose inputs are in ``env``."""
        if is_foreign(n):
            with ProductsNoted() as noted:
                result = super().run_node(n)
            n.meta[PRODUCTS_INSIDE] = tuple(noted.products)
        else:
            result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            n.meta["tensor_meta"] = _extract_tensor_metadata(result)
        else:
            n.meta.pop("tensor_meta", None)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What a function gives; some have fake results in bfloat16 alone, though they compute in float32 as well."""
        try:
            return super().call_function(target, args, kwargs)
        except RuntimeError:
            given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
            kinds = {value.dtype for value in given if value.is_floating_point()}
            if len(kinds) != 1 or kinds == {torch.bfloat16}:
                raise
            (own,) = kinds
        in_other, in_own = _casts(own, torch.bfloat16), _casts(torch.bfloat16, own)
        args, kwargs = pytree.tree_map_only(torch.Tensor, in_other, (args, kwargs))
        return pytree.tree_map_only(torch.Tensor, in_own, super().call_function(target, args, kwargs))

    # Parameters and buffers become fake as well: an operation in place on a real one, such as the count of batches of
    # a batch norm in training mode, would be carried out.

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter or buffer, as a fake tensor."""
        return _to_fake(self.mode, super().get_attr(target, args, kwargs))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What a module gives, which is not changed by it."""
        module = self.fetch_attr(target)
        known = result_of_leaf(module, args, kwargs)
        if known is not None:
            return known
        tensors = (*module.named_parameters(), *module.named_buffers())
        state: dict[str, torch.Tensor] = {name: fake_of(self.mode, tensor) for name, tensor in tensors}
        # A hook may keep what it computes, as that of torch.nn.utils.weight_norm keeps the weight.
        kept = [(part.__dict__, dict(part.__dict__)) for part in module.modules() if has_hooks(part)]
        try:
            return torch.func.functional_call(module, state, args, kwargs)
        finally:
            for attributes, before in kept:
                attributes.update(before)


def _casts(dtype: torch.dtype, other: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """From tensors of one type to those of another."""
    return lambda value: value.to(other) if value.dtype is dtype else value


def fake_of(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    """A fake tensor like a real one; like one on the CPU, if that is on the meta device."""
    if not tensor.is_meta or isinstance(tensor, FakeTensor):
        return mode.from_tensor(tensor)
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")


def _to_fake(mode: FakeTensorMode, value: Any) -> Any:
    return fake_of(mode, value) if isinstance(value, torch.Tensor) else value


@checked
def propagate_shapes(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Write the shape of every value into ``node.meta["tensor_meta"]``.

    Args:
        graph_module: Changed only in its nodes' ``meta``.
        args: Example inputs, as the model is called with them.
        kwargs: Example keyword inputs.

    Returns:
        ``None``, or why shapes are unknown from some node on: a shape that depends on values, an operator that fake
        tensors do not have.

    Raises:
        InputError: The inputs do not fit the model.
        FusedModuleError: A module that a pattern put there gives something else than what it replaced.
    """
    inputs = bind_inputs(graph_module, args, kwargs)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = pytree.tree_map(lambda value: _to_fake(mode, value), inputs)
    interpreter = FakeInterpreter(graph_module, mode)
    try:
        with mode, torch.no_grad(), call_hooks_set_aside(), fake_tensors_quiet():
            interpreter.run(*fake, enable_io_processing=False)
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
        return _unknown_from(interpreter.current, error)
    except Exception as error:  # whatever the user's operators raise on inputs that do not fit them
        refusal, refusing = _refusal(graph_module, inputs, error)
        if refusal is None:
            return _unknown_from(interpreter.current, error)
        if isinstance(refusal, FusedModuleError) and refusal.__cause__ is None and refusal is not error:
            raise refusal from error  # a module of a pattern gives what the one that raises cannot take
        node, told = interpreter.current, error
        if refusing is not None and node is not None and refusing.name != node.name:
            node, told = refusing, refusal  # fake tensors take types that real ones do not
        where = "" if node is None else f" at {layer_in_words(node, graph_module)}"
        placed = describe_failed_module(told)
        where += f", in {placed}" if placed else ""
        reason = str(told).partition("\n\nWhile executing")[0]  # fx appends its own account of the place
        not_accepted = f"The model does not accept the inputs{where}"
        raise InputError(
            f"{not_accepted}: {reason.rstrip('.')}. Given: {describe_inputs(args, kwargs)}. "
            f"{what_to_pass(graph_module, args, kwargs)}",
            fault=f"{not_accepted}: {getattr(told, 'fault', '') or reason.rstrip('.')}",
        ) from error
    return None


def _unknown_from(node: fx.Node | None, error: Exception) -> str:
    note = f"shapes are unknown from {node.name if node else 'the start'!r} on: {type(error).__name__}"
    _logger.warning("%s", note)
    return note


def _refusal(
    graph_module: fx.GraphModule, inputs: list[Any], error: Exception
) -> tuple[Exception | None, fx.Node | None]:
    """What a copy of the graph raises on these inputs, real ones, and at which node; ``None`` if it runs.

    A model without weights cannot tell: what fake tensors raised counts.
    """
    if weights_not_there(graph_module):
        return error, None
    copy = deep_copy(graph_module)
    interpreter = BoundInterpreter(copy)
    try:
        with torch.no_grad(), random_numbers_kept(), fused_modules_named(copy):
            interpreter.run(*inputs, enable_io_processing=False)
    except Exception as refusal:  # noqa: BLE001 - the user's operators may raise anything; the caller tells what fake tensors raised
        return refusal, interpreter.current
    return None, None
