"""The pattern lists of the backend, in order of priority: what the files of ``patterns/`` define."""

from embedl_deploy.conversions import every_conversion
from embedl_deploy.fusions import every_fusion
from embedl_deploy.patterns import Pattern, patterns_in
from embedl_deploy.recomposition import ActivationProductPattern
from embedl_deploy_onnxruntime import patterns

#: Structural rewrites, run to a fixed point before any fusion.
ONNXRUNTIME_CONVERSION_PATTERNS: list[Pattern] = [*every_conversion()]

#: Fusions, run once: the first that takes a node has it, so those that take more nodes come first.
ONNXRUNTIME_FUSION_PATTERNS: list[Pattern] = [*patterns_in(patterns), *every_fusion(), ActivationProductPattern()]

#: All of the above.
ONNXRUNTIME_PATTERNS: list[Pattern] = [*ONNXRUNTIME_CONVERSION_PATTERNS, *ONNXRUNTIME_FUSION_PATTERNS]
