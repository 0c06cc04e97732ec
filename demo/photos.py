"""Photographs that ship with scikit-image and scikit-learn, cut to what the network takes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

Pixels = npt.NDArray[np.uint8]

SIZE = 224


def full_photos() -> dict[str, Pixels]:
    """Name → (height, width, 3) pixels."""
    samples = {Path(name).stem: image for name, image in zip(*_samples(), strict=True)}
    return {"chelsea": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket(), **samples}


def load_photos() -> dict[str, Pixels]:
    """Name → (224, 224, 3) pixels, the middle square of each photograph."""
    return {name: _middle_square(image) for name, image in full_photos().items()}


def _samples() -> tuple[list[str], list[Pixels]]:
    samples = load_sample_images()
    return samples.filenames, samples.images


def _middle_square(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def as_batch(photos: dict[str, Pixels]) -> torch.Tensor:
    """(N, 3, 224, 224), scaled to about [-1, 1] as the network was trained: (pixel - 127) / 128."""
    pixels = torch.from_numpy(np.stack(list(photos.values()))).permute(0, 3, 1, 2)
    return (pixels.float() - 127) / 128
