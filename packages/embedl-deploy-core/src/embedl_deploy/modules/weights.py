"""Finds the weight that each weight stub quantizes.

A fused module may have any number of weights. The name of a place, a :class:`WeightFakeQuantize`, says whose it is:

    weight_fake_quant          of the one operator that no other place is for; a part that is a ``FusedConv`` or
                               ``FusedMatmul`` has one, for its own operator
    <part>_weight_fake_quant   of the one operator in the part of that name

where an operator is a convolution, a ``Linear`` or an ``Embedding``.

Everything that reads or changes quantized weights asks :func:`named_weights`.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from embedl_deploy.graph.products import WEIGHTED
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.modules.slots import WeightFakeQuantize
from embedl_deploy.modules.weighted import FusedConv, FusedMatmul, with_parameters
from embedl_deploy.validation.checked import checked

_PLACE = "weight_fake_quant"
_OPERATORS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)
_ADVICE = "the module declares no quantization point for its weight"


@checked
@dataclass(frozen=True)
class NamedWeight:
    """A weight with a stub for its quantizer.

    Attributes:
        name: ``"weight"`` for the place ``weight_fake_quant`` of the module itself; else the path of the part that it
            is for, and ``".weight"``: ``"reduce.weight"``.
        place: Path of the place within the module.
        stub: The place.
        owner: The module that has the place, and computes with it.
        operator: The convolution, ``Linear`` or ``Embedding`` that the weight is of; ``None`` where that cannot be
            told, because there is none, or more than one.
        path: The operator's path within the module; empty where there is none.
        problem: What is wrong with the place, if no weight can be meant.
    """

    name: str
    place: str
    stub: WeightFakeQuantize
    owner: nn.Module
    operator: nn.Module | None
    path: str
    problem: str | None = None

    @property
    def value(self) -> torch.Tensor | None:
        """What the place is to be given: the operator's weight, with the factor of a batch norm in it.

        ``None`` where there is no one operator, or its weight is only kept as integers.
        """
        weight = None if self.operator is None else self.operator.weight
        if isinstance(self.owner, FusedConv) and self.operator is self.owner.conv and weight is not None:
            return self.owner.folded_weight()
        assert weight is None or isinstance(weight, torch.Tensor)  # an operator has no other
        return weight


@checked
def named_weights(module: nn.Module) -> list[NamedWeight]:
    """The weights of a module and its parts that have a stub, in the order of their stubs."""
    paths: dict[int, str] = {}
    for path, part in module.named_modules():
        paths[id(part)] = path
    found: dict[WeightFakeQuantize, NamedWeight] = {}
    # Inner modules first: what has a place further inside is not what a place further outside is for.
    for owner in reversed(list(module.modules())):
        stubs = [(key, part) for key, part in owner._modules.items() if isinstance(part, WeightFakeQuantize)]
        for key, stub in sorted(stubs, key=lambda entry: entry[0] == _PLACE):
            weight = _weight(key, stub, owner, paths, found)
            known = found.setdefault(stub, weight)
            if known.operator is not weight.operator:
                both = f"it is the place of {known.path!r} and of {weight.path!r}, which have one quantizer then"
                found[stub] = _with_problem(known, both)
    return [found[part] for part in module.modules() if isinstance(part, WeightFakeQuantize)]


def _weight(
    key: str,
    stub: WeightFakeQuantize,
    owner: nn.Module,
    paths: dict[int, str],
    found: dict[WeightFakeQuantize, NamedWeight],
) -> NamedWeight:
    """What the place ``key`` of ``owner`` is for, when the places further inside are known."""
    prefix = paths[id(owner)]
    place = f"{prefix}.{key}" if prefix else key
    label, inside, problem = "weight", owner, None
    if key != _PLACE:
        label = key.removesuffix(f"_{_PLACE}")
        part = owner._modules.get(label) if key != label else None
        if part is None:
            problem = f"a place is named {_PLACE!r}, or after the part whose weight it is for, '<part>_{_PLACE}'"
        inside, label = part or nn.Module(), f"{label}.weight"
    taken = _taken(inside, found, stub)
    if isinstance(owner, FusedConv) and key == _PLACE:
        operators: list[nn.Module] = [owner.conv]
    elif isinstance(owner, FusedMatmul) and key == _PLACE:
        operators = [owner.linear]
    else:
        operators = [part for part in inside.modules() if isinstance(part, _OPERATORS) and part not in taken]
    operator = operators[0] if len(operators) == 1 else None
    if operator is None and key != _PLACE and problem is None:
        part_name = key.removesuffix(f"_{_PLACE}")
        problem = f"{part_name!r} has {len(operators)} convolutions, Linears and Embeddings without one, not 1"
    path = "" if operator is None else paths[id(operator)]
    return NamedWeight(f"{prefix}.{label}" if prefix else label, place, stub, owner, operator, path, problem)


def _taken(inside: nn.Module, found: dict[WeightFakeQuantize, NamedWeight], stub: WeightFakeQuantize) -> set[nn.Module]:
    """Operators that other places within a module are for."""
    others = (part for part in inside.modules() if isinstance(part, WeightFakeQuantize) and part is not stub)
    operators = (found[part].operator for part in others if part in found)
    return {operator for operator in operators if operator is not None}


def _with_problem(weight: NamedWeight, problem: str) -> NamedWeight:
    return NamedWeight(weight.name, weight.place, weight.stub, weight.owner, None, "", problem)


@checked
def weights_besides(module: nn.Module, paths: Collection[str]) -> Iterator[tuple[str, nn.Module, str]]:
    """Operators with weights in a module that stay in float, except the given ones: path, operator, reason.

    Args:
        module: A fused module.
        paths: Operators whose weight has a quantizer, or a decision against one.
    """
    told: str | None = None
    for path, part in module.named_modules():
        if told is not None and path.startswith(told):
            continue  # a part of what was told already
        if isinstance(part, WEIGHTED) and path not in paths:
            told = f"{path}." if path else ""
            yield path, part, reason_of_part(module, path) or _ADVICE


@checked
def reason_of_part(module: nn.Module, path: str) -> str | None:
    """``why_not_quantized`` of the innermost fused module around a part that has it, or ``None``."""
    reason, around = None, module
    for name in ("", *path.split(".")[:-1]):
        around = around.get_submodule(name)
        if isinstance(around, FusedModule) and around.why_not_quantized:
            reason = around.why_not_quantized
    return reason


@checked
@torch.no_grad()
def fix_parametrized_weights(model: nn.Module) -> None:
    """Replace parametrized weights that will be quantized with plain parameters.

    A weight that is rounded once and for all is no longer computed. The parameters are new ones, and the operators new
    modules; whatever shares an operator in ``model`` shares the new one.

    Args:
        model: Changed in place.
    """
    parts: list[nn.Module] = []
    for weight in named_weights(model):
        if weight.stub.enabled:
            parts += weight.owner.modules() if weight.operator is None else (weight.operator,)
    _fix(model, parts)


@torch.no_grad()
def fix_computed_weights(model: nn.Module) -> None:
    """Make plain parameters of all weights and biases of convolutions and products that parametrizations compute.

    For a model that is not trained any more; a part in training mode is left as it is, because its parametrization may
    change from call to call.

    Args:
        model: Changed in place, in modules of its own.
    """
    _fix(model, [part for part in model.modules() if not part.training])


def has_computed_weights(model: nn.Module) -> bool:
    """Whether :func:`fix_computed_weights` would change anything."""
    return any(_is_computed(part) and not part.training for part in model.modules())


def _is_computed(part: nn.Module) -> bool:
    return isinstance(part, _OPERATORS) and parametrize.is_parametrized(part)


def _fix(model: nn.Module, parts: Iterable[nn.Module]) -> None:
    plain: dict[nn.Module, nn.Module] = {
        part: with_parameters(part, part.weight, getattr(part, "bias", None))  # type: ignore[arg-type]  # it has no other
        for part in dict.fromkeys(parts)
        if _is_computed(part)
    }
    for owner in list(model.modules()):
        owner._modules.update({name: plain[part] for name, part in owner._modules.items() if part in plain})
