"""Capture for export, without the exporter's own pass over operators that need no decomposition.

``torch.onnx.export`` traces every program a second time to decompose operators and to take out operations in place.
For a network of ordinary layers that changes two kinds of node and takes a third of the export's time, so it is done
here, node by node, where nothing else is in the graph.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn

from embedl_deploy.export.folding import LARGEST

if TYPE_CHECKING:
    import onnx_ir

aten: Any = torch.ops.aten

#: Operators that torch makes of others, and that the exporter translates as they stand.
_KEPT = frozenset(
    {
        *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
        *(aten.linear.default, aten.matmul.default, aten.scaled_dot_product_attention.default),
        *(aten.pad.default, aten.softmax.int, aten.layer_norm.default, aten.max_pool2d.default),
        *(aten.flatten.using_ints, aten.reshape.default),
    }
)
#: Operators with a result of their own: what overwrites it overwrites nothing else.
_FRESH = frozenset({aten.conv2d.default, aten.linear.default, aten.add.Tensor})
_WITHOUT_OVERWRITING = {
    aten.relu_.default: aten.relu.default,
    aten.silu_.default: aten.silu.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
}
_WRITTEN_OUT = {
    aten.__and__.Tensor: aten.bitwise_and.Tensor,
    aten.__or__.Tensor: aten.bitwise_or.Tensor,
    aten.__xor__.Tensor: aten.bitwise_xor.Tensor,
}
_CONVERSIONS = frozenset({aten.to.dtype, aten.to.dtype_layout, aten.to.device})


def captured(model: nn.Module, example: tuple[Any, ...], named: dict[str, Any]) -> torch.export.ExportedProgram:
    """A program for ``torch.onnx.export``, for the sizes of the example inputs."""
    program = torch.export.export(model, example, named or None, strict=False)
    program.run_decompositions = functools.partial(_decomposed, program)
    return program


def simplify(model: "onnx_ir.Model") -> None:
    """Fold constants, drop what is not used, and merge paddings, batch norms and layouts into neighbours.

    The exporter's own optimizer tries dozens of rules more, twice over. Those are for what fusions have done already
    or for sizes that are computed from an open batch; here they find nothing, in most of the export's time.
    """
    import onnx_ir.passes
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common as rules

    common.InlinePass()(model)
    fold_constants(model, onnx_shape_inference=True, input_size_limit=LARGEST)
    merging = (
        *(rules.flatten_to_reshape_rule, rules.reshape_reshape_rule, rules.unsqueeze_unsqueeze_rule),
        *(rules.transpose_transpose_rule, rules.no_op_transpose_rule, rules.cast_cast_rule, rules.no_op_cast_rule),
        *(rules.fuse_pad_into_conv_rule, rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_gemm_rule),
        *(rules.fuse_batchnorm_into_conv_transpose_rule, rules.remove_optional_bias_from_conv_rule),
    )
    rewrite(model, merging)
    onnx_ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveUnusedNodesPass(),  # eight-bit numbers, of which four are stored
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def _decomposed(
    program: torch.export.ExportedProgram, table: Mapping[Any, Callable[..., Any]]
) -> torch.export.ExportedProgram:
    """The program in terms of what the exporter translates; takes the place of ``run_decompositions``."""
    calls: list[Any] = [node for node in program.graph.nodes if node.op == "call_function"]
    kept = [node for node in calls if node.target is not aten._assert_tensor_metadata.default]
    replacements = [found for node in kept if (found := _replacement(node, table)) is not None]
    if len(replacements) < len(kept):
        whole: torch.export.ExportedProgram = torch.export.ExportedProgram.run_decompositions(program, dict(table))
        return whole
    for node in calls:
        if node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    for node, (target, args, kwargs) in zip(kept, replacements, strict=True):
        node.target, node.args, node.kwargs = target, args, kwargs
    return program


#: An operator, and what it is called with.
_Call: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]


def _replacement(node: fx.Node, table: Mapping[Any, Any]) -> _Call | None:
    """The operator and arguments to export for a node; ``None`` for what only a second tracing can tell."""
    target: Any = node.target
    args: tuple[Any, ...] = node.args
    if target in _WITHOUT_OVERWRITING:
        if args[0].target in _FRESH and len(args[0].users) == 1:
            return _WITHOUT_OVERWRITING[target], args, node.kwargs
        return None
    if target in _WRITTEN_OUT:
        return _WRITTEN_OUT[target], args, node.kwargs
    if target is aten.dropout.default:
        return None if args[2] else (aten.clone.default, args[:1], {})
    if target in _CONVERSIONS:
        of, to = (each.meta["val"].dtype for each in (args[0], node))
        return (aten.clone.default, args[:1], {}) if of is to else (aten._to_copy.default, args[:1], {"dtype": to})
    return (target, args, node.kwargs) if target not in table and _stays(target) else None


def _stays(target: Any) -> bool:
    """Whether a second tracing leaves an operator as it is: it overwrites nothing, and is not made of others."""
    if target is operator.getitem or target in _KEPT:
        return True
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    name: str = target.name()  # type: ignore[no-untyped-call]  # of torch
    return not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")
