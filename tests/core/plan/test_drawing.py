"""The transformed graph as plain values."""

import json

import torch
from torch import nn

from embedl_deploy import transform
from support.html_pages import Page
from support.residual_net import ResidualNet

X = torch.randn(1, 4, 8, 8)


def test_rows_say_what_is_called_where_and_what_it_reads():
    result = transform(ResidualNet().eval(), X, backend="tensorrt")
    rows = {row["node"]: row for row in result.report["graph"]}
    assert next(row["op"] for row in rows.values()) == "placeholder"
    blocks = [row for row in rows.values() if row["module"].startswith("block")]
    assert [row["kind"] for row in blocks] == ["FusedConvBNReLU"] * 2
    assert blocks[1]["inputs"] == [blocks[0]["node"]] and blocks[0]["inputs"] == ["x"]
    assert all(read in rows for row in rows.values() for read in row["inputs"])
    assert json.loads(json.dumps(result.to_dict())) == json.loads(json.dumps(dict(result.report)))
    assert result.to_dict()["model"] == "ResidualNet"


def test_a_function_is_in_the_module_that_calls_it():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    result = transform(nn.Sequential(nn.Conv2d(4, 4, 1), Inner()).eval(), X, backend="tensorrt")
    (row,) = (row for row in result.report["graph"] if row["op"] == "call_function")
    assert row["module"] == "1"


def test_what_a_rewrite_has_made_is_where_it_reads():
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    result = transform(nn.Sequential(nn.Linear(8, 8), attention).eval(), torch.randn(1, 3, 8), backend="tensorrt")
    made = [row for row in result.report["graph"] if row["kind"] == "getitem"]
    assert len(made) == 3 and all(row["module"].startswith("1") for row in made)


def test_the_report_is_a_page():
    result = transform(ResidualNet().eval(), X, backend="tensorrt")
    page = Page(result.to_html())
    assert page.sections == ["rewrites"] and "FusedConvBNReLU" in page.text
