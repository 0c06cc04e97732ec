"""The two kinds of module that a backend puts into a graph. A tracer keeps both whole."""

from collections.abc import Collection
from typing import ClassVar

import torch
from torch import nn

from embedl_deploy.modules.slots import QuantStub


class FusedModule(nn.Module):
    """Several operators that the hardware runs as one kernel.

    A subclass stores the original modules, folds nothing, and calls them in the original order, so that it computes
    what they computed in training mode as well as in evaluation mode, hooks included.

    Attributes:
        inputs_to_quantize: Positions of the call's arguments that want a quantizer. A class attribute: it is a
            property of the type, read without an instance.
        makes_new_tensor: The output never shares memory with an input.
    """

    inputs_to_quantize: ClassVar[Collection[int]] = frozenset()
    makes_new_tensor: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.input_quant_stubs = {index: QuantStub() for index in sorted(type(self).inputs_to_quantize)}

    @property
    def input_quant_stubs(self) -> dict[int, QuantStub]:
        """The place of each input's quantizer, by argument position.

        Assign ``{}`` in ``__init__`` to opt an instance out of quantization.
        """
        prefix = "input_quant_stub_"
        return {
            int(name.removeprefix(prefix)): module
            for name, module in self._modules.items()
            if name.startswith(prefix) and isinstance(module, QuantStub)
        }

    @input_quant_stubs.setter
    def input_quant_stubs(self, stubs: dict[int, QuantStub]) -> None:
        for index in self.input_quant_stubs:
            delattr(self, f"input_quant_stub_{index}")
        for index, stub in stubs.items():
            self.add_module(f"input_quant_stub_{index}", stub)

    def quantize_input(self, index: int, value: torch.Tensor) -> torch.Tensor:
        """Pass argument ``index`` through its quantizer, if it has one."""
        stub = self._modules.get(f"input_quant_stub_{index}")
        return value if stub is None else stub(value)


class ConvertedModule(nn.Module):
    """A product of a conversion: kept whole until a fusion matches it.

    A subclass that also derives from a ``torch.nn`` class promises to compute what that class computes with its
    settings and weights, up to what its own ``forward`` adds, and to do so through the same methods; patterns for
    the class then match it. :class:`PaddedConv2d` is a ``Conv2d`` in that sense.
    """

    stands_for_base: ClassVar[bool] = True
