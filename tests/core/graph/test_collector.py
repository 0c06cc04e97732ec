"""The garbage collector is paused during a transformation, and only then."""

import gc

import pytest
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.collector import collector_paused
from embedl_deploy.patterns import Pattern


@pytest.fixture(params=[True, False], ids=["enabled", "disabled"])
def before(request):
    (gc.enable if request.param else gc.disable)()
    yield request.param
    gc.enable()


def test_it_is_afterwards_what_it_was_before(before):
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() is before


def test_errors_do_not_leave_it_paused(before):
    with pytest.raises(ZeroDivisionError), collector_paused():
        raise ZeroDivisionError
    assert gc.isenabled() is before


def test_transform_pauses_it(before):
    seen = []

    class Watching(Pattern):
        tree = (nn.ReLU,)

        @staticmethod
        def graft(relu):
            seen.append(gc.isenabled())
            return relu

    transform(nn.Sequential(nn.ReLU()), patterns=[Watching()])
    assert seen == [False]
    assert gc.isenabled() is before
