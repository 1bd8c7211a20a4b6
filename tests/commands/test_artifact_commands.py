"""``clasp-calib artifact``: verify, recheck, diff, export, bump, on the artifact of a finished run."""

import json
import re
from dataclasses import replace

import pytest
from made_routers import made_router

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import sample_scores, trials, with_scores
from clasp_calib.artifacts.files import MANIFEST, WEIGHTS, write_artifact
from clasp_calib.artifacts.sureness import LEGEND, sure_rows
from clasp_calib.router_labeling.router_file import write_router


@pytest.fixture
def place(copied):
    return copied.run / "artifact"


def test_a_search_leaves_its_trials_and_an_evaluation_its_scores(place):
    artifact = read_artifact(place)
    rows = trials(artifact)
    for budget in artifact.budgets:
        for label, choice in artifact.entry(budget).choices.items():
            states = [row.state for row in rows if (row.budget, row.label) == (budget, label)]
            assert (states.count("chosen"), len(states)) == ((1, choice.candidates) if choice.evaluations else (0, 0))
    scores = sample_scores(artifact)
    for budget in artifact.budgets:
        for setting, results in artifact.entry(budget).results.items():
            for label, result in results.items():
                of = [s.score for s in scores if (s.budget, s.setting, s.label) == (budget, setting, label)]
                assert label == "macro" or (sum(of) / len(of), len(of)) == (pytest.approx(result.mean), result.samples)


def test_verify_lists_every_file(place, copied, command):
    ended = command("artifact", "verify", "--run", copied.run)
    assert ended.code == 0
    result = command("artifact", "verify", place, "--json").json
    assert set(result["files"]) == {MANIFEST, WEIGHTS, "README.md", "study/trials.parquet", "study/scores.parquet"}
    assert all(name in ended.out for name in result["files"])
    assert result["id"] == read_artifact(place).manifest.id
    (place / "README.md").write_text("mine")
    ended = command("artifact", "verify", place)
    assert (ended.code, "README.md is damaged" in ended.err) == (2, True)


def test_verify_says_whether_a_model_fits(place, copied, command):
    fits = command("artifact", "verify", place, "--model", copied.model)
    assert fits.code == 0
    assert all(told in fits.out for told in ("has the artifact's shape", "are those of the calibration"))
    assert "warning" not in fits.err
    ended = command("artifact", "verify", place, "--model", "reference")
    assert (ended.code, "this model differs" in ended.err) == (2, True)


def test_verify_says_that_a_model_has_other_weights(place, copied, command):
    known = read_artifact(place)
    other = known.manifest.checkpoint.model_copy(update={"digest": "0" * 64})
    write_artifact(known.with_manifest(known.manifest.model_copy(update={"checkpoint": other})), place)
    ended = command("artifact", "verify", place, "--model", copied.model, "--json")
    assert (ended.code, ended.json["weights"]) == (1, "other")
    assert ended.err.startswith("warning: the artifact was calibrated with the checkpoint 0000000000000000 (files)")


@pytest.mark.parametrize("study", [["compare", "--methods", "grid", "--timed", 0], ["ablate", "parts"]])
def test_a_study_refuses_other_weights_if_it_is_told_to(copied, command, study):
    place = copied.run / "artifact"
    known = read_artifact(place)
    other = known.manifest.checkpoint.model_copy(update={"digest": "0" * 64})
    write_artifact(known.with_manifest(known.manifest.model_copy(update={"checkpoint": other})), place)
    refused = command(*study, *copied.words, "--strict")
    assert (refused.code, "--checkpoint" in refused.err) == (2, True)


def test_show_names_the_checkpoint(place, command):
    known = read_artifact(place).manifest
    assert f"checkpoint {known.checkpoint}" in command("artifact", "show", place).out


def test_show_says_how_sure_the_choices_are(place, command):
    known, said = read_artifact(place), command("artifact", "show", place).out
    for entry in known.manifest.budgets:
        assert f"budget {entry.name}: how sure" in said
        for row in sure_rows(entry, known.classes):
            assert " ".join(row) in " ".join(said.split())
    assert all(line in said for line in LEGEND)


def test_recheck_measures_what_was_recorded(place, copied, command):
    words = ["artifact", "verify", place, *copied.words, "--recheck"]
    assert "5 of 5 as recorded" in command(*words, 5).out
    recorded = [s for s in sample_scores(read_artifact(place)) if s.setting == "calibrated"]
    result = command(*words, 10_000, "--json")
    assert (result.code, result.json["recheck"]) == (0, {"checked": len(recorded), "differing": []})


def test_recheck_finds_a_score_that_is_not_true(place, copied, command):
    artifact = read_artifact(place)
    scores = sample_scores(artifact)
    lied = next(i for i, s in enumerate(scores) if s.setting == "calibrated")
    scores[lied] = replace(scores[lied], score=1 - scores[lied].score)
    write_artifact(with_scores(artifact, scores), place)
    ended = command("artifact", "verify", place, *copied.words, "--recheck", 10_000, "--json")
    (differing,) = ended.json["recheck"]["differing"]
    assert (ended.code, differing["sample"], differing["measured"]) == (1, scores[lied].sample, 1 - scores[lied].score)


def test_recheck_needs_a_model_and_the_same_samples(place, copied, command, tmp_path):
    assert "remove --recheck, or add --model" in command("artifact", "verify", place, "--recheck", 1).err
    table = tmp_path / "other.jsonl"
    first = json.loads(copied.samples.read_text().splitlines()[0])
    first |= {"id": "other", "class": "text", "image": str(copied.picture)}
    table.write_text(json.dumps(first))
    ended = command("artifact", "verify", place, *copied.words, "--recheck", 1, "--samples", table)
    assert (ended.code, "which is not in the table" in ended.err) == (2, True)
    bare = command("artifact", "export", tmp_path / "bare", "--artifact", place)
    assert bare.code == 0
    ended = command("artifact", "verify", tmp_path / "bare", *copied.words, "--recheck", 1)
    assert (ended.code, "records no scores to check" in ended.err) == (2, True)


def test_diff_speaks_in_meaning(place, command, tmp_path):
    artifact = read_artifact(place)
    rhos = artifact.rhos.copy()
    label = next(label for label, c in artifact.entry("6").choices.items() if c.evaluations)
    where = artifact.budgets.index("6"), artifact.classes.index(label)
    before, after = artifact.rho("6", label), 0.25
    rhos[where] = after
    changed = type(artifact)(artifact.manifest, artifact.alphas, rhos, artifact.study)
    write_artifact(changed, tmp_path / "b")
    out = command("artifact", "diff", place, tmp_path / "b").out
    (line,) = [line for line in out.splitlines() if "rho" in line]
    assert line == f"budget 6, {label}: rho {before:g} -> 0.25, +0.0 +- 56.1 points", "of three pictures"
    result = command("artifact", "diff", place, tmp_path / "b", "--json").json
    assert [c["label"] for c in result["changes"] if c["rho"][0] != c["rho"][1]] == [label]


def test_diff_of_equal_bare_artifacts_says_so(place, command, tmp_path):
    for name in ("a", "b"):
        command("artifact", "export", tmp_path / name, "--artifact", place)
    same = command("artifact", "diff", tmp_path / "a", tmp_path / "b").out
    assert "rho" not in same


def test_export_writes_what_a_server_needs(place, command, tmp_path):
    assert command("artifact", "export", tmp_path / "served", "--artifact", place, "--budget", "6").code == 0
    served, whole = read_artifact(tmp_path / "served"), read_artifact(place)
    assert (served.budgets, dict(served.study)) == (("6",), {})
    assert all(served.alpha("6", c) == whole.alpha("6", c) for c in whole.classes)
    assert command("artifact", "export", tmp_path / "n.json", "--artifact", place, "--json").json["budgets"] == [
        "6",
        "50%",
    ]
    numbers = json.loads((tmp_path / "n.json").read_text())
    for budget in whole.budgets:
        assert numbers["budgets"][budget]["counts"] == list(whole.counts(budget))
        for label in whole.classes:
            expected = {
                "alpha": list(whole.alpha(budget, label)),
                "rho": whole.rho(budget, label),
                "seeding": whole.seeding(budget, label),
            }
            assert numbers["budgets"][budget]["classes"][label] == expected
    assert command("artifact", "export", tmp_path / "x", "--artifact", place, "--budget", "7").code == 2
    assert "cannot write" in command("artifact", "export", tmp_path / "no" / "n.json", "--artifact", place).err


def test_bump_raises_the_version_and_keeps_the_rest(place, command):
    before = read_artifact(place)
    result = command("artifact", "bump", place, "--version", "minor", "--json").json
    after = read_artifact(place)
    assert (result["before"], result["version"], result["id"]) == ("0.1.0", "0.2.0", after.manifest.id)
    assert after.manifest.id != before.manifest.id
    assert dict(after.study) == dict(before.study)
    assert "0.2.0 -> 0.2.1" in command("artifact", "bump", place).out
    assert command("artifact", "bump", place, "--version", "0.1.0").code == 2


def test_an_evaluation_that_is_given_again_gives_the_recorded_numbers(copied, place, command):
    words = ["evaluate", *copied.words, "--timed", "0"]
    before = read_artifact(place).manifest
    ended = command(*words)
    assert "the same numbers as the artifact recorded before" in ended.out
    assert read_artifact(place).manifest == before
    assert command(*words, "--seed", "1", "--json").json["as_recorded"] is None


def test_a_router_is_put_in_shown_compared_used_and_taken_out(place, copied, command, tmp_path):
    before = tmp_path / "before"
    command("artifact", "export", before, "--artifact", place)
    trained = command("train-router", "--run", copied.run, "--force")
    assert trained.code == 0, trained.err
    ended = command("artifact", "set-router", "--run", copied.run)
    assert ended.code == 0, ended.err
    assert "n-grams, trained on" in ended.out
    shown = command("artifact", "show", place).out
    assert re.search(r"router: n-grams, trained on .*; right in .* of .* held-out questions \(macro", shown)
    assert command("artifact", "show", place, "--json").json["router_quality"]["against"] == "gold"
    assert "router.safetensors" in command("artifact", "verify", place, "--json").json["files"]
    assert "router: none -> n-grams" in command("artifact", "diff", before, place).out
    routed = command("route", "How many?", "--artifact", place, "--json").json
    words = ["generate", *copied.words, "--image", copied.picture, "--prompt", "How many?", "--json"]
    assert command(*words).json["class"] == routed["class"]
    assert command("artifact", "set-router", place, "--remove", "--json").json["router"] is None
    assert read_artifact(place).router is None
    assert command("route", "How many?", "--artifact", place, "--json").json["by"] == "the packaged router"
    assert command("artifact", "set-router", place, "--remove", "--router", "x").code == 2


def test_a_search_puts_the_runs_router_in_and_refuses_one_of_another_taxonomy(copied, command):
    command("train-router", "--run", copied.run, "--force")
    words = ["search", *copied.words, "--space", copied.run / "small.yaml", "--budget", "6"]
    ended = command(*words, "--json")
    assert ended.code == 0, ended.err
    (said,) = (line for line in ended.err.splitlines() if "goes into the artifact" in line)
    assert said.startswith(f"{copied.run / 'router.safetensors'} goes into the artifact")
    assert "held-out questions (macro" in said
    assert read_artifact(copied.run / "artifact").router is not None
    (copied.run / "router.safetensors").rename(copied.run / "other.safetensors")
    assert "the artifact that is there keeps its router" in command(*words).err
    (copied.run / "other.safetensors").rename(copied.run / "router.safetensors")
    ended = command(*words, "--router", "none")
    assert "the artifact that is there loses its router" in ended.err
    assert read_artifact(copied.run / "artifact").router is None
    strange = copied.run / "strange.safetensors"
    write_router(made_router(tuple(read_artifact(copied.run / "artifact").classes), taxonomy="9" * 64), strange)
    ended = command(*words, "--router", strange)
    assert ended.code == 2
    assert "router: its labels follow the taxonomy 999999999999" in ended.err
