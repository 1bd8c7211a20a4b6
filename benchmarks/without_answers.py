"""What a search is worth without accepted answers: by likeness to the unpruned model, and by the answers it agrees on.

    python benchmarks/without_answers.py --part kl
    python benchmarks/without_answers.py --part agreed [--budget 64] [--samples 8] [--work DIR]

Settings are chosen for each class on some questions, and judged by the accepted answers of others. ``kl`` replays
``data/likeness.npz``: scores, likelihoods and divergences of the default space's 24 candidates, recorded on version 2
of the embedded model, which answers with CLASP and without pruning as version 3 does, to the bit. ``agreed`` measures
the embedded model: what it answers unpruned with each mixture, and what each candidate scores against the accepted
answer and against the one that most mixtures give. It judges by the recorded questions that are not among these. That
takes half a minute of one core for a question of every class; a killed run goes on where it stopped.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record_scores import opened, prepared

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.belief import believe, kernels, signal

Floats = NDArray[np.float64]
Table = dict[str, Floats]
"""Of one class: [questions, candidates], [questions, mixtures] or [questions]."""
Choose = Callable[[list[Table]], NDArray[np.int64]]
"""From the measurements of each class to its candidate."""
LIKENESS = Path(__file__).parent / "data" / "likeness.npz"
DRAWS, PART, MOST = 60, 4, 4
"""Resamples; questions of a class that are measured at once; mixtures that must agree, of six."""
PICTURES, DISAGREED = 28, ("text", "counting")
"""To draw; classes of which twice as many questions are measured: there the first four were not answered alike."""
BY_ANSWERS = "accepted answers (`metric`)"


def agreed(answers: Sequence[str]) -> tuple[str, int, int]:
    """The answer that most give, how many do, and how many give the next."""
    (first, votes), *others = Counter(answers).most_common(2)
    return first, votes, others[0][1] if others else 0


def measured(work: Path, budget: str, samples: Sequence[Any]) -> Table:
    """What is scored against the accepted and the agreed answer, and what the unpruned model says."""
    from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
    from clasp_calib.runtime.budgeting import schedule_for

    model, prompter, features, candidates = opened(work)
    evaluator, pruned = Evaluator(model, prompter, features), Pruning(schedule_for(model, budget))
    mixtures = list({candidate.alpha: candidate for candidate in candidates}.values())
    found: dict[str, list[Any]] = {}
    for sample in samples:
        said = evaluator.answers(sample, mixtures, Pruning(None))
        text, votes, next_votes = agreed(said)
        accepted = own = evaluator.scores(sample, candidates, pruned)
        if sample.answers != (text,):
            own = evaluator.scores(replace(sample, answers=(text,)), candidates, pruned)
        row = {
            **{"score": accepted.score, "nll": accepted.nll, "agreed score": own.score, "agreed nll": own.nll},
            **{"votes": votes, "next votes": next_votes, "right": text in sample.answers},
            "unpruned": [one in sample.answers for one in said],
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(of, np.float64) for name, of in found.items()}


def kept(work: Path, budget: str, label: str, samples: Sequence[Any]) -> Table:
    """The same of a whole class, measured now as far as it was not before."""
    parts: list[Mapping[str, Floats]] = []
    for start in range(0, len(samples), PART):
        path = work / "answers" / f"{budget}-{label}-{start}.npz"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            half = path.with_suffix(".half.npz")
            np.savez_compressed(half, **measured(work, budget, samples[start : start + PART]))
            half.rename(path)
        with np.load(path) as part:
            parts.append(dict(part))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[-1]}


def by(tables: list[Floats], candidates: Sequence[Candidate], among: NDArray[np.int64] | None = None) -> Any:
    """Each class's candidate of the highest posterior mean, among some."""
    among = np.arange(len(candidates)) if among is None else among
    belief = believe([table[:, among] for table in tables], kernels([candidates[c] for c in among]))
    return among[[belief.leader(k) for k in range(len(tables))]]


def choosers(candidates: Sequence[Candidate]) -> dict[str, dict[str, Choose]]:
    """Part -> name -> chooser."""
    own = np.flatnonzero([candidate.alpha == candidates[0].alpha for candidate in candidates])

    def answered(of: Table, way: str = "", votes: int = 0) -> Floats:
        judged = signal(of[f"{way}score"], of[f"{way}nll"])
        return judged if not way else judged[(of["votes"] > of["next votes"]) & (of["votes"] >= votes)]

    both: dict[str, Choose] = {
        "nothing (the model's own setting)": lambda of: np.zeros(len(of), np.int64),
        BY_ANSWERS: lambda of: by([answered(table) for table in of], candidates),
    }
    return {
        "kl": {
            **both,
            "`kl`": lambda of: by([-table["kl"] for table in of], candidates),
            "`kl`, own layer only": lambda of: by([-table["kl"] for table in of], candidates, own),
            "accepted answers, own layer only": lambda of: by([answered(table) for table in of], candidates, own),
        },
        "agreed": {
            **both,
            "agreed answers": lambda of: by([answered(table, "agreed ") for table in of], candidates),
            f"answers of {MOST} and more mixtures": lambda of: by(
                [answered(table, "agreed ", MOST) for table in of], candidates
            ),
        },
    }


def judged(
    tables: list[Table], choosers: Mapping[str, Choose], chosen_on: int, judge: list[Floats] | None = None
) -> dict[str, Floats]:
    """Name -> accuracy [draws, classes] of what was chosen on drawn questions, on the judge's or else on all others."""
    rng, classes = np.random.default_rng(0), np.arange(len(tables))
    found: dict[str, list[Floats]] = {name: [] for name in choosers}
    for _ in range(DRAWS):
        orders = [rng.permutation(len(table["score"])) for table in tables]
        paired = list(zip(tables, orders, strict=True))
        drawn = [{name: of[order[:chosen_on]] for name, of in table.items()} for table, order in paired]
        rest = judge or [table["score"][order[chosen_on:]] for table, order in paired]
        true = np.array([of.mean(0) for of in rest])
        for name, choose in choosers.items():
            found[name].append(true[classes, choose(drawn)])
    return {name: np.array(of) for name, of in found.items()}


def others(recorded: Table, measured: Table) -> Floats:
    """Scores of the recorded questions that are not among the measured ones; of one question all likelihoods agree."""
    one, other = recorded["nll"][:, None], measured["nll"][None]
    same = np.isclose(one, other, rtol=1e-2, atol=1e-5).all(-1).any(1)
    return recorded["score"][~same]


def show(title: str, labels: Sequence[str], found: Mapping[str, Floats]) -> None:
    """Accuracy by chooser, its difference with the range of 95 % of the draws, and the class that loses most."""
    base = found[BY_ANSWERS]
    print(f"\n{title}\n\n| chosen by | right | against accepted answers | worst class |\n|---|---|---|---|")
    for name, right in found.items():
        low, high = 100 * np.quantile((right - base).mean(1), [0.025, 0.975])
        lost = 100 * (right - base).mean(0)
        worst = f"{labels[lost.argmin()]} {lost.min():+.1f}"
        difference = f"{lost.mean():+.1f} [{low:+.1f}, {high:+.1f}] | {worst}" if name != BY_ANSWERS else "|"
        print(f"| {name} | {right.mean():.1%} | {difference} |")


def show_unpruned(labels: Sequence[str], tables: list[Table]) -> None:
    """What the unpruned model answers, by class."""
    print(f"\n| class | questions | own layer right | agreed answer right | {MOST} and more agree: on, right |")
    print("|---|---|---|---|---|")
    rows = [[len(of["votes"]), of["unpruned"][:, 0].mean(), of["right"].mean(), *_sure(of)] for of in tables]
    for label, row in zip([*labels, "all"], [*rows, np.nanmean(np.array(rows, float), 0)], strict=True):
        print(f"| {label} | {row[0]:.0f} | {row[1]:.0%} | {row[2]:.0%} | {row[3]:.0%}, {row[4]:.0%} |")


def _sure(of: Table) -> tuple[float, float]:
    agree = of["votes"] >= MOST
    return agree.mean(), of["right"][agree].mean() if agree.any() else np.nan


def recorded() -> tuple[dict[str, dict[str, Table]], list[Candidate]]:
    """Budget -> class -> what `LIKENESS` holds, and its candidates."""
    found: dict[str, dict[str, Table]] = {}
    with np.load(LIKENESS) as stored:
        alpha = [tuple(map(float, row)) for row in stored["alpha"]]
        named = list(zip(map(str, stored["name"]), alpha, map(float, stored["rho"]), strict=True))
        for name in (name for name in stored.files if "/" in name):
            budget, label, way = name.split("/")
            found.setdefault(budget, {}).setdefault(label, {})[way] = stored[name].astype(float)
    return found, [Candidate(*one) for one in named]


def likeness() -> None:
    """The part ``kl``."""
    tables, candidates = recorded()
    for budget, of in tables.items():
        for chosen_on in (8, 16):
            found = judged(list(of.values()), choosers(candidates)["kl"], chosen_on)
            show(f"{budget} tokens, chosen on {chosen_on} questions of each class", list(of), found)


def agreement(work: Path, budget: str, samples: int) -> None:
    """The part ``agreed``."""
    by_class, candidates = prepared(work, PICTURES), opened(work)[-1]
    tables = {
        label: kept(work, budget, label, of[: samples * (2 if label in DISAGREED else 1)])
        for label, of in by_class.items()
    }
    show_unpruned(list(tables), list(tables.values()))
    known, same = recorded()
    assert [(one.alpha, one.rho) for one in same] == [(one.alpha, one.rho) for one in candidates]
    judge = [others(known[budget][label], of) for label, of in tables.items()]
    print(f"\nJudged on {', '.join(f'{len(of)} {label}' for of, label in zip(judge, tables, strict=True))}.")
    for chosen_on in (samples // 2, samples):
        found = judged(list(tables.values()), choosers(candidates)["agreed"], chosen_on, judge)
        show(f"{budget} tokens, chosen on {chosen_on} questions of each class", list(tables), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("kl", "agreed"), required=True)
    parser.add_argument("--budget", default="64")
    parser.add_argument("--samples", type=int, default=8, help="of a class")
    parser.add_argument("--work", type=Path, default=Path("build") / "without-answers")
    arguments = parser.parse_args()
    if arguments.part == "kl":
        likeness()
    else:
        agreement(arguments.work, arguments.budget, arguments.samples)


if __name__ == "__main__":
    main()
