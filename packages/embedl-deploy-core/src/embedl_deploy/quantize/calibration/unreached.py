"""Tensors that calibration did not see, or did not see as what they are: whose fault that is, and what to do."""

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
    """Check that every quantizer has seen a tensor, and that what its place gave was computed with.

    Args:
        model: What was calibrated.
        batches: How often each quantizer was called.
        watches: What was seen of the fused modules.

    Raises:
        QuantizationError: One has not, or in vain.
    """
    _check_results_are_used(model, watches)
    unseen = [quantizer for quantizer, count in batches.items() if count == 0]
    if not unseen:
        return
    for path, module in fused_modules(model).items():
        for place, stub in module.named_modules():
            if watches[module].called and isinstance(stub, QuantStub) and stub.quantizer in unseen:
                what = "weight" if isinstance(stub, WeightFakeQuantize) else "value"
                raise QuantizationError(
                    f"{_described(module, path)} was run, and its forward never called {place!r}, the place of a "
                    f"{what}'s quantizer: the {what} would stay in float, whatever the report says. Compute with "
                    f"self.{place}({what}) wherever the place is filled, as FusedConv and FusedMatmul do; or leave the "
                    "module out: QuantConfig(skip=...).",
                    tensor=stub.quantizer.name,
                )
    if len(unseen) == len(batches):
        raise QuantizationError("No tensor was seen: the calibration function did not run the model it was given.")
    raise QuantizationError(
        f"The calibration data never reached {len(unseen)} of {len(batches)} tensors: "
        f"{', '.join(quantizer.name for quantizer in unseen[:5])}. "
        "Use data that takes every path through the model, or leave those modules out: QuantConfig(skip=...).",
        tensor=unseen[0].name,
    )


def _check_results_are_used(model: nn.Module, watches: Mapping[nn.Module, Watch]) -> None:
    for path, module in fused_modules(model).items():
        for place in sorted(watches[module].ignored):
            stub = module.get_submodule(place)
            what = "weight" if isinstance(stub, WeightFakeQuantize) else "value"
            name = stub.quantizer.name if isinstance(stub.quantizer, Quantizer) else ""
            raise QuantizationError(
                f"{_described(module, path)} calls {place!r}, the place of a {what}'s quantizer, and does not compute "
                f"with what it returns: the {what} would stay in float, whatever the report says. Put "
                f"self.{place}({what}) in the place of the {what}, as FusedConv and FusedMatmul do; or leave the "
                "module out: QuantConfig(skip=...).",
                tensor=name,
            )


@torch.no_grad()
def check_weights(model: nn.Module, seen: Mapping[Quantizer, torch.Tensor]) -> None:
    """Check that every place of a weight was given the weight that it is for: that is what :func:`freeze` stores.

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
                f"{_described(module, path)} calls {weight.place!r} with a tensor of shape {tuple(given.shape)} that "
                f"is not the weight of {weight.path!r}, shape {tuple(wanted.shape)}, which the place is for by its "
                "name. Give it that weight, or give the place the name of the part that it is for: "
                "'<part>_weight_fake_quant'. A weight that is computed from another belongs in a parametrization of "
                "the part (torch.nn.utils.parametrize).",
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
