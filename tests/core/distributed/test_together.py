"""Ranks that work together: they get each other's values, and end together, whatever happens to one of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedl_deploy.distributed.ranks import ALONE
from embedl_deploy.distributed.together import taking_part
from embedl_deploy.errors import QuantizationError
from support.rank_stories import PATIENCE, SILENCE, STORIES

#: Seconds in which all ranks have ended on any machine: without what is tested here they would wait half an hour.
SOON = 300
KILLED = {"killed": 9}
SILENT = {"one_is_killed": 2, "one_is_killed_in_a_collective": 1, "one_is_stopped": 2}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What happened in each story, to each rank."""
    command = [sys.executable, "-m", "support.rank_stories", str(tmp_path_factory.mktemp("ranks"))]
    path = ":".join(sys.path)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, env={"PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def values(answers):
    return [answer.get("value", answer) for answer in answers]


def without_seconds(answer):
    return {name: value for name, value in answer.items() if name != "seconds"}


def test_one_that_works_alone_has_its_own_values():
    with taking_part(None, "work") as ranks:
        assert ranks is ALONE and ranks.first and not ranks.grouped
        assert ranks.gather("values", 3) == [3]
        ranks.agree({"weights": "a"})
        ranks.check()
    with pytest.raises(QuantizationError, match="as it is"), taking_part(None, "work"):
        raise QuantizationError("as it is")


def test_values_are_gathered_by_rank(told):
    small, large = [{"rank": 0}, {"rank": 1}, {"rank": 2}], [[1, 0.0], [20_001, 20_001.0], [40_001, 80_002.0]]
    assert values(told["gathers"]) == [[small, large, [0, 1, 2], rank, 3, rank == 0] for rank in range(3)]


def test_a_group_has_ranks_of_its_own(told):
    assert values(told["in_subgroups"]) == [[[0, 2], 0, 2], [[1], 0, 1], [[0, 2], 1, 2]]


@pytest.mark.parametrize(
    ("story", "rank", "what"),
    [
        ("one_raises", 1, "raised QuantizationError: its data is broken."),
        ("one_raises_while_others_wait", 0, "raised InputError: nothing fits."),
    ],
)
def test_all_raise_what_one_has_raised(told, story, rank, what):
    for here, answer in enumerate(told[story]):
        assert answer["error"] == "DistributedError"
        assert answer["message"] == f"work on 3 ranks: rank {rank} {what}"
        assert answer["ranks"] == {str(rank): what}
        assert answer["cause"] == (what.split()[1].rstrip(":") if here == rank else "NoneType")
        assert answer["seconds"] < SOON


def test_what_all_raise_alike_is_raised_as_it_is(told):
    for answer in told["all_raise_alike"]:
        assert (answer["error"], answer["message"]) == ("QuantizationError", "the sum is 1.")


@pytest.mark.parametrize("story", SILENT)
def test_one_that_is_silent_is_named_by_all_others(told, story):
    silent = SILENT[story]
    for rank, answer in enumerate(told[story]):
        if rank != silent:
            assert list(answer["ranks"]) == [str(silent)]
            assert f"rank {silent} has given no sign of life for {SILENCE:g} s" in answer["message"]
            assert SILENCE <= answer["seconds"] < SOON
    if story == "one_is_stopped":
        assert told[story][silent]["error"] == "DistributedError"  # once it goes on
    else:
        assert without_seconds(told[story][silent]) == KILLED


@pytest.mark.parametrize(("story", "what"), [("the_first_is_killed", "ended"), ("the_first_is_stopped", "silent")])
def test_without_the_store_the_rank_that_keeps_it_is_named(told, story, what):
    """On a busy machine one may still wait when the store is back, and finds that another has ended meanwhile."""
    keeper = "rank 0 keeps the store of the group, unless torchrun does"
    named = [answer for answer in told[story][1:] if keeper in answer["message"]]
    assert named
    for answer in told[story][1:]:
        assert answer["error"] == "DistributedError"
        assert what in answer["message"] if answer in named else "has given no sign of life" in answer["message"]
        assert answer["seconds"] < SOON


def test_one_that_does_not_come_is_named(told):
    answer = told["one_does_not_come"][0]
    expected = f"rank 1 has not come to 'results' within {PATIENCE:g} s, the timeout of init_process_group"
    assert expected in answer["message"]
    assert PATIENCE <= answer["seconds"] < SOON


def test_ranks_that_do_or_have_something_else_are_named(told):
    for answer in told["one_does_something_else"]:
        assert "rank 1 differs from rank 0 in the function (sensitivity, not quantize)" in answer["message"]
    for answer in told["two_differ"]:
        assert answer["ranks"] == {
            "1": "differs from rank 0 in the weights",
            "2": "differs from rank 0 in the release (2, not 1)",
        }


def test_ctrl_c_on_one_ends_all(told):
    other, interrupted = told["one_is_interrupted"]
    assert other["ranks"] == {"1": "was ended by KeyboardInterrupt"}
    assert interrupted["value"] == "interrupted"


def test_the_group_is_of_use_after_an_error(told):
    assert values(told["again_after_an_error"]) == [["DistributedError", [0, 1]]] * 2


def test_every_story_is_asked_about():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in STORIES if f'"{name}"' not in source] == []
