"""Writes the weights of finished blocks, in the layout that Hugging Face's libraries read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx

from embedl_deploy.errors import FileWriteError
from embedl_deploy.files import atomic_write, write_text
from embedl_deploy.shards.source import INDEX

RECIPE = "recipe.json"
CONSTANTS = "constants.safetensors"


def shard_name(number: int, count: int) -> str:
    """The file of a block, counted from 1."""
    return f"model-{number:05}-of-{count:05}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        FileWriteError: The disk is full, or the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_write(path) as file:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})
        except SafetensorError as error:  # it wraps what the operating system says, a full disk among it
            raise FileWriteError(
                f"{str(path)!r} cannot be written: {error}. No partial file was left. Free some space, or write to "
                "another folder."
            ) from error


def write_index(folder: Path, files: Sequence[Mapping[str, str]], total: int) -> None:
    """Write the index: in which file each tensor is, and the size of all."""
    weight_map = {name: file for each in files for name, file in each.items()}
    plain: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_text(folder / INDEX, json.dumps(plain, indent=1))


def constants_of(model: fx.GraphModule) -> dict[str, torch.Tensor]:
    """Buffers that are no part of the state: no checkpoint has them, and a model without weights has them from here."""
    found = {}
    for path, part in model.named_modules():
        for key, buffer in part._buffers.items():
            if buffer is not None and key in part._non_persistent_buffers_set and not buffer.is_meta:
                found[f"{path}.{key}" if path else key] = buffer
    return found
