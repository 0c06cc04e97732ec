"""Reads a model that was quantized block by block."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.files import read_text
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.recipe import QuantizationRecipe
from embedl_deploy.shards.source import Shards, open_shards
from embedl_deploy.shards.writing import CONSTANTS, RECIPE
from embedl_deploy.validation.checked import checked


@checked
def load_quantized(result: TransformationResult, folder: str | os.PathLike[str]) -> fx.GraphModule:
    """The quantized model that :func:`quantize_shards` wrote to a folder, whole in memory.

    Args:
        result: What ``transform`` gave for the model, on torch's meta device or with weights, which are not looked at.
            Not modified.
        folder: The folder.

    Raises:
        InputError: It holds no finished model, or a file is missing or damaged.
        QuantizationError: It holds another model.
    """
    place = Path(folder)
    model = read_recipe(place).rebuild(result)
    shards = open_shards(place)
    constants = open_shards(place / CONSTANTS)
    for name in constants.tensors:
        put_tensor(model, name, constants)
    for name in shards.tensors:
        put_tensor(model, name, shards)
    put_empty(model)
    return model.eval()


def read_recipe(folder: Path) -> QuantizationRecipe:
    """The recipe in a folder.

    Raises:
        InputError: There is none.
        QuantizationError: It is not a recipe.
    """
    return QuantizationRecipe.from_json(
        read_text(folder / RECIPE, "the recipe of a model that was quantized to its end")
    )


def put_tensor(model: nn.Module, name: str, shards: Shards, value: torch.Tensor | None = None) -> None:
    """Give a tensor of a model, wherever it is used, a value: by default that which it has in shards."""
    table, key = place_of_tensor(model, name, shards)
    before = table[key]
    value = shards.read(name) if value is None else value
    if isinstance(before, nn.Parameter) and not isinstance(value, nn.Parameter):
        value = nn.Parameter(value, requires_grad=before.requires_grad)
    for part in model.modules():
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for each in tables:
            for other, tensor in each.items():
                if tensor is before:
                    each[other] = value


def put_empty(model: nn.Module) -> None:
    """Take tensors without a number off the meta device: they stand for a type, and no file has them."""
    for part in model.modules():
        for key, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta and buffer.numel() == 0:
                part._buffers[key] = torch.empty_like(buffer, device="cpu")


def place_of_tensor(model: nn.Module, name: str, shards: Shards) -> tuple[dict[str, Any], str]:
    """The parameters or buffers of the module that has a tensor, and its name there.

    Raises:
        InputError: None has.
    """
    path, _, key = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        owner = nn.Module()
    table: dict[str, Any] = owner._parameters if key in owner._parameters else owner._buffers
    if key not in table:
        raise InputError(f"{str(shards.path)!r} has {name!r}, which the model has no place for. Was it made by others?")
    return table, key
