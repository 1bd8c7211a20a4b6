"""The examples of docs/reference/cache-format.md run as printed."""

import re
from pathlib import Path

import numpy as np
from store_support import LAYERS, features, writer

from clasp_calib.cache.precision import Stored
from clasp_calib.common.contents import image_key

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cache-format.md"


def test_the_examples_read_what_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("picture.png").write_bytes(b"any bytes have a key")
    with writer(Path("clasp-run/cache")) as store:
        store.put([image_key(Path("picture.png"))], [Stored(features(3))])
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    assert names["features"].numpy().tobytes() == features(3).tobytes()
    assert tuple(names["by_hand"]) == LAYERS
    assert np.stack(list(names["by_hand"].values())).tobytes() == features(3).tobytes()
