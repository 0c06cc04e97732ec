"""Accuracy on real labels after quantization, and after fine-tuning; ``benchmarks/digits.py`` prints the table."""

import pytest

from digits import GOALS, NETWORKS, losses, study


@pytest.fixture(scope="module", params=NETWORKS)
def scores(request):
    return study(request.param)


def test_the_network_has_learned(scores):
    assert scores["float"].accuracy > 95


@pytest.mark.parametrize("row", GOALS)
def test_little_accuracy_is_lost(scores, row):
    assert losses(scores)[row] <= GOALS[row]


def test_fine_tuning_gains_on_calibration_alone(scores):
    assert scores["QAT INT4 weights"].loss < scores["PTQ INT4 weights"].loss
