"""Files hold the modules that nodes came from, and nothing of the machine where they were written."""

import re

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.artifact import modules_by_node, read_onnx
from embedl_deploy.quantize import quantize
from support.nets import random_input

X = random_input(2, 3, 8, 8)

SOURCE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""


@pytest.mark.parametrize(("trace", "quantized"), [("symbolic", True), ("export", False)])
def test_of_a_file_are_the_modules_alone(tmp_path, trace, quantized):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    result = transform(model, X, backend="tensorrt", trace=trace)
    given = quantize(result, [X], progress=False) if quantized else result
    path = export_onnx(given, X, tmp_path / "m.onnx").path
    model = onnx.load(path)
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        assert {entry.key for entry in part.metadata_props} <= {"pkg.torch.onnx.name_scopes"}
        assert not part.doc_string
    texts = {text.decode() for text in re.findall(rb"[ -~]{4,}", path.read_bytes())}
    assert not [
        text
        for text in texts
        if ".py" in text or "site-packages" in text or "torch." in text.replace("pkg.torch.onnx.name_scopes", "")
    ]
    assert {module.split(".")[0] for module in modules_by_node(read_onnx(path)).values()} >= {"0", "3"}


def test_bytes_do_not_depend_on_where_the_code_lies(tmp_path):
    written = []
    for index, place in enumerate(("/home/ann/net.py", "/build/7/src/models.py")):
        names = {"nn": nn, "torch": torch, "__name__": f"models{index}"}
        exec(compile("\n" * index + SOURCE, place, "exec"), names)
        torch.manual_seed(0)
        result = transform(names["Net"]().eval(), X, patterns=[], trace="export")
        written.append(export_onnx(result, X, tmp_path / place[1:] / "m.onnx", tolerance=None).path.read_bytes())
    assert written[0] == written[1]


class Rotated(nn.Module):
    """Rotates pairs of features, as rotary embeddings do: its translation holds constants of its own."""

    def forward(self, x):
        turned = torch.polar(torch.ones_like(x), x)
        return torch.view_as_real(turned)


def test_constants_of_a_translation_are_written(tmp_path):
    exported = export_onnx(Rotated(), X, tmp_path / "m.onnx")
    assert exported.difference.max_abs < 1e-6
    assert not [part.name for part in onnx.load(exported.path).graph.initializer if part.doc_string]
