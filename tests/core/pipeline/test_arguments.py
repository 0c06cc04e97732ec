"""What `transform` and its result are given, and what is said where it does not fit."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from embedl_deploy import (
    transform,
)
from embedl_deploy.errors import InputError
from support.small_patterns import PATTERNS, ConvPattern


@pytest.mark.parametrize(
    "keep", [pickle.dumps, copy.deepcopy, lambda v: torch.save(v, io.BytesIO())], ids=["pickle", "copy", "torch.save"]
)
@pytest.mark.parametrize(
    "part", [lambda r: r, lambda r: r.report, lambda r: r.report.plan], ids=["result", "report", "plan"]
)
def test_what_cannot_be_kept_says_what_can(keep, part):
    result = transform(nn.Sequential(nn.Linear(2, 2)), patterns=[])
    with pytest.raises(InputError, match=r"cannot be pickled or copied.*torch\.save\(result\.model, path\).*to_json"):
        keep(part(result))


@pytest.mark.parametrize(
    ("inputs", "call"),
    [
        (lambda x, y: (x, y), r"one tuple.*verify\(x, mask\)\."),
        (lambda x, y: [x, y], r"one list.*verify\(x, mask\)\."),
        (lambda x, y: {"x": x, "mask": y}, r"one dict.*verify\(x=x, mask=mask\)\."),
    ],
    ids=["tuple", "list", "dict"],
)
def test_inputs_in_one_container_are_to_be_passed_one_by_one(inputs, call):
    class Two(nn.Module):
        def forward(self, x, mask):
            return x * mask

    class One(nn.Module):
        def forward(self, pair):
            return pair[0] * pair[1]

    x, y = torch.ones(2), torch.zeros(2)
    with pytest.raises(InputError, match=call):
        transform(Two(), patterns=[]).verify(inputs(x, y))
    assert transform(One(), ((x, y),), patterns=[]).verify((x, y)).max_abs == 0


class TestInputs:
    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            (
                torch.randn(2, 3, 8, 8),
                None,
                r"does not accept the inputs at 'block\.conv' \(Conv2d\).*float32\[2, 3, 8, 8\]",
            ),
            ((torch.randn(2, 4, 8, 8),) * 2, None, r"takes the inputs \(x\)"),
            ((), None, "missing: x"),
            (None, {"y": torch.randn(2)}, "missing: x; unknown: y. Use the model's own names"),
            (np.zeros((2, 4, 8, 8), np.float32), None, "args is a ndarray.*torch.from_numpy"),
            ((np.zeros((2, 4, 8, 8), np.float32),), None, r"input 1 of 1 is a NumPy array, float32\[2, 4, 8, 8\]"),
            (torch.randn(2, 4, 8, 8).double(), None, r"weights are float32 on cpu: convert the inputs, x.to\(torch.fl"),
            ({"x": torch.randn(2)}, None, "args is a dict"),
            ("x", None, "args is a str"),
            (None, "x", "kwargs is 'x'"),
        ],
    )
    def test_wrong_args(self, net, args, kwargs, message):
        with pytest.raises(InputError, match=message):
            transform(net, args, kwargs=kwargs, patterns=PATTERNS)

    def test_wrong_patterns_and_trace(self, net):
        with pytest.raises(InputError, match="expected None, or a list or a tuple, each a Pattern"):
            transform(net, patterns="tensorrt")
        with pytest.raises(InputError, match=r"expected Trace\.AUTO"):
            transform(net, patterns=PATTERNS, trace="sideways")
        with pytest.raises(InputError, match="Pass an instance"):
            transform(net, patterns=[ConvPattern])

    def test_keyword_inputs(self, net):
        x = torch.randn(2, 4, 8, 8)
        result = transform(net, kwargs={"x": x}, patterns=PATTERNS)
        assert result.verify(x=x).max_abs == 0
