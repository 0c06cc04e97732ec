"""The rule about sizes that must be equal and that the shape inference of ``onnx`` does not check."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import array, attribute, input_of, sizes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

_Sizes = tuple[int | None, ...]


class EqualSizes(Rule):
    """ONNX-2. From the ONNX specification of convolutions, norms, recurrent layers, Gemm, PRelu, Reshape and
    DepthToSpace; sizes that are open are not looked at.
    """

    id = "ONNX-2"
    severity = Severity.ERROR
    title = "The sizes of an operator's inputs fit each other."
    remedy = "Export the model again, or fix the shape of the weight or of the input."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the operators of ONNX's own domain that are in the table."""
        for node in model.graph.all_nodes():
            if node.domain in ("", "ai.onnx") and node.op_type in _LOOKS:
                for message in _LOOKS[node.op_type](node):
                    yield Violation(node, message)


def _of(node: "ir.Node", index: int) -> _Sizes | None:
    """The sizes of an input; ``None`` if it is left out or its rank is not known."""
    return sizes_of(input_of(node, index))


def _at(sizes: _Sizes | None, dimension: int) -> int | None:
    return sizes[dimension] if sizes is not None and -len(sizes) <= dimension < len(sizes) else None


def _unequal(what: str, found: int | None, expected: int | None, why: str) -> Iterator[str]:
    if found is not None and expected is not None and found != expected:
        yield f"{what} is {found}; {why} {expected}"


def _conv(node: "ir.Node") -> Iterator[str]:
    weight, groups = _of(node, 1), attribute(node, "group", 1)  # (out, in / groups, *kernel)
    out, own = _at(weight, 0), _at(weight, 1)
    inputs = None if own is None else own * groups
    why = f"its weight {_shown(weight)} in {groups} group(s) is for"
    yield from _unequal("the number of channels of its input", _at(_of(node, 0), 1), inputs, why)
    if out is not None and out % groups:
        yield f"its weight {_shown(weight)} has {out} output channels, which cannot be split into {groups} groups"
    yield from _unequal("the size of its bias", _at(_of(node, 2), 0), out, "the number of output channels is")
    yield from _kernel(node, weight)


def _conv_transpose(node: "ir.Node") -> Iterator[str]:
    weight, groups = _of(node, 1), attribute(node, "group", 1)  # (in, out / groups, *kernel)
    inputs, own = _at(weight, 0), _at(weight, 1)
    out = None if own is None else own * groups
    why = f"its weight {_shown(weight)} is for"
    yield from _unequal("the number of channels of its input", _at(_of(node, 0), 1), inputs, why)
    if inputs is not None and inputs % groups:
        yield f"its weight {_shown(weight)} has {inputs} input channels, which cannot be split into {groups} groups"
    yield from _unequal("the size of its bias", _at(_of(node, 2), 0), out, "the number of output channels is")
    yield from _kernel(node, weight)


def _kernel(node: "ir.Node", weight: _Sizes | None) -> Iterator[str]:
    declared = attribute(node, "kernel_shape", None)
    if declared is None or weight is None:
        return
    kernel = weight[2:]
    if len(kernel) != len(declared) or any(a is not None and a != b for a, b in zip(kernel, declared, strict=True)):
        yield f"its kernel_shape is {list(declared)}, its weight {_shown(weight)}"


def _per_channel(node: "ir.Node") -> Iterator[str]:
    channels = _at(_of(node, 0), 1)
    for index, name in ((1, "scale"), (2, "bias")):
        yield from _unequal(f"the size of its {name}", _at(_of(node, index), 0), channels, "the number of channels is")


def _group_norm(node: "ir.Node") -> Iterator[str]:
    channels, groups = _at(_of(node, 0), 1), attribute(node, "num_groups", 1)
    if channels is None:
        return
    if channels % groups:
        yield f"its input has {channels} channels, which cannot be split into {groups} groups"
    for index, name in ((1, "scale"), (2, "bias")):
        size = _at(_of(node, index), 0)
        if size not in (None, channels, groups):  # of groups up to operator set 20, of channels since
            yield f"the size of its {name} is {size}; expected {groups} groups or {channels} channels"


def _layer_norm(node: "ir.Node") -> Iterator[str]:
    x, axis = _of(node, 0), attribute(node, "axis", -1)
    normalized = None if x is None else x[axis:]
    yield from _does_not_broadcast("its scale", _of(node, 1), normalized)
    yield from _does_not_broadcast("its bias", _of(node, 2), normalized)


def _gemm(node: "ir.Node") -> Iterator[str]:
    yield from _does_not_broadcast("its bias", _of(node, 2), sizes_of(node.outputs[0]))


def _prelu(node: "ir.Node") -> Iterator[str]:
    slope, x = _of(node, 1), _of(node, 0)
    if slope is not None and len(slope) == 1 and slope[0] == _at(x, 1):
        return  # one for each channel, as operator sets up to 6 have it
    yield from _does_not_broadcast("its slope", slope, x)


def _does_not_broadcast(what: str, sizes: _Sizes | None, to: _Sizes | None) -> Iterator[str]:
    if sizes is None or to is None:
        return
    pairs = zip(reversed(sizes), reversed(to), strict=False)
    if len(sizes) > len(to) or any(a not in (None, 1, b) for a, b in pairs if b is not None):
        yield f"{what} {_shown(sizes)} cannot be broadcast to {_shown(to)}"


def _recurrent(gates: int) -> Callable[["ir.Node"], Iterator[str]]:
    """A recurrent layer of ``gates`` gates: weights of (directions, gates · hidden, input) and (…, hidden)."""

    def look(node: "ir.Node") -> Iterator[str]:
        hidden = attribute(node, "hidden_size", None)
        if hidden is None:
            return
        directions = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
        rows = gates * hidden
        expected = [(1, "W", (directions, rows, _at(_of(node, 0), 2))), (2, "R", (directions, rows, hidden))]
        for index, name, sizes in [*expected, (3, "B", (directions, 2 * rows))]:
            found = _of(node, index)
            if found is not None and (
                len(found) != len(sizes)
                or any(None not in (a, b) and a != b for a, b in zip(found, sizes, strict=True))
            ):
                yield f"its {name} is {_shown(found)}; expected {_shown(sizes)} for a hidden size of {hidden}"

    return look


def _reshape(node: "ir.Node") -> Iterator[str]:
    sizes, target = _of(node, 0), array(input_of(node, 1))
    if sizes is None or None in sizes or target is None or target.ndim != 1:
        return
    wanted = [int(size) for size in target]
    if not attribute(node, "allowzero", 0):
        wanted = [_at(sizes, place) or 0 if size == 0 else size for place, size in enumerate(wanted)]
    known = math.prod(size for size in wanted if size != -1)
    count = math.prod(size for size in sizes if size is not None)
    if (count % known if known else count) if -1 in wanted else count != known:
        yield f"its input {_shown(sizes)} has {count} values, which do not fit into {[int(size) for size in target]}"


def _depth_to_space(node: "ir.Node") -> Iterator[str]:
    channels, block = _at(_of(node, 0), 1), attribute(node, "blocksize", 1)
    if channels is not None and channels % block**2:
        yield f"its input has {channels} channels, which cannot be split into blocks of {block}×{block}"


def _shown(sizes: _Sizes | None) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes or ())}]"


_LOOKS: dict[str, Callable[["ir.Node"], Iterator[str]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "GRU": _recurrent(3),
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _per_channel,
    "LSTM": _recurrent(4),
    "LayerNormalization": _layer_norm,
    "PRelu": _prelu,
    "RNN": _recurrent(1),
    "Reshape": _reshape,
}
