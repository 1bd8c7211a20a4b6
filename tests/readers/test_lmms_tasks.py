"""Tasks of lmms-eval where it is not installed; tests/in_harness reads some with it."""

import sys

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples


def test_lmms_eval_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval.tasks", None)
    with pytest.raises(InputError, match=r"lmms:gqa needs lmms-eval, .* pip install 'clasp-calib\[lmms-eval\]'"):
        load_samples("lmms:gqa")
