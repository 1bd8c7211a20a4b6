"""Training the parts of the packaged router on the probabilities that a teacher gives: n-grams, and a word network."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.router_labeling.ngrams import Hashing, canonical, features
from clasp_calib.router_labeling.word_network import ROWS, WIDTHS, WordNetwork
from clasp_calib.router_labeling.word_pieces import piece_ids

EPOCHS, BATCH = 5, 128
NGRAM_RATE, NETWORK_RATE = 0.02, 2e-3
FILTERS = 128
DROPOUT, LOST_PIECES, NOISE = 0.3, 0.08, 0.1
"""Of the network, while it is trained: responses dropped, pieces dropped, and noise on vectors whose deviation is 1."""
WARM = 100
"""Steps over which the rate rises; it then falls to 2 %."""


@dataclass(frozen=True)
class Lesson:
    """Questions, and what is to be learnt of them."""

    questions: list[str]
    targets: NDArray[np.float32]
    """``[questions, classes]``: probabilities."""
    shares: NDArray[np.float32]
    """``[questions]``: what each weighs."""
    embeddings: NDArray[np.float16]
    """``[questions, width]``: of sentences, which the network learns to foretell as well."""


def train_ngrams(lesson: Lesson, hashing: Hashing, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights ``[2**bits, classes]`` and bias ``[classes]``, as `Router` has them."""
    torch.manual_seed(seed)
    rows = [features(question, hashing) for question in lesson.questions]
    weights = nn.EmbeddingBag(1 << hashing.bits, lesson.targets.shape[1], mode="sum")
    nn.init.zeros_(weights.weight)
    bias = nn.Parameter(torch.zeros(lesson.targets.shape[1]))
    lengths = np.array([len(row) for row in rows])

    def logits(batch: NDArray[np.int64]) -> Tensor:
        counts = lengths[batch]
        offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
        scales = np.repeat(1 / np.sqrt(counts), counts).astype(np.float32)
        flat = torch.from_numpy(np.concatenate([rows[place] for place in batch]))
        found: Tensor = weights(flat, torch.from_numpy(offsets), per_sample_weights=torch.from_numpy(scales)) + bias
        return found

    optimizer = torch.optim.Adam([weights.weight, bias], NGRAM_RATE)
    for batch, rate in _batches(lengths, seed):
        loss = _loss(logits(batch), lesson, batch)
        _step(optimizer, loss, NGRAM_RATE * rate)
    return weights.weight.detach().numpy(), bias.detach().numpy()


class _Network(nn.Module):
    def __init__(self, vectors: Tensor, classes: int, embedding: int) -> None:
        super().__init__()
        width = vectors.shape[1]
        self.register_buffer("vectors", vectors)
        self.filters = nn.Parameter(torch.randn(width, ROWS, FILTERS) * (2 * width) ** -0.5)
        self.shift = nn.Parameter(torch.zeros(len(WIDTHS) * FILTERS))
        self.output = nn.Linear(len(WIDTHS) * FILTERS, classes)
        self.meaning = nn.Linear(len(WIDTHS) * FILTERS, embedding)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.get_buffer("vectors")[ids]
        kept = (torch.rand(ids.shape) > LOST_PIECES).float()[..., None]
        vectors = kept * (vectors + NOISE * torch.randn_like(vectors))
        products = torch.einsum("bpw,wrf->bprf", vectors, self.filters)
        outside = torch.arange(ids.shape[1])[None] >= lengths[:, None]
        found, row = [], 0
        for wide in WIDTHS:
            places = ids.shape[1] - wide + 1
            responses = torch.stack([products[:, i : i + places, row + i] for i in range(wide)]).sum(0)
            found.append(responses.masked_fill(outside[:, wide - 1 :, None], -1e4).amax(1))
            row += wide
        largest = functional.dropout(torch.relu(torch.cat(found, 1) + self.shift), DROPOUT)
        return self.output(largest), self.meaning(largest)


def train_network(
    lesson: Lesson, vectors: NDArray[np.int8], scales: NDArray[np.float32], seed: int
) -> tuple[WordNetwork, NDArray[np.float32]]:
    """The network, and its bias ``[classes]``.

    Args:
        lesson: what to learn.
        vectors: see `WordNetwork`; they are not changed.
        scales: see `WordNetwork`.
        seed: of everything random.
    """
    torch.manual_seed(seed)
    rows = [piece_ids(canonical(question)) for question in lesson.questions]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    dense = torch.from_numpy(vectors * scales[:, None])
    network = _Network(dense, lesson.targets.shape[1], lesson.embeddings.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), NETWORK_RATE)
    for batch, rate in _batches(lengths, seed):
        of = lengths[batch]
        logits, meaning = network(torch.from_numpy(ids[batch, : of.max()]), torch.from_numpy(of))
        told = torch.from_numpy(lesson.embeddings[batch]).float()
        apart = 1 - functional.cosine_similarity(meaning, told)
        loss = _loss(logits, lesson, batch) + (apart * torch.from_numpy(lesson.shares[batch])).mean()
        _step(optimizer, loss, NETWORK_RATE * rate)
    found = {name: tensor.detach().numpy() for name, tensor in network.named_parameters()}
    output = np.ascontiguousarray(found["output.weight"].T)
    return WordNetwork(vectors, scales, found["filters"], found["shift"], output), found["output.bias"]


def _batches(lengths: NDArray[np.int64], seed: int):  # type: ignore[no-untyped-def]
    """(places of questions of about one length, share of the highest rate) of every step."""
    rng, step = np.random.default_rng(seed), 0
    count = len(lengths) // BATCH + 1
    for _ in range(EPOCHS):
        order = np.argsort(lengths + 3 * rng.random(len(lengths)))
        batches = np.array_split(order, count)
        rng.shuffle(batches)
        for batch in batches:
            yield batch, min(1, (step + 1) / WARM) * (1 - step / (EPOCHS * count)) + 0.02
            step += 1


def _loss(logits: Tensor, lesson: Lesson, batch: NDArray[np.int64]) -> Tensor:
    targets, shares = torch.from_numpy(lesson.targets[batch]), torch.from_numpy(lesson.shares[batch])
    return -((targets * functional.log_softmax(logits, 1)).sum(1) * shares).mean()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
