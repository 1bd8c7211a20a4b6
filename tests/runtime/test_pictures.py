"""From bytes to a picture or an error, with bounds before anything is decoded."""

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from clasp_calib.common.errors import ClaspError, InputError, PictureError
from clasp_calib.runtime import pictures
from clasp_calib.runtime.pictures import ASPECT, header, load_picture, resized

NOISE = np.random.default_rng(5).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def saved(kind, picture=None, **options):
    buffer = io.BytesIO()
    (picture or Image.fromarray(NOISE)).save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_says(width, height):
    """A PNG of some bytes whose header asks for so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def model_of(**settings):
    return SimpleNamespace(image_processor=SimpleNamespace(**settings))


SHORT = {"shortest_edge": 336}


@pytest.mark.parametrize(
    ("size", "processor", "reason"),
    [
        ((1, 3000), None, "1 x 3000 pixels, and no side may be over 200 times the other"),
        ((12000, 2), None, "12000 x 2 pixels, and no side"),
        ((13000, 13000), None, "13000 x 13000 pixels, over 128 million in all"),
        ((100, 19_000), model_of(size={"shortest_edge": 1000}), "of which the processor makes 1000 x 190000"),
        (
            (9000, 9000),
            model_of(size=SHORT, do_pad=True),
            "9000 x 9000 pixels, of which the processor makes 9000 x 9000",
        ),
        ((40_000, 40_000), None, "decompression bomb"),
    ],
)
def test_a_picture_that_asks_for_too_much_is_refused_by_its_header(size, processor, reason):
    for look in (header, load_picture):
        with pytest.raises(PictureError, match=reason):
            look(PictureOf(png_that_says(*size)), processor)


def PictureOf(content):
    from clasp_calib.common.media import MemoryPicture

    return MemoryPicture(content)


def test_what_is_within_the_bounds_passes_by_its_header():
    assert header(PictureOf(png_that_says(60, 60 * ASPECT)), model_of(size=SHORT)) == (60, 12_000)
    assert header(PictureOf(png_that_says(12_000, 9000)), model_of(size=SHORT)) == (12_000, 9000)


def test_what_a_processor_makes_of_a_picture():
    assert resized(model_of(size=SHORT), 100, 1000) == (336, 3360)
    assert resized(model_of(size=SHORT, do_resize=False), 100, 1000) == (0, 0)
    assert resized(model_of(size=SHORT, do_pad=True), 100, 1000) == (1000, 1000)
    assert resized(model_of(size=SHORT, image_grid_pinpoints=[[336, 672]]), 100, 1000) == (0, 0)
    # As Qwen-VL's processor has it: numbers of pixels, which it keeps itself.
    assert resized(model_of(size={"shortest_edge": 3136, "longest_edge": 12_845_056}), 100, 1000) == (0, 0)
    assert resized(SimpleNamespace(size={"height": 336, "width": 336}), 100, 1000) == (0, 0)


def test_a_turned_photo_is_upright_and_in_rgb():
    exif = Image.Exif()
    exif[0x0112] = 6
    given = saved("JPEG", exif=exif)
    with Image.open(io.BytesIO(given)) as turned:
        expected = ImageOps.exif_transpose(turned)
    found = load_picture(given)
    assert (found.size, found.mode) == ((24, 40), "RGB")
    assert found.tobytes() == expected.tobytes()
    with Image.open(io.BytesIO(given)) as turned:
        assert load_picture(turned).tobytes() == expected.tobytes()


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    frames = [Image.fromarray(np.roll(NOISE, number, 1)) for number in range(3)]
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        given = saved(kind, frames[0], save_all=True, append_images=frames[1:], **options)
        assert load_picture(given).tobytes() == NOISE.tobytes(), kind


def test_text_that_unpacks_to_gigabytes_is_refused():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 50_000_000, zip=True)
    with pytest.raises(PictureError, match="MAX_TEXT_CHUNK"):
        load_picture(saved("PNG", pnginfo=text))


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
@pytest.mark.parametrize("size", [(1, 5000), (5000, 20)])
def test_an_icon_is_bounded_by_what_is_in_it(tmp_path, size):
    inner = saved("PNG", Image.new("RGB", size))
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    (tmp_path / "a.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner)
    with pytest.raises(PictureError, match=f"it has {size[0]} x {size[1]} pixels, and no side may be over 200 times"):
        load_picture(tmp_path / "a.ico")


def test_a_program_is_not_run():
    given = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(PictureError, match="EPS is a program"):
        load_picture(given)


@pytest.mark.parametrize("given", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_called_so(given):
    with pytest.raises(PictureError, match=r"the picture memory:\w+ cannot be read \(.+\); mend it"):
        load_picture(given)


def test_what_is_no_path_is_refused(tmp_path):
    with pytest.raises(InputError, match="the image is 3; expected the path of a file"):
        load_picture(3)
    with pytest.raises(PictureError, match="no file can have this name"):
        load_picture("a\0b.png")
    with pytest.raises(PictureError, match="it is a directory"):
        load_picture(tmp_path)


SEEDS = [
    *(saved(kind) for kind in ("PNG", "JPEG", "BMP", "PPM", "TGA", "PCX", "ICO")),
    *(saved("TIFF", compression=how) for how in (None, "tiff_lzw", "tiff_adobe_deflate")),
    saved(
        "GIF", Image.fromarray(NOISE).quantize(16), save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())]
    ),
    saved("WEBP", lossless=True),
    saved("JPEG", Image.fromarray(NOISE).convert("CMYK")),
    saved("PNG", Image.fromarray(NOISE[..., 0].astype(np.uint16))),
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 200),
)
def test_damaged_bytes_are_a_picture_or_a_clasp_error(seed, changes, cut):
    damaged = bytearray(seed)
    for place, new in changes:
        at = place % len(damaged)
        damaged[at : at + len(new)] = new
    try:
        found = load_picture(bytes(damaged[: len(damaged) - cut]))
    except ClaspError:
        return
    assert found.mode == "RGB"
    assert found.width * found.height <= pictures.PIXELS
