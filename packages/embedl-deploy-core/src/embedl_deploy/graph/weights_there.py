"""Models whose weights have no values: those on torch's meta device, where a model can be built but not computed."""

from torch import nn

from embedl_deploy.errors import InputError


def weights_not_there(model: nn.Module) -> str:
    """That weights of a model are on the meta device, and what to do about it; empty if they have values."""
    paths = [
        path
        for path, part in model.named_modules()
        if any(t.is_meta for t in (*part.parameters(recurse=False), *part.buffers(recurse=False)))
    ]
    if not paths:
        return ""
    more = f" and of {len(paths) - 1} more modules" if len(paths) > 1 else ""
    whose = f"{paths[0]!r}{more}" if paths[0] else f"{type(model).__name__}{more}"
    return (
        f"The weights of {whose} are on the meta device, where tensors have a shape but no values. Load the weights "
        "first: build the model without torch.device('meta'), call from_pretrained without device_map, or call "
        "load_state_dict(..., assign=True). Then transform it again."
    )


def require_weights(model: nn.Module, what: str) -> None:
    """Raise if the weights of a model have no values.

    Args:
        model: The model.
        what: What needs them; the message begins with it.

    Raises:
        InputError: They have none.
    """
    said = weights_not_there(model)
    if said:
        raise InputError(f"{what} needs the values of the weights. {said}")
