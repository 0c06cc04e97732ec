"""Networks from seeds: the same text everywhere, every block, and sound."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.blocks import BLOCKS
from fuzz.network import write_network
from fuzz.outputs import OUTPUTS
from fuzz.starts import STARTS

ROOT = Path(__file__).parents[2]
DIGEST = """
import hashlib
from fuzz.network import write_network
print(hashlib.sha256("".join(write_network(seed).source for seed in range(40)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def networks():
    return [write_network(seed) for seed in range(300)]


def test_every_part_of_the_grammar_occurs(networks):
    used = {name for network in networks for name in network.blocks}
    assert used == {*BLOCKS, *STARTS, *OUTPUTS}


def test_networks_differ(networks):
    assert len({network.source for network in networks}) == len(networks)


def test_a_network_is_a_function_of_its_seed_in_every_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_blocks_can_be_left_out(networks):
    network = next(n for n in networks if n.length > 4)
    smaller = write_network(network.seed, {0, 1, 2, "output", "tied_head", "dtype"})
    assert len(smaller.blocks) < len(network.blocks)
    assert not smaller.double
    compile(smaller.source, "network", "exec")
