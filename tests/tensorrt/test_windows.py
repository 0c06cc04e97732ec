"""Windows that are cut out of a map, added up again, or larger than it, given to a compiler that refuses those."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.backend import get_backend
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import net, random_input


def outlook(m, x):
    """As in VOLO, without its attention; a grid of windows, as in MobileViTV2; and EfficientNet's last pool."""
    y = m.first(x)
    y = F.fold(F.unfold(y, 3, padding=1, stride=2) * 0.5, y.shape[-2:], 3, padding=1, stride=2)
    y = F.fold(torch.tanh(F.unfold(m.second(y), 2, stride=2)), y.shape[-2:], 2, stride=2)
    return m.pool(m.third(y))


def test_the_compiler_takes_them_in_eight_bits(tmp_path):
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
    export_onnx(quantized, x, path, dtype=torch.float16, dynamic_batch=False)
    assert check(path, "tensorrt").ok
    compile(path, backend="tensorrt", target="sm89")
