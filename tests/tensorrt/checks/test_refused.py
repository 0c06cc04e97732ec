"""The table of what the compiler refuses, and how it is read."""

import pytest

from embedl_deploy.backend import get_backend
from embedl_deploy.tensorrt.checks.refused import refusals, table


def test_the_table_is_of_the_compiler_at_hand():
    compiler = next(compiler for compiler in get_backend("tensorrt").compilers if compiler.name == "tensorrt-rtx")
    if missing := compiler.missing():
        pytest.skip(missing)
    assert table()["compiler"] == compiler.describe(), "another compiler: run ./dev operators, which writes it again"


def test_the_table_covers_the_standard():
    rows = table()["operators"]
    assert len(rows) > 170 and sum(row["taken"] + row["refused"] for row in rows.values()) > 900
    for operator, row in rows.items():
        assert row["opset"] >= 1, operator
        assert row["refused"] or not (row["parts"] or row.get("words")), operator
        assert not (row["taken"] and row.get("words")), f"{operator} is refused whole, and taken"


def test_what_exports_are_made_of_is_not_refused_whole():
    common = (
        "Conv ConvTranspose Gemm MatMul Relu Sigmoid Softmax LayerNormalization Resize MaxPool AveragePool Concat Erf"
    )
    assert [name for name in common.split() if name in refusals() and refusals()[name].whole] == []
