"""Weights that lie beside a file are put into it."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.export import onnx as onnx_export
from embedl_deploy.export.one_file import put_into_one_file
from support.nets import net, random_input

X = random_input(2, 64)


@pytest.mark.parametrize("threshold", [0, 1024])
def test_it_is_the_file_that_would_have_been_written_at_once(tmp_path, threshold):
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 4))
    whole = export_onnx(model, X, tmp_path / "whole.onnx").path
    apart, place = tmp_path / "apart.onnx", "apart.onnx.data"
    settings = {"save_as_external_data": True, "location": place, "size_threshold": threshold}
    onnx.save(onnx.load(whole), apart, **settings)
    put_into_one_file(apart)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apart.onnx", "whole.onnx"]
    assert apart.read_bytes() == onnx.load(whole).SerializeToString(deterministic=True)


def test_weights_of_a_branch_come_along(tmp_path):
    weight = onnx.numpy_helper.from_array(X.numpy(), "weight")
    (y,) = (onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, X.shape),)
    branch = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["weight"], ["y"])], "branch", [], [y], [weight])
    node = onnx.helper.make_node("If", ["taken"], ["y"], then_branch=branch, else_branch=branch)
    taken = onnx.helper.make_tensor_value_info("taken", onnx.TensorProto.BOOL, [])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [taken], [y]))
    wanted = model.SerializeToString(deterministic=True)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    put_into_one_file(path)
    assert path.read_bytes() == wanted


@pytest.mark.parametrize("outputs", [8, 1])
def test_a_large_file_is_checked_with_its_weights_beside_it_and_written_as_one(outputs, tmp_path, monkeypatch):
    """Weights of 256 bytes are too small to lie beside it, if all else that makes a model large is not in the file."""
    model = net(lambda m, x: torch.relu(m.fc(x)), fc=nn.Linear(64, outputs))
    at_once = export_onnx(model, X, tmp_path / "m.onnx").path.read_bytes()
    beside = []
    run = onnx_export.judge
    monkeypatch.setattr(onnx_export, "_BESIDE_BYTES", 100)
    monkeypatch.setattr(
        onnx_export, "judge", lambda *a, **k: beside.extend(f.name for f in a[3].path.parent.iterdir()) or run(*a, **k)
    )
    written = export_onnx(model, X, tmp_path / "m.onnx")
    assert sorted(beside) == ["m.onnx", "m.onnx.data"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert written.path.read_bytes() == at_once
    assert written.size == len(at_once)
