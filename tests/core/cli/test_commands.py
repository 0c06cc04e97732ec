"""Commands in this process: what they refuse and how they say it, exit codes, and options."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir
import pytest

from embedl_deploy.backend import BackendStatus
from embedl_deploy.cli import commands_backends, commands_deploy, commands_graph, program
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.output import uses_colour
from embedl_deploy.cli.program import program as group
from embedl_deploy.compiling import CompileResult
from embedl_deploy.tuning import builds
from embedl_deploy.verify import Difference
from support.cli_folder import left_behind
from support.engines import layer, report
from support.onnx_files import INT8, OnnxFile

ROOT = Path(__file__).parents[3]
T = ("-b", "tensorrt")
X = ("-i", "1,3,16,16")
QUANTIZE = ("quantize", "nets:Net", *T, *X, "-o", "out.onnx")


@pytest.mark.parametrize(
    ("named", "code"), [((), 0), (("-b", "good"), 0), (("-b", "bad"), 1), (("-b", "good.more"), 1)]
)
def test_a_broken_backend_that_is_named_is_the_answer_no(command, monkeypatch, named, code):
    statuses = {
        "bad": BackendStatus("bad", "bad 1.2", "cannot be imported"),
        "good": BackendStatus("good", "good 1.2", conflicts=("two of them bring the same",)),
        "good.more": BackendStatus("good.more", "more 1.2", "has a wrong hook"),
    }
    monkeypatch.setattr(commands_backends, "list_backends", lambda: statuses)
    done = command("backends", *named)
    assert done.code == code
    shown = [name for name in statuses if f"{name} (" in done.out]
    wanted = {"bad": ["bad"], "good": ["good", "good.more"], "good.more": ["good.more"]}
    assert shown == (wanted[named[1]] if named else [*statuses])
    assert ("good (good 1.2)\n  conflict: two of them bring the same" in done.out) == ("good" in shown)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan"], 2, "Missing argument 'MODEL'"),
        (["plant"], 2, "No such command 'plant'"),
        (["plan", "nets:Net", "--colour"], 2, "No such option"),
        (["plan", "nets:Net"], 2, "Several backends are installed (onnxruntime, sensai, tensorrt); pass --backend"),
        (["plan", "nets:Net", "-b", "nope"], 2, "No backend 'nope' is installed"),
        (["backends", "-b", "nope"], 2, "No backend 'nope' is installed; there are onnxruntime, sensai, tensorrt"),
        (["plan", "nets:Net", *T, *X, "--inputs", "data.npy"], 2, "--input and --inputs both"),
        (["plan", "nets:Net", *T, "-i", "1,2,16,16"], 2, "expected input[1, 2, 16, 16] to have 3 channels"),
        (["plan", "nets:Net", *T, "--plan", "absent.json"], 2, "'absent.json' is not there; expected a plan"),
        (["plan", "nets:Net", *T, "--plan", "nets.py"], 3, "The plan is not valid JSON"),
        (["plan", "nets:Net", *T, "-o", "images"], 2, "File 'images' is a directory"),
        (["plan", "nets:broken", *T, "--model-arg", "reason=x"], 3, "nets.py:"),
        (["transform", "nets:Net", *T, "-o", "x.pt2"], 2, "Writing the model needs example inputs: pass --input"),
        (["transform", "nets:Net", *T, *X, "-o", "data.npy/x.pt2"], 4, "data.npy"),
        (["export", "nets:Net", *T, *X], 2, "Missing option '-o'"),
        (["export", "nets:Net", *T, "-o", "x.onnx"], 2, "Exporting needs example inputs"),
        (["export", "nets:Net", *T, *X, "-o", "x.onnx", "--dtype", "float8"], 2, "'float8' is not one of"),
        (["check", "absent.onnx", *T], 2, "'absent.onnx' is not there; expected an ONNX file"),
        (["check", "nets.py", *T], 2, "'nets.py' cannot be read as ONNX"),
        (["compile", "absent.onnx", *T], 2, "'absent.onnx' is not there"),
        (["compile", "x.onnx", *T, "--shape", "x=1,2/3"], 2, "'x=1,2/3' is not NAME=SMALLEST/USUAL/LARGEST"),
        (["compile", "x.onnx", *T, "--workspace", "1T"], 2, "'1T' is not a number of bytes such as 512M"),
        (["report", "absent.json"], 2, "'absent.json' is not there; expected an engine report"),
        (["compare", "nets.py", "nets.py"], 2, "'nets.py' is not an engine report"),
        ([*QUANTIZE], 2, "Missing option '--data'"),
        ([*QUANTIZE, "--data", "absent.npy"], 2, "'absent.npy' is not there; expected an .npz or .npy file"),
        ([*QUANTIZE, "--data", "nets.py"], 2, "'nets.py' is not an .npz or .npy file of plain arrays"),
        ([*QUANTIZE, "--data", "images", "--mean", "a"], 2, "'a' is not a list of numbers"),
        ([*QUANTIZE, "--data", "images", "--crop", "0"], 2, "'0' is not a size such as 224"),
        ([*QUANTIZE, "--data", "data.npy", "--precision", "int4"], 2, "activation is INT4; INT4 is for weights"),
        ([*QUANTIZE, "--data", "data.npy", "--policy", "nope"], 2, "has no policy 'nope'; it has all, mixed, rtx"),
        ([*QUANTIZE, "--data", "data.npy", "--skip", "nope*"], 2, "'nope*', which matches no module"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_what_is_refused(command, folder, arguments, code, message):
    done = command(*arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert done.out == "" and "Traceback" not in done.err
    assert left_behind(folder) == []


def test_errors_as_json(command):
    done = command("check", "absent.onnx", *T, "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["exit_code"], error["type"]) == (2, 2, "InputError")
    assert error["message"] in done.err
    error = json.loads(command("plan", "--json").out)["error"]
    assert error["type"] == "MissingParameter"


def test_differing_numbers_are_a_no(command, folder, monkeypatch):
    result = commands_graph.TransformationResult
    monkeypatch.setattr(result, "verify", lambda self, *args: Difference(0.5, float("inf")))
    done = command("transform", "nets:Net", *T, *X, "-o", "x.pt2", "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["agrees"] is False
    assert found["difference"] == {"max_abs": 0.5, "max_rel": None}, "JSON has no infinity"
    assert left_behind(folder) == []
    assert "more than the 0.0001 that is accepted" in command("transform", "nets:Net", *T, *X).out


def test_a_file_that_breaks_rules_is_a_no(command, folder):
    file = OnnxFile()
    shifted = file.constant(0.05), file.constant(3, INT8)  # a zero point, which the hardware does not have
    x = file.node("DequantizeLinear", file.node("QuantizeLinear", file.input(1, 8, 4, 4), *shifted), *shifted)
    ir.save(file.model(file.conv(x, file.qdq_weight(8, 8, 3, 3))), "shifted.onnx")
    done = command("check", "shifted.onnx", *T, "--json")
    report = json.loads(done.out)
    assert done.code == 1 and report["ok"] is False
    assert "error" in {finding["severity"] for finding in report["findings"]}
    assert command("check", "shifted.onnx", *T).out.startswith("shifted.onnx for tensorrt: ")


def test_an_unexpected_error_is_shown_whole(command, monkeypatch):
    def fail():
        raise RuntimeError("a defect")

    monkeypatch.setattr(commands_backends, "list_backends", fail)
    done = command("backends")
    assert done.code == 70
    assert "Traceback" in done.err and "in fail" in done.err
    assert "error: RuntimeError: a defect. This should not happen." in done.err


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, BrokenPipeError(32, "Broken pipe"), PermissionError(13, "Permission denied", "x")]
)
def test_what_the_system_does(command, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(commands_backends, "list_backends", fail)
    done = command("backends")
    if error is KeyboardInterrupt:
        assert done.code == 130 and "Interrupted" in done.err
    elif isinstance(error, BrokenPipeError):
        assert done.code == 141 and done.err == ""
    else:
        assert done.code == 4 and "error: Permission denied ('x'). No file" in done.err


def test_image_options_reach_the_data(command, folder):
    options = (
        "--resize",
        20,
        "--crop",
        "16,12",
        "--mean",
        "0,0,0",
        "--std",
        "1,1,1",
        "--samples",
        2,
        "--batch-size",
        2,
    )
    done = command(*QUANTIZE, "--data", "images", *options, "--json", "--no-run")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["calibrated_with"] == 2
    assert result["export"]["difference"] is None
    configs = [point["config"] for point in result["quantization"]["points"]]
    assert configs.count("INT8 per channel minmax") == 3


def test_quantization_options_reach_the_configuration(command, folder):
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    model = ("nets:Mlp", *T, "-i", "1,16", "--data", "rows.npy", "-o", "out.onnx", "--no-run", "--opset", 21)
    formats = ("--precision", "int4", "--weights-only", "--block-size", 8, "--skip", "2*", "--learned-rounding")
    done = command("quantize", *model, *formats, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["export"]["opset"] == 21
    points = {(point["path"], point["label"]): point for point in result["quantization"]["points"]}
    assert points["0", "weight"]["format"] == {"precision": "int4", "block_size": 8}
    assert points["0", "input 0"]["config"] == ""
    assert points["2", "weight"]["rule"] == "skip: '2*'"
    assert [entry["where"] for entry in result["quantization"]["corrections"]] == ["0", ""]

    done = command("quantize", *model, "--smooth-quant", "--method", "entropy", "--dynamic-batch")
    assert done.code == 0, done.err
    assert "INT8 entropy" in done.out and "Smoothing: " in done.out

    done = command("quantize", *model, "--centering")
    assert done.code == 0, done.err
    assert "INT8 centered minmax" in done.out and "Centering: 1 of 2 places" in done.out


def test_a_method_alone_keeps_the_formats_of_the_hardware(command, folder):
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    model = ("nets:Mlp", "-b", "sensai", "-i", "1,16", "--data", "rows.npy", "-o", "out.onnx", "--no-run")
    done = command("quantize", *model, "--method", "percentile", "--json")
    assert done.code == 0, done.err
    formats = [point["format"] for point in json.loads(done.out)["quantization"]["points"] if point["format"]]
    assert {True} == {found["power_of_two"] for found in formats}
    assert {found.get("calibration_method", "minmax") for found in formats} == {"percentile", "minmax"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--precision", "int16"), ["INT16 powers of two minmax"]),
        (("--weights-only",), ["INT8 powers of two minmax"]),
        (("--weights-only", "--block-size", 4), ["INT8 blocks of 4 powers of two minmax"]),
        (("--method", "dynamic"), ["UINT8 asymmetric dynamic", "INT8 powers of two minmax"]),
    ],
    ids=str,
)
def test_what_is_not_asked_for_stays_that_of_the_hardware(command, folder, options, wanted):
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    model = ("nets:Mlp", "-b", "sensai", "-i", "1,16", "--data", "rows.npy", "-o", "out.onnx", "--no-run")
    done = command("quantize", *model, *options, "--opset", 21, "--json")
    assert done.code == 0, done.err
    points = json.loads(done.out)["quantization"]["points"]
    assert {point["config"] for point in points if point["config"]} == set(wanted)
    assert "--weights-only" not in options or {p["label"] for p in points if p["config"]} == {"weight"}


def test_sensitivity_lists_the_layers_and_goes_on_where_it_was(command, folder):
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    given = (
        "nets:Mlp",
        "-b",
        "tensorrt",
        "-i",
        "4,16",
        "--data",
        "rows.npy",
        "--state",
        "state.json",
        "--metric",
        "kl",
    )
    done = command("sensitivity", *given, "--json")
    assert done.code == 0, done.err
    plain = json.loads(done.out)
    assert plain["metric"] == "kl"
    assert plain["batches"] == 2
    assert sum(layer["share"] for layer in plain["layers"]) == pytest.approx(1)
    again = command("sensitivity", *given)
    assert again.code == 0, again.err
    assert f"{plain['quantized']:.4g} with everything quantized" in again.out


@pytest.mark.parametrize("saved", [(), ("--plan-output", "tuned_plan.json", "--format", "fp8")])
def test_what_tune_decides_is_what_quantize_does(command, folder, monkeypatch, saved):
    def compiled(path, engine, **settings):
        quantizers = sum(node.op_type == "QuantizeLinear" for node in ir.load(path).graph)
        return CompileResult(engine, engine, report(*[layer("kernel")] * (10 - quantizers)))  # each saves a kernel

    monkeypatch.setattr(builds, "compile_onnx", compiled)
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    given = ("nets:Mlp", "-b", "tensorrt", "-i", "4,16", "--data", "rows.npy")
    tuned = command("tune", *given, "--target", "sm89", "--objective", "kernels", "-o", "tuned.json", *saved, "--json")
    assert tuned.code == 0, tuned.err
    assert Path("tuned_plan.json").exists() is bool(saved)
    given = (*given, *(("--plan", "tuned_plan.json") if saved else ()))
    decided = json.loads(tuned.out)["policy"]["quantized"]
    assert json.loads(Path("tuned.json").read_text())["quantized"] == decided
    done = command("quantize", *given, "--decisions", "tuned.json", "-o", "out.onnx", "--no-run", "--json")
    assert done.code == 0, done.err
    points = json.loads(done.out)["quantization"]["points"]
    assert sorted([point["path"], point["label"]] for point in points if point["config"]) == sorted(decided)
    assert decided


@pytest.mark.parametrize("tunes", [True, False])
def test_deploy_writes_everything_that_repeats_it(command, folder, monkeypatch, tunes):
    def compiled(path, engine=None, **settings):
        return CompileResult(engine or path, path, report(layer("kernel")))

    monkeypatch.setattr(builds, "compile_onnx", compiled)
    monkeypatch.setattr(commands_deploy, "compile_onnx", compiled)
    np.save("rows.npy", np.random.default_rng(0).standard_normal((8, 16)))
    given = (
        "deploy",
        "nets:Mlp",
        "-b",
        "tensorrt",
        "-i",
        "4,16",
        "--data",
        "rows.npy",
        "--target",
        "sm89",
        "-o",
        "out",
    )
    done = command(*given, "--seconds", 0, *(() if tunes else ("--no-tune",)), "--json")
    assert done.code == 0, done.err
    written = {file.name for file in Path("out").iterdir()}
    always = {"plan.json", "model.onnx", "run.html", "command.txt"}
    assert written == always | ({"decisions.json", "tune_state.json"} if tunes else {"recipe.json"})
    repeated = Path("out/command.txt").read_text()
    assert repeated.startswith("embedl-deploy deploy nets:Mlp -b tensorrt -i 4,16 --data rows.npy --target sm89 -o out")
    assert "kernel" in Path("out/run.html").read_text()
    assert command("deploy", *given[1:-1], "rows.npy").code != 0  # a file is not a folder


@pytest.mark.parametrize("quantize", [False, True])
def test_what_float16_cannot_hold_is_kept_in_float32(command, folder, quantize):
    np.save("rows.npy", 1e6 * np.random.default_rng(0).standard_normal((8, 16)))
    data = ("--data", "rows.npy") if quantize else ()
    given = ("nets:Mlp", "-b", "tensorrt", "--inputs", "rows.npy", *data, "--dtype", "float16", "-o", "out.onnx")
    done = command("quantize" if quantize else "export", *given, "--keep-in-float32", "--json")
    assert done.code == 0, done.err
    plain = json.loads(done.out)
    assert plain["float32"]["nodes"][0]["limit"] == "largest"
    assert plain["export"]["difference"]["max_rel"] < 0.01


def test_colour_is_for_terminals(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert uses_colour(Terminal()) and not uses_colour(sys.stdout)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not uses_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not uses_colour(Terminal())


@pytest.mark.parametrize("name", list(group.commands))
def test_help(command, name):
    done = command(name, "--help")
    assert done.code == 0 and done.err == ""
    assert "--json" in done.out
    assert command("--help").out.count(f"\n  {name} ") == 1


def test_exit_codes_and_commands_are_documented(command):
    document = (ROOT / "docs" / "command_line.md").read_text()
    text = command("--help").out
    for code in ExitCode:
        assert f"\n  {int(code)} " in text
        assert f"\n| {int(code)} |" in document
    for name, entry in group.commands.items():
        assert f"## {name}\n" in document
        for parameter in entry.params:
            if isinstance(parameter, click.Option):
                assert any(f"`{option}" in document for option in parameter.opts), f"{name} {parameter.opts}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from embedl_deploy.cli import main; main(['quantize', '--help'])\n"
        "print([m for m in ('onnx', 'onnxruntime', 'torchvision', 'PIL', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_shells_complete_backends(monkeypatch, capsys):
    for name, value in {"COMPLETE": "bash_complete", "WORDS": "embedl-deploy plan -b t", "CWORD": "3"}.items():
        monkeypatch.setenv(f"{'_EMBEDL_DEPLOY_' if name == 'COMPLETE' else 'COMP_'}{name}", value)
    with pytest.raises(SystemExit) as ended:
        program.main([])
    assert (ended.value.code, capsys.readouterr().out) == (0, "plain,tensorrt\n")


def test_float16_file(command, folder):
    done = command("export", "nets:Net", *T, *X, "-o", "half.onnx", "--dtype", "float16", "--trace", "symbolic")
    assert done.code == 0, done.err
    assert "rewrites applied\nWrote half.onnx: " in done.out
    assert left_behind(folder) == ["half.onnx"]


@pytest.mark.parametrize("name", ["", "input:"])
def test_dynamic_dimensions_reach_the_file(command, folder, name):
    options = ("--dynamic", f"{name}0=batch", "--dynamic", f"{name}2=rows:8-64")
    assert command("export", "nets:Net", *T, *X, *options, "-o", "open.onnx").code == 0
    (given,) = ir.load("open.onnx").graph.inputs
    assert [str(size) for size in given.shape] == ["batch", "3", "rows", "16"]


@pytest.mark.parametrize("text", ["batch", "0=", "x=batch", "0=batch:3", "0=batch:4-4", "0=batch:5-4", "0=2"])
def test_dynamic_dimensions_in_another_form(command, text):
    done = command("export", "nets:Net", *T, *X, "--dynamic", text, "-o", "open.onnx")
    assert done.code == 2 and "is not [NAME:]DIMENSION=LABEL[:MIN-MAX]" in done.err
