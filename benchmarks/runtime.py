"""What pruning costs and saves at LLaVA-1.5-7B's shapes: ratios within one run, beside the physical floor.

On a CPU all decoder layers share one layer's random weights (as many FLOPs and bytes per forward, a thirtieth of the
memory); on a GPU every layer has its own, in bfloat16. Run it as
`python benchmarks/runtime.py --out docs/results/runtime-speed.md`, on a GPU with `--device cuda --batch 8`.

The GPU part was written without a GPU at hand and has not been run.
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from clasp_calib.common.pruning_options import SEEDINGS
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.flops import decoder_flops
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.scoring import rater_attention
from clasp_calib.runtime.selection import gram_matrix, select, split_budget

WIDTH, MLP, HEADS, RHO, RATERS, BEFORE, AFTER = 4096, 11008, 32, 0.7, 25, 35, 25
IMAGE = 4
# Table 23 of the paper, one A100: milliseconds of k-means and of prefill.
PAPER = {"192": (27.2, 125.2), "128": (23.1, 109.6), "64": (17.2, 74.7)}
NOTE = """# Speed of the runtime

Written by `benchmarks/runtime.py`; do not edit. No trained model is involved: the decoder has {layers} layers of
LLaVA-1.5-7B's shapes with random weights{tied}.

Measured with torch {torch} on {machine}, batch {batch}, {dtype}. {shared}
Each number is the smallest of {repeats} runs. Compare numbers within this page only. *Floor* is the time of the matrix
products that a step cannot do without, at the speed that this machine reaches.

"""


class Clock:
    """Times functions on one device."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def __call__(self, work: Callable[[], object], repeats: int | None = None, warm: int = 1) -> float:
        """Least milliseconds of several runs: what else the machine does can only add to them."""
        spent = []
        for number in range(warm + (repeats or self.repeats)):
            self.wait()
            begun = time.perf_counter()
            work()
            self.wait()
            if number >= warm:
                spent.append(1000 * (time.perf_counter() - begun))
        return min(spent)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    text = "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
    print(text, flush=True)
    return text + "\n"


def peaks(clock: Clock) -> tuple[float, float]:
    """FLOPs and bytes a millisecond that this device reaches in float32 products and in copies."""
    a, b = (torch.randn(2048, 2048, device=clock.device) for _ in range(2))
    large = torch.empty(64 * 2**20, device=clock.device)
    other = torch.empty_like(large)
    return 2 * 2048**3 / clock(lambda: a @ b), 2 * large.nbytes / clock(lambda: other.copy_(large))


def stages_of(tokens: int, counts: Sequence[int], rho: float = RHO) -> list[tuple[int, int, int]]:
    """Tokens in, pivots and medoids of every stage."""
    found, left = [], tokens
    for count in counts:
        pivots, medoids = split_budget(torch.tensor([count]), torch.tensor([rho]))
        found.append((left, int(pivots), int(medoids)))
        left = count
    return found


def feature_space(features_ND: Tensor, relevance_N: Tensor, pivots: int, medoids: int, loop: bool) -> Tensor:
    """The same selection on features, with sums of members at once or one cluster at a time."""
    order = relevance_N.argsort(descending=True, stable=True)
    unit_ND = functional.normalize(features_ND, dim=-1)
    chosen, pool = order[:pivots], order[pivots:].sort().values
    points_MD = unit_ND[pool]
    redundancy_M = (points_MD @ unit_ND[chosen].T).amax(1)
    centres_KD = points_MD[redundancy_M.argsort(stable=True)[:medoids]]
    for _ in range(5):
        label_M = (points_MD @ centres_KD.T).argmax(1)
        if loop:
            for cluster in range(medoids):
                members = points_MD[label_M == cluster]
                if len(members):
                    centres_KD[cluster] = functional.normalize(members.sum(0), dim=0)
        else:
            sums_KD = torch.zeros_like(centres_KD).index_add_(0, label_M, points_MD)
            filled = sums_KD.norm(dim=1, keepdim=True) > 0
            centres_KD = torch.where(filled, functional.normalize(sums_KD, dim=-1), centres_KD)
    cosine_MK = points_MD @ centres_KD.T
    return torch.cat([chosen, pool[cosine_MK.argmax(0)]])


def selection_rows(clock: Clock, speed: float, bandwidth: float) -> list[list[str]]:
    rows = []
    for tokens, budget in ((576, 192), (576, 128), (576, 64), (2880, 960), (2880, 320)):
        counts = schedule_counts(tokens, budget)
        stages = stages_of(tokens, counts)
        features_ND = torch.randn(tokens, WIDTH, device=clock.device)
        gram_1NN, relevance_N = gram_matrix(features_ND[None]), torch.rand(tokens, device=clock.device)

        def all_stages(
            stages: Sequence[tuple[int, int, int]] = stages, g: Tensor = gram_1NN, r: Tensor = relevance_N
        ) -> None:
            for left, pivots, medoids in stages:
                select(r[None, :left], g[:, :left, :left], torch.tensor([pivots]), torch.tensor([medoids]))

        def on_features(loop: bool, stages: Any = stages, f: Tensor = features_ND, r: Tensor = relevance_N) -> None:
            for left, pivots, medoids in stages:
                feature_space(f[:left], r[:left], pivots, medoids, loop)

        few = 3 if tokens > 576 else None
        cosines = clock(lambda f=features_ND: gram_matrix(f[None]), few)
        ours = clock(all_stages, few)
        space = clock(lambda work=on_features: work(False), few)
        plain = clock(lambda work=on_features: work(True), few)
        flops = 2 * tokens**2 * WIDTH
        # Every round reads the entries of the pool's rows once and writes a cosine for each centre.
        moved = 4 * (tokens * WIDTH + tokens**2 + 5 * sum(n * n + 2 * n * k for n, _, k in stages))
        floor = max(flops / speed, moved / bandwidth)
        rows.append(
            [
                f"{tokens} -> {' / '.join(map(str, counts))}",
                *(f"{value:.1f}" for value in (floor, cosines, ours, cosines + ours, space, plain)),
                f"{(cosines + ours) / floor:.1f}",
            ]
        )
    return rows


def seeding_rows(clock: Clock) -> list[list[str]]:
    """Selection from each seeding; a farthest-first traversal takes a step a medoid, one after the other."""
    rows = []
    for tokens, budget in ((576, 192), (576, 64)):
        counts = schedule_counts(tokens, budget)
        for rho, batch in product((0.25, RHO), (1, 24)):
            gram_BNN = gram_matrix(torch.randn(batch, tokens, WIDTH // 8, device=clock.device))
            relevance_BN = torch.rand(batch, tokens, device=clock.device)
            stages = stages_of(tokens, counts, rho)

            def all_stages(
                seeding: str,
                stages: Sequence[tuple[int, int, int]] = stages,
                g: Tensor = gram_BNN,
                r: Tensor = relevance_BN,
            ) -> None:
                for left, pivots, medoids in stages:
                    split = [torch.full((len(r),), count) for count in (pivots, medoids)]
                    select(r[:, :left], g[:, :left, :left], *split, seeding=[seeding] * len(r))

            spent = [clock(partial(all_stages, name)) for name in SEEDINGS]
            steps = sum(medoids for _, _, medoids in stages)
            rows.append(
                [
                    f"{tokens} -> {' / '.join(map(str, counts))}",
                    f"{rho:g}",
                    str(batch),
                    str(steps),
                    *(f"{ms:.1f}" for ms in spent),
                    *(f"{ms / spent[0]:.2f}" for ms in spent[1:]),
                ]
            )
    return rows


def schedule_counts(tokens: int, budget: int) -> tuple[int, ...]:
    scaled = {576: {192: (300, 200, 118), 128: (238, 108, 60), 64: (66, 34, 20)}}
    scaled[2880] = {5 * key: tuple(5 * count for count in counts) for key, counts in scaled[576].items()}
    return scaled[tokens][budget]


def scoring_rows(clock: Clock, speed: float, bandwidth: float) -> list[list[str]]:
    rows = []
    for tokens in (576, 2880):
        length = BEFORE + tokens + AFTER
        shape = (1, HEADS, length, WIDTH // HEADS)
        query, key, value = (torch.randn(shape, device=clock.device) for _ in range(3))
        raters = torch.arange(length - RATERS, length, device=clock.device)[None]
        above = torch.ones(length, length, dtype=torch.bool, device=clock.device).triu(1)

        def eager(q: Tensor = query, k: Tensor = key, v: Tensor = value, above: Tensor = above) -> Tensor:
            weights = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(above, -torch.inf).softmax(-1)
            return weights @ v

        is_rater = torch.ones_like(raters, dtype=torch.bool)
        few = 3 if tokens > 576 else None
        scoring = clock(
            lambda q=query, k=key, r=raters, i=is_rater: rater_attention(q, k, r, i, scaling=q.shape[-1] ** -0.5), few
        )
        full = clock(eager, few)
        kernel = clock(
            lambda q=query, k=key, v=value: functional.scaled_dot_product_attention(q, k, v, is_causal=True), few
        )
        floor = max(2 * RATERS * length * WIDTH / speed, 4 * length * WIDTH / bandwidth)
        values = (floor, scoring, full, kernel)
        rows.append([f"{tokens}", *(f"{ms:.1f}" for ms in values), f"{scoring / full:.1%}", f"{scoring / floor:.1f}"])
    return rows


def model_of(layers: int, device: torch.device, dtype: torch.dtype, width: int = WIDTH, tied: bool = False) -> Any:
    """LLaVA with random weights; a narrow one has a narrow tower too."""
    narrow = width < WIDTH
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32 if narrow else 1024,
            intermediate_size=64 if narrow else 4096,
            num_hidden_layers=24,
            num_attention_heads=2 if narrow else 16,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=2048,
            hidden_size=width,
            intermediate_size=2 * width if narrow else MLP,
            num_hidden_layers=1 if tied else layers,
            num_attention_heads=4 if narrow else HEADS,
            max_position_embeddings=4096,
        ),
        image_token_id=IMAGE,
    )
    with torch.device(device):
        model: Any = LlavaForConditionalGeneration._from_config(config, dtype=dtype).eval()
    if tied:
        text = model.model.language_model
        first, text_config = text.layers[0], config.text_config
        text_config.num_hidden_layers = layers
        text_config.layer_types = ["full_attention"] * layers
        with torch.device("meta"):
            others = [type(first)(text_config, layer_idx=index) for index in range(1, layers)]
        for layer in others:
            layer.load_state_dict(first.state_dict(), assign=True)
            text.layers.append(layer.eval())
    model.generation_config.update(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    return model


def prompts(batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(5, 2048, (batch, BEFORE + AFTER), generator=generator)
    ids = torch.cat([words[:, :BEFORE], torch.full((batch, 576), IMAGE), words[:, BEFORE:]], 1)
    pixels = torch.randn(batch, 3, 336, 336, generator=generator)
    return {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids).to(device),
        "pixel_values": pixels.to(device, dtype),
    }


def prefill_rows(clock: Clock, model: Any, layers: int, batch: int, dtype: torch.dtype) -> list[list[str]]:
    """Prefill from given features, so that the decoder is measured alone; fusion is timed beside it."""
    inputs = prompts(batch, clock.device, dtype)
    features = list(model.get_image_features(inputs.pop("pixel_values"), return_dict=True).pooler_output)
    states = torch.randn(batch, 4, 576, 1024, device=clock.device, dtype=dtype)
    fusion = clock(lambda: fuse(states, torch.full((1, 4), 0.25).expand(batch, -1)))
    few = 2 if clock.device.type == "cpu" else None

    def prefill() -> None:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        given = {"image": BaseModelOutputWithPooling(pooler_output=features)}
        model(**inputs, mm_encoder_outputs=given, use_cache=True, logits_to_keep=1)

    rows, whole, full = [], 0.0, Schedule(576, layers, (2, 6, 15), (576, 576, 576))
    for budget in ("100%", "192", "128", "64"):
        schedule = schedule_for(model, budget)
        assert isinstance(schedule, Schedule)
        pruning = prune(model, schedule=schedule, rho=RHO) if budget != "100%" else nullcontext()
        with pruning as pruner:
            spent = clock(prefill, few)
            parts = {} if pruner is None else {name: 1000 * value for name, value in pruner.stats.seconds.items()}
        whole = whole or spent
        flops = [decoder_flops(s.per_layer, WIDTH, MLP, BEFORE + AFTER) for s in (full, schedule)]
        added = fusion + sum(parts.values())
        shown = [f"{parts.get(name, 0):.1f}" for name in ("cosines", "scoring", "selection")]
        paper = " / ".join(f"{ms:g}" for ms in PAPER[budget]) if budget in PAPER else ""
        rows.append(
            [
                budget if budget != "100%" else "unpruned",
                f"{spent:.0f}",
                f"{whole / spent:.2f}",
                f"{flops[0] / flops[1]:.2f}",
                *([f"{fusion:.1f}", *shown, f"{added / spent:.2%}"] if parts else [""] * 5),
                paper,
            ]
        )
    return rows


def decode_rows(clock: Clock, model: Any, layers: int, dtype: torch.dtype) -> list[list[str]]:
    """A narrow model shows what hooks cost a token, which the wide one hides in noise; shares are of the wide one."""
    narrow = model_of(layers, clock.device, torch.float32, width=64)
    rows = []

    def step(which: Any, inputs: dict[str, Tensor], budget: str | None, repeats: int) -> float:
        pruning = prune(which, schedule=schedule_for(which, budget), rho=RHO) if budget else nullcontext()
        with pruning:
            cache = which(**inputs, use_cache=True, logits_to_keep=1).past_key_values
            one = torch.full((1, 1), 7, device=clock.device)

            def decode() -> None:
                mask = torch.ones(1, cache.get_seq_length() + 1, dtype=torch.long, device=clock.device)
                which(input_ids=one, attention_mask=mask, past_key_values=cache, logits_to_keep=1)

            return clock(decode, repeats, warm=3)

    # Hooks are compared at an equal length of the cache, for what a shorter one saves would hide them.
    inputs = prompts(1, clock.device, torch.float32)
    length = BEFORE + AFTER + 192
    words = torch.randint(5, 2048, (1, length), generator=torch.Generator().manual_seed(1)).to(clock.device)
    plain = step(narrow, {"input_ids": words, "attention_mask": torch.ones_like(words)}, None, 60)
    hooked = step(narrow, inputs, "192", 60)
    wide = step(model, prompts(1, clock.device, dtype), None, 5)
    rows.append(
        [f"{plain:.2f}", f"{hooked:.2f}", f"{hooked - plain:.2f}", f"{wide:.1f}", f"{(hooked - plain) / wide:.2%}"]
    )
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--shared", action="store_true", help="say that the machine did other work meanwhile")
    parser.add_argument("--only-seeding", action="store_true", help="time what k-means starts from, and nothing else")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    clock = Clock(device, arguments.repeats)
    machine = torch.cuda.get_device_name(device) if cuda else f"{_processor()}, {torch.get_num_threads()} threads"
    text = NOTE.format(
        torch=torch.__version__,
        machine=machine,
        batch=arguments.batch,
        layers=arguments.layers,
        tied="" if cuda else " that all layers share",
        dtype=str(dtype).removeprefix("torch."),
        shared="The machine did other work at the same time." if arguments.shared else "The machine did nothing else.",
        repeats=f"{arguments.repeats} (3 of large ones, 2 of prefill)",
    )
    seeding = table(
        "Selection from each seeding, all three stages, ms (5 rounds)",
        ["tokens", "rho", "rows", "steps", *SEEDINGS, *(f"{name} / {SEEDINGS[0]}" for name in SEEDINGS[1:])],
        seeding_rows(clock),
    )
    if arguments.only_seeding:
        return
    speed, bandwidth = peaks(clock)
    text += table(
        "What this machine can do",
        ["float32 product, GFLOP/s", "copy, GB/s"],
        [[f"{speed / 1e6:.0f}", f"{bandwidth / 1e6:.1f}"]],
    )
    text += table(
        "Selection, all three stages, ms (D = 4096, 5 rounds, rho 0.7, batch 1)",
        ["tokens", "floor", "cosines", "selection", "both", "feature space", "loop over clusters", "both / floor"],
        selection_rows(clock, speed, bandwidth),
    )
    text += seeding
    text += table(
        f"Scoring one stage, ms ({RATERS} raters, {HEADS} heads)",
        [
            "visual tokens",
            "floor",
            "scoring",
            "eager attention",
            "fused attention",
            "scoring / eager",
            "scoring / floor",
        ],
        scoring_rows(clock, speed, bandwidth),
    )
    model = model_of(arguments.layers, device, dtype, tied=not cuda)
    text += table(
        "Decode, ms a token",
        ["narrow model", "pruned", "hooks", "7B-shaped model", "hooks' share of it"],
        decode_rows(clock, model, arguments.layers, dtype),
    )
    text += table(
        "Prefill of the decoder, ms",
        [
            "budget",
            "prefill",
            "speed-up",
            "FLOPs ratio",
            "fusion",
            "cosines",
            "scoring",
            "selection",
            "added / prefill",
            "paper: k-means / prefill (A100)",
        ],
        prefill_rows(clock, model, arguments.layers, arguments.batch, dtype),
    )
    if arguments.out:
        arguments.out.write_text(text.rstrip() + "\n")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
