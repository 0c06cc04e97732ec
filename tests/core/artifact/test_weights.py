"""Tensors of ONNX files that are not what they declare, wherever they are in the file."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedl_deploy.artifact import read_onnx
from embedl_deploy.errors import InputError

FLOAT = TensorProto.FLOAT


def tensor(location=None, *, dims=(4,), kind=FLOAT, name="w", **entries):
    """A tensor of zeros in another file, or one without numbers."""
    made = TensorProto(name=name, data_type=kind, dims=dims)
    if location is not None:
        made.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            entry = made.external_data.add()
            entry.key, entry.value = key, str(value)
    return made


def raw(content, **options):
    """A tensor with these bytes."""
    made = tensor(**options)
    made.raw_data = content
    return made


def graph(*tensors, nodes=(), sparse=()):
    """A graph that adds its first tensor, or has these nodes."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, [4]) for name in "xy")
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    return helper.make_graph(nodes, "g", [x], [y], tensors, sparse_initializer=sparse)


def written(path, content, functions=()):
    """A file with a graph."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    path.write_bytes(
        helper.make_model(content, opset_imports=opsets, ir_version=10, functions=functions).SerializeToString()
    )
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with 64 bytes of weights, and what is no such file."""
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(bytes(64))
    (inner / "w.data").write_bytes(bytes(64))
    (inner / "sub" / "w.data").write_bytes(bytes(64))
    (inner / "link").symlink_to(inner / "w.data")
    (inner / "escape").symlink_to(tmp_path / "outside")
    (inner / "up").symlink_to(tmp_path)
    os.mkfifo(inner / "pipe")
    return inner


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (tensor("gone.data"), "'gone.data', which does not exist"),
        (tensor("w.data/x"), "'w.data/x', which does not exist"),
        (tensor("../outside"), "outside the model's folder"),
        (tensor("../../../../../../etc/passwd"), "outside the model's folder"),
        (tensor("sub/../../outside"), "outside the model's folder"),
        (tensor("escape"), "outside the model's folder"),
        (tensor("up/outside"), "outside the model's folder"),
        (tensor("/etc/passwd"), "expected a path relative to the model's folder"),
        (tensor("C:\\\\weights"), "expected a path relative to the model's folder"),
        (tensor(""), "expected a path relative to the model's folder"),
        (tensor("sub"), "which is not a file"),
        (tensor("pipe"), "which is not a file"),
        (tensor("w.data", dims=(17,)), "needs the bytes 0 to 68 of 'w.data', which has 64"),
        (tensor("w.data", offset=60), "needs the bytes 60 to 76"),
        (tensor("w.data", offset=-4), "has the offset '-4'"),
        (tensor("w.data", offset="1e3"), "has the offset '1e3'"),
        (tensor("w.data", length=-16), "has the length '-16'"),
        (tensor("w.data", length=12), "which is 16 bytes, and 12 of 'w.data'"),
        (tensor("w.data", dims=(2**40,)), "needs the bytes 0 to 4398046511104"),
        (tensor("w.data", dims=(2**62, 2**62)), "needs the bytes"),
        (tensor("w.data", dims=(-4,)), "has the shape (-4,)"),
        (tensor("w.data", kind=TensorProto.STRING), "is text in another file"),
        (tensor(kind=0), "has the type 0"),
        (tensor(kind=999), "has the type 999"),
        (tensor(), "which is 4 numbers, and holds 0"),
        (raw(bytes(12)), "which is 16 bytes, and holds 12"),
        (raw(bytes(4), dims=(2**40,)), "which is 4398046511104 bytes, and holds 4"),
        (raw(bytes(2), dims=(5,), kind=TensorProto.INT4), "which is 3 bytes, and holds 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(folder, made, message):
    with pytest.raises(InputError) as caught:
        read_onnx(written(folder / "m.onnx", graph(made)))
    assert message in str(caught.value) and "m.onnx': the weight 'w'" in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        tensor("w.data"),
        tensor("link"),
        tensor("./sub/../w.data", offset=48, length=16),
        tensor("sub/w.data"),
        tensor("w.data", dims=(0,)),
        tensor("w.data", dims=(128,), kind=TensorProto.INT4),
        raw(bytes(3), dims=(5,), kind=TensorProto.INT4),
        helper.make_tensor("w", TensorProto.INT4, (5,), [1, 2, 3, 4, 5]),
        helper.make_tensor("w", TensorProto.FLOAT16, (2,), [1.0, 2.0]),
        helper.make_tensor("w", TensorProto.COMPLEX64, (2,), [1j, 2.0]),
        helper.make_tensor("w", TensorProto.BOOL, (), [True]),
        helper.make_tensor("w", TensorProto.STRING, (2,), [b"a", b"b"]),
        numpy_helper.from_array(np.ones((2, 0, 3), np.float32), "w"),
    ],
)
def test_what_is_taken(folder, made):
    assert "w" in read_onnx(written(folder / "m.onnx", graph(made))).graph.initializers


def test_a_model_that_is_a_link_has_its_weights_beside_either(folder, tmp_path):
    """As caches of models keep them."""
    written(folder / "m.onnx", graph(tensor("w.data")))
    other = tmp_path / "snapshot"
    other.mkdir()
    (other / "m.onnx").symlink_to(folder / "m.onnx")
    (other / "w.data").symlink_to(folder / "w.data")
    read_onnx(other / "m.onnx")


def test_parts_that_overlap(folder):
    whole = [tensor("w.data", name=name, offset=start) for name, start in (("w", 0), ("v", 0), ("u", 16))]
    read_onnx(written(folder / "m.onnx", graph(*whole)))
    with pytest.raises(InputError, match=r"'w' and 'v' share a part of their bytes in 'w\.data' \(0 to 16, 8 to 24\)"):
        read_onnx(written(folder / "m.onnx", graph(tensor("w.data"), tensor("w.data", name="v", offset=8))))


def test_parts_of_a_tensor(folder):
    made = raw(bytes(16))
    made.segment.begin, made.segment.end = 0, 2
    with pytest.raises(InputError, match="is a part of a tensor"):
        read_onnx(written(folder / "m.onnx", graph(made)))


def constant(**attributes):
    node = helper.make_node("Constant", [], ["y"])
    for key, value in attributes.items():
        node.attribute.append(helper.make_attribute(key, value))
    return node


def test_wherever_the_tensor_is(folder):
    bad, good = raw(bytes(4), name="hidden"), raw(bytes(8), dims=(1,), kind=TensorProto.INT64)
    sparse = helper.make_sparse_tensor(raw(bytes(8), name="hidden", dims=(1,)), good, [4])
    inner = helper.make_graph([constant(value=bad)], "inner", [], [onnx.ValueInfoProto(name="y")])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    function = helper.make_function("local", "F", ["x"], ["y"], [constant(value=bad)], [helper.make_opsetid("", 18)])
    for content, functions in (
        (graph(bad), ()),
        (graph(nodes=[constant(value=bad)]), ()),
        (graph(nodes=[branch]), ()),
        (graph(nodes=[helper.make_node("F", ["x"], ["y"], domain="local")]), [function]),
        (graph(sparse=[sparse]), ()),
        (graph(nodes=[constant(sparse_value=sparse)]), ()),
    ):
        with pytest.raises(InputError, match="the weight 'hidden'"):
            read_onnx(written(folder / "m.onnx", content, functions))
