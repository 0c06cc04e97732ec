"""A fold in a file whose sides are open; slow, because of what torch proves of sizes."""

import onnx
import pytest
import torch
import torch.nn.functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.conversions import DecomposeFoldPattern, PermuteUnfoldPattern
from support.nets import net, random_input


@pytest.mark.parametrize("settings", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_the_file_holds_for_every_height(settings, tmp_path):
    model = net(lambda m, x: F.fold(F.unfold(x, **settings) * 2, x.shape[-2:], **settings)).eval()
    x = random_input(2, 4, 8, 12)
    shapes = {"x": {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}}
    patterns = [DecomposeFoldPattern(), PermuteUnfoldPattern()]
    result = transform(model, x, patterns=patterns, dynamic_shapes=shapes)
    exported = export_onnx(result, x, tmp_path / "fold.onnx", dynamic_shapes=shapes)  # it is run with other heights
    graph = onnx.load(tmp_path / "fold.onnx").graph
    assert "Col2Im" not in {node.op_type for node in graph.node}
    assert [dim.dim_param != "" for dim in graph.input[0].type.tensor_type.shape.dim] == [True, False, True, False]
    assert exported.difference.max_rel < 1e-6
