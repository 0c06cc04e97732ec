"""Replaces constants that a floating-point type cannot represent, in a program to be exported."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from embedl_deploy.export.constants import MAKING_MASKS, Replaced, bound_of_sums, fitting, stand_in
from embedl_deploy.export.operands import CONVERSIONS, NARROW, name_of, type_of_call, with_scalars
from embedl_deploy.graph.metadata import module_path_of

aten: Any = torch.ops.aten

#: What masks are made with in another type, before they are converted.
_MAKING_MASKS = frozenset(
    {
        *(*MAKING_MASKS, "triu", "tril", "rsub"),
        *("expand", "view", "reshape", "unsqueeze", "squeeze", "slice", "select", "permute", "transpose"),
        *("lift_fresh_copy", "lift_fresh", "detach", "clone", "alias"),
    }
)


def fit_program(program: ExportedProgram, tensors: Iterable[Replaced] = ()) -> list[Replaced]:
    """Give the operators of a program constants that fit, in place, and bound what is summed with masks.

    Args:
        program: As ``torch.export`` made it.
        tensors: What was replaced in the program's parameters, buffers and inputs.

    Returns:
        What was replaced in its operators.
    """
    replaced: list[Replaced] = []
    masks = _masks_among(program, {each.tensor for each in tensors if each.masks})
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in list(module.graph.nodes):
                if not isinstance(node.target, torch._ops.OpOverload):
                    continue
                for changed, found in _fit_node(node, program):
                    replaced.append(found)
                    if found.masks:
                        masks.add(changed)
            _bound_sums(module.graph, masks)
    return replaced


def _fit_node(node: fx.Node, program: ExportedProgram) -> Iterator[tuple[fx.Node, Replaced]]:
    """Each node whose constants were changed, and what was replaced there."""
    target: Any = node.target
    name = name_of(target)
    tensors = pytree.tree_map(lambda v: v.meta.get("val") if isinstance(v, fx.Node) else v, (node.args, node.kwargs))
    dtype = _narrow(node) if name in CONVERSIONS else type_of_call(*tensors)
    if dtype is None:
        return
    node.args, node.kwargs, found = with_scalars(target, node.args, node.kwargs, dtype)
    yield from ((node, Replaced(*pair, _place(node))) for pair in found)
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype in NARROW:
            continue
        if name in CONVERSIONS or value.dim() == 0:
            yield from _fit_source(source, dtype, name, program, set())


def _narrow(node: fx.Node) -> torch.dtype | None:
    """The type of a node's value, if it is a narrow one."""
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) and value.dtype in NARROW else None


def _fit_source(
    node: fx.Node, dtype: torch.dtype, operator: str, program: ExportedProgram, seen: set[fx.Node]
) -> Iterator[tuple[fx.Node, Replaced]]:
    """Fit the constants that a value is made of in another type."""
    if node in seen:
        return
    seen.add(node)
    if node.op == "placeholder":
        name = program.graph_signature.inputs_to_lifted_tensor_constants.get(node.name)
        constant = program.constants.get(name or "")
        if isinstance(constant, torch.Tensor) and constant.numel() == 1 and constant.is_floating_point():
            value = float(constant)
            by = fitting(value, dtype, operator)
            if by != value:
                program.constants[str(name)] = torch.full_like(constant, by)
                yield node, Replaced(value, by, "a tensor that forward makes")
    elif isinstance(node.target, torch._ops.OpOverload) and name_of(node.target) in _MAKING_MASKS:
        node.args, node.kwargs, found = with_scalars(node.target, node.args, node.kwargs, dtype)
        yield from ((node, Replaced(*pair, _place(node))) for pair in found)
        for source in node.all_input_nodes:
            tensor = source.meta.get("val")
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                yield from _fit_source(source, dtype, operator, program, seen)


def _masks_among(program: ExportedProgram, tensors: Collection[str]) -> set[fx.Node]:
    """The placeholders of masks: of tensors of the model, of inputs, of what forward assigns."""
    signature, nodes = program.graph_signature, {node.name: node for node in program.graph.nodes}
    states = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {placeholder for placeholder, name in states.items() if name in tensors}
    found |= {name for index, name in enumerate(signature.user_inputs) if f"input {index}" in tensors}
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        constant = program.constants.get(name)
        if isinstance(constant, torch.Tensor) and constant.dtype in NARROW and constant.numel() == 1:
            found |= {placeholder} if float(constant) == -stand_in(constant.dtype) else set()
    return {nodes[str(name)] for name in found}


def _bound_sums(graph: fx.Graph, masks: set[fx.Node]) -> None:
    """Bound what values are summed with masks from below, so that all that is masked is equal."""
    for node in list(graph.nodes):
        name = name_of(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""
        tensors = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]
        masking = [source in masks for source in tensors]
        dtype = _narrow(node)
        if name == "add" and dtype is not None and any(masking) and not all(masking):
            _bound_sum(graph, node, dtype)
        elif any(masking) and name in _MAKING_MASKS | CONVERSIONS | {"add", "cat", "index_put"}:
            masks.add(node)


def _bound_sum(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> None:
    if any(user.op == "output" for user in node.users):
        return  # it has the name of an output; nothing reads it as scores
    target: Any = node.target
    with graph.inserting_after(node):
        operator = aten.clamp_.default if target._schema.is_mutable else aten.clamp.default
        bounded = graph.call_function(operator, (node, bound_of_sums(dtype)))
    bounded.meta = dict(node.meta)
    node.replace_all_uses_with(bounded, delete_user_cb=lambda user: user is not bounded)


def _place(node: fx.Node) -> str:
    path = module_path_of(node)
    return f"{name_of(node.target)} of module {path!r}" if path else f"{name_of(node.target)} of forward"
