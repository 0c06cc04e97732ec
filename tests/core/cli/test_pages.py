"""`report --html`: a page from the JSON files of other commands."""

import json

import pytest

from embedl_deploy.json_text import finite
from support import run_parts
from support.cli_folder import left_behind
from support.html_pages import Page


@pytest.fixture
def runs(folder):
    """The files of a run, as commands print them."""
    parts = finite(run_parts.parts())
    files = {
        "int8.json": parts["engine"],
        "fp16.json": run_parts.engine("float16").to_dict(),
        "quantize.json": {name: parts[name] for name in ("transformation", "quantization", "float32")},
        "check.json": parts["check"],
        "compile.json": {"engine": "a.engine", "report_path": "a.json", "report": parts["engine"]},
    }
    for name, plain in files.items():
        (folder / name).write_text(json.dumps(plain))
    return folder


def test_a_page_of_a_run(command, runs):
    others = ("--with", "quantize.json", "--with", "fp16.json", "--with", "check.json", "--title", "My run")
    done = command("report", "int8.json", *others, "--command", "embedl-deploy check a.onnx", "--html", "out/run.html")
    assert done.code == 0 and "Wrote out/run.html" in done.err and "5 kernels" in done.out
    page = Page((runs / "out" / "run.html").read_text(encoding="utf-8"))
    assert page.sections == ["rewrites", "layers", "comparison", "check", "float32", "kernels", "commands"]
    assert "My run" in page.text and "float16.onnx against int8.onnx" in page.text
    assert "embedl-deploy check a.onnx\nembedl-deploy report int8.json --with quantize.json" in page.text


def test_it_needs_no_engine(command, runs):
    done = command("report", "quantize.json", "--html", "run.html", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "page": {"path": "run.html", "shows": ["transformation", "quantization", "float32"]}
    }
    done = command("report", "quantize.json", "--html", "run.html", "--module", "head")
    assert done.code == 2 and "--layers, --module and --estimate ask an engine's report" in done.err
    done = command("report", "compile.json", "--html", "run.html", "--json")
    assert json.loads(done.out)["report"]["kernels"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int8.json", "--with", "check.json"), "--with, --command and --title are for a page"),
        (("int8.json", "--html", "x.html", "--with", "nets.py"), "'nets.py' is no JSON"),
        (("int8.json", "--html", "x.html", "--with", "empty.json"), "'empty.json' holds nothing that a page shows"),
        (("int8.json", "--html", "x.html", "--with", "list.json"), "'list.json' holds nothing that a page shows"),
        (
            ("int8.json", "--html", "x.html", "--with", "old.json"),
            "'old.json': This is an engine report of version 2, from an earlier release",
        ),
        (
            ("int8.json", "--html", "x.html", "--with", "fp16.json", "--with", "int8.json"),
            "compares two engines, and 3",
        ),
        (("int8.json", "--html", "check.json", "--with", "check.json"), "which would be overwritten"),
        (("int8.json", "--html", "x.html", "--with", "cut.json"), "cannot show check: check.findings[0] has no"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(command, runs, arguments, message):
    (runs / "empty.json").write_text("{}")
    (runs / "list.json").write_text("[1]")
    (runs / "old.json").write_text(json.dumps({**run_parts.engine().to_dict(), "version": 2}))
    (runs / "cut.json").write_text(json.dumps({**run_parts.check(), "findings": [{}]}))
    before = left_behind(runs)
    done = command("report", *arguments)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert left_behind(runs) == before
