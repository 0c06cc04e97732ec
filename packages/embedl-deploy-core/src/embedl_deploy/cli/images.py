"""Calibration data from a folder of images, prepared as ImageNet classifiers expect them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from embedl_deploy.cli.data import Batch, Batches
from embedl_deploy.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Of a resized image; one that is a line would become a gigabyte.
_MOST_PIXELS = 2**27
_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: resize, crop in the middle, (value / 255 − mean) / std.

    Attributes:
        resize: Length of the shorter side before the crop; ``None`` for 256/224 of the crop's longer side.
        crop: Height and width; ``None`` for those of the example input.
        mean: Of each channel.
        std: Of each channel.
    """

    resize: int | None = None
    crop: tuple[int, int] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD


@dataclass
class ImageBatches(Batches):
    """Images that are decoded when they are asked for.

    Attributes:
        path: The folder.
        files: The images, in order.
        size: Images in a batch.
        preparation: As :class:`Preparation`, with resize and crop set.
        mode: Pillow's mode, for 1 or 3 channels.
        dtype: Of the batches.
    """

    path: Path
    files: Sequence[Path]
    size: int
    preparation: Preparation
    mode: str
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self.samples = len(self.files)

    def batch(self, start: int, stop: int) -> Batch:
        """See :meth:`Batches.batch`; one tensor [N, C, H, W].

        Raises:
            InputError: A file cannot be decoded.
        """
        return (torch.stack([self._prepared(file) for file in self.files[start:stop]]),)

    def _prepared(self, file: Path) -> torch.Tensor:
        from PIL import Image

        try:
            with Image.open(file) as image:
                image.load()
                pixels = np.asarray(self._cropped(image.convert(self.mode)), dtype=np.float32) / 255
        except InputError:
            raise
        except Exception as error:  # Pillow's readers, some of them plugins, raise whatever a damaged file leads to
            raise InputError(f"The image {os.fspath(file)!r} cannot be decoded: {error}") from error
        values = (pixels.reshape(*pixels.shape[:2], -1) - self.preparation.mean) / self.preparation.std
        return torch.from_numpy(values).permute(2, 0, 1).to(self.dtype)

    def _cropped(self, image: "Image") -> "Image":
        from PIL.Image import Resampling

        assert self.preparation.resize is not None  # image_batches sets both
        assert self.preparation.crop is not None
        shorter = min(image.size)  # lengths are cut, and offsets rounded, as torchvision does it
        lengths = [self.preparation.resize * length // shorter for length in image.size]
        if math.prod(lengths) > _MOST_PIXELS:
            raise ValueError(f"of {image.width}×{image.height} it becomes {lengths[0]}×{lengths[1]} when it is resized")
        image = image.resize((lengths[0], lengths[1]), Resampling.BILINEAR)
        height, width = self.preparation.crop
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def image_batches(
    folder: Path, example: torch.Tensor, preparation: Preparation, size: int, most: int | None
) -> ImageBatches:
    """All images in a folder and the folders in it, sorted by path.

    Args:
        folder: Where they are.
        example: The model's input, [N, C, H, W] with one or three channels.
        preparation: How to prepare them.
        size: Images in a batch.
        most: How many to take, spread evenly over the folder; ``None`` for all.

    Raises:
        InputError: There are none, Pillow is not installed, or the model or the preparation does not fit images.
    """
    try:
        import PIL  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise InputError(
            "Images need Pillow: pip install 'embedl-deploy-core[images]', or pass an .npy file."
        ) from error
    if example.dim() != 4 or example.shape[1] not in (1, 3):
        raise InputError(
            f"{os.fspath(folder)!r} is a folder of images, but the model's input has the shape {tuple(example.shape)}; "
            "expected [N, 1 or 3, H, W]. Pass an .npz or .npy file."
        )
    channels = example.shape[1]
    for name, values in (("--mean", preparation.mean), ("--std", preparation.std)):
        if len(values) != channels:
            raise InputError(f"{name} has {len(values)} numbers, but the model's input has {channels} channels.")
    crop = preparation.crop or (int(example.shape[2]), int(example.shape[3]))
    resize = preparation.resize or round(max(crop) * 256 / 224)
    if resize < max(crop):
        raise InputError(f"--resize {resize} is smaller than the crop of {crop[0]}×{crop[1]}.")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())
    if not files:
        raise InputError(f"There are no images in {os.fspath(folder)!r}; looked for {', '.join(sorted(_ENDINGS))}.")
    if most is not None and most < len(files):
        files = [files[place * len(files) // most] for place in range(most)]
    whole = Preparation(resize, crop, preparation.mean, preparation.std)
    return ImageBatches(folder, files, size, whole, "RGB" if channels == 3 else "L", example.dtype)
