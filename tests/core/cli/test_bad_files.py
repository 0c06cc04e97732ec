"""Every command on every kind of bad file, for every parameter that names one: refused in words, and cheaply."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from embedl_deploy.cli.arrays import read_arrays
from embedl_deploy.errors import InputError
from support.cli_folder import small_onnx
from support.variants import variants

B, X = ("-b", "tensorrt"), ("-i", "1,3,16,16")
#: What is read, by the ending of its name: the commands, with "BAD" where the file's name goes.
READERS = {
    ".onnx": [("check", "BAD", *B), ("compile", "BAD", *B)],
    ".pt2": [("plan", "BAD", *B)],
    ".pt": [("plan", "nets:Net", *B, "--state-dict", "BAD")],
    ".safetensors": [("plan", "nets:Net", *B, "--state-dict", "BAD")],
    ".json": [("plan", "nets:Net", *B, "--plan", "BAD"), ("report", "BAD"), ("compare", "BAD", "BAD")],
    ".npy": [
        ("plan", "nets:Net", *B, "--inputs", "BAD"),
        ("quantize", "nets:Net", *B, *X, "--data", "BAD", "-o", "out.onnx"),
    ],
    ".npz": [("plan", "nets:Net", *B, "--inputs", "BAD")],
    ".py": [("plan", "bad:Net", *B)],
    ".png": [("quantize", "nets:Net", *B, *X, "--data", "pictures", "-o", "out.onnx")],
}
RANDOM = np.random.default_rng(0).bytes(2000)


def header(text, version=1):
    """The beginning of an .npy file."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text.encode()


def described(shape, dtype="'<f4'"):
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n")


def archive(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return stream.getvalue()


def declared_larger(content, size):
    """An archive whose directory declares that its only member has so many bytes."""
    place = content.index(b"PK\x01\x02")
    return content[: place + 24] + struct.pack("<I", size) + content[place + 28 :]


def onnx_of(*nodes, reads="x", gives="y", **more):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value(reads, TensorProto.FLOAT, [1, 3])], [value(gives, TensorProto.FLOAT, [1, 3])], **more
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def tensor_entry(dtype, size):
    """The directory of a .safetensors file."""
    return json.dumps({"w": {"dtype": dtype, "shape": [size], "data_offsets": [0, 4]}}, separators=(",", ":")).encode()


def saved(thing):
    stream = io.BytesIO()
    torch.save(thing, stream)
    return stream.getvalue()


def picture(width, height):
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


CYCLE = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two")]
HUGE = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 2**20], raw_data=b"")
DEEP = b"[" * 100_000
ANY = {
    "empty": b"",
    "junk": RANDOM,
    "zeros": bytes(1000),
    "mark": b"\xef\xbb\xbf",
    "lines": b"\r\n\r\n",
    "not UTF-8": "é".encode("latin-1") * 9,
    "deep": DEEP,
    "text": b"just words",
    "zip": archive({"a": b"b"}),
    "zip cut": archive({"a": b"b" * 500})[:300],
    "zip damaged": archive({"a": b"b" * 99}, zipfile.ZIP_DEFLATED).replace(b"PK\x01\x02", b"PK\x01\x03"),
}
OF_KIND = {
    ".onnx": {
        "cycle": onnx_of(*CYCLE, gives="b"),
        "self": onnx_of(helper.make_node("Add", ["x", "y"], ["y"], name="one")),
        "nothing gives": onnx_of(helper.make_node("Add", ["x", "nowhere"], ["y"], name="one")),
        "no output": onnx_of(helper.make_node("Relu", ["x"], ["z"], name="one")),
        "declares": onnx_of(helper.make_node("Add", ["x", "w"], ["y"]), initializer=[HUGE]),
        "cut": small_onnx()[:-20],
    },
    ".json": {
        "NaN": b'{"format": NaN}',
        "digits": b'{"version": ' + b"9" * 5000 + b"}",
        "list": b"[]",
        "null": b"null",
        "bare": b'{"format": "embedl-deploy/plan", "version": 1}',
        "version": b'{"version": 1}',
    },
    ".npy": {
        "header": header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,"),
        "brackets": header("(" * 5000),
        "no dictionary": header("3\n"),
        "huge": described((2**40, 2**20)) + bytes(64),
        "larger": described((10**9,)) + bytes(64),
        "beyond": described((10**30,)) + bytes(64),
        "negative": described((-1,)) + bytes(64),
        "objects": described((8,), "'|O'") + bytes(64),
        "wide": described((1,), "'<U999999999'") + bytes(64),
        "length": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        "version": b"\x93NUMPY\x09\x09" + bytes(50),
        "cut": described((1, 3, 16, 16)) + bytes(64),
    },
    ".npz": {
        "bomb": declared_larger(archive({"x.npy": bytes(200)}, zipfile.ZIP_DEFLATED), 2**32 - 2),
        "inner": archive({"x.npy": described((10**9,)) + bytes(64)}),
        "damaged": archive({"x.npy": described((16,)) + bytes(64)}).replace(bytes(64), bytes(63) + b"1"),
        "no arrays": archive({}),
        "same": archive({"x": b"a"}),
    },
    ".pt": {
        "cut": saved({"a": torch.zeros(100)})[:-300],
        "pickle": pickle.dumps({"a": [1]}),
        "object": pickle.dumps(print),
        "tensor": saved(torch.zeros(3)),
        "numbers": saved({1: torch.zeros(3)}),
        "strings": saved({"0.weight": "words"}),
        "missing": saved({}),
    },
    ".safetensors": {
        "length": struct.pack("<Q", 2**60) + b"{}",
        "deep": struct.pack("<Q", 5000) + b"[" * 5000,
        "declares": struct.pack("<Q", 66) + tensor_entry("F32", 1099511627776) + bytes(4),
        "type": struct.pack("<Q", 54) + tensor_entry("Q99", 1) + bytes(4),
    },
    ".png": {"cut": picture(40, 40)[:60]},
    ".py": {"exits": b"raise SystemExit(0)", "brackets": b"x = " + b"(" * 500},
}
CASES = [
    pytest.param(command, ending, content, id=f"{command[0]}-{ending[1:]}-{name}")
    for ending, commands in READERS.items()
    for name, content in {**ANY, **OF_KIND.get(ending, {})}.items()
    for command in commands
]
PLACES = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "not there": lambda path: None,
}


def refused(done):
    """An end with a documented exit code and a message, and nothing else."""
    assert done.code in (2, 3), (done.code, done.err)
    assert "error: " in done.err and "Traceback" not in done.err and "should not happen" not in done.err
    assert len(done.err) < 2000 and not done.out


@pytest.fixture
def bad(folder, monkeypatch):
    """Where a bad file goes, by its ending."""
    (folder / "pictures").mkdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda ending: folder / ("pictures/bad.png" if ending == ".png" else f"bad{ending}")
    sys.modules.pop("bad", None)


@pytest.mark.parametrize(("arguments", "ending", "content"), CASES)
def test_content(command, bad, arguments, ending, content):
    bad(ending).write_bytes(content)
    done = command(*(f"bad{ending}" if part == "BAD" else part for part in arguments))
    refused(done)
    name = "bad" if ending == ".py" else f"bad{ending}"
    assert name in done.err


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("ending", [ending for ending in READERS if ending not in (".py", ".png")])
def test_places(command, bad, ending, place):
    PLACES[place](bad(ending))
    for arguments in READERS[ending]:
        refused(command(*(f"bad{ending}" if part == "BAD" else part for part in arguments)))


@pytest.mark.parametrize("text", ["99999999999,3", "9" * 30, "9" * 5000, "1," * 200 + "1,9999999999"])
def test_shapes(command, text):
    done = command("plan", "nets:Net", *B, "-i", text)
    assert done.code == 2 and "--input '" in done.err and "Traceback" not in done.err


def test_reports_with_something_else_in_them(command, folder):
    tensor = {"name": "x", "shape": [1, 3], "dtype": "int8", "layout": "", "elements": None}
    layer = {"name": "a", "kind": "gemm", "type": "t", "inputs": [tensor], "outputs": [], "constants": []}
    layer.update(onnx_nodes=["n"], modules=["m"], operations=9, reason="", seconds=1e-3)
    unquantized = {"layer": "a", "kind": "gemm", "precision": "int8", "module": None, "reason": ""}
    report = {"version": 4, "model": "m", "compiler": "c", "target": "t", "engine_bytes": 1, "build_seconds": 0.5}
    report.update(layers=[layer], float_layers=[unquantized], messages=["careful"], usual_inputs=[tensor])
    report["timing"] = {"seconds": [0.1, 0.2], "threads": 1, "median": 0.15, "runs": 2}
    path = folder / "report.json"
    codes = set()
    for other in variants(report):
        path.write_text(json.dumps(other).replace("Infinity", "1e999"))
        done = command("report", path.name, "--layers")
        codes.add(done.code)
        assert done.code in (0, 2) and "Traceback" not in done.err, (other, done.err)
    assert codes == {0, 2}, "texts may be others"


def test_plans_with_something_else_in_them(command, folder):
    assert command("plan", "nets:Net", *B, "-o", "plan.json").code == 0
    plan = json.loads((folder / "plan.json").read_text())
    plan["matches"], plan["declined"] = plan["matches"][:1], plan["declined"][:1]
    for other in list(variants(plan))[::7]:
        (folder / "other.json").write_text(json.dumps(other))
        done = command("plan", "nets:Net", *B, "--plan", "other.json")
        assert done.code in (0, 2, 3) and "Traceback" not in done.err, (other, done.err)


def test_a_mark_and_other_ends_of_lines_are_read(command, folder):
    assert command("plan", "nets:Net", *B, "-o", "plan.json").code == 0
    text = (folder / "plan.json").read_bytes().replace(b"\n", b"\r\n")
    (folder / "marked.json").write_bytes(b"\xef\xbb\xbf" + text)
    assert command("plan", "nets:Net", *B, "--plan", "marked.json").code == 0


def test_a_picture_that_is_a_line(command, bad):
    bad(".png").write_bytes(picture(60_000, 1))
    done = command(*READERS[".png"][0], "--resize", 4000)
    refused(done)
    assert "bad.png' cannot be decoded: of 60000×1 it becomes 240000000×4000 when it is resized" in done.err


@pytest.mark.parametrize("write", [np.save, np.savez, np.savez_compressed])
def test_arrays_are_those_that_numpy_reads(tmp_path, write):
    path = tmp_path / ("x.npy" if write is np.save else "x.npz")
    values = np.arange(6.0).reshape(2, 3)
    for array in (values, values.T, values[0, 0], np.zeros((0, 3)), np.array([True]), values.astype(">f2")):
        write(path, array)
        found = read_arrays(path)["arr_0"]
        assert found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


def test_a_member_that_is_shorter_than_declared(tmp_path):
    path = tmp_path / "x.npz"
    whole = archive({"x.npy": described((2**20,)) + bytes(2**22)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(declared_larger(whole, 2**22 + 2**24))
    with pytest.raises(
        InputError, match=r"'x.npy' in '.*' is not an .* shape \(1048576,\) of float32 is 4194304 bytes"
    ):
        read_arrays(path)
