"""The decoder: first trained on oracle tokens that name what a patch shows, then on what the tower really sees.

Shapes: B pictures, N visual tokens of 576, Q questions of T tokens, D width.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

from clasp_calib.reference.model import BLOCKS, WIDTH, text_config
from clasp_calib.reference.questions import Question, balanced, questions_about
from clasp_calib.reference.supervision import FIELDS, KIND, LETTERS
from clasp_calib.reference.training.corpus import Corpus
from clasp_calib.reference.training.optimizer import MasterAdamW
from clasp_calib.reference.training.packing import ATTENTION, IGNORE, Pack, Packer, scoring_attention
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
from clasp_calib.reference.wordings import HELD_OUT

ALL = GRID * GRID
QUESTIONS = 16
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


def make_decoder(vocabulary: int) -> LlamaForCausalLM:
    """An untrained decoder of the trained blocks only.

    Keys start near queries, and outputs near the transpose of values: what is alike attends to what is alike, and is
    copied, from the first step on (mimetic initialisation, Trockman & Kolter 2023, https://arxiv.org/abs/2305.09828).
    """
    decoder = LlamaForCausalLM(text_config(vocabulary, len(BLOCKS)))
    decoder.set_attn_implementation(ATTENTION)
    scale = 1 / math.sqrt(2 * sum(block.role != "score" for block in BLOCKS))
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
        self.rows = nn.Embedding(GRID, WIDTH)
        self.columns = nn.Embedding(GRID, WIDTH)
        nn.init.normal_(self.codes.weight, std=0.2 * WIDTH**-0.5)
        for places in (self.rows, self.columns):
            nn.init.normal_(places.weight, std=0.5 * WIDTH**-0.5)
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


def choose_tokens(pack: Pack, labels_BNF: Tensor, count: int, background: int = 8) -> Tensor:
    """Indices ``[B, count]`` in grid order: evidence first, then the foreground, and always some background."""
    noise = torch.rand(labels_BNF.shape[:2])
    shown = (labels_BNF[..., KIND] > 0).float()
    wanted = pack.evidence_BQN.any(1).float() + pack.counted_BQN.any(1).float()
    order = noise + shown + 2 * wanted
    first = order.topk(count - background, 1).indices
    rest = (noise - 5 * shown).scatter(1, first, -9.0)
    return torch.cat([first, rest.topk(background, 1).indices], 1).sort(1).values


Vision = Callable[[list[int], Tensor], Tensor]
"""Pictures' indices and chosen patches ``[B, N]`` to visual tokens ``[B, N, D]``."""


class Run(NamedTuple):
    """What a forward gives.

    ``states_BQTD`` are the hidden states of the questions after the last norm; the others are, for each block of a
    role, what questions attend to before them, mean over heads, ``[B, Q, T, A + N]`` with A tokens before the picture.
    """

    states_BQTD: Tensor
    listened: list[Tensor]
    scored: list[Tensor]
    read: list[Tensor]


def run(decoder: LlamaForCausalLM, packer: Packer, pack: Pack, visual_BND: Tensor, chosen_BN: Tensor) -> Run:
    """Forward of packed questions.

    Visual tokens keep the position that they have among all 576, as pruning with ``positions="keep"`` leaves it.
    """
    batch, questions, length = pack.ids_BQT.shape
    embed, start = decoder.model.embed_tokens, len(packer.prefix)
    prefix = embed(torch.tensor(packer.prefix)).expand(batch, -1, -1)
    states = torch.cat([prefix, visual_BND, embed(pack.ids_BQT.flatten(1))], 1)
    text = (start + ALL + torch.arange(length)).repeat(questions).expand(batch, -1)
    positions = torch.cat([torch.arange(start).expand(batch, -1), start + chosen_BN, text], 1)
    rotary = decoder.model.rotary_emb(states, positions)
    packed = (questions, length)
    watched: dict[str, list[Tensor]] = {"listen": [], "score": [], "read": []}
    for block, layer in zip(BLOCKS, decoder.model.layers, strict=True):
        if block.role == "score":
            watched["score"].append(_score(layer, states, rotary, packed))
        else:
            states = layer(states, None, position_embeddings=rotary, packed=packed, watch=watched[block.role])
    answers = decoder.model.norm(states[:, -questions * length :])
    return Run(answers.reshape(batch, questions, length, -1), watched["listen"], watched["score"], watched["read"])


def _score(layer: LlamaDecoderLayer, states: Tensor, rotary: tuple[Tensor, Tensor], packed: tuple[int, int]) -> Tensor:
    attention, text = layer.self_attn, packed[0] * packed[1]
    normed = layer.input_layernorm(states)

    def heads(flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:2], -1, attention.head_dim).transpose(1, 2)

    cosine, sine = rotary
    key = heads(attention.k_proj(normed))
    query = heads(attention.q_proj(normed[:, -text:]))
    _, key = apply_rotary_pos_emb(key, key, cosine, sine)
    query, _ = apply_rotary_pos_emb(query, query, cosine[:, -text:], sine[:, -text:])
    return scoring_attention(query, key, attention.scaling, packed)


def attention_loss(output: Run, pack: Pack, chosen_BN: Tensor, before: int) -> Tensor:
    """How far attention is from the evidence, by the weights above.

    Scoring blocks: cross-entropy of what half of a question's tokens, drawn anew each time, attend to on average,
    against its evidence. The first reading blocks: the same for every token before one of an answer; where things are
    counted, the target is the middle of each and, with the same share, the first token, so that the share says how
    many there are. Listening blocks: the share of the picture.

    Args:
        output: of `run`.
        pack: the questions.
        chosen_BN: patches shown.
        before: tokens before the picture.
    """
    places = chosen_BN[:, None].expand(-1, pack.guided_BQ.shape[1], -1)
    evidence, counted = pack.evidence_BQN.gather(2, places), pack.counted_BQN.gather(2, places)
    half = pack.prompt_BQT & (torch.rand(pack.prompt_BQT.shape) < 0.5)
    half = half | (torch.arange(half.shape[2]) == pack.asked_BQ[..., None])
    total = torch.zeros(())
    found = pack.guided_BQ & evidence.any(-1)
    for attended in output.scored:
        mean = (attended[..., before:] * half[..., None]).sum(2) / half.sum(2, keepdim=True)
        total = total + SCORING * _cross_entropy(mean[found], evidence[found].float())
    first = torch.zeros((*evidence.shape[:2], before))
    first[..., 0] = pack.tallied_BQ.float()
    target = torch.cat([first, torch.where(pack.tallied_BQ[..., None], counted, evidence).float()], -1)
    answering = pack.targets_BQT != IGNORE
    wanted = target[:, :, None].expand(-1, -1, answering.shape[2], -1)[answering]
    known = wanted.sum(-1) > 0
    for attended in output.read[:GUIDED]:
        total = total + READING * _cross_entropy(attended[answering][known], wanted[known])
    for attended in output.listened:
        total = total + LISTENING * attended[..., before:].sum(-1)[pack.prompt_BQT].mean()
    return total


def _cross_entropy(shares: Tensor, target: Tensor) -> Tensor:
    if not len(target):
        return torch.zeros(())
    wanted = target / target.sum(-1, keepdim=True)
    return -(wanted * (shares + 1e-6).log()).sum(-1).mean()


class Losses(NamedTuple):
    """Of one step: the answers' and the attention's."""

    answer: float
    attention: float


def train_decoder(
    decoder: LlamaForCausalLM,
    packer: Packer,
    vision: Vision,
    optimizer: MasterAdamW,
    corpus: Corpus,
    token_counts: Callable[[random.Random], tuple[int, int]],
    asked: Callable[[int, random.Random], list[Question]],
    steps: range,
    seed: int,
) -> Iterator[tuple[int, Losses]]:
    """Train on answers, hints of them and attention, yielding (step, losses). Every step draws from a seed of its own.

    Args:
        decoder: the decoder.
        packer: its tokenizer's packer.
        vision: where visual tokens come from.
        optimizer: of all parameters to train.
        corpus: scenes to ask about.
        token_counts: of a random generator: pictures in the batch, visual tokens of each.
        asked: `QUESTIONS` about the picture of an index.
        steps: which.
        seed: of the choice of pictures and questions.
    """
    for step in steps:
        rng = random.Random(f"{seed}-{step}")
        torch.manual_seed(rng.randrange(2**60))
        batch, count = token_counts(rng)
        indices = rng.sample(range(corpus.size), batch)
        pack = packer.pack([asked(index, rng) for index in indices])
        chosen = _chosen(pack, corpus, indices, count)
        output = run(decoder, packer, pack, vision(indices, chosen), chosen)
        answers = [
            F.cross_entropy(decoder.lm_head(output.states_BQTD[wanted != IGNORE]).float(), wanted[wanted != IGNORE])
            for wanted in (pack.targets_BQT, pack.hints_BQT)
        ]
        attention = attention_loss(output, pack, chosen, len(packer.prefix))
        torch.autograd.backward([*answers, attention])
        optimizer.step(step)
        yield step, Losses(answers[0].item(), attention.item())


def _chosen(pack: Pack, corpus: Corpus, indices: list[int], count: int) -> Tensor:
    if count == ALL:
        return torch.arange(ALL).expand(len(indices), -1)
    return choose_tokens(pack, corpus.labels[indices], count)


def ask(corpus: Corpus, index: int, rng: random.Random) -> list[Question]:
    """Questions of all classes about one picture."""
    return balanced(questions_about(corpus.scenes[index], rng), QUESTIONS, rng)


@torch.no_grad()
def accuracy(
    decoder: LlamaForCausalLM, packer: Packer, vision: Vision, corpus: Corpus, count: int = ALL, seed: int = 7
) -> dict[str, float]:
    """Share of answers that are right to the last token, by family, by class and on average (``macro``).

    Wordings are the held-out ones.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    classes: dict[str, list[bool]] = {}
    families: dict[str, list[bool]] = {}
    for first in range(0, corpus.size, 10):
        indices = list(range(first, min(first + 10, corpus.size)))
        asked = [balanced(questions_about(corpus.scenes[i], rng, HELD_OUT), QUESTIONS, rng) for i in indices]
        pack = packer.pack(asked)
        chosen = _chosen(pack, corpus, indices, count)
        best = decoder.lm_head(run(decoder, packer, pack, vision(indices, chosen), chosen).states_BQTD).argmax(-1)
        hits = ((best == pack.targets_BQT) | (pack.targets_BQT == IGNORE)).all(-1).tolist()
        for questions, row in zip(pack.questions, hits, strict=True):
            for question, hit in zip(questions, row, strict=True):
                classes.setdefault(question.label, []).append(hit)
                families.setdefault(question.family, []).append(hit)
    scores = {label: sum(hits) / len(hits) for label, hits in classes.items()}
    macro = sum(scores.values()) / len(scores)
    return {**{f: sum(h) / len(h) for f, h in families.items()}, **scores, "macro": macro}
