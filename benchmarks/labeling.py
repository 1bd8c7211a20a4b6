"""Rows a second of labelling: our path over vLLM against vLLM's own `chat` on the same prompts, in the same process.

Both are given the same messages, schema and sampling; the prefix cache is emptied before each round, and rounds
alternate. With no --model, a tiny random Qwen3 with the real one's tokenizer is made: its labels mean nothing, and its
forward pass is so short that what stands around it weighs more than with a real model.

Example: make .venv-vllm/.installed && .venv-vllm/bin/python benchmarks/labeling.py
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOLD = ROOT / "tests" / "router_labeling" / "intents_gold.jsonl"


def main() -> None:
    from vllm_on_cpu import ENGINE, ENVIRONMENT

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or Hub id; default: a tiny random Qwen3")
    parser.add_argument("--engine", default=json.dumps(ENGINE), help="arguments of vllm.LLM, as a JSON object")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT if given.model is None else {})

    from clasp_calib.router_labeling.labelers import KeywordLabeler, load_scheme
    from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

    rows = [json.loads(line)["question"] for line in GOLD.read_text(encoding="utf-8").splitlines()]
    questions, scheme = list(dict.fromkeys(rows))[: given.questions], load_scheme()
    with tempfile.TemporaryDirectory() as folder:
        labeler = VLLMLabeler(given.model or tiny_model(Path(folder)), chunk=512, engine=json.loads(given.engine))
        compare(labeler, questions, given.rounds, Path(folder))
    print(
        f"keyword rules: {len(rows) / best(lambda: list(KeywordLabeler().ask(rows, scheme))):,.0f} rows/s on one core"
    )


def tiny_model(folder: Path) -> str:
    sys.path.insert(0, str(ROOT / "tests" / "on_vllm"))
    from tiny_qwen3 import tiny_qwen3_directory  # type: ignore[import-not-found]

    return str(tiny_qwen3_directory(folder / "qwen3"))


def compare(labeler: Any, questions: list[str], rounds: int, folder: Path) -> None:
    """Print rows a second of both, their ratio, and how much of the prompts came from the prefix cache."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    from clasp_calib.router_labeling.journalled import JournalledLabeler
    from clasp_calib.router_labeling.labelers import load_scheme
    from clasp_calib.router_labeling.prompt import longest_answer, messages, schema

    llm, scheme = labeler.llm, load_scheme()
    taxonomy = scheme.taxonomy
    conversations = [messages(taxonomy, question) for question in questions]
    sampling = SamplingParams(
        temperature=0,
        max_tokens=longest_answer(taxonomy),
        logprobs=0,
        structured_outputs=StructuredOutputsParams(json=schema(taxonomy)),
    )
    outputs: list[Any] = []

    def chat() -> None:
        thinking = {"enable_thinking": False}
        outputs[:] = llm.chat(conversations, sampling, chat_template_kwargs=thinking, use_tqdm=False)

    def ours(place: Path) -> None:
        guesses = list(JournalledLabeler(labeler, scheme, place).label(questions))
        assert len(guesses) == len(questions)

    chat()  # Compiles the schema's grammar and whatever else happens once.
    walls: dict[str, list[float]] = {"chat": [], "ours": []}
    processor: dict[str, list[float]] = {"chat": [], "ours": []}
    for number in range(rounds):
        for name, work in (("chat", chat), ("ours", lambda: ours(folder / f"journal-{number}"))):  # noqa: B023
            llm.reset_prefix_cache()
            begun = time.perf_counter(), time.process_time()
            work()
            walls[name].append(time.perf_counter() - begun[0])
            processor[name].append(time.process_time() - begun[1])
    for what, seconds in (("wall", walls), ("processor", processor)):
        for name, times in seconds.items():
            rates = ", ".join(f"{len(questions) / time_:.2f}" for time_ in times)
            print(f"{name}: rows in a second of {what} time, by round: {rates}")
        # Processor time counts only where the engine runs in this process; it is what a busy machine can compare.
        print(
            f"ours / chat, {what} time: {statistics.median(seconds['chat']) / statistics.median(seconds['ours']):.3f}"
        )
    cached = sum(output.num_cached_tokens for output in outputs)
    prompts = sum(len(output.prompt_token_ids) for output in outputs)
    print(f"prefix cache: {cached} of {prompts} prompt tokens, {cached / prompts:.1%}")


def best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)


if __name__ == "__main__":
    main()
