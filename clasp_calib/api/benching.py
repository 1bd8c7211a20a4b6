"""What pruning brings on a machine and its traffic: vLLM's server with and without an artifact, asked the same."""

import json
import random
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.bench_report import BenchReport, BenchRun
from clasp_calib.api.model_loading import REFERENCE
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.progress import note
from clasp_calib.common.settings import check_count, check_kind, check_number

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.studies.paired_accuracy import PairedAccuracy
    from clasp_calib.common.samples import Sample
    from clasp_calib.serving.chat_load import Load

EVERY = "all"
"""Stands for every sample in the place of a split."""
HOST = "127.0.0.1"
PLAIN, PRUNED = "plain", "pruned"
CACHED = "--enable-prompt-tokens-details"
"""Lets vLLM tell how many tokens of a prompt were in its prefix cache."""
OURS = ("--host", "--port", "--uds")
"""Flags that would start the server elsewhere than where it is asked."""


@dataclass(frozen=True)
class BenchOptions:
    """What servers are asked, and how.

    Attributes:
        concurrency: requests in flight, one run each. Every run asks all questions.
        split: that is asked, by default of which no calibration saw any; a table without splits is divided as
            everywhere. ``all``: every sample, as of traffic that is no calibration's.
        limit: so many questions, drawn by ``seed``; ``None`` asks all.
        seed: of the order of the questions, and of the bootstrap.
        wait: seconds until a server must be healthy.

    Raises:
        InputError: a value that cannot be used.
    """

    concurrency: Sequence[int] = (1, 8, 32)
    split: str = "test"
    limit: int | None = None
    seed: int = 0
    wait: float = 900.0

    def __post_init__(self) -> None:
        """Refuse what would ask nothing."""
        check_kind("concurrency", self.concurrency, Sequence, "numbers of requests, such as (1, 8, 32)")
        object.__setattr__(self, "concurrency", tuple(self.concurrency))
        if not self.concurrency:
            raise InputError("concurrency is empty; expected numbers of requests, such as (1, 8, 32)")
        for number in self.concurrency:
            check_count("concurrency", number, 1)
        check_kind("split", self.split, str, "a name such as 'test'")
        if self.limit is not None:
            check_count("limit", self.limit, 1)
        check_count("seed", self.seed, 0)
        check_number("wait", self.wait, lambda value: value > 0, "seconds, above 0")


def bench_serve(
    artifact: "Artifact | Path | str",
    samples: Any,
    model: str | Path,
    budget: str | int | None = None,
    *,
    options: BenchOptions | None = None,
    out: str | Path | None = None,
    vllm: str | Path | None = None,
    flags: Sequence[str] = (),
) -> BenchReport:
    """Measure what pruning brings in vLLM on this machine: two servers, one after the other, asked the same questions.

    Both have the same flags, on the same port, and answer greedily, by the model's chat template. Only the second has
    the artifact. At each concurrency all questions are asked in the same order, and before each run the server's caches
    of prefixes and pictures are emptied, so that what is reused is what questions of one run share. As many requests as
    the highest concurrency, which do not count, come first. The servers are ended however the call ends.

    Args:
        artifact: of the profile ``input``: an artifact, its directory, or ``org/name@version``.
        samples: questions with pictures, as `load_samples` takes them. Those with answers are scored by their metric.
        model: directory or Hub id of the model that the artifact was calibrated for, or ``reference``.
        budget: one of the artifact's; needed if it has several.
        options: what is asked, and how.
        out: directory of the servers' logs (``plain.log``, ``pruned.log``), every answer (``answers.jsonl``) and the
            numbers (``bench.json``); by default a new temporary one, which the report names.
        vllm: the vllm command; by default the one beside this Python, or on the path. Its environment needs this
            package too.
        flags: of ``vllm serve``, for both servers.

    Raises:
        ArtifactError: the artifact cannot be read, or not be served with this model.
        InputError: samples, budget or flags cannot be used, or ``out`` cannot be written to.
        ModelError: the model's configuration cannot be read, or its architecture is not known.
        ServingError: vLLM is not installed, a server does not start, dies or refuses a question, or the second one does
            not prune.
    """
    from clasp_calib.calib.scoring.metrics import check_references
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.reference.model import MODEL
    from clasp_calib.serving.load_figures import LoadFigures
    from clasp_calib.serving.load_test import LoadTest
    from clasp_calib.serving.resolving import BUDGET
    from clasp_calib.serving.vllm_server import serve_command

    options, place = options or BenchOptions(), _directory(out)
    if theirs := [flag for flag in flags if flag.split("=")[0] in OURS]:
        raise InputError(f"{theirs[0]} is not for a server that is only measured; leave it out of the flags")
    source = str(MODEL) if model == REFERENCE else str(model)
    chosen = _chosen(load_samples(samples), options)
    for sample in chosen:
        if sample.answers:
            check_references(sample)
    known, environment = _resolved(artifact, budget, source, place)
    port = _free_port()
    command = serve_command(source, HOST, port, None if vllm is None else Path(vllm), [CACHED, *flags])
    instruction, longest = _instruction(source, known.manifest.prompt), known.manifest.decoding.max_new_tokens
    test = LoadTest(tuple(chosen), instruction, longest, tuple(options.concurrency), options.wait, place)
    note(f"{len(chosen)} questions, {', '.join(map(str, options.concurrency))} at a time; logs are in {place}")
    plain = test(PLAIN, command, f"http://{HOST}:{port}", {})
    pruned = test(PRUNED, command, f"http://{HOST}:{port}", environment, plain.warm_up)
    runs = tuple(
        BenchRun(count, LoadFigures.of(one), LoadFigures.of(other), _accuracy(chosen, one, other, options.seed))
        for count, one, other in zip(options.concurrency, plain.runs, pruned.runs, strict=True)
    )
    report = BenchReport(
        runs=runs,
        budget=environment[BUDGET],
        artifact=str(known.manifest.id),
        model=source,
        questions=len(chosen),
        vllm=plain.version,
        command=tuple(command),
        out=place,
    )
    _write(report, chosen, {PLAIN: plain.runs, PRUNED: pruned.runs})
    return report


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _directory(out: str | Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="clasp-bench-serve-"))
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {out} ({error.strerror}); give the logs another place (--out, out=)") from error
    return Path(out)


def _chosen(samples: "Sequence[Sample]", options: BenchOptions) -> "list[Sample]":
    """The questions that are asked, in their order.

    Raises:
        InputError: there are none, or one is about a video or about nothing.
    """
    from clasp_calib.calib.dataset import divided
    from clasp_calib.common.media import is_video

    every = divided(samples)
    among = [sample for sample in every if options.split in (EVERY, sample.split)]
    if not among:
        splits = ", ".join(sorted({str(sample.split) for sample in every}))
        raise InputError(
            f"no sample is in the split {options.split!r}; give one of {splits}, or {EVERY} (--split, split=)"
        )
    for sample in among:
        if not sample.media or any(map(is_video, sample.media)):
            has = "a video" if sample.media else "no picture"
            raise InputError(f"sample {sample.id!r} has {has}; expected one picture or several, leave it out")
    count = len(among) if options.limit is None else min(options.limit, len(among))
    return random.Random(options.seed).sample(among, count)


def _resolved(
    artifact: "Artifact | Path | str", budget: str | int | None, model: str, place: Path
) -> "tuple[Artifact, dict[str, str]]":
    """The artifact, and the environment variables of a server that serves it.

    Raises:
        ArtifactError: it cannot be served.
        InputError: there is no such budget, or none is named.
        ModelError: the model's configuration cannot be read.
    """
    from transformers import AutoConfig

    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.serving.resolving import ARTIFACT, BUDGET, resolved

    given: dict[str, Any] = {} if budget is None else {"budget": budget}
    if isinstance(artifact, Artifact):
        artifact.save(place / "artifact")
        artifact = place / "artifact"
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # Damaged settings make transformers raise whatever they happen to break.
        raise ModelError(
            f"cannot read the configuration of the model {model!r} ({error}); give a model directory, a Hub id that "
            "this machine can reach, or 'reference' for the embedded model"
        ) from error
    served, known, notes = resolved(config, {"artifact": artifact, **given}, model)
    for one in notes:
        note(f"note: {one}")
    return known, {ARTIFACT: served.place, BUDGET: served.budget}


def _instruction(model: str, prompt: str) -> str:
    """What the calibration had behind every question, which the model's chat template does not bring."""
    from transformers import AutoProcessor

    from clasp_calib.calib.scoring.templates import ChatTemplate, instruction_in

    try:
        own = ChatTemplate(AutoProcessor.from_pretrained(model, trust_remote_code=False)).text
    except Exception as error:  # The server may do with what transformers cannot, or be given a template.
        note(f"note: the model's chat template cannot be compared with the calibration's prompt ({error})")
        return ""
    found = instruction_in(prompt, own)
    if found is None:
        note(
            f"note: questions are asked as the model's chat template has it, {own!r}, and the artifact was calibrated "
            f"with {prompt!r}; accuracy may be another than there"
        )
    elif found:
        note(f"behind every question stands {found!r}, as in the calibration")
    return found or ""


def _accuracy(samples: "Sequence[Sample]", plain: "Load", pruned: "Load", seed: int) -> "PairedAccuracy | None":
    from clasp_calib.calib.studies.paired_accuracy import paired_accuracy

    said, ours = ([answer.text for answer in load.answers] for load in (plain, pruned))
    return paired_accuracy(samples, said, ours, seed)


def _write(report: BenchReport, samples: "Sequence[Sample]", loads: "Mapping[str, Sequence[Load]]") -> None:
    """Keep every answer, and the numbers."""
    from clasp_calib.calib.studies.paired_accuracy import scored

    with (report.out / "answers.jsonl").open("w", encoding="utf-8") as file:
        for server, of in loads.items():
            for run, load in zip(report.runs, of, strict=True):
                scores = scored(samples, [answer.text for answer in load.answers])
                for sample, answer, score in zip(samples, load.answers, scores, strict=True):
                    row = {"server": server, "concurrency": run.concurrency, "id": sample.id, "score": score}
                    file.write(json.dumps({**row, **vars(answer)}, ensure_ascii=False) + "\n")
    numbers = json.dumps(report.as_dict(), indent=2, default=str)
    (report.out / "bench.json").write_text(numbers + "\n", encoding="utf-8")
