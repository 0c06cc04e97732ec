"""The rule about operators. Its limits are those of ``limits.py``, asked about modules made from the nodes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from embedl_deploy.artifact import array, attribute, fixed_sizes_of, input_of, sizes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_sensai_stub.kernels import BEHIND, WEIGHTED, adds_constant, computes, node_before
from embedl_deploy_sensai_stub.limits import ENGINE, conv_limit, linear_limit, max_pool_limit, times

if TYPE_CHECKING:
    import onnx_ir as ir


class EngineOperators(Rule):
    """SENSAI-04. Which limits are documented and which are assumed is in the README."""

    id = "SENSAI-04"
    severity = Severity.ERROR
    title = "The engine supports every operator in this form."
    remedy = "Replace the layer with one that the engine supports; transform(...).report names the layer in PyTorch."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every node that computes on data, not on sizes or constants only."""
        for node in model.graph.all_nodes():
            if computes(node) and node_before(node) is None:
                yield from self._of(node)

    def _of(self, node: "ir.Node") -> Iterator[Violation | Undecided]:
        reason: str | None = ENGINE
        if node.op_type in WEIGHTED:
            if fixed_sizes_of(input_of(node, 1)) is None:
                yield Undecided(node, "the shape of its weight is not known")
                return
            reason = _conv(node) if node.op_type == "Conv" else _linear(node)
        elif node.op_type == "MaxPool":
            reason = _max_pool(node)
        elif node.op_type == "Add" and not adds_constant(node):
            reason = _add(node)
        elif node.op_type == "GlobalAveragePool":
            reason = None
        elif node.op_type == "ReduceMean":
            reason = _mean(node)
        elif node.op_type in BEHIND:
            reason = f"the engine supports it only directly after {' or '.join(BEHIND[node.op_type])}"
        elif node.op_type == "BatchNormalization":
            reason = "the engine has it as part of a convolution's weight; export_onnx folds it when it is quantized"
        if reason is not None:
            yield Violation(node, f"{node.op_type}: {reason}")


def _conv(node: "ir.Node") -> str | None:
    shape = fixed_sizes_of(input_of(node, 1)) or ()
    if len(shape) != 4:
        return "the engine has only two-dimensional convolutions"
    groups = attribute(node, "group", 1)
    stride, dilation = (tuple(attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
    module = nn.Conv2d(shape[1] * groups, shape[0], shape[2:], stride, 0, dilation, groups, device="meta")
    return conv_limit(module)


def _linear(node: "ir.Node") -> str | None:
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    for name, value in usual.items():
        if (found := attribute(node, name, value)) != value:
            return f"{name} is {found:g}; the engine has {value:g}"
    return linear_limit(sizes_of(input_of(node, 0)))


def _max_pool(node: "ir.Node") -> str | None:
    kernel = tuple(attribute(node, "kernel_shape", ()))
    pads = tuple(attribute(node, "pads", (0, 0, 0, 0)))
    if len(kernel) != 2 or pads[:2] != pads[2:]:
        return "the engine pools only 2×2 maxima with stride 2"
    stride, dilation = (tuple(attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
    ceil = bool(attribute(node, "ceil_mode", 0))
    return max_pool_limit(nn.MaxPool2d(kernel, stride, pads[:2], dilation, len(node.outputs) > 1, ceil))


def _add(node: "ir.Node") -> str | None:
    shapes = [sizes_of(value) for value in node.inputs]
    first, second = shapes[0], shapes[1]
    if first is None or second is None or first == second:
        return None
    return f"it adds {times(first)} and {times(second)}; the engine adds maps of one shape"


def _mean(node: "ir.Node") -> str | None:
    axes = attribute(node, "axes", None)
    if axes is None:
        stored = array(input_of(node, 1))
        axes = [] if stored is None else stored.tolist()
    sizes = sizes_of(input_of(node, 0))
    if sizes is not None and len(sizes) == 4 and sorted(axis % 4 for axis in axes) == [2, 3]:
        return None
    shape = "a tensor of unknown shape" if sizes is None else times(sizes)
    return f"it averages {shape} over {list(axes)}; the engine averages (N, C, H, W) over H and W"
