"""Models that are calibrated with batches of many sizes, exported open, run at others and compiled with a profile."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.utils.data import DataLoader

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.quantize import quantize
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from support.language_models import SIZES, VOCABULARY
from support.nets import random_input, scrambled


class Detector(nn.Module):
    """Boxes and scores at two strides, with features of the lower one scaled up, as YOLO has them."""

    def __init__(self, classes=3):
        super().__init__()
        self.stem, self.down = self.block(3, 8, 2), self.block(8, 16, 2)
        self.deep, self.up = self.block(16, 16, 2), nn.Upsample(scale_factor=2)
        self.merge = self.block(32, 16, 1)
        self.heads = nn.ModuleList(nn.Conv2d(16, 4 + classes, 1) for _ in range(2))

    @staticmethod
    def block(inputs, outputs, stride):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())

    def forward(self, images):
        y = self.down(self.stem(images))
        deep = self.deep(y)
        y = self.merge(torch.cat([y, self.up(deep)], 1))
        found = [head(level).flatten(2) for head, level in zip(self.heads, (y, deep), strict=True)]
        boxes, scores = torch.cat(found, 2).split((4, self.heads[0].out_channels - 4), 1)
        return boxes.transpose(1, 2), scores.sigmoid().transpose(1, 2)


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**{**SIZES, "num_hidden_layers": 1})
    return transformers.BertModel(config, add_pooling_layer=False)


def sentences(size, length):
    mask = (torch.arange(length) < length - torch.arange(size)[:, None]).long()
    return {"input_ids": torch.randint(0, VOCABULARY, (size, length)), "attention_mask": mask}


def images(size, height, width=None):
    return {"images": random_input(size, 3, height, width or height)}


TEXT = {name: {0: Dim("batch", max=8), 1: Dim("length", min=2, max=64)} for name in ("input_ids", "attention_mask")}
EIGHTH = Dim("rows", min=2, max=12)
IMAGE = {"images": {0: Dim("batch", max=4), 2: 8 * EIGHTH, 3: 8 * Dim("columns", min=2, max=12)}}


@pytest.mark.parametrize(
    ("make", "batch", "sizes", "shapes"),
    [
        (bert, sentences, [(1, 8), (3, 17), (2, 5), (5, 40), (1, 31), (8, 64)], TEXT),
        (Detector, images, [(1, 32), (2, 64), (1, 32, 48), (3, 40), (1, 64, 96), (4, 24)], IMAGE),
    ],
    ids=["sentences", "images"],
)
def test_sizes_of_calibration_file_and_engine(make, batch, sizes, shapes, tmp_path):
    torch.manual_seed(0)
    model, (example, *calibration) = scrambled(make()).eval(), [batch(*size) for size in sizes[:3]]
    result = transform(model, kwargs=example, backend="tensorrt", dynamic_shapes=shapes)
    quantized = quantize(result, DataLoader([example, *calibration], batch_size=None), progress=False)
    exported = export_onnx(quantized, (), tmp_path / "open.onnx", kwargs=example)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    for size in sizes[3:]:
        inputs = batch(*size)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        wanted = quantized(**inputs)
        wanted = wanted if isinstance(wanted, tuple) else (wanted["last_hidden_state"],)
        for a, b in zip(wanted, found, strict=True):
            assert (a - torch.from_numpy(b)).abs().max() < 5e-2 * a.abs().max()
    if TensorRTForRTX().missing() is None:
        options = {"backend": "tensorrt", "compiler": "tensorrt-rtx", "shapes": exported.shapes}
        assert compile(exported.path, tmp_path / "open.engine", **options).report.kernels > 0
