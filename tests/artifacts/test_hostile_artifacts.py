"""Artifacts from strangers: refused with the name of the field, whatever they hold; nothing hangs, nothing crashes."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from made_artifacts import made, sealed
from made_routers import made_router
from safetensors.numpy import load_file, save

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.choices import SelectorEntry
from clasp_calib.artifacts.evidence import Trial, trials, with_trials
from clasp_calib.artifacts.files import MANIFEST, ROUTER, WEIGHTS, write_artifact
from clasp_calib.artifacts.manifest import Manifest
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.router_labeling.router_file import router_bytes


@pytest.fixture
def place(tmp_path):
    rows = [Trial("8", "text", "deep/rho=1", "deep", 1.0, "chosen", 3, 0.5, None)]
    artifact = with_trials(made("8", "50%"), rows)
    selector = SelectorEntry(name="fastv", knobs={"layer": 2, "ratio": 0.75, "some": (1, 2), "more": None})
    entries = [entry.model_copy(update={"choices": dict(entry.choices)}) for entry in artifact.manifest.budgets]
    entries[0].choices["text"] = entries[0].choices["text"].model_copy(update={"selector": selector})
    artifact = artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": tuple(entries)}))
    write_artifact(artifact, tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.update(classes=[f"c{i}" for i in range(5000)]), "classes: "),
        (lambda c: c["classes"].__setitem__(0, "text"), "'text' is listed more than once"),
        (lambda c: c["classes"].__setitem__(0, "a\u202eb"), "classes.0: holds"),
        (lambda c: c["classes"].__setitem__(0, "macro"), "classes.0: .macro. means something else"),
        (lambda c: c.update(name="\x1b[2J"), "name: "),
        (lambda c: c.update(name="two\nlines"), "name: "),
        (lambda c: c["shape"].update(vision_layers=10**12), r"shape\.vision_layers: .*1000 \(given 1000000000000\)"),
        (lambda c: c.update(starts=[0, 2, 3]), r"starts: \(0, 2, 3\) do not ascend between layers 1 and 16"),
        (lambda c: c.update(starts=[6, 2, 15]), "starts: "),
        (lambda c: c["budgets"][0].update(counts=[1, 2, 3]), r"budgets\.8\.counts"),
        (lambda c: c["budgets"][0].update(counts=[3]), r"budgets\.8\.counts: 1 counts for 3 stages"),
        (lambda c: c["budgets"][0].update(name="../8"), r"budgets\.0\.name"),
        (lambda c: c["budgets"].append(c["budgets"][0]), "the budget '8' is listed more than once"),
        (lambda c: c["budgets"][0]["choices"].pop("text"), r"budgets\.8\.choices"),
        (lambda c: c["budgets"][0].update(results={"x": {"cats": SCORE}}), r"budgets\.8\.results\.x: 'cats'"),
        (lambda c: c["taxonomy"].update(counting="cats"), "taxonomy: 'cats'"),
        (lambda c: c["provenance"].pop("8"), "provenance"),
        (lambda c: c.update(iterations=True), "iterations"),
        (lambda c: c.update(prompt="x" * 70_000), "prompt: "),
        (lambda c: c.update(version="1.0.0\n"), "version: "),
        (lambda c: c["shape"].update(text_layers=2**62), r"shape\.text_layers: .*given 4611686018427387904"),
        (lambda c: c["shape"].update(patch_size=0), r"shape\.patch_size: "),
        (lambda c: c["shape"].update(vision_feature_layer=-1), r"shape\.vision_feature_layer: "),
        (lambda c: c["shape"].update(architecture="\x1b[31m"), r"shape\.architecture: "),
        (lambda c: c.update(iterations=10**12), "iterations: .*1000"),
        (lambda c: c.update(tau=1e300), "tau: "),
        (lambda c: c.update(starts=[2, 6, 17]), r"starts: \(2, 6, 17\) do not ascend between layers 1 and 16"),
        (lambda c: c.update(prompt="<image>{question}\x1b[2J"), "prompt: "),
        (lambda c: c.update(name="evil\u202egnp"), "name: "),
        (lambda c: c["budgets"][0].update(counts=[17, 6, 5]), r"counts: \(17, 6, 5\) do not descend from 16"),
        (lambda c: c["budgets"][0].update(counts=[2**40, 6, 5]), r"counts\.0: "),
        (lambda c: c["budgets"][0].update(alternatives={"x": {"text": OTHER}}), "alternatives.x: layer 9 of 4"),
        (
            lambda c: c["budgets"][0].update(alternatives={"x": {"text": OTHER | {"layers": [1, 2]}}}),
            r"alternatives\.x: the weights sum to 0\.9, expected 1",
        ),
        (
            lambda c: c["budgets"][0].update(alternatives={"x": {"text": OTHER | {"weights": [-1, 2]}}}),
            r"alternatives\.x\.text\.weights\.0: ",
        ),
        (lambda c: c["budgets"][0]["choices"]["text"].update(candidates=2**60), r"choices\.text\.candidates: "),
        (lambda c: selector_in(c).update(name="\x1b[31m"), r"choices\.text\.selector\.name: "),
        (lambda c: selector_in(c).pop("name"), r"choices\.text\.selector\.name: "),
        (lambda c: selector_in(c).update(code="x"), r"choices\.text\.selector\.code: Extra inputs"),
        (lambda c: selector_in(c).update(knobs=dict.fromkeys(map("k{}".format, range(101)), 1)), r"selector\.knobs: "),
        (lambda c: selector_in(c)["knobs"].update(layer={"a": 1}), r"choices\.text\.selector\.knobs\.layer"),
        (lambda c: selector_in(c)["knobs"].update(layer=[[1]]), r"choices\.text\.selector\.knobs\.layer"),
        (lambda c: selector_in(c)["knobs"].update({"a b": 1}), r"choices\.text\.selector\.knobs\.a b"),
        (lambda c: c["provenance"]["8"].update(seed=2**70), r"provenance\.8\.seed: "),
        (lambda c: c["decoding"].update(max_new_tokens=2**40), r"decoding\.max_new_tokens: "),
        (lambda c: c.update({"\x1b[31mred": 1}), r"\\x1b\[31mred: Extra inputs"),
    ],
)
def test_a_manifest_is_refused_by_the_field(place, change, field):
    sealed(place, change)
    with pytest.raises(ArtifactError, match=field):
        read_artifact(place)


@pytest.fixture
def routed(place):
    write_artifact(read_artifact(place).with_router(made_router()), place)
    return place


def test_a_missing_router_is_refused(routed):
    (routed / ROUTER).unlink()
    with pytest.raises(ArtifactError, match=r"router\.safetensors is missing"):
        read_artifact(routed)


def test_a_changed_router_is_refused(routed):
    content = bytearray((routed / ROUTER).read_bytes())
    content[-1] ^= 1
    (routed / ROUTER).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"router\.safetensors is damaged"):
        read_artifact(routed)


def test_a_router_is_bounded_before_it_is_read(routed):
    with (routed / ROUTER).open("r+b") as file:
        file.truncate(1 << 34)
    with pytest.raises(ArtifactError, match=r"router\.safetensors has 17179869184 bytes, more than the 20000000"):
        read_artifact(routed)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (made_router(("text", "object", "default")), "router: it knows the classes text, object, default"),
        (made_router(("object", "text")), "router: it knows the classes object, text, and the artifact"),
        (made_router(taxonomy="4" * 64), "router: its labels follow the taxonomy 444444444444"),
        (made_router(threshold=0.9), "router: the manifest and the router's file do not say the same"),
        (made_router(weights=np.zeros((4, 3), np.float32)), r"weights is float32 of shape \(4, 3\)"),
        (made_router(bias=np.zeros(2, np.float32)), r"bias is float32 of shape \(2,\)"),
        (made_router(bias=np.zeros(3)), "bias is float64"),
        (made_router(bias=np.full(3, np.nan, np.float32)), "bias holds numbers that are not finite"),
    ],
)
def test_routers_that_do_not_fit_are_refused_though_their_hash_fits(routed, router, message):
    (routed / ROUTER).write_bytes(router_bytes(router))
    sealed(routed)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(routed)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"not safetensors at all"])
def test_routers_that_are_none_are_refused_though_their_hash_fits(routed, content):
    (routed / ROUTER).write_bytes(content)
    sealed(routed)
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        read_artifact(routed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(router=None), "router: the manifest and the router's file do not say the same"),
        (lambda c: c["files"].pop(ROUTER), "router: the manifest and the router's file do not say the same"),
        (lambda c: c["router"].update(threshold=2), r"router\.threshold"),
        (lambda c: c["router"].update(kind="pickle"), r"router\.kind"),
        (lambda c: c["router"].update(more=1), r"router\.more"),
    ],
)
def test_a_manifest_that_speaks_of_another_router_is_refused(routed, change, message):
    sealed(routed, change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(routed)


def selector_in(content):
    return content["budgets"][0]["choices"]["text"]["selector"]


OTHER = {"prototype": "p", "layers": [1, 9], "weights": [0.5, 0.4], "rho": 0.5}
SCORE = {"mean": 0.5, "low": 0.4, "high": 0.6, "samples": 3}


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" * 5000, "NaN"])
def test_numbers_that_are_none_are_refused(place, value):
    text = (place / MANIFEST).read_text()
    (place / MANIFEST).write_text(text.replace('"tau": 1.0', f'"tau": {value}'))
    with pytest.raises(ArtifactError):
        read_artifact(place)


def test_text_that_is_not_unicode_is_refused(place):
    text = (place / MANIFEST).read_text()
    (place / MANIFEST).write_text(text.replace('"tiny-clasp"', '"\\ud800"'))
    with pytest.raises(ArtifactError, match="holds text that is not Unicode"):
        read_artifact(place)


def test_a_key_that_stands_twice_is_refused(place):
    text = (place / MANIFEST).read_text()
    (place / MANIFEST).write_text(text.replace('"tau": 1.0', '"tau": 1.0, "tau": 2.0'))
    with pytest.raises(ArtifactError, match="the key 'tau' stands twice"):
        read_artifact(place)


def test_files_are_bounded_before_they_are_read(place):
    with (place / MANIFEST).open("r+b") as file:
        file.truncate(1 << 34)
    with pytest.raises(ArtifactError, match=r"artifact\.json has 17179869184 bytes, more than the 16777216"):
        read_artifact(place)


def test_weights_are_bounded_by_what_the_manifest_needs(place):
    with (place / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 34)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors has 17179869184 bytes, more than the 65\d+ that"):
        read_artifact(place)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, ROUTER, "study/trials.parquet"])
def test_links_out_of_the_artifact_are_refused(routed, name, tmp_path):
    secret = tmp_path / "secret"
    (routed / name).rename(secret)
    (routed / name).symlink_to(secret)
    with pytest.raises(ArtifactError, match=r"is a link to .*secret, outside of the artifact"):
        read_artifact(routed)


def test_a_linked_study_directory_is_refused(place, tmp_path):
    (place / "study").rename(tmp_path / "elsewhere")
    (place / "study").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="outside of the artifact"):
        read_artifact(place)


def test_the_hubs_own_links_are_followed(place, tmp_path):
    """The Hub's cache links snapshots/REVISION/FILE to blobs/HASH."""
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "1", tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(p for p in sorted(place.rglob("*")) if p.is_file()):
        link = snapshot / file.relative_to(place)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(number))
        link.symlink_to(blobs / str(number))
    assert read_artifact(snapshot).budgets == ("8", "50%")


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text.encode() + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        header("{}"),
        header("[]"),
        header('{"alpha":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        header('{"alpha":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', b"1234"),
        header(
            '{"alpha":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"rho":{"dtype":"BF16","shape":[1],'
            '"data_offsets":[2,4]}}',
            b"1234",
        ),
        header(
            '{"alpha":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"rho":{"dtype":"F4","shape":[2],'
            '"data_offsets":[1,2]}}',
            b"12",
        ),
        struct.pack("<Q", 1 << 60) + b"{}",
    ],
)
def test_weights_that_are_none_are_refused_though_their_hash_fits(place, content):
    (place / WEIGHTS).write_bytes(content)
    sealed(place)
    with pytest.raises(ArtifactError):
        read_artifact(place)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("alpha", (0, 0, 0), np.nan), ("alpha", (0, 0, 0), -1), ("alpha", (1, 2, 3), 2), ("rho", (0, 1), 1.5),
     ("rho", (0, 1), -0.1), ("rho", (1, 1), np.inf)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_though_their_hash_fits(place, name, index, value):
    weights = load_file(place / WEIGHTS)
    weights[name][index] = value
    (place / WEIGHTS).write_bytes(save(weights))
    sealed(place)
    with pytest.raises(ArtifactError, match=r"not finite|not convex|outside \[0, 1\]"):
        read_artifact(place)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
anything = st.recursive(leaves, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=3), c, max_size=3))


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_manifest_is_read_or_refused(place, data):
    whole = json.loads((place / MANIFEST).read_text())
    original = json.dumps(whole)
    path = data.draw(st.sampled_from([p for p in paths(whole) if p]))
    *way, last = path
    inner = whole
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        del inner[last]
    else:
        inner[last] = data.draw(anything)
    try:
        whole["id"] = sha256_json({key: value for key, value in whole.items() if key != "id"})
        text = json.dumps(whole)
    except ValueError:
        return  # No sha256 of a lone surrogate, so no id that fits.
    (place / MANIFEST).write_text(text)
    try:
        trials(read_artifact(place))
    except ArtifactError:
        pass
    finally:
        (place / MANIFEST).write_text(original)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([MANIFEST, WEIGHTS, ROUTER, "study/trials.parquet"]),
    seal=st.booleans(),
    place_=st.floats(0, 1, exclude_max=True),
    junk=st.binary(max_size=20),
    cut=st.integers(0, 40),
)
def test_any_change_of_the_bytes_is_read_or_refused(routed, name, seal, place_, junk, cut):
    place = routed
    before = {file: (place / file).read_bytes() for file in (MANIFEST, WEIGHTS, ROUTER, "study/trials.parquet")}
    start = int(place_ * len(before[name]))
    (place / name).write_bytes(before[name][:start] + junk + before[name][start + cut :])
    try:
        if seal and name != MANIFEST:
            sealed(place)
        trials(read_artifact(place))
    except ArtifactError:
        pass
    finally:
        for file, content in before.items():
            (place / file).write_bytes(content)


@pytest.mark.slow
def test_all_numbers_together_are_bounded(place):
    """Each of the three may be; 67 million weights may not."""

    def change(content):
        many = [{**content["budgets"][0], "name": str(n), "counts": [10, 6, 5]} for n in range(1, 1001)]
        classes = [f"c{n}" for n in range(68)]
        choice = content["budgets"][0]["choices"]["text"]
        for one in many:
            one["choices"] = dict.fromkeys(classes, choice)
        content["shape"]["vision_layers"] = 1000
        content["fingerprint"] = sha256_json(content["shape"])
        content.update(budgets=many, classes=classes, taxonomy={}, default_class=None, router=None)

    content = json.loads((place / MANIFEST).read_text())
    change(content)
    with pytest.raises(ValueError, match="budgets: with the classes and layers they have 68068000 weights"):
        Manifest.model_validate(content)


def test_a_nested_manifest_is_refused(place):
    text = (place / MANIFEST).read_text().rstrip().removesuffix("}")
    for depth in (33, 500, 990, 100_000):
        (place / MANIFEST).write_text(f'{text}, "more": {"[" * depth}{"]" * depth}}}')
        with pytest.raises(ArtifactError, match=r"artifact\.json cannot be read as JSON \(it is nested"):
            read_artifact(place)


@pytest.mark.parametrize("name", [WEIGHTS, "study/trials.parquet", MANIFEST])
def test_a_pipe_in_an_artifact_is_refused(place, name):
    (place / name).unlink()
    os.mkfifo(place / name)
    with pytest.raises(ArtifactError, match=r"is missing|there is no artifact\.json"):
        read_artifact(place)


@pytest.mark.parametrize("name", ["study", ".partial"])
def test_writing_follows_no_link(place, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "trials.parquet").write_text("mine")
    artifact = read_artifact(place)
    if (place / name).exists():
        (place / name).rename(tmp_path / "aside")
    (place / name).symlink_to(outside)
    with pytest.raises(InputError, match=rf"{name} is a link, and writing would follow it"):
        write_artifact(artifact, place)
    assert (outside / "trials.parquet").read_text() == "mine"
