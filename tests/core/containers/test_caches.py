"""Caches of transformers as structures."""

import pytest
import torch
from torch.utils import _pytree as pytree
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, LinearAttentionLayer

from embedl_deploy.containers.known import know_containers
from embedl_deploy.errors import InputError

know_containers()


def filled(length: int, cache: DynamicCache | None = None, layers: int = 2) -> DynamicCache:
    cache = DynamicCache() if cache is None else cache
    for layer in range(layers):
        cache.update(torch.randn(1, 2, length, 4), torch.randn(1, 2, length, 4), layer)
    return cache


def sliding(length: int) -> DynamicCache:
    return filled(length, DynamicCache(config=MistralConfig(num_hidden_layers=2, sliding_window=8)))


def linear() -> Cache:
    cache = Cache(layers=[LinearAttentionLayer(), LinearAttentionLayer(number_of_states=2)])
    cache.update_conv_state(torch.randn(1, 6, 4), 0)
    cache.update_recurrent_state(torch.randn(1, 6, 3), 0)
    for state in (0, 1):
        cache.update_conv_state(torch.randn(1, 6, 4), 1, state)
    return cache


def names(value: object) -> list[str]:
    return [pytree.keystr(path) for path, _ in pytree.tree_leaves_with_path(value)]


CACHES = {
    "dynamic": (lambda: filled(3), ["[0]['key']", "[0]['value']", "[1]['key']", "[1]['value']"]),
    "sliding": (lambda: sliding(3), ["[0]['key']", "[0]['value']", "[1]['key']", "[1]['value']"]),
    "dropped": (lambda: sliding(9), ["[0]['key']", "[0]['value']", "[1]['key']", "[1]['value']"]),
    "empty": (DynamicCache, []),
    "not begun": (lambda: DynamicCache(config=LlamaConfig(num_hidden_layers=2)), []),
    "pair": (
        lambda: EncoderDecoderCache(filled(3, layers=1), filled(5, layers=1)),
        [f"[0]['{part}']['{name}']" for part in ("decoder", "encoder") for name in ("key", "value")],
    ),
    "linear": (
        linear,
        ["[0]['conv_state']", "[0]['recurrent_state']", "[1]['conv_state'][0]", "[1]['conv_state'][1]"],
    ),
}


def layers_of(cache: Cache) -> list[object]:
    if isinstance(cache, EncoderDecoderCache):
        return [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers, cache.is_updated]
    return list(cache.layers)


def attributes(layer: object) -> dict[str, str]:
    return layer if isinstance(layer, dict) else {name: repr(value) for name, value in sorted(vars(layer).items())}


@pytest.mark.parametrize("kind", CACHES)
def test_are_taken_apart_and_put_together(kind):
    make, expected = CACHES[kind]
    cache = make()
    assert names(cache) == expected
    again = pytree.tree_unflatten(*pytree.tree_flatten(cache))
    assert again is not cache
    assert [type(layer) for layer in layers_of(again)] == [type(layer) for layer in layers_of(cache)]
    for one, other in zip(layers_of(again), layers_of(cache), strict=True):
        missing = {"dtype": "None", "device": "None"} if kind == "not begun" else {}
        assert attributes(one) == {**missing, **attributes(other)}
    assert pytree.tree_structure(again) == pytree.tree_structure(cache)


@pytest.mark.parametrize("make", [filled, sliding])
def test_go_on_growing(make):
    cache, step = make(5), torch.randn(1, 2, 1, 4)
    again = pytree.tree_map(torch.clone, cache)
    for _ in range(6):
        for one in (cache, again):
            one.update(step, step, 0)
    assert again.get_seq_length(0) == cache.get_seq_length(0) == 11
    assert again.get_mask_sizes(1, 0) == cache.get_mask_sizes(1, 0)
    torch.testing.assert_close(again.layers[0].keys, cache.layers[0].keys)


def test_an_empty_one_gets_its_layers():
    again = pytree.tree_unflatten(*pytree.tree_flatten(DynamicCache()))
    assert len(filled(2, again).layers) == 2


def test_lengths_and_types_are_no_part_of_the_structure():
    for make in (filled, sliding):
        assert pytree.tree_structure(make(3)) == pytree.tree_structure(make(6))
        assert pytree.tree_structure(make(3)) == pytree.tree_structure(pytree.tree_map(torch.Tensor.half, make(3)))


def test_dropped_tokens_are():
    assert pytree.tree_structure(sliding(9)) != pytree.tree_structure(sliding(7))


def test_structures_can_be_stored():
    for make, _ in CACHES.values():
        structure = pytree.tree_structure(make())
        assert pytree.treespec_loads(pytree.treespec_dumps(structure)) == structure


def test_classes_that_are_derived_later_become_known():
    class OwnCache(DynamicCache):
        pass

    assert OwnCache not in pytree.SUPPORTED_NODES
    know_containers()
    again = pytree.tree_unflatten(*pytree.tree_flatten(filled(2, OwnCache())))
    assert type(again) is OwnCache


def test_what_is_neither_tensor_nor_plain_is_an_error():
    cache = filled(2)
    cache.layers[0].stream = object()
    with pytest.raises(InputError, match=r"attribute 'stream' of a DynamicLayer is a object"):
        pytree.tree_flatten(cache)
