"""What is fuzzed: files that come from elsewhere, and what reads them."""

import contextlib
import hashlib
import json
import random
import sqlite3
import tempfile
from pathlib import Path

import httpx2 as httpx
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import yaml
from cache.store_support import LAYERS, key_of, put, same, writer
from fuzz.harness import Target
from fuzz.mutations import NUMBERS, WORDS, any_bytes, json_values
from made_artifacts import made
from made_routers import made_router
from PIL import Image
from readers.every_format import lay_out, sources

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import Trial, trials, with_trials
from clasp_calib.artifacts.files import MANIFEST, write_artifact
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.exchange import Server
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import KeywordLabeler, Scheme
from clasp_calib.router_labeling.router_file import load_router, write_router
from clasp_calib.router_labeling.rules import load_rules
from clasp_calib.router_labeling.server_labeler import ServerLabeler
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.space import default_space, read_space, write_space

ROWS = [
    {
        "id": f"s{number}",
        "image": f"p/{number}.png",
        "question": f"How many birds sit on wire {number}?",
        "answers": ["two", "2"],
        "metric": "exact_match",
        "split": split,
        "class": "counting",
        "notes": {"hour": 7.5},
    }
    for number, split in enumerate(("calibration", "selection", "test"))
]


def _tables(place: Path) -> None:
    (place / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    flat = [{**row, "answers": "two | 2", "notes": "at seven"} for row in ROWS]
    header = ",".join(flat[0])
    (place / "s.csv").write_text("\n".join([header, *(",".join(map(str, row.values())) for row in flat)]))


def _parquet(place: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), place / "s.parquet")


def _load_each(place: Path) -> None:
    for path in sorted(place.iterdir()):
        for sample in load_samples(path):
            str(sample)


def _read_formats(place: Path) -> None:
    for source in sources(place):
        for sample in load_samples(source):
            str(sample)


def _tsv_cells(data: bytes, rng: random.Random) -> bytes:
    return _csv_cells(data.replace(b",", b"\1").replace(b"\t", b","), rng).replace(b",", b"\t").replace(b"\1", b",")


def _csv_cells(data: bytes, rng: random.Random) -> bytes:
    lines = [line.split(b",") for line in data.split(b"\n")]
    row = rng.choice(lines)
    word = rng.choice([*WORDS, *map(str, NUMBERS), '"', "a | | b", "['a', 'b']", "x" * 140_000])
    row[rng.randrange(len(row))] = word.encode("utf-8", "surrogatepass")
    return b"\n".join(b",".join(cells) for cells in lines)


def _artifact(place: Path) -> None:
    rows = [Trial("8", "text", "deep/rho=1", "deep", 1.0, "chosen", 3, 0.5, None)]
    write_artifact(with_trials(made("8", "50%"), rows), place / "a")


def _read_artifact(place: Path) -> None:
    artifact = read_artifact(place / "a")
    trials(artifact)
    repr(artifact)


def _sealed(place: Path) -> None:
    """Make all hashes fit again, as somebody who means harm would, and read it."""
    path = place / "a" / MANIFEST
    with contextlib.suppress(Exception):
        content = json.loads(path.read_bytes())
        for name in content["files"]:
            content["files"][name] = hashlib.sha256((place / "a" / name).read_bytes()).hexdigest()
        content["fingerprint"] = sha256_json(content["shape"])
        content["id"] = sha256_json({key: value for key, value in content.items() if key != "id"})
        path.write_text(json.dumps(content))
    _read_artifact(place)


PICTURES = 5


def _cache(layout: str):
    def fill(place: Path) -> None:
        with writer(place / "cache", layout=layout) as store:
            put(store, range(PICTURES))

    return fill


def _use_cache(place: Path) -> None:
    with FeatureStore.open(place / "cache") as store:
        for number in range(PICTURES):
            if not store.missing([key_of(number)], LAYERS):
                assert same(store, number)
        list(store.verify())


def _repair_cache(place: Path) -> None:
    with FeatureWriter.reopen(place / "cache") as store:
        store.drop_damaged()


def _sql_cells(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in a database."""
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        file.write(data)
        file.flush()
        base = sqlite3.connect(file.name)
        with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError):
            tables = [name for (name,) in base.execute("select name from sqlite_master where type = 'table'")]
            table = rng.choice(tables)
            column = rng.choice([row[1] for row in base.execute(f"pragma table_info({table})")])
            value = rng.choice([*WORDS, *NUMBERS, None, b"\0\1", "shard-00001.h5"])
            base.execute(f"update {table} set {column} = ? where rowid % 2 = ?", (value, rng.randrange(2)))
            base.commit()
        base.close()
        return Path(file.name).read_bytes()


def _pictures(place: Path) -> None:
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    image.save(place / "a.png")
    image.save(place / "b.jpg", exif=_turned())
    image.quantize(16).save(place / "c.gif", save_all=True, append_images=[image.quantize(8)])
    image.save(place / "d.webp")
    image.save(place / "e.tiff")
    image.convert("CMYK").save(place / "f.jpg")
    image.save(place / "g.bmp")


def _decode(place: Path) -> None:
    for path in sorted(place.iterdir()):
        load_picture(path)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _router(place: Path) -> None:
    write_router(made_router(), place / "router.safetensors")


def _yaml(place: Path) -> None:
    (place / "rules.yaml").write_text(yaml.safe_dump(_rules()))
    write_space(default_space((1, 2, 3), 3), place / "space.yaml")


def _rules() -> object:
    rule = {"id": "many", "intent": "counting", "pattern": {"any": ["how many {things}"]}}
    return {"version": 1, "words": {"things": ["birds"]}, "rules": [rule]}


def _read_yaml(place: Path) -> None:
    read_space(place / "space.yaml")
    load_rules(place / "rules.yaml", SCHEME.taxonomy)


BOTH = [Candidate("own", (0.0, 1.0), 1.0), Candidate("deep", (0.1, 0.9), 0.5)]


def _journal(place: Path) -> None:
    with contextlib.closing(ScoreJournal(place)) as journal:
        journal.settle("8", {"prompt": "p", "schedule": {"starts": [2, 6], "tokens": 16}})
        for sample in range(3):
            journal.record(f"metric {sample}", BOTH, Scores((1.0, sample / 3), (0.1, 0.5 * sample)))


def _use_journal(place: Path) -> None:
    with contextlib.closing(ScoreJournal(place)) as journal:
        journal.settle("8", {"prompt": "p", "schedule": {"starts": [2, 6], "tokens": 16}})
        for sample in range(3):
            known = journal.known(f"metric {sample}", BOTH)
            journal.scores([f"metric {sample}"], known)


def _journal_lines(data: bytes, rng: random.Random) -> bytes:
    """Another value in a line, behind a checksum that is right again."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    value = json_values(lines[at].partition(b" ")[2], rng).replace(b"\n", b"")
    lines[at] = xxhash.xxh64_hexdigest(value).encode() + b" " + value
    return b"\n".join(lines) + b"\n"


QUESTIONS = ("How many birds?", "Why?", "What colour is the door?")


def _labels(place: Path) -> None:
    list(JournalledLabeler(KeywordLabeler(), SCHEME, place).label(QUESTIONS))


def _use_labels(place: Path) -> None:
    for guess in JournalledLabeler(KeywordLabeler(), SCHEME, place).label(QUESTIONS):
        assert isinstance(guess.intent, str)
        assert guess.confidence is None or 0 <= guess.confidence <= 1


def _plain_lines(data: bytes, rng: random.Random) -> bytes:
    """Another value in a line of a journal as versions before the first checksums wrote it."""
    lines = [line.partition(b" ")[2] for line in data.splitlines()]
    at = rng.randrange(len(lines))
    lines[at] = json_values(lines[at], rng).replace(b"\n", b"")
    return b"\n".join(lines) + b"\n"


def _run(place: Path) -> None:
    run = RunDirectory(place)
    run.record("search", {"budget": ["192"], "seed": 0})
    run.remember_model("my-llava", "models/my-llava")


def _use_run(place: Path) -> None:
    run = RunDirectory(place)
    assert run.model is None or all(isinstance(word, str) for word in run.model)
    run.remember_model("another", "elsewhere")
    run.record("evaluate", {})


SCHEME = Scheme(load_taxonomy(), load_rules(None, load_taxonomy()))
REPLY = {
    "choices": [
        {
            "message": {"role": "assistant", "content": '{"intent": "counting"}'},
            "finish_reason": "stop",
            "logprobs": {
                "content": [{"token": '{"intent": "', "logprob": -0.1}, {"token": "counting", "logprob": -0.2}]
            },
        }
    ]
}


def _replies(place: Path) -> None:
    (place / "models.json").write_text(json.dumps({"data": [{"id": "labeler"}]}))
    (place / "reply.json").write_text(json.dumps(REPLY))


class _FromFiles(Server):
    """A server whose replies are files of a directory."""

    def __init__(self, place: Path):
        super().__init__("http://127.0.0.1:1/v1", "sk-fuzzed-0123456789")
        self._place = place

    def client(self, connections: int) -> httpx.AsyncClient:
        def handle(request: httpx.Request) -> httpx.Response:
            name = "models.json" if request.method == "GET" else "reply.json"
            return httpx.Response(200, content=(self._place / name).read_bytes())

        return httpx.AsyncClient(transport=httpx.MockTransport(handle))


def _label(place: Path) -> None:
    labeler = ServerLabeler("http://127.0.0.1:1/v1", backoff=0.0)
    labeler.__dict__["server"] = _FromFiles(place)
    for _, guess in labeler.ask(["How many birds?"], SCHEME):
        assert guess.intent in SCHEME.taxonomy.intents
        assert guess.confidence is None or 0 <= guess.confidence <= 1


TARGETS = {
    target.name: target
    for target in (
        Target("samples", _tables, _load_each, (any_bytes, json_values, _csv_cells)),
        Target("readers", lay_out, _read_formats, (any_bytes, json_values, _tsv_cells), ("*.json", "*.jsonl", "*.tsv")),
        Target("parquet", _parquet, _load_each, (any_bytes,)),
        Target(
            "artifact", _artifact, _read_artifact, (any_bytes, json_values), ("*.json", "*.safetensors", "*.parquet")
        ),
        Target("sealed-artifact", _artifact, _sealed, (json_values,), (MANIFEST,)),
        Target("cache", _cache("direct"), _use_cache, (any_bytes, _sql_cells), ("index.sqlite", "shard-*")),
        Target("portable-cache", _cache("portable"), _use_cache, (any_bytes, json_values), ("*",)),
        Target("cache-repair", _cache("direct"), _repair_cache, (any_bytes, _sql_cells), ("index.sqlite", "shard-*")),
        Target("router", _router, lambda place: load_router(place / "router.safetensors"), (any_bytes,)),
        Target("pictures", _pictures, _decode, (any_bytes,)),
        Target("score-journal", _journal, _use_journal, (any_bytes, _journal_lines)),
        Target("label-journal", _labels, _use_labels, (any_bytes, _journal_lines, _plain_lines)),
        Target("run-directory", _run, _use_run, (any_bytes, json_values), ("config.json",)),
        Target("server", _replies, _label, (any_bytes, json_values)),
        Target("yaml", _yaml, _read_yaml, (any_bytes,)),
    )
}
