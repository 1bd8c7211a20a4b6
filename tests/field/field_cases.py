"""Cases from the field: small inputs as people really have them, and what is right for each."""

import argparse
import contextlib
import ctypes
import hashlib
import http.server
import itertools
import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("OPENAI_API_KEY", None)
for _name in list(os.environ):
    if _name.lower().endswith("_proxy"):
        del os.environ[_name]

CASES = {}
MEMORY = 4 << 30
ADDRESSES = 24 << 30
CHAT_TEMPLATE = (
    "{% for m in messages %}USER: {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
    "{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
)
"""LLaVA-1.5's, as far as it is used."""
LONG = 240


class Wrong(AssertionError):  # noqa: N818
    """What was seen is not what is right."""


def case(kind, right, seconds=LONG):
    """Register a function as a case: what kind of input it is, and what the right behaviour is."""

    def keep(function):
        CASES[function.__name__] = (function, kind, right, seconds)
        return function

    return keep


def check(fine, seen):
    if not fine:
        raise Wrong(seen)


# Running the product.


class Ran:
    def __init__(self, code, out, err, seconds, peak, stopped):
        self.code, self.out, self.err, self.seconds, self.peak, self.stopped = code, out, err, seconds, peak, stopped

    @property
    def text(self):
        return self.out + self.err

    @property
    def brief(self):
        last = [line for line in self.text.strip().splitlines() if line.strip()][-1:] or ["(nothing)"]
        why = f", stopped: {self.stopped}" if self.stopped else ""
        return f"exit {self.code}{why}, {self.seconds:.0f} s, {self.peak >> 20} MiB: {last[0][:300]}"

    def json(self):
        for line in reversed(self.out.strip().splitlines()):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
        try:
            return json.loads(self.out[self.out.index("{") :])
        except ValueError:
            raise Wrong(f"no JSON was printed ({self.brief})") from None


def resident(group):
    """Bytes that the processes of a group hold, file maps left out."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            if int(fields[2]) != group:
                continue
            with open(f"/proc/{entry}/status") as file:
                found = dict(line.split(":", 1) for line in file if ":" in line)
            total += 1024 * int(found.get("RssAnon", "0 kB").split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return total


class Child:
    """A forked process that calls a function, with what `subprocess.Popen` offers of it here."""

    def __init__(self, function, before, out, err, env, cwd):
        self.returncode = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            before()
            os.environ.clear()
            os.environ.update(env)
            if cwd:
                os.chdir(cwd)
            code = function()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code if isinstance(code, int) else 0)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def run(
    words,
    call=None,
    *,
    seconds=150,
    memory=MEMORY,
    env=None,
    cwd=None,
    files=None,
    no_override=False,
    largest=None,
    signals=(),
):
    """Run a command, or a function in a fork, in a process group that is ended at a time or a memory limit.

    files: that may be open. no_override: root obeys file modes. largest: bytes of a file. signals: (seconds, signal).
    """

    def before():
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        if no_override:  # root then obeys file modes as everybody does
            libc = ctypes.CDLL(None, use_errno=True)
            for capability in (1, 2):
                libc.prctl(24, capability, 0, 0, 0)

    began = time.monotonic()
    world = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})}
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        if call:
            process = Child(call, before, out, err, world, cwd)
        else:
            process = subprocess.Popen(
                [str(word) for word in words],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env=world,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=before,  # noqa: PLW1509 - limits are set in a child that runs one command
            )
        peak, stopped, coming = 0, "", list(signals)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            passed = time.monotonic() - began
            if coming and passed > coming[0][0]:
                os.kill(process.pid, coming.pop(0)[1])
            if peak > memory:
                stopped = f"took more than {memory >> 20} MiB"
            elif passed > seconds:
                stopped = f"was not done in {seconds} s"
            if stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.08)
        passed = time.monotonic() - began
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(8 << 20).decode("utf-8", "replace"))
    return Ran(process.returncode, *texts, passed, peak, stopped)


FORKS = True
"""Whether commands are called in forks of a process that has loaded everything; much quicker on a busy machine."""
NEEDS_EXEC = {"PYTHONPATH", "LC_ALL"}


def own_process(how):
    how = dict(how)
    apart = how.pop("apart", False) or not FORKS or how.get("no_override") or NEEDS_EXEC & set(how.get("env") or ())
    return bool(apart), how


def cli(*words, **how):
    """The command line, with the words given; in a process of its own where the environment has to be."""
    words = [str(word) for word in words]
    apart, how = own_process(how)
    if apart:
        return run([Path(sys.executable).parent / "clasp-calib", *words], **how)

    def call():
        sys.argv = ["clasp-calib", *words]
        return entry_point()()

    return run([], call, **how)


def entry_point():
    from importlib.metadata import entry_points

    (found,) = entry_points(group="console_scripts", name="clasp-calib")
    return found.load()


def python(code, *words, **how):
    words = [str(word) for word in words]
    apart, how = own_process(how)
    if apart:
        return run([sys.executable, "-c", code, *words], **how)

    def call():
        sys.argv = ["-c", *words]
        exec(compile(code, "<case>", "exec"), {"__name__": "__main__"})
        return 0

    return run([], call, **how)


def load_everything():
    """Import what commands import, once, before anything is forked."""
    import importlib
    import pkgutil
    import warnings

    wanted = ["torch", "transformers", "pyarrow.parquet", "PIL.Image", "h5py", "optuna", "pandas", "datasets"]
    wanted += ["transformers.models.llava.modeling_llava", "transformers.models.llama.modeling_llama"]
    wanted += [
        "safetensors.torch",
        "transformers.models.clip.modeling_clip",
        "transformers.models.llava.processing_llava",
        "clasp_calib.cli",
    ]
    import clasp_calib

    for module in pkgutil.walk_packages(clasp_calib.__path__, "clasp_calib."):
        if ".reference." not in module.name and not module.name.endswith("__main__"):
            wanted.append(module.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in wanted:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def unharmed(ran):
    """Whatever came of it: it ended by itself, without a traceback."""
    check(not ran.stopped, ran.brief)
    check("Traceback (most recent call last)" not in ran.text, f"a traceback; {ran.brief}")
    check(ran.code is not None and ran.code >= 0, f"ended by signal {-(ran.code or 0)}; {ran.brief}")
    return ran


def fine(ran):
    unharmed(ran)
    check(ran.code == 0, ran.brief)
    return ran


def refused(ran, *words, longest=2000):
    """Exit code 2, and one message, which has one of each group of words; libraries may print more before it."""
    unharmed(ran)
    check(ran.code == 2, f"expected exit code 2; {ran.brief}")
    told = [line for line in ran.err.splitlines() if line.startswith("error:")]
    message = told[-1] if told else ran.err.strip()
    check(len(message) <= longest, f"a message of {len(message)} characters: {message[:120]}...")
    for group in words:
        some = (group,) if isinstance(group, str) else group
        check(any(word.lower() in message.lower() for word in some), f"the message has none of {some}: {message[:400]}")
    return ran


# Inputs.


def lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


PAINT = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}


def picture(path, colour="red", grain=0, size=(64, 64), **saving):
    """One colour with a little noise of its own, so that different grains are different files."""
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([grain, 7]).integers(0, 20, (size[1], size[0], 3))
    Image.fromarray((np.array(PAINT[colour]) + noise - 10).clip(0, 255).astype(np.uint8)).save(path, **saving)
    return path


def flat_png(path, width, height, rgb=(200, 30, 30)):
    """A PNG of one colour, written row by row: small on the disk whatever its size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = b"\0" + bytes(rgb) * width
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


# A model whose every word is known. Embeddings are one dimension a token, all blocks are empty, and so the next token
# is read off a table by the last one; with `sees`, a colour that the picture has most of decides between colour words.

BASE = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<eot>")
PLAIN_WORDS = ("red", "green", "blue", "two", "none", "yes", "no")


def tokenizer_of(words=PLAIN_WORDS, eos="</s>", bos=True, ends=False, image_is_token=True):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = [token for token in BASE if image_is_token or token != "<image>"]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in words:
        letters = list(word)
        grown = letters[0]
        for letter in letters[1:]:
            if (grown, letter) not in merges:
                merges.append((grown, letter))
            grown += letter
            if grown not in pieces:
                pieces.append(grown)
        if f"Ġ{word}" not in pieces:
            pieces.append(f"Ġ{word}")
        merges.append(("Ġ", word))
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    around = [*(["<s>"] if bos else []), "$A", *(["</s>"] if ends else [])]
    made.post_processor = processors.TemplateProcessing(
        single=" ".join(around), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token=eos, unk_token="<unk>", padding_side="left"
    )


def model_in(
    path,
    table=None,
    *,
    words=PLAIN_WORDS,
    eos="</s>",
    bos=True,
    ends=False,
    sees=False,
    layers=16,
    generation=None,
    processor=None,
    template=CHAT_TEMPLATE,
    tied=False,
    shard=None,
    image_is_token=True,
    image_size=56,
    tokens=4096,
):
    """A LLaVA directory. `table`: piece -> {piece that may follow: logit}."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tokenizer_of(words, eos, bos, ends, image_is_token)
    size = len(tokenizer)
    width = -(-(size + 16) // 32) * 32
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=image_size,
            patch_size=14,
            projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=size,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=tokens,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=tied,
        ),
        image_token_id=4,
        image_seq_length=(image_size // 14) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=tied,
    )
    model = LlavaForConditionalGeneration._from_config(config)
    table = table or {":": {"Ġred": 9.0}, "Ġred": {"</s>": 9.0}}
    number = tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.fill_(1.0)
            else:
                weight.zero_()
        embedding = model.get_input_embeddings().weight
        embedding[torch.arange(size), torch.arange(size)] = 1.0
        if not tied:
            head = model.get_output_embeddings().weight
            for before, following in table.items():
                for after, logit in following.items():
                    # A one-hot of this width leaves the last norm times the root of the width.
                    head[number(after), number(before)] = logit / width**0.5
        if sees:
            _let_see(model, width, size, head, [number(f"Ġ{name}") for name in PAINT])
    settings = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "do_sample": False}
    for name, value in {**settings, **(generation or {})}.items():
        setattr(model.generation_config, name, value)
    images = CLIPImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
    )
    given = {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
        "chat_template": template,
        **(processor or {}),
    }
    made = LlavaProcessor(image_processor=images, tokenizer=tokenizer, **given)
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path, **({"max_shard_size": shard} if shard else {}))
    made.save_pretrained(path)
    if generation:  # as people write it by hand: nothing checks it
        file = path / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **generation}))
    return path


def _let_see(model, width, size, head, words):
    import torch

    core = model.model
    with torch.no_grad():
        tower = core.vision_tower
        tower = getattr(tower, "vision_model", tower)
        patches = tower.embeddings.patch_embedding.weight
        for channel in range(3):
            patches[channel, channel] = 1.0 / patches[0, 0].numel()
            core.multi_modal_projector.linear_1.weight[channel, channel] = 4.0
            core.multi_modal_projector.linear_2.weight[size + channel, channel] = 4.0
            attention = core.language_model.layers[0].self_attn
            attention.v_proj.weight[channel, size + channel] = 1.0
            attention.o_proj.weight[size + 4 + channel, channel] = 0.1
            head[words[channel], size + 4 + channel] = 4.0


COLOURS = {
    ":": {"Ġred": 20.0, "Ġgreen": 20.0, "Ġblue": 20.0},
    **{f"Ġ{name}": {"</s>": 90.0} for name in PAINT},
}
BUDGET = ("--budget", "60%")


def asked(folder, pictures, answer=None, question="What color is the ball?", **columns):
    """`samples.jsonl` with a question for each (name, colour, split, more...) of pictures."""
    rows = []
    for number, (name, colour, split) in enumerate(pictures):
        path = folder / name
        if not path.exists():
            picture(path, colour, number)
        row = {"id": f"s{number}", "image": name, "question": question, "answers": [answer or colour]}
        row |= {"class": "attribute", **columns}
        if split:
            row["split"] = split
        rows.append(row)
    return lines(folder / "samples.jsonl", rows)


def every_split(each=2, colour="red"):
    return [(f"p/{s}{n}.png", colour, s) for s in ("calibration", "selection", "test") for n in range(each)]


def evaluated(folder, samples, model, prompt=None, **how):
    """search and evaluate without a cache: the last outcome, or that of the first that failed, and all words."""
    common = ("--run", folder / "run", "--model", model, "--samples", samples)
    steps = [
        ("search", *common, *BUDGET, "--recompute", *(("--prompt", prompt) if prompt else ())),
        ("evaluate", *common, "--recompute", "--timed", "0", "--json"),
    ]
    told = ""
    for step in steps:
        ran = cli(*step, **how)
        if ran.code != 0 or ran.stopped:
            return ran, told + ran.text
        told += ran.text
    return ran, told


def scores(folder, setting="unpruned"):
    """Sample -> score, as evaluate recorded it."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "run" / "artifact" / "study" / "scores.parquet").to_pylist()
    return {row["sample"]: row["score"] for row in rows if row["setting"] == setting}


def said(folder, model, image="p/test0.png", question="What color is the ball?"):
    """What `generate` answers, with the run's artifact and without pruning."""
    place = ("--run", folder / "run", "--model", model, "--image", folder / image, "--prompt", question)
    found = fine(cli("generate", *place, "--class", "attribute", "--compare", "--json")).json()
    return found["unpruned"]["text"]


ACCEPTED = """
import json, sys
from pathlib import Path
from clasp_calib import load_samples
from clasp_calib.common.errors import ClaspError
path = Path(sys.argv[1])
columns = dict(pair.split("=") for pair in sys.argv[2:])
try:
    rows = load_samples(path, columns=columns)
except ClaspError as error:
    print(str(error), file=sys.stderr)
    sys.exit(2)
print(json.dumps({row.id: list(row.answers) for row in rows}))
"""


def accepted(path, *columns):
    """Id -> accepted answers, as every command reads them; a `Ran` where the table is refused."""
    ran = unharmed(python(ACCEPTED, path, *columns))
    return ran.json() if ran.code == 0 else ran


SCORED = """
import json, sys
from clasp_calib.calib.scoring.metrics import metric
from clasp_calib.common.errors import ClaspError
found = []
for name, answer, references in json.loads(sys.argv[1]):
    try:
        found.append(metric(name)(answer, references))
    except ClaspError as error:
        found.append(str(error))
print(json.dumps({"scores": found}))
"""


def worth(*asked_of):
    """What answers are worth: (metric, answer, references) each."""
    return fine(python(SCORED, json.dumps(asked_of))).json()["scores"]


# A server that answers as it is told.


@contextlib.contextmanager
def server(answer, models=None):
    """`answer(handler, body)` writes the reply to a question; gives the API's root and the list of requests."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, content, headers=()):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            with contextlib.suppress(OSError):
                if models:
                    models(self)
                else:
                    self.reply(200, {"data": [{"id": "labeler"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((time.monotonic(), dict(self.headers), body))
            with contextlib.suppress(OSError):
                answer(self, body)

    class Threads(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    made = Threads(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/v1", seen
    finally:
        made.shutdown()
        made.server_close()


def chosen(content='{"intent":"counting"}', logprobs=None, finish="stop"):
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = logprobs
    return {"choices": [choice]}


def labelled(folder, url, *more, questions=3, **how):
    """`label` with a server; three questions unless told."""
    rows = [{"id": str(n), "question": f"How many birds sit on wire {n}?"} for n in range(questions)]
    lines(folder / "ask.jsonl", rows)
    words = ("label", folder / "ask.jsonl", "--run", folder / "run", "--backend", "server", "--base-url", url)
    return cli(*words, "--concurrency", "1", *more, **how)


# Caches and artifacts.

FILL = """
import sys, torch
from pathlib import Path
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.form import Form
from clasp_calib.cache.precision import precision_of
from clasp_calib.cache.writer import FeatureWriter
root, pictures, layout = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
form = Form(32, precision_of("float16"), 16)
with FeatureWriter(root, "made", [1, 2], form, FeatureOptions(shard_bytes=1, layout=layout)) as store:
    for number in range(pictures):
        values = torch.full((2, 16, 32), float(number % 100), dtype=torch.float16)
        store.put([f"{number:064x}"], [store.precision.encode(values)])
"""


def cache_in(root, pictures, layout="direct"):
    """A feature cache with a shard for each picture."""
    fine(python(FILL, root, str(pictures), layout))
    return root


def shards(root):
    return sorted(root.glob("shard-*.h5"))


def one_line(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sealed(directory, change):
    """Change an artifact's manifest, then give it the fingerprint, file hashes and id that it would have."""
    path = directory / "artifact.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    with contextlib.suppress(Exception):
        manifest["fingerprint"] = hashlib.sha256(one_line(manifest["shape"]).encode()).hexdigest()
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    manifest.pop("id", None)
    manifest["id"] = hashlib.sha256(one_line(manifest).encode()).hexdigest()
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return directory


def shared_in(name, make):
    """Something slow that several cases of one run need: made once, then copied."""
    base = Path(os.environ["CASES_SHARED"])
    place, mark = base / name, base / f"{name}.made"
    if not mark.exists():
        shutil.rmtree(place, ignore_errors=True)
        make(place)
        mark.touch()
    return place


def colour_model():
    return shared_in("colours", lambda place: model_in(place, COLOURS, sees=True))


def calibrated():
    """A run directory with a model, samples and an evaluated artifact."""

    def make(place):
        place.mkdir()
        model = shutil.copytree(colour_model(), place / "model")
        pictures = []
        for split in ("calibration", "selection", "test"):
            pictures += [(f"p/{split}{n}.png", name, split) for n, name in enumerate(PAINT)]
        ran, told = evaluated(place, asked(place, pictures), model)
        check(ran.code == 0, f"no artifact could be made: {told[-300:]}")

    return shared_in("calibrated", make)


def artifact_in(folder):
    return Path(shutil.copytree(calibrated() / "run" / "artifact", folder / "artifact"))


# Exact scores, and what the model says.


@case("model that ends with a second eos id", "`exact` and generation agree: the answer counts")
def eos_second_of_list(folder):
    table = {":": {"Ġred": 9.0}, "Ġred": {"<eot>": 9.0}, "<eot>": {"<eot>": 9.0}}
    model = model_in(folder / "model", table, generation={"eos_token_id": [2, 5]})
    ran, _told = evaluated(folder, asked(folder, every_split()), model)
    fine(ran)
    answer, found = said(folder, model), scores(folder)
    check(answer == "red", f"generate says {answer!r}, expected 'red'")
    check(set(found.values()) == {1.0}, f"generate says 'red', which is accepted, and exact scores {found}")


@case("model whose generation_config has another eos id than its tokenizer", "`exact` and generation agree")
def eos_other_than_tokenizers(folder):
    table = {":": {"Ġtwo": 9.0}, "Ġtwo": {"<eot>": 9.0}, "<eot>": {"<eot>": 9.0}}
    model = model_in(folder / "model", table, generation={"eos_token_id": 5})
    ran, _told = evaluated(folder, asked(folder, every_split(), "two"), model)
    fine(ran)
    found = scores(folder)
    check(set(found.values()) == {1.0}, f"the model answers 'two' and ends, and exact scores {found}")


@case("prompt template that ends in a space", "the answer counts as generated, or the template is refused")
def prompt_ends_in_space(folder):
    model = model_in(folder / "model", {"Ġ": {"red": 9.0}, "red": {"</s>": 9.0}})
    samples = asked(folder, every_split())
    ran, _told = evaluated(folder, samples, model, "USER: <image>\n{question} ASSISTANT: ")
    unharmed(ran)
    if ran.code == 2:
        refused(ran, ("space", "white"))
        return
    found = scores(folder)
    check(set(found.values()) == {1.0}, f"the model answers 'red' behind the space, and exact scores {found}")


@case("suppress_tokens in generation_config.json", "scores as generated, or a word that it is not applied")
def suppressed_tokens(folder):
    words = tokenizer_of().convert_tokens_to_ids(["Ġred"])
    table = {":": {"Ġred": 9.0, "Ġblue": 8.0}, "Ġred": {"</s>": 9.0}, "Ġblue": {"</s>": 9.0}}
    model = model_in(folder / "model", table, generation={"suppress_tokens": words})
    ran, told = evaluated(folder, asked(folder, every_split()), model)
    fine(ran)
    answer, found = said(folder, model), set(scores(folder).values())
    told_of = "suppress_tokens" in told
    check(
        told_of or found == {float(answer == "red")}, f"generate says {answer!r}, exact scores 'red' {found}, no word"
    )


@case("num_beams in generation_config.json", "`generate` is greedy as the calibration is, or says that it is not")
def beams_in_generation_config(folder):
    # Greedy takes red; the best pair of tokens is that which begins with blue.
    table = {
        ":": {"Ġred": 9.0, "Ġblue": 8.8},
        "Ġred": {"</s>": 5.0, **{f"Ġ{word}": 4.9 for word in ("two", "none", "yes", "no")}},
        "Ġblue": {"</s>": 20.0},
    }
    model = model_in(folder / "model", table, generation={"num_beams": 4})
    ran, told = evaluated(folder, asked(folder, every_split()), model)
    fine(ran)
    answer, found = said(folder, model), set(scores(folder).values())
    agree = found == {float(answer == "red")}
    check(agree or "num_beams" in told, f"generate says {answer!r}, exact scores 'red' {found}, no word")


@case("accepted answer of more tokens than are generated", "a word about the limit, or enough tokens")
def longer_than_the_limit(folder):
    words = [f"{a}{b}" for a in "bcdfg" for b in ("ab", "ed", "in", "os")]
    table = {":": {f"Ġ{words[0]}": 9.0}, f"Ġ{words[-1]}": {"</s>": 9.0}}
    table |= {f"Ġ{one}": {f"Ġ{two}": 9.0} for one, two in itertools.pairwise(words)}
    model = model_in(folder / "model", table, words=words)
    samples = asked(folder, every_split(), " ".join(words), metric="exact_match")
    ran, told = evaluated(folder, samples, model)
    unharmed(ran)
    if ran.code == 2:
        refused(ran, ("token", "long"))
        return
    found = set(scores(folder).values())
    check(
        found == {1.0} or "16" in told, f"the model says these {len(words)} words, exact_match scores {found}, no word"
    )


# Answers as they are read.


@case("VQAv2's list of answers with confidence and id, in JSONL", "the texts are accepted, or it is refused")
def vqav2_answers(folder):
    given = [
        {"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(["net"] * 9 + ["mesh"])
    ]
    found = accepted(lines(folder / "s.jsonl", [{"id": "1", "question": "What is it?", "answers": given}]))
    if isinstance(found, Ran):
        refused(found, "answer")
        return
    check(found == {"1": ["net"] * 9 + ["mesh"]}, f"read as {found['1'][:2]}")


@case("answers that are 3, 2.5 and null in one JSONL column", "'3', '2.5' and none")
def mixed_numbers(folder):
    rows = [{"id": n, "question": "How many?", "answers": a} for n, a in (("a", 3), ("b", 2.5), ("c", None))]
    found = accepted(lines(folder / "s.jsonl", rows))
    if isinstance(found, Ran):
        refused(found, "answer")
        return
    check(found == {"a": ["3"], "b": ["2.5"], "c": []}, f"read as {found}")


@case("datasets' ClassLabel as answers", "the names, not their numbers")
def class_label(folder):
    make = """
import sys, datasets
kinds = datasets.ClassLabel(names=["kite", "boat"])
features = datasets.Features({"question": datasets.Value("string"), "answers": kinds})
rows = {"question": ["What is it?", "What is that?"], "answers": [1, 0]}
datasets.Dataset.from_dict(rows, features).save_to_disk(sys.argv[1])
"""
    fine(python(make, folder / "saved"))
    ran = unharmed(cli("label", folder / "saved", "--run", folder / "run"))
    if ran.code == 2:
        refused(ran, ("classlabel", "answers"))
        return
    found = accepted(folder / "run" / "labels.parquet")
    check(list(found.values()) == [["boat"], ["kite"]], f"read as {found}")


@case("CSV answers `two | none`", "'two' and 'none'")
def csv_spaces(folder):
    (folder / "s.csv").write_text('id,question,answers\n1,How many cups?,two | none\n2,What?,"a, b |c"\n')
    found = accepted(folder / "s.csv")
    check(found == {"1": ["two", "none"], "2": ["a, b", "c"]}, f"read as {found}")


@case("list column that pandas wrote to CSV", "the texts in the list, or it is refused: never the list as one text")
def csv_of_a_list_column(folder):
    (folder / "s.csv").write_text(
        "id,question,answers\n1,How many cups?,\"['3', 'three']\"\n2,Where?,\"['left' 'on the left']\"\n"
    )
    found = accepted(folder / "s.csv")
    if isinstance(found, Ran):
        refused(found, "answers")
        return
    check("['3', 'three']" not in found["1"], f"read as {found}")


@case("exact_match of numbers that differ in their sign", "not equal")
def sign_is_not_punctuation(folder):
    found = worth(
        ("exact_match", "5", ["-5"]), ("exact_match", "-5", ["-5"]), ("exact_match", "well-known", ["well known"])
    )
    check(found[:2] == [0.0, 1.0], f"'5' for '-5' and '-5' for '-5' score {found[:2]}")


@case("exact_match of composed and decomposed letters", "equal")
def composed_and_decomposed(folder):
    pairs = [
        [unicodedata.normalize(form, word) for form in ("NFC", "NFD")] for word in ("café crème", "Ångström", "한국")
    ]
    found = worth(*[("exact_match", one, [other]) for one, other in pairs])
    check(found == [1.0, 1.0, 1.0], f"the same words score {found}")


@case("numeric answers without a leading zero", ".5 is one half")
def half_without_zero(folder):
    found = worth(("numeric", "5", [".5"]), ("numeric", "0.5", [".5"]), ("numeric", "about .5 m", ["0.5"]))
    check(found == [0.0, 1.0, 1.0], f"'5', '0.5' for '.5' and 'about .5 m' for '0.5' score {found}")


@case("ScienceQA's answer as the number of the option, with multiple_choice", "refused: it names no letter")
def option_by_number(folder):
    rows = [
        {"question": "Which? A. ice B. fog", "image": f"p/{s}{n}.png", "answer": n, "metric": "multiple_choice"}
        for s in ("calibration", "selection", "test")
        for n in range(2)
    ]
    for row in rows:
        picture(folder / row["image"], grain=len(row["image"]))
    ran = cli("label", lines(folder / "s.jsonl", rows), "--run", folder / "run", "--column", "answers=answer")
    unharmed(ran)
    if ran.code == 0:
        ran = cli("search", "--run", folder / "run", "--model", colour_model(), *BUDGET, "--recompute", "--plan")
    refused(ran, ("letter", "option", "multiple_choice"))


# Broken models.


def without(model, *names, rename=None, change=None):
    from safetensors.torch import load_file, save_file

    file = model / "model.safetensors"
    tensors = load_file(file)
    for name in names:
        hits = [key for key in tensors if name in key]
        check(hits, f"no tensor is called {name}")
        for key in hits:
            del tensors[key]
    if rename:
        tensors = {rename(key): value for key, value in tensors.items()}
    if change:
        change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return model


def answers_by(model, folder, *more):
    place = ("--run", folder / "elsewhere", "--model", model, "--image", picture(folder / "one.png"))
    return cli("generate", *place, "--prompt", "What color is it?", "--budget", "100%", *more)


@case("checkpoint that lacks a decoder weight", "refused, with the weight's name")
def decoder_weight_missing(folder):
    model = without(model_in(folder / "model"), "layers.1.mlp.down_proj.weight")
    refused(answers_by(model, folder), ("down_proj", "weight"))


@case("checkpoint whose weights are named as PEFT names them", "refused: the weights are not this model's")
def names_of_peft(folder):
    model = without(model_in(folder / "model"), rename=lambda key: f"base_model.model.{key}")
    refused(answers_by(model, folder), "weight")


@case("checkpoint with a NaN", "refused or stopped with a word about numbers that are not finite")
def nan_in_checkpoint(folder):
    def spoil(tensors):
        key = next(key for key in tensors if "lm_head" in key)
        tensors[key][7, 3] = float("nan")

    model = without(model_in(folder / "model"), change=spoil)
    samples = asked(folder, every_split())
    ran, _told = evaluated(folder, samples, model)
    refused(ran, ("finite", "nan", "not a number"))


@case("processor without patch_size", "refused: the processor is named, not the pictures")
def no_patch_size(folder):
    model = model_in(folder / "model")
    file = model / "processor_config.json"
    settings = json.loads(file.read_text())
    settings.pop("patch_size", None)
    file.write_text(json.dumps(settings))
    samples = asked(folder, every_split())
    ran = cli("cache-features", "--run", folder / "run", "--model", model, "--samples", samples)
    refused(ran, "patch_size")
    check("mend these" not in ran.err, f"the pictures are blamed: {ran.brief}")


@case("sharded checkpoint without its index", "refused, with the index's name; no traceback")
def sharded_without_index(folder):
    model = model_in(folder / "model", shard="100KB")
    (model / "model.safetensors.index.json").unlink()
    ran = answers_by(model, folder)
    refused(ran, ("model.safetensors", "index"))


@case("tokenizer that does not know <image>", "refused, with the token's name; no traceback")
def image_is_no_token(folder):
    model = model_in(folder / "model", image_is_token=False)
    samples = asked(folder, every_split())
    ran = cli("search", "--run", folder / "run", "--model", model, "--samples", samples, *BUDGET, "--recompute")
    refused(ran, "<image>")


@case(
    "tokenizer that appends an end-of-sequence token", "scored as answered without it, or refused with a word about it"
)
def eos_appended(folder):
    model = model_in(folder / "model", ends=True)
    samples = asked(folder, every_split())
    ran, _told = evaluated(folder, samples, model)
    unharmed(ran)
    if ran.code == 2:
        refused(ran, ("eos", "</s>", "end of sequence", "end-of-sequence"))
        return
    found = scores(folder)
    check(set(found.values()) == {1.0}, f"exact scores {found}")


@case("a wrapper around a model, as PeftModel is one", "a clasp_calib error that names the class, no AttributeError")
def wrapped_model(folder):
    code = """
import sys, torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
from clasp_calib import clasp
from clasp_calib.common.errors import ClaspError
class Layers(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.model = inner
    def forward(self, *given, **words):
        return self.model(*given, **words)
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)
class Adapted(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base_model = Layers(base)
        self.peft_config, self.config = {"default": None}, base.config
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":
                raise
            return getattr(self.base_model, name)
    def forward(self, *given, **words):
        return self.base_model(*given, **words)
    def generate(self, *given, **words):
        return self.base_model.model.generate(*given, **words)
model = Adapted(LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval())
processor = AutoProcessor.from_pretrained(sys.argv[1])
text = "USER: <image>\\nWhat color? ASSISTANT:"
inputs = processor(images=Image.new("RGB", (56, 56), (200, 20, 20)), text=text, return_tensors="pt")
try:
    with clasp(model, sys.argv[2], budget="60%", classes="attribute") as pruner:
        model.generate(**inputs, max_new_tokens=2)
        assert pruner.stats.tokens[0][-1] < 16, "nothing was pruned, without a word"
except ClaspError as error:
    print("refused", error)
"""
    fine(python(code, calibrated() / "model", artifact_in(folder)))


@case("model whose chat template is not LLaVA-1.5's", "`search` takes it")
def other_chat_template(folder):
    template = (
        "{% for m in messages %}[INST] {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
        "{% else %}{{ part.text }}{% endif %}{% endfor %} [/INST]{% endfor %}"
    )
    table = {"]": {"Ġred": 9.0}, "Ġred": {"</s>": 9.0}, ":": {"Ġblue": 9.0}, "Ġblue": {"</s>": 9.0}}
    model = model_in(folder / "model", table, template=template)
    samples = asked(folder, every_split())
    ran, _ = evaluated(folder, samples, model)
    fine(ran)
    found = set(scores(folder).values())
    check(found == {1.0}, f"asked by its own template it says 'red'; exact scores {found}")


@case("model without a chat template", "refused in words that name --prompt; taken with it")
def no_chat_template(folder):
    model = model_in(folder / "model", template=None)
    samples = asked(folder, every_split())
    ran, _ = evaluated(folder, samples, model)
    check(ran.code == 2 and "no chat template" in ran.text and "--prompt" in ran.text, ran.brief)
    fine(evaluated(folder, samples, model, prompt="USER: <image>\n{question} ASSISTANT:")[0])


# One picture under several names.


@case("byte-equal copies of a picture, no split given", "all copies are in one split")
def copies_are_divided_together(folder):
    pictures = []
    for number in range(8):
        first = picture(folder / f"a/{number}.png", list(PAINT)[number % 3], number)
        pictures.append((f"a/{number}.png", list(PAINT)[number % 3], None))
        for copy in "bcd":
            (folder / copy).mkdir(exist_ok=True)
            shutil.copy(first, folder / copy / f"{copy}{number * 37}.png")
            pictures.append((f"{copy}/{copy}{number * 37}.png", list(PAINT)[number % 3], None))
    fine(cli("sample", asked(folder, pictures), "--run", folder / "run", "--per-class", "16"))
    import pyarrow.parquet as pq

    where = {}
    for row in pq.read_table(folder / "run" / "sample.parquet").to_pylist():
        digest = hashlib.sha256((folder / "run" / row["image"]).read_bytes()).hexdigest()
        where.setdefault(digest, set()).add(row["split"])
    spread = sum(len(splits) > 1 for splits in where.values())
    check(spread == 0, f"{spread} of {len(where)} different pictures are in several splits")


@case("pictures named N/image.png, no split given", "they are divided, not all in one split")
def one_folder_a_picture(folder):
    pictures = [(f"{number}/image.png", list(PAINT)[number % 3], None) for number in range(24)]
    samples = asked(folder, pictures)
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", samples)
    ran = cli("search", *place, *BUDGET, "--recompute")
    unharmed(ran)
    if ran.code == 0:
        ran = cli("evaluate", *place, "--recompute", "--timed", "0")
    fine(ran)
    found = scores(folder)
    check(0 < len(found) < 20, f"{len(found)} of 24 pictures are in the test split")


@case("one file spelled in two ways, in two splits", "refused: it is one picture")
def one_file_two_spellings(folder):
    picture(folder / "p/one.png")
    os.symlink(folder / "p", folder / "link")
    pictures = [
        ("p/one.png", "red", "calibration"),
        ("link/../p/one.png", "red", "test"),
        ("p/two.png", "red", "selection"),
    ]
    (folder / "p" / "sub").mkdir()
    samples = asked(folder, pictures)
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", samples)
    ran = cli("search", *place, *BUDGET, "--recompute", "--plan")
    refused(ran, ("split", "splits"))


# Readers.


def readme_block():
    import clasp_calib

    page = Path(clasp_calib.__file__).parents[1] / "README.md"
    if not page.exists():
        return None
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    found = [block.split("```")[0] for block in blocks if "processor(" in block]
    return found[0] if found else None


@case("README's Python on a photo that its EXIF turns", "the model sees it upright, as the commands do")
def readme_on_a_turned_photo(folder):
    block = readme_block()
    if block is None:
        return
    from PIL import Image

    picture(folder / "pictures/flat.png", size=(64, 64))
    upright = Image.new("RGB", (64, 64))
    upright.paste((250, 250, 250), (0, 0, 64, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "pictures/street.jpg", exif=exif, quality=95)
    upright.save(folder / "upright.png")
    shutil.copytree(calibrated() / "model", folder / "my-llava")
    (folder / "my-run").mkdir()
    artifact_in(folder / "my-run")
    block = block.replace("budget=192", 'budget="60%"')
    test = """
upright = processor(images=Image.open("upright.png").convert("RGB"), text=prompt, return_tensors="pt")
apart = float((upright["pixel_values"] - inputs["pixel_values"]).abs().mean())
print("apart", apart)
assert apart < 0.05, f"the photo is seen turned: mean difference {apart:.2f}"
"""
    ran = python(block + test, cwd=folder)
    check(ran.code == 0, ran.brief)


@case("a key that stands twice in a JSONL row", "refused, with the line")
def key_twice_in_json(folder):
    (folder / "s.jsonl").write_text('{"id": "1", "question": "Is it open?", "answers": ["yes"], "answers": ["no"]}\n')
    ran = cli("label", folder / "s.jsonl", "--run", folder / "run")
    refused(ran, "answers", ("line 1", "twice", "duplicate"))


@case("CSV field of 200,000 characters", "read, or refused in a line")
def long_csv_field(folder):
    (folder / "s.csv").write_text("id,question,notes\n1,How many?," + "x" * 200_000 + "\n")
    ran = unharmed(cli("label", folder / "s.csv", "--run", folder / "run"))
    if ran.code != 0:
        refused(ran, ("field", "row", "line"))


@case("ids beyond 64 bits in JSONL", "kept as they are, or refused in a line")
def huge_ids(folder):
    rows = [{"id": 2**70 + n, "question": "How many?", "answers": ["1"]} for n in range(2)]
    ran = cli("label", lines(folder / "s.jsonl", rows), "--run", folder / "run")
    unharmed(ran)
    if ran.code == 2:
        refused(ran, ("id", "number"))
        return
    found = accepted(folder / "run" / "labels.parquet")
    check(list(found) == [str(row["id"]) for row in rows], f"the ids became {list(found)}")


@case("Parquet with pictures as structs of bytes and path", "read, or refused in a line that says what to do")
def parquet_with_bytes(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    body = picture(folder / "p.png", size=(128, 128)).read_bytes()
    table = pa.table({"question": ["How many?"], "image": [{"bytes": body, "path": "p.png"}], "answers": [["1"]]})
    pq.write_table(table, folder / "s.parquet")
    ran = cli("label", folder / "s.parquet", "--run", folder / "run")
    unharmed(ran)
    if ran.code == 2:
        refused(ran, "image", ("path", "save_to_disk", "dataset", "file"), longest=1000)


@case("PNG of 1 x 20000 pixels", "left out or encoded, within 4 GiB", 200)
def narrow_png(folder):
    flat_png(folder / "tall.png", 1, 20_000)
    pictures = [("tall.png", "red", "calibration"), ("p/a.png", "red", "selection"), ("p/b.png", "red", "test")]
    model = model_in(folder / "model", image_size=336)
    place = ("--run", folder / "run", "--model", model, "--samples", asked(folder, pictures))
    fine(cli("cache-features", *place, seconds=120))


@case("HTTP_PROXY is set, the label server is on this machine", "the loopback address is reached without the proxy")
def proxy_and_loopback(folder):
    dead = "http://127.0.0.1:9"
    with server(lambda handler, body: handler.reply(200, chosen())) as (url, _seen):
        fine(labelled(folder, url, env={"HTTP_PROXY": dead, "http_proxy": dead, "ALL_PROXY": dead, "all_proxy": dead}))


@case("NUL in a picture's path", "refused in a line")
def nul_in_path(folder):
    rows = [
        {"id": s, "question": "How many?", "image": "a\0b.png", "answers": ["1"], "split": s, "class": "counting"}
        for s in ("calibration", "selection", "test")
    ]
    samples = lines(folder / "s.jsonl", rows)
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", samples)
    refused(cli("search", *place, *BUDGET, "--recompute", "--plan"), ("null", "nul", "\\x00", "path"))


@case("NUL in a picture's path, cache-features", "the picture is left out or refused, no traceback")
def nul_in_path_cached(folder):
    rows = [
        {"id": "1", "question": "How many?", "image": "a\0b.png"},
        {"id": "2", "question": "How many?", "image": "p.png"},
    ]
    picture(folder / "p.png")
    samples = lines(folder / "s.jsonl", rows)
    unharmed(cli("cache-features", "--run", folder / "run", "--model", colour_model(), "--samples", samples))


@case("picture path that is a folder of frames", "refused: it is a directory, not that it does not exist")
def folder_of_frames(folder):
    for n in range(2):
        picture(folder / f"clip/frame{n}.png", grain=n)
    rows = [
        {"id": s, "question": "How many?", "image": "clip", "answers": ["1"], "split": s, "class": "counting"}
        for s in ("calibration", "selection", "test")
    ]
    rows[0]["split"] = rows[1]["split"] = rows[2]["split"] = "calibration"
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", lines(folder / "s.jsonl", rows))
    ran = refused(cli("search", *place, *BUDGET, "--recompute", "--plan"), ("directory", "folder"))
    check("does not exist" not in ran.err, ran.brief)


@case("NaN in JSONL answers, as pandas leaves for nothing", "no answer, or refused: never the text 'nan'")
def nan_answers(folder):
    (folder / "s.jsonl").write_text(
        '{"id": "1", "question": "How many?", "answers": NaN}\n{"id": "2", "question": "Where?", "answers": ["left"]}\n'
    )
    found = accepted(folder / "s.jsonl")
    if isinstance(found, Ran):
        refused(found, ("line 1", "nan", "answers"))
        return
    check(found["1"] == [], f"read as {found}")


@case("non-ASCII run directory, model, table and picture names", "everything works")
def names_in_other_scripts(folder):
    home = folder / "données été/مجلد 図"
    home.mkdir(parents=True)
    model = shutil.copytree(colour_model(), home / "modèle Ω")
    pictures = [
        (f"фото {split} é/{n} 🖼.png", name, split)
        for split in ("calibration", "selection", "test")
        for n, name in enumerate(PAINT)
    ]
    samples = asked(home, pictures)
    place = ("--run", home / "запуск", "--model", model, "--samples", samples)
    fine(cli("cache-features", *place, env={"LC_ALL": "C", "LANG": "C"}))
    fine(cli("search", *place, *BUDGET, env={"LC_ALL": "C", "LANG": "C"}))


# The cache.


@case("`cache repair` with 64 open files allowed and 80 healthy shards", "every shard is still there", 120)
def repair_with_few_files(folder):
    root = cache_in(folder / "cache", 80)
    before = [path.name for path in shards(root)]
    check(len(before) >= 65, f"only {len(before)} shards were made")
    ran = unharmed(cli("cache", "repair", "--cache", root, files=64))
    lost = set(before) - {path.name for path in shards(root)}
    check(not lost, f"{len(lost)} of {len(before)} healthy shards are gone; {ran.brief}")
    fine(cli("cache", "verify", "--cache", root))


@case("cache index that names a file outside of the cache", "nothing outside is touched; it is refused", 120)
def index_points_outside(folder):
    root = cache_in(folder / "a/cache", 2)
    victim = folder / "letter.txt"
    victim.write_text("dear reader\n" * 100)
    base = sqlite3.connect(root / "index.sqlite")
    base.execute("update shard set file = '../../letter.txt' where id = 1")
    base.commit()
    base.close()
    ran = unharmed(cli("cache", "repair", "--cache", root))
    check(victim.exists(), f"a file outside of the cache was removed; {ran.brief}")
    check(victim.read_text() == "dear reader\n" * 100, "a file outside of the cache was changed")
    refused(ran, ("letter.txt", "outside", "index"))


@case("a slab changes on the disk while a store is open", "the next read tells; no wrong numbers", 120)
def slab_changes_under_reader(folder):
    code = """
import sys
import numpy as np
from pathlib import Path
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import ClaspError
root = Path(sys.argv[1])
with FeatureStore.open(root) as store:
    key = store.pictures()[0]
    weights = np.array([[0.5, 0.5]], dtype=np.float32)
    first = store.fused(key, (1, 2), weights).copy()
    shard = sorted(root.glob("shard-*.h5"))[int(key, 16)]
    body = bytearray(shard.read_bytes())
    body[-1500:-1000] = bytes(255 - b for b in body[-1500:-1000])
    with shard.open("r+b") as file:
        file.write(body)
    try:
        second = store.fused(key, (1, 2), weights)
    except ClaspError as error:
        print("told", error)
    else:
        assert np.array_equal(first, second), "other numbers were given without a word"
"""
    root = cache_in(folder / "cache", 3)
    ran = python(code, root)
    check(ran.code == 0, ran.brief)


@case("display-only journal of a study is damaged", "the search goes on: its scores are elsewhere")
def damaged_display_journal(folder):
    model = colour_model()
    pictures = [
        (f"p/{s}{n}.png", name, s) for s in ("calibration", "selection", "test") for n, name in enumerate(PAINT)
    ]
    words = ("search", "--run", folder / "run", "--model", model, "--samples", asked(folder, pictures), *BUDGET)
    fine(cli(*words, "--recompute"))
    journals = list((folder / "run" / "study").rglob("journal.log"))
    check(journals, "there is no journal.log")
    text = journals[0].read_bytes()
    journals[0].write_bytes(text[: len(text) // 2] + b'\n{"op_code": 77, "broken\n' + text[len(text) // 2 :])
    fine(cli(*words, "--recompute"))


@case("export of a cache to a pipe", "refused: it is not replaced by a file", 60)
def output_is_a_pipe(folder):
    root = cache_in(folder / "cache", 2)
    os.mkfifo(folder / "out")
    refused(cli("cache", "export", "--cache", root, "--format", "kerchunk", "--out", folder / "out"), "pipe")
    check((folder / "out").is_fifo(), "the pipe is gone")


@case("cache whose index lost its end", "a word about shards that it does not know; none is lost", 60)
def index_lost_its_end(folder):
    root = cache_in(folder / "cache", 4, "portable")
    index = root / "index.jsonl"
    index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])
    ran = unharmed(cli("cache", "verify", "--cache", root))
    check("index" in ran.text, f"nothing was said; {ran.brief}")
    fine(cli("cache", "repair", "--cache", root))
    check(len(list(root.rglob("shard-*.h5"))) == 4, "a shard is gone")


@case("a pipe or a device as the storage of trials", "refused in a line", 120)
def storage_is_a_pipe(folder):
    model, samples = colour_model(), asked(folder, every_split())
    os.mkfifo(folder / "trials.log")
    for place in (folder / "trials.log", "/dev/zero"):
        words = ("search", "--run", folder / "run", "--model", model, "--samples", samples, *BUDGET)
        refused(cli(*words, "--recompute", "--storage", f"journal:{place}", seconds=60), ("pipe", "device"), "storage")


# Servers that label.


@case("server whose content is a list of parts", "read, or the default class with the reason; no traceback", 100)
def content_of_parts(folder):
    parts = [{"type": "text", "text": '{"intent":"counting"}'}]
    with server(lambda handler, body: handler.reply(200, chosen(parts))) as (url, _seen):
        unharmed(labelled(folder, url))


@case("server that gives a log-probability of 1e308", "a label; no traceback", 100)
def absurd_logprob(folder):
    tokens = {"content": [{"token": t, "logprob": 1e308} for t in ('{"intent":"', "counting", '"}')]}
    with server(lambda handler, body: handler.reply(200, chosen(logprobs=tokens))) as (url, _seen):
        fine(labelled(folder, url))


@case("server that answers with a gzip bomb", "stopped or default class, within 1.5 GiB", 150)
def gzip_bomb(folder):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(3000)) + packer.flush()

    def answer(handler, body):
        handler.reply(200, bomb, [("Content-Encoding", "gzip"), ("Content-Type", "application/json")])

    with server(answer) as (url, _seen):
        unharmed(labelled(folder, url, questions=2, memory=1536 << 20, seconds=120))


@case("server that trickles its answer, --timeout 2", "three attempts of two seconds each, no longer than 40 s", 120)
def trickle(folder):
    def answer(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(300):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.4)

    with server(answer) as (url, _seen):
        unharmed(labelled(folder, url, "--timeout", "2", questions=1, seconds=40))


@case("API key with a line break in it", "refused without the key in the message", 60)
def key_with_line_break(folder):
    key = "sk-example-7f3a\r\nsecond-part-91"
    with server(lambda handler, body: handler.reply(200, chosen())) as (url, _seen):
        ran = labelled(folder, url, env={"OPENAI_API_KEY": key})
    check("7f3a" not in ran.text and "part-91" not in ran.text, "the key stands in the message")
    refused(ran, ("key", "OPENAI_API_KEY"))


@case("server that repeats the headers it was sent when it refuses", "the key is in no message and no file", 60)
def echo_of_refusal(folder):
    def answer(handler, body):
        handler.reply(401, {"error": {"message": f"bad credentials: {handler.headers['Authorization']}"}})

    with server(answer) as (url, _seen):
        ran = labelled(folder, url, env={"OPENAI_API_KEY": "sk-example-44c1"})
    refused(ran, ("401", "refuses"))
    check("44c1" not in ran.text, "the key stands in the message")


@case("server that lists no models, and one is named", "it is asked for that one", 60)
def models_not_listed(folder):
    with server(lambda handler, body: handler.reply(200, chosen()), lambda h: h.reply(404, b"{}")) as (url, seen):
        fine(labelled(folder, url, "--labeler-model", "alias"))
        check({body["model"] for *_, body in seen} == {"alias"}, "another model was asked for")
        refused(labelled(folder, url), ("404", "--labeler-model"))


@case("server that refuses fields that OpenAI's API does not know", "asked without them, which is said", 60)
def fields_of_vllm_refused(folder):
    def answer(handler, body):
        if "chat_template_kwargs" in body:
            handler.reply(400, {"error": {"message": "Unrecognized request argument supplied: chat_template_kwargs"}})
        else:
            handler.reply(200, chosen())

    with server(answer) as (url, seen):
        ran = fine(labelled(folder, url))
    check("chat_template_kwargs" in ran.err, f"not said; {ran.brief}")
    check(len(seen) == 4, f"three questions took {len(seen)} requests")


@case("addresses with a port or a password that cannot be", "refused in a line, without the password", 60)
def addresses_that_cannot_be(folder):
    for address in ("http://127.0.0.1:70000/v1", "me:hush-7f3a@host/v1", "http://me:hush-7f3a/x@host/v1"):
        ran = refused(labelled(folder, address), ("address", "server"))
        check("7f3a" not in ran.text, f"the password stands in the message; {ran.brief}")


@case("journal of labels without checksums, with another kind of value", "refused with the line; no traceback", 60)
def labels_of_other_types(folder):
    with server(lambda handler, body: handler.reply(200, chosen())) as (url, _seen):
        fine(labelled(folder, url))
        (journal,) = (folder / "run" / "labelling").glob("*.jsonl")
        rows = [json.loads(line.partition(" ")[2]) for line in journal.read_text().splitlines()]
        for wrong in ({"confidence": 7}, {"confidence": float("nan")}, {"raw": ["a"]}, {"intent": ["counting"]}):
            lines(journal, [*rows[:2], rows[2] | wrong, *rows[3:]])
            refused(labelled(folder, url), "line 3", "journal")


# Artifacts from strangers.


@case("artifact that claims 2**62 vision layers", "refused in a line", 200)
def many_vision_layers(folder):
    place = sealed(artifact_in(folder), lambda m: m["shape"].update(vision_layers=2**62))
    refused(cli("artifact", "verify", place, seconds=60), ("vision_layers", "shape", "layers"))


@case("artifact.json nested a thousand deep", "refused in a line", 200)
def deep_manifest(folder):
    place = artifact_in(folder)
    deep = "[" * 990 + "]" * 990
    manifest = json.loads((place / "artifact.json").read_text())
    (place / "artifact.json").write_text(json.dumps(manifest)[:-1] + f', "more": {deep}}}')
    refused(cli("artifact", "show", place, seconds=60), ("artifact.json",))


@case("artifact whose stages start at layer 2**40", "refused where it is used, in a line", 200)
def far_starts(folder):
    place = sealed(artifact_in(folder), lambda m: m.update(starts=[1, 2, 2**40]))
    words = (
        "--model",
        calibrated() / "model",
        "--image",
        calibrated() / "p/test0.png",
        "--prompt",
        "What color is it?",
    )
    refused(cli("generate", *words, "--artifact", place, "--run", folder / "run", seconds=90), ("start", "layer"))


# Options, ends.


@case("`search --strategy race --trials 999 --eta 9`", "refused: these options are for other strategies")
def options_of_other_strategies(folder):
    samples = asked(folder, every_split())
    words = ("search", "--run", folder / "run", "--model", colour_model(), "--samples", samples, *BUDGET)
    ran = cli(*words, "--recompute", "--plan", "--strategy", "race", "--trials", "999", "--eta", "9")
    refused(ran, ("--trials", "trials"))


@case("SIGTERM while pictures are cached", "a word and a code other than 0; the same command then completes")
def told_to_end(folder):
    samples = asked(folder, [(f"p/{n}.png", "red", None) for n in range(400)])
    words = ("cache-features", "--model", colour_model(), "--samples", samples, "--batch", "1")
    ended = 0
    for number, seconds in enumerate((0.5, 1.0, 1.5, 2.0)):
        ran = cli(*words, "--run", folder / f"run{number}", signals=[(seconds, signal.SIGTERM)])
        check("Traceback" not in ran.text, f"a traceback; {ran.brief}")
        if ran.code != 0:
            ended += 1
            check(ran.err.strip(), f"ended by SIGTERM after {seconds} s without a word; {ran.brief}")
        fine(cli(*words, "--run", folder / f"run{number}"))
    check(ended, "the command was always done before it was told to end: the case cannot tell")


@case("search begun with one process and gone on with two", "the same artifact as with one", 400)
def more_workers_later(folder):
    model = colour_model()
    pictures = [
        (f"p/{s}{n}.png", list(PAINT)[n % 3], s) for s in ("calibration", "selection", "test") for n in range(6)
    ]
    samples = asked(folder, pictures)
    common = ("search", "--model", model, "--samples", samples, *BUDGET, "--recompute")
    fine(cli(*common, "--run", folder / "one"))
    shutil.copytree(folder / "one", folder / "two")
    for file in (folder / "two" / "study").rglob("scores.jsonl"):
        kept = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(kept[: len(kept) // 2]))
    shutil.rmtree(folder / "two" / "artifact")
    fine(cli(*common, "--run", folder / "two", "--workers", "2", "--threads", "1", seconds=250))
    one, two = (json.loads((folder / n / "artifact/artifact.json").read_text())["id"] for n in ("one", "two"))
    check(one == two, f"the artifacts differ: {one[:12]}, {two[:12]}")


@case("Ctrl-C before the command has loaded", "a word; no traceback through the package", 180)
def interrupted_early(folder):
    picture(folder / "p.png")
    samples = lines(folder / "s.jsonl", [{"id": "1", "image": "p.png", "question": "How many?"}])
    place = ("--run", folder / "run", "--samples", samples, "--model", colour_model())
    for seconds in (0.4, 0.7, 1.0, 1.4, 1.8, 2.4, 3.0):
        ran = cli("cache-features", *place, apart=True, signals=[(seconds, signal.SIGINT)])
        ours = "Traceback" in ran.text and "clasp_calib" in ran.text.partition("Traceback")[2]
        check(not ours, f"a traceback after {seconds} s; {ran.brief}")


@case(
    "scores cannot be written any more (the file may not grow)",
    "exit 2 with the reason; the same command then completes",
)
def no_room_for_scores(folder):
    pictures = [
        (f"p/{s}{n}.png", list(PAINT)[n % 3], s) for s in ("calibration", "selection", "test") for n in range(8)
    ]
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", asked(folder, pictures), *BUDGET)
    refused(cli("search", *place, "--recompute", largest=3000), ("large", "room", "space", "write"))
    fine(cli("search", *place, "--recompute"))


@case("numeric ids that pandas made floating", "whole numbers, as they were")
def floating_ids(folder):
    import pandas as pd

    frame = pd.DataFrame(
        {"id": [262148000.0, 1234567890123.0], "question": ["Is it?", "Is that?"], "answers": ["yes", "no"]}
    )
    frame.to_parquet(folder / "s.parquet")
    found = accepted(folder / "s.parquet")
    if isinstance(found, Ran):
        refused(found, "id")
        return
    check(list(found) == ["262148000", "1234567890123"], f"the ids became {list(found)}")


@case("JSONL row nested 100,000 deep", "refused with the line", 60)
def deep_row(folder):
    (folder / "s.jsonl").write_text('{"question": "How many?", "more": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    refused(cli("label", folder / "s.jsonl", "--run", folder / "run"), ("line 1", "nested", "deep", "recursion"))


@case("server whose list of models is nested 200,000 deep", "refused in a line", 60)
def nested_models(folder):
    deep = b'{"data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with server(lambda handler, body: handler.reply(200, chosen()), lambda handler: handler.reply(200, deep)) as (
        url,
        _seen,
    ):
        refused(labelled(folder, url), ("answers", "models", "server"))


@case("copy.deepcopy of a model that clasp is applied to", "a copy, or a clasp_calib error; no RecursionError")
def deepcopy_while_pruned(folder):
    code = """
import copy, sys
from transformers import LlavaForConditionalGeneration
from clasp_calib import clasp
from clasp_calib.common.errors import ClaspError
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
try:
    with clasp(model, sys.argv[2], budget="60%", classes="attribute"):
        copy.deepcopy(model)
except ClaspError as error:
    print("refused", error)
copy.deepcopy(model)
"""
    fine(python(code, calibrated() / "model", artifact_in(folder)))


@case("tokenizer without a beginning-of-sequence token", "`exact` and generation agree")
def no_bos(folder):
    model = model_in(folder / "model", bos=False)
    ran, _told = evaluated(folder, asked(folder, every_split()), model)
    fine(ran)
    answer, found = said(folder, model), scores(folder)
    check(answer == "red" and set(found.values()) == {1.0}, f"generate says {answer!r}, exact scores {found}")


@case("folder of Parquet files, as the Hub's data/", "read, or refused with what to give instead", 60)
def folder_of_parquet(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir()
    for number in range(2):
        table = pa.table({"question": ["How many?"], "answers": [["1"]]})
        pq.write_table(table, folder / f"data/train-{number:05}-of-00002.parquet")
    ran = unharmed(cli("label", folder / "data", "--run", folder / "run"))
    if ran.code == 2:
        refused(ran, ("parquet", "sample file", "save_to_disk"))


# More answers, tables and pictures.


def only_these(found, expected):
    check(not isinstance(found, Ran), f"refused: {found.brief if isinstance(found, Ran) else ''}")
    check(found == expected, f"read as {found}")


@case("whole numbers with a gap, in JSONL that pandas wrote", "7, none and 12 as they were", 60)
def floats_of_pandas_in_jsonl(folder):
    import pandas

    frame = pandas.DataFrame({"id": list("abc"), "question": "How many?", "answers": [7, None, 12]})
    frame.to_json(folder / "s.jsonl", orient="records", lines=True)
    only_these(accepted(folder / "s.jsonl"), {"a": ["7"], "b": [], "c": ["12"]})


@case("CSV with a space behind every comma, and quotes behind that", "cells without the space", 60)
def csv_space_behind_commas(folder):
    (folder / "s.csv").write_text('id, question, answers\n1, "What, and why?", red | blue\n')
    only_these(accepted(folder / "s.csv"), {"1": ["red", "blue"]})


@case("datasets' ClassLabel within annotations", "the names, not their numbers", 60)
def class_label_in_annotations(folder):
    make = """
import sys, datasets
kinds = {"answer": datasets.ClassLabel(names=["kite", "boat"])}
features = datasets.Features({"id": datasets.Value("string"), "question": datasets.Value("string"), "answers": [kinds]})
rows = {"id": ["a"], "question": ["What is it?"], "answers": [[{"answer": 1}, {"answer": 0}]]}
datasets.Dataset.from_dict(rows, features).save_to_disk(sys.argv[1])
"""
    fine(python(make, folder / "saved"))
    only_these(accepted(folder / "saved"), {"a": ["boat", "kite"]})


@case("Parquet files of one split, columns in another order and one empty", "one table", 60)
def shards_in_other_order(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir()
    rows = {"id": ["a"], "question": ["What?"], "answers": [["x"]], "note": pa.nulls(1)}
    pq.write_table(pa.table(rows), folder / "data" / "train-00000-of-00002.parquet")
    rows = {"note": ["n"], "answers": [["y"]], "question": ["Where?"], "id": ["b"]}
    pq.write_table(pa.table(rows), folder / "data" / "train-00001-of-00002.parquet")
    only_these(accepted(folder / "data"), {"a": ["x"], "b": ["y"]})


@case("two columns that change places by --column", "each is read as the other", 60)
def columns_change_places(folder):
    samples = lines(folder / "s.jsonl", [{"id": "a", "question": "red", "answers": "What color is the ball?"}])
    only_these(accepted(samples, "question=answers", "answers=question"), {"a": ["red"]})


@case("--column with a name that is misspelt", "refused, with the names that there are", 60)
def column_of_no_meaning(folder):
    samples = lines(folder / "s.jsonl", [{"id": "a", "question": "What color is the ball?", "gold": "red"}])
    ran = cli("label", samples, "--run", folder / "run", "--column", "anwsers=gold")
    refused(ran, "anwsers", "answers")


@case("pandas' float32 and its NA among pictures", "0.1 is 0.1, and no picture is none", 60)
def frame_of_short_floats(folder):
    code = """
import json, numpy, pandas
from clasp_calib import load_samples
frame = pandas.DataFrame({"question": ["a", "b"], "answers": numpy.array([0.1, 3], "float32")})
frame["image"] = pandas.array(["a.png", None], "string")
print(json.dumps({"found": [[*one.answers, one.image and str(one.image)] for one in load_samples(frame)]}))
"""
    found = fine(python(code)).json()["found"]
    check(found == [["0.1", "a.png"], ["3", None]], f"read as {found}")


@case("picture that is an address", "refused: it has to be fetched first", 60)
def address_as_picture(folder):
    rows = [
        {"id": s, "question": "What color?", "image": f"https://a.org/{s}.png", "answers": ["red"], "split": s}
        for s in ("calibration", "selection", "test")
    ]
    samples = lines(folder / "s.jsonl", [row | {"class": "attribute"} for row in rows])
    place = ("--run", folder / "run", "--model", colour_model(), "--samples", samples)
    refused(cli("search", *place, *BUDGET, "--recompute", "--plan"), "fetch")


@case("options named as models name them", "the letter counts", 60)
def option_in_a_phrase(folder):
    told = ["Answer: B", "Option B", "B\n\nA is too small.", "(B)", "The answer is B."]
    found = worth(*(("multiple_choice", answer, ["B"]) for answer in told))
    check(found == [1.0] * len(told), f"scored {dict(zip(told, found, strict=True))}")


@case("test pictures that the artifact was calibrated on, in another table", "a word that they may be")
def tested_on_what_was_tuned_on(folder):
    run = shutil.copytree(calibrated() / "run", folder / "run")
    rows = [json.loads(line) for line in (calibrated() / "samples.jsonl").read_text().splitlines()]
    turned = {"calibration": "test", "test": "calibration", "selection": "selection"}
    rows = [row | {"split": turned[row["split"]], "image": str(calibrated() / row["image"])} for row in rows]
    samples = lines(folder / "samples.jsonl", rows)
    place = ("--run", run, "--model", calibrated() / "model", "--samples", samples)
    ran = unharmed(cli("evaluate", *place, "--recompute", "--timed", "0"))
    check("calibrated on" in " ".join(ran.text.split()) or ran.code == 2, ran.brief)


@case("icon of 16 x 16 that holds a picture of 1 x 20000", "left out, within 4 GiB")
def icon_of_a_narrow_png(folder):
    inner = flat_png(folder / "tall.png", 1, 20_000).read_bytes()
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    (folder / "tall.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner)
    pictures = [("tall.ico", "red", "calibration"), ("p/a.png", "red", "test")]
    model = model_in(folder / "model", image_size=336)
    place = ("--run", folder / "run", "--model", model, "--samples", asked(folder, pictures))
    found = fine(cli("cache-features", *place, "--json", seconds=120)).json()
    check([odd["left_out"] for odd in found["odd"]] == [True], f"odd pictures are {found['odd']}")


@case("gold classes that are none", "refused: no label agrees with them", 60)
def gold_of_other_names(folder):
    samples = lines(folder / "s.jsonl", [{"question": "How many birds?", "gold_class": "Counting"}])
    refused(cli("label", samples, "--run", folder / "run"), "gold_class")


@case("relaxed accuracy of a number that ends a sentence", "5. is 5, as in the official script", 60)
def number_with_full_stop(folder):
    found = worth(("relaxed", "5.", ["5"]), ("relaxed", "50%.", ["0.5"]), ("numeric", "1 000", ["1"]))
    check(found == [1.0, 1.0, 0.0], f"scored {found}")


# More models and prompts.


@case("prompt template with backslash and n, as '...' gives in a shell", "a word about it")
def line_break_of_two_characters(folder):
    ran = search_of(folder, model_in(folder / "model"), prompt=r"USER: <image>\n{question} ASSISTANT:")
    check(ran.code == 2 or "\\n" in fine(ran).err, f"no word; {ran.brief}")


@case("prompt template that begins with <s>, which the tokenizer adds", "a word about it, or one <s>")
def two_beginnings(folder):
    ran = search_of(folder, model_in(folder / "model"), prompt="<s>USER: <image>\n{question} ASSISTANT:")
    check(ran.code == 2 or "<s>" in fine(ran).err, f"no word; {ran.brief}")


@case("prompt template with the question twice", "both are filled, or it is refused")
def question_in_two_places(folder):
    refused(search_of(folder, model_in(folder / "model"), prompt="<image>{question}\n{question} ASSISTANT:"), "once")


@case("processor that does not rescale pictures to 0..1", "refused, with the setting")
def pixels_of_255(folder):
    model = model_in(folder / "model")
    file = model / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"]["do_rescale"] = False
    file.write_text(json.dumps(settings))
    refused(answers_by(model, folder), "do_rescale")


@case("eos ids that the model has no words for", "scored as generated, without them")
def eos_beyond_the_vocabulary(folder):
    model = model_in(folder / "model", generation={"eos_token_id": [2, -1, 128009]})
    fine(evaluated(folder, asked(folder, every_split()), model)[0])
    check(set(scores(folder).values()) == {1.0}, f"exact scores {scores(folder)}")


@case("bad_words_ids of another vocabulary", "refused, with the generation config's name")
def banned_words_beyond_the_vocabulary(folder):
    model = model_in(folder / "model", generation={"bad_words_ids": [[128009]]})
    refused(search_of(folder, model), "generation_config.json")


@case("question longer than the model's context", "refused, with both lengths")
def longer_than_the_context(folder):
    refused(search_of(folder, model_in(folder / "model", tokens=48)), "48", "max_position_embeddings")


@case("vision_feature_layer that the tower does not have", "refused, before anything is measured")
def no_such_vision_layer(folder):
    model = model_in(folder / "model")
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "vision_feature_layer": 23}))
    refused(search_of(folder, model), "vision_feature_layer is 23")


@case("exact scores of a model that says yes to everything", "stopped, or a word that it does")
def yes_to_everything(folder):
    model = model_in(folder / "model", {":": {"Ġyes": 9.0}, "Ġyes": {"</s>": 9.0}})
    samples = asked(folder, every_split(30), "no")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    lines(samples, [{**row, "answers": ["yes" if number % 2 else "no"]} for number, row in enumerate(rows)])
    refused(search_of(folder, model, samples=samples), "'yes' is expected")


IN_MEMORY = """
import sys, threading, time, warnings
from pathlib import Path
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from clasp_calib import clasp
from clasp_calib.common.errors import ClaspError
run, how = Path(sys.argv[1]), {"budget": "60%", "classes": "attribute"}
model, processor = (k.from_pretrained(run / "model") for k in (AutoModelForImageTextToText, AutoProcessor))
text, image = "USER: <image>\\nWhat color is the ball? ASSISTANT:", Image.open(run / "p" / "test0.png")
inputs = processor(images=image, text=text, return_tensors="pt")
artifact = run / "run" / "artifact"
"""


@case("weights changed by .data after the model was used, as adapters are merged", "a warning that they are others")
def merged_in_memory(folder):
    code = """
with warnings.catch_warnings():
    warnings.simplefilter("error")
    with clasp(model, artifact, **how): pass
model.model.multi_modal_projector.linear_1.weight.data += 0.01
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    with clasp(model, artifact, **how): pass
print("warned:", any("checkpoint" in str(one.message) for one in told))
"""
    ran = fine(python(IN_MEMORY + code, calibrated()))
    check("warned: True" in ran.out, f"no word; {ran.brief}")


@case("with clasp(...) that ends while a thread still generates", "a clasp_calib error")
def left_while_generating(folder):
    code = """
slow = model.lm_head.register_forward_hook(lambda *_: time.sleep(0.3))
try:
    with clasp(model, artifact, **how):
        work = threading.Thread(target=model.generate, kwargs={**inputs, "max_new_tokens": 5, "min_new_tokens": 5})
        work.start()
        time.sleep(0.4)
    print("ended silently")
except ClaspError as error:
    print("refused:", error)
work.join()
"""
    ran = fine(python(IN_MEMORY + code, calibrated()))
    check("refused:" in ran.out and "thread" in ran.out, ran.brief)


def search_of(folder, model, prompt=None, samples=None):
    """What `search` says, with two samples in every split unless others are given."""
    place = ("--run", folder / "run", "--model", model, "--samples", samples or asked(folder, every_split()))
    return cli("search", *place, *BUDGET, "--recompute", *(("--prompt", prompt) if prompt else ()))


def one(name):
    function, *_ = CASES[name]
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    try:
        function(folder)
        print(f"PASS {name}", flush=True)
        return 0
    except Wrong as error:
        print(f"FAIL {name}: {' '.join(str(error).split())[:600]}", flush=True)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"FAIL {name}: the case broke at line {where.lineno}: {error!r}"[:600], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1


def main():
    words = argparse.ArgumentParser(
        description="Cases from the field: each prints PASS name, or FAIL name: what was seen."
    )
    words.add_argument("--bin", type=Path, required=True, help="the virtual environment with clasp-calib in it")
    words.add_argument("--list", action="store_true", help="print kinds and right behaviours, run nothing")
    words.add_argument("--exec", action="store_true", help="start every command anew instead of forking: slower")
    words.add_argument("names", nargs="*", help="default: all; NAME or PREFIX*")
    given = words.parse_args()
    interpreter = given.bin.absolute() / "bin" / "python"
    if Path(sys.prefix).resolve() != given.bin.resolve():
        if not interpreter.exists():
            words.error(f"there is no {interpreter}")
        os.execv(interpreter, [str(interpreter), *sys.argv])
    unknown = [n for n in given.names if n not in CASES and not n.endswith("*")]
    if unknown:
        words.error(f"no such case: {', '.join(unknown)}")
    wanted = [
        n
        for n in CASES
        if not given.names or n in given.names or any(p.endswith("*") and n.startswith(p[:-1]) for p in given.names)
    ]
    if given.list:
        for name in wanted:
            print(f"{name}: {CASES[name][1]} -> {CASES[name][2]}")
        return 0
    global FORKS  # noqa: PLW0603
    FORKS = not given.exec
    if FORKS:
        load_everything()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="cases-") as base:
        os.environ["CASES_SHARED"] = str(Path(base) / "shared")
        os.environ["TMPDIR"] = tempfile.tempdir = str(Path(base) / "work")
        for place in ("shared", "work"):
            (Path(base) / place).mkdir()
        for name in wanted:
            told = Path(base) / "told"
            with told.open("w+b") as out, open(os.devnull, "w+b") as err:
                process = Child(lambda name=name: one(name), lambda: None, out, err, dict(os.environ), None)
                until = time.monotonic() + CASES[name][3]
                while process.poll() is None and time.monotonic() < until:
                    time.sleep(0.1)
                late = process.poll() is None
                end_all(process)
                lines_ = [
                    line
                    for line in told.read_text(errors="replace").splitlines()
                    if line.startswith(("PASS ", "FAIL "))
                ]
            if late:
                lines_ = [f"FAIL {name}: not done in {CASES[name][3]} s"]
            print((lines_ or [f"FAIL {name}: the case ended with {process.returncode}"])[-1], flush=True)
            failed += bool(late or process.returncode)
            for left in (Path(base) / "work").iterdir():
                shutil.rmtree(left, ignore_errors=True)
    print(f"{len(wanted) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def end_all(process):
    """End the case's process group, and those of the commands that it started."""
    children = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append((int(entry), int(fields[2])))
    if process.poll() is None:
        waiting = [process.pid]
        while waiting:
            for pid, group in children.get(waiting.pop(), ()):
                waiting.append(pid)
                if group == pid:
                    with contextlib.suppress(OSError):
                        os.killpg(group, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
