"""The same model and patterns give the same plan and result, whatever the process, its hash seed and the order."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embedl_deploy import transform
from embedl_deploy.modules import symbolic_trace
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from support.decoder import EXPECTED, applied_counts, decoder, reordered, transformed_in_order
from support.nets import random_input

_ROOT = Path(__file__).parents[2]
_HASH_SEEDS = ("1", "12345")

#: Printed by a fresh process: everything about plans and results that somebody could depend on.
_SCRIPT = """
import warnings

warnings.simplefilter("ignore")
import torch
from torch import nn
from torchvision_import import import_torchvision

import_torchvision()
from torchvision.models import SwinTransformer, resnet18
from embedl_deploy import apply_transformation_plan, get_transformation_plan
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from support.decoder import DECODER_PATTERNS, decoder, transformed_in_order
from support.small_patterns import PATTERNS


def swin():
    return SwinTransformer([4, 4], 8, [2, 1], [2, 2], [2, 2], num_classes=3)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


cases = [
    (resnet18, (torch.randn(1, 3, 32, 32),), TENSORRT_PATTERNS),
    (resnet18, None, PATTERNS),
    (swin, (torch.randn(1, 3, 32, 32),), TENSORRT_PATTERNS),
    (Attention, None, TENSORRT_PATTERNS),
    (decoder, None, DECODER_PATTERNS),
]
for make, args, patterns in cases:
    plan = get_transformation_plan(make().eval(), args, patterns=patterns)
    print(plan.to_json())
    result = apply_transformation_plan(plan, strict=True)
    assert result.report["applied_count"] > 1
    print([(node.name, node.op) for node in result.model.graph.nodes])
    print([(path, type(module).__name__) for path, module in result.model.named_modules()])
    print(list(result.model.state_dict()))
    print(result.report)
for seed in range(20):
    print(transformed_in_order(seed)[1].model.code)
"""


def _start(hash_seed):
    path = os.pathsep.join([str(_ROOT / "tests"), str(_ROOT / "demo"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", _SCRIPT], env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def accounts():
    """What processes with different hash seeds print."""
    collected = []
    for first in range(0, len(_HASH_SEEDS), 2):
        started = [_start(seed) for seed in _HASH_SEEDS[first : first + 2]]
        for process in started:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, err
            collected.append(out)
    return collected


def test_plans_nodes_and_modules_are_the_same_in_every_process(accounts):
    assert len(accounts[0]) > 10_000
    for account in accounts[1:]:
        assert account.splitlines() == accounts[0].splitlines()


def test_planning_again_in_one_process_gives_the_same():
    texts = {transformed_in_order(3)[1].report.plan.to_json() for _ in range(3)}
    assert len(texts) == 1


INPUTS = random_input(3, 4, seed=1), random_input(3, 4, seed=2)


class TestSumThatEndsOneMatchAndFeedsAnother:
    """``sigmoid(linear(x) + log(r / (1 - r)))``."""

    @pytest.mark.parametrize("start", range(0, 200, 20))
    def test_all_are_applied_in_200_orders_of_patterns_and_nodes(self, start):
        for seed in range(start, start + 20):
            _, result = transformed_in_order(seed)
            assert applied_counts(result) == EXPECTED, (seed, result.report)
            assert result.verify(*INPUTS).max_abs == 0, seed
            wanted, got = decoder()(*INPUTS), result.model(*INPUTS)
            assert torch.equal(wanted[0], got[0]) and all(map(torch.equal, wanted[1], got[1])), seed

    def test_orders_are_really_different(self):
        graphs = {str(transformed_in_order(seed)[0].graph) for seed in range(40)}
        patterns = {tuple(p.name for p in transformed_in_order(seed)[1].report.plan.patterns) for seed in range(40)}
        assert len(graphs) > 10
        assert len(patterns) == 6

    def test_with_the_patterns_of_tensorrt(self):
        for seed in range(20):
            model = reordered(symbolic_trace(decoder()), random.Random(seed)).eval()
            result = transform(model, INPUTS, patterns=TENSORRT_PATTERNS, strict=True)
            assert applied_counts(result) == {"LinearPattern": 2, "ActAddPattern": 2}
            assert result.verify(*INPUTS).max_abs == 0
