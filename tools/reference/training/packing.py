"""Many questions about one picture in one sequence.

The picture's tokens come first, once; every question attends to them and to itself, never to another question, and
counts its positions as if it stood alone. So one forward trains sixteen questions, each exactly as it will be asked.
Shapes: B pictures, Q questions of each, T tokens of a question, A tokens before the questions, H heads, d head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedTokenizerFast

from clasp_calib.reference.model import PROMPT
from clasp_calib.reference.questions import Question
from clasp_calib.reference.vocabulary import GRID
from tools.reference.shape import BOS, EOS, PAD
from tools.reference.supervision import covered, middle

IGNORE = -100
HINTED = 6
"""How many positions before the answer are asked for it too (the auxiliary loss)."""
ROUND = 4
"""Questions are filled up to a multiple of this length, so that few shapes occur."""
ATTENTION = "packed_questions"
TALLIED = ("present", "count_kind", "count_color", "more", "length")
"""Families that ask how many there are."""
UNGUIDED = ("counting", "scene")
"""Classes whose questions no scoring layer is told where to look for: what covers the picture must answer them."""


@dataclass(frozen=True)
class Pack:
    """Questions padded on the right; ``targets`` and ``hints`` are -100 where nothing is asked for."""

    questions: Sequence[Sequence[Question]]
    ids_BQT: Tensor
    targets_BQT: Tensor
    hints_BQT: Tensor
    prompt_BQT: Tensor
    """bool: the tokens before the answer."""
    asked_BQ: Tensor
    """Position of the last token before the answer."""
    evidence_BQN: Tensor
    """bool, of all patches: those that show the answer."""
    counted_BQN: Tensor
    """bool: the middle of each thing that has to be counted."""
    guided_BQ: Tensor
    """bool: whether scoring layers learn to find the evidence."""
    tallied_BQ: Tensor
    """bool: whether things have to be counted."""


class Packer:
    """Turns questions into packs with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._encoder = tokenizer.backend_tokenizer
        self._known: dict[str, list[int]] = {}
        self._space = self._ids(" 4")[0]
        before, self._after = PROMPT.split("<image>")
        self.prefix = [BOS, *self._ids(before)]

    def _ids(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self._known[text] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def _encode(self, question: Question) -> tuple[list[int], list[int]]:
        return self._ids(self._after.format(question=question.text)), [*self._ids(f" {question.answer}"), EOS]

    def pack(self, rows: Sequence[Sequence[Question]], grid: tuple[int, int] = (GRID, GRID)) -> Pack:
        """Pack the same number of questions about each picture of a grid of patches."""
        encoded = [[self._encode(question) for question in row] for row in rows]
        longest = max(len(prompt) + len(answer) for row in encoded for prompt, answer in row)
        shape = (len(rows), len(rows[0]), -(-longest // ROUND) * ROUND)
        ids, targets, hints = (np.full(shape, value) for value in (PAD, IGNORE, IGNORE))
        asked = np.zeros(shape[:2], np.int64)
        evidence, counted = (np.zeros((*shape[:2], *grid), bool) for _ in range(2))
        for b, row in enumerate(encoded):
            for q, (prompt, answer) in enumerate(row):
                last, end = len(prompt) - 1, len(prompt) + len(answer)
                ids[b, q, :end] = prompt + answer
                targets[b, q, last : end - 1] = answer
                hints[b, q, last - HINTED : last] = answer[1] if answer[0] == self._space else answer[0]
                asked[b, q] = last
                for box in rows[b][q].evidence:
                    evidence[(b, q, *covered(box))] = True
                    counted[(b, q, *middle(box))] = True
        tallied = np.array([[question.family in TALLIED for question in row] for row in rows])
        guided = np.array([[q.label not in UNGUIDED and bool(q.evidence) for q in row] for row in rows])
        prompts = np.arange(shape[2]) <= asked[..., None]
        flat = [part.reshape(*shape[:2], -1) for part in (evidence, counted)]
        return Pack(
            rows, *(torch.from_numpy(part) for part in (ids, targets, hints, prompts, asked, *flat, guided, tallied))
        )


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    packed: tuple[int, int],
    watch: list[Tensor] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention in which Q questions of T tokens share what stands before them and nothing else.

    Padding needs no mask: it stands last in its question, and nothing attends to what comes later.

    Args:
        module: the attention layer.
        query: ``[B, H, A + Q T, d]``, and so ``key`` and ``value``.
        key: see ``query``.
        value: see ``query``.
        attention_mask: unused.
        scaling: of the scores.
        packed: ``(Q, T)``.
        watch: gets what questions attend to before them, mean over heads, ``[B, Q, T, A]``.

    Returns:
        ``[B, A + Q T, H, d]``, and no attention weights.
    """
    questions, length = packed
    shared = query.shape[2] - questions * length
    query = query * scaling

    def future(size: int) -> Tensor:
        return torch.full((size, size), float("-inf"), dtype=query.dtype, device=query.device).triu(1)

    before = slice(None, shared)
    scores = query[:, :, before] @ key[:, :, before].mT + future(shared)
    first = scores.softmax(-1) @ value[:, :, before]

    def by_question(flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:2], questions, length, flat.shape[-1])

    asked = [by_question(t[:, :, shared:]) for t in (query, key, value)]
    outer = by_question(query[:, :, shared:] @ key[:, :, before].mT)
    inner = asked[0] @ asked[1].mT + future(length)
    weights = torch.cat([outer, inner], -1).softmax(-1)
    if watch is not None:
        watch.append(weights[..., :shared].float().mean(1))
    seen = weights[..., :shared].flatten(2, 3) @ value[:, :, before]
    own = (weights[..., shared:] @ asked[2]).flatten(2, 3)
    return torch.cat([first, seen + own], 2).transpose(1, 2), None


def scoring_attention(query: Tensor, key: Tensor, scaling: float, packed: tuple[int, int]) -> Tensor:
    """What questions attend to before them in a layer that only scores, mean over heads, ``[B, Q, T, A]`` float32.

    Args:
        query: of the questions, ``[B, H, Q T, d]``.
        key: of everything, ``[B, H, A + Q T, d]``.
        scaling: of the scores.
        packed: ``(Q, T)``.
    """
    questions, length = packed
    shared = key.shape[2] - questions * length
    query = query * scaling

    def by_question(flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:2], questions, length, flat.shape[-1])

    future = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    inner = by_question(query) @ by_question(key[:, :, shared:]).mT + future
    outer = by_question(query @ key[:, :, :shared].mT)
    return torch.cat([outer, inner], -1).softmax(-1)[..., :shared].float().mean(1)


AttentionInterface.register(ATTENTION, packed_attention)
