"""Functions that are told the mode, and keep to it in a graph."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from support.nets import random_input
from support.small_patterns import PATTERNS

X = random_input(2, 8)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop = nn.Linear(8, 8), nn.Dropout()

    def forward(self, x):
        return F.dropout(self.drop(self.fc(x)), training=self.training)


def notes(model, **options):
    return [
        note for note in transform(model, X, patterns=PATTERNS, **options).report["notes"] if "training=True" in note
    ]


class TestNote:
    def test_of_a_model_in_training_mode(self):
        (note,) = notes(Dropping().train())
        assert note.startswith("'dropout': called with training=True")
        assert "after eval(). Transform the model in evaluation mode" in note

    def test_of_an_exported_one(self):
        (note,) = notes(Dropping().train(), trace="export")
        assert note.startswith("'dropout': ")  # and none of the module, which has a mode of its own

    def test_of_dropout_that_is_always_on(self):
        class Sampling(Dropping):
            def forward(self, x):
                return F.dropout(self.fc(x))

        torch.manual_seed(0)
        assert notes(Sampling().eval(), verify_capture=False)

    @pytest.mark.parametrize("model", [Dropping().eval(), nn.Sequential(nn.Linear(8, 8), nn.Dropout()).train()])
    def test_none_where_the_mode_is_followed_or_off(self, model):
        assert notes(model) == []
