"""Training on two ranks: the loss curve of one rank with the doubled batch, and a checkpoint that one process loads."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import freeze, quantize, synchronize
from support.quantizable import IMAGES, inserted
from support.rank_training import LEARNED, STEPS, WRAPPERS, made, statistics

#: In float64, relative; without :func:`synchronize` the first loss is already off by a ten-thousandth.
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What came of everything."""
    command = [sys.executable, "-m", "support.rank_training", str(tmp_path_factory.mktemp("ranks"))]
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=env)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


@pytest.mark.parametrize("how", WRAPPERS)
def test_two_ranks_train_as_one_with_the_doubled_batch(told, how):
    one = told["one"][0]["value"]
    assert len(one["losses"]) == STEPS
    for answer in told[how]:
        for name in ("losses", "statistics", "outputs", "scales"):
            torch.testing.assert_close(
                torch.tensor(answer["value"][name], dtype=torch.float64),
                torch.tensor(one[name], dtype=torch.float64),
                rtol=TOLERANCE,
                atol=TOLERANCE,
            )


def test_they_do_not_unless_synchronized(told):
    one, apart = told["one"][0]["value"], told["apart"][0]["value"]
    assert abs(apart["losses"][0] / one["losses"][0] - 1) > 1000 * TOLERANCE
    assert apart["statistics"] != told["apart"][1]["value"]["statistics"] or apart["statistics"] != one["statistics"]


@pytest.mark.parametrize("how", WRAPPERS)
def test_a_checkpoint_loads_in_one_process_by_its_recipe(told, how):
    trained, loaded = told[how][0]["value"]["outputs"], told[f"{how} loaded"]
    torch.testing.assert_close(torch.tensor(loaded["outputs"]), torch.tensor(trained), rtol=0, atol=0)
    torch.testing.assert_close(torch.tensor(loaded["frozen"]), torch.tensor(trained), rtol=1e-6, atol=1e-6)


@pytest.fixture
def group():
    """This process alone, as a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("batch_norm", "shape"),
    [
        (nn.BatchNorm1d(3), (5, 3)),
        (nn.BatchNorm1d(3, momentum=None), (5, 3, 4)),
        (nn.BatchNorm2d(3, affine=False), (5, 3, 4, 2)),
        (nn.BatchNorm2d(3, track_running_stats=False), (5, 3, 4, 2)),
        (nn.BatchNorm3d(3, momentum=0.3), (5, 3, 4, 2, 2)),
    ],
)
def test_a_batch_norm_of_one_rank_is_that_of_torch(group, batch_norm, shape):
    plain, synchronized = batch_norm.double(), copy.deepcopy(batch_norm).double()
    synchronize(synchronized, group)
    assert isinstance(synchronized, type(plain))
    for _ in range(3):
        x = (torch.randn(shape, dtype=torch.float64) * 3 + 5).requires_grad_()
        y = x.detach().clone().requires_grad_()
        for module, given in ((plain, x), (synchronized, y)):
            (module(given) * torch.arange(given.numel()).reshape(shape)).sum().backward()
        torch.testing.assert_close(y.grad, x.grad)
    assert statistics(plain) == pytest.approx(statistics(synchronized), rel=1e-12)
    torch.testing.assert_close(copy.deepcopy(synchronized).eval()(x), plain.eval()(x))


def test_a_wrong_shape_is_refused_as_by_torch(group):
    batch_norm = nn.BatchNorm2d(3)
    synchronize(batch_norm, group)
    with pytest.raises(ValueError, match="expected 4D input"):
        batch_norm(torch.zeros(2, 3))


def test_scales_must_be_known(group):
    with pytest.raises(QuantizationError, match="2 tensor\\(s\\) are not calibrated"):
        synchronize(inserted(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), LEARNED), group)


def test_what_is_frozen_or_pickled_has_no_group(group):
    model = quantize(made(), [IMAGES.double()], LEARNED, progress=False)
    alone = synchronize(model, group)
    assert alone and all(parameter.dim() == 0 for parameter in alone)
    x = IMAGES.double()
    frozen = freeze(copy.deepcopy(model))
    again = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        expected = model.eval()(x)
        assert torch.equal(again.eval()(x), expected)
        torch.testing.assert_close(frozen(x), expected)
    assert torch.isfinite(again.train()(x)).all()
