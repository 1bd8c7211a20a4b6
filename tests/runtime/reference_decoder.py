"""A pruned decoder, slow and obvious: one unpadded row, own attention, everything anew for each token."""

import torch
from reference_selection import reference_select
from torch import Tensor

from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import Schedule, solve_schedule


class ReferenceRow:
    """One row of a batch: its input embeddings, which of them are visual, and how it is to be pruned.

    ``place_AS`` are its position ids along one or three axes, ``shift`` what a generated token's id has beyond its
    index, and ``deepstack`` the features that are added to the visual tokens after the first layers.
    """

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
        features="projected",
        iterations=5,
        seeding="redundancy",
        place_AS=None,
        shift=0,
        deepstack=(),
    ):
        self.model, self.schedule, self.rho = model, schedule, rho
        self.raters, self.positions, self.features = raters, positions, features
        self.iterations, self.seeding = iterations, seeding
        self.prompt_SD, self.visual_S = embeddings_SD, visual_S
        self.place_AS = torch.arange(len(visual_S))[None] if place_AS is None else place_AS
        self.shift, self.deepstack = shift, deepstack
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

    def counts(self, tokens: int) -> list[int]:
        if isinstance(self.schedule, Schedule):
            return [count * tokens // self.schedule.tokens for count in self.schedule.counts]
        solved = solve_schedule(self.schedule.budget, tokens, self.schedule.layers, self.schedule.starts)
        return list(solved.counts)

    @torch.no_grad()
    def logits(self, answer: list[int]) -> Tensor:
        """Logits after the prompt and the given answer tokens."""
        text = adapter_for(self.model).language_model(self.model)
        hidden = torch.cat([self.prompt_SD, text.embed_tokens(torch.tensor(answer, dtype=torch.long))])
        beyond = torch.arange(len(self.visual_S), len(hidden)) + self.shift
        all_ids = torch.cat([self.place_AS, beyond.expand(len(self.place_AS), -1)], 1)
        place = list(range(len(hidden)))
        visual = self.visual_S.nonzero().flatten().tolist()
        left, raters = list(visual), self.rater_positions()
        self.kept, self.lengths, attention = [], [], None
        for index, layer in enumerate(text.layers):
            if index in self.schedule.starts and visual:
                count = self.counts(len(visual))[self.schedule.starts.index(index)]
                rows = [place.index(i) for i in raters]
                relevance = [float(attention[:, rows, place.index(i)].mean()) for i in left]
                pivots = int(count * self.rho + 0.5 + 1e-9)
                compared = self.prompt_SD[left]
                if self.features == "hidden":
                    compared = hidden[[place.index(i) for i in left]]
                split = pivots, count - pivots
                chosen, _ = reference_select(relevance, compared, *split, self.iterations, self.seeding)
                left = [i for k, i in enumerate(left) if k in chosen]
                stay = [k for k, i in enumerate(place) if i in left or i not in visual]
                hidden, place = hidden[stay], [place[k] for k in stay]
                self.kept.append([visual.index(i) for i in left])
            keep = self.positions == "keep" or index < self.schedule.starts[0]
            hidden, attention = self.layer(layer, hidden, all_ids[:, place] if keep else torch.arange(len(place))[None])
            if index < len(self.deepstack):
                for k, i in enumerate(place):
                    if i in visual:
                        hidden[k] = hidden[k] + self.deepstack[index][visual.index(i)]
            self.lengths.append(len(hidden))
        return self.model.lm_head(text.norm(hidden))[-1]

    def layer(self, layer, hidden: Tensor, ids_AS: Tensor) -> tuple[Tensor, Tensor]:
        own, size = layer.self_attn, len(hidden)
        between = hasattr(layer, "post_self_attn_layernorm")  # GLM: neighbours are turned together, and more norms
        ids = ids_AS if len(ids_AS) == 1 else ids_AS[:, None]
        cos, sin = adapter_for(self.model).language_model(self.model).rotary_emb(hidden[None], ids)

        def heads(projection, norm, rotate):
            x = projection(layer.input_layernorm(hidden)).view(size, -1, own.head_dim)
            x = getattr(own, norm, torch.nn.Identity())(x).transpose(0, 1)
            if rotate:
                turned = torch.cat([-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1)
                if between:
                    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
                x = x * cos[0] + turned * sin[0]
            return x

        query, key = heads(own.q_proj, "q_norm", True), heads(own.k_proj, "k_norm", True)
        value = heads(own.v_proj, "no_norm", False)
        key, value = (x.repeat_interleave(len(query) // len(x), 0) for x in (key, value))
        logits = query @ key.mT * own.head_dim**-0.5
        attention = logits.masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf).softmax(-1)
        mixed = (attention @ value).transpose(0, 1).reshape(size, -1)
        after_attention = layer.post_self_attn_layernorm if between else torch.nn.Identity()
        after_mlp = layer.post_mlp_layernorm if between else torch.nn.Identity()
        hidden = hidden + after_attention(own.o_proj(mixed))
        return hidden + after_mlp(layer.mlp(layer.post_attention_layernorm(hidden))), attention

    def generate(self, tokens: int) -> list[int]:
        answer: list[int] = []
        for _ in range(tokens):
            answer.append(int(self.logits(answer).argmax()))
        return answer


@torch.no_grad()
def reference_row(model, row: dict[str, Tensor], schedule, rho, pictures=None, **settings):
    """One unpadded prompt of any architecture; the pictures' features are transformers' own unless given."""
    ids, config = row["input_ids"][0], model.config
    embeddings, visual, deepstack = model.get_input_embeddings()(ids), torch.zeros(len(ids), dtype=torch.bool), ()
    for modality in ("image", "video"):
        mask = ids == getattr(config, f"{modality}_token_id", -1)
        if mask.any():
            output = encoded(model, row, modality) if pictures is None else None
            pooled = output.pooler_output if pictures is None else pictures
            pooled = pooled if isinstance(pooled, Tensor) else torch.cat(list(pooled))
            embeddings[mask] = pooled.reshape(-1, pooled.shape[-1])
            visual |= mask
            deepstack = [torch.cat(list(part)) for part in getattr(output, "deepstack_features", None) or ()]
    if "mm_token_type_ids" in row:
        grids = {name: value for name, value in row.items() if name.endswith("grid_thw")}
        place, shift = model.model.get_rope_index(row["input_ids"], mm_token_type_ids=row["mm_token_type_ids"], **grids)
        settings |= {"place_AS": place[:, 0], "shift": int(shift)}
    return ReferenceRow(model, embeddings, visual, schedule=schedule, rho=rho, deepstack=deepstack, **settings)


def encoded(model, row: dict[str, Tensor], modality: str):
    """What transformers' own encoder makes of the pictures of a modality."""
    names = {"image": ("pixel_values", "pixel_values_images", "image_sizes", "target_sizes", "image_grid_thw")}
    names["video"] = ("pixel_values_videos", "video_grid_thw")
    pictures = {name: row[name] for name in names[modality] if name in row}
    return getattr(model.model, f"get_{modality}_features")(**pictures, return_dict=True)


def stacked(deepstack, adapter, model, layers_BLTC, modality):
    """``deepstack`` with what pictures bring to it, of all of whose layers this is the capture."""
    more = adapter.deepstack(model, layers_BLTC[:, list(adapter.taps)].transpose(0, 1), modality)
    return [[*before, *of] for before, of in zip(deepstack, more, strict=True)]


@torch.no_grad()
def reference_rows(
    model, batch: dict[str, Tensor], schedule, rho, features: list[Tensor] | None = None, seeding=None, **settings
):
    """The rows of a LLaVA batch."""
    if features is None:
        features = model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output
    pictures = iter(features)
    rows = []
    for index, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        tokens = int((ids == model.config.image_token_id).sum())
        blocks = [next(pictures) for _ in range(tokens // schedule.tokens)]
        row = {"input_ids": ids[mask.bool()][None], "pixel_values": torch.zeros(len(blocks), 3, 1, 1)}
        share = rho[index] if isinstance(rho, list) else rho
        own = settings | ({"seeding": seeding[index]} if seeding else {})
        rows.append(reference_row(model, row, schedule, share, pictures=blocks, **own))
    return rows
