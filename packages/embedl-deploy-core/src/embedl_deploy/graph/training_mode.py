"""Models in training mode, in which neither a graph nor a file computes what the model is trained for."""

from torch import nn

_DEPENDENT = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention)
_NAMED = 3


def in_training(model: nn.Module) -> str:
    """That a model is in training mode, with the modules that compute something else in it; empty if none does."""
    parts = [
        f"{path!r} ({type(part).__name__})"
        for path, part in model.named_modules()
        if part.training
        and isinstance(part, _DEPENDENT)
        and not (isinstance(part, nn.MultiheadAttention) and not part.dropout)
    ]
    if not parts:
        return ""
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return (
        f"the model is in training mode: {', '.join(parts[:_NAMED])}{more} compute with the statistics of the batch, "
        "or with random numbers. Call eval() on it before you transform or export it, unless you want to train it."
    )
