"""Pruned LLaVA, slow and obvious: one unpadded row, own attention, everything anew for each token."""

import torch
from reference_selection import reference_select
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from clasp_calib.runtime.schedule import Schedule


class ReferenceRow:
    """One row of a batch: its input embeddings, which of them are visual, and how it is to be pruned."""

    def __init__(
        self,
        model,
        embeddings_SD,
        visual_S,
        *,
        schedule,
        rho,
        raters="sparsevlm",
        positions="keep",
        iterations=5,
    ):
        self.model, self.schedule, self.rho = model, schedule, rho
        self.raters, self.positions, self.iterations = raters, positions, iterations
        self.prompt_SD, self.visual_S = embeddings_SD, visual_S
        self.kept: list[list[int]] = []
        self.lengths: list[int] = []

    def rater_positions(self) -> list[int]:
        visual = self.visual_S.nonzero().flatten().tolist()
        text = [i for i in range(len(self.visual_S)) if i > max(visual, default=-1)] or [len(self.visual_S) - 1]
        if self.raters == "last":
            return [len(self.visual_S) - 1]
        if self.raters == "all" or not visual:
            return text
        shares = (self.prompt_SD[visual] @ self.prompt_SD[text].T).double().softmax(-1).mean(0)
        return [i for i, share in zip(text, shares, strict=True) if share > shares.mean() + 1e-6] or text

    @torch.no_grad()
    def logits(self, answer: list[int]) -> Tensor:
        """Logits after the prompt and the given answer tokens."""
        text = self.model.model.language_model
        hidden = torch.cat([self.prompt_SD, text.embed_tokens(torch.tensor(answer, dtype=torch.long))])
        place = list(range(len(hidden)))
        visual = self.visual_S.nonzero().flatten().tolist()
        left, raters = list(visual), self.rater_positions()
        self.kept, self.lengths, attention = [], [], None
        for index, layer in enumerate(text.layers):
            if index in self.schedule.starts and visual:
                count = self.schedule.counts[self.schedule.starts.index(index)]
                count = count * len(visual) // self.schedule.tokens
                rows = [place.index(i) for i in raters]
                relevance = [float(attention[:, rows, place.index(i)].mean()) for i in left]
                pivots = int(count * self.rho + 0.5 + 1e-9)
                chosen, _ = reference_select(relevance, self.prompt_SD[left], pivots, count - pivots, self.iterations)
                left = [i for k, i in enumerate(left) if k in chosen]
                stay = [k for k, i in enumerate(place) if i in left or i not in visual]
                hidden, place = hidden[stay], [place[k] for k in stay]
                self.kept.append([visual.index(i) for i in left])
            ids = place if self.positions == "keep" or index < self.schedule.starts[0] else range(len(place))
            hidden, attention = self.layer(layer, hidden, torch.tensor(list(ids)))
            self.lengths.append(len(hidden))
        return self.model.lm_head(text.norm(hidden))[-1]

    def layer(self, layer, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        own, size = layer.self_attn, len(hidden)
        cos, sin = self.model.model.language_model.rotary_emb(hidden[None], ids[None])

        def heads(projection, rotate):
            x = projection(layer.input_layernorm(hidden)).view(size, -1, own.head_dim).transpose(0, 1)
            if rotate:
                a, b = x.chunk(2, -1)
                x = x * cos[0] + torch.cat((-b, a), -1) * sin[0]
            return x

        query, key, value = heads(own.q_proj, True), heads(own.k_proj, True), heads(own.v_proj, False)
        key, value = (x.repeat_interleave(len(query) // len(x), 0) for x in (key, value))
        logits = query @ key.mT * own.head_dim**-0.5
        attention = logits.masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf).softmax(-1)
        mixed = (attention @ value).transpose(0, 1).reshape(size, -1)
        hidden = hidden + own.o_proj(mixed)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), attention

    def generate(self, tokens: int) -> list[int]:
        answer: list[int] = []
        for _ in range(tokens):
            answer.append(int(self.logits(answer).argmax()))
        return answer


@torch.no_grad()
def reference_rows(
    model: LlavaForConditionalGeneration,
    batch: dict[str, Tensor],
    schedule: Schedule,
    rho,
    features: list[Tensor] | None = None,
    **settings: str | int,
) -> list[ReferenceRow]:
    """The rows of a batch; the pictures' features are transformers' own unless given."""
    if features is None:
        features = model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output
    pictures = iter(features)
    rows = []
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        ids = ids[mask.bool()]  # noqa: PLW2901
        visual = ids == model.config.image_token_id
        embeddings = model.get_input_embeddings()(ids)
        blocks = [next(pictures) for _ in range(int(visual.sum()) // schedule.tokens)]
        if blocks:
            embeddings[visual] = torch.cat(blocks)
        row_settings = {"rho": rho[row] if isinstance(rho, list) else rho, **settings}
        rows.append(ReferenceRow(model, embeddings, visual, schedule=schedule, **row_settings))
    return rows
