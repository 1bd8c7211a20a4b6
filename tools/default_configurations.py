"""Generate with tiny models without making a default configuration of their class each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from transformers import GenerationConfig, PreTrainedConfig


@contextmanager
def no_default_configurations() -> Iterator[None]:
    """Skip it where it tells nothing.

    Every ``generate`` of transformers makes a default configuration, to leave its values out of those that are set on
    the model's. Where none is set, none is to be left out, and making it takes as long as a forward of a tiny model.
    """
    plain = PreTrainedConfig._get_generation_parameters
    names = set(GenerationConfig._get_default_generation_params()) - {"use_cache"}

    def parameters(config: Any) -> dict[str, Any]:
        return plain(config) if any(getattr(config, name, None) is not None for name in names) else {}

    with patch.object(PreTrainedConfig, "_get_generation_parameters", parameters):
        yield
