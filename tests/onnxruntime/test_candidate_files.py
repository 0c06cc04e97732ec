"""The files of a search's candidates, with the backend's last changes, against what an export of each gives."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.backend import get_backend
from embedl_deploy.export.finishing import finish_for, unfinished
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.tuning.decisions import policy_of
from embedl_deploy.tuning.files import Files
from embedl_deploy.tuning.units import units_of


class Mixed(nn.Module):
    """Convolutions with activations that need last changes, and a product with a bias."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(4, 8, 3, padding=1), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)),
        )
        for layer in self.body:
            if isinstance(layer, nn.Linear):  # equal constants: the file stores one for all of them
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        return self.body(x)


def nodes_of(path):
    """Operators, and the floating-point constants that they read, in order."""
    found = []
    for node in ir.load(path).graph:
        constants = [value.const_value for value in node.inputs if value is not None and value.const_value is not None]
        found.append((node.op_type, [c.numpy() for c in constants if c.dtype is ir.DataType.FLOAT]))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_is_what_an_export_gives(seed, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    result = transform(Mixed().eval(), x, backend="onnxruntime")
    everything = quantize(result, [x], QuantConfig(policy="all"), progress=False)
    report = quantization_report(everything)
    units = units_of(layers_of(everything, report))
    off = frozenset().union(*(unit.points for unit in units[seed::3]))
    policy = policy_of(report.points, dict.fromkeys(off, "for the test"))
    some = quantize(result, [x], QuantConfig(policy=policy), progress=False)
    export_onnx(some, x, tmp_path / "wanted.onnx", tolerance=None)

    def export(model, path):
        with unfinished():
            export_onnx(model, x, path, tolerance=None)

    on = frozenset(report.quantized) - off
    candidate = Files(everything, units, {}, tmp_path, export).fitting(on).placed(on)
    finish_for(candidate, get_backend("onnxruntime"))
    ir.save(candidate, tmp_path / "found.onnx")
    assert 0 < len(quantization_report(some).quantized) < len(report.quantized)
    onnxruntime.InferenceSession(tmp_path / "found.onnx")  # which refuses a name that is given twice
    found, wanted = nodes_of(tmp_path / "found.onnx"), nodes_of(tmp_path / "wanted.onnx")
    assert [kind for kind, _ in found] == [kind for kind, _ in wanted]
    for (kind, constants), (_, expected) in zip(found, wanted, strict=True):
        for constant, other in zip(constants, expected, strict=True):
            # an activation written out, to be quantized inside, is calibrated with other roundings
            np.testing.assert_allclose(constant, other, rtol=1e-5, err_msg=kind)
