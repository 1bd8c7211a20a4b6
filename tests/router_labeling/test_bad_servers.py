"""Servers that trickle, flood, redirect, echo the key or answer nonsense; proxies and addresses that mislead."""

import asyncio
import base64
import gzip
import json
import socket
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from itertools import pairwise
from urllib.parse import quote

import pytest
from fake_llm_server import GOOD, Fake, running

from clasp_calib.common.errors import InputError, LabelerError
from clasp_calib.router_labeling import exchange
from clasp_calib.router_labeling.exchange import LONGEST_WAIT, Reply, Server, is_loopback
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import load_scheme
from clasp_calib.router_labeling.server_labeler import ServerLabeler

SCHEME = load_scheme()
KEY = 'sk-"example"/44c1+9f'


def labeler(fake, **options):
    return ServerLabeler(fake.url, **{"backoff": 0.01, "concurrency": 4, **options})


def reason(answer, **options):
    """Why one question got no label."""
    with running(Fake(answer)) as fake:
        ((_, guess),) = labeler(fake, **options).ask(["How many?"], SCHEME)
    assert guess.source == "default"
    return guess.raw


@contextmanager
def saying(*parts, pause=0.05):
    """A server that sends these bytes to whoever connects, with a pause before each."""
    listening = socket.create_server(("127.0.0.1", 0))

    def talk(connection):
        with connection:
            try:
                connection.recv(65536)
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            except OSError:
                pass

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([OK, *[b"X: y\r\n"] * 100], "no whole reply within 0.4 s"),
        ([OK + b"Content-Length: 1000\r\n\r\n", *[b" "] * 100], "no whole reply within 0.4 s"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 100], "no whole reply within 0.4 s"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"], "RemoteProtocolError"),
        ([OK + b"Content-Length: 9\r\n\r\n{}"], "RemoteProtocolError"),
        ([OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"], "DecodingError"),
        ([OK + b"X: " + b"y" * (4 << 20)], "RemoteProtocolError"),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], "RemoteProtocolError"),
        ([b""], "RemoteProtocolError"),
        ([OK + b"Content-Length: 0\r\n\r\n"], "not JSON"),
        ([OK + b"Content-Length: 6\r\n\r\n<html>"], "not JSON: <html>"),
        ([b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 4\r\n\r\noops"], "HTTP 500: oops"),
        ([b"HTTP/1.1 302 No\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n"], "redirects to http://other/"),
    ],
)
def test_a_server_that_talks_nonsense_is_refused_in_time(parts, complaint):
    begun = time.monotonic()
    with saying(*parts) as url, pytest.raises(LabelerError, match=complaint) as caught:
        _ = ServerLabeler(url, timeout=0.4, backoff=0.01).served
    assert time.monotonic() - begun < 3
    assert len(str(caught.value)) < 900


def test_a_reply_that_trickles_ends_each_attempt_in_time():
    def answer(question, number):
        time.sleep(1)
        return GOOD

    begun = time.monotonic()
    assert "3 attempts failed, the last with no whole reply within 0.2 s" in reason(answer, timeout=0.2)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "gzip, gzip"}])
def test_a_flood_is_cut(headers):
    flood = b" " * (6 << 20)
    for _ in headers.get("Content-Encoding", "").split():
        flood = gzip.compress(flood)
    assert "a reply of more than 4 MiB" in reason(lambda question, number: (200, flood, headers))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"error": {"message": "quota"}}', "quota"),
        (b"null", "lacks 'choices'"),
    ],
)
def test_a_body_that_is_no_answer_is_the_reason(body, complaint):
    assert complaint in reason(lambda question, number: (200, body))


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ({"data": []}, "serves none"),
        ({"data": [{"id": "a"}, {"id": "b"}]}, "serves a, b"),
        ({"data": [{"name": "a"}]}, "not as in OpenAI's API"),
        ({"data": {"id": "a"}}, "not as in OpenAI's API"),
        ({"data": [{"id": 7}]}, "not as in OpenAI's API"),
        ({"models": ["a"]}, "not as in OpenAI's API"),
        ({"data": [{"id": "a\x1b[2J"}]}, "not as in OpenAI's API"),
        ({"data": [{"id": "\ud800"}]}, "not as in OpenAI's API"),
        ([], "not as in OpenAI's API"),
        ({"error": "starting"}, "starting"),
        (b"[" * 200_000, "nested too deeply"),
        ({"data": [{"id": "long" * 10_000}, {"id": "b"}]}, "serves long"),
    ],
)
def test_a_list_of_models_that_is_none(models, complaint):
    with running(Fake(models=models)) as fake, pytest.raises(LabelerError, match=complaint) as caught:
        _ = labeler(fake).served
    assert len(str(caught.value)) < 900


def test_a_server_is_left_alone_for_as_long_as_it_asks():
    def answer(question, number):
        told.append(time.monotonic())
        return GOOD if number > 2 else (429 if number == 1 else 503, {}, {"Retry-After": "1"})

    told: list[float] = []
    with running(Fake(answer)) as fake:
        ((_, guess),) = labeler(fake).ask(["How many?"], SCHEME)
    assert guess.intent == "counting"
    assert all(after - before >= 1 for before, after in pairwise(told))


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        (40, 5, 41),
        (-40, 0, 0),
        ("9" * 400, LONGEST_WAIT, LONGEST_WAIT),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        ("nan", 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(said, least, most):
    if isinstance(said, int):
        said = formatdate(time.time() + said, usegmt=True)
    assert least <= Reply(429, {"Retry-After": said}, b"", str).wait <= most


def test_a_redirect_is_not_followed_with_the_key():
    with running(Fake()) as other, running(Fake(lambda q, n: (307, {}, {"Location": other.url}))) as fake:
        with pytest.raises(LabelerError, match=f"redirects to {other.url}"):
            list(labeler(fake, api_key=KEY).ask(["How many?"], SCHEME))
        assert fake.asked
        assert not other.asked


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x", "http://[broken"])
def test_this_machine_is_reached_without_a_proxy(monkeypatch, proxy):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with running(Fake()) as fake:
        assert labeler(fake).served == "fake"
        assert ServerLabeler(fake.url.replace("127.0.0.1", "localhost")).served == "fake"


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
def test_hosts_that_are_this_machine(host):
    assert is_loopback(host)
    assert not any(map(is_loopback, ["example.org", "10.0.0.1", "localhost.example.org", "128.0.0.1", "::2", ""]))


@pytest.mark.parametrize("proxy", ["socks5://me:hushhush@127.0.0.1:9", "nonsense://me:hushhush@x"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(LabelerError, match="ALL_PROXY") as caught:
        _ = ServerLabeler("http://labels.example/v1").served
    assert "hushhush" not in str(caught.value)


def test_certificates_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/not/there.pem")
    with pytest.raises(LabelerError):
        _ = ServerLabeler("https://127.0.0.1:9/v1").served


@pytest.mark.parametrize(
    "key", ["sk-7f3a\r\nx", "sk-7f3a\n", " sk-7f3a", "sk-7f3a\x00", "sk-7f3a\u2013", "sk-7f3a\udc80"]
)
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(InputError, match=r"API key .*OPENAI_API_KEY.* has the character U\+") as caught:
        ServerLabeler("http://127.0.0.1:9/v1", api_key=key)
    assert "7f3a" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "ftp://host/v1", "http://", "http://[::1/v1", "http://a:port/v1", "/v1", "http://a:70000/v1"],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="is no address of a server"):
        ServerLabeler(address)


@pytest.mark.parametrize(
    "address", ["me:hush@host/v1", "http://me:hush/x@host/v1", "http://me:hush@:9", "ftp://me:hush@h"]
)
def test_an_address_that_is_none_is_told_without_its_password(address):
    with pytest.raises(InputError, match="is no address of a server") as caught:
        ServerLabeler(address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("refused", [("chat_template_kwargs",), ("logprobs",), ("chat_template_kwargs", "logprobs")])
def test_a_server_that_takes_fewer_options_is_asked_without_them(capsys, refused):
    """As OpenAI's own API: https://platform.openai.com/docs/guides/error-codes."""

    def answer(question, number):
        unknown = [name for name in refused if name in fake.bodies[-1]]
        return (400, {"error": {"message": f"Unrecognized request argument: {unknown[0]}"}}) if unknown else GOOD

    with running(Fake(answer)) as fake:
        guesses = list(labeler(fake, concurrency=1, backoff=5).ask(["How many?", "How many more?"], SCHEME))
    assert [guess.intent for _, guess in guesses] == ["counting"] * 2
    assert len(fake.bodies) == len(refused) + 2
    assert "response_format" in fake.bodies[-1]
    assert capsys.readouterr().err.count("is asked without") == len(refused[:1])


def test_an_option_in_a_refusal_for_another_reason_is_kept():
    def answer(question, number):
        return (400, {"error": "too long", "input": fake.bodies[-1]}) if question == "Long?" else GOOD

    with running(Fake(answer)) as fake:
        guesses = dict(labeler(fake, concurrency=1).ask(["Long?", "How many?"], SCHEME))
    assert "too long" in guesses[0].raw
    assert guesses[1].intent == "counting"
    assert {"chat_template_kwargs", "logprobs"} <= fake.bodies[-1].keys()


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_list_of_models_serves_the_one_that_is_named(status):
    with running(Fake(listing=status)) as fake:
        ((_, guess),) = labeler(fake, model="named").ask(["How many?"], SCHEME)
        assert (guess.intent, fake.bodies[-1]["model"]) == ("counting", "named")
        with pytest.raises(LabelerError, match=f"{status}"):
            _ = labeler(fake).served


def test_a_password_in_the_address_is_sent_and_never_shown():
    with running(Fake(lambda q, n: (401, {"you sent": fake.headers[-1]["Authorization"]}))) as fake:
        asking = ServerLabeler(fake.url.replace("://", "://me:hush%21hush@"))
        with pytest.raises(LabelerError, match="refuses with HTTP 401") as caught:
            list(asking.ask(["How many?"], SCHEME))
        assert fake.headers[-1]["Authorization"].startswith("Basic ")
    shown = f"{caught.value}{asking!r}{asking.server.shown}"
    assert not any(part in shown for part in ("hush", fake.headers[-1]["Authorization"].split()[1]))
    with pytest.raises(InputError, match="give one of them"):
        ServerLabeler("http://me:hush@host/v1", api_key="other")


def forms():
    return [KEY, quote(KEY, safe=""), f"Basic {base64.b64encode(f'me:{KEY}'.encode()).decode()}", "x" * 190 + KEY]


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
def test_a_key_that_is_echoed_is_nowhere(tmp_path, form, status):
    """In no message, no journal and no label."""

    def answer(question, number):
        if status != 200:
            return status, {"error": {"message": form}}
        # An answer before the key, so that a label comes with it, and one that is none.
        text = f"{form}</think>" + ('{"intent":"counting"}' if question == "How many?" else form)
        return 200, {"choices": [{"message": {"content": text}}]}

    with running(Fake(answer, models={"data": [{"id": f"model {KEY}"}]})) as fake:
        journalled = JournalledLabeler(labeler(fake, api_key=KEY), SCHEME, tmp_path)
        try:
            said = repr(list(journalled.label(["How many?", "Why?"])))
        except LabelerError as error:
            said = f"{error}{error.__cause__}"
    said += journalled.fingerprint + repr(journalled) + journalled.path.read_text()
    parts = ["44c1", json.dumps(KEY)[1:-1], *forms()[:2], forms()[2].split()[1][8:-4]]
    assert not [part for part in parts if part in said]


def test_a_loop_that_runs_already_is_no_hindrance():
    """As in a notebook."""

    async def cell(fake):
        return dict(labeler(fake).ask(["How many?"], SCHEME))

    with running(Fake()) as fake:
        assert asyncio.run(cell(fake))[0].intent == "counting"


def test_a_quote_is_cut_after_what_is_secret_is_hidden():
    server = Server("http://127.0.0.1:9/v1", KEY)
    for place in range(exchange.QUOTED - len(KEY), exchange.QUOTED):
        assert "44" not in server.quoted("." * place + KEY + "." * 50)
