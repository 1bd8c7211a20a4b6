"""``vllm serve`` with an artifact: what clients see, and what an operator sees of a wrong one."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_routers import made_router
from PIL import Image
from served_artifacts import served_artifact
from servers import free_port, healthy, metric, until

from clasp_calib.artifacts.files import write_artifact
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from clasp_calib.runtime.loading import load_model

pytestmark = pytest.mark.vllm

SETTINGS = {label: {"rho": 0.5} for label in load_taxonomy().classes}
BUDGETS = ["64", "192"]
VLLM = Path(sys.executable).parent / "vllm"
FLAGS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "640", "--max-num-seqs", "8", "--block-size", "32"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("served") / "artifact"
    made = served_artifact(load_model(str(MODEL))[0], BUDGETS, SETTINGS, PROMPT)
    router = made_router(made.classes, taxonomy=made.manifest.provenance[BUDGETS[0]].taxonomy)
    write_artifact(made.with_router(router), place)
    return place


@pytest.fixture(scope="module")
def server(artifact, tmp_path_factory):
    from openai import OpenAI

    port, log = free_port(), tmp_path_factory.mktemp("log") / "server.log"
    asked = {"OMP_NUM_THREADS": "1", "CLASP_ARTIFACT": "not/read"}
    given = json.dumps({"clasp": {"artifact": str(artifact), "budget": BUDGETS[0]}})
    words = [str(VLLM), "serve", str(MODEL), "--port", str(port), "--trust-request-mm-kwargs", *FLAGS]
    words += ["--hf-overrides", given]
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=os.environ | asked, start_new_session=True)
        try:
            until(lambda: process.poll() is not None or healthy(port), 250)
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
            yield SimpleNamespace(port=port, client=client, process=process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def picture(colour="red", side=336):
    made = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(made, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(made.getvalue()).decode()}"},
    }


def ask(server, *parts, **more):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return server.client.chat.completions.create(
        model=str(MODEL), messages=[{"role": "user", "content": content}], max_tokens=4, temperature=0, **more
    )


def kwargs(**said):
    return {"extra_body": {"mm_processor_kwargs": said}}


def text_tokens(server, question):
    """Of the prompt without its picture."""
    return ask(server, question).usage.prompt_tokens


def test_pictures_are_pruned_to_the_budget(server):
    found = ask(server, picture(), "What colour is it?")
    whole = found.usage.prompt_tokens - text_tokens(server, "What colour is it?")
    assert 64 <= whole <= 68
    assert found.choices[0].message.content


def test_a_request_may_name_budget_and_class(server):
    small = ask(server, picture(), "What colour is it?", **kwargs(clasp_class="text"))
    large = ask(server, picture(), "What colour is it?", **kwargs(clasp_class="text", clasp_budget="192"))
    assert large.usage.prompt_tokens - small.usage.prompt_tokens == 192 - 64


def test_what_the_artifact_has_not_is_a_bad_request(server):
    from openai import BadRequestError

    for said, told in ((kwargs(clasp_class="telepathy"), "telepathy"), (kwargs(clasp_budget="100"), "100")):
        with pytest.raises(BadRequestError, match=told):
            ask(server, picture(), "What is it?", **said)
    assert ask(server, picture(), "What is it?").choices[0].message.content is not None


def test_text_alone_and_pictures_of_one_pixel(server):
    assert ask(server, "hello").usage.prompt_tokens < 32
    one, usual = (ask(server, picture(side=side), "What is it?") for side in (1, 336))
    assert one.usage.prompt_tokens == usual.usage.prompt_tokens


def test_answers_stream(server):
    whole = ask(server, picture("blue"), "What colour is it?").choices[0].message.content
    parts = ask(server, picture("blue"), "What colour is it?", stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == whole


def test_prometheus_counts_tokens_and_who_named_the_class(server):
    before = {name: metric(server.port, name) for name in COUNTED}
    ask(server, picture(), "How many cups are there?")
    ask(server, picture(), picture("blue"), "What is it?", **kwargs(clasp_class="scene"))
    gone_up = {name: metric(server.port, name) - count for name, count in before.items()}
    assert gone_up == {
        "clasp_pictures_total": 3,
        "clasp_visual_tokens_offered_total": 3 * 576,
        "clasp_visual_tokens_kept_total": 3 * 64,
        "clasp_router_confidence_count": 1,
    }


def test_a_picture_that_the_server_knows_by_a_name_is_counted_too(server):
    """vLLM lets a client send a name in the place of a picture that it sent before."""
    before = metric(server.port, "clasp_visual_tokens_offered_total")
    named = {**picture("green"), "uuid": "a-green-one"}
    first = ask(server, named, "What is it?", **kwargs(clasp_class="text"))
    again = {"type": "image_url", "image_url": None, "uuid": "a-green-one"}
    second = ask(server, again, "What is it?", **kwargs(clasp_class="text"))
    assert second.usage.prompt_tokens == first.usage.prompt_tokens
    assert metric(server.port, "clasp_visual_tokens_offered_total") - before == 2 * 576


def test_what_the_plug_in_keeps_for_itself_cannot_be_asked_for(server):
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="cannot say clasp_entry"):
        ask(server, picture(), "What is it?", **kwargs(clasp_entry=3))


COUNTED = (
    *("clasp_pictures_total", "clasp_visual_tokens_offered_total", "clasp_visual_tokens_kept_total"),
    "clasp_router_confidence_count",
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"CLASP_BUDGET": "100"}, "has no budget '100'; expected one of 64, 192"),
        ({"CLASP_ARTIFACT": "no/such/place"}, "no artifact at no/such/place"),
    ],
)
def test_a_server_does_not_start_with_what_it_cannot_serve(artifact, said, told):
    asked = {"CLASP_ARTIFACT": str(artifact), "CLASP_BUDGET": "64", "OMP_NUM_THREADS": "1", **said}
    words = [str(VLLM), "serve", str(MODEL), "--port", str(free_port()), *FLAGS]
    ended = subprocess.run(words, env=os.environ | asked, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode != 0
    assert told in ended.stderr + ended.stdout
