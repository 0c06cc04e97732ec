"""What an engine's report adds up, keeps and prints."""

import json
import math

import pytest

from embedl_deploy.engine import EngineReport, EngineTensor, FloatLayer, LayerKind, Timing
from embedl_deploy.errors import InputError
from support.engines import layer, report, tensor

LAYERS = (
    layer("a", dtype="int8", constants=(tensor(50, dtype="int8"),), modules=("block.conv",), onnx_nodes=("n1", "n2")),
    layer("b", LayerKind.POINTWISE, outputs=(tensor(100, dtype="int8"),), modules=("block.act",)),
    layer("c", LayerKind.REFORMAT, modules=("head",)),
    layer("w", LayerKind.SYNCHRONIZATION, inputs=(), outputs=()),
    layer("d", LayerKind.GEMM, modules=("header",)),
)
FLOAT = FloatLayer("d", LayerKind.GEMM, "float16", "header", "not quantized in the file")
REPORT = report(*LAYERS, float_layers=(FLOAT,), messages=("be careful",))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 24), ("float16", 12), ("int8", 6), ("float8_e4m3", 6), ("int4", 3), ("int64", 48), ("unheard of", 24)],
)
def test_bytes_of_a_tensor(dtype, size):
    assert tensor(2, 3, dtype=dtype).bytes == size


def test_odd_counts_of_four_bits_fill_a_byte():
    assert tensor(3, dtype="int4").bytes == 2
    assert EngineTensor("scalar", (), "float32").bytes == 4


def test_totals():
    assert REPORT.kernels == 4  # waiting is no kernel
    assert REPORT.activation_bytes == (100 + 100) + (200 + 100) + (200 + 200) + (200 + 200)
    assert REPORT.weight_bytes == 50
    assert REPORT.activation_bytes_by_type == {"float16": 1000, "int8": 300}
    assert [found.name for found in REPORT.reformats] == ["c"]
    assert REPORT.weighted_by_precision == {(LayerKind.CONVOLUTION, "int8"): 1, (LayerKind.GEMM, "float16"): 1}


def test_open_tensors_count_as_they_usually_are_and_what_is_not_known_is_told(tmp_path):
    usual, unknown = tensor(-1, 4, elements=24), tensor(-1, 4)
    assert (usual.bytes, usual.is_unknown, unknown.bytes, unknown.is_unknown) == (48, False, 8, True)
    shapes = (tensor(6, 4, name="x"),)
    known = report(layer("a", inputs=(usual,), outputs=(usual,)), usual_inputs=shapes)
    assert known.activation_bytes == 96
    assert "\n  bytes are those at the usual shapes, x 6×4; other" in str(known) and "not known" not in str(known)
    partly = report(layer("a", inputs=(usual,), outputs=(unknown,)), usual_inputs=shapes)
    assert "at least 56 B of activations" in str(partly) and "the size of 1 open tensors" in str(partly)
    assert EngineReport.from_dict(json.loads(json.dumps(partly.to_dict()))) == partly


def test_layers_of_a_module_include_those_in_it_but_not_those_of_a_longer_name():
    assert [found.name for found in REPORT.layers_of("block")] == ["a", "b"]
    assert [found.name for found in REPORT.layers_of("head")] == ["c"]


def test_json_keeps_everything(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT.to_dict()))
    assert EngineReport.load(path) == REPORT
    assert json.loads(path.read_text())["kernels"] == 4


def test_reasons_that_differ_in_numbers_only_are_one_line():
    floats = [FloatLayer(f"l{n}", LayerKind.GEMM, "float16", f"m{n}", f"no INT8 kernel for {n} groups") for n in (2, 3)]
    assert "2 × no INT8 kernel for … groups: m2, m3" in str(report(*LAYERS, float_layers=tuple(floats)))
    assert "1 × no INT8 kernel for 2 groups: m2" in str(report(*LAYERS, float_layers=tuple(floats[:1])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an engine report"),
        ("[]", "not an engine report of version 4: its version is None"),
        ('{"version": 1}', "report of version 1, from an earlier release"),
        ('{"version": 3}', r"this one reads version 4.* Compile the file again"),
        ('{"version": 5}', "not an engine report of version 4: its version is 5"),
        ('{"version": true}', "its version is True"),
        ('{"version": 4}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        EngineReport.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json' is not there; expected an engine report"):
        EngineReport.load(tmp_path / "nothing.json")


TIMED = report(
    layer("a", dtype="int8", modules=("conv",), seconds=3e-3),
    layer("b", LayerKind.POINTWISE, modules=("act",), seconds=1e-3),
    layer("c", LayerKind.REFORMAT, modules=("head",)),
    timing=Timing((5e-3, 4e-3, 4.2e-3), threads=2),
)


def test_measured_times(tmp_path):
    assert (REPORT.seconds, TIMED.seconds) == (None, 4.2e-3)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(TIMED.to_dict()))
    assert EngineReport.load(path) == TIMED
    plain = json.loads(path.read_text())
    assert (plain["seconds"], plain["timing"]["median"], plain["timing"]["runs"]) == (4.2e-3, 4.2e-3, 3)
    assert [each["seconds"] for each in plain["layers"]] == [3e-3, 1e-3, None]
    text = str(TIMED)
    assert "\n  a run takes 4.2 ms with 2 threads (half of 3 runs took 4.1 to 4.6 ms)\n" in text
    assert "\n  of the time in kernels, 4.00 ms: convolution 75%, pointwise 25%\n" in text
    rows = [line.split() for line in TIMED.table(layers=True).splitlines()[-4:]]
    assert rows[0][-3:] == ["kB", "time", "from"]
    assert [row[-3:] for row in rows[1:3]] == [["3.00", "ms", "conv"], ["1.00", "ms", "act"]]
    assert rows[3][-2:] == ["0", "head"]


def test_where_nothing_is_measured_no_time_is_shown():
    text = REPORT.table(layers=True)
    assert "time" not in text and "takes" not in text


@pytest.mark.parametrize("seconds", [-1.0, math.inf])
def test_impossible_times_are_refused(seconds):
    with pytest.raises(InputError, match=r"'a' has seconds .*; expected a positive number"):
        layer("a", seconds=seconds)
    with pytest.raises(InputError, match="positive number of seconds"):
        Timing((1.0, seconds))


def test_printed():
    text = str(REPORT)
    assert "net.onnx: Acme compiler 1, edge" in text
    assert "4 kernels, 1.3 kB of activations read and written, 50 B of weights; engine " in text
    assert "1 × convolution in int8" in text
    assert "1 × not quantized in the file: header" in text
    assert "compiler: be careful" in text
    assert "block.act" not in text
    assert "block.act" in REPORT.table(layers=True)


@pytest.mark.parametrize(
    ("inputs", "constants", "outputs", "wanted"),
    [
        (["int8", "float16"], ["float32"], ["float16"], "int8"),
        (["int64"], ["float16"], ["float16"], "float16"),  # an embedding: indices, and a table
        (["bool", "float16"], [], ["float16"], "float16"),  # where a condition holds
        ([], ["int8"], ["float16"], "int8"),
        (["int64"], [], ["int32"], "int64"),
        (["int32"], [], ["float16"], "float16"),
        ([], [], [], ""),
    ],
)
def test_a_layer_computes_in_the_type_of_values(inputs, constants, outputs, wanted):
    sides = {"inputs": inputs, "constants": constants, "outputs": outputs}
    made = {name: tuple(tensor(4, dtype=dtype) for dtype in types) for name, types in sides.items()}
    assert layer("a", **made).precision == wanted
