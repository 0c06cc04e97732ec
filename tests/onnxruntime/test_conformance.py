"""The ONNX Runtime backend keeps what the conformance kit asks, check by check.

``./dev conformance`` also checks the patterns of core with it, which are checked here with TensorRT.
"""

from support.conformance import conformance_tests

test_conforms = conformance_tests("onnxruntime", besides="tensorrt")
