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
        (note,) = notes(Sampling().eval(), verify_capture=False)
        assert "though the model is in evaluation mode" in note
        assert "Transform the model in evaluation mode" not in note

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_none_of_a_norm_by_the_statistics_of_what_it_is_given(self, trace):
        """As weight standardization is written."""

        class Standardized(nn.Linear):
            def forward(self, x):
                weight = F.batch_norm(self.weight.view(1, 8, -1), None, None, training=True)
                return F.linear(x, weight.view(8, 8), self.bias)

        assert notes(nn.Sequential(Standardized(8, 8)).eval(), trace=trace) == []

    @pytest.mark.parametrize("model", [Dropping().eval(), nn.Sequential(nn.Linear(8, 8), nn.Dropout()).train()])
    def test_none_where_the_mode_is_followed_or_off(self, model):
        assert notes(model) == []
