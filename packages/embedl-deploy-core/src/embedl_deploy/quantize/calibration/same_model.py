"""What ranks that work together must have in common, as texts that are short to compare."""

from torch import fx, nn

from embedl_deploy.graph.fingerprint import fingerprint, tensors_fingerprint
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.state_file import release


def facts_of(model: nn.Module) -> dict[str, str]:
    """By what it is about: the release of embedl-deploy and torch, the graph, its tensors, how it is quantized."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    quantizers = [(path, part.config) for path, part in model.named_modules() if isinstance(part, Quantizer)]
    return {
        "release": release(),
        "graph": fingerprint(model) if isinstance(model, fx.GraphModule) else str(model),
        "weights": tensors_fingerprint(sorted(tensors, key=lambda entry: entry[0])),
        "quantizers": str(quantizers),
    }
