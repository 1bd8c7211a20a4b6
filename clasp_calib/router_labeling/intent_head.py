"""A linear head on a sentence embedding and on n-grams, with the rules' vote: how probable each intent is."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import Count, Hash, Name, Share, Strict, describe
from clasp_calib.common.given_files import read_given
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.replacing import replaced
from clasp_calib.common.strict_json import strict_json
from clasp_calib.router_labeling.ngrams import Hashing, features
from clasp_calib.router_labeling.router import softmax
from clasp_calib.router_labeling.taxonomy import Taxonomy

MOST_BYTES = 20_000_000
NO_VOTE = -1
"""The place of an intent that no rule named."""
_KINDS = {"weights": np.float32, "ngram_weights": np.float16, "bias": np.float32}
"""Tensors of the file."""
_AGAIN = "train it with `clasp-calib train-labeler`"


@dataclass(frozen=True)
class HeadQuality:
    """How a head does on questions that it was not fitted to: near-duplicates of them were left out too."""

    questions: int
    accuracy: float
    """Share whose class is right."""
    macro: float
    """Mean over the classes that occur of the share of their questions that is right."""
    calibration_error: float
    """Expected calibration error of the class's probability, in [0, 1]."""


@dataclass(frozen=True)
class IntentHead:
    """``softmax(logits / temperature)``, and a share of the rules' vote.

    Logits are ``embedding @ weights + (sum of ngram_weights[b] over the different buckets b) / sqrt(their number) +
    bias``, buckets as in `ngrams.features`. The embedding knows meanings, the n-grams know how questions are built.
    """

    intents: tuple[str, ...]
    taxonomy: str
    """Hex sha256 of the taxonomy that has them."""
    embedder: str
    """`Embedder.identity` of the vectors that it was fitted to."""
    weights: NDArray[np.float32]
    """``[width, intents]``"""
    ngram_weights: NDArray[np.float16]
    """``[2**hashing.bits, intents]``"""
    bias: NDArray[np.float32]
    """``[intents]``"""
    temperature: float
    rules_weight: float
    """In [0, 1): what the intent of the first keyword rule that matches has of the probability."""
    rules: str
    """Hex sha256 of the keyword rules that the weight was found for."""
    questions: int
    """That it was fitted to."""
    quality: HeadQuality
    hashing: Hashing = field(default_factory=Hashing)

    def probabilities(
        self, questions: Sequence[str], embeddings: NDArray[np.float32], votes: Sequence[int]
    ) -> NDArray[np.float64]:
        """``[questions, intents]``

        Args:
            questions: texts.
            embeddings: ``[questions, width]``, of them.
            votes: of each question the place of the intent that the rules name, or `NO_VOTE`.

        Raises:
            InputError: the embeddings have another width than those that the head was fitted to.
        """
        if embeddings.shape[1] != len(self.weights):
            raise InputError(
                f"the labeler's head is for embeddings {len(self.weights)} wide, and is given some "
                f"{embeddings.shape[1]} wide; {_AGAIN}"
            )
        buckets = [features(question, self.hashing) for question in questions]
        sums = [self.ngram_weights[found].astype(np.float32).sum(0) / np.sqrt(max(1, len(found))) for found in buckets]
        logits = embeddings @ self.weights + np.array(sums, np.float32).reshape(-1, len(self.bias)) + self.bias
        return mixed(logits, self.temperature, votes, self.rules_weight)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of everything that decides a label."""
        arrays = (self.weights, self.ngram_weights, self.bias)
        return sha256_json(
            [_metadata(self).model_dump(mode="json"), *(sha256(a.tobytes()).hexdigest() for a in arrays)]
        )


def mixed(logits: NDArray[np.floating], temperature: float, votes: Sequence[int], weight: float) -> NDArray[np.float64]:
    """``[questions, intents]``: probabilities, of which a vote has ``weight``; without a vote they are the softmax's.

    Args:
        logits: ``[questions, intents]``.
        temperature: divides them.
        votes: as `IntentHead.probabilities` takes them.
        weight: in [0, 1).
    """
    found = softmax(logits, temperature)
    named = np.asarray(votes, np.int64)
    rows = np.flatnonzero(named != NO_VOTE)
    found[rows] *= 1 - weight
    found[rows, named[rows]] += weight
    return found


def class_probabilities(
    probabilities: NDArray[np.float64], intents: Sequence[str], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """``[questions, classes]``: the sum over the intents of each class, in the taxonomy's order."""
    places = [taxonomy.classes.index(taxonomy.class_of(intent)) for intent in intents]
    found = np.zeros((len(probabilities), len(taxonomy.classes)))
    np.add.at(found.T, places, probabilities.T)
    return found


class _Quality(Strict):
    questions: Count
    accuracy: Share
    macro: Share
    calibration_error: Share


_Length = Annotated[int, Field(ge=1, le=8)]


class _Hashing(Strict):
    bits: int = Field(ge=1, le=18)
    words: tuple[_Length, ...] = Field(max_length=8)
    characters: tuple[_Length, ...] = Field(max_length=8)
    normalisation: Literal[1]
    version: Literal[1]


class _Metadata(Strict):
    """The JSON under the metadata's key ``head``."""

    format: Literal[1] = 1
    intents: tuple[Name, ...] = Field(min_length=2, max_length=1000)
    taxonomy: Hash
    embedder: str = Field(max_length=4096)
    temperature: float = Field(gt=0, le=1e6)
    rules_weight: float = Field(ge=0, lt=1)
    rules: Hash
    questions: Count = Field(ge=1)
    quality: _Quality
    hashing: _Hashing


def write_head(head: IntentHead, path: Path) -> None:
    """Write a head's file, whole or not at all; the same head always gives the same bytes.

    Raises:
        InputError: the place cannot be written to.
    """
    text = json.dumps(_metadata(head).model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    content = save({name: np.ascontiguousarray(getattr(head, name)) for name in _KINDS}, {"head": text})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write the head to {path} ({error}); give another place") from error


def load_head(path: Path) -> IntentHead:
    """Read a head's file. What is in it is not executed.

    Raises:
        InputError: it cannot be read, is damaged, or holds other tensors, dtypes or shapes than its metadata say, or
            numbers that are not finite.
    """
    content = read_given(path, MOST_BYTES, "labeler's head", advice=_AGAIN)
    try:
        size = int.from_bytes(content[:8], "little")
        tensors = load(content)
        told = strict_json(content[8 : 8 + size])["__metadata__"]["head"]
        metadata = _Metadata.model_validate_json(told, strict=True)
    except ValidationError as error:
        raise InputError(
            f"{path} does not follow the format of a labeler's head: {describe(error)}; {_AGAIN}"
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no labeler's head ({type(error).__name__}: {error}); {_AGAIN}") from error
    count = len(metadata.intents)
    shapes = {"weights": (None, count), "ngram_weights": (1 << metadata.hashing.bits, count), "bias": (count,)}
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if (
            tensor is None
            or tensor.dtype != _KINDS[name]
            or len(tensor.shape) != len(shape)
            or any(wanted not in (None, given) for wanted, given in zip(shape, tensor.shape, strict=True))
            or not np.isfinite(tensor).all()
        ):
            raise InputError(f"{path} has no {name} of finite {_KINDS[name]} in the shape {shape}; {_AGAIN}")
    fields = metadata.model_dump(exclude={"format", "quality", "hashing"})
    quality, hashing = HeadQuality(**metadata.quality.model_dump()), Hashing(**metadata.hashing.model_dump())
    return IntentHead(**fields, **{name: tensors[name] for name in _KINDS}, quality=quality, hashing=hashing)


def _metadata(head: IntentHead) -> _Metadata:
    return _Metadata(
        **{
            name: value
            for name, value in vars(head).items()
            if name in _Metadata.model_fields and name not in ("quality", "hashing")
        },
        quality=_Quality(**asdict(head.quality)),
        hashing=_Hashing(**asdict(head.hashing)),
    )
