"""The decoder: first trained on oracle tokens that name what a patch shows, then on what the tower really sees.

Shapes: B pictures, N visual tokens, Q questions of T tokens, D width.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from clasp_calib.reference.families import HELD_OUT
from clasp_calib.reference.questions import questions_about
from clasp_calib.reference.scenes import Scene
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    GRID,
    KINDS,
    PATTERNS,
    PLACES,
    PURPOSES,
    SIZES,
    TIMES,
    WEATHERS,
    plural,
)
from tools.reference.shape import BLOCKS, DEFAULT, Size, text_config
from tools.reference.supervision import FIELDS, LETTERS
from tools.reference.training.batches import ALL, OWN, QUESTIONS, Batch, Query, Seen, make_batch
from tools.reference.training.capture import launched_at_once
from tools.reference.training.corpus import Corpus, balanced
from tools.reference.training.optimizer import MasterAdamW
from tools.reference.training.packing import ATTENTION, IGNORE, Packer, scoring_attention
from tools.reference.training.stepwise import to_device

GUIDED = 2
"""So many of the first reading blocks are told where to look."""
SCORING, READING, LISTENING = 0.2, 0.2, 0.3
"""Weights of the attention losses."""
CODES = tuple(f.values for f in FIELDS)
_NAMES: tuple[tuple[str | None, ...], ...] = (
    (None, *KINDS, "sign", "plate", "person", "arrow", None, None),
    tuple(COLORS),
    SIZES,
    (None, None),
    (None,) * 4,
    ACTIONS,
    PLACES,
    TIMES,
    WEATHERS,
    PATTERNS,
    tuple(LETTERS),
    tuple("0123456789"),
    tuple("0123456789"),
)


def make_decoder(vocabulary: int, size: Size = DEFAULT) -> LlamaForCausalLM:
    """An untrained decoder of the trained blocks only.

    Keys start near queries, and outputs near the transpose of values: what is alike attends to what is alike, and is
    copied, from the first step on (mimetic initialisation, Trockman & Kolter 2023, https://arxiv.org/abs/2305.09828).
    """
    decoder = LlamaForCausalLM(text_config(vocabulary, len(BLOCKS), size))
    spread = size.width**-0.5
    decoder.set_attn_implementation(ATTENTION)
    scale = 1 / math.sqrt(2 * sum(block.role != "score" for block in BLOCKS))
    with torch.no_grad():
        nn.init.normal_(decoder.model.embed_tokens.weight, std=spread)
        for layer in decoder.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            inputs = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
            for linear in inputs:
                nn.init.normal_(linear.weight, std=spread)
            attention.k_proj.weight.mul_(0.3).add_(attention.q_proj.weight)
            nn.init.normal_(attention.o_proj.weight, std=0.5 * scale * spread)
            attention.o_proj.weight.add_(0.7 * attention.v_proj.weight.T)
            nn.init.normal_(mlp.down_proj.weight, std=scale * mlp.down_proj.in_features**-0.5)
    return decoder


class Oracle(nn.Module):
    """Embeds the labels of a patch as the projector should: a sum over its properties, and its place on the grid."""

    def __init__(self, width: int = DEFAULT.width) -> None:
        super().__init__()
        self.codes = nn.Embedding(sum(CODES) + len(CODES), width)
        self.rows = nn.Embedding(GRID, width)
        self.columns = nn.Embedding(GRID, width)
        nn.init.normal_(self.codes.weight, std=0.2 * width**-0.5)
        for places in (self.rows, self.columns):
            nn.init.normal_(places.weight, std=0.5 * width**-0.5)
        self.offsets: Tensor
        sizes = torch.tensor([0, *(c + 1 for c in CODES[:-1])])
        self.register_buffer("offsets", sizes.cumsum(0))

    def forward(self, labels_BNF: Tensor, chosen_BN: Tensor) -> Tensor:
        """Tokens ``[B, N, D]`` of patches with these labels."""
        places = self.rows(chosen_BN // GRID) + self.columns(chosen_BN % GRID)
        tokens: Tensor = self.codes(labels_BNF + 1 + self.offsets).sum(-2) + places
        return tokens

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
        half = GRID // 2
        for places, (first, second) in ((self.rows, ("top", "bottom")), (self.columns, ("left", "right"))):
            places.weight[:half] += words[word(first)]
            places.weight[half:] += words[word(second)]
        for kind in KINDS:
            for related, share in ((plural(kind), 0.8), (PURPOSES[kind], 0.5)):
                if word(related) != word(kind):
                    words[word(related)] = 0.5 * words[word(related)] + share * words[word(kind)]


Vision = Callable[[Seen], Tensor]
"""Visual tokens ``[B, N, D]`` of the patches that are asked for."""


class Placed(NamedTuple):
    """Positions of visual tokens, ``[B, N]`` or one for each axis ``[3, B, N]``, and that of the text after them.

    They count from the first visual token, and are those among all tokens of the picture, as pruning with
    ``positions="keep"`` leaves them.
    """

    picture: Tensor
    after: int


Place = Callable[[Seen], Placed]


def raster(seen: Seen) -> Placed:
    """One after the other, row by row: the embedded model's 576."""
    return Placed(seen.chosen_BN, ALL)


class Run(NamedTuple):
    """What a forward gives.

    ``states_BQTD`` are the hidden states of the questions after the last norm; the others are, for each block of a
    role, what questions attend to before them, mean over heads, ``[B, Q, T, A + N]`` with A tokens before the picture.
    """

    states_BQTD: Tensor
    listened: list[Tensor]
    scored: list[Tensor]
    read: list[Tensor]


def run(decoder: Any, prefix: Sequence[int] | Tensor, ids_BQT: Tensor, visual_BND: Tensor, placed: Placed) -> Run:
    """Forward of packed questions.

    Args:
        decoder: a language model of transformers, of the trained blocks only.
        prefix: ids of the tokens before the picture.
        ids_BQT: packed questions.
        visual_BND: visual tokens.
        placed: their positions.
    """
    batch, questions, length = ids_BQT.shape
    embed, start, device = decoder.model.embed_tokens, len(prefix), ids_BQT.device
    before = embed(torch.as_tensor(prefix, device=device)).expand(batch, -1, -1)
    states = torch.cat([before, visual_BND, embed(ids_BQT.flatten(1))], 1)
    axes = placed.picture.shape[:-1]
    text = (start + placed.after + torch.arange(length, device=device)).repeat(questions).expand(*axes, -1)
    first = torch.arange(start, device=device).expand(*axes, -1)
    rotary = decoder.model.rotary_emb(states, torch.cat([first, start + placed.picture, text], -1))
    packed = (questions, length)
    watched: dict[str, list[Tensor]] = {"listen": [], "score": [], "read": []}
    for block, layer in zip(BLOCKS, decoder.model.layers, strict=True):
        if block.role == "score":
            watched["score"].append(_score(layer, states, rotary, packed))
        else:
            states = layer(
                states,
                attention_mask=None,
                position_embeddings=rotary,
                packed=packed,
                watch=watched[block.role],
            )
    answers = decoder.model.norm(states[:, -questions * length :])
    return Run(answers.reshape(batch, questions, length, -1), watched["listen"], watched["score"], watched["read"])


def _score(layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor], packed: tuple[int, int]) -> Tensor:
    attention, text = layer.self_attn, packed[0] * packed[1]
    normed = layer.input_layernorm(states)

    def heads(flat: Tensor, norm: str) -> Tensor:
        split: Tensor = getattr(attention, norm, nn.Identity())(flat.view(*flat.shape[:2], -1, attention.head_dim))
        return split.transpose(1, 2)

    cosine, sine = rotary
    key = heads(attention.k_proj(normed), "k_norm")
    query = heads(attention.q_proj(normed[:, -text:]), "q_norm")
    _, key = apply_rotary_pos_emb(key, key, cosine, sine)
    query, _ = apply_rotary_pos_emb(query, query, cosine[:, -text:], sine[:, -text:])
    return scoring_attention(query, key, attention.scaling, packed)


def attention_loss(output: Run, batch: Batch, before: int) -> Tensor:
    """How far attention is from the evidence, by the weights above.

    Scoring blocks: cross-entropy of what half of a question's tokens attend to on average, against its evidence. The
    first reading blocks: the same for every token before one of an answer that is told where to look. Listening
    blocks: the share of the picture.

    Args:
        output: of `run`.
        batch: what it was run on.
        before: tokens before the picture.
    """
    total = torch.zeros((), device=batch.ids_BQT.device)
    heard = batch.heard_BQT[..., None]
    for attended in output.scored:
        mean = (attended[..., before:] * heard).sum(2) / heard.sum(2)
        total = total + SCORING * _cross_entropy(mean.flatten(0, 1)[batch.found_E], batch.evidence_EN)
    for attended in output.read[:GUIDED]:
        shares = attended.flatten(0, 2)[batch.answered_K]
        total = total + READING * _cross_entropy(shares, batch.target_KS)
    prompt = batch.prompt_BQT
    for attended in output.listened:
        total = total + LISTENING * (attended[..., before:].sum(-1) * prompt).sum() / prompt.sum()
    return total


def _cross_entropy(shares_RN: Tensor, target_RN: Tensor) -> Tensor:
    """Mean over the rows that have a target; 0 if none has."""
    size = target_RN.sum(-1)
    wanted = target_RN / size.clamp(min=1)[:, None]
    rows = -(wanted * (shares_RN + 1e-6).log()).sum(-1)
    return rows.sum() / (size > 0).sum().clamp(min=1)


class Losses(NamedTuple):
    """Of one step: the answers' and the attention's."""

    answer: Tensor
    attention: Tensor


def train_decoder(
    decoder: Any,
    prefix: Sequence[int],
    vision: Vision,
    optimizer: MasterAdamW,
    batches: Iterable[Batch],
    steps: range,
    place: Place = raster,
) -> Iterator[tuple[int, Losses]]:
    """Train on answers, hints of them and attention, yielding (step, losses).

    Args:
        decoder: the decoder.
        prefix: ids of the tokens before the picture.
        vision: where visual tokens come from.
        optimizer: of all parameters to train.
        batches: of these steps.
        steps: which.
        place: where visual tokens stand.
    """
    begin = torch.tensor(prefix, device=decoder.device)

    def update(batch: Batch) -> Losses:
        output = run(decoder, begin, batch.ids_BQT, vision(batch.seen), place(batch.seen))
        states = output.states_BQTD.flatten(0, 2)
        answers = [
            F.cross_entropy(decoder.lm_head(states[positions]).float(), wanted, ignore_index=IGNORE)
            for positions, wanted in ((batch.answered_K, batch.answers_K), (batch.hinted_H, batch.hints_H))
        ]
        attention = attention_loss(output, batch, len(begin))
        torch.autograd.backward([*answers, attention])
        optimizer.step()
        return Losses(answers[0].detach(), attention.detach())

    update_at_once = launched_at_once(update, decoder.device)
    for step, batch in zip(steps, batches, strict=True):
        optimizer.begin(step)
        yield step, update_at_once(batch)


def ask(scene: Scene, rng: random.Random) -> Query:
    """Questions of all classes about one picture."""
    return Query(balanced(questions_about(scene, rng), QUESTIONS, rng), OWN)


@torch.no_grad()
def accuracy(
    decoder: Any,
    packer: Packer,
    vision: Vision,
    corpus: Corpus,
    mixture: Sequence[float] = OWN,
    count: int = ALL,
    seed: int = 7,
    place: Place = raster,
) -> dict[str, float]:
    """Share of answers that are right to the last token, by family, by class and on average (``macro``).

    Wordings are the held-out ones.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    classes: dict[str, list[bool]] = {}
    families: dict[str, list[bool]] = {}
    for first in range(0, corpus.size, 10):
        indices = range(first, min(first + 10, corpus.size))
        asked = [balanced(questions_about(corpus.scene(i), rng, HELD_OUT), QUESTIONS, rng) for i in indices]
        queries = [Query(questions, mixture) for questions in asked]
        batch = to_device(make_batch(corpus, indices, packer, queries, count, generator), decoder.device)
        states = run(decoder, packer.prefix, batch.ids_BQT, vision(batch.seen), place(batch.seen)).states_BQTD
        best = decoder.lm_head(states.flatten(0, 2)[batch.answered_K]).argmax(-1)
        wrong = (best != batch.answers_K) & (batch.answers_K != IGNORE)
        missed = set((batch.answered_K[wrong] // batch.ids_BQT.shape[2]).tolist())
        for number, question in enumerate(itertools.chain.from_iterable(asked)):
            classes.setdefault(question.label, []).append(number not in missed)
            families.setdefault(question.family, []).append(number not in missed)
    scores = {label: sum(hits) / len(hits) for label, hits in classes.items()}
    macro = sum(scores.values()) / len(scores)
    return {**{f: sum(h) / len(h) for f, h in families.items()}, **scores, "macro": macro}
