"""Files hold the modules that nodes came from, and nothing of the machine where they were written."""

import re
import subprocess
import sys

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.artifact import modules_by_node, read_onnx
from embedl_deploy.quantize import quantize
from support.nets import random_input

X = random_input(2, 3, 8, 8)

MODEL = """
import sys, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""
WRITE = """
from embedl_deploy import export_onnx, transform
x = torch.ones(1, 3, 8, 8)
export_onnx(transform(Net().eval(), x, patterns=[], trace="export"), x, sys.argv[1], tolerance=None)
"""


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("quantized", [False, True])
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
    assert not [text for text in texts if ".py" in text or "site-packages" in text or "/" in text]
    assert {"0", "3"} & set(modules_by_node(read_onnx(path)).values())


def test_bytes_do_not_depend_on_where_the_code_lies(tmp_path):
    written = []
    for folder in ("here", "another place"):
        (tmp_path / folder).mkdir()
        script, path = tmp_path / folder / "script.py", tmp_path / folder / "m.onnx"
        script.write_text(("\n" if folder == "here" else "") + MODEL + WRITE)
        subprocess.run([sys.executable, "-W", "ignore", script, path], check=True, capture_output=True)
        written.append(path.read_bytes())
    assert written[0] == written[1]
