"""Training with quantizers on two ranks: ``python -m support.rank_training FOLDER`` prints what came of it as JSON.

In float64, because sums in another order change last bits, and a value that lies between two numbers of a format may
then be rounded to the other one: in float32 such steps are soon seen in the losses.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import fx, nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from embedl_deploy import TransformationResult, transform
from embedl_deploy.quantize import (
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantize,
    synchronize,
)
from support.nets import scrambled
from support.ranks import run_ranks

STEPS, BATCH = 12, 16
LEARNED = QuantConfig(
    activation=TensorQuantConfig(learnable=True),
    weight=TensorQuantConfig(per_channel=True, learnable=True),
)
WRAPPERS = ("DistributedDataParallel", "fully_shard")


class Net(nn.Module):
    """Convolutions with batch norm, one that is fused and one that is not, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.alone = nn.BatchNorm2d(8, momentum=None)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(torch.sigmoid(self.alone(torch.sigmoid(x))).mean((2, 3)))


def made() -> TransformationResult:
    """Transformed, the same in every process."""
    return transform(scrambled(Net()).double().eval(), torch.zeros(2, 3, 8, 8).double(), backend="tensorrt")


def labelled() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and classes of all steps, (STEPS, BATCH, ...)."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(STEPS, BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)
    return images, images.mean((3, 4)).argmax(-1)


def statistics(model: nn.Module) -> list[float]:
    """Running means and variances, and how many batches they are of."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return [float(x) for name, buffer in model.named_buffers() if name.endswith(names) for x in buffer.reshape(-1)]


def training(how: str, folder: Path, *, synchronized: bool = True) -> Callable[[int], Any]:
    """Some steps of gradient descent; the losses, what the checkpoint gives in this process, and statistics."""

    def work(rank: int) -> Any:
        images, classes = labelled()
        group = dist.group.WORLD
        size = dist.get_world_size()
        quantized = quantize(made(), list(images[:2, rank::size]), LEARNED, progress=False, process_group=group)
        quantized.double()  # the scales, too
        alone = synchronize(quantized, group) if synchronized else set()
        recipe = quantization_recipe(quantized).to_json()
        model: nn.Module = quantized
        if how == "DistributedDataParallel":
            model = DistributedDataParallel(quantized)
        elif how == "fully_shard":
            fully_shard(quantized, mesh=init_device_mesh("cpu", (size,)), ignored_params=alone)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model.train()
        losses = []
        for batch, targets in zip(images[:, rank::size], classes[:, rank::size], strict=True):
            loss = nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            whole = loss.detach() / size
            dist.all_reduce(whole)
            losses.append(float(whole))
        dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=folder / how)
        if rank == 0:
            (folder / f"{how}.json").write_text(recipe)
        model.eval()
        with torch.no_grad():
            outputs = model(images[0]).tolist()
        scales = [
            (scale.full_tensor() if hasattr(scale, "full_tensor") else scale).reshape(-1).tolist()
            for name, scale in model.named_parameters()
            if name.endswith("quantizer.scale")
        ]
        return {
            "losses": losses,
            "statistics": statistics(model),
            "outputs": outputs,
            "scales": [x for scale in scales for x in scale],
        }

    return work


def loaded(how: str, folder: Path) -> dict[str, Any]:
    """What the checkpoint computes in one process, without a group; trained and frozen."""
    dcp_to_torch_save(folder / how, folder / f"{how}.pt")
    recipe = QuantizationRecipe.from_json((folder / f"{how}.json").read_text())
    model: fx.GraphModule = recipe.rebuild(made()).double()
    model.load_state_dict(torch.load(folder / f"{how}.pt", weights_only=True)["model"])
    model.eval()
    with torch.no_grad():
        batch = labelled()[0][0]
        return {"outputs": model(batch).tolist(), "frozen": freeze(model)(batch).tolist()}


def main(folder: Path) -> dict[str, Any]:
    """Everything, by name."""
    told: dict[str, Any] = {"one": run_ranks(1, training("one", folder), folder)}
    for how in WRAPPERS:
        told[how] = run_ranks(2, training(how, folder), folder)
        told[f"{how} loaded"] = loaded(how, folder)
    told["apart"] = run_ranks(2, training("DistributedDataParallel", folder, synchronized=False), folder)
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
