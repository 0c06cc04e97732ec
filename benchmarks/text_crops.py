"""Crops of two pictures with text: the left halves to calibrate with, the right ones to judge by."""

import numpy as np
import torch
from PIL import Image
from skimage import data

#: The side of a crop as the detector sees it.
SIZE = 160
#: The side of what it shows, in pixels of the picture: letters are enlarged, by 1 to 2.
_SMALLEST, _LARGEST = 80, 160
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _halves(right: bool) -> list[Image.Image]:
    """A page of print and a photograph of handwriting, scikit-image's, cut in the middle."""
    pictures = [Image.fromarray(pixels).convert("RGB") for pixels in (data.page(), data.text())]
    return [
        picture.crop(
            (picture.width // 2 if right else 0, 0, picture.width if right else picture.width // 2, picture.height)
        )
        for picture in pictures
    ]


def text_crops(count: int, *, right: bool) -> torch.Tensor:
    """Square crops of random size and place from both pictures in turn, the same ones each time.

    Args:
        count: How many.
        right: Whether from the right halves, of which the left ones share no pixel.

    Returns:
        (count, 3, 160, 160), scaled as the network was trained.
    """
    random, halves = np.random.default_rng(int(right)), _halves(right)
    crops = []
    for index in range(count):
        half = halves[index % len(halves)]
        side = int(random.integers(_SMALLEST, _LARGEST + 1))
        left, top = (int(random.integers(0, size - side + 1)) for size in half.size)
        crop = half.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        crops.append(torch.from_numpy(np.array(crop)))
    pixels = torch.stack(crops).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (pixels - mean) / std
