"""The check rules for TensorRT, defined in the files of this folder.

``TRT-Q…`` are about explicit quantization, ``TRT-O…`` about operators and types. Where a docstring names TensorRT for
RTX 1.7, the rule's example was given to that compiler (parser and builder 1.7.1, SM89), and what it did is written
there. Nothing was run on a GPU. What full TensorRT does is taken from NVIDIA's documentation and its maintainers'
answers.
"""

from embedl_deploy.backend import Rule, rules_in
from embedl_deploy.tensorrt import checks

#: ``TRT-Q…``, then ``TRT-O…``, each in the order of its numbers.
TENSORRT_RULES: tuple[Rule, ...] = tuple(sorted(rules_in(checks), key=lambda rule: not rule.id.startswith("TRT-Q")))
