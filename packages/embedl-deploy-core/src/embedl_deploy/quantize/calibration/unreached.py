"""Checks that calibration reached every quantizer with the right tensor; the error names the module or the data."""

from collections.abc import Mapping

import torch
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.placement import placement_of
from embedl_deploy.modules import FusedModule, QuantStub, WeightFakeQuantize, named_weights
from embedl_deploy.quantize.calibration.flow import Watch, fused_modules
from embedl_deploy.quantize.placing.quantizer import Quantizer

#: By how much what a place is given may differ from its weight, as a share of the largest value: rounding to 16 bits.
_TOLERANCE = 0.01


def check_all_reached(model: nn.Module, batches: Mapping[Quantizer, int], watches: Mapping[nn.Module, Watch]) -> None:
    """Check that every quantizer has seen a tensor.

    Args:
        model: What was calibrated.
        batches: How often each quantizer was called.
        watches: What was seen of the fused modules.

    Raises:
        QuantizationError: One has not.
    """
    unseen = [quantizer for quantizer, count in batches.items() if count == 0]
    if not unseen:
        return
    for path, module in fused_modules(model).items():
        for place, stub in module.named_modules():
            if watches[module].called and isinstance(stub, QuantStub) and stub.quantizer in unseen:
                what = "weight" if isinstance(stub, WeightFakeQuantize) else "value"
                raise QuantizationError(
                    f"{_described(module, path)} was run, but its forward never called {place!r}, the stub with the "
                    f"quantizer of a {what}: the {what} would stay in float although the report lists it as quantized. "
                    f"Compute with self.{place}({what}), as FusedConv and FusedMatmul do; or exclude the module: "
                    "QuantConfig(skip=...).",
                    tensor=stub.quantizer.name,
                )
    require_some(batches)
    raise QuantizationError(
        f"The calibration data never reached {len(unseen)} of {len(batches)} tensors: "
        f"{', '.join(quantizer.name for quantizer in unseen[:5])}. "
        "Use data that takes every path through the model, or exclude those modules: QuantConfig(skip=...).",
        tensor=unseen[0].name,
    )


def require_some(batches: Mapping[Quantizer, int]) -> None:
    """Refuse data that reached no quantizer at all.

    Raises:
        QuantizationError: It did not.
    """
    if batches and not any(batches.values()):
        raise QuantizationError(
            "Calibration saw no tensor: the calibration function did not run the model it was given."
        )


def check_results_are_used(model: nn.Module, watches: Mapping[nn.Module, Watch]) -> None:
    """Check that every module computes with what its stubs returned.

    Raises:
        QuantizationError: One does not.
    """
    for path, module in fused_modules(model).items():
        for place in sorted(watches[module].ignored):
            stub = module.get_submodule(place)
            what = "weight" if isinstance(stub, WeightFakeQuantize) else "value"
            name = stub.quantizer.name if isinstance(stub.quantizer, Quantizer) else ""
            raise QuantizationError(
                f"{_described(module, path)} calls {place!r}, the stub with the quantizer of a {what}, but does not "
                f"use the result: the {what} would stay in float although the report lists it as quantized. Compute "
                f"with self.{place}({what}) instead of the {what}, as FusedConv and FusedMatmul do; or exclude the "
                "module: QuantConfig(skip=...).",
                tensor=name,
            )


@torch.no_grad()
def check_weights(model: nn.Module, seen: Mapping[Quantizer, torch.Tensor]) -> None:
    """Check that every weight stub received the weight that it is for, which is what :func:`freeze` stores.

    Args:
        model: What was calibrated.
        seen: What each quantizer of a weight was given.

    Raises:
        QuantizationError: It was given something else.
    """
    for path, module in fused_modules(model).items():
        for weight in named_weights(module):
            given = seen.get(weight.stub.quantizer) if isinstance(weight.stub.quantizer, Quantizer) else None
            wanted = weight.value
            if given is None or wanted is None or _agree(given, wanted):
                continue
            raise QuantizationError(
                f"{_described(module, path)} calls {weight.place!r} with a tensor of shape {tuple(given.shape)}, but "
                f"by its name the stub is for the weight of {weight.path!r}, of shape {tuple(wanted.shape)}. Pass it "
                "that weight, or name the stub after the part that it is for: '<part>_weight_fake_quant'. If the "
                "weight is computed from another, make that a parametrization of the part "
                "(torch.nn.utils.parametrize).",
                tensor=f"{path} {weight.name}",
            )


def _agree(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    if given.shape != wanted.shape:
        return False
    difference = (given.float() - wanted.float()).abs().amax()
    return bool(difference <= _TOLERANCE * wanted.float().abs().amax())


def _described(module: FusedModule, path: str) -> str:
    placement = placement_of(module)
    return f"{type(module).__name__} at {path!r}" + ("" if placement is None else f", placed by {placement},")
