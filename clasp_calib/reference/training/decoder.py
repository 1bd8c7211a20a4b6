"""The decoder: first trained on oracle tokens that name what a patch shows, then on what the tower really sees.

Shapes: B pictures, N visual tokens of 576, Q questions of T tokens, D width.
"""

import math
import random
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from clasp_calib.reference.model import TRAINED_BLOCKS, WIDTH, text_config
from clasp_calib.reference.questions import Question, balanced, questions_about
from clasp_calib.reference.supervision import CENTER, FIELDS, KIND
from clasp_calib.reference.training.corpus import Corpus
from clasp_calib.reference.training.optimizer import MasterAdamW
from clasp_calib.reference.training.packing import ATTENTION, IGNORE, Pack, Packer
from clasp_calib.reference.training.tower import sinusoids
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    GRID,
    KINDS,
    PLACES,
    PURPOSES,
    SIZES,
    TIMES,
    WORDS,
    plural,
)

ALL = GRID * GRID
QUESTIONS = 16
CODES = (*(f.values for f in FIELDS), len(PLACES), len(TIMES))
_NAMES: tuple[tuple[str | None, ...], ...] = (
    (None, *KINDS, "sign", "person", "arrow"),
    tuple(COLORS),
    SIZES,
    (None, None),
    WORDS,
    tuple("0123456789"),
    tuple("0123456789"),
    ACTIONS,
    PLACES,
    TIMES,
)


def make_decoder(vocabulary: int) -> LlamaForCausalLM:
    """An untrained decoder of the trained blocks only.

    Keys start near queries, and outputs near the transpose of values: what is alike attends to what is alike, and is
    copied, from the first step on (mimetic initialisation, Trockman & Kolter 2023, https://arxiv.org/abs/2305.09828).
    """
    decoder = LlamaForCausalLM(text_config(vocabulary, len(TRAINED_BLOCKS)))
    decoder.set_attn_implementation(ATTENTION)
    scale = 1 / math.sqrt(2 * len(TRAINED_BLOCKS))
    with torch.no_grad():
        nn.init.normal_(decoder.model.embed_tokens.weight, std=WIDTH**-0.5)
        for layer in decoder.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            inputs = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
            for linear in inputs:
                nn.init.normal_(linear.weight, std=WIDTH**-0.5)
            attention.k_proj.weight.mul_(0.3).add_(attention.q_proj.weight)
            nn.init.normal_(attention.o_proj.weight, std=0.5 * scale * WIDTH**-0.5)
            attention.o_proj.weight.add_(0.7 * attention.v_proj.weight.T)
            nn.init.normal_(mlp.down_proj.weight, std=scale * mlp.down_proj.in_features**-0.5)
    return decoder


class Oracle(nn.Module):
    """Embeds the labels of a patch as the projector should: a sum over its properties, and its place on the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(sum(CODES) + len(CODES), WIDTH)
        nn.init.normal_(self.codes.weight, std=0.2 * WIDTH**-0.5)
        self.position = nn.Linear(WIDTH, WIDTH, bias=False)
        self.grid: Tensor
        self.register_buffer("grid", sinusoids())
        self.offsets: Tensor
        sizes = torch.tensor([0, *(c + 1 for c in CODES[:-1])])
        self.register_buffer("offsets", sizes.cumsum(0))

    def forward(self, labels_BNF: Tensor, surroundings_B2: Tensor, chosen_BN: Tensor) -> Tensor:
        """Tokens ``[B, N, D]`` of patches with these labels; only background shows the surroundings."""
        background = labels_BNF[..., KIND : KIND + 1] == 0
        around = surroundings_B2[:, None].expand(-1, labels_BNF.shape[1], -1).where(background, -1)
        codes = torch.cat([labels_BNF, around], -1) + 1 + self.offsets
        places = self.position(self.grid.to(self.position.weight.dtype))
        embedded: Tensor = self.codes(codes).sum(-2) + places[chosen_BN]
        return embedded

    @torch.no_grad()
    def speak(self, decoder: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        """Start every label at the embedding of its name, and words of one idea near each other."""
        words = decoder.model.embed_tokens.weight

        def word(text: str) -> int:
            token: int = tokenizer(" " + text, add_special_tokens=False).input_ids[-1]
            return token

        for field, names in enumerate(_NAMES):
            for value, name in enumerate(names):
                if name is not None:
                    self.codes.weight[self.offsets[field] + 1 + value] += words[word(name)]
        for kind in KINDS:
            for related, share in ((plural(kind), 0.8), (PURPOSES[kind], 0.5)):
                if word(related) != word(kind):
                    words[word(related)] = 0.5 * words[word(related)] + share * words[word(kind)]


def choose_tokens(labels_BNF: Tensor, count: int, background: int = 6) -> Tensor:
    """Indices ``[B, count]`` in grid order: centres first, then the foreground, and always some background."""
    noise = torch.rand(labels_BNF.shape[:2])
    shown = (labels_BNF[..., KIND] > 0).float()
    order = noise + 2 * shown + 2 * (labels_BNF[..., CENTER] > 0).float()
    first = order.topk(count - background, 1).indices
    rest = (noise - 5 * shown).scatter(1, first, -9.0)
    return torch.cat([first, rest.topk(background, 1).indices], 1).sort(1).values


Vision = Callable[[list[int], Tensor], Tensor]
"""Pictures' indices and chosen patches ``[B, N]`` to visual tokens ``[B, N, D]``."""


def run(decoder: LlamaForCausalLM, packer: Packer, pack: Pack, visual_BND: Tensor, chosen_BN: Tensor) -> Tensor:
    """Hidden states of the questions ``[B, Q, T, D]`` after the last norm.

    Visual tokens keep the position that they have among all 576, as pruning with ``positions="keep"`` leaves it.
    """
    batch, questions, length = pack.ids_BQT.shape
    embed, start = decoder.model.embed_tokens, len(packer.prefix)
    prefix = embed(torch.tensor(packer.prefix)).expand(batch, -1, -1)
    inputs = torch.cat([prefix, visual_BND, embed(pack.ids_BQT.flatten(1))], 1)
    text = (start + ALL + torch.arange(length)).repeat(questions).expand(batch, -1)
    positions = torch.cat([torch.arange(start).expand(batch, -1), start + chosen_BN, text], 1)
    output = decoder.model(inputs_embeds=inputs, position_ids=positions, use_cache=False, packed=(questions, length))
    states: Tensor = output.last_hidden_state[:, -questions * length :]
    return states.reshape(batch, questions, length, -1)


def train_decoder(
    decoder: LlamaForCausalLM,
    packer: Packer,
    vision: Vision,
    trained: list[nn.Parameter],
    corpus: Corpus,
    token_counts: Callable[[random.Random, float], tuple[int, int]],
    steps: int,
    rate: float,
    seed: int,
) -> Iterator[tuple[int, float]]:
    """Train on answers (and hints of them), yielding (step, loss of the answers).

    Args:
        decoder: the decoder.
        packer: its tokenizer's packer.
        vision: where visual tokens come from.
        trained: all parameters to train.
        corpus: scenes to ask about.
        token_counts: of a random generator and the progress in [0, 1]: pictures in the batch, visual tokens of each.
        steps: how many.
        rate: peak learning rate.
        seed: of the choice of pictures and questions.
    """
    rng = random.Random(seed)
    optimizer = MasterAdamW(trained, rate, steps)
    for step in range(steps):
        batch, count = token_counts(rng, step / steps)
        indices = rng.sample(range(corpus.size), batch)
        pack = packer.pack([_questions(corpus, i, rng) for i in indices])
        chosen = torch.arange(ALL).expand(batch, -1) if count == ALL else choose_tokens(corpus.labels[indices], count)
        states = run(decoder, packer, pack, vision(indices, chosen), chosen)
        losses = [
            F.cross_entropy(decoder.lm_head(states[wanted != IGNORE]).float(), wanted[wanted != IGNORE])
            for wanted in (pack.targets_BQT, pack.hints_BQT)
        ]
        torch.autograd.backward(losses)
        optimizer.step(step)
        yield step, losses[0].item()


def _questions(corpus: Corpus, index: int, rng: random.Random) -> list[Question]:
    return balanced(questions_about(corpus.scenes[index], rng), QUESTIONS, rng)


@torch.no_grad()
def accuracy(
    decoder: LlamaForCausalLM, packer: Packer, vision: Vision, corpus: Corpus, count: int = ALL, seed: int = 7
) -> dict[str, float]:
    """Share of answers that are right to the last token, by class and on average (``macro``)."""
    rng = random.Random(seed)
    right: dict[str, list[bool]] = {}
    for first in range(0, corpus.size, 10):
        indices = list(range(first, min(first + 10, corpus.size)))
        pack = packer.pack([_questions(corpus, i, rng) for i in indices])
        chosen = (
            torch.arange(ALL).expand(len(indices), -1) if count == ALL else choose_tokens(corpus.labels[indices], count)
        )
        states = run(decoder, packer, pack, vision(indices, chosen), chosen)
        best = decoder.lm_head(states).argmax(-1)
        hits = ((best == pack.targets_BQT) | (pack.targets_BQT == IGNORE)).all(-1).tolist()
        for questions, row in zip(pack.questions, hits, strict=True):
            for question, hit in zip(questions, row, strict=True):
                right.setdefault(question.label, []).append(hit)
    scores = {label: sum(hits) / len(hits) for label, hits in right.items()}
    return {**scores, "macro": sum(scores.values()) / len(scores)}
