"""How right the labels of a language model are, and how fast: by vLLM in this process, with structured output.

As many hand-labelled questions of each class are drawn. Labels are judged as the model gives them, and after the
keyword rules that override. The package's own code asks, reads and counts; --prompts asks in other ways too.

Example: make .venv-vllm/.installed && .venv-vllm/bin/python benchmarks/language_model_labels.py --model my-smollm2
(python -m tools.labels.smollm2 my-smollm2 makes that directory; without --engine, vLLM is set up for a CPU)
"""

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
GOLD = ROOT / "tests" / "router_labeling" / "intents_gold.jsonl"


def main() -> None:
    from labelling_prompts import PROMPTS
    from vllm_on_cpu import ENGINE, ENVIRONMENT

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory or Hub id of a chat model")
    parser.add_argument("--engine", default=json.dumps(ENGINE), help="arguments of vllm.LLM, as a JSON object")
    parser.add_argument("--questions", type=Path, default=GOLD, help="JSONL with 'question' and 'class'")
    parser.add_argument("--number", type=int, default=200, help="questions to draw; 0 takes all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    parser.add_argument("--prompts", nargs="+", default=["shipped"], choices=["all", *PROMPTS], metavar="NAME")
    parser.add_argument("--out", type=Path, help="write everything that was counted to this JSON file")
    given = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    from clasp_calib.router_labeling.labelers import load_scheme
    from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

    every = [json.loads(line) for line in given.questions.read_text(encoding="utf-8").splitlines()]
    rows, scheme = drawn(every, given.number, given.seed), load_scheme()
    labeler = VLLMLabeler(given.model, engine=json.loads(given.engine))
    counted = ", ".join(f"{name} {n}" for name, n in Counter(row["class"] for row in rows).items())
    print(f"{len(rows)} of the {len(every)} questions of {given.questions.name}: {counted}")
    found = {}
    for name in PROMPTS if "all" in given.prompts else given.prompts:
        found[name] = measured(labeler, rows, PROMPTS[name], scheme)
        print(told(name, found[name]), flush=True)
    print("\n" + summary(found))
    if given.out:
        settings = {"questions": given.questions.name, "asked": len(rows), "of": len(every), "seed": given.seed}
        settings |= {"engine": json.loads(given.engine), "labeler": json.loads(labeler.fingerprint(scheme))}
        given.out.write_text(json.dumps({**settings, "prompts": found}, indent=1) + "\n", encoding="utf-8")


def drawn(rows: list[dict[str, str]], number: int, seed: int) -> list[dict[str, str]]:
    """As many of each class, or one more, in the order of the file; all if ``number`` is 0 or no fewer."""
    if 0 < number < len(rows):
        places: dict[str, list[int]] = {}
        for place in random.Random(seed).sample(range(len(rows)), len(rows)):
            places.setdefault(rows[place]["class"], []).append(place)
        turns = sorted((turn, place) for of in places.values() for turn, place in enumerate(of))
        rows = [rows[place] for place in sorted(place for _, place in turns[:number])]
    return rows


def measured(labeler: Any, rows: list[dict[str, str]], prompt: Any, scheme: Any) -> dict[str, Any]:
    """What came of asking for the rows' intents with a prompt, with an empty prefix cache at the start."""
    import pyarrow as pa

    from clasp_calib.router_labeling import vllm_labeler
    from clasp_calib.router_labeling.journalled import JournalledLabeler
    from clasp_calib.router_labeling.label_report import label_report
    from clasp_calib.router_labeling.table import label_table

    taxonomy = scheme.taxonomy
    table = pa.table({"question": [row["question"] for row in rows], "gold_class": [row["class"] for row in rows]})
    asking = patch.multiple(vllm_labeler, messages=prompt, schema=getattr(prompt, "schema", vllm_labeler.schema))
    with asking, noted(labeler) as (guesses, outputs):
        list(labeler.ask(["Is it warm?"], scheme))  # Whatever happens once.
        labeler.llm.reset_prefix_cache()
        outputs.clear()
        begun = time.perf_counter(), time.process_time()
        labelled = label_table(table, JournalledLabeler(guesses, scheme), scheme)
        seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
    report = label_report(labelled, taxonomy)
    answers = [guesses.of[question] for question in table["question"].to_pylist()]
    intents = Counter(guess.intent for guess in answers)
    return {
        "right": {when: right(pairs, taxonomy.classes) for when, pairs in report.confusion.items()},
        "confusion": {
            when: {"classes": taxonomy.classes, "counts": counts(pairs, taxonomy.classes)}
            for when, pairs in report.confusion.items()
        },
        "intents": {slug: n / len(rows) for slug, n in intents.most_common()},
        "default intent": intents[taxonomy.default_intent] / len(rows),
        "failed": sum(guess.source == "default" for guess in answers),
        "overridden": sum(report.overridden.values()),
        "seconds": {"wall": seconds[0], "processor": seconds[1]},
        "questions a second": {"wall": len(guesses.of) / seconds[0], "processor": len(guesses.of) / seconds[1]},
        "prompt tokens": sum(len(output.prompt_token_ids) for output in outputs),
        "cached": sum(output.num_cached_tokens for output in outputs)
        / sum(len(output.prompt_token_ids) for output in outputs),
        "answers": [guess.intent for guess in answers],
    }


@dataclass
class Listening:
    """A labeler that remembers what another answered."""

    labeler: Any
    of: dict[str, Any] = field(default_factory=dict)
    """Question -> guess."""

    def fingerprint(self, scheme: Any) -> str:
        return str(self.labeler.fingerprint(scheme))

    def ask(self, questions: Sequence[str], scheme: Any) -> Iterator[tuple[int, Any]]:
        for index, guess in self.labeler.ask(questions, scheme):
            self.of[questions[index]] = guess
            yield index, guess


@contextmanager
def noted(labeler: Any) -> Iterator[tuple[Listening, list[Any]]]:
    """The labeler with its answers, and what vLLM's ``chat`` returned to it."""
    outputs: list[Any] = []
    plain = labeler.llm.chat

    def chat(*given: Any, **settings: Any) -> Any:
        outputs.extend(found := plain(*given, **settings))
        return found

    with patch.object(labeler.llm, "chat", chat):
        yield Listening(labeler), outputs


def counts(pairs: Mapping[tuple[str, str], int], classes: tuple[str, ...]) -> list[list[int]]:
    """Rows are the classes given by hand, columns those of the labels."""
    return [[pairs.get((gold, label), 0) for label in classes] for gold in classes]


def right(pairs: Mapping[tuple[str, str], int], classes: tuple[str, ...]) -> dict[str, float]:
    """Share of right labels: the mean over classes that occur, and of each."""
    rows = [
        (name, row, row[place]) for place, (name, row) in enumerate(zip(classes, counts(pairs, classes), strict=True))
    ]
    of = {name: hits / sum(row) for name, row, hits in rows if sum(row)}
    return {"macro": sum(of.values()) / len(of), **of}


def told(name: str, found: dict[str, Any]) -> str:
    """What was found with a prompt, in a few lines."""
    lines = [f"\n{name}"]
    for when, of in found["right"].items():
        lines.append(f"  right {when} overrides: {shares(of)}")
    lines.append(f"  answers: {shares(found['intents'])}")
    lines.append(
        f"  default intent {found['default intent']:.1%}, failed {found['failed']}, overridden {found['overridden']}"
    )
    rates = ", ".join(f"{rate:.2f} in a second of {what} time" for what, rate in found["questions a second"].items())
    lines.append(
        f"  questions: {rates}; {found['cached']:.1%} of {found['prompt tokens']} prompt tokens came from the cache"
    )
    return "\n".join(lines)


def summary(found: dict[str, dict[str, Any]]) -> str:
    """A row for each prompt."""
    from clasp_calib.common.text_tables import markdown_table

    first = next(iter(found.values()))["answers"]
    rows = []
    for name, of in found.items():
        (likeliest, share), *_ = of["intents"].items()
        same = sum(one == other for one, other in zip(of["answers"], first, strict=True)) / len(first)
        cells = [f"{of['right'][when]['macro']:.1%}" for when in ("before", "after")]
        rows.append([name, f"{likeliest} {share:.1%}", str(len(of["intents"])), f"{same:.1%}", *cells])
    header = ["prompt", "most frequent answer", "different answers", "same as the first", "right", "after overrides"]
    return markdown_table(header, rows)


def shares(of: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in of.items())


if __name__ == "__main__":
    main()
