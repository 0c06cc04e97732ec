"""What quantization costs on real labels: a small ResNet and a small ViT, trained on scikit-learn's digits.

    python benchmarks/digits.py [resnet vit] [--seed N]

1797 handwritten digits of 8×8 pixels, a third of them held out. Both networks are trained here, in seconds, from a
fixed seed. Then accuracy on the held-out digits: in float; after calibration alone with INT8 weights and with INT4
weights; and after fine-tuning with INT4 weights in place. Activations are INT8. The exit code is 1 if a goal is
missed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    freeze,
    freeze_batchnorm,
    insert_qdq,
    quantize,
)

#: Images, (N, 1, 8, 8), and labels, (N,).
Digits = tuple[torch.Tensor, torch.Tensor]

CLASSES = 10
TRAINING_DIGITS = 1200
BATCH = 64
#: How many percentage points of accuracy may be lost against float.
GOALS = {"PTQ INT8 weights": 0.5, "QAT INT4 weights": 1.0}


def load_data(seed: int = 0) -> tuple[Digits, Digits]:
    """Digits to train with and digits held out, the ten classes in equal shares; pixels from −1 to 1."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    classes = torch.tensor(labels)
    train, test = train_test_split(range(len(labels)), train_size=TRAINING_DIGITS, stratify=labels, random_state=seed)
    return (images[train], classes[train]), (images[test], classes[test])


class ResidualBlock(nn.Module):
    """Conv → BN → ReLU → Conv → BN, added to what came in, then ReLU; a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def make_resnet() -> nn.Module:
    """A stem and three residual blocks, 16 to 32 channels, on (N, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        ResidualBlock(16, 16, stride=1),
        ResidualBlock(16, 32, stride=2),
        ResidualBlock(32, 32, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


class EncoderBlock(nn.Module):
    """Self-attention and an MLP, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, S, width) to the same."""
        y = self.norm1(x)
        attended, _ = self.attention(y, y, y, need_weights=False)
        x = x + attended
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches of 2×2 pixels, a learned position for each, encoder blocks, and the mean over patches classified."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.positions = nn.Parameter(0.5 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) to (N, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))  # type: ignore[no-any-return]  # modules are untyped


def make_vit() -> nn.Module:
    """A vision transformer 48 wide, two blocks deep, on (N, 1, 8, 8)."""
    return VisionTransformer()


@dataclass(frozen=True)
class Network:
    """A network and how it is trained."""

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float


NETWORKS = {
    "resnet": Network(make_resnet, epochs=15, learning_rate=4e-3),
    "vit": Network(make_vit, epochs=25, learning_rate=5e-3),
}


def train(
    model: nn.Module,
    digits: Digits,
    *,
    epochs: int,
    learning_rate: float,
    seed: int = 0,
    frozen_statistics: int = 0,
) -> None:
    """Train in place: AdamW, a learning rate that falls along a cosine.

    Args:
        model: Any module from images to logits, quantized or not; left in evaluation mode.
        digits: What to train with.
        epochs: Passes over the digits.
        learning_rate: The largest one.
        seed: Of the order of the digits.
        frozen_statistics: In this many last epochs batch norm uses its running statistics, as it will when deployed.
    """
    images, labels = digits
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    batches = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    for epoch in range(epochs):
        model.train()
        if epochs - epoch <= frozen_statistics:
            freeze_batchnorm(model)
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order[: batches * BATCH].split(BATCH):
            loss = F.cross_entropy(model(images[chosen]), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()


@dataclass(frozen=True)
class Score:
    """How well a model does on held-out digits.

    Attributes:
        accuracy: Share of digits recognized, in percent.
        loss: Mean cross-entropy, which also sees changes too small to flip one of 597 answers.
    """

    accuracy: float
    loss: float


@torch.no_grad()
def evaluate(model: nn.Module, digits: Digits) -> Score:
    """Score a model that is in evaluation mode."""
    images, labels = digits
    logits = model(images)
    right = int((logits.argmax(1) == labels).sum())
    return Score(100 * right / len(labels), float(F.cross_entropy(logits, labels)))


def _config(weight: Precision, *, learnable: bool = False) -> QuantConfig:
    return QuantConfig(
        activation=TensorQuantConfig(learnable=learnable),
        weight=TensorQuantConfig(weight, per_channel=True, learnable=learnable),
    )


def study(name: str, seed: int = 0) -> dict[str, Score]:
    """Train one network and quantize it in every way.

    Args:
        name: One of ``NETWORKS``.
        seed: Of the split, the initial weights and the order of the digits.

    Returns:
        Row of the table → score on the held-out digits.
    """
    network = NETWORKS[name]
    training, test = load_data(seed)
    batches = training[0].split(BATCH)
    torch.manual_seed(seed)
    model = network.make()
    train(model, training, epochs=network.epochs, learning_rate=network.learning_rate, seed=seed)
    scores = {"float": evaluate(model, test)}

    result = transform(model, (training[0][:2],), backend="tensorrt")
    for bits in (Precision.INT8, Precision.INT4):
        quantized = quantize(result, batches, _config(bits), progress=False)
        scores[f"PTQ {bits.name} weights"] = evaluate(freeze(quantized), test)

    # Fine-tuning starts from the float weights and the calibrated scales, and trains both.
    tuned = insert_qdq(result.model, result.matches, _config(Precision.INT4, learnable=True))
    calibrate(tuned, batches, progress=False)
    train(tuned, training, epochs=5, learning_rate=3e-4, seed=seed + 1, frozen_statistics=2)
    scores["QAT INT4 weights"] = evaluate(freeze(tuned), test)
    return scores


def losses(scores: dict[str, Score]) -> dict[str, float]:
    """Row with a goal → percentage points of accuracy lost against float."""
    return {row: scores["float"].accuracy - scores[row].accuracy for row in GOALS}


def _print(console: Console, name: str, scores: dict[str, Score], seconds: float) -> None:
    lost = losses(scores)
    table = Table(title=f"{name}, {seconds:.0f} s", title_justify="left", box=None, pad_edge=False)
    for column in ("", "accuracy %", "cross-entropy", "lost", "goal"):
        table.add_column(column, justify="left" if column == "" else "right")
    for row, score in scores.items():
        goal = ("", "")
        if row in GOALS:
            mark = "" if lost[row] <= GOALS[row] else "  <-- MISSED"
            goal = (f"{lost[row]:+.2f}", f"≤ {GOALS[row]}{mark}")
        table.add_row(row, f"{score.accuracy:.2f}", f"{score.loss:.4f}", *goal)
    console.print(table)


def main() -> int:
    """Study the networks named on the command line, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"unknown network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    met = True
    for name in options.networks or NETWORKS:
        start = time.perf_counter()
        scores = study(name, options.seed)
        _print(console, name, scores, time.perf_counter() - start)
        met = met and all(lost <= GOALS[row] for row, lost in losses(scores).items())
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
