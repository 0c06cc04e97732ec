"""Models of the zoo in processes of their own: limits, crashes, and what is not run again."""

import sys
from pathlib import Path

import pytest

from zoo import running
from zoo.__main__ import main
from zoo.families import FAMILIES
from zoo.running import read_records, run_models

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture
def fake(monkeypatch):
    """Workers that need no torch."""
    monkeypatch.setattr(running, "WORKER", FAKE)


def test_a_process_that_dies_says_in_which_stage(fake, tmp_path):
    path = tmp_path / "results" / "toy.jsonl"
    names = ["crashes", "exits", "lives"]
    records = {record.model: record for record in run_models("toy", names, path)}
    assert records["crashes"].failure == ("transform", "the process was ended by SIGSEGV")
    assert records["exits"].failure == ("transform", "the process ended with status 1: out of luck")
    assert records["lives"].failure == ("agree", "differs by 5")
    assert records["lives"].passed("transform") and not records["lives"].passed("engine")
    assert records["crashes"].stages["build"]["parameters"] == 10
    assert read_records(path) == records


def test_a_process_that_takes_too_long_is_ended(fake, tmp_path):
    (record,) = run_models("toy", ["hangs"], tmp_path / "toy.jsonl", timeout=0.5)
    assert record.failure == ("transform", "it took more than 0.5 seconds")
    assert record.seconds < 30


def test_memory_is_limited_in_a_real_worker(tmp_path):
    (record,) = run_models("support.zoo_family", ["large"], tmp_path / "toy.jsonl", gigabytes=4)
    stage, reason = record.failure
    assert stage == "build" and reason.startswith("RuntimeError: ") and "memory" in reason


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def workers(self, fake):
        """Of these tests."""

    def run(self, folder, *arguments):
        return main(["--family", "support.zoo_family", "--results", str(folder), *arguments])

    def test_what_has_a_result_is_not_run_again(self, tmp_path, capsys):
        assert self.run(tmp_path, "go*") == 1, "a stage failed"
        assert self.run(tmp_path) == 1
        path = tmp_path / "support.zoo_family.jsonl"
        run = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if line.endswith(" s)")]
        assert run == ["good", "large", "zero", "doubtful"]
        assert len(path.read_text().splitlines()) == 4
        self.run(tmp_path, "good", "--failed")
        self.run(tmp_path, "good", "--again")
        assert len(path.read_text().splitlines()) == 6 and len(read_records(path)) == 4

    def test_a_markdown_table(self, tmp_path):
        page = tmp_path / "zoo.md"
        self.run(tmp_path, "--markdown", str(page))
        assert "| good | symbolic | ✗ | – | – | – | – | – | – | – |" in page.read_text()
        assert "- agree: differs by 4: good, zero\n" not in page.read_text()
        assert "- agree: differs by 4: good, large, zero, doubtful\n" in page.read_text()

    def test_a_name_that_is_not_there(self, tmp_path, capsys):
        assert self.run(tmp_path, "goat*") == 2
        assert capsys.readouterr().err == "No model of the family 'support.zoo_family' is called goat*.\n"

    @pytest.mark.parametrize("stages", ["build,engine", "build,transform,bake"])
    def test_stages_that_are_not_there_or_lack_what_they_need(self, tmp_path, capsys, stages):
        assert self.run(tmp_path, "--stages", stages) == 2
        assert "expected some of build,transform," in capsys.readouterr().err

    def test_a_backend_has_results_and_stages_of_its_own(self, tmp_path, capsys):
        self.run(tmp_path, "good", "--backend", "onnxruntime", "--policy", "all")
        assert [path.name for path in tmp_path.iterdir()] == ["support.zoo_family-onnxruntime-all.jsonl"]
        assert "INT8 kernels / asked" in capsys.readouterr().out
        assert self.run(tmp_path, "--backend", "onnxruntime", "--stages", "build,transform,quantize,fp16") == 2
        assert "int8,check,engine,run, each with what it needs" in capsys.readouterr().err


def test_every_family_has_a_file():
    folder = Path(running.__file__).parent / "families"
    listed = {f"zoo.families.{path.stem}" for path in folder.glob("*.py")}
    assert set(FAMILIES.values()) == listed - {"zoo.families.__init__", "zoo.families.transformers_member"}
