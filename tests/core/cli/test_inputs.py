"""Example inputs: from shapes, and from arrays in files."""

import numpy as np
import pytest
import torch
from torch import nn

from embedl_deploy.cli.inputs import inputs_from_file, inputs_from_shapes
from embedl_deploy.cli.models import ModelName
from embedl_deploy.errors import InputError


@pytest.fixture
def two(folder):
    return ModelName("nets:TwoInputs", {}).load()


@pytest.fixture
def net(folder):
    return ModelName("nets:Net", {}).load()


def test_shapes(net, two):
    (x,), kwargs = inputs_from_shapes(net, ["2x3x8x8"])
    assert x.shape == (2, 3, 8, 8) and x.dtype is torch.float32 and kwargs == {}
    assert torch.equal(x, inputs_from_shapes(net, ["2,3,8,8"])[0][0]), "the same in every run"
    assert inputs_from_shapes(net.half(), ["2,3,8,8"])[0][0].dtype is torch.float16, "the model's type"
    (ids, mask), kwargs = inputs_from_shapes(two, ["mask=2,1:bfloat16", "2,5:int64"])
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bfloat16)
    assert (ids == 1).all() and kwargs == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1,,3"], r"--input '1,,3': expected \[name=\]shape\[:dtype\]"),
        (["x"], "--input 'x': expected"),
        (["1,3:float33"], "there is no type 'float33'"),
        (["1,3:nn"], "there is no type 'nn'"),
        (["1", "1", "1"], r"\(input 0, input 1, input 2\) do not fit TwoInputs.forward\(ids, mask\): too many"),
        (["ids=1", "y=1"], "The inputs .ids, y. do not fit"),
        (["1"], "missing a required argument: 'mask'"),
    ],
)
def test_shapes_that_are_none(two, texts, message):
    with pytest.raises(InputError, match=message):
        inputs_from_shapes(two, texts)


def test_files(folder, two, net):
    ids, mask = np.ones((2, 5), np.int64), np.ones((2, 5, 1))
    np.savez("unnamed.npz", ids, mask)
    np.savez("named.npz", mask=mask, ids=ids)
    for name in ("unnamed.npz", "named.npz"):
        args, kwargs = inputs_from_file(two, folder / name)
        assert [a.dtype for a in args] == [torch.int64, torch.float32] and kwargs == {}, "by name, in forward's order"
    np.save("x.npy", np.zeros((1, 3, 8, 8)))
    assert inputs_from_file(net, folder / "x.npy")[0][0].shape == (1, 3, 8, 8)
    with pytest.raises(InputError, match=r"\(mask, ids\) do not fit Net.forward\(input"):
        inputs_from_file(net, folder / "named.npz")


def test_files_that_are_none(folder, net):
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("empty.npz")
    np.save("words.npy", np.array(["a"]))
    folder.joinpath("text.npz").write_text("no arrays")
    folder.joinpath("nothing.npy").touch()
    np.savez("whole.npz", np.zeros(100))
    folder.joinpath("cut.npz").write_bytes(folder.joinpath("whole.npz").read_bytes()[:-60])
    for name in ("objects.npy", "empty.npz", "text.npz", "nothing.npy", "cut.npz", "absent.npz", "images"):
        with pytest.raises(InputError, match=name):
            inputs_from_file(net, folder / name)
    with pytest.raises(InputError, match="Arrays of <U1 cannot be inputs"):
        inputs_from_file(net, folder / "words.npy")


def test_a_mask_of_a_shape_hides_some_and_not_all():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return x

    (_, mask), _ = inputs_from_shapes(Masked(), ["2,3,8", "mask=2,3:bool"])
    assert mask.tolist() == [[False, True, False]] * 2
    model = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    with torch.no_grad():
        output = model(torch.ones(2, 3, 8), src_key_padding_mask=mask)
    assert output.isfinite().all()
