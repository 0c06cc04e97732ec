"""What the kit spares torch's exporter leaves every export its own table of translations."""

import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from embedl_deploy.testing.translations import read_translations_once

RELU = torch.ops.aten.relu.default


def test_each_export_has_a_table_of_its_own():
    read_translations_once()
    first = ONNXRegistry.from_torchlib(opset_version=18)
    first.register_op(RELU, lambda x: x)
    second = ONNXRegistry().from_torchlib(opset_version=18)
    assert [found.is_custom for found in first.get_decomps(RELU)] == [True, False]
    assert [found.is_custom for found in second.get_decomps(RELU)] == [False]


def test_sets_are_told_apart_and_read_once(monkeypatch):
    calls = []

    def read(opset_version=18):
        calls.append(opset_version)
        return ONNXRegistry()

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(read))
    read_translations_once()
    read_translations_once()
    for version in (18, 20, 18, 20):
        assert ONNXRegistry.from_torchlib(opset_version=version).functions == {}
    assert calls == [18, 20]
