"""Calibration data: arrays in batches, and images as torchvision's ImageNet transforms prepare them."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from embedl_deploy.cli.data import array_batches
from embedl_deploy.cli.images import IMAGENET_MEAN, IMAGENET_STD, Preparation, image_batches
from embedl_deploy.cli.models import ModelName
from embedl_deploy.errors import InputError

EXAMPLE = torch.zeros(1, 3, 14, 14)


@pytest.fixture
def net(folder):
    return ModelName("nets:Net", {}).load()


def test_arrays_in_batches(folder, net):
    batches = array_batches(folder / "data.npy", net, 4, None)
    assert len(batches) == 2
    for _ in range(2):
        assert [x.shape for (x,) in batches] == [(4, 3, 16, 16), (2, 3, 16, 16)], "as often as asked for"
    assert next(iter(batches))[0].dtype is torch.float32, "NumPy's float64 becomes the model's type"
    assert [len(x) for (x,) in array_batches(folder / "data.npy", net, 4, 3)] == [3]
    batches.check(net)


def test_named_arrays_are_keyword_inputs(folder):
    np.savez("named.npz", ids=np.ones((3, 5), np.int64), mask=np.ones((3, 5, 1)))
    model = ModelName("nets:TwoInputs", {}).load()
    batches = array_batches(folder / "named.npz", model, 2, None)
    assert [sorted(batch) for batch in batches] == [["ids", "mask"]] * 2
    batches.check(model)


def test_arrays_that_are_no_data(folder, net):
    np.savez("uneven.npz", np.zeros((3, 1)), np.zeros((2, 1)))
    np.save("scalar.npy", np.zeros(()))
    np.save("none.npy", np.zeros((0, 3)))
    for name in ("uneven.npz", "scalar.npy", "none.npy"):
        with pytest.raises(InputError, match=f"'.*{name}' have the shapes"):
            array_batches(folder / name, net, 1, None)
    np.save("wide.npy", np.zeros((2, 5, 8, 8)))
    with pytest.raises(InputError, match=r"does not take batches of \(2, 5, 8, 8\) from .*wide.npy': RuntimeError"):
        array_batches(folder / "wide.npy", net, 2, None).check(net)


def test_the_last_batch_is_tried_as_well(folder):
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.view(4, -1)

    batches = array_batches(folder / "data.npy", Fixed(), 4, None)
    with pytest.raises(InputError, match=r"batches of \(2, 3, 16, 16\)"):
        batches.check(torch.nn.Sequential(Fixed(), torch.nn.Linear(3 * 16 * 16, 1)))


def test_images_are_prepared_as_torchvision_does(folder):
    batches = image_batches(folder / "images", EXAMPLE, Preparation(), 2, None)
    names = [file.relative_to(folder / "images").as_posix() for file in batches.files]
    assert names == ["a/2.PNG", "b/1.png", "b/3.jpg"], "images only, in a fixed order"
    assert [x.shape for (x,) in batches] == [(2, 3, 14, 14), (1, 3, 14, 14)]
    reference = v2.Compose(
        [
            *(v2.Resize(16), v2.CenterCrop(14), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    prepared = torch.cat([x for (x,) in batches])
    for file, values in zip(batches.files, prepared, strict=True):
        expected = reference(Image.open(file).convert("RGB"))
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)


def test_other_preparations(folder):
    preparation = Preparation(resize=20, crop=(20, 10), mean=(0.5,), std=(0.5,))
    grey = image_batches(folder / "images", torch.zeros(1, 1, 8, 8).half(), preparation, 8, 2)
    (x,) = next(iter(grey))
    assert x.shape == (2, 1, 20, 10) and x.dtype is torch.float16
    assert -1 <= x.min() < x.max() <= 1
    assert [file.name for file in grey.files] == ["2.PNG", "1.png"], "spread evenly"


@pytest.mark.parametrize(
    ("preparation", "example", "message"),
    [
        (Preparation(mean=(0.5,)), EXAMPLE, "--mean has 1 numbers, but the model's input has 3 channels"),
        (Preparation(resize=10), EXAMPLE, "--resize 10 is smaller than the crop of 14×14"),
        (Preparation(), torch.zeros(1, 4, 8, 8), r"has the shape \(1, 4, 8, 8\); expected \[N, 1 or 3, H, W\]"),
        (Preparation(), torch.zeros(1, 10), r"has the shape \(1, 10\)"),
    ],
)
def test_preparations_that_do_not_fit(folder, preparation, example, message):
    with pytest.raises(InputError, match=message):
        image_batches(folder / "images", example, preparation, 1, None)


def test_folders_without_images(folder):
    folder.joinpath("bare").mkdir()
    with pytest.raises(InputError, match=r"There are no images in '.*bare'; looked for \.bmp"):
        image_batches(folder / "bare", EXAMPLE, Preparation(), 1, None)
    for name, content in {"text.png": b"no image", "cut.jpg": (folder / "images/b/3.jpg").read_bytes()[:300]}.items():
        folder.joinpath("bare", name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}' cannot be decoded"):
            list(image_batches(folder / "bare", EXAMPLE, Preparation(), 1, None))
        folder.joinpath("bare", name).unlink()


def test_without_pillow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'embedl-deploy-core\[images\]'"):
        image_batches(folder / "images", EXAMPLE, Preparation(), 1, None)
