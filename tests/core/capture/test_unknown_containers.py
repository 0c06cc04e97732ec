"""Models that take or return what torch.export cannot look into."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy import transform
from embedl_deploy.errors import CaptureError


class Held:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


@dataclass
class Boxes:
    x: torch.Tensor


class Holding(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(4, 4)

    def forward(self, x, held=None):
        return {"y": self.fc(x), "held": self.kind(x if held is None else held.x + 1)}


X = torch.randn(2, 4)


@pytest.mark.parametrize("trace", ["auto", "export"])
def test_an_output_is_told_with_its_class_and_what_to_do(trace):
    with pytest.raises(CaptureError) as caught:
        transform(Holding(Held).eval(), X, patterns=[], trace=trace)
    said = str(caught.value)
    assert said.startswith(f"Holding returns a Held (of {__name__}) as output['held'], and torch.export does not know")
    assert "torch.utils._pytree.register_pytree_node(Held, flatten, unflatten, " in said
    assert "xample inputs" not in said


def test_an_input_is_told_too():
    with pytest.raises(CaptureError, match=r"Holding is given a Held \(of .*\) as held, .*register_pytree_node\(Held"):
        transform(Holding(Boxes).eval(), X, kwargs={"held": Held(X)}, patterns=[], trace="export")


def test_with_its_class_registered_it_is_a_structure_like_any_other():
    class Known(Held):
        pass

    pytree.register_pytree_node(
        Known,
        lambda held: ([held.x], None),
        lambda parts, _: Known(*parts),
        serialized_type_name="Known",
        flatten_with_keys_fn=lambda held: ([(pytree.MappingKey("x"), held.x)], None),
    )
    model = Holding(Known).eval()
    result = transform(model, X, kwargs={"held": Known(X)}, patterns=[])
    assert result.verify(X, held=Known(X)).max_abs == 0
    given = Known(X)
    output = result.model(X, held=given)
    assert type(output["held"]) is Known
    torch.testing.assert_close(output["held"].x, X + 1)
