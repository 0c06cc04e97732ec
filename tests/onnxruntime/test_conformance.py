"""The ONNX Runtime backend keeps what the conformance kit asks, check by check."""

from support.conformance import conformance_tests

test_conforms = conformance_tests("onnxruntime")
