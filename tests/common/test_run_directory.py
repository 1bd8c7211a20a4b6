"""The run directory: what each command was given, and that it can be written to."""

import json
import os

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json, sha256_file, sha256_json
from clasp_calib.common.run_directory import RunDirectory


def test_names_lie_under_the_root_and_nothing_is_made_by_naming(tmp_path):
    run = RunDirectory(tmp_path / "run")
    names = [run.labels, run.cache, run.study, run.artifact, run.report]
    assert {path.parent for path in names} == {tmp_path / "run"}
    assert not run.root.exists()


def test_each_command_has_its_last_configuration_and_every_event_its_line(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")
    run.record("label", {"samples": tmp_path})
    run.record("search", {"seed": 0})
    run.record("search", {"seed": 1})
    assert run.configuration() == {"label": {"samples": str(tmp_path)}, "search": {"seed": 1}}
    events = [json.loads(line) for line in (run.root / "log.jsonl").open()]
    assert [(e["command"], e.get("seed")) for e in events] == [("label", None), ("search", 0), ("search", 1)]
    assert sorted(path.name for path in run.root.iterdir()) == ["config.json", "log.jsonl"]


def test_a_root_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"cannot write to the run directory .*; give a directory .* with --run"):
            RunDirectory(root).prepare()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[", "is not JSON"),
        ("[]", "holds a list, expected an object"),
        ('{"a":' * 500 + "1" + "}" * 500, "is not JSON .*nested"),
        ("[" * 100_000, "is not JSON .*nested"),
        ('{"seed": 1, "seed": 2}', "is not JSON .*'seed' stands twice"),
        ('{"seed": ' + "1" * 5000 + "}", "is not JSON"),
        ("\udcff", "is not JSON"),
        ('{"model": "tiny"}', ": model is 'tiny', expected an object with name and source"),
        ('{"model": {"name": "tiny"}}', ": model is .*, expected an object with name and source"),
        ('{"model": {"name": "tiny", "source": ["a"]}}', ": model is .*, expected an object with name and source"),
    ],
)
def test_a_damaged_configuration_is_refused_and_left_alone(tmp_path, text, expected):
    content = text.encode("utf-8", "surrogateescape")
    (tmp_path / "config.json").write_bytes(content)
    run = RunDirectory(tmp_path)
    for use in (run.prepare, lambda: run.model, lambda: run.remember_model("a", "b"), lambda: run.record("x", {})):
        with pytest.raises(InputError, match=rf"config\.json ?{expected}.*; mend or remove it"):
            use()
    assert (tmp_path / "config.json").read_bytes() == content


@pytest.mark.parametrize("name", ["config.json", "log.jsonl"])
def test_a_pipe_in_a_run_directory_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} is a pipe"):
        RunDirectory(tmp_path).record("search", {})


def test_hashes_are_of_content(tmp_path):
    assert canonical_json({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
