"""For each rule of ONNX Runtime what it has to find and what it must not, and which kernels the runtime makes of it."""

from support import onnxruntime_kernels, onnxruntime_units

CASES = [*onnxruntime_units.CASES, *onnxruntime_kernels.CASES]
PLANTED = [case for case in CASES if case.severity]
NEAR_MISSES = [case for case in CASES if not case.severity]
