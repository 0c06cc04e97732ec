"""What the rules say of ONNX Runtime, asked of ONNX Runtime."""

import platform

import pytest

from support.onnxruntime_cases import CASES
from support.onnxruntime_sessions import outcome_of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_runtime_agrees(case, tmp_path):
    if case.rule == "ORT-11" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the rule is about x86")
    outcome, kernels = outcome_of(case.model(), tmp_path / "optimized.onnx")
    assert outcome == case.outcome
    assert case.has in kernels or not case.has
    assert case.lacks not in kernels or not case.lacks
