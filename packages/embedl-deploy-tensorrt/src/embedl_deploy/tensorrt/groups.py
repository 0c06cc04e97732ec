"""The pattern lists of the TensorRT backend, in order of priority: what the files of ``patterns/`` define."""

from embedl_deploy.conversions import every_conversion
from embedl_deploy.fusions import every_fusion
from embedl_deploy.patterns import Pattern, patterns_in
from embedl_deploy.recomposition import ActivationProductPattern
from embedl_deploy.tensorrt.patterns import conversions, fusions

#: Structural rewrites, run to a fixed point before any fusion. None undoes another, so their order decides nothing.
TENSORRT_CONVERSION_PATTERNS: list[Pattern] = [*every_conversion(), *patterns_in(conversions)]

#: Fusions, run once: the first that takes a node has it, so those that take more nodes come first.
TENSORRT_FUSION_PATTERNS: list[Pattern] = [*patterns_in(fusions), *every_fusion(), ActivationProductPattern()]

#: Rewrites of the quantization stage. There are none: quantizers go where fusions' ``qdq_points`` say.
TENSORRT_QUANTIZED_PATTERNS: list[Pattern] = []

#: Groups between which SmoothQuant moves scales. There are none: it finds them by what modules can do, see
#: ``FusedModule.scale_outputs``.
TENSORRT_SMOOTH_PATTERNS: list[Pattern] = []

#: All of the above.
TENSORRT_PATTERNS: list[Pattern] = [
    *TENSORRT_CONVERSION_PATTERNS,
    *TENSORRT_FUSION_PATTERNS,
    *TENSORRT_QUANTIZED_PATTERNS,
    *TENSORRT_SMOOTH_PATTERNS,
]
