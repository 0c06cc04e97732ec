"""The quantization points that patterns declare."""

from enum import Enum


class QDQPoint(Enum):
    """A quantization point that a pattern declares: an input, the output or the weights of its fused module.

    An input is a point where the pattern's ``qdq_points`` and the module's ``inputs_to_quantize`` both name its
    position. For ``OUTPUT`` and ``WEIGHT`` the pattern is enough.

    Attributes:
        INPUT: The call's first argument, position 0.
        RESIDUAL_INPUT: The second, position 1: what is added to the module's own result.
        KEY_INPUT: The second, position 1, of an attention or product.
        VALUE_INPUT: The third, position 2.
        OUTPUT: The result.
        WEIGHT: Its weights, for a module of which nothing else is quantized; every other point includes them.
    """

    INPUT = "input"
    RESIDUAL_INPUT = "residual_input"
    KEY_INPUT = "key_input"
    VALUE_INPUT = "value_input"
    OUTPUT = "output"
    WEIGHT = "weight"

    @property
    def position(self) -> int | None:
        """Which argument of the call it is; ``None`` for the output and for weights."""
        return {"input": 0, "residual_input": 1, "key_input": 1, "value_input": 2}.get(self.value)
