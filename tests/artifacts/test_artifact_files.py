"""An artifact on the disk: what is read is what was written, or it is refused."""

import hashlib
import json
import os

import numpy as np
import pytest
from made_artifacts import made
from safetensors.numpy import load_file, save_file

from clasp_calib.artifacts import files
from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.artifacts.card import CARD
from clasp_calib.artifacts.files import MANIFEST, WEIGHTS, check_place, write_artifact
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.hashing import sha256_json


@pytest.fixture
def place(tmp_path):
    write_artifact(made("8", "50%"), tmp_path / "a")
    return tmp_path / "a"


def edit(place, change, seal=True):
    """Change the manifest; with ``seal`` its id is made to fit again."""
    content = json.loads((place / MANIFEST).read_text())
    change(content)
    if seal:
        content["id"] = sha256_json({key: value for key, value in content.items() if key != "id"})
    (place / MANIFEST).write_text(json.dumps(content))


def contents(place):
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_what_is_read_is_what_was_written(tmp_path):
    artifact = made("8", "50%")
    written = write_artifact(artifact, tmp_path / "deep" / "a")
    read = read_artifact(tmp_path / "deep" / "a")
    assert read.manifest == written.manifest
    assert read.manifest.model_copy(update={"id": None, "files": {}}) == artifact.manifest
    assert np.array_equal(read.alphas, artifact.alphas)
    assert np.array_equal(read.rhos, artifact.rhos)
    assert sorted(contents(tmp_path / "deep" / "a")) == [CARD, MANIFEST, WEIGHTS]


def test_an_artifact_saves_and_loads_itself_by_a_path_in_any_spelling(tmp_path):
    artifact = made("8", "50%")
    written = artifact.save(str(tmp_path / "a"))
    assert written.manifest == write_artifact(artifact, tmp_path / "b").manifest
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for place in (tmp_path / "a", str(tmp_path / "a")):
        assert Artifact.load(place).manifest == read_artifact(place).manifest == written.manifest
    with pytest.raises(ArtifactError, match="no artifact at"):
        Artifact.load(str(tmp_path / "c"))


def test_the_same_content_gives_the_same_bytes(tmp_path):
    ids = [write_artifact(made("8", "50%"), tmp_path / name).manifest.id for name in ("a", "b")]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    again = write_artifact(read_artifact(tmp_path / "a"), tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert ids == [again.manifest.id] * 2


def test_other_content_gives_another_id(tmp_path):
    one, two, three = made("8"), made("8", seed=1), made("8", prompt="<image> {question}")
    assert len({write_artifact(a, tmp_path / str(i)).manifest.id for i, a in enumerate((one, two, three))}) == 3


def test_the_manifest_holds_hashes_that_anybody_can_check(place):
    content = json.loads((place / MANIFEST).read_text())
    assert content["files"] == {
        name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (WEIGHTS, CARD)
    }
    identity = {key: value for key, value in content.items() if key != "id"}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert content["id"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_flipped_bit_is_found_wherever_it_is(place):
    whole = (place / WEIGHTS).read_bytes()
    for position in (0, 9, len(whole) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[position] ^= 1
        (place / WEIGHTS).write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"weights\.safetensors is damaged: its sha256 is .*; fetch or make"):
            read_artifact(place)
    (place / WEIGHTS).write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="is damaged"):
        read_artifact(place)


def test_missing_files_are_named(place):
    (place / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"weights\.safetensors is missing; fetch or make"):
        read_artifact(place)
    (place / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"no artifact at .*\(there is no artifact\.json\); make one with `clasp"):
        read_artifact(place)


@pytest.mark.parametrize(
    ("change", "seal", "expected"),
    [
        (lambda c: c.update(prompt="<image>{question}?"), False, "does not match its own id"),
        (lambda c: c["budgets"][0]["counts"].reverse(), False, "does not match its own id"),
        (lambda c: c.update(id=None), False, "does not match its own id"),
        (
            lambda c: c.update(format=3),
            True,
            r"is of format 3; this version .* reads formats 1 to 2; install a newer clasp",
        ),
        (lambda c: c.update(format=True), True, "is of format True; this version .* reads formats 1 to 2$"),
        (lambda c: c.pop("format"), True, "is of format None"),
        (
            lambda c: c.pop("prompt"),
            True,
            "does not follow format 2: prompt: Field required; another .* calibrate again",
        ),
        (lambda c: c.update(extra=1), True, "does not follow format 2: extra: Extra inputs"),
        (lambda c: c.update(tau=-1), True, "does not follow format 2: tau: "),
        (lambda c: c.update(extra=1, provenance=[]), True, r"wrote it \(it says unknown\): use that version"),
        (lambda c: c.update(extra=1), True, r"wrote it \(it says 0\.1\.0\)"),
        (lambda c: c.update(tau=float("nan")), False, r"cannot be read as JSON \(NaN is no finite number\)"),
        (lambda c: c["classes"].pop(), True, "budgets.8.choices: are not those of the classes|is not a class"),
        (lambda c: c["files"].clear(), True, r"lists the files none; format 2 has weights\.safetensors, and"),
        (
            lambda c: c["files"].update({"../../secret": "0" * 64}),
            True,
            r"lists the files .*\.\./\.\./secret; format 2",
        ),
        (lambda c: c["files"].update({"/etc/passwd": "0" * 64}), True, "/etc/passwd; format 2"),
        (lambda c: c["files"].update({WEIGHTS: "0"}), True, "does not follow format 2: files"),
    ],
)
def test_a_manifest_that_was_edited_is_refused(place, change, seal, expected):
    edit(place, change, seal)
    with pytest.raises(ArtifactError, match=expected):
        read_artifact(place)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "3", "\xff"])
def test_a_manifest_that_is_no_manifest_is_refused(place, text):
    (place / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"cannot be read as JSON|is of format None"):
        read_artifact(place)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("rho"), "holds alpha; expected alpha and rho"),
        (lambda w: w.update(more=w["rho"]), "holds alpha, more, rho; expected alpha and rho"),
        (lambda w: w.update(alpha=w["alpha"].astype(np.float64)), "float64 and float32; expected float32"),
        (lambda w: w.update(alpha=w["alpha"] * 2), "not convex"),
    ],
)
def test_numbers_are_checked_even_where_all_hashes_fit(place, change, expected):
    weights = load_file(place / WEIGHTS)
    change(weights)
    save_file(weights, place / WEIGHTS)
    digest = hashlib.sha256((place / WEIGHTS).read_bytes()).hexdigest()
    edit(place, lambda content: content["files"].update({WEIGHTS: digest}))
    with pytest.raises(ArtifactError, match=expected):
        read_artifact(place)


def test_a_place_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for write in (lambda: write_artifact(made("8"), tmp_path), lambda: check_place(tmp_path)):
        with pytest.raises(InputError, match="is not empty and holds no artifact; give another place"):
            write()
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(InputError, match=r"notes\.txt is a file; give a directory"):
        write_artifact(made("8"), tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"cannot write the artifact to .*; give another place"):
        write_artifact(made("8"), tmp_path / "notes.txt" / "a")


def test_other_files_beside_an_artifact_stay(place, monkeypatch):
    (place / "notes.md").write_text("mine")
    (place / ".git").mkdir()
    write_artifact(made("6"), place)
    assert read_artifact(place).budgets == ("6",)
    assert (place / "notes.md").read_text() == "mine"
    assert (place / ".git").is_dir()
    monkeypatch.chdir(place)
    write_artifact(made("7"), files.Path())
    assert read_artifact(place).budgets == ("7",)


@pytest.mark.parametrize("step", range(1, 7))
@pytest.mark.parametrize("fresh", [True, False])
def test_a_write_that_is_killed_can_be_given_again(tmp_path, monkeypatch, step, fresh):
    place, calls = tmp_path / "a", []
    if not fresh:
        write_artifact(made("8", seed=1), place)
    before = contents(place) if not fresh else {}

    def dying(function):
        def call(*arguments, **named):
            calls.append(function)
            if len(calls) == step:
                raise KeyboardInterrupt
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "write_bytes", dying(files.Path.write_bytes))
        patch.setattr(files.Path, "replace", dying(os.replace))
        with pytest.raises(KeyboardInterrupt):
            write_artifact(made("8", seed=2), place)
    left = {name: (place / name).read_bytes() for name in before}
    assert step > 4 or left == before
    write_artifact(made("8", seed=2), place)
    expected = write_artifact(made("8", seed=2), tmp_path / "b")
    assert read_artifact(place).manifest == expected.manifest
    assert contents(place) == contents(tmp_path / "b")
