"""The least time that an engine takes."""

import pytest

from embedl_deploy.engine import Device, LayerKind, estimate
from embedl_deploy.errors import InputError
from support.engines import layer, report, tensor

#: A byte takes a second, an operation in float16 half a second.
SLOW = Device("Slow", "edge", 1.0, {"float16": 2.0}, "made up")


def test_the_longer_of_memory_and_compute():
    bound_by_memory = layer("a", constants=(tensor(10),), operations=100)
    bound_by_compute = layer("b", operations=10_000)
    unknown_rate = layer("c", dtype="int8", operations=10_000)
    waits = layer("w", LayerKind.SYNCHRONIZATION, inputs=(), outputs=())
    found = estimate(report(bound_by_memory, bound_by_compute, unknown_rate, waits), SLOW)
    assert [row.seconds for row in found.layers] == [420, 5000, 200]
    assert [row.is_memory_bound for row in found.layers] == [True, False, True]
    assert found.seconds == 5620
    assert "not a measurement" in str(found)
    assert "made up" in str(found)


def test_an_empty_engine_takes_no_time():
    assert estimate(report(), SLOW).seconds == 0


@pytest.mark.parametrize(("arguments", "name"), [((None, SLOW), "report"), ((report(), "RTX"), "device")])
def test_other_things_are_refused(arguments, name):
    with pytest.raises(InputError, match=f"{name} is"):
        estimate(*arguments)
