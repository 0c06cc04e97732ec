"""A picture of the photographs with what the network sees in them, before and after."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, no window

from matplotlib import pyplot as plt

from photos import Pixels

Ranking = list[tuple[str, float]]


def save_picture(path: Path, photos: dict[str, Pixels], before: list[Ranking], after: list[Ranking]) -> None:
    """Write a PNG: each photograph above the three likeliest classes, PyTorch float and ONNX Runtime side by side."""
    figure, axes = plt.subplots(
        2, len(photos), figsize=(2.9 * len(photos), 4.6), height_ratios=[3, 1.4], layout="constrained"
    )
    for column, (name, pixels) in enumerate(photos.items()):
        top, bottom = axes[0][column], axes[1][column]
        top.imshow(pixels)
        top.set_title(name, fontsize=11)
        top.axis("off")
        _bars(bottom, before[column], after[column])
    axes[1][0].legend(fontsize=7, loc="lower right", frameon=False)
    figure.suptitle("EfficientNet-Lite0: PyTorch before, and the exported file in ONNX Runtime after", fontsize=12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: plt.Axes, before: Ranking, after: Ranking) -> None:
    after_by_name = dict(after)
    places = range(len(before))
    axis.barh([p - 0.2 for p in places], [v for _, v in before], height=0.36, label="before", color="#4c72b0")
    axis.barh(
        [p + 0.2 for p in places],
        [after_by_name.get(n, 0) for n, _ in before],
        height=0.36,
        label="after",
        color="#dd8452",
    )
    axis.set_yticks(list(places), [name for name, _ in before], fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=8)
    axis.invert_yaxis()
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
