"""The two kinds of module that a backend puts into a graph. A tracer keeps both whole."""

import inspect
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.modules.slots import QuantStub


def inputs_of_forward(kind: type[nn.Module]) -> int | None:
    """How many inputs ``forward`` of a module class takes by position, without self; ``None`` if any number."""
    kinds = [parameter.kind for parameter in inspect.signature(kind.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(each is not inspect.Parameter.KEYWORD_ONLY for each in kinds[1:])


def _check_positions(kind: type[nn.Module], positions: Collection[int], what: str) -> None:
    """Raise if ``forward`` has no input at one of the positions."""
    count = inputs_of_forward(kind)
    beyond = sorted(p for p in positions if count is not None and isinstance(p, int) and p >= count)
    if beyond:
        held = ", ".join(map(str, beyond))
        raise InputError(
            f"{kind.__name__}: {what} holds {held}, but forward{inspect.signature(kind.forward)} takes {count} "
            f"input(s); expected positions of forward's arguments, counted from 0 without self: at most {count - 1}."
            if count
            else f"{kind.__name__}: {what} holds {held}, but forward takes no input."
        )


class FusedModule(nn.Module):
    """Several operators that the hardware runs as one kernel.

    A subclass stores the original modules, folds nothing, and calls them in the original order, so that it computes
    what they computed in training mode as well as in evaluation mode, hooks included. It does not look at
    ``input_quant_stubs``: quantization puts them into the graph, before the call. A quantized weight it does
    look at: where it has a ``weight_fake_quant``, it computes with ``self.weight_fake_quant(weight)``. It may have any
    number of weights; :mod:`embedl_deploy.modules.weights` says which place is for which.

    Attributes:
        inputs_to_quantize: Positions of the call's arguments that want a quantizer. A class attribute: it is a
            property of the type, read without an instance, and checked when the class is made (``InputError``).
        makes_new_tensor: The output never shares memory with an input.
        why_not_quantized: Set it in an instance that opts out of quantization, or in which a part does: the reason, for
            reports. With no ``input_quant_stubs`` its weights are left in float as well.
    """

    inputs_to_quantize: ClassVar[Collection[int]] = frozenset()
    makes_new_tensor: ClassVar[bool] = True
    why_not_quantized: str | None = None
    _stubs: dict[int, QuantStub] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        positions: object = cls.inputs_to_quantize
        if isinstance(positions, property):
            return  # known for an instance only
        if isinstance(positions, str) or not isinstance(positions, Collection):
            raise InputError(
                f"{cls.__name__}: inputs_to_quantize is {positions!r}; expected a set of positions, such as {{0, 1}}."
            )
        for position in positions:
            if isinstance(position, bool) or not isinstance(position, int) or position < 0:
                raise InputError(
                    f"{cls.__name__}: inputs_to_quantize holds {position!r}; expected positions of forward's "
                    "arguments, counted from 0 without self: 0 is QDQPoint.INPUT, 1 RESIDUAL_INPUT or KEY_INPUT, "
                    "2 VALUE_INPUT."
                )
        _check_positions(cls, positions, "inputs_to_quantize")

    @property
    def input_quant_stubs(self) -> dict[int, QuantStub]:
        """The place of each input's quantizer, by argument position.

        Assign ``{}`` in ``__init__`` to opt an instance out of quantization. Assign a stub that is also a sub-module,
        and called in ``forward``, where a quantizer must stand further inside: it is then filled where it is.
        """
        if self._stubs is None:
            self._stubs = {index: QuantStub() for index in sorted(type(self).inputs_to_quantize)}
        return self._stubs

    @input_quant_stubs.setter
    def input_quant_stubs(self, stubs: dict[int, QuantStub]) -> None:
        _check_positions(type(self), stubs, "input_quant_stubs")
        self._stubs = dict(stubs)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """Multiply the channels of the output by constants, exactly, in parameters.

        Smoothing and equalization ask for it, in order to even out the channels of a tensor that is quantized. A
        subclass that can do it gets new parameters: the old ones may belong to the user's model.

        Args:
            factors: (C,), positive.

        Returns:
            ``None`` if it is done; else why it cannot be, with nothing changed.
        """
        return f"{type(self).__name__} has no scale_outputs of its own"

    def shift_outputs(self, shift: float) -> str | None:
        """Subtract a constant from every output, exactly, in parameters and bounds.

        Centering asks for it when a model is exported. A subclass that can do it gets new parameters, as above.

        Args:
            shift: What is subtracted.

        Returns:
            ``None`` if it is done; else why it cannot be, with nothing changed.
        """
        return f"{type(self).__name__} has no shift_outputs of its own"

    def input_padding(self) -> tuple[int, ...] | str:
        """What is added around input 0 before it is multiplied with a weight, in the order of ``F.pad``.

        Centering asks for it. A subclass whose input 0 is read by that product alone says ``()``, or the padding; and
        then has :meth:`center_input`. Else it is why there is no shifting the input.
        """
        return f"{type(self).__name__} has no input_padding of its own"

    def center_input(self, center: float) -> None:
        """Take input 0 with ``center`` subtracted, and padded, from now on, and give the same outputs as before.

        The bias makes up for it, in a new parameter; :meth:`input_padding` is nothing then.

        Args:
            center: What is subtracted from every value of input 0, and from the zeros that it is padded with.
        """
        raise NotImplementedError(f"{type(self).__name__} has no center_input of its own")


class ConvertedModule(nn.Module):
    """A product of a conversion: kept whole until a fusion matches it.

    A subclass that also derives from a ``torch.nn`` class promises to compute what that class computes with its
    settings and weights, up to what its own ``forward`` adds, and to do so through the same methods; patterns for
    the class then match it. :class:`PaddedConv2d` is a ``Conv2d`` in that sense.
    """

    stands_for_base: ClassVar[bool] = True
