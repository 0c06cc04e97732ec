"""Models that take any number of inputs, and what runs in place of forward."""

import types
from collections import OrderedDict

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.quantize import quantize
from support.nets import random_input
from support.small_patterns import PATTERNS, QUANTIZABLE

X = random_input(1, 4, 8)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)


class Keywords(Net):
    def forward(self, x, **kwargs):
        return self.fc(x) + kwargs.get("bias", 0)


class Rest(Net):
    def forward(self, *xs):
        return self.fc(xs[0]) + sum(xs[1:]) / len(xs)


class First(Net):
    def forward(self, x, *xs):
        return self.fc(x) + xs[0]


class Everything(Net):
    def forward(self, x, scale=2.0, *xs, shift=None, **kwargs):
        for more in (*xs, *kwargs.values()):
            x = x + more
        return self.fc(x) * scale if shift is None else self.fc(x) * scale + shift


def agree(model, *args, **kwargs):
    result = transform(model.eval(), args, kwargs=kwargs, patterns=PATTERNS)
    assert result.report["capture"] == "symbolic", result.report["notes"]
    assert result.verify(*args, **kwargs).max_abs == 0
    return [node.target for node in result.model.graph.find_nodes(op="placeholder")]


class TestAnyNumberOfInputs:
    def test_none_more(self):
        assert agree(Keywords(), X) == ["x"]
        assert agree(Everything(), X) == ["x"]

    def test_one_input_for_each(self):
        assert agree(Keywords(), X, bias=X + 1) == ["x", "bias"]
        assert agree(Rest(), X, X + 1, X + 2) == ["xs_0", "xs_1", "xs_2"]

    def test_in_the_order_of_the_call(self):
        assert agree(Everything(), X, 3.0, X + 1, shift=X, more=X + 2) == ["x", "scale", "xs_0", "shift", "more"]

    def test_without_example_inputs_they_stay_together(self):
        result = transform(First().eval(), patterns=PATTERNS)
        assert result.verify(X, X + 1).max_abs == 0


class Masked(Net):
    def forward(self, x, mask=None, scale=2.0):
        y = self.fc(x) * scale
        return y if mask is None else y * mask + 1


class TestInputsThatThereWereExamplesOf:
    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_are_told_where_they_are_missing(self, trace):
        result = transform(Masked().eval(), (X, X > 0), patterns=PATTERNS, trace=trace)
        how = "captured by torch.export" if trace == "export" else "transformed"
        for call in (result.model, result.verify, lambda *args: export_onnx(result, args, "unwritten.onnx")):
            for args, what in (((X,), "missing"), ((X, None), "None")):
                with pytest.raises(InputError) as caught:
                    call(*args)
                message = f"input 'mask' is {what}, but the model was {how} with an example of it, and its graph"
                assert message in str(caught.value)
        assert result.verify(X, X > 1).max_abs == 0
        assert result.verify(X, mask=X > 1).max_abs == 0

    def test_are_told_of_calibration_data(self):
        result = transform(Masked().eval(), (X, X > 0), patterns=QUANTIZABLE)
        with pytest.raises(InputError, match=r"Batch 1 of the calibration data .*input 'mask' is missing"):
            quantize(result, [X], progress=False)

    def test_may_have_another_default_than_none(self):
        result = transform(Masked().eval(), (X, X > 0, 3.0), patterns=PATTERNS)
        assert result.verify(X, X > 0).max_abs == 0

    def test_that_there_were_none_of_may_be_left_out(self):
        result = transform(Masked().eval(), (X,), patterns=PATTERNS)
        assert result.verify(X).max_abs == result.verify(X, None).max_abs == 0


def test_an_ordered_dictionary_stays_one():
    class Ordered(Net):
        def forward(self, x):
            return OrderedDict(out=self.fc(x), sizes=[x.shape[0]])

    result = transform(Ordered().eval(), X, patterns=PATTERNS)
    assert type(result.model(X)) is OrderedDict
    assert list(result.model(X)) == ["out", "sizes"]


def window(sizes, n):
    if n <= 4:
        sizes[0] = 0
    return sizes


torch.fx.wrap("window")


def test_a_wrapped_function_may_change_its_list():
    class Rolled(Net):
        def forward(self, x):
            return self.fc(torch.roll(x, window([2], x.shape[1])[0], 1))

    assert agree(Rolled(), X) == ["x"]


class TestWhatRunsInPlaceOfForward:
    @pytest.mark.parametrize("change", [
        lambda net: net.register_forward_hook(lambda module, args, output: output + 3),
        lambda net: net.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
        lambda net: setattr(net, "forward", types.MethodType(lambda self, x: self.fc(x) * 5, net)),
    ])  # fmt: skip
    def test_is_captured_by_torch_export_or_as_a_part(self, change):
        net = Keywords().eval()
        change(net)
        expected = net(X)
        result = transform(net, X, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        assert torch.equal(result.model(X), expected)
        with pytest.raises(CaptureError, match=r"torch\.fx ignores on the outermost module"):
            transform(net, patterns=PATTERNS)
        assert torch.equal(transform(nn.Sequential(net), patterns=PATTERNS).model(X), expected)

    def test_a_call_of_its_own(self):
        class Calling(Keywords):
            def __call__(self, x):
                return super().__call__(x) * 2

        with pytest.raises(CaptureError, match="has a __call__ of its own"):
            transform(Calling().eval(), patterns=PATTERNS)
