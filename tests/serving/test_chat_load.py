"""Requests as a server gets them."""

import base64
import io

import pytest
from PIL import Image

from clasp_calib.common.errors import PictureError
from clasp_calib.common.media import MemoryPicture
from clasp_calib.common.samples import Sample
from clasp_calib.serving.chat_load import chat_bodies, data_url


def picture(path, kind="png", **more):
    Image.new("RGB", (8, 6), "red").save(path, kind, **more)
    return path


def content(sample, instruction=""):
    (body,) = chat_bodies([sample], "served", 5, instruction)
    (message,) = body.pop("messages")
    assert message["role"] == "user"
    assert body == {
        "model": "served",
        "temperature": 0,
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return message["content"]


def test_a_question_has_its_pictures_where_they_stand_in_it(tmp_path):
    one, other = picture(tmp_path / "a.png"), picture(tmp_path / "b.jpg", "jpeg")
    urls = [{"type": "image_url", "image_url": {"url": data_url(of)}} for of in (one, other)]
    sample = Sample("1", "What is it?", one)
    assert content(sample, "\nIn a word.") == [urls[0], {"type": "text", "text": "What is it?\nIn a word."}]
    both = Sample("2", "Is <image> or <image> red?", (one, other))
    texts = [{"type": "text", "text": text} for text in ("Is ", " or ", " red?")]
    assert content(both) == [texts[0], urls[0], texts[1], urls[1], texts[2]]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_file_is_sent_as_it_is(kind, tmp_path):
    path = picture(tmp_path / f"a.{kind}", kind)
    mark, _, sent = data_url(path).partition(";base64,")
    assert mark == f"data:image/{kind}"
    assert base64.b64decode(sent) == path.read_bytes()
    assert data_url(MemoryPicture(path.read_bytes())) == data_url(path)


def test_a_picture_in_memory_is_sent_without_loss():
    made = Image.frombytes("RGB", (2, 2), bytes(range(12)))
    mark, _, sent = data_url(MemoryPicture(made)).partition(";base64,")
    assert mark == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(sent))) as seen:
        assert seen.convert("RGB").tobytes() == bytes(range(12))


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"a\.png cannot be read"):
        chat_bodies([Sample("1", "What?", tmp_path / "a.png")], "served", 5)
