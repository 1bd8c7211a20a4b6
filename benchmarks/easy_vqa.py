"""The embedded model on pictures that it was not made for: easy-VQA, a data set of others.

    pip install easy-vqa
    python benchmarks/easy_vqa.py [--model DIR] [--work DIR] [--questions 1002] [--steps 600]

easy-VQA (https://github.com/vzhou842/easy-VQA) shows one coloured circle, rectangle or triangle on a plain ground, 64
pixels wide, and asks for its shape, for its colour, and yes or no. The model is asked twice: as it is, in words of its
own world where there are such; and after a short training of projector and decoder on easy-VQA's training split, with
the tower as it is and easy-VQA's own words. Beside it stands what one scores without looking. Writes
docs/results/easy-vqa.md.

The work directory keeps features, scores and the adapted model, so a run that was killed goes on; it is never shipped.
"""

import argparse
import itertools
import json
import platform
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.intervals import RESAMPLES, Clusters, interval
from clasp_calib.common.hashing import sha256_file, sha256_json
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.reference.questions import Question
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from tools.reference.by_design import BY_DESIGN
from tools.reference.export import export, take_apart
from tools.reference.measuring.score_journal import ScoreJournal
from tools.reference.measuring.unpruned import SharedPicture
from tools.reference.training import decoder as decoding
from tools.reference.training.batches import ALL
from tools.reference.training.optimizer import MasterAdamW, to_bfloat16
from tools.reference.training.packing import IGNORE, Packer

ROOT = Path(__file__).parent.parent
FAMILY = {"shape": "kind_of_size_color", "colour": "color_of_kind", "yes or no": "same_color"}
"""Type of question -> a family of ours. Training looks at it only for guided attention, which is not used here."""
OURS = {"circle": "ball", "rectangle": "box", "shape": "thing"}
LACKING = ("triangle", "black", "brown", "gray", "teal")
"""Words for what the model has never seen the like of."""
MOST = 2
"""Questions of a type about one test picture, at most."""
BATCH, ROW, RATE = 4, 12, 5e-4
"""Of the adaptation: pictures of a step, questions about each, learning rate (a third of the joint training's)."""
CHECKPOINT = 50
"""Steps between states that are kept."""
FEATURES = "features"
LOOKLESS, PLAIN, ADAPTED = "majority", "zero-shot", "adapted"
NOTE = """# The embedded model on easy-VQA

Written by `benchmarks/easy_vqa.py`; do not edit. Measured on {subject} (weights `{model}`).

{by_design}

[easy-VQA](https://github.com/vzhou842/easy-VQA) was made by others for another purpose. Its pictures are 64 pixels wide
and show one circle, rectangle or triangle in one of eight colours on a plain pale ground. The processor scales them to
336 pixels. The table shows the percentage of answers that are right to the last token, with 95 % bootstrap intervals by
picture ({resamples:,} resamples). It covers {questions} questions about {pictures} pictures of the test split, drawn by
seed, with the same number of each type.

{table}

- *majority* looks at no picture. It gives the most frequent answer to the same question, word for word, in the training
  split.
- *zero-shot* is the model as it is, with all 576 tokens, asked in words that it knows:
  {ours}.
  It knows nothing like {lacking}. {without} of {questions} questions name one of these
  or have one as their answer ({by_type}). **They count as wrong** without being asked.
  The last three columns are about the other questions alone.
- *adapted* is the same model after {steps} steps of training its projector and decoder on the training split, in the
  words of easy-VQA: {batch} of {seen:,} pictures a step, {row} questions about each, all 576 tokens. The vision tower
  is not trained. This model is not shipped.

The model was trained on busy pictures, in which things are outlined, 28 or 42 pixels wide, and of 20 kinds. Here there
is a single thing without an outline, 40 to 180 pixels wide. The model was never asked what is *not* there. Half of the
yes-or-no questions ask just that: they are the row *negated*. Zero-shot shows how far the model's knowledge reaches
beyond its own world. Adapted shows whether its tower sees what it was not trained to see.

Processor time on one thread ({machine}, torch {torch}): {times}.
"""


@dataclass(frozen=True)
class Asked:
    """A question of easy-VQA."""

    id: str
    image: Path
    type: str
    text: str
    answer: str

    @property
    def negated(self) -> bool:
        """Whether *yes* means that something is not there."""
        return self.type == "yes or no" and bool({"no", "not"} & set(self.text.split()))

    @property
    def known(self) -> bool:
        """Whether the model has words for the question and its answer."""
        return not any(word in f"{self.text} {self.answer}" for word in LACKING)

    def sample(self, ours: bool) -> Sample:
        """To be scored, in words of the model's world or in the original ones."""
        text, answer = (in_our_words(self.text), in_our_words(self.answer)) if ours else (self.text, self.answer)
        return Sample(self.id, text, self.image, (answer,), "exact")


def in_our_words(text: str) -> str:
    return re.sub("|".join(OURS), lambda found: OURS[found[0]], text)


def type_of(text: str) -> str:
    if text.startswith("what"):
        return "colour" if "color" in text else "shape"
    return "yes or no"


def load_split(split: str) -> list[Asked]:
    """All questions of ``train`` or ``test``, picture by picture."""
    try:
        # Not imported: its package is called as this script is.
        data = Path(str(distribution("easy-vqa").locate_file("easy_vqa/data"))) / split
    except PackageNotFoundError:
        raise SystemExit("easy-VQA is not installed; run `pip install easy-vqa` (it brings the pictures)") from None
    return [
        Asked(f"{split}-{number}", data / "images" / f"{image}.png", type_of(text), text, answer)
        for number, (text, answer, image) in enumerate(json.loads((data / "questions.json").read_text()))
    ]


def by_picture(questions: Sequence[Asked]) -> dict[Path, list[Asked]]:
    grouped: dict[Path, list[Asked]] = defaultdict(list)
    for question in questions:
        grouped[question.image].append(question)
    return dict(grouped)


def draw_test(questions: Sequence[Asked], count: int, seed: int) -> list[Asked]:
    """``count`` questions, as many of each type and few about one picture, picture by picture."""
    rng, left = random.Random(seed), dict.fromkeys(FAMILY, count // len(FAMILY))
    groups = list(by_picture(questions).values())
    rng.shuffle(groups)
    drawn: list[Asked] = []
    for group in groups:
        rng.shuffle(group)
        for kind in FAMILY:
            taken = [question for question in group if question.type == kind][: min(MOST, left[kind])]
            left[kind] -= len(taken)
            drawn += taken
    return drawn


def majority(train: Sequence[Asked], test: Sequence[Asked]) -> dict[str, float]:
    """Score of the most frequent answer to the same text."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in train:
        answers[question.text][question.answer] += 1
    return {q.id: float(answers[q.text].most_common(1)[0][0] == q.answer) for q in test}


class Run:
    """One model's measurements, in a directory of their own."""

    def __init__(self, work: Path, model: Path, setting: Mapping[str, Any]) -> None:
        self.model, self.processor = load_model(str(model))
        adapter = adapter_for(self.model)
        self.layer = adapter.own_layer
        self._prompter = Prompter(self.processor, self.model)
        self.weights = "+".join(sha256_file(path)[:12] for path in sorted(model.glob("*.safetensors")))
        self.directory = work / sha256_json([self.weights, setting])[:12]
        self.directory.mkdir(parents=True, exist_ok=True)
        encoder = encoder_fingerprint(self.model, self.processor)
        self.features_at = work / f"features-{sha256_json(encoder)[:12]}"
        self._journal = ScoreJournal(self.directory, "all")
        self._encoding, self._spent = self.features_at.with_suffix(".jsonl"), self.directory / "seconds.jsonl"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds up a stage's processor time over all sittings; that of features is kept beside them."""
        path = self._encoding if stage == FEATURES else self._spent
        begun = time.process_time()
        try:
            yield
        finally:
            with path.open("a") as file:
                file.write(json.dumps({"stage": stage, "seconds": time.process_time() - begun}) + "\n")

    def seconds(self) -> dict[str, float]:
        spent: dict[str, float] = defaultdict(float)
        for line in self._encoding.read_text().splitlines() + self._spent.read_text().splitlines():
            entry = json.loads(line)
            spent[entry["stage"]] += entry["seconds"]
        return dict(spent)

    def features(self, questions: Sequence[Asked]) -> Features:
        samples = [group[0].sample(False) for group in by_picture(questions).values()]
        cache_features(
            self.model, self.processor, samples, self.features_at, FeatureOptions(layers=[self.layer], workers=0)
        )
        return open_source(self.features_at, self.model, self.processor).at((self.layer,))

    def score(self, name: str, model: Any, features: Features, questions: Sequence[Asked]) -> dict[str, float]:
        """1 for each right answer; zero-shot, what the model has no words for is not asked, and counts as wrong."""
        done, shared = self._journal.read(), SharedPicture(model, self._prompter, features)
        groups = by_picture(questions)
        for group in track(groups.values(), f"{name} answers", len(groups)):
            left = [q for q in group if name not in done.get(q.id, {}) and (q.known or name != PLAIN)]
            if left:
                samples = [question.sample(name == PLAIN) for question in left]
                for question, hit in zip(left, shared.hits(samples[0], samples), strict=True):
                    self._journal.add(question.id, {name: hit})
        done = self._journal.read()
        return {question.id: done.get(question.id, {}).get(name, 0.0) for question in questions}

    def adapted(self, features: Features, train: Sequence[Asked], steps: int, seed: int) -> Any:
        """The model after training projector and decoder; made once."""
        out = self.directory / "adapted"
        if not out.exists():
            with self.timed("adaptation"):
                kept = self.directory / "adapting.pt"
                projector, decoder = adapt(self.model, self.processor, features, train, steps, seed, kept)
            part = out.with_suffix(".part")
            export(self.model.model.vision_tower, projector, decoder, self.processor.tokenizer, part)
            part.rename(out)
        return load_model(str(out))[0]


def adapt(
    model: Any, processor: Any, features: Features, train: Sequence[Asked], steps: int, seed: int, kept: Path
) -> tuple[Any, Any]:
    """Train copies of projector and decoder on the answers, from the last state that was ``kept``."""
    projector, decoder = map(to_bfloat16, take_apart(model))
    packer = Packer(processor.tokenizer)
    optimizer = MasterAdamW([*projector.parameters(), *decoder.parameters()], RATE, steps)
    pictures = list(by_picture(train).values())
    begin = 0
    if kept.exists():
        saved = torch.load(kept, weights_only=True)
        begin = saved["step"]
        projector.load_state_dict(saved["projector"])
        decoder.load_state_dict(saved["decoder"])
        optimizer.load_state_dict(saved["optimizer"])
    for step in track(range(begin, steps), "adapting", steps - begin):
        rng = random.Random(f"{seed}-{step}")
        groups = rng.sample(pictures, BATCH)
        pack = packer.pack([row_of(group, rng) for group in groups])
        seen = torch.cat([features.fused(group[0].sample(False), torch.ones(1, 1)) for group in groups])
        everywhere = torch.arange(ALL).expand(BATCH, -1)
        placed = decoding.Placed(everywhere, ALL)
        run = decoding.run(decoder, packer.prefix, pack.ids_BQT, projector(seen.bfloat16()), placed)
        wanted = pack.targets_BQT
        logits = decoder.lm_head(run.states_BQTD[wanted != IGNORE]).float()
        torch.autograd.backward(F.cross_entropy(logits, wanted[wanted != IGNORE]))
        optimizer.begin(step)
        optimizer.step()
        if (step + 1) % CHECKPOINT == 0:
            state = {"projector": projector.state_dict(), "decoder": decoder.state_dict(), "step": step + 1}
            torch.save({**state, "optimizer": optimizer.state_dict()}, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
    return projector, decoder


def row_of(group: Sequence[Asked], rng: random.Random) -> list[Question]:
    """Questions about one picture, its types in turn; repeats where there are few."""
    by_type: dict[str, list[Asked]] = defaultdict(list)
    for question in group:
        by_type[question.type].append(question)
    chosen = [rng.choice(by_type[kind]) for kind in itertools.islice(itertools.cycle(by_type), ROW)]
    return [Question(FAMILY[question.type], question.text, question.answer) for question in chosen]


def table(test: Sequence[Asked], scores: Mapping[str, Mapping[str, float]], seed: int) -> str:
    rows = {
        "all": test,
        **{kind: [q for q in test if q.type == kind] for kind in FAMILY},
        "of these, plain": [q for q in test if q.type == "yes or no" and not q.negated],
        "of these, negated": [q for q in test if q.negated],
    }
    lines = [
        f"| questions | number | {' | '.join((LOOKLESS, PLAIN, ADAPTED))} | with counterpart | {LOOKLESS} | {PLAIN} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of in rows.items():
        with_words = [q for q in of if q.known]
        cells = [score(of, scores[way], seed) for way in (LOOKLESS, PLAIN, ADAPTED)]
        cells += [str(len(with_words)), *(score(with_words, scores[way], seed) for way in (LOOKLESS, PLAIN))]
        lines.append(f"| {name} | {len(of)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def score(questions: Sequence[Asked], of: Mapping[str, float], seed: int) -> str:
    found = np.array([of[question.id] for question in questions])
    if not len(found):
        return ""
    of_all = interval(found, Clusters.of([question.image for question in questions], seed))
    return f"{100 * of_all.mean:.1f} [{100 * of_all.low:.1f}, {100 * of_all.high:.1f}]"


def machine() -> str:
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", path.read_text()) if path.exists() else []
    return names[0] if names else platform.machine()


def page(test: Sequence[Asked], written: str, run: Run, arguments: argparse.Namespace) -> str:
    without = Counter(question.type for question in test if not question.known)
    return NOTE.format(
        by_design=BY_DESIGN,
        questions=len(test),
        pictures=len(by_picture(test)),
        resamples=RESAMPLES,
        table=written,
        model=run.weights,
        subject=f"version {VERSION} of the embedded model" if arguments.model == MODEL else f"`{arguments.model}`",
        ours=", ".join(f"*{ours}* for *{theirs}*" for theirs, ours in OURS.items()),
        lacking=", ".join(LACKING),
        without=without.total(),
        by_type=", ".join(f"{without[kind]} of {kind}" for kind in FAMILY),
        steps=arguments.steps,
        seen=arguments.pictures,
        batch=BATCH,
        row=ROW,
        machine=machine(),
        torch=torch.__version__,
        times=", ".join(f"{stage} {spent:.0f} s" for stage, spent in run.seconds().items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of the model (default: the embedded one)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "easy-vqa", help="where the stages are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "easy-vqa.md")
    parser.add_argument("--questions", type=int, default=1002, help="of the test split, a third of each type")
    parser.add_argument("--pictures", type=int, default=1200, help="of the training split, to adapt on")
    parser.add_argument("--steps", type=int, default=600, help="of the adaptation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # Sums over threads come in no fixed order.
    train, seed = load_split("train"), arguments.seed
    test = draw_test(load_split("test"), arguments.questions, seed)
    shown = set(random.Random(seed).sample(list(by_picture(train)), arguments.pictures))
    adapting = [question for question in train if question.image in shown]
    setting = {name: getattr(arguments, name) for name in ("questions", "pictures", "steps", "seed")}
    run = Run(arguments.work, arguments.model, setting | {"batch": BATCH, "row": ROW, "rate": RATE})
    scores = {LOOKLESS: majority(train, test)}
    with run.timed(FEATURES):
        features = run.features([*test, *adapting])
    with run.timed("zero-shot test"):
        scores[PLAIN] = run.score(PLAIN, run.model, features, test)
    adapted = run.adapted(features, adapting, arguments.steps, seed)
    with run.timed("adapted test"):
        scores[ADAPTED] = run.score(ADAPTED, adapted, features, test)
    written = table(test, scores, seed)
    print(written)
    arguments.out.write_text(page(test, written, run, arguments), encoding="utf-8")


if __name__ == "__main__":
    main()
