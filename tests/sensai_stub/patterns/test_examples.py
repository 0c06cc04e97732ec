"""Every pattern shows where it fits and where it does not, and both are true."""

import pytest
import torch

from embedl_deploy import get_transformation_plan, transform
from embedl_deploy_sensai_stub import SENSAI_CONVERSION_PATTERNS, SENSAI_PATTERNS

OWN = [pattern for pattern in SENSAI_PATTERNS if type(pattern).__module__.startswith("embedl_deploy_sensai_stub")]


def matches(pattern, example):
    plan = get_transformation_plan(example.model.eval(), example.args, patterns=[pattern])
    return [name for row in plan.matches.values() for name in row]


@pytest.mark.parametrize("pattern", OWN, ids=lambda pattern: pattern.name)
def test_examples(pattern):
    assert pattern.examples()
    for example in pattern.examples():
        assert matches(pattern, example) == [pattern.name], example.note
        result = transform(example.model.eval(), example.args, patterns=[pattern])
        wanted = example.model(*example.args)
        assert float(wanted.detach().std()) > 0, "numbers that are all equal show nothing"
        torch.testing.assert_close(result.model(*example.args), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pattern", OWN, ids=lambda pattern: pattern.name)
def test_near_misses(pattern):
    assert pattern.near_misses()
    for example in pattern.near_misses():
        assert matches(pattern, example) == [], example.note
        assert example.note


def test_conversions_and_fusions_are_in_the_lists():
    assert {pattern.name for pattern in OWN if pattern.is_conversion} <= {p.name for p in SENSAI_CONVERSION_PATTERNS}
    assert len({pattern.name for pattern in OWN}) == len(OWN) == 9 + 1
