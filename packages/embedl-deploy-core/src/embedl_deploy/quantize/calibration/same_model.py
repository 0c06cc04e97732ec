"""What ranks that work together must have in common, as texts that are short to compare."""

import hashlib
from collections.abc import Sequence

import torch
from torch import fx, nn

from embedl_deploy.graph.fingerprint import fingerprint, tensors_fingerprint
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.reporting.corrections import Correction
from embedl_deploy.state_file import release


def facts_of(model: nn.Module, *, scales: bool = True) -> dict[str, str]:
    """By what it is about: the release of embedl-deploy and torch, the graph, its tensors, how it is quantized.

    Args:
        model: The model.
        scales: Whether scales and zero points are the same; not if they are about to be found.
    """
    quantizers = {path: part for path, part in model.named_modules() if isinstance(part, Quantizer)}
    found = set() if scales else {id(x) for part in quantizers.values() for x in (part.scale, part.zero_point)}
    tensors = [(name, x) for name, x in (*model.named_parameters(), *model.named_buffers()) if id(x) not in found]
    parts = [(path, type(part).__qualname__) for path, part in model.named_modules()]
    return {
        "release": release(),
        "graph": fingerprint(model) if isinstance(model, fx.GraphModule) else str(parts),
        "weights": tensors_fingerprint(sorted(tensors, key=lambda entry: entry[0])),
        "quantizers": str([(path, part.config) for path, part in quantizers.items()]),
    }


def result_of(model: nn.Module, corrections: Sequence[Correction]) -> str:
    """A short hash of what came of it, and what ranks have to have in common to compute the same."""
    found = tensors_fingerprint(sorted(model.state_dict().items()))
    told = hashlib.sha256((found + str([each.to_dict() for each in corrections])).encode()).hexdigest()
    return f"{told[:8]} by {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
