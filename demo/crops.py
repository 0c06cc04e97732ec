"""Random crops of real photographs: enough to calibrate with, and others to judge by."""

import numpy as np
import torch
from PIL import Image
from skimage import data

from photos import SIZE, Pixels, as_batch, full_photos

#: Crops show between a third and all of the shorter side's square, mirrored half of the time.
_SMALLEST = 0.35


def all_photos() -> dict[str, Pixels]:
    """Every colour photograph that ships with scikit-image and scikit-learn, in full."""
    return {**full_photos(), "astronaut": data.astronaut()}


def random_crops(count: int, seed: int) -> torch.Tensor:
    """Square crops of random size and place, taken from all photographs in turn.

    Args:
        count: How many.
        seed: The same seed gives the same crops; different ones give different crops.

    Returns:
        (count, 3, 224, 224), scaled as the network was trained.
    """
    random, photos = np.random.default_rng(seed), list(all_photos().values())
    crops = {}
    for index in range(count):
        image = Image.fromarray(photos[index % len(photos)])
        side = round(min(image.size) * random.uniform(_SMALLEST, 1.0))
        left, top = (int(random.integers(0, size - side + 1)) for size in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels = np.asarray(crop)
        crops[str(index)] = pixels[:, ::-1] if random.random() < 0.5 else pixels
    return as_batch(crops)
