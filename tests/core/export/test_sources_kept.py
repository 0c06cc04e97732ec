"""What the exporter reads of the sources of its translations."""

import torch
from onnxscript import TracedOnnxFunction
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.sources_kept import sources_kept
from support.small_patterns import PATTERNS


def test_no_source_is_read_for_a_second_file(tmp_path, monkeypatch):
    x = torch.randn(1, 3, 8, 8)
    result = transform(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), x, patterns=PATTERNS)
    export_onnx(result, x, tmp_path / "first.onnx")

    def read(function):
        raise AssertionError(f"the source of {function.name} is read again")

    again = property(read)
    monkeypatch.setattr(TracedOnnxFunction, "function_ir", again)
    export_onnx(result, x, tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert TracedOnnxFunction.function_ir is again  # what was there before


def test_a_release_that_keeps_them_itself_is_left_alone(monkeypatch):
    kept = object()
    monkeypatch.setattr(TracedOnnxFunction, "function_ir", kept)
    with sources_kept():
        assert TracedOnnxFunction.function_ir is kept
