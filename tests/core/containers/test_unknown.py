"""Objects that nobody can look into."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch.utils import _pytree as pytree

from embedl_deploy.containers.unknown import how_to_register, unknown_container

Pair = namedtuple("Pair", "first second")


class Held:
    pass


@dataclass
class Boxes:
    scores: torch.Tensor


@pytest.mark.parametrize("value", [torch.ones(1), None, "a", 1.5, {"a": [torch.float16, (2, True)]}, Pair(1, 2j)])
def test_plain_structures_hold_none(value):
    assert unknown_container(value, "output") is None


def test_the_first_is_told_with_its_place():
    held = Held()
    assert unknown_container({"a": Pair(1, [held])}, "output") == ("output['a'].second[0]", held)


def test_what_to_do_goes_by_the_class():
    assert how_to_register(Boxes(torch.ones(1))) == "torch.export.register_dataclass(Boxes)"
    assert how_to_register(Held()).startswith("torch.utils._pytree.register_pytree_node(Held, flatten, unflatten, ")


def test_a_class_that_is_known_without_keys_is_looked_into():
    class Known(Held):
        part = Held()

    pytree.register_pytree_node(Known, lambda known: ([known.part], None), lambda parts, _: Known())
    assert unknown_container((1, Known()), "output") == ("output[1][0]", Known.part)
