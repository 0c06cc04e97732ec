"""Compiling and engine reports: with a compiler, without one, with one that refuses."""

import json

import pytest

from support.cli_folder import left_behind, small_onnx

ACME = ("--backend", "acme")


@pytest.fixture
def onnx_file(folder, acme):
    (folder / "net.onnx").write_bytes(small_onnx("node_conv2d"))
    return "net.onnx"


def test_options_reach_the_compiler(command, folder, onnx_file):
    options = ("--workspace", "2M", "--shape", "x=1,3/2,3/4x3", "--timeout", 5, "--optimization-level", 3, "--refit")
    done = command("compile", onnx_file, *ACME, "-o", "sub/net.plan", "--compiler", "quick", *options, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["engine"], result["report_path"]) == ("sub/net.plan", "sub/net.plan.json")
    assert result["report"]["compiler"] == "Quick 1.0" and result["report"]["target"] == "chip1"
    assert left_behind(folder / "sub") == ["net.plan", "net.plan.json"]


def test_a_compiler_that_is_not_installed(command, folder, onnx_file):
    done = command("compile", onnx_file, *ACME, "--compiler", "absent")
    assert done.code == 3
    assert "No installed compiler can compile net.onnx" in done.err
    assert "pip install acmec" in done.err and "Or compile on another machine: quick net.onnx" in done.err
    assert left_behind(folder) == ["net.onnx"]


def test_a_refusal_names_the_node(command, folder, onnx_file):
    done = command("compile", onnx_file, *ACME, "--target", "picky", "--json")
    assert done.code == 3
    error = json.loads(done.out)["error"]
    assert error["type"] == "CompileError" and error["node"] == "node_conv2d"
    assert error["messages"] == ["it is too wide"]
    assert "Traceback" not in done.err and left_behind(folder) == ["net.onnx"]


def test_reports(command, onnx_file):
    assert command("compile", onnx_file, *ACME, "--layers").out.count("convolution") >= 1
    done = command("report", "net.engine.json", "--estimate", "acme 12", *ACME, "--json")
    data = json.loads(done.out)
    assert data["report"]["model"] == "net.onnx"
    assert data["estimate"]["device"] == "Acme 12" and data["estimate"]["seconds"] > 0
    done = command("report", "net.engine.json", "--estimate", "acme", *ACME)
    assert done.code == 2
    assert "--estimate 'acme' names 2 devices; expected one of: Acme 1, Acme 12." in done.err
    done = command("report", "net.engine.json", "--module", "nowhere")
    assert done.code == 2 and "No layer came from a module 'nowhere'" in done.err


def test_comparison(command, onnx_file):
    command("compile", onnx_file, *ACME)
    command("compile", onnx_file, *ACME, "--target", "chip2", "-o", "two.engine")
    done = command("compare", "net.engine.json", "two.engine.json", "--json")
    data = json.loads(done.out)
    assert data["same_judge"] is False and data["verdict"].startswith("Not comparable")
    assert data["first"]["target"] == "chip1" and data["second"]["target"] == "chip2"
    assert "layers" not in data["first"]


def test_engines_of_a_compiler_that_cannot_run_them(command, folder, onnx_file):
    command("compile", onnx_file, *ACME)
    for name in ("run", "benchmark"):
        done = command(name, "net.engine", *ACME, "--compiler", "quick")
        assert done.code == 3
        assert "The compiler 'quick' cannot run engines, so net.engine was not run" in done.err
    done = command("run", "none.engine", *ACME)
    assert done.code == 2 and "'none.engine' is not there; expected an engine" in done.err
