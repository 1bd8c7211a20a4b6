"""What a worker is given of pictures that a processor has counted for an artifact, and a refusal of all else.

A worker that does not serve the artifact of the processor would give other tokens than there are places for, and vLLM
would take the first of them without a word. So pixels travel under a name that only the plug-in knows.
"""

from typing import Any

import torch

from clasp_calib.common.errors import ModelError
from clasp_calib.serving.served import ServedArtifact

ENTRY, DIGEST, PIXELS = "clasp_entry", "clasp_artifact", "clasp_pixel_values"
OWN = "pixel_values"
"""What vLLM's models call them."""


def received(kwargs: dict[str, Any], served: ServedArtifact | None) -> list[int] | None:
    """The entries of pictures, their pixels given back their name; ``None`` of what is no picture that is pruned.

    Args:
        kwargs: what vLLM's model is called with; changed.
        served: what this worker serves.

    Raises:
        ModelError: the processor serves another artifact than this worker, or one of the two serves none.
    """
    entries, digests, pixels = (kwargs.pop(name, None) for name in (ENTRY, DIGEST, PIXELS))
    if entries is None:
        if served is not None and kwargs.get(OWN) is not None:
            raise ModelError(f"pictures came uncounted, and this worker serves {served.artifact}; {_ALIKE}")
        return None
    if served is None or set(torch.as_tensor(digests).flatten().tolist()) != {served.mark}:
        own = "no artifact" if served is None else f"another one, {served.artifact} ({served.digest[:12]})"
        raise ModelError(f"pictures were counted for an artifact, and this worker serves {own}; {_ALIKE}")
    kwargs[OWN] = pixels
    numbers: list[int] = torch.as_tensor(entries).flatten().tolist()
    return numbers


_ALIKE = "start all parts of the server with the same CLASP_ARTIFACT, and the plug-in in all of them"
