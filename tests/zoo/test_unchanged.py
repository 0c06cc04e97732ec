"""Outputs before and after a change: what is written of a file, and what is said of a difference."""

import copy
import json

import pytest
from onnx import TensorProto, helper, save

from zoo.unchanged.__main__ import main
from zoo.unchanged.writing import file_data

PLAN = {
    "matches": [{"node": "relu", "apply": True, "reason": ""}, {"node": "add", "apply": False, "reason": "overlaps"}],
    "points": [{"path": "fc", "rule": "configuration", "config": {"bits": 8}}],
    "findings": [{"rule": "TRT-001", "message": "no kernel"}],
    "notes": ["one"],
    "unsupported": {"fft": "no plugin"},
}


@pytest.fixture
def compared(tmp_path, capsys):
    """Compares the plan with a copy that a function has changed; returns status and lines."""

    def compare(change, *accepted):
        after = copy.deepcopy(PLAN)
        change(after)
        for side, data in (("before", PLAN), ("after", after)):
            (tmp_path / side / "net").mkdir(parents=True, exist_ok=True)
            (tmp_path / side / "net" / "plan.json").write_text(json.dumps(data))
        accept = [option for kind in accepted for option in ("--accept", kind)]
        status = main(["compare", str(tmp_path / "before"), str(tmp_path / "after"), *accept])
        return status, capsys.readouterr().out.splitlines()

    return compare


def test_the_same_outputs_have_no_differences(compared):
    assert compared(lambda data: None) == (0, ["No differences."])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda data: data["matches"][1].update(apply=True), "matches[1] (add).apply: it was false, and is true"),
        (lambda data: data["matches"].pop(), "matches: it had 2 entries, and has 1"),
        (lambda data: data["points"][0]["config"].update(bits=4), "points[0] (fc).config.bits: it was 8, and is 4"),
        (
            lambda data: data["findings"][0].update(rule="TRT-002"),
            'findings[0] (TRT-001).rule: it was "TRT-001", and is "TRT-002"',
        ),
        (lambda data: data["points"][0].pop("path"), 'points[0] (fc).path: it was "fc", and is gone'),
        (lambda data: data.update(notes=data.pop("notes")), "its keys are in another order"),
    ],
)
def test_a_difference_is_named_and_never_accepted(compared, change, line):
    assert compared(change) == (1, [f"net/plan.json: {line}", "Differences: 1 of values."])
    assert compared(change, "words", "new-keys")[0] == 1


@pytest.mark.parametrize(
    ("change", "kind", "other"),
    [
        (lambda data: data["matches"][1].update(reason="is over"), "words", "new-keys"),
        (lambda data: data["points"][0].update(rule="policy"), "words", "new-keys"),
        (lambda data: data["findings"][0].update(message="has none"), "words", "new-keys"),
        (lambda data: data.update(notes=["two", "three"]), "words", "new-keys"),
        (lambda data: data["unsupported"].update(fft="none"), "words", "new-keys"),
        (lambda data: data["matches"][0].update(cause=None), "new-keys", "words"),
    ],
)
def test_words_and_new_keys_count_unless_they_are_accepted(compared, change, kind, other):
    status, lines = compared(change)
    assert status == 1 and lines
    assert compared(change, other) == (1, lines)
    assert compared(change, kind) == (0, [f"{lines[-1][:-1]} (accepted)."])


def test_a_model_that_is_missing_is_a_difference(tmp_path, capsys):
    for path in ("before/a", "before/b", "after/b"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "report.json").write_text("{}")
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 1
    assert capsys.readouterr().out == "a/report.json: it is missing after the change\nDifferences: 1 of values.\n"
    with pytest.raises(FileNotFoundError, match="has no outputs"):
        main(["compare", str(tmp_path / "nothing"), str(tmp_path / "after")])


def test_a_file_is_written_node_by_node(tmp_path):
    def data(name, alpha, weight, told="because"):
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("Elu", ["x"], ["y"], name="act", alpha=alpha)],
            "g",
            [value("x", TensorProto.FLOAT, [1])],
            [value("y", TensorProto.FLOAT, [1])],
            [helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])],
        )
        model = helper.make_model(graph)
        helper.set_model_props(model, {"embedl_deploy.in_float": told})
        save(model, tmp_path / name)
        return file_data(tmp_path / name)

    one, same, other = data("1", 1.0, 2.0), data("2", 1.0, 2.0), data("3", 0.5, 2.5)
    assert one == same
    reworded = data("4", 1.0, 2.0, "for a reason")
    assert {key for key in one if one[key] != reworded[key]} == {"metadata", "bytes"}
    assert one["nodes"][0]["attributes"] == {"alpha": 'name: "alpha" f: 1 type: FLOAT'}
    assert other["nodes"][0]["attributes"] == {"alpha": 'name: "alpha" f: 0.5 type: FLOAT'}
    assert one["initializers"].keys() == other["initializers"].keys() == {"w"}
    assert len({side["initializers"]["w"] for side in (one, other)}) == len({one["sha256"], other["sha256"]}) == 2


def test_a_folder_without_packages_is_told(tmp_path, capsys):
    assert main(["write", str(tmp_path / "out"), "--sources", str(tmp_path)]) == 2
    assert "has no packages/*/src" in capsys.readouterr().err
