"""What a step of the decoder sees: some patches of pictures, and packed questions with all that is known of them.

Shapes: B pictures, N visual tokens, L mixed vision layers, Q questions of T tokens, A tokens before the picture.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clasp_calib.reference.questions import Question
from clasp_calib.reference.scenes import Scene
from clasp_calib.reference.vocabulary import GRID
from tools.reference.supervision import KIND
from tools.reference.training.corpus import Corpus
from tools.reference.training.packing import IGNORE, Pack, Packer
from tools.reference.training.stepwise import Steps, draws
from tools.reference.training.tower import USED_LAYER, at

ALL = GRID * GRID
QUESTIONS = 16
LAYERS = (1, 3, USED_LAYER)
"""Vision layers that are mixed in training; the last is the model's own."""
OWN = (0.0, 0.0, 1.0)


class Seen(NamedTuple):
    """Patches of pictures: indices into the corpus, places on the grid, what they show, and weights of `LAYERS`.

    ``grid_2`` has the rows and columns of the grid, which all pictures share.
    """

    pictures_B: Tensor
    chosen_BN: Tensor
    labels_BNF: Tensor
    mixture_BL: Tensor
    grid_2: Tensor


class Batch(NamedTuple):
    """One step.

    Positions are flat: of questions among ``B Q``, of tokens among ``B Q T``. All sizes are rounded up, so that few
    shapes occur; what fills them up is at position 0 and asks for nothing.
    """

    seen: Seen
    ids_BQT: Tensor
    prompt_BQT: Tensor
    """bool: the tokens before the answer."""
    heard_BQT: Tensor
    """bool: half of these, drawn anew each time, and always the last."""
    answered_K: Tensor
    """Positions of the tokens before those of an answer."""
    answers_K: Tensor
    hinted_H: Tensor
    """Positions that are asked for the answer early."""
    hints_H: Tensor
    found_E: Tensor
    """Positions of the questions whose evidence the scoring layers learn to find,"""
    evidence_EN: Tensor
    """bool: and which of the chosen patches it is."""
    target_KS: Tensor
    """bool: where the tokens before an answer are told to look, among the tokens before the picture and the chosen
    patches: at the evidence; where things are counted, at the middle of each, and at the first token of all, so that
    the share says how many there are; nowhere if that is not known."""


class Query(NamedTuple):
    """Questions about a picture, and the mixture that it is seen through."""

    questions: Sequence[Question]
    mixture: Sequence[float]


Ask = Callable[[Scene, random.Random], Query]
Counts = Callable[[random.Random], tuple[int, int]]
"""Pictures of a batch, and visual tokens of each."""


class Batches(Steps[Batch]):
    """Batches about a corpus."""

    def __init__(self, corpus: Corpus, packer: Packer, counts: Counts, ask: Ask, seed: int, many: int = 1):
        """
        Args:
            corpus: scenes to ask about.
            packer: of the tokenizer.
            counts: draws the size of a batch.
            ask: `QUESTIONS` about a scene.
            seed: of the stage.
            many: times as many pictures.
        """
        self._corpus, self._packer, self._seed = corpus, packer, seed
        self._counts, self._ask, self._many = counts, ask, many

    def __getitem__(self, step: int) -> Batch:
        """Draw pictures, questions and patches."""
        rng, generator = draws(self._seed, step)
        pictures, count = self._counts(rng)
        indices = rng.sample(range(self._corpus.size), self._many * pictures)
        queries = [self._ask(self._corpus.scene(index), rng) for index in indices]
        return make_batch(self._corpus, indices, self._packer, queries, count, generator)


def make_batch(
    corpus: Corpus,
    indices: Sequence[int],
    packer: Packer,
    queries: Sequence[Query],
    count: int,
    generator: torch.Generator,
) -> Batch:
    """A batch of questions about pictures of a corpus, with ``count`` visual tokens, or as many as there are."""
    pack, labels = packer.pack([query.questions for query in queries], corpus.grid), corpus.labels(indices)
    batch, questions, length = pack.ids_BQT.shape
    every = labels.shape[1]
    chosen = torch.arange(every).expand(batch, -1)
    if count < every:
        chosen = choose_tokens(pack, labels, count, generator)
    heard = pack.prompt_BQT & (torch.rand(pack.prompt_BQT.shape, generator=generator) < 0.5)
    places = chosen[:, None].expand(-1, questions, -1)
    evidence, counted = pack.evidence_BQN.gather(2, places), pack.counted_BQN.gather(2, places)
    first = torch.zeros((batch, questions, len(packer.prefix)), dtype=torch.bool)
    first[..., 0] = pack.tallied_BQ
    target = torch.cat([first, torch.where(pack.tallied_BQ[..., None], counted, evidence)], -1).flatten(0, 1)
    found = (pack.guided_BQ & evidence.any(-1)).flatten().nonzero()[:, 0]
    answered, hinted = ((t != IGNORE).flatten().nonzero()[:, 0] for t in (pack.targets_BQT, pack.hints_BQT))
    asked, half = batch * questions, batch * questions // 2
    mixtures = torch.tensor([query.mixture for query in queries])
    return Batch(
        Seen(torch.tensor(indices), chosen, at(labels, chosen), mixtures, torch.tensor(corpus.grid)),
        pack.ids_BQT,
        pack.prompt_BQT,
        heard | (torch.arange(length) == pack.asked_BQ[..., None]),
        _filled(answered, half, 0),
        _filled(pack.targets_BQT.flatten()[answered], half, IGNORE),
        _filled(hinted, asked, 0),
        _filled(pack.hints_BQT.flatten()[hinted], asked, IGNORE),
        _filled(found, asked, 0),
        _filled(evidence.flatten(0, 1)[found], asked, 0),
        _filled(target[answered // length], half, 0),
    )


def _filled(rows: Tensor, multiple: int, value: int) -> Tensor:
    """Rows of ``value`` added, up to a multiple of a number that is not 0."""
    missing = -len(rows) % multiple if len(rows) else multiple
    return torch.cat([rows, rows.new_full((missing, *rows.shape[1:]), value)])


def choose_tokens(
    pack: Pack, labels_BNF: Tensor, count: int, generator: torch.Generator, background: int = 8
) -> Tensor:
    """Indices ``[B, count]`` in grid order: evidence first, then the foreground, and always some background."""
    noise = torch.rand(labels_BNF.shape[:2], generator=generator)
    shown = (labels_BNF[..., KIND] > 0).float()
    wanted = pack.evidence_BQN.any(1).float() + pack.counted_BQN.any(1).float()
    order = noise + shown + 2 * wanted
    first = order.topk(count - background, 1).indices
    rest = (noise - 5 * shown).scatter(1, first, -9.0)
    return torch.cat([first, rest.topk(background, 1).indices], 1).sort(1).values
