"""Artifacts to and from the Hub: the real huggingface_hub client against a double of the service."""

import warnings

import huggingface_hub
import pytest
from hub_service import answering, cut, running_hub
from made_artifacts import made

from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.artifacts.evidence import Trial, with_trials
from clasp_calib.artifacts.files import MANIFEST, WEIGHTS, write_artifact
from clasp_calib.artifacts.hub import locate_artifact, parse_reference, publish, pull
from clasp_calib.cli import run
from clasp_calib.common.errors import ArtifactError, ClaspWarning, InputError

REPO, TOKEN = "org/tiny-clasp", "hf_aSecretThatNobodyMayRead"
TRIAL = Trial("8", "text", "own/rho=1", "own", 1.0, "chosen", 3, 0.5, None)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        urls = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", urls)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def place(tmp_path):
    write_artifact(with_trials(made("8", "50%"), [TRIAL]), tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("not for others")
    return tmp_path / "a"


def test_what_is_pulled_is_what_was_published(hub, place):
    done = publish(place, REPO)
    assert (done.repo, done.tag) == (REPO, "v0.1.0")
    files = hub.repos[REPO].commits[done.commit]
    assert set(files) == {MANIFEST, WEIGHTS, "README.md", "study/trials.parquet"} == set(done.files)
    assert all(files[name] == (place / name).read_bytes() and len(files[name]) == done.files[name] for name in files)
    assert (hub.repos[REPO].tags, hub.repos[REPO].private) == ({"v0.1.0": done.commit}, False)
    assert hub.repos[REPO].messages == ["tiny-clasp 0.1.0"]
    pulled = pull(REPO, "v0.1.0")
    assert read_artifact(pulled).manifest == read_artifact(place).manifest
    assert Artifact.load(f"{REPO}@v0.1.0").budgets == ("8", "50%")
    assert locate_artifact(f"{REPO}@v0.1.0") == pulled


def test_a_version_never_changes(hub, place):
    first = publish(place, REPO)
    again = publish(place, REPO)
    assert (again.commit, len(hub.repos[REPO].commits)) == (None, 2)
    write_artifact(made("8", seed=1), place)
    with pytest.raises(ArtifactError, match="exists with other content, and a published version never changes"):
        publish(place, REPO)
    assert hub.repos[REPO].tags == {"v0.1.0": first.commit}
    later = publish(place, REPO, "v0.2.0")
    assert hub.repos[REPO].tags == {"v0.1.0": first.commit, "v0.2.0": later.commit}
    assert "study/trials.parquet" not in hub.repos[REPO].commits[later.commit]
    assert Artifact.load(f"{REPO}@v0.1.0").budgets == ("8", "50%")
    assert Artifact.load(f"{REPO}@v0.2.0").budgets == ("8",)


def test_an_artifact_publishes_itself(hub, place):
    artifact = Artifact.load(place)
    assert artifact.push_to_hub(REPO, dry_run=True).files == publish(place, REPO, dry_run=True).files
    assert hub.requests == []
    first = artifact.push_to_hub(REPO)
    assert publish(place, REPO).tag == first.tag == "v0.1.0"
    assert hub.repos[REPO].tags == {"v0.1.0": first.commit}
    assert Artifact.load(f"{REPO}@v0.1.0").manifest == artifact.manifest


def test_a_new_repository_is_private_where_asked(hub, place):
    publish(place, REPO, private=True)
    assert hub.repos[REPO].private


def test_a_dry_run_touches_no_network(hub, place, capsys):
    assert run(["publish", REPO, "--artifact", str(place), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "weights.safetensors" in out
    assert "would upload 4 files" in out
    assert "notes.txt" not in out
    assert hub.requests == []


def test_a_damaged_artifact_is_not_published(hub, place):
    (place / "README.md").write_text("mine")
    with pytest.raises(ArtifactError, match=r"README\.md is damaged"):
        publish(place, REPO)
    assert hub.requests == []


def test_the_token_is_used_and_never_shown(hub, place, capsys, caplog):
    assert run(["publish", REPO, "--artifact", str(place)]) == 0
    assert run(["pull", f"{REPO}@v0.1.0"]) == 0
    hub.faults.append(("GET", "/refs", answering(401)))
    assert run(["publish", REPO, "--artifact", str(place)]) == 2
    assert {token for _, path, token in hub.requests if path.startswith("/api")} == {f"Bearer {TOKEN}"}
    printed = capsys.readouterr()
    assert TOKEN not in printed.out + printed.err + caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/api/repos/create", 401, "log in with `hf auth login`"),
        pytest.param("POST", "/api/repos/create", 403, "your token may not do this", marks=pytest.mark.slow),
        ("GET", "/refs", 404, "check the name and the version"),
        pytest.param("POST", "/preupload/", 403, "your token may not do this", marks=pytest.mark.slow),
        ("POST", "/lfs/objects/batch", 403, "your token may not do this"),
        pytest.param("POST", "/commit/", 409, "somebody else works on it", marks=pytest.mark.slow),
        ("POST", "/commit/", 412, "somebody else changed the repository meanwhile; give the command again"),
        ("POST", "/tag/", 409, "it is there already"),
        ("POST", "/commit/", 500, "try again later"),
    ],
)
def test_a_refusal_is_one_clear_line_and_can_be_given_again(hub, place, capsys, method, path, status, expected):
    hub.faults.append((method, path, answering(status)))
    assert run(["publish", REPO, "--artifact", str(place)]) == 2
    # Before it the client may show its progress, with no line break behind it.
    before, err = capsys.readouterr().err.strip().split("error: ")
    assert "Traceback" not in before
    assert err.startswith(f"cannot publish to {REPO}: the Hub answers {status}")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert all(not repo.tags for repo in hub.repos.values())
    hub.faults.clear()
    assert run(["publish", REPO, "--artifact", str(place)]) == 0
    assert Artifact.load(f"{REPO}@v0.1.0").budgets == ("8", "50%")


def test_somebody_else_who_commits_meanwhile_is_not_overwritten(hub, place):
    publish(place, REPO)

    def meanwhile(handler):
        hub.faults.clear()
        known = hub.repos[REPO]
        known.commits["f" * 40] = {**known.commits[known.head], "README.md": b"theirs"}
        handler._route()

    write_artifact(made("8", version="0.2.0"), place)
    hub.faults.append(("POST", "/preupload/", meanwhile))
    with pytest.raises(InputError, match="412"):
        publish(place, REPO)
    assert hub.repos[REPO].commits[hub.repos[REPO].head]["README.md"] == b"theirs"


def test_a_cut_upload_leaves_nothing_to_be_seen(hub, place, capsys):
    hub.faults.append(("PUT", "/objects/", cut))
    assert run(["publish", REPO, "--artifact", str(place)]) == 2
    assert "and the network, and give the command again" in capsys.readouterr().err
    assert (len(hub.repos[REPO].commits), hub.repos[REPO].tags) == (1, {})
    hub.faults.clear()
    assert publish(place, REPO).commit


def test_what_the_hub_changed_is_refused(hub, place, capsys):
    commit = publish(place, REPO).commit
    hub.repos[REPO].commits[commit][WEIGHTS] = hub.repos[REPO].commits[commit][WEIGHTS][:-1] + b"x"
    assert run(["pull", f"{REPO}@v0.1.0"]) == 2
    assert "weights.safetensors is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("org/nothing@v1.0.0", "the Hub answers 404"),
        (f"{REPO}@v9.9.9", "the Hub answers 404"),
        (REPO, "expected a name and a version: org/name@v1.2.0"),
        ("../../etc@v1", "expected a name and a version"),
    ],
)
def test_what_is_not_there_cannot_be_pulled(hub, place, capsys, reference, expected):
    publish(place, REPO)
    assert run(["pull", reference]) == 2
    assert expected in capsys.readouterr().err


def test_a_repository_that_holds_something_else_is_refused(hub, place, capsys):
    commit = publish(place, REPO).commit
    del hub.repos[REPO].commits[commit][MANIFEST]
    assert run(["pull", f"{REPO}@v0.1.0"]) == 2
    assert "there is no artifact.json" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_said(hub, place, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run(["publish", REPO, "--artifact", str(place)]) == 2
    assert run(["pull", f"{REPO}@v0.1.0"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert all("check" in line and "network" in line for line in lines)


def test_a_pulled_version_serves_without_a_network(hub, place, monkeypatch):
    publish(place, REPO)
    pull(REPO, "v0.1.0")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(ClaspWarning, match="going on with the copy"):
        assert Artifact.load(f"{REPO}@v0.1.0").budgets == ("8", "50%")


def test_a_directory_stays_a_path(hub, place, tmp_path, monkeypatch):
    assert locate_artifact(place) == place
    (tmp_path / "org").mkdir()
    write_artifact(made("6"), tmp_path / "org" / "name@v1")
    monkeypatch.chdir(tmp_path)
    assert Artifact.load("org/name@v1").budgets == ("6",)
    assert hub.requests == []


def test_commands_take_a_reference_where_they_take_a_path(hub, place, capsys):
    publish(place, REPO)
    assert run(["artifact", "show", f"{REPO}@v0.1.0"]) == 0
    assert "tiny-clasp 0.1.0" in capsys.readouterr().out
    assert run(["artifact", "verify", f"{REPO}@v0.1.0"]) == 0


def test_references_are_names_with_versions():
    assert parse_reference("org/name@v1.2.0") == ("org/name", "v1.2.0")
    with pytest.raises(InputError, match="names no artifact on the Hub"):
        parse_reference("name@v1")


def test_a_bare_name_is_advised_to_name_a_version(hub, place, capsys, tmp_path, monkeypatch):
    publish(place, REPO)
    monkeypatch.chdir(tmp_path)
    for reference in (REPO, f"{REPO}@main"):
        assert run(["artifact", "show", reference]) == 2
        assert f"if it is on the Hub, name a version: {REPO}@v0.1.0" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be published to"):
        publish(place, REPO, "main")


def test_private_never_goes_to_a_public_repository(hub, place):
    publish(place, REPO)
    commits = len(hub.repos[REPO].commits)
    with pytest.raises(InputError, match="is there and public"):
        publish(place, REPO, "v0.2.0", private=True)
    assert (len(hub.repos[REPO].commits), list(hub.repos[REPO].tags)) == (commits, ["v0.1.0"])
    publish(place, "org/hidden", private=True)
    assert publish(place, "org/hidden", "v0.2.0", private=True).repo == "org/hidden"


def spoiled(hub):
    """The next weights are damaged on their way: their hash, as the service tells it, is that of the whole ones."""

    def fault(handler):
        hub.faults.clear()

        def spoil(status, content, **headers):
            del handler.answer
            handler.answer(status, bytes([content[0] ^ 1]) + content[1:], **headers)

        handler.answer = spoil
        handler._route()

    return fault


def test_damage_on_the_way_is_fetched_again(hub, place):
    publish(place, REPO)
    hub.faults.append(("GET", "/resolve/.*weights", spoiled(hub)))
    assert read_artifact(pull(REPO, "v0.1.0")).manifest == read_artifact(place).manifest
    assert not hub.faults


def test_damage_in_the_cache_is_mended(hub, place):
    publish(place, REPO)
    weights = pull(REPO, "v0.1.0") / WEIGHTS
    weights.resolve().write_bytes(b"junk")
    assert Artifact.load(f"{REPO}@v0.1.0").budgets == ("8", "50%")


@pytest.mark.thinned("status", "path")
@pytest.mark.parametrize("path", ["/revision/", "/tree/", "/resolve/"])
@pytest.mark.parametrize(
    ("status", "expected"), [(401, "hf auth login"), (403, "may not"), (404, "the name"), (500, "later")]
)
def test_a_refused_pull_says_what_the_hub_answered(hub, place, capsys, path, status, expected):
    publish(place, REPO)
    hub.faults += [(method, path, answering(status)) for method in ("GET", "HEAD")]
    assert run(["pull", f"{REPO}@v0.1.0"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: cannot pull {REPO}@v0.1.0: the Hub answers {status}")
    assert expected in line


def test_a_refused_object_says_what_the_hub_answered(hub, place, capsys):
    hub.faults.append(("PUT", "/objects/", answering(403)))
    assert run(["publish", REPO, "--artifact", str(place)]) == 2
    assert "the Hub answers 403" in capsys.readouterr().err


def test_a_cut_download_leaves_nothing_unfinished(hub, place, tmp_path):
    def half(handler):
        handler.whole_body()
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"a" * 100)
        handler.close_connection = True

    publish(place, REPO)
    hub.faults.append(("GET", "/resolve/.*weights", half))
    with pytest.raises(InputError, match="cannot pull"):
        pull(REPO, "v0.1.0")
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    hub.faults.clear()
    assert pull(REPO, "v0.1.0")


def test_a_tag_of_something_else_is_not_overwritten(hub, place):
    commit = publish(place, REPO).commit
    for content in (None, b"[" * 100_000, b"[]"):
        hub.repos[REPO].commits[commit].pop(MANIFEST, None)
        if content is not None:
            hub.repos[REPO].commits[commit][MANIFEST] = content
        with pytest.raises(ArtifactError, match="exists with other content"):
            publish(place, REPO)
    assert hub.repos[REPO].tags == {"v0.1.0": commit}


def test_a_tag_that_failed_is_made_up_for_without_another_commit(hub, place):
    hub.faults.append(("POST", "/tag/", answering(403)))
    with pytest.raises(InputError, match="403"):
        publish(place, REPO)
    hub.faults.clear()
    publish(place, REPO)
    assert (len(hub.repos[REPO].messages), hub.repos[REPO].tags) == (1, {"v0.1.0": hub.repos[REPO].head})


def test_diff_and_export_take_a_reference(hub, place, tmp_path, capsys):
    publish(place, REPO)
    assert run(["artifact", "diff", f"{REPO}@v0.1.0", str(place)]) == 0
    assert run(["artifact", "export", str(tmp_path / "served"), "--artifact", f"{REPO}@v0.1.0"]) == 0
    assert read_artifact(tmp_path / "served").budgets == ("8", "50%")


def moved(hub, files):
    """The tag points to a new commit of these files."""
    repo = hub.repos[REPO]
    repo.commits["e" * 40] = files
    repo.tags["v0.1.0"] = "e" * 40


def test_a_tag_that_moved_since_the_last_pull_is_said(hub, place):
    commit = publish(place, REPO).commit
    pull(REPO, "v0.1.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pull(REPO, "v0.1.0")
    moved(hub, hub.repos[REPO].commits[commit])
    with pytest.warns(ClaspWarning, match=f"has moved since it was pulled last: it was the commit {commit}"):
        pull(REPO, "v0.1.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pull(REPO, "v0.1.0")
    assert Artifact.load(f"{REPO}@{commit}").budgets == ("8", "50%")


def test_a_command_says_it_in_a_line(hub, place, capsys):
    commit = publish(place, REPO).commit
    assert run(["pull", f"{REPO}@v0.1.0"]) == 0
    moved(hub, hub.repos[REPO].commits[commit])
    assert run(["pull", f"{REPO}@v0.1.0"]) == 0
    assert f"warning: {REPO}@v0.1.0 has moved" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (MANIFEST, b" " * ((16 << 20) + 1), r"its artifact\.json has 16,777,217 bytes, more than the 16,777,216"),
        (WEIGHTS, b"x" * 100_000, r"its weights\.safetensors has 100,000 bytes, more than the 65,"),
        (WEIGHTS, None, r"there is no weights\.safetensors"),
        (MANIFEST, b"{}", "is of format None"),
    ],
)
def test_what_is_no_artifact_is_refused_before_it_is_fetched(hub, place, name, content, message):
    commit = publish(place, REPO).commit
    files = hub.repos[REPO].commits[commit]
    moved(hub, {n: c for n, c in {**files, name: content}.items() if c is not None})
    hub.requests.clear()
    with pytest.raises(ArtifactError, match=message):
        pull(REPO, "v0.1.0")
    asked = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
    assert asked <= ({MANIFEST} if name != MANIFEST or len(content) < 100 else set())


def test_only_what_the_manifest_lists_is_fetched(hub, place):
    commit = publish(place, REPO).commit
    more = {"../../outside": b"x", "/etc/x": b"x", "model.safetensors": b"x" * 1000, "router.safetensors": b"x"}
    moved(hub, {**hub.repos[REPO].commits[commit], **more})
    hub.requests.clear()
    assert Artifact.load(f"{REPO}@v0.1.0").router is None
    asked = {
        path.rpartition(f"{'e' * 40}/")[2]
        for method, path, _ in hub.requests
        if method == "GET" and "/resolve/" in path
    }
    assert asked == set(hub.repos[REPO].commits[commit])


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_copy_serves_with_a_warning_where_the_hub_refuses(hub, place, status):
    publish(place, REPO)
    first = pull(REPO, "v0.1.0")
    hub.faults.append(("GET", "/revision/", answering(status)))
    with pytest.warns(ClaspWarning, match="going on with the copy of .* that was pulled before"):
        assert pull(REPO, "v0.1.0") == first


def test_a_version_that_vanished_is_refused_though_a_copy_is_there(hub, place):
    publish(place, REPO)
    pull(REPO, "v0.1.0")
    hub.repos[REPO].tags.clear()
    with pytest.raises(InputError, match="the Hub answers 404"):
        pull(REPO, "v0.1.0")


def test_offline_is_no_cause_for_a_warning(hub, place, monkeypatch):
    publish(place, REPO)
    first = pull(REPO, "v0.1.0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pull(REPO, "v0.1.0") == first
    with pytest.raises(InputError, match="cannot pull org/other@v1"):
        pull("org/other", "v1")
