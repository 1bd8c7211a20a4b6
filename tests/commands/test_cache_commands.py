"""``clasp-calib cache``: damage is told by the exit code, repaired, and only what was dropped is encoded again."""

import json
import os
import shutil

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


def test_shards_that_the_index_does_not_know_are_told(copied, command):
    """As where the index has lost its end."""
    (first, *_) = sorted((copied.run / "cache").glob("shard-*.h5"))
    shutil.copy(first, first.with_name("shard-00077.h5"))
    ended = command("cache", "verify", "--run", copied.run, "--json")
    assert (ended.code, ended.json) == (0, {"damaged": []})
    assert "1 shards, such as shard-00077.h5, are not in the index" in ended.err


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
    assert "is not one of 'float16', 'bfloat16', 'int8'" in " ".join(ended.err.replace("│", " ").split())


def test_a_plan_says_what_a_cache_would_cost_and_makes_none(begun, command, tmp_path):
    words = ("cache-features", *begun.words, "--out", tmp_path / "cache", "--plan")
    plan = command(*words, "--json").json
    assert plan["recommended"] in ("layers", "pixels", "recompute")
    assert (plan["unique"], plan["cached"]) == (10, 0)
    assert [way["name"] for way in plan["ways"]] == ["layers", "pixels", "recompute"]
    assert not list(tmp_path.iterdir())
    said = command(*words).out
    assert "10 different pictures of 30 samples (20 duplicates), 0 cached already" in said
    assert "recommended: cache" in said


def test_pixels_serve_search_and_evaluate_as_layers_do(copied, command):
    shutil.rmtree(copied.run / "cache")
    made = command("cache-features", *copied.words, "--pixels", "--json").json
    assert (made["unique"], made["encoded"]) == (10, 10)
    assert "10 were there" in command("cache-features", *copied.words, "--pixels").out
    said = command("cache", "info", "--run", copied.run).out
    assert "pixels of 10 pictures" in said
    ended = command("evaluate", *copied.words, "--timed", 0)
    assert "the same numbers as the artifact recorded before" in ended.out, ended.err
    ended = command("cache-features", *copied.words)
    assert ended.code == 2
    assert "was made with the encoder [pictures:" in ended.err


def test_odd_pictures_are_named_and_strict_ends_otherwise(copied, command, tmp_path):
    samples = tmp_path / "samples.jsonl"
    rows = [{"image": str(copied.picture), "question": "?"}, {"image": "lost.png", "question": "?"}]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("cache-features", "--run", tmp_path / "run", "--model", copied.model, "--samples", samples)
    ended = command(*words)
    assert ended.code == 0
    assert f"left out: {tmp_path / 'lost.png'}: No such file or directory" in ended.out
    assert "1 files left out, 0 not seen whole; all are named in" in ended.out
    ended = command(*words, "--strict", "--json")
    assert ended.code == 1
    assert [odd["samples"] for odd in ended.json["odd"]] == [["1"]]
    samples.write_text(json.dumps(rows[0]) + "\n")
    assert command(*words, "--strict").code == 0


def test_the_report_says_where_the_time_went(copied, command, tmp_path):
    words = ("cache-features", *copied.words, "--workers", "0", "--batch", "2", "--out")
    times = command(*words, tmp_path / "json", "--json").json["times"]
    assert set(times) == {
        *("decode", "preprocess", "encode", "wait_for_pictures", "wait_for_cache", "write"),
        "share_waited_for_cache",
    }
    said = command(*words, tmp_path / "text").out
    assert "s waiting for pictures" in said
    assert "for the cache; beside it threads decoded" in said


def test_a_portable_cache_serves_as_a_direct_one_does(copied, command):
    shutil.rmtree(copied.run / "cache")
    assert command("cache-features", *copied.words, "--mode", "portable").code == 0
    assert (copied.run / "cache" / "index.jsonl").exists()
    assert command("cache", "verify", "--run", copied.run).code == 0
    assert command("cache-features", *copied.words, "--json").json["encoded"] == 0
    ended = command("evaluate", *copied.words, "--timed", 0)
    assert "the same numbers as the artifact recorded before" in ended.out, ended.err
    ended = command("cache-features", *copied.words, "--mode", "direct")
    assert ended.code == 2
    assert "is portable, asked for direct" in ended.err


def test_no_score_is_recorded_from_features_that_changed(copied, command):
    shutil.rmtree(copied.run / "study")
    words = ("search", *copied.words, "--budget", "50%", "--per-class", "2", "--starts", "2,6,15")
    [shard] = (copied.run / "cache").glob("*.h5")
    times, content = shard.stat(), bytearray(shard.read_bytes())
    with shard.open("r+b") as file:
        file.seek(len(content) // 8)
        file.write(bytes(byte ^ 1 for byte in content[len(content) // 8 :]))
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    ended = command(*words)
    assert ended.code == 2
    assert "is not what was written" in ended.err
    [journal] = (copied.run / "study").rglob("scores.jsonl")
    assert b'"score"' not in journal.read_bytes()
    shard.write_bytes(content)
    assert command(*words).code == 0
    assert b'"score"' in journal.read_bytes()
