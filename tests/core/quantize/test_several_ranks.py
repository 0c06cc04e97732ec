"""Calibration on several ranks: bit for bit what one process finds, and an error on all where one cannot go on."""

import json
import subprocess
import sys

import pytest

from support.rank_quantizing import CORRECTED_SIZES, CORRECTIONS, FAILURES, METHODS, SIZES

EXPECTED = {
    "weights": "differs from rank 0 in the weights",
    "formats": "differs from rank 0 in the graph, the quantizers",
    "no batches": "raised QuantizationError: The calibration data is empty: it has no batches.",
    "a function that does nothing": "raised QuantizationError: Calibration saw no tensor",
    "another shape": "raised FusedModuleError: QConv at 'down'",
    "NaN": "raised NotFiniteError: Calibration of the output of x: 384 of 384 values in batch 2",
    "no data": "differs from rank 0 in the data (none, not some)",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What came of everything."""
    command = [sys.executable, "-m", "support.rank_quantizing", str(tmp_path_factory.mktemp("ranks"))]
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=env)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return {**json.loads(ended.stdout), "log": ended.stderr}


@pytest.mark.parametrize("method", METHODS)
def test_scales_are_those_of_one_process_bit_for_bit(told, method):
    of_one = told["scales"]["0"][0]["value"][method.value]
    for size in SIZES:
        answers = told["scales"][str(size)]
        assert [answer.get("value", answer)[method.value] for answer in answers] == [of_one] * max(1, size)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_models_recipes_and_sensitivities_are_the_same_on_any_number_of_ranks(told, name):
    of_one = told["corrected"]["1"][0]["value"][name]
    _, recipe, costs, applied = of_one
    assert applied and json.loads(recipe)["corrections"]
    assert bool(costs) is (name != "learned rounding")  # whose model is frozen
    for size in CORRECTED_SIZES:
        answers = told["corrected"][str(size)]
        assert [answer.get("value", answer)[name] for answer in answers] == [of_one] * size


def test_batches_that_pad_a_shard_do_not_count_among_the_samples(told):
    for size in CORRECTED_SIZES:
        for answer in told["corrected"][str(size)]:
            assert answer["value"]["padded"] == answer["value"]["bias correction"][0]


def test_settings_are_compared_first(told):
    for answer in told["settings"]:
        assert answer["ranks"] == {"1": "differs from rank 0 in the settings"}


def test_data_that_can_be_read_once_is_refused_where_it_is_read_twice(told):
    for answer in told["read once"]:
        assert "InputError: equalization reads the calibration data twice" in answer["message"]


def test_methods_find_different_scales(told):
    found = told["scales"]["0"][0]["value"]
    assert len({digest for digest, _ in found.values()}) == len(METHODS)


@pytest.mark.parametrize("what", FAILURES)
def test_all_ranks_name_the_one_that_cannot_go_on(told, what):
    for rank, answer in enumerate(told["failures"][what]):
        assert answer["error"] == "DistributedError"
        assert list(answer["ranks"]) == ["1"]
        assert f"calibrate on 2 ranks: rank 1 {EXPECTED[what]}" in answer["message"], rank


def test_a_moving_average_is_refused(told):
    for answer in told["moving average"]:
        assert answer["error"] == "QuantizationConfigError"
        assert "the batches of 2 ranks have no order" in answer["message"]


def test_findings_name_the_rank_of_a_batch_and_are_logged_once(told):
    whose = {"1": "batch 1 of 4", "2": "batch 1 of rank 0, of 8 in all,"}
    for size, answers in told["findings"].items():
        expected = [
            f"the output of x: {whose[size]} reaches 1e+03, all others 4 at most; its scale is that of one batch"
        ]
        assert [answer["value"] for answer in answers] == [expected] * int(size)
        assert told["log"].count(whose[size]) == 1
