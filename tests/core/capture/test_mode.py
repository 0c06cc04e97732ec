"""A graph that stays in the mode that the model was in is told of."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(2, 8)


def notes(forward, *, training=False, **inputs):
    inner = net(forward, fc=nn.Linear(8, 8), drop=nn.Dropout())
    model = nn.Sequential(inner, nn.Linear(8, 8)).train(training)
    found = transform(model, patterns=PATTERNS, **inputs).report["notes"]
    assert [module.training for module in model.modules()] == [training] * 5
    assert "training" not in vars(nn.Module)
    return found


def dropping(m, x):
    return F.dropout(m.fc(x), training=m.training)


def branching(m, x):
    return torch.relu(m.fc(x)) if m.training else m.fc(x)


def counting_in_training(m, x):
    if m.training:
        m.mean.add_(1)
        m.last = x
    return m.fc(x) + m.mean


class TestNote:
    def test_of_a_part_that_changes_in_training(self):
        model = net(counting_in_training, fc=nn.Linear(8, 8))
        model.register_buffer("mean", torch.zeros(8))
        result = transform(model, patterns=PATTERNS)
        assert torch.equal(result.model(X), model.fc(X)), "what was tried in training is gone"
        assert result.report["notes"] == []

    @pytest.mark.parametrize("forward", [dropping, branching])
    @pytest.mark.parametrize("inputs", [{}, {"args": X}])
    def test_of_a_part_that_computes_something_else_in_training(self, forward, inputs):
        (note,) = notes(forward, **inputs)
        assert note.startswith("'0': computes something else in training")
        assert "after train()" in note

    def test_of_one_that_does_in_evaluation(self):
        (note,) = notes(branching, training=True)
        assert note.startswith("'0': computes something else in evaluation")
        assert "after eval()" in note

    @pytest.mark.parametrize(
        "forward",
        [
            lambda m, x: m.drop(m.fc(x)),
            lambda m, x: m.fc(x) if m.training is not None else x,
            lambda m, x: F.dropout(m.fc(x), 0.5, training=False),
        ],
    )
    def test_none_where_the_mode_is_followed_or_makes_no_difference(self, forward):
        assert notes(forward) == []
