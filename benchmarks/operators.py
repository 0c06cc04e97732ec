"""Which operators of the ONNX standard the compiler at hand refuses; writes the table that the checker's rules read.

    python benchmarks/operators.py [--operators NAME …] [--json FILE] [--write]

The single-node models of the ONNX project's own tests are compiled, one of each set of attributes, types and inputs, by
TensorRT for RTX, which needs no GPU. What is refused is tried again without each of its attributes, and in float32:
where that is taken, the attribute's value or the type is the reason. What is taken is tried in every other type that the
standard allows. Compilers run in a process of their own, which may crash. ``--write`` puts the table into
``packages/embedl-deploy-tensorrt``. It takes about half an hour on two cores.
"""

import argparse
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
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "INT32", "INT8", "UINT8", "BOOL")
_TEXTS = {f"tensor({kind.lower()})": kind for kind in TYPES}
TARGET = "sm89"
SECONDS = 120.0


@dataclass(frozen=True)
class Case:
    """A node, with numbers for its inputs."""

    node: onnx.NodeProto
    arrays: dict[str, Any]
    opset: int
    ir_version: int

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
        """The node as a file: its later inputs as constants, then all of them as inputs of the graph."""
        given = [name for name in self.node.input if name]
        yield self._model(given[:1], given[1:])
        if len(given) > 1:
            yield self._model(given, [])

    def _model(self, inputs: list[str], constants: list[str]) -> bytes:
        values = [
            helper.make_tensor_value_info(
                name, TensorProto.DataType.Value(_type_of(self.arrays[name])), np.shape(self.arrays[name])
            )
            for name in inputs
        ]
        tensors = [numpy_helper.from_array(np.asarray(self.arrays[name]), name) for name in constants]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.node.output if name]
        graph = helper.make_graph([self.node], "operator", values, outputs, tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version
        )
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        return bytes(model.SerializeToString())

    def without(self, attribute: str) -> "Case":
        """The same with an attribute at its default."""
        node = onnx.NodeProto()
        node.CopyFrom(self.node)
        del node.attribute[:]
        node.attribute.extend(each for each in self.node.attribute if each.name != attribute)
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
        return replace(self, arrays=arrays)


@dataclass(frozen=True)
class Verdict:
    """What the compiler did with a case."""

    taken: bool
    words: str = ""


def _type_of(array: Any) -> str:
    return str(TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)))


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
        if not values or any(np.size(value) == 0 for value in values.values()):
            continue
        node.name = "subject"
        opset = next(each.version for each in test.model.opset_import if each.domain in ("", "ai.onnx"))
        case = Case(node, values, opset, min(test.model.ir_version, 11))
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
                connection.send(Verdict(False, error.messages[0]))
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
        for model in models:
            if model not in self._known:
                self._known[model] = self._ask(model)
            if self._known[model].taken:
                return self._known[model]
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


def _value_of(case: Case, attribute: str) -> Any:
    """An attribute's number or text; ``None`` for lists, tensors and graphs."""
    found = next((each for each in case.node.attribute if each.name == attribute), None)
    value = case.schema.attributes[attribute].default_value if found is None else found
    if value.type not in (onnx.AttributeProto.INT, onnx.AttributeProto.STRING):
        return None
    plain = helper.get_attribute_value(value)
    return plain.decode() if isinstance(plain, bytes) else plain


@dataclass
class Table:
    """What is refused, operator by operator."""

    compiler: Callable[[Case], Verdict | None]

    def of(self, cases: list[Case]) -> dict[str, Any]:
        """The row of one operator."""
        verdicts = [(case, verdict) for case in cases if (verdict := self.compiler(case)) is not None]
        taken = [case for case, verdict in verdicts if verdict.taken]
        refused = [(case, verdict) for case, verdict in verdicts if not verdict.taken]
        row: dict[str, Any] = {"opset": cases[0].schema.since_version, "taken": len(taken), "refused": len(refused)}
        attributes: dict[tuple[str, Any], str] = {}
        unexplained = []
        for case, verdict in refused:
            reasons = self._attributes(case)
            for name in reasons:
                attributes.setdefault((name, _value_of(case, name)), verdict.words)
            if not reasons and taken and not self._blames_type(case):
                unexplained.append(verdict.words)
        fine = {(name, _value_of(case, name)) for case in taken for name in case.schema.attributes}
        row["attributes"] = [
            {"name": name, "value": value, "words": words}
            for (name, value), words in attributes.items()
            if value is not None and (name, value) not in fine
        ]
        row["types"] = self._types(taken) if taken else {}
        row["unexplained"] = sorted(set(unexplained))
        if not taken:
            row["words"] = refused[0][1].words if refused else "not tried"
        return row

    def _types(self, taken: list[Case]) -> dict[str, str]:
        """The types of the first input that are refused where another is taken, with the compiler's words."""
        bases = {case.types()[0]: case for case in reversed(taken)}
        base = next((bases[kind] for kind in TYPES if kind in bases), taken[0])
        found = {}
        for kind in TYPES:
            if kind in bases or kind not in self._constraint(base):
                continue
            verdict = self.compiler(base.in_type(base.types()[0], kind))
            if verdict is not None and not verdict.taken:
                found[kind] = verdict.words
        return found

    def _constraint(self, case: Case) -> set[str]:
        """The types that the standard allows for the first input."""
        return {_TEXTS[text] for text in case.schema.inputs[0].types if text in _TEXTS}

    def _attributes(self, case: Case) -> list[str]:
        """The attributes without which a case would be taken."""
        found = []
        for attribute in case.node.attribute:
            verdict = self.compiler(case.without(attribute.name))
            if verdict is not None and verdict.taken:
                found.append(attribute.name)
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
