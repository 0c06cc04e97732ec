"""One model through every stage, and each stage's outputs as JSON."""

import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils import _pytree as pytree

import embedl_deploy
from embedl_deploy import TransformationResult, check, export_onnx, transform
from embedl_deploy.quantize import QuantizationReport, quantization_recipe, quantization_report, quantize
from zoo.member import Made, perturb_constants, settle_statistics
from zoo.stages import in_a_line
from zoo.unchanged.cases import Case
from zoo.unchanged.comparing import IN_FLOAT

TYPES = {"float32": torch.float32, "float16": torch.float16}


def require_sources(checkout: Path) -> None:
    """Hold that the packages in use are those of a checkout.

    Raises:
        ImportError: They are others.
    """
    for name in ("embedl_deploy", "embedl_deploy.tensorrt", "embedl_deploy_sensai_stub"):
        module = __import__(name, fromlist=["__file__"])
        if checkout.resolve() not in Path(str(module.__file__)).resolve().parents:
            raise ImportError(f"{name} was imported from {module.__file__}; expected it from {checkout.resolve()}.")
    # Its __path__ also leads to what is installed: a module that only that has must not be found there.
    packages = checkout.resolve() / "packages"
    embedl_deploy.__path__ = [path for path in embedl_deploy.__path__ if packages in Path(path).resolve().parents]


def write_case(case: Case, folder: Path) -> tuple[float, str]:
    """Write the outputs of one model as JSON files; return how many seconds it took, and what failed, if anything."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    random.seed(0)
    torch.manual_seed(0)
    made = case.make()
    made.model.eval()
    perturb_constants(made.model)
    settle_statistics(made)
    failure = ""
    try:
        for stage, output in _outputs(case, made):
            text = json.dumps(output, indent=1, ensure_ascii=False)
            (folder / f"{stage}.json").write_text(text + "\n", encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - that a stage fails, in whatever way, is an output as well
        failure = in_a_line(error)
        (folder / "failure.json").write_text(json.dumps({"text": failure}) + "\n", encoding="utf-8")
    return time.perf_counter() - start, failure


def _outputs(case: Case, made: Made) -> Iterator[tuple[str, Any]]:
    """The name of each stage, and what it gave."""
    result = transform(made.model, made.args, kwargs=made.kwargs, backend=case.backend, **case.transform)
    yield "plan", json.loads(result.report.plan.to_json())
    yield "report", {**dict(result.report), "text": str(result.report).splitlines()}
    yield "transformed", _computed(result.model, made)
    quantized = quantize(result, _data(made), case.config, progress=False, **case.quantize)
    yield "quantization", quantization_data(quantization_report(quantized))
    yield "recipe", json.loads(quantization_recipe(quantized).to_json())
    yield "quantized", _computed(quantized, made)
    with tempfile.TemporaryDirectory() as temporary:
        for model, kind in ((result, "float"), (quantized, "quantized")):
            for name, dtype in TYPES.items():
                if kind == "float" and name == "float16":
                    continue  # what float16 makes of constants is seen in the quantized file
                yield from _file(model, made, case, Path(temporary) / f"{kind}_{name}.onnx", dtype)


def _data(made: Made) -> Any:
    """Calibration data: the example inputs, and once more with other floats."""
    generator = torch.Generator().manual_seed(2)

    def other(value: Any) -> Any:
        if not value.is_floating_point():
            return value
        return value + 0.5 * torch.randn(value.shape, generator=generator)

    second = pytree.tree_map_only(torch.Tensor, other, (made.args, made.kwargs))

    def run(model: Any) -> None:
        for args, kwargs in ((made.args, made.kwargs), second):
            model(*args, **kwargs)

    return run


def _file(
    model: nn.Module | TransformationResult, made: Made, case: Case, path: Path, dtype: torch.dtype
) -> Iterator[tuple[str, Any]]:
    settings = dict(case.export)
    if isinstance(model, TransformationResult):
        settings.pop("integer_weights", None)  # which only a quantized model has
    exported = export_onnx(model, made.args, path, kwargs=made.kwargs or None, dtype=dtype, tolerance=None, **settings)
    yield path.stem, file_data(path) | {"opset": exported.opset, "notes": list(exported.notes)}
    checked = check(path, backend=case.backend).to_dict()
    yield f"{path.stem}_check", {key: value for key, value in checked.items() if key != "model"}


def _computed(model: nn.Module, made: Made) -> dict[str, Any]:
    """Digests of the outputs and of every parameter and buffer."""
    model.eval()
    with torch.no_grad():
        outputs = [leaf for leaf in pytree.tree_leaves(model(*made.args, **made.kwargs)) if torch.is_tensor(leaf)]
    return {
        "outputs": [_digest_of(output) for output in outputs],
        "tensors": {name: _digest_of(value) for name, value in model.state_dict().items() if torch.is_tensor(value)},
    }


def _digest_of(tensor: torch.Tensor) -> str:
    plain = tensor.detach().contiguous()
    content = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{str(plain.dtype).removeprefix('torch.')} {list(plain.shape)} {digest(content)}"


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def quantization_data(report: QuantizationReport) -> dict[str, Any]:
    """What a quantization report says, as plain data."""
    return {
        "policy": report.policy,
        "points": [
            {
                "path": point.path,
                "label": point.label,
                "node": point.node,
                "module": point.module,
                "quantized": point.quantized,
                "config": point.config,
                "rule": point.rule,
                "stub": point.stub,
                "kind": point.kind.value,
                "index": point.index,
                "format": None if point.format is None else point.format.to_dict(),
            }
            for point in report.points
        ],
        "uncovered": [
            {"node": node, "operator": operator, "reason": reason} for node, operator, reason in report.uncovered
        ],
        "corrections": [
            {"what": each.what, "where": each.where, "outcome": each.outcome, "declined": each.declined}
            for each in report.corrections
        ],
        "vanishing": [list(each) for each in report.vanishing],
        "findings": [str(each) for each in report.findings],
        "text": str(report).splitlines(),
    }


def file_data(path: Path) -> dict[str, Any]:
    """What is in an ONNX file, node by node, so that the first difference can be named; and the digest of all."""
    model = onnx.load(path)
    graph = model.graph
    return {
        "inputs": [_text(value) for value in graph.input],
        "outputs": [_text(value) for value in graph.output],
        "nodes": [
            {
                "name": node.name,
                "operator": f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
                "inputs": list(node.input),
                "outputs": list(node.output),
                "attributes": {attribute.name: _text(attribute) for attribute in node.attribute},
                "metadata": {entry.key: entry.value for entry in node.metadata_props},
            }
            for node in graph.node
        ],
        "initializers": {
            tensor.name: f"{onnx.TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)} "
            f"{digest(tensor.SerializeToString(deterministic=True))}"
            for tensor in graph.initializer
        },
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "bytes": digest(path.read_bytes()),
        "sha256": _digest_without_words(model),
    }


def _digest_without_words(model: onnx.ModelProto) -> str:
    """The digest of a file without what it says of layers in float, in words; changes the model."""
    others = [entry for entry in model.metadata_props if entry.key != IN_FLOAT]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    return digest(model.SerializeToString(deterministic=True))


def _text(message: Any) -> str:
    """A message of protocol buffers in a line; of a large one the digest."""
    text = " ".join(str(message).split())
    return text if len(text) < 200 else digest(message.SerializeToString(deterministic=True))
