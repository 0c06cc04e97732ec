"""A small run in plain values, as ``--json`` prints them: two blocks of a convolution and a sum, and a classifier."""

from typing import Any

from embedl_deploy.engine import EngineReport, LayerKind, compare
from support.engines import layer, report, tensor


def graph() -> list[dict[str, Any]]:
    """Nodes of the transformed graph; each block adds what comes in to its convolution's output."""
    rows: list[dict[str, Any]] = [{"node": "x", "op": "placeholder", "module": "", "kind": "input", "inputs": []}]
    before = "x"
    for block in ("body.0", "body.1"):
        name = block.replace(".", "_")
        rows += [
            {"node": f"{name}_conv", "op": "call_module", "module": f"{block}.conv", "kind": "FusedConv"},
            {"node": f"{name}_add", "op": "call_function", "module": block, "kind": "add"},
        ]
        rows[-2]["inputs"], rows[-1]["inputs"] = [before], [f"{name}_conv", before]
        before = f"{name}_add"
    return [*rows, {"node": "head", "op": "call_module", "module": "head", "kind": "FusedLinear", "inputs": [before]}]


def transformation() -> dict[str, Any]:
    """What ``transform`` says."""
    applied = [
        {"node": "relu", "pattern": "ConvReLUPattern", "stage": "fusion", "nodes": ["conv", "relu"]},
        {"node": "fc", "pattern": "LinearPattern", "stage": "fusion", "nodes": ["fc"], "replaced_by": ["head"]},
    ]
    declined = [{"pattern": "ActAddPattern", "nodes": ["add"], "reason": "add feeds 2 users"}]
    return {
        "model": "Net",
        "backend": "acme",
        "capture": "symbolic",
        "notes": ["a note"],
        "applied": applied,
        "skipped": [],
        "declined": declined,
        "failed": [],
        "unsupported": {},
        "graph": graph(),
    }


def quantization() -> dict[str, Any]:
    """What ``quantize`` says: the first convolution in INT8, the second with INT8 weights, the head in float."""

    def point(path: str, kind: str, config: str = "INT8 minmax") -> dict[str, Any]:
        rule = "configuration" if config else "policy: the head stays in float"
        stub = f"{path.replace('.', '_')}_quant" if config else ""
        return {"path": path, "label": kind, "config": config, "rule": rule, "kind": kind, "stub": stub}

    first, second = "body.0.conv", "body.1.conv"
    return {
        "policy": "mixed",
        "points": [
            *(point(first, kind) for kind in ("input", "weight")),
            *(point(second, "input", ""), point(second, "weight")),
            *(point("head", kind, "") for kind in ("input", "weight")),
        ],
    }


def sensitivity() -> dict[str, Any]:
    """What ``sensitivity`` says."""
    row = {"weight_alone": 41.5, "activation_alone": None, "left_in_float": 33.0}
    layers = [
        {"path": path, "alone": alone, "share": share, **row}
        for path, alone, share in (("body.0.conv", 40.0, 0.75), ("body.1.conv", None, 0.25))
    ]
    return {"metric": "sqnr", "quantized": 30.5, "layers": layers}


def engine(dtype: str = "int8") -> EngineReport:
    """An engine of it: a kernel that quantizes, one for each convolution, and one without a module."""
    layers = (
        *([layer("quantize", LayerKind.POINTWISE, modules=("body_0_conv_quant",))] if dtype == "int8" else []),
        layer("first", dtype=dtype, modules=("body.0.conv",), constants=(tensor(50, dtype=dtype),)),
        layer("second", dtype=dtype, modules=("body.0", "body.1.conv.conv")),
        layer("last", LayerKind.GEMM, modules=("head",)),
        layer("copy", LayerKind.REFORMAT, onnx_nodes=("node_copy",)),
    )
    return report(*layers, model=f"{dtype}.onnx", messages=("be careful",))


def check() -> dict[str, Any]:
    """What ``check`` says."""
    finding = {
        "rule": "ACME-1",
        "severity": "warning",
        "node": "node_relu",
        "operator": "Relu",
        "module": "body.0.conv",
        "message": "it has no scale",
        "title": "Every tensor has a scale",
        "remedy": "quantize it",
    }
    place = {"rule": "ACME-2", "node": None, "module": None, "reason": "shapes are not known"}
    return {
        "model": "int8.onnx",
        "backend": "acme",
        "ok": True,
        "rules_checked": ["ACME-1", "ACME-2"],
        "findings": [finding],
        "undecided": [place],
    }


def float32() -> dict[str, Any]:
    """What ``float32_report`` says."""
    reason = "reaches 1e+06, and float16 ends at 65504"
    node = {"node": "head", "module": "head", "operator": "linear", "reason": reason}
    return {"nodes": [node], "sqnr_before": float("-inf"), "sqnr": 61.0}


def frontier() -> dict[str, Any]:
    """What a search says."""
    points = [(10.0, 20.0), (8.0, 18.0), (9.0, 25.0), (12.0, 26.0)]
    named = [
        {"objective": cost, "accuracy": kept, "decision": f"decision {at}", "chosen": at == 2}
        for at, (cost, kept) in enumerate(points)
    ]
    return {"objective": "activations, MB", "accuracy": "SQNR, dB", "points": named}


def parts() -> dict[str, Any]:
    """All of it."""
    return {
        "transformation": transformation(),
        "quantization": quantization(),
        "sensitivity": sensitivity(),
        "engine": engine().to_dict(),
        "comparison": compare(engine("float16"), engine()).to_dict(),
        "check": check(),
        "float32": float32(),
        "frontier": frontier(),
    }
