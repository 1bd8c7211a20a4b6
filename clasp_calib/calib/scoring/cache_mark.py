"""Going back to where a cache stood, also where layers keep a recurrent state, of which nothing can be cut off."""

from torch import Tensor
from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

_States = dict[int, tuple[Tensor, Tensor]]


class CacheMark:
    """Where a cache stands as this is made. Tokens that come later may be forgotten again, any number of times."""

    def __init__(self, cache: DynamicCache) -> None:
        self._cache, self._length = cache, int(cache.get_seq_length())
        self._states = [_states(layer) for layer in cache.layers]

    def back(self) -> None:
        """Let the cache hold what it held then."""
        more = int(self._cache.get_seq_length()) - self._length
        for layer, states in zip(self._cache.layers, self._states, strict=True):
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                for number, (conv, recurrent) in states.items():
                    layer.conv_states[number].copy_(conv)
                    layer.recurrent_states[number].copy_(recurrent)
            elif more:
                layer.crop(-more)


def _states(layer: object) -> _States:
    if not isinstance(layer, LinearAttentionCacheLayerMixin):
        return {}
    numbers = range(layer.number_of_states)
    return {number: (layer.conv_states[number].clone(), layer.recurrent_states[number].clone()) for number in numbers}
