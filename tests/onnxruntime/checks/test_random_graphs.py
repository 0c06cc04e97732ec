"""The rules say of random graphs which layers run in integers; ONNX Runtime is asked which do."""

import pytest

from support.onnxruntime_random import KERNELS, RandomGraph, expected_integers
from support.onnxruntime_sessions import kernels_of


@pytest.mark.parametrize("seed", range(60))
def test_what_no_rule_finds_is_computed_in_integers(seed, tmp_path):
    model = RandomGraph(seed).model()
    expected = expected_integers(RandomGraph(seed).model())
    _, kernels = kernels_of(model, tmp_path / "optimized.onnx")
    counted = {kinds: sum(kernels[name] for name in names) for kinds, names in KERNELS.items()}
    assert counted == {kinds: sum(expected[kind] for kind in kinds) for kinds in KERNELS}


def test_the_graphs_have_both():
    counts = [expected_integers(RandomGraph(seed).model()) for seed in range(60)]
    kinds = {kind for kinds in KERNELS for kind in kinds}
    assert {kind for count in counts for kind in count if count[kind]} == kinds
    assert sum(0 in count.values() for count in counts) > 10
