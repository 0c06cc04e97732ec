"""Questions about the nodes of a file, and about Q/DQ among them."""

import numpy as np
import onnx_ir as ir
import pytest

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    axis_of,
    block_of,
    consumers,
    is_per_axis,
    is_standard,
    nodes_of,
    opset_of,
    producer,
    quantized_type_name,
    quantized_type_of,
    scale_shape,
)
from support.onnx_files import INT4, INT8, UINT8, OnnxFile


@pytest.fixture
def f():
    return OnnxFile(19, com_acme=1)


def test_nodes_by_operator_and_domain(f):
    x = f.input(2, 8)
    first = f.node("Relu", x)
    second = f.node("Relu", first, domain="com.acme")
    third = f.node("QuantizeLinear", second, f.constant(0.1), domain="com.microsoft")
    model = f.model(third, dtype=UINT8)
    assert list(nodes_of(model, "Relu", QUANTIZE)) == [first.producer(), third.producer()]
    assert [is_standard(value.producer()) for value in (first, second, third)] == [True, False, True]
    assert opset_of(model) == 19
    assert producer(first) is producer(first, "Relu", "Add") is first.producer()
    assert producer(first, "Add") is producer(x) is producer(None) is None
    assert producer(second) is second.producer() and producer(second, "Relu") is None


def test_readers_are_given_once(f):
    x = f.node("Relu", f.input(2, 8))
    squared, doubled = f.node("Mul", x, x), f.node("Add", x, x)
    assert consumers(x.producer()) == [squared.producer(), doubled.producer()]
    assert consumers(doubled.producer()) == []


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda f, x: f.quantize(x, dtype=INT8), "INT8"),
        (lambda f, x: f.node(QUANTIZE, x, f.constant(0.1)), "UINT8"),
        (lambda f, x: f.node(QUANTIZE, x, f.constant(0.1), output_dtype=int(ir.DataType.INT16)), "INT16"),
        (lambda f, x: f.node(DEQUANTIZE, f.constant(np.ones(8), INT4), f.constant(0.1)), "INT4"),
    ],
    ids=["zero point", "default", "attribute", "stored"],
)
def test_types(f, build, kind):
    node = build(f, f.input(2, 8)).producer()
    assert quantized_type_name(node) == kind
    assert quantized_type_of(node) is ir.DataType[kind]


def test_a_type_that_is_not_in_the_file(f):
    unknown = f.node("Own", f.input(2, 8), domain="com.acme")
    node = f.node(DEQUANTIZE, unknown, f.constant(0.1)).producer()
    assert quantized_type_of(node) is None
    assert quantized_type_name(node) == "an unknown type"


def test_scales(f):
    x = f.input(2, 8, 4)
    one, listed, many = f.qdq(x, 0.1), f.qdq(x, [0.1], axis=2), f.qdq(x, [0.1] * 8, axis=-2)
    nodes = [value.producer() for value in (one, listed, many)]
    assert [scale_shape(node) for node in nodes] == [(), (1,), (8,)]
    assert [is_per_axis(node) for node in nodes] == [False, False, True]
    assert [axis_of(f.node(QUANTIZE, x, f.constant(0.1), axis=axis).producer()) for axis in (0, -1, -2)] == [0, 2, 1]
    assert axis_of(nodes[0]) == 1  # ONNX's default
    blocks = f.dequantize(f.weight(64, 8, dtype=INT4), np.ones((4, 8)), INT4, axis=0, block_size=16).producer()
    assert block_of(blocks) == 16 and block_of(nodes[0]) == 0


def test_what_is_the_same_in_every_run(f):
    x, stored = f.input(2, 8), f.constant(0.1)
    computed, mixed = f.node("Mul", stored, stored), f.node("Mul", x, stored)
    noise = f.node("RandomNormal", shape=[2])
    constants = Constants()
    assert stored in constants and computed in constants and None in constants
    assert f.node("Neg", computed) in constants
    assert x not in constants and mixed not in constants and f.node("Neg", mixed) not in constants
    assert noise not in constants and f.node("Add", noise, stored) not in constants
