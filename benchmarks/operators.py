"""Which operators of the ONNX standard the compiler at hand refuses; writes the table that the checker's rules read.

    python benchmarks/operators.py [--operators NAME …] [--json FILE] [--write]

The single-node models of the ONNX project's own tests are compiled, one of each set of attributes, types and inputs,
by TensorRT for RTX, which needs no GPU. What is refused is tried again without each of its attributes, and in float32:
where that is taken, the attribute's value or the type is the reason. What is taken is tried in every other type that
the standard allows. Compilers run in a process of their own, which may crash. ``--write`` puts the table into
``packages/embedl-deploy-tensorrt``. It takes ten minutes on two cores.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TABLE = Path(__file__).resolve().parents[1] / (
    "packages/embedl-deploy-tensorrt/src/embedl_deploy/tensorrt/checks/refused_operators.json"
)
#: The types that the compiler has; of others the rule TRT-O02 knows.
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "INT32", "INT8", "BOOL")
_TEXTS = {f"tensor({kind.lower()})": kind for kind in TYPES}
#: Operators whose shapes the standard's own inference does not find from these models.
_NOT_INFERRED = frozenset({"MeanVarianceNormalization"})
#: What is said of a model whose inputs are sizes: it is no refusal of the operator.
_NOT_ASKED = "no optimization profile has been defined"
TARGET = "sm89"
SECONDS = 120.0
#: Characters of the compiler's words that are kept.
MOST = 300


@dataclass(frozen=True)
class Case:
    """A node, with numbers for its inputs."""

    node: onnx.NodeProto
    arrays: dict[str, Any]
    opset: int
    ir_version: int
    outputs: tuple[onnx.ValueInfoProto, ...] = ()

    @property
    def operator(self) -> str:
        """Its operator."""
        return self.node.op_type

    @property
    def schema(self) -> onnx.defs.OpSchema:
        """What the standard says of it."""
        return onnx.defs.get_schema(self.operator, self.opset, "")

    def types(self) -> tuple[str, ...]:
        """The types of the inputs that are given."""
        return tuple(_type_of(self.arrays[name]) for name in self.node.input if name)

    def key(self) -> tuple[Any, ...]:
        """Equal for cases of which one is enough."""
        attributes = sorted(attribute.SerializeToString() for attribute in self.node.attribute)
        ranks = tuple(np.ndim(self.arrays[name]) if name else None for name in self.node.input)
        return (self.operator, tuple(attributes), self.types(), ranks, tuple(map(bool, self.node.output)))

    def models(self) -> Iterator[bytes]:
        """The node as a file: its later inputs as constants, then all of them as inputs of the graph, then none."""
        given = [name for name in self.node.input if name]
        yield self._model(given[:1], given[1:])
        yield self._model(given, [])
        yield self._model([], given)

    def _model(self, inputs: list[str], constants: list[str]) -> bytes:
        values = [
            helper.make_tensor_value_info(
                name, TensorProto.DataType.Value(_type_of(self.arrays[name])), np.shape(self.arrays[name])
            )
            for name in inputs
        ]
        tensors = [numpy_helper.from_array(np.asarray(self.arrays[name]), name) for name in constants]
        known = {value.name: value for value in self.outputs}
        outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in self.node.output if name]
        nodes = [self.node]
        if not inputs:  # an engine has an input
            nodes.append(helper.make_node("Identity", ["beside"], ["beside_it"]))
            values.append(helper.make_tensor_value_info("beside", TensorProto.FLOAT, [4]))
            outputs.append(helper.make_tensor_value_info("beside_it", TensorProto.FLOAT, [4]))
        graph = helper.make_graph(nodes, "operator", values, outputs, tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version
        )
        model = onnx.shape_inference.infer_shapes(model, strict_mode=self.operator not in _NOT_INFERRED)
        return bytes(model.SerializeToString())

    def parts(self) -> list[tuple[str, str | int]]:
        """What may be left out: attributes, optional inputs and optional outputs."""
        schema = self.schema
        parts: list[tuple[str, str | int]] = [("attribute", each.name) for each in self.node.attribute]
        parts += [("input", n) for n, name in enumerate(self.node.input) if name and n >= schema.min_input]
        parts += [("output", n) for n, name in enumerate(self.node.output) if name and n >= max(schema.min_output, 1)]
        return parts

    def without(self, *parts: tuple[str, str | int]) -> "Case":
        """The same without some parts: attributes are then at their defaults. With an output go those behind it."""
        node = onnx.NodeProto()
        node.CopyFrom(self.node)
        del node.attribute[:]
        node.attribute.extend(each for each in self.node.attribute if ("attribute", each.name) not in parts)
        for kind, names in (("input", node.input), ("output", node.output)):
            gone = {place for place in range(len(names)) if (kind, place) in parts}
            if kind == "output" and gone:
                gone = set(range(min(gone), len(names)))
            kept = ["" if place in gone else name for place, name in enumerate(names)]
            while kept and not kept[-1]:
                kept.pop()
            del names[:]
            names.extend(kept)
        return replace(self, node=node)

    def in_type(self, old: str, new: str) -> "Case":
        """The same with the inputs of one type in another, where the standard lets them have it."""
        dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(new))
        formal = self.schema.inputs
        arrays = dict(self.arrays)
        for place, name in enumerate(self.node.input):
            kinds = {_TEXTS[kind] for kind in formal[min(place, len(formal) - 1)].types if kind in _TEXTS}
            if name and new in kinds and _type_of(arrays[name]) == old:
                arrays[name] = np.asarray(arrays[name]).astype(dtype)
        outputs = [_typed(value.name, new if _kind_of(value) == old else _kind_of(value)) for value in self.outputs]
        return replace(self, arrays=arrays, outputs=tuple(outputs))


@dataclass(frozen=True)
class Verdict:
    """What the compiler did with a case."""

    taken: bool
    words: str = ""


def _kind_of(value: onnx.ValueInfoProto) -> str:
    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type))


def _typed(name: str, kind: str) -> onnx.ValueInfoProto:
    """A value of a type, and of any shape."""
    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), None)


def _type_of(array: Any) -> str:
    return str(TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)))


def _is_odd(value: Any) -> bool:
    """Whether an input is text, or a tensor without numbers: no compiler is asked about those."""
    array = np.asarray(value)
    return array.size == 0 or array.dtype.kind in "OSU"


def standard_cases(wanted: list[str] | None) -> list[Case]:
    """One case of each kind from the ONNX project's tests."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    cases: dict[tuple[Any, ...], Case] = {}
    for test in found:
        graph = test.model.graph
        if len(graph.node) != 1 or test.name.endswith("_expanded") or graph.node[0].domain not in ("", "ai.onnx"):
            continue
        values = dict(zip((value.name for value in graph.input), test.data_sets[0][0], strict=True))
        tensors = [value.type.WhichOneof("value") == "tensor_type" for value in graph.input]
        node = graph.node[0]
        if not all(tensors) or (wanted and node.op_type not in wanted):
            continue
        if not values or any(_is_odd(value) for value in values.values()):
            continue
        node.name = "subject"
        opset = next(each.version for each in test.model.opset_import if each.domain in ("", "ai.onnx"))
        outputs = tuple(_typed(value.name, _kind_of(value)) for value in graph.output)
        case = Case(node, values, opset, min(test.model.ir_version, 11), outputs)
        cases.setdefault(case.key(), case)
    return list(cases.values())


def _serve(connection: Connection) -> None:
    """Compile what is sent, in a process of its own."""
    from embedl_deploy.backend import CompileOptions, CompilerRefusedError, get_backend

    compiler = next(each for each in get_backend("tensorrt").compilers if each.name == "tensorrt-rtx")
    connection.send(compiler.missing() or compiler.describe())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operator.onnx"
        while True:
            path.write_bytes(connection.recv_bytes())
            try:
                compiler.build(path, CompileOptions(target=TARGET, timeout=SECONDS), lambda *step: None)
            except CompilerRefusedError as error:
                connection.send(Verdict(False, error.messages[0][:MOST]))
            except Exception as error:  # noqa: BLE001 - a verdict as well
                connection.send(Verdict(False, f"{type(error).__name__}: {error}"))
            else:
                connection.send(Verdict(True))


class Compiler:
    """The compiler in a process that is started again when it crashes."""

    def __init__(self) -> None:
        self.name = ""
        self._known: dict[bytes, Verdict] = {}
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self.name = self._connection.recv()

    def __call__(self, case: Case) -> Verdict | None:
        """The verdict on a case: taken if any of its models is; ``None`` if the standard does not allow it."""
        verdict = None
        try:
            models = list(case.models())
        except (onnx.shape_inference.InferenceError, ValueError, TypeError):
            return None
        for place, model in enumerate(models):
            if place == 2 and verdict is not None:  # constants are computed before the compiler sees the operator
                return verdict
            if model not in self._known:
                self._known[model] = self._ask(model)
            if self._known[model].taken:
                return self._known[model]
            if _NOT_ASKED not in self._known[model].words:
                verdict = verdict or self._known[model]
        return verdict

    def _ask(self, model: bytes) -> Verdict:
        self._connection.send_bytes(model)
        try:
            if self._connection.poll(SECONDS):
                answer: Verdict = self._connection.recv()
                return answer
            self._process.kill()
            words = f"does not end within {SECONDS:.0f} s"
        except EOFError:
            words = "the compiler crashes"
        self._process.join()
        self._start()
        return Verdict(False, words)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


#: In place of the value of an attribute: any but its default.
OTHER = "*"


def _value_of(case: Case, attribute: str) -> Any:
    """An attribute's whole number or text; of other attributes whether they are at their default, which is ``None``."""
    found = next((each for each in case.node.attribute if each.name == attribute), None)
    default = case.schema.attributes[attribute].default_value
    value = default if found is None else found
    if value.type == onnx.AttributeProto.UNDEFINED:
        return None
    plain = helper.get_attribute_value(value)
    if value.type in (onnx.AttributeProto.INT, onnx.AttributeProto.STRING):
        return plain.decode() if isinstance(plain, bytes) else plain
    if value.type == onnx.AttributeProto.INTS and set(plain) in ({0}, {1}):  # no padding, no stride, no dilation
        return None
    if default.type != onnx.AttributeProto.UNDEFINED and plain == helper.get_attribute_value(default):
        return None
    return OTHER


@dataclass
class Table:
    """What is refused, operator by operator."""

    compiler: Callable[[Case], Verdict | None]

    def of(self, cases: list[Case]) -> dict[str, Any]:
        """The row of one operator."""
        verdicts = [(case, verdict) for case in cases if (verdict := self.compiler(case)) is not None]
        taken = [case for case, verdict in verdicts if verdict.taken]
        refused = [(case, verdict) for case, verdict in verdicts if not verdict.taken]
        blamed: dict[tuple[str, str | int, Any], str] = {}
        unexplained = []
        for case, verdict in refused:
            parts, cured = self._cure(case)
            blamed |= {self._key(case, *part): verdict.words for part in parts if self._key(case, *part) not in blamed}
            taken += cured
            if not parts and not self._blames_type(case):
                unexplained.append(verdict.words)
        fine = {self._key(case, *part) for case in taken for part in self._all_parts(case)}
        row: dict[str, Any] = {"opset": cases[0].schema.since_version, "taken": len(taken), "refused": len(refused)}
        row["parts"] = [
            {"kind": kind, "name": name, "value": value, "words": words}
            for (kind, name, value), words in blamed.items()
            if (kind, name, value) not in fine and value is not None
        ]
        row["types"] = self._types(taken) if taken else {}
        row["unexplained"] = sorted(set(unexplained))
        if not taken and (len(refused) > 1 or any("UNSUPPORTED" in words for words in unexplained)):
            row["words"] = unexplained[0] if unexplained else refused[0][1].words
        return row

    def _cure(self, case: Case) -> tuple[list[tuple[str, str | int]], list[Case]]:
        """The fewest parts, up to two, without which a case would be taken, in any such choice; and what is taken."""
        parts = case.parts()
        for count in (1, 2):
            blamed: dict[tuple[str, str | int], None] = {}
            cured = []
            for chosen in itertools.combinations(parts, count):
                changed = case.without(*chosen)
                verdict = self.compiler(changed)
                if verdict is not None and verdict.taken:
                    blamed |= dict.fromkeys(chosen)
                    cured.append(changed)
            if blamed:
                return list(blamed), cured
        return [], []

    def _all_parts(self, case: Case) -> list[tuple[str, str | int]]:
        return [*(("attribute", name) for name in case.schema.attributes), *case.parts()]

    def _key(self, case: Case, kind: str, name: str | int) -> tuple[str, str | int, Any]:
        return (kind, name, _value_of(case, str(name)) if kind == "attribute" else OTHER)

    def _types(self, taken: list[Case]) -> dict[str, str]:
        """The types of the first input that are refused where another is taken, with the compiler's words."""
        bases = {case.types()[0]: case for case in reversed(taken) if case.types()}
        if not bases:
            return {}
        base = next((bases[kind] for kind in TYPES if kind in bases), taken[0])
        allowed = {_TEXTS[text] for text in base.schema.inputs[0].types if text in _TEXTS}
        found = {}
        for kind in TYPES:
            if kind in bases or kind not in allowed:
                continue
            verdict = self.compiler(base.in_type(base.types()[0], kind))
            if verdict is not None and not verdict.taken:
                found[kind] = verdict.words
        return found

    def _blames_type(self, case: Case) -> bool:
        """Whether a case would be taken in float32."""
        for kind in set(case.types()) - {"FLOAT"}:
            verdict = self.compiler(case.in_type(kind, "FLOAT"))
            if verdict is not None and verdict.taken:
                return True
        return False


def main() -> int:
    """Try everything, print what is refused."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--operators", nargs="*", help="only these")
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--write", action="store_true", help="write it into the package")
    options = parser.parse_args()
    by_operator: dict[str, list[Case]] = {}
    for case in standard_cases(options.operators):
        by_operator.setdefault(case.operator, []).append(case)
    compiler = Compiler()
    try:
        table = Table(compiler)
        rows = {}
        for operator, cases in sorted(by_operator.items()):
            rows[operator] = table.of(cases)
            print(operator, json.dumps(rows[operator])[:300], flush=True)
    finally:
        compiler.stop()
    text = json.dumps({"compiler": compiler.name, "onnx": onnx.__version__, "operators": rows}, indent=1) + "\n"
    for path in [options.json, TABLE if options.write else None]:
        if path is not None:
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
