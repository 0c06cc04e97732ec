"""Every command as a process of its own, in pipes: what it prints, what it writes, its exit code."""

import json

import onnx
import torch

from support.cli_folder import left_behind

X = ("--input", "1,3,16,16")
BACKEND = ("--backend", "tensorrt")


def succeeded(done):
    """A good end: exit code 0, and neither escape sequences nor a traceback."""
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_backends(process):
    done = succeeded(process("backends", "--verbose", "--json"))
    found = json.loads(done.stdout)
    assert {"tensorrt", "sensai", "acme", "broken"} <= set(found)
    assert "package_that_is_not_there" in found["broken"]["error"], "a broken plugin is named, and stops nothing"
    assert found["acme"]["error"] is None
    assert found["acme"]["compilers"] == {"absent": "acmec is not installed: pip install acmec", "quick": None}
    assert found["tensorrt"]["policies"] == ["all", "mixed", "rtx"]
    assert found["tensorrt"]["fusions"] >= 12 and found["tensorrt"]["check_rules"] > 0


def test_plan_is_changed_and_carried_out(process, folder):
    done = succeeded(process("plan", "nets:Net", *BACKEND, *X, "--model-arg", "width=4", "-o", "plan.json"))
    assert done.stdout.startswith("Plan for Net (symbolic capture, backend tensorrt): ")
    assert done.stderr == "Wrote plan.json\n"
    plan = json.loads((folder / "plan.json").read_text())
    for match in plan["matches"]:
        match["apply"] = match["apply"] and match["pattern"] != "ConvBNReLUPattern"
    (folder / "plan.json").write_text(json.dumps(plan))
    options = ("--plan", "plan.json", "--model-arg", "width=4", "--json", "-o", "sub/out.pt2")
    done = succeeded(process("transform", "nets:Net", *X, *options))
    report = json.loads(done.stdout)
    assert "ConvBNReLUPattern" not in {match["pattern"] for match in report["applied"]}
    assert report["agrees"] and report["difference"]["max_rel"] < 1e-6
    program = torch.export.load(folder / "sub" / "out.pt2")
    assert program.module()(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


def test_quantize_and_check(process, folder):
    corrections = ("--equalization", "--bias-correction", "--method", "mse", "--policy", "all", "--integer-weights")
    files = ("--data", "data.npy", "-o", "out.onnx", "--recipe", "recipe.json")
    done = succeeded(process("quantize", "nets:Net", *BACKEND, *X, *files, *corrections))
    first, *_, last = done.stdout.splitlines()
    assert first.endswith("policy: tensorrt's 'all'")
    assert last.startswith("Wrote out.onnx: ") and "ONNX Runtime against PyTorch: max |Δ|" in last
    assert "Bias correction: 3 of 3 places" in done.stdout
    assert done.stderr == "Wrote recipe.json\n", "no progress in a pipe"
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["policy"] == "tensorrt's 'all'" and len(recipe["points"]) > 5
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(folder / "out.onnx").graph.node}
    assert left_behind(folder) == ["out.onnx", "recipe.json"]

    done = succeeded(process("check", "out.onnx", *BACKEND, "--json"))
    report = json.loads(done.stdout)
    assert report["ok"] and report["model"] == "out.onnx" and len(report["rules_checked"]) > 10


def test_export_compile_report_compare(process, folder):
    done = succeeded(process("export", "nets:Chatty", *BACKEND, *X, "-o", "net.onnx", "--dynamic-batch", "--json"))
    assert "words of the user's own" in done.stderr
    exported = json.loads(done.stdout)["export"]
    assert exported["path"] == "net.onnx" and exported["difference"]["max_rel"] < 1e-3
    dimension = onnx.load(folder / "net.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert dimension.dim_param, "--dynamic-batch leaves it open"

    done = succeeded(process("compile", "net.onnx", "--backend", "acme", "--target", "chip7"))
    assert done.stdout.startswith("net.onnx: Quick 1.0, chip7\n")
    assert done.stderr == "Wrote net.engine and net.engine.json\n"
    assert (folder / "net.engine").read_bytes() == b"engine"

    options = ("--estimate", "acme 1", "--backend", "acme", "--layers")
    done = succeeded(process("report", "net.engine.json", *options))
    assert "Estimate for net.onnx on Acme 1: at least" in done.stdout
    done = succeeded(process("compare", "net.engine.json", "net.engine.json", "--json"))
    assert json.loads(done.stdout)["same_judge"] is True
    assert left_behind(folder) == ["net.engine", "net.engine.json", "net.onnx"]
