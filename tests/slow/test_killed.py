"""Runs that are killed at any moment lose at most the build, or the batch, that they were at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked, which this system cannot do")


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """What happened to each kind of work."""
    command = [sys.executable, "-m", "support.killed_runs", str(tmp_path_factory.mktemp("killed")), "0"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("work", ["tune", "sensitivity", "evaluate"])
def test_each_kill_loses_at_most_one(stories, work):
    story = stories[work]
    assert story["killed"] >= 4
    assert story["whole"] > 4
    assert story["whole"] <= story["done"] <= story["whole"] + story["killed"]
    assert story["same"]


@pytest.mark.parametrize("work", ["tune", "sensitivity", "evaluate"])
def test_what_was_half_written_is_removed_by_the_next_run(stories, work):
    assert stories[work]["half_written"]
    assert stories[work]["left"] == ["answer", "log", "state.json"]
