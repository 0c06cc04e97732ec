"""Open dimensions, in every form that torch.export takes them in."""

import pickle

import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy.errors import InputError
from embedl_deploy.graph.open_dimensions import OpenDimensions

X, Y, Z = torch.zeros(1, 4), torch.zeros(2, 1, 3), torch.zeros(5)
BATCH = Dim("batch", min=1, max=8)


class Model(nn.Module):
    def forward(self, x, more, *, mask=None, **rest):
        return x


ARGS, KWARGS = (X, {"b": [Y, 3], "a": Z}), {"mask": None, "other": Z}


def asked(dynamic_shapes):
    return OpenDimensions.asked(Model(), ARGS, KWARGS, dynamic_shapes)


@pytest.mark.parametrize(
    "spelled",
    [
        {"x": {0: BATCH}, "more": {"b": [{1: Dim.AUTO}, None]}},
        {"x": {0: BATCH, 1: None}, "more": {"b": [(None, Dim.AUTO, 3), None], "a": None}, "mask": None, "other": {}},
        ({0: BATCH, 1: Dim.STATIC}, {"a": {}, "b": ({1: Dim.AUTO}, None)}),
        [(BATCH, None), {"b": [[2, Dim.AUTO, None], None]}, None],
    ],
)
def test_spellings_of_the_same(spelled):
    # The leaves in order: x, more['b'][0], more['b'][1], more['a'], mask, other; dictionaries in their own order.
    expected = [{0: BATCH}, {1: Dim.AUTO}, {}, {}, {}, {}]
    assert asked(spelled).of_tensors(Model(), ARGS, KWARGS) == expected
    by_keyword = {"more": ARGS[1], "x": X, **KWARGS}
    assert asked(spelled).of_tensors(Model(), (), by_keyword) == [{1: Dim.AUTO}, {}, {}, {0: BATCH}, {}, {}]


def test_a_collection_of_torch_export():
    shapes = torch.export.ShapesCollection()
    shapes[X] = {0: BATCH}
    assert asked(shapes).of_tensors(Model(), ARGS, KWARGS)[0] == {0: BATCH}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"y": {0: BATCH}}, "names 'y'; the inputs are 'x', 'more', 'mask', 'other'"),
        (3, "dynamic_shapes is 3; expected what torch.export takes"),
        (({}, {}, {}, {}, {}), "has 5 entries, and there are the inputs x, more, mask, other"),
        ({"x": {2: BATCH}}, "names dimension 2 of the input 'x', which has 2"),
        ({"x": {-1: BATCH}}, "names dimension -1"),
        ({"x": (BATCH,)}, r"for the input 'x', a tensor of 2 dimensions; expected a dictionary"),
        ({"x": BATCH}, r"for the input 'x', a tensor of 2 dimensions; expected a dictionary"),
        ({"more": {"c": {0: BATCH}}}, r"of the input 'more' names 'c'; it has 'b', 'a'"),
        ({"more": {"b": [{0: BATCH}]}}, r"for the input 'more'\['b'\], which is .*expected a structure like"),
        ({"mask": {0: BATCH}}, r"for the input 'mask', which is None; expected a structure like"),
    ],
)
def test_what_does_not_fit_the_inputs(wrong, words):
    with pytest.raises(InputError, match=words):
        asked(wrong)


def test_a_size_of_one_becomes_two_where_it_is_open():
    opened = asked({"x": {0: BATCH, 1: Dim.AUTO}, "more": {"b": [{0: BATCH}, None]}})
    (x, more), kwargs = opened.without_ones(Model(), ARGS, KWARGS)
    assert (x.shape, more["b"][0].shape, more["b"][1]) == ((2, 4), (2, 1, 3), 3)
    assert more["a"] is Z and kwargs == KWARGS


def test_what_varies_together_goes_by_its_name_or_place():
    opened = asked({"x": {0: BATCH, 1: Dim.AUTO}, "more": {"b": [{0: BATCH, 1: Dim.DYNAMIC}, None]}})
    found = opened.varying_together(Model(), ARGS, KWARGS)
    assert {name: [sorted(dims) for dims in places[:2]] for name, places in found.items()} == {
        "batch": [[0], [0]],
        "dimension 1": [[1], [1]],
    }


def test_sizes_that_follow_from_others_can_be_stored():
    stored = asked({"x": {0: 2 * BATCH - 1, 1: BATCH}}).storable()
    found = pickle.loads(pickle.dumps(stored)).restored().of_tensors(Model(), ARGS, KWARGS)[0]
    assert (str(found[0]), str(found[1])) == ("2*batch - 1", str(BATCH))
    assert (found[0].root, found[0].min, found[0].max) == (found[1], 2 * BATCH.min - 1, 2 * BATCH.max - 1)
