"""A router as bytes: its tensors in safetensors, and what belongs to them as JSON in its metadata.

What is read may come from anybody: nothing is executed, and what does not fit together is refused by its name.
"""

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.fields import ClassName, Hash, Share, Strict, describe
from clasp_calib.common.given_files import read_given
from clasp_calib.common.replacing import replaced
from clasp_calib.common.strict_json import strict_json
from clasp_calib.router_labeling.ngrams import VERSION, Hashing
from clasp_calib.router_labeling.router import Router, RouterQuality, RouterTraining, Shares
from clasp_calib.router_labeling.rules import NORMALISATION
from clasp_calib.router_labeling.word_network import ROWS, WIDTHS, WordNetwork
from clasp_calib.router_labeling.word_pieces import SIZE, VOCABULARY

FORMAT = 3
"""2 had no network, and called ``without`` ``rules``; 1 had no ``quality`` either. Both are still read."""
MOST_BYTES = 20_000_000
"""No router file may be larger."""
MOST_BITS = 18
_HEADER_BYTES = 1 << 20
_LARGEST = 1e4
"""Of any number: products of these do not overflow, and none that was trained comes near."""
_KEY = "router"
_NETWORK = "network."
_AGAIN = "fetch or train the router again"

_Positive = Annotated[int, Field(ge=1, le=1 << 53)]
_Length = Annotated[int, Field(ge=1, le=8)]


class _Hashing(Strict):
    bits: int = Field(ge=1, le=MOST_BITS)
    words: tuple[_Length, ...] = Field(max_length=8)
    characters: tuple[_Length, ...] = Field(max_length=8)
    normalisation: Literal[1]
    version: Literal[1]


class _Training(Strict):
    labels: Hash
    rows: _Positive
    labelers: tuple[str, ...] = Field(max_length=1000)


class _Shares(Strict):
    accuracy: Share
    macro: Share


class _Quality(_Shares):
    against: Literal["gold", "labels"]
    questions: _Positive
    without: _Shares | None

    @property
    def read(self) -> RouterQuality:
        without = None if self.without is None else Shares(self.without.accuracy, self.without.macro)
        return RouterQuality(self.against, self.questions, self.accuracy, self.macro, without)


class _Network(Strict):
    """Shapes, so that tensors of others are refused by their names."""

    vocabulary: Hash = VOCABULARY
    width: int = Field(ge=1, le=1024)
    filters: int = Field(ge=1, le=4096)


class _Metadata(Strict):
    """The JSON under the metadata's key ``router``."""

    format: Literal[1, 2, 3] = 3
    classes: tuple[ClassName, ...] = Field(min_length=2, max_length=1000)
    default: ClassName | None
    taxonomy: Hash
    temperature: float = Field(gt=0, le=1e6)
    threshold: Share
    training: _Training
    hashing: _Hashing
    quality: _Quality | None = None
    network: _Network | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "_Metadata":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: one is listed twice")
        if self.default not in (None, *self.classes):
            raise ValueError(f"default: {self.default!r} is not among the classes")
        if not (self.hashing.words or self.hashing.characters):
            raise ValueError("hashing: there are no n-grams")
        if self.format == 1 and self.quality is not None:
            raise ValueError("quality: there is none in format 1")
        if self.format < 3 and self.network is not None:
            raise ValueError(f"network: there is none in format {self.format}")
        if self.network and self.network.vocabulary != VOCABULARY:
            raise ValueError("network: it was trained on another vocabulary than this version has")
        return self

    @property
    def tensors(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Name -> dtype and shape of what the file holds besides."""
        classes = len(self.classes)
        found: dict[str, tuple[type, tuple[int, ...]]] = {
            "weights": (np.float32, (1 << self.hashing.bits, classes)),
            "bias": (np.float32, (classes,)),
        }
        if network := self.network:
            responses = len(WIDTHS) * network.filters
            found |= {
                f"{_NETWORK}vectors": (np.int8, (SIZE, network.width)),
                f"{_NETWORK}scales": (np.float32, (SIZE,)),
                f"{_NETWORK}filters": (np.float32, (network.width, ROWS, network.filters)),
                f"{_NETWORK}shift": (np.float32, (responses,)),
                f"{_NETWORK}output": (np.float32, (responses, classes)),
            }
        return found


def router_bytes(router: Router) -> bytes:
    """The file's content; the same router always gives the same bytes.

    Raises:
        InputError: it would be larger than a router file may be.
    """
    metadata = _Metadata(
        classes=router.classes,
        default=router.default,
        taxonomy=router.taxonomy,
        temperature=router.temperature,
        threshold=router.threshold,
        training=_Training(**asdict(router.training)),
        hashing=_Hashing(**asdict(router.hashing)),
        quality=None if router.quality is None else _Quality(**asdict(router.quality)),
        network=_shapes(router.network),
    )
    # One key alone: safetensors does not promise an order of several.
    text = json.dumps(metadata.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    tensors = {"weights": router.weights, "bias": router.bias, **_named(router.network)}
    content: bytes = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {_KEY: text})
    if len(content) > MOST_BYTES:
        raise InputError(f"the router takes {len(content):,} bytes, more than {MOST_BYTES:,}; hash into fewer bits")
    return content


def read_router(content: bytes, name: str) -> Router:
    """The router that a file holds.

    Args:
        content: the file's bytes.
        name: what the file is called in messages.

    Raises:
        ArtifactError: it is damaged, too large, of an unknown format or hash, holds other tensors, dtypes or shapes
            than its own metadata says, or numbers that are not finite.
    """
    if len(content) > MOST_BYTES:
        raise ArtifactError(f"{name} is larger than the {MOST_BYTES:,} bytes of a router; {_AGAIN}")
    metadata = _metadata(content, name)
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{name} cannot be read as safetensors ({error}); {_AGAIN}") from error
    if set(tensors) != set(metadata.tensors):
        raise ArtifactError(
            f"{name} holds {', '.join(sorted(tensors)) or 'nothing'}; expected {', '.join(sorted(metadata.tensors))}; "
            f"{_AGAIN}"
        )
    for key, (kind, shape) in metadata.tensors.items():
        tensor = tensors[key]
        if tensor.dtype != kind or tensor.shape != shape:
            raise ArtifactError(
                f"{name}: {key} is {tensor.dtype} of shape {tensor.shape}; its metadata speak of {kind.__name__} and "
                f"{shape}; {_AGAIN}"
            )
        if not bool(np.isfinite(tensor).all()):
            raise ArtifactError(f"{name}: {key} holds numbers that are not finite; {_AGAIN}")
        if tensor.dtype == np.float32 and float(np.abs(tensor).max(initial=0)) > _LARGEST:
            raise ArtifactError(f"{name}: {key} holds numbers beyond {_LARGEST:g}; {_AGAIN}")
    network = {key.removeprefix(_NETWORK): tensor for key, tensor in tensors.items() if key.startswith(_NETWORK)}
    return Router(
        metadata.classes,
        metadata.default,
        metadata.taxonomy,
        tensors["weights"],
        tensors["bias"],
        metadata.temperature,
        metadata.threshold,
        RouterTraining(**metadata.training.model_dump()),
        Hashing(**metadata.hashing.model_dump()),
        WordNetwork(**network) if network else None,
        None if metadata.quality is None else metadata.quality.read,
        name,
    )


def write_router(router: Router, path: Path) -> None:
    """Write a router file, whole or not at all.

    Raises:
        InputError: it would be too large, or the place cannot be written to.
    """
    content = router_bytes(router)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write the router to {path} ({error}); give another place") from error


def load_router(path: Path) -> Router:
    """Read a router file.

    Raises:
        InputError: it cannot be read, or is too large.
        ArtifactError: see `read_router`.
    """
    if not path.exists():
        raise InputError(f"there is no router {path}; train one with `clasp-calib train-router`")
    return read_router(read_given(path, MOST_BYTES, "router", advice=_AGAIN), str(path))


def _shapes(network: WordNetwork | None) -> _Network | None:
    return None if network is None else _Network(width=network.filters.shape[0], filters=network.filters.shape[2])


def _named(network: WordNetwork | None) -> dict[str, NDArray[Any]]:
    return {} if network is None else {_NETWORK + name: tensor for name, tensor in vars(network).items()}


def _metadata(content: bytes, name: str) -> _Metadata:
    """The JSON in the file's header, which safetensors itself gives only of files that lie on a disk."""
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 2 <= size <= min(_HEADER_BYTES, len(content) - 8):
        raise ArtifactError(f"{name} cannot be read as safetensors (its header is cut off or too large); {_AGAIN}")
    try:
        told = strict_json(strict_json(content[8 : 8 + size])["__metadata__"][_KEY].encode())
        found = told.get("format")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{name} has no metadata {_KEY!r} in JSON ({error}); {_AGAIN}") from error
    if found not in range(1, FORMAT + 1) or not isinstance(found, int) or isinstance(found, bool):
        raise ArtifactError(
            f"{name} is a router of format {found!r:.40}; this version of clasp-calib reads formats 1 to {FORMAT}"
        )
    if found == 2 and isinstance(quality := told.get("quality"), dict) and "without" not in quality:
        told["quality"] = {("without" if key == "rules" else key): value for key, value in quality.items()}
    try:
        return _Metadata.model_validate_json(json.dumps(told), strict=True)
    except ValidationError as error:
        if any(place in ("normalisation", "version") for place in error.errors()[0]["loc"]):
            raise ArtifactError(
                f"{name} was trained with other n-grams (this version has normalisation {NORMALISATION} and hash "
                f"{VERSION}); {_AGAIN}"
            ) from error
        raise ArtifactError(f"{name} does not follow its format: {describe(error)}; {_AGAIN}") from error
