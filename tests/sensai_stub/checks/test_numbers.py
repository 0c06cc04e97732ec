"""The rules about numbers: each finds what breaks it."""

import pytest

from embedl_deploy import check
from embedl_deploy_sensai_stub.checks import SENSAI_RULES
from support.onnx_files import INT8, INT16, OnnxFile

SCALE = 0.0625


def found(file, output):
    return [(finding.rule, finding.message) for finding in check(file.model(output), "sensai").findings]


def fixed_point_conv(file, **attributes):
    weight = file.qdq(file.weight(8, 8, 3, 3), SCALE)
    return file.conv(file.qdq(file.input(1, 8, 6, 6), SCALE), weight, **attributes)


def test_a_fixed_point_convolution_keeps_all_rules():
    file = OnnxFile()
    y = file.node("Relu", fixed_point_conv(file, strides=[2, 2]))
    report = check(file.model(file.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])), "sensai")
    assert report.findings == ()
    assert report.undecided == ()
    assert report.rules_checked == tuple(rule.id for rule in SENSAI_RULES)


def test_scales_are_powers_of_two():
    file = OnnxFile()
    assert (
        found(file, file.qdq(file.input(2, 4), 0.05))
        == [("SENSAI-01", "a scale is 0.05, which is not a power of two")] * 2
    )


def test_one_scale_for_a_tensor():
    file = OnnxFile()
    y = file.qdq(file.weight(2, 4), [SCALE, SCALE], axis=0)
    assert found(file, y) == [("SENSAI-02", "2 scales; the engine has one for a tensor")] * 2


def test_signed_numbers_without_offset():
    file = OnnxFile()
    assert found(file, file.qdq(file.input(2, 4), SCALE, INT16)) == [("SENSAI-03", "quantized to INT16")] * 2
    file = OnnxFile()
    x, settings = file.input(2, 4), [file.constant(SCALE), file.constant(3, INT8)]
    assert found(file, file.node("QuantizeLinear", x, *settings)) == [("SENSAI-03", "a zero point is 3")]


def test_what_is_not_in_the_file_is_not_judged():
    file = OnnxFile()
    y = file.node("QuantizeLinear", file.input(2, 4), file.input())
    assert [place.rule for place in check(file.model(y), "sensai").undecided] == ["SENSAI-01", "SENSAI-03"]


def quantized(file, *shape):
    return file.qdq(file.input(*shape), SCALE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda f: f.conv(f.input(1, 8, 6, 6), f.weight(8, 8, 3, 3)),
            "Conv: input and weight in float; the engine has 8-bit numbers",
        ),
        (
            lambda f: f.node("MatMul", quantized(f, 1, 8), f.weight(8, 5)),
            "MatMul: weight in float; the engine has 8-bit numbers",
        ),
        (
            lambda f: f.node("Add", quantized(f, 1, 8), f.input(1, 8)),
            "Add: second input in float; the engine has 8-bit numbers",
        ),
        (
            lambda f: f.node("GlobalAveragePool", f.input(1, 8, 6, 6)),
            "GlobalAveragePool: input in float; the engine has 8-bit numbers",
        ),
    ],
    ids=["both", "weight", "one addend", "average"],
)
def test_everything_is_quantized(build, message):
    file = OnnxFile()
    assert found(file, build(file)) == [("SENSAI-05", message)]


def test_another_shape_between_quantizer_and_layer_changes_nothing():
    file = OnnxFile()
    x = file.node("Flatten", quantized(file, 1, 8, 2, 2))
    assert found(file, file.node("MatMul", x, file.qdq(file.weight(32, 5), SCALE))) == []
