"""The table of ONNX operators and types that TensorRT for RTX refuses, and the rule for it.

``refused_operators.json`` is written by ``./dev operators``, which gives the compiler every operator in the variants of
the ONNX project's own tests. For each operator it has how many of them were taken and refused; the attributes (with the
value, or ``"*"`` for any but the default) and additional outputs for which a variant is refused, and without which it
is taken; the types of the first input that are refused where float32 is taken; and the compiler's words.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, is_standard
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

_FILE = "refused_operators.json"
#: In the table, any value of an attribute but its default.
_OTHER = "*"
#: Types about which other rules know more: of quantized tensors.
_QUANTIZED = frozenset({"INT8"})


@dataclass(frozen=True)
class Refusals:
    """What is refused of an operator, with the compiler's words.

    Attributes:
        whole: The words where no variant is taken.
        attributes: By name, the words by value.
        outputs: By place.
        types: By type of the first input.
    """

    whole: str | None
    attributes: Mapping[str, Mapping[Any, str]]
    outputs: Mapping[int, str]
    types: Mapping[str, str]


@functools.cache
def table() -> dict[str, Any]:
    """The table, as it is in the file."""
    text = resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@functools.cache
def refusals() -> dict[str, Refusals]:
    """By operator, what is refused; without the quantizers, of which other rules know more."""
    found = {}
    for operator, row in table()["operators"].items():
        if operator in (QUANTIZE, DEQUANTIZE):
            continue
        attributes: dict[str, dict[Any, str]] = {}
        outputs: dict[int, str] = {}
        for part in row["parts"]:
            if part["kind"] == "attribute":
                attributes.setdefault(part["name"], {})[part["value"]] = part["words"]
            elif part["kind"] == "output":
                outputs[part["name"]] = part["words"]
        types = {kind: words for kind, words in row["types"].items() if kind not in _QUANTIZED}
        found[operator] = Refusals(row.get("words"), attributes, outputs, types)
    return found


class Variants(Rule):
    """TRT-O03. TensorRT for RTX 1.7: refused by the parser or the builder, as the table says that ``./dev operators``
    writes.
    """

    id = "TRT-O03"
    severity = Severity.ERROR
    title = "Every operator has attributes, outputs and types that TensorRT supports."
    remedy = "Write the model with another setting or type, or compute it outside the engine."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look up every operator of the standard."""
        known = refusals()
        for node in model.graph.all_nodes():
            if is_standard(node) and node.op_type in known:
                yield from self._of(node, known[node.op_type])

    def _of(self, node: "ir.Node", refused: Refusals) -> Iterator[Violation]:
        for name, by_value in refused.attributes.items():
            value = _value(node, name)
            if value in by_value:
                yield self._violation(node, f"{name}={_shown(node, name)} of {node.op_type}", by_value[value])
        for place, words in refused.outputs.items():
            if place < len(node.outputs) and node.outputs[place].name:
                yield self._violation(node, f"output {place + 1} of {node.op_type}", words)
                break
        first = node.inputs[0] if node.inputs else None
        if first is None or first.dtype is None or first.const_value is not None:  # constants are computed before
            return
        if first.dtype.name in refused.types:
            yield self._violation(node, f"{node.op_type} of {first.dtype.name}", refused.types[first.dtype.name])

    def _violation(self, node: "ir.Node", what: str, words: str) -> Violation:
        return Violation(node, said(what, words))


def said(what: str, words: str) -> str:
    """A refusal in a line: whose it is, of what, and the compiler's words."""
    return f"{table()['compiler']} does not take {what}: {' '.join(words.split())}"


def _value(node: "ir.Node", name: str) -> Any:
    """An attribute as the table has it; ``None`` where it is left out, or a list that changes nothing."""
    found = node.attributes.get(name)
    if found is None:
        return None
    value = found.value
    if isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return _OTHER if value else None
    return None if isinstance(value, (list, tuple)) and set(value) in ({0}, {1}) else _OTHER


def _shown(node: "ir.Node", name: str) -> str:
    value = node.attributes[name].value
    return str(list(value) if isinstance(value, tuple) else value)
