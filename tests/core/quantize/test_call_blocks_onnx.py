"""Files with activations in NVFP4 and MXFP8: ONNX's own operators, and the numbers of PyTorch."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.export import off_the_grid, run_onnx
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, freeze, quantize
from support.nets import random_input
from support.quantizable import fused
from support.rounded_activations import Rounds, hard_rows

FORMATS = [Precision.NVFP4, Precision.MXFP8]
OPSETS = {Precision.NVFP4: 23, Precision.MXFP8: 24}
X = random_input(8, 64)


@pytest.fixture(params=FORMATS, scope="module")
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def quantized(precision):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48)).eval()
    config = QuantConfig(TensorQuantConfig(precision), TensorQuantConfig(precision))
    return quantize(fused(model, X), [X], config, progress=False).eval()


class TestNumbers:
    def test_are_those_of_pytorch_to_the_bit(self, precision, tmp_path):
        x, model = hard_rows(), Rounds(precision)
        exported = export_onnx(model, x, tmp_path / "m.onnx", opset=OPSETS[precision], tolerance=None)
        assert torch.equal(run_onnx(exported.path, x)[0], model(x))
        with np.errstate(over="ignore"):
            (found,) = ReferenceEvaluator(onnx.load(exported.path)).run(None, {"x": x.numpy()})
        assert torch.equal(torch.from_numpy(np.asarray(found)), model(x))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_file_computes_what_the_model_does(self, quantized, precision, dtype, tmp_path):
        exported = export_onnx(quantized, X, tmp_path / "m.onnx", dtype=dtype)
        assert exported.opset == max(OPSETS[precision], 22)
        assert exported.sqnr > {torch.float32: 100, torch.float16: 25, torch.bfloat16: 15}[dtype]
        file = onnx.load(exported.path)
        assert {node.domain for node in file.graph.node} == {""} and not file.functions

    def test_of_any_number_of_dimensions_and_an_open_batch(self, precision, tmp_path):
        model = Rounds(precision)
        for shape in ((64,), (2, 1, 3, 2, 32)):
            x = random_input(*shape)
            exported = export_onnx(model, x, tmp_path / "m.onnx", opset=24, dynamic_batch=len(shape) > 1)
            more = torch.cat([x, x * 2]) if len(shape) > 1 else x
            assert torch.equal(run_onnx(exported.path, more)[0], model(more))


class TestFiles:
    def test_an_operator_set_without_the_format_is_refused(self, quantized, precision, tmp_path):
        with pytest.raises(Exception, match=rf"opset is 22; {precision.name} needs {OPSETS[precision]}"):
            export_onnx(quantized, X, tmp_path / "m.onnx", opset=22)

    def test_the_frozen_model_has_the_same_file(self, quantized, tmp_path):
        paths = [export_onnx(m, X, tmp_path / f"{i}.onnx").path for i, m in enumerate((quantized, freeze(quantized)))]
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_without_rounding_activations_the_file_is_that_of_the_model_without(self, quantized, precision, tmp_path):
        path = export_onnx(quantized, X, tmp_path / "m.onnx").path
        model = freeze(quantized)
        (found,), count = off_the_grid.run_without_quantizers(path, model, [X])
        assert count == 2
        torch.testing.assert_close(found, off_the_grid.without_quantizers(model)(X), rtol=0, atol=1e-5)
        if precision is Precision.NVFP4:  # another scale of the tensor is another grid
            first = next(part for part in model.modules() if type(part).__name__ == "BlockQuantizer")
            first.scale.mul_(1.01)
            assert off_the_grid.run_without_quantizers(path, model, [X]) == (None, 0)
