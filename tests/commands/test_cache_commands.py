"""``clasp-calib cache``: damage is told by the exit code, repaired, and only what was dropped is encoded again."""

import pytest


def flip_last_bit(run):
    shard = next((run / "cache").glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def test_info_says_what_is_there(copied, command):
    known = command("cache", "info", "--run", copied.run, "--json").json
    assert known["pictures"] > 0
    assert known["precision"] == "float16"
    assert set(known["layers"].values()) == {known["pictures"]}
    said = command("cache", "info", "--run", copied.run).out
    assert f"{known['pictures']} pictures; " in said
    assert known["encoder"].split()[0] in said


def test_damage_is_named_dropped_and_encoded_again(copied, command):
    assert command("cache", "verify", "--run", copied.run).code == 0
    flip_last_bit(copied.run)
    ended = command("cache", "verify", "--run", copied.run, "--json")
    assert ended.code == 1
    [damage] = ended.json["damaged"]
    said = command("cache", "verify", "--run", copied.run).out
    assert f"layer {damage['layer']} of picture {damage['key']}" in said
    assert command("cache", "repair", "--run", copied.run, "--json").json["dropped"] == [damage]
    assert command("cache-features", *copied.words, "--json").json["encoded"] == 1
    assert command("cache", "verify", "--run", copied.run).code == 0


def test_what_no_sample_uses_is_forgotten(copied, command, tmp_path):
    few = tmp_path / "few"
    assert command("label", copied.samples, "--run", few, "--limit", 1).code == 0
    before = command("cache", "info", "--run", copied.run, "--json").json["pictures"]
    words = ("cache", "gc", "--run", copied.run, "--samples", few / "labels.parquet", "--json")
    assert command(*words).json["forgotten"] == before - 1
    assert command("cache", "info", "--run", copied.run, "--json").json["pictures"] == 1


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_features_are_kept_as_asked_and_another_precision_is_refused(copied, command, tmp_path, precision):
    words = ("cache-features", *copied.words, "--out", tmp_path / "other")
    assert command(*words, "--precision", precision, "--durability", "power").code == 0
    assert command("cache", "info", "--cache", tmp_path / "other", "--json").json["precision"] == precision
    ended = command(*words)
    assert ended.code == 2
    assert f"keeps features as {precision}, asked for float16" in ended.err
    ended = command(*words, "--precision", "fp8")
    assert ended.code == 2
    assert "expected one of float16, bfloat16, int8" in ended.err
