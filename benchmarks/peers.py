"""What published methods cost to choose, at LLaVA-1.5-7B's shapes, beside the least that their arithmetic needs.

Run it as `python benchmarks/peers.py --out docs/results/peers-speed.md`. The floor of a method is its products of
matrices at the speed that this machine reaches; what it sorts and loops over comes on top.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from runtime import Clock, peaks, table

from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.ficoco_v import FiCoCoV
from clasp_calib.baselines.input_method import ChoosesAtInput, InputMethod
from clasp_calib.baselines.mechanisms.merging import TowerTokens
from clasp_calib.baselines.prumerge import PruMerge
from clasp_calib.baselines.registry import METHODS
from clasp_calib.baselines.tome import ToMe
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.encoding import Encoded, TowerAttention

SIDE, WIDTH, STATE, HEADS, HEAD = 24, 4096, 1024, 16, 64
PATCHES = SIDE**2
BUDGETS = (192, 64)
NOTE = """# Speed of the published methods

Written by `benchmarks/peers.py`; do not edit. No trained model is involved: one picture of LLaVA-1.5-7B's shapes is
made of random numbers.

Measured with torch {torch} on {machine}, threads: {threads}, float32. The machine did other work at the same time. Each
number is the smallest of {repeats} runs. Compare numbers within this page only. *Floor* is the time of the matrix
products that a method cannot do without, at the speed that this machine reaches; sorting and greedy loops come on top.
`visionzip` and `prumerge` also project merged states again. That is not included: it is the model's own projector once
more.

"""
# FLOPs of the matrix products of one choice.
CLASS_ROW = 2 * HEADS * (PATCHES + 1) * HEAD
PRODUCTS: dict[str, Callable[[int], float]] = {
    "random-input": lambda count: 0,
    "grid": lambda count: 0,
    "pooling": lambda count: PATCHES * WIDTH,
    "fastervlm": lambda count: CLASS_ROW,
    "hired": lambda count: CLASS_ROW,
    "visionzip": lambda count: CLASS_ROW + 2 * PATCHES * 0.16 * count * HEAD,
    "prumerge": lambda count: CLASS_ROW + 2 * count * PATCHES * 2 * STATE,
    "prumerge+": lambda count: CLASS_ROW + 2 * count * PATCHES * 2 * STATE,
    "divprune": lambda count: 2 * PATCHES**2 * WIDTH,
    "vispruner": lambda count: CLASS_ROW + 2 * PATCHES**2 * STATE,
    "cdpruner": lambda count: 2 * PATCHES**2 * WIDTH + count**2 * PATCHES,
    "holov": lambda count: CLASS_ROW + 2 * PATCHES**2 / 16 * WIDTH,
    "vscan": lambda count: 2 * CLASS_ROW + 2 * PATCHES * count * WIDTH * 2,
    "hiprune": lambda count: 2 * (PATCHES + 1) * CLASS_ROW,
    "scope": lambda count: CLASS_ROW + 2 * PATCHES**2 * STATE,
    "prunesid": lambda count: CLASS_ROW + 4 * PATCHES**2 * STATE,
}


def picture(device: torch.device) -> Encoded:
    """One picture as methods see it."""
    layout = Layout(torch.arange(PATCHES), 1, (SIDE, SIDE))

    def seen(*_: object) -> TowerAttention:
        query, key = torch.randn(2, 1, HEADS, PATCHES + 1, HEAD, device=device)
        return TowerAttention(query, key, HEAD**-0.5, 1, 1, layout)

    return Encoded(
        torch.randn(PATCHES, WIDTH, device=device),
        layout,
        torch.randn(PATCHES, STATE, device=device),
        torch.randn(1, STATE, device=device),
        {0: seen()},
        lambda states: states,
    )


def budgeted(name: str, count: int, image: Encoded) -> ChoosesAtInput:
    """The method with as many tokens; PruMerge with the threshold that gives this picture about as many."""
    if name == "cdpruner":
        return CDPruner(keep=str(count), similarity=lambda image: torch.linspace(0, 1, PATCHES).cos())
    method = METHODS[name]()
    if isinstance(method, PruMerge):
        grid = [replace(method, iqr=step / 50) for step in range(-100, 200)]
        return min(grid, key=lambda tried: abs(tried.count(image) - count))
    assert isinstance(method, InputMethod)
    return replace(method, keep=str(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(options.device)
    clock = Clock(device, options.repeats)
    flops, _ = peaks(clock)
    image = picture(device)
    text = NOTE.format(
        torch=torch.__version__,
        machine=platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        repeats=options.repeats,
    )
    rows = []
    for name, products in PRODUCTS.items():
        cells = [name]
        for count in BUDGETS:
            method = budgeted(name, count, image)
            floor = products(count) / flops
            spent = clock(lambda method=method: method.choose(image))  # type: ignore[misc]
            cells += [f"{floor:.2f}", f"{spent:.2f}", f"{spent / floor:.1f}" if floor > 0.005 else ""]
        rows.append(cells)
    columns = [f"{what} at {count}" for count in BUDGETS for what in ("floor", "choice", "choice / floor")]
    text += table("Choosing among 576 tokens, ms", ["method", *columns], rows)

    tokens = TowerTokens(
        torch.randn(1, PATCHES + 1, STATE, device=device),
        torch.ones(1, PATCHES + 1, 1, device=device),
        torch.arange(-1, PATCHES, device=device)[None],
    )
    query, key = torch.randn(2, 1, HEADS, PATCHES + 1, HEAD, device=device)
    products = {
        "tome": 2 * (PATCHES / 2) ** 2 * HEAD,
        "ficoco-v": 2 * PATCHES**2 * HEADS * HEAD,
    }
    block = 2 * (4 * PATCHES * STATE**2 + 2 * PATCHES**2 * STATE + 8 * PATCHES * STATE**2) / flops
    rows = []
    for merging, count in ((ToMe(), 17), (FiCoCoV(), 35)):
        step = merging.merge(count, SIDE)
        spent = clock(lambda step=step: step(tokens, query, key, HEAD**-0.5))  # type: ignore[misc]
        floor = products[merging.name] / flops
        rows.append([merging.name, str(count), f"{floor:.2f}", f"{spent:.2f}", f"{spent / floor:.1f}",
                     f"{100 * spent / block:.0f}%"])  # fmt: skip
    columns = ["method", "merged away", "floor", "step", "step / floor", "step / floor of the block"]
    text += table("Merging in one block of the tower, 577 tokens, ms", columns, rows)
    options.out.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
