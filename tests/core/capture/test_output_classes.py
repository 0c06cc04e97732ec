"""Outputs that are dictionaries of a class: the class comes back, and a file has the names of its fields."""

import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy import export_onnx, transform
from embedl_deploy.containers.paths import leaves_with_paths
from support.nets import net

X = torch.randn(2, 4)


class Fields(OrderedDict):
    """A dictionary of its fields, registered without keys, as diffusers' ``BaseOutput``."""

    def __init_subclass__(cls):
        def made(values, context):
            return cls(**pytree._dict_unflatten(values, context))

        name = f"{cls.__module__}.{cls.__name__}"
        pytree.register_pytree_node(cls, pytree._dict_flatten, made, serialized_type_name=name)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value


@dataclasses.dataclass
class Output(Fields):
    sample: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class Named(NamedTuple):
    sample: torch.Tensor
    hidden: torch.Tensor


@dataclasses.dataclass
class Plain:
    sample: torch.Tensor
    hidden: torch.Tensor


torch.export.register_dataclass(Plain)


def giving(kind):
    def forward(self, x):
        y = self.fc(x)
        return kind(sample=y, hidden=y.relu())

    return net(forward, fc=nn.Linear(4, 4)).eval()


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("kind", [Output, Named, Plain, dict])
def test_the_class_and_the_names_of_its_fields_are_kept(kind, trace, tmp_path):
    model = giving(kind)
    result = transform(model, X, patterns=[], trace=trace)
    found = result.model(X)
    assert type(found) is kind
    torch.testing.assert_close(found["sample"] if kind is dict else found.sample, model.fc(X))
    assert set(result.report.unfused.values()) <= {"Linear", "ReLU", "relu"}
    assert not result.report["notes"]
    assert export_onnx(result, X, tmp_path / "m.onnx").output_names == ("sample", "hidden")


def test_paths_go_through_classes_that_are_registered_without_keys():
    value = {"out": Output(sample=X, hidden=[X, X]), "n": 3}
    assert [pytree.keystr(path) for path, _ in leaves_with_paths(value)] == [
        "['out']['sample']",
        "['out']['hidden'][0]",
        "['out']['hidden'][1]",
        "['n']",
    ]


def test_a_class_that_cannot_be_made_anew_is_told():
    class Other(dict):
        pass

    result = transform(giving(Other), patterns=[])
    assert type(result.model(X)) is dict
    (note,) = result.report["notes"]
    assert note.startswith("the graph returns a plain dictionary instead of Other")
