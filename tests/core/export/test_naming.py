"""Names of a file's inputs and outputs."""

from collections import OrderedDict

import onnx
import pytest
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError
from embedl_deploy.quantize import quantize
from support.nets import net, random_input

X, Y = random_input(2, 4), random_input(2, 4, seed=1)
FORWARDS = {
    "an input as it came": (lambda m, x, y: (m.fc(y), x), ("linear", "x_out")),
    "only inputs": (lambda m, x, y: (y, x), ("y_out", "x_out")),
    "ordered": (lambda m, x, y: OrderedDict(b=m.fc(x), x=x, c=y), ("b", "x_out", "c")),
    "one twice": (lambda m, x, y: (lambda z: (z, z))(m.fc(x + y)), ("linear", "linear_alias_1")),
}


@pytest.mark.parametrize(
    ("name", "named", "quantized"),
    [
        *[(name, False, False) for name in FORWARDS],
        ("an input as it came", True, True),
        ("ordered", False, True),
        ("one twice", True, True),
    ],
)
def test_inputs_keep_theirs_and_outputs_their_order(tmp_path, name, named, quantized):
    forward, outputs = FORWARDS[name]
    model = net(forward, fc=nn.Linear(4, 4))
    if quantized:
        model = quantize(transform(model, (X, Y), backend="tensorrt"), [(X, Y)], progress=False)
    inputs, settings = ("x", "y"), {}
    if named:
        inputs, outputs = ("first", "second"), tuple(f"out_{index}" for index in range(len(outputs)))
        settings = {"input_names": inputs, "output_names": outputs}
    written = export_onnx(model, (X, Y), tmp_path / "m.onnx", **settings)
    graph = onnx.load(written.path).graph
    assert written.input_names == tuple(value.name for value in graph.input) == inputs
    assert written.output_names == tuple(value.name for value in graph.output) == outputs
    assert written.difference.max_abs < 1e-5


def test_a_name_that_the_graph_has_inside(tmp_path):
    model = net(lambda m, x: m.fc(x).relu() * 2, fc=nn.Linear(4, 4))
    written = export_onnx(model, X, tmp_path / "m.onnx", input_names=["relu"], output_names=["linear"])
    assert (written.input_names, written.output_names) == (("relu",), ("linear",))
    assert written.difference.max_rel < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"input_names": ["a", "b", "c"]},
            r"input_names is \['a', .*\], but the file has 1 input\(s\): input\. ",
        ),
        (
            {"output_names": ["y", ""]},
            r"output_names is \['y', ''\], but the file has 1 output\(s\): linear\. Pass a list",
        ),
        ({"output_names": "y"}, "output_names is 'y'; expected None, or a list or a tuple, each a string"),
        ({"input_names": ["a"], "output_names": ["a"]}, r"'a' would be given to two"),
    ],
)
def test_names_that_do_not_fit(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        export_onnx(nn.Linear(4, 4), X, tmp_path / "m.onnx", **settings)
    assert not list(tmp_path.iterdir())
