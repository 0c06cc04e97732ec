"""Windows that are cut out of a map, added up again, or larger than it, given to a compiler that refuses those."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.backend import get_backend
from embedl_deploy.conversions import DecomposeFoldPattern, PermuteUnfoldPattern
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import net, random_input


def outlook(m, x):
    """As in VOLO, without its attention; a grid of windows, as in MobileViTV2; and EfficientNet's last pool."""
    y = m.first(x)
    y = F.fold(F.unfold(y, 3, padding=1, stride=2) * 0.5, y.shape[-2:], 3, padding=1, stride=2)
    y = F.fold(torch.tanh(F.unfold(m.second(y), 2, stride=2)), y.shape[-2:], 2, stride=2)
    return m.pool(m.third(y))


def test_the_compiler_takes_them_in_eight_bits_with_an_open_batch(tmp_path):
    rtx = next(compiler for compiler in get_backend("tensorrt").compilers if "rtx" in compiler.name)
    if missing := rtx.missing():
        pytest.skip(missing)
    convs = {name: nn.Conv2d(16, 16, 3, padding=1) for name in ("first", "second", "third")}
    model = net(outlook, pool=nn.AvgPool2d(320, ceil_mode=True), **convs).eval()
    x = random_input(2, 16, 8, 8)
    result = transform(model, x, backend="tensorrt")
    patterns = [entry["pattern"] for entry in result.report["applied"]]
    wanted = {"DecomposeFoldPattern": 2, "PermuteUnfoldPattern": 1, "ClipPoolWindowPattern": 1}
    assert {name: patterns.count(name) for name in wanted} == wanted
    quantized = quantize(result, [x])
    assert quantization_report(quantized).uncovered == ()
    path = tmp_path / "windows.onnx"
    export_onnx(quantized, x, path, dtype=torch.float16, dynamic_batch=True)
    assert check(path, "tensorrt").ok
    compile(path, backend="tensorrt", target="sm89", shapes={"x": ((1, 16, 8, 8), (2, 16, 8, 8), (4, 16, 8, 8))})


@pytest.mark.parametrize("settings", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_a_file_with_open_sides_holds_for_every_height(settings, tmp_path):
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
