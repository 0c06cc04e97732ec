"""Stores the format and the tensor of each scale in a ``state_dict``, and refuses a state that differs.

Paths of quantizers come from names of nodes, which another model or plan gives to other tensors. So a state says who
reads what it rounds as well, and is refused where none of them does.

Both are in the metadata that torch keeps beside the tensors, with which ``torch.save`` and ``load_state_dict`` deal;
names and tensors are as they were. A state without metadata (of safetensors, or an older release) is loaded as it is.
"""

from typing import Any

from torch import nn

from embedl_deploy.numerics.tensor_config import TensorQuantConfig

_KEY, _READERS = "embedl_deploy.format", "embedl_deploy.readers"


class StoresFormat(nn.Module):
    """A module whose state says in which format it is and who reads what it gives, and that loads no other.

    Attributes:
        config: The format.
        name: The tensor, for messages.
        readers: The points that it stands at: the module's path, and which input, weight or place of it.
    """

    config: TensorQuantConfig
    name: str
    readers: tuple[str, ...] = ()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]].update({_KEY: _numbers(self.config), _READERS: list(self.readers)})

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        errors: list[str] = args[-1]
        readers = local_metadata.get(_READERS)
        if readers and self.readers and set(readers).isdisjoint(self.readers):
            errors.append(
                f"{prefix[:-1]}, {self.name}: the state is of what is read by {', '.join(readers)}, and the model has "
                f"it for {', '.join(self.readers)}. Load the state into the model that it is of, transformed by the "
                "same plan and quantized by the same configuration, or rebuilt by its recipe."
            )
            return
        stored, own = local_metadata.get(_KEY), _numbers(self.config)
        if stored is None or stored == own:
            self._make_room(state_dict, prefix)
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
            return
        errors.append(
            f"{prefix[:-1]}, {self.name}: the state is of {stored}, and the model quantizes to {own}. Insert "
            "quantizers with the configuration that the state was made with, or rebuild the model by its recipe."
        )

    def _make_room(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Give the module tensors of the shapes that are loaded, where those are not known before."""


def _numbers(config: TensorQuantConfig) -> str:
    """What of a configuration decides what a scale means."""
    words = [config.precision.name]
    if config.scale_axis >= 0:
        words.append(f"per channel of axis {config.scale_axis}")
    if config.scale_block:
        words.append(f"in blocks of {config.scale_block}")
    if config.dynamic:
        words.append("with the range of each call")
    if config.power_of_two:
        words.append("by powers of two")
    signs = "" if config.symmetric else "centered" if config.centered else "asymmetric"
    return " ".join((*words, signs)).strip()
