"""Rows in published layouts, made here, and what every reader must do with them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image


def encoded(colour: str) -> bytes:
    """A picture as PNG; no two pixels are alike, so that its base64 is longer than 64 characters."""
    picture = Image.new("RGB", (12, 12), colour)
    picture.putdata([(r, (n * 7) % 256, (n * 3) % 256) for n, (r, _, _) in enumerate(picture.getdata())])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(colour: str) -> str:
    return base64.b64encode(encoded(colour)).decode()


def picture_at(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(colour))
    return path


def json_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
