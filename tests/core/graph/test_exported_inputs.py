"""Inputs that a graph of torch.export was not made for."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError
from support.nets import random_input
from support.small_patterns import PATTERNS

X, Y = random_input(2, 4), random_input(2, 4, seed=1)


class Model(nn.Module):
    """Computes ``function`` of its layer and its inputs."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x, more=None):
        return self.function(self.fc(x), more)


def added(y, more):
    for value in more:
        y = y + value
    return y


def masked(y, more):
    return y * more["mask"] if "mask" in more else y


CASES = {
    "a longer list": (added, [X], [X, Y], "input 'more' is .* with 1 in a list"),
    "another key": (masked, {"a": X}, {"a": X, "mask": Y}, "with a dictionary of 'a'"),
    "one instead of many": (added, [X], X, "with 1 in a list"),
    "many instead of one": (
        lambda y, more: y + more if torch.is_tensor(more) else y,
        X,
        [X, Y],
        "with one value there",
    ),
    "a mask for None": (lambda y, more: y if more is None else y * more, None, Y, "with None there"),
    "another number": (lambda y, more: y * more, 2, 3, "'more' is or contains 3, .* with 2 there"),
    "another rank": (lambda y, more: y + more.sum(), X, X[0], "contains a tensor, .* with a tensor of 2 dimensions"),
    "a mask of booleans": (lambda y, more: y + more, X, X > 0, "with a tensor of 2 dimensions and type float32"),
    "a number for a tensor": (lambda y, more: y + more, X, 2.0, "with a tensor of 2 dimensions and type float32"),
    "None in a pair": (lambda y, more: y if more[1] is None else y * 2, (X, None), (X, Y), "with None there"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_graph_was_not_made_for_is_refused(case):
    function, example, other, words = CASES[case]
    result = transform(Model(function), (X, example), patterns=PATTERNS, trace="export")
    wanted = result.model(X, example)
    with pytest.raises(InputError, match=words):
        result.model(Y, other)
    with pytest.raises(InputError, match=words):
        result.model(x=Y, more=other)
    assert torch.equal(result.model(X, more=example), wanted)
    with pytest.raises(InputError, match=words):
        result.verify(Y, other)


def test_lists_and_tuples_are_one_and_keys_have_no_order():
    listed = transform(Model(added), (X, [X, Y]), patterns=PATTERNS, trace="export").model
    assert torch.equal(listed(X, (X, Y)), listed(X, [X, Y]))
    keyed = transform(Model(masked), (X, {"a": X, "mask": Y}), patterns=PATTERNS, trace="export").model
    assert torch.equal(keyed(X, {"mask": Y, "a": X}), keyed(X, {"a": X, "mask": Y}))


def test_the_type_of_the_model_may_change():
    result = transform(Model(lambda y, more: y + more), (X, X), patterns=PATTERNS, trace="export")
    assert result.model.half()(X.half(), X.half()).dtype == torch.float16


def test_of_a_program_that_the_user_exported():
    program = torch.export.export(Model(added), (X, [X]))
    model = transform(program, (X, [X]), patterns=PATTERNS).model
    with pytest.raises(InputError, match="with 1 in a list"):
        model(X, [X, Y])
