"""What is logged of the stages of a long call, and who sees it."""

import logging

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.logs import PROGRESS, stage, stages_told

X = torch.ones(2, 4)


def test_stages_of_transform_and_export(tmp_path, caplog):
    with caplog.at_level(logging.INFO, PROGRESS):
        result = transform(nn.Linear(4, 4).eval(), X, patterns=[])
        export_onnx(result, X, tmp_path / "m.onnx", dtype=torch.float16, dynamic_batch=True)
    told = [record.getMessage() for record in caplog.records if record.name == PROGRESS]
    assert told == [
        "tracing by torch.fx",
        "looking for patterns",
        "preparing the model for its file",
        "translating into ONNX",
        "checking the file",
        "comparing the file with the model",
        "running the model in float16, operator by operator",
        "comparing the file where batch is 1",
        "comparing the file where batch is 5",
    ]


@pytest.mark.parametrize("asked", [True, False])
def test_told_to_one_and_to_others_only_if_they_asked(caplog, asked):
    told = []
    with caplog.at_level(logging.INFO if asked else logging.WARNING):
        with stages_told(told.append):
            stage("one")
        stage("another")
    assert told == ["one"]
    assert caplog.messages == (["one", "another"] if asked else [])
    assert (logging.getLogger(PROGRESS).level, logging.getLogger(PROGRESS).propagate) == (logging.NOTSET, True)
