"""The caches of Hugging Face transformers as structures: a list of layers, each a dictionary of tensors.

::

    DynamicCache         [{"key": (N, heads, length, size), "value": …}, …]             past_key_values.0.key
    EncoderDecoderCache  [{"decoder": {"key": …, "value": …}, "encoder": {…}}, …]       past_key_values.0.decoder.key
    that of Mamba        [{"conv_state": (N, channels, kernel), "recurrent_state": …}]  cache_params.0.conv_state

A cache or a layer is taken apart by its attributes, so that other models' need nothing here: tensors go into the
dictionary, and the rest is part of the structure that a graph is made for. A layer with a sliding window counts the
tokens that it has seen; while it holds all of them, that is the length of its keys, and not part of the structure.
"""

from typing import Any

import torch
from torch.utils import _pytree as pytree

from embedl_deploy.containers.attributes import class_at, described, path_of, value_of
from embedl_deploy.containers.registering import register
from embedl_deploy.containers.states import note_state

#: Attributes of a layer that hold tensors, and what they are called in the structure.
_NAMES = {"keys": "key", "values": "value", "conv_states": "conv_state", "recurrent_states": "recurrent_state"}
_ATTRIBUTES = {name: attribute for attribute, name in _NAMES.items()}
#: Attributes of a layer that follow from others.
_DERIVED = ("dtype", "device", "_sliding_window_tensor")
_SEEN = "cumulative_length"
#: Of a cache: what makes layers as long as it has none.
_MAKES_LAYERS = "layer_class_to_replicate"


def register_caches(cache_utils: Any) -> None:
    """Make the caches of ``transformers.cache_utils`` known, and those that other modules have derived from them."""
    for kind in _with_derived(cache_utils.Cache):
        note_state(kind)
        if issubclass(kind, cache_utils.EncoderDecoderCache):
            register(kind, _pair_apart, lambda layers, rest, kind=kind: _pair(kind, layers, rest))
        else:
            register(kind, _cache_apart, lambda layers, rest, kind=kind: _cache(kind, layers, rest))


def _with_derived(kind: type) -> list[type]:
    derived: list[type] = kind.__subclasses__()
    return [kind, *(part for each in derived for part in _with_derived(each))]


def _cache_apart(cache: Any) -> tuple[list[Any], Any]:
    layers = [_layer_apart(layer) for layer in cache.layers]
    settings = {name: value for name, value in vars(cache).items() if name != "layers"}
    if layers:
        settings.pop(_MAKES_LAYERS, None)
    return [tensors for tensors, _ in layers], [[of_layer for _, of_layer in layers], _described(cache, settings)]


def _cache(kind: type, layers: Any, rest: Any) -> Any:
    cache = _new(kind, {_MAKES_LAYERS: None}, rest[1])
    cache.layers = [_layer(tensors, of_layer) for tensors, of_layer in zip(layers, rest[0], strict=True)]
    return cache


def _layer_apart(layer: Any) -> tuple[dict[str, Any], Any]:
    tensors: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for attribute, value in vars(layer).items():
        if attribute in _DERIVED:
            continue
        name = _NAMES.get(attribute, attribute)
        if attribute == _SEEN and _holds_all(layer):
            settings[attribute] = None
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, dict) and any(isinstance(part, torch.Tensor) for part in value.values()):
            tensors[name] = next(iter(value.values())) if len(value) == 1 else dict(value)
            settings[attribute] = dict.fromkeys(value)  # to be filled
        else:
            settings[attribute] = value
    return tensors, [path_of(type(layer)), _described(layer, settings)]


def _layer(tensors: dict[str, Any], rest: Any) -> Any:
    layer = _new(class_at(rest[0]), {}, rest[1])
    attributes = vars(layer)
    for name, value in tensors.items():
        attribute = _ATTRIBUTES.get(name, name)
        parts = attributes.get(attribute)
        if isinstance(parts, dict):
            parts.update(value if isinstance(value, dict) else dict.fromkeys(parts, value))
        else:
            attributes[attribute] = value
    first = next((leaf for leaf in pytree.tree_leaves(tensors) if isinstance(leaf, torch.Tensor)), None)
    layer.dtype, layer.device = (None, None) if first is None else (first.dtype, first.device)
    if "sliding_window" in attributes:
        layer._sliding_window_tensor = torch.tensor(layer.sliding_window, device=layer.device)
    if attributes.get(_SEEN, ...) is None:
        attributes[_SEEN] = layer.keys.shape[-2]
    return layer


def _holds_all(layer: Any) -> bool:
    """Whether a layer counts the tokens that it has seen, and holds the keys of all."""
    seen = getattr(layer, _SEEN)
    return not isinstance(seen, torch.Tensor) and layer.keys is not None and bool(seen == layer.keys.shape[-2])


def _pair_apart(cache: Any) -> tuple[list[Any], Any]:
    """A decoder's own keys and values, and those of what the encoder has given."""
    parts = {"decoder": cache.self_attention_cache, "encoder": cache.cross_attention_cache}
    apart = {name: _cache_apart(part) for name, part in parts.items()}
    layers = [
        {name: tensors[index] for name, (tensors, _) in apart.items() if index < len(tensors)}
        for index in range(max(len(tensors) for tensors, _ in apart.values()))
    ]
    settings = {name: value for name, value in vars(cache).items() if not name.endswith("_attention_cache")}
    rest = {name: [path_of(type(part)), apart[name][1]] for name, part in parts.items()}
    return layers, [rest, _described(cache, settings)]


def _pair(kind: type, layers: Any, rest: Any) -> Any:
    cache = _new(kind, {}, rest[1])
    for name, attribute in (("decoder", "self_attention_cache"), ("encoder", "cross_attention_cache")):
        path, of_part = rest[0][name]
        tensors = [layer[name] for layer in layers if name in layer]
        setattr(cache, attribute, _cache(class_at(path), tensors, of_part))
    return cache


def _described(owner: Any, settings: dict[str, Any]) -> dict[str, Any]:
    where = type(owner).__name__
    return {name: described(value, f"attribute {name!r} of a {where}") for name, value in sorted(settings.items())}


def _new(kind: type, attributes: dict[str, Any], settings: dict[str, Any]) -> Any:
    """An object with these attributes, made without its constructor."""
    made: Any = object.__new__(kind)
    vars(made).update(attributes | {name: value_of(value) for name, value in settings.items()})
    return made
