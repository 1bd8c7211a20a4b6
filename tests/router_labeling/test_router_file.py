"""Router files: the same bytes again, and strangers' files refused by the name of what is wrong."""

import contextlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_routers import made_network, made_router
from safetensors.numpy import save

from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.router_labeling import router_file
from clasp_calib.router_labeling.router import RouterQuality, Shares
from clasp_calib.router_labeling.router_file import load_router, read_router, router_bytes, write_router


def metadata(router, **changes):
    content = router_bytes(router)
    size = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["router"]) | changes


def content_of(router, told, **tensors):
    network = {} if router.network is None else vars(router.network)
    own = {"weights": router.weights, "bias": router.bias, **{f"network.{name}": one for name, one in network.items()}}
    return save({**own, **tensors}, {"router": json.dumps(told)})


GOOD = RouterQuality("gold", 40, 0.75, 0.7, Shares(0.6, 0.5))


@pytest.mark.parametrize("quality", [None, GOOD, replace(GOOD, without=None, against="labels")])
def test_what_is_written_is_read_and_gives_the_same_bytes(tmp_path, quality):
    router = made_router(quality=quality)
    write_router(router, tmp_path / "deep" / "router.safetensors")
    again = load_router(tmp_path / "deep" / "router.safetensors")
    arrays = ("weights", "bias")
    assert all(np.array_equal(getattr(router, name), getattr(again, name)) for name in arrays)
    blank = dict.fromkeys((*arrays, "name"))
    assert again.quality == quality
    assert again.name == str(tmp_path / "deep" / "router.safetensors")
    assert asdict(replace(router, **blank)) == asdict(replace(again, **blank))
    assert router_bytes(again) == router_bytes(router)
    assert router.route("How many?") == again.route("How many?")


def test_a_network_is_written_and_read_with_the_router():
    router = made_router(network=made_network())
    again = read_router(router_bytes(router), "router")
    assert all(np.array_equal(one, vars(again.network)[name]) for name, one in vars(router.network).items())
    assert router_bytes(again) == router_bytes(router)
    assert router.route("How many?") == again.route("How many?") != made_router().route("How many?")


def test_format_2_is_read_and_has_no_network():
    told = metadata(made_router(quality=GOOD), format=2)
    del told["network"]
    told["quality"]["rules"] = told["quality"].pop("without")
    assert read_router(content_of(made_router(), told), "router").quality == GOOD
    router = made_router(network=made_network())
    with pytest.raises(ArtifactError, match="network: there is none in format 2"):
        read_router(content_of(router, metadata(router, format=2)), "router")


@pytest.mark.parametrize(
    ("change", "tensors", "message"),
    [
        ({"vocabulary": "1" * 64}, {}, "trained on another vocabulary"),
        ({"vocabulary": "x"}, {}, r"network\.vocabulary"),
        ({"width": 0}, {}, r"network\.width"),
        ({"filters": 6}, {}, r"network\.filters is float32 of shape \(4, 6, 5\); .*\(4, 6, 6\)"),
        ({}, {"network.vectors": np.zeros((9, 4), np.int8)}, r"network\.vectors is int8 of shape \(9, 4\)"),
        ({}, {"network.output": np.full((15, 3), np.inf, np.float32)}, r"network\.output holds numbers that are not"),
        ({}, {"network.more": np.zeros(1, np.float32)}, r"holds .*network\.more"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(change, tensors, message):
    router = made_router(network=made_network())
    told = metadata(router)
    told["network"] |= change
    with pytest.raises(ArtifactError, match=message):
        read_router(content_of(router, told, **tensors), "router")


def test_format_1_is_read_and_says_nothing_of_quality():
    told = metadata(made_router(), format=1)
    del told["quality"], told["network"]
    again = read_router(content_of(made_router(), told), "router")
    assert again == replace(made_router(), weights=again.weights, bias=again.bias)
    assert metadata(again)["format"] == 3
    assert "how often it is right is not known" in str(again)
    with pytest.raises(ArtifactError, match="quality: there is none in format 1"):
        read_router(content_of(made_router(), metadata(made_router(quality=GOOD), format=1)), "router")


def test_a_router_says_how_good_it_is():
    assert str(made_router(quality=GOOD)).endswith(
        "abstains below 0.40; right in 75.0% of 40 held-out questions (macro 70.0%) by classes given by hand; without "
        "it 60.0% (50.0%)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["object", "default"]}, r"weights is float32 of shape \(256, 3\); .* float32 and \(256, 2\)"),
        ({"classes": ["object", "object", "default"]}, "classes: one is listed twice"),
        ({"classes": ["a\nb", "text", "default"]}, r"classes\.0"),
        ({"classes": [f"c{i}" for i in range(1001)]}, "classes"),
        ({"default": "other"}, "default: 'other' is not among the classes"),
        ({"taxonomy": "x"}, "taxonomy"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"threshold": 1.5}, "threshold"),
        ({"format": 4}, "is a router of format 4; this version of clasp-calib reads formats 1 to 3"),
        ({"format": True}, "is a router of format True"),
        ({"format": 2.0}, "is a router of format 2.0"),
        ({"quality": {}}, "quality"),
        ({"quality": asdict(GOOD) | {"accuracy": 1.1}}, r"quality\.accuracy"),
        ({"quality": asdict(GOOD) | {"questions": 0}}, r"quality\.questions"),
        ({"quality": asdict(GOOD) | {"against": "itself"}}, r"quality\.against"),
        ({"quality": asdict(GOOD) | {"without": {"accuracy": 1.0}}}, r"quality\.without"),
        ({"training": {"labels": "1" * 64, "rows": 0, "labelers": []}}, r"training\.rows"),
        ({"more": 1}, "more"),
        ({"hashing": {"bits": 60, "words": [1], "characters": [], "normalisation": 1, "version": 1}}, r"hashing\.bits"),
        ({"hashing": {"bits": 8, "words": [], "characters": [], "normalisation": 1, "version": 1}}, "no n-grams"),
        ({"hashing": {"bits": 8, "words": [99], "characters": [], "normalisation": 1, "version": 1}}, "words"),
        ({"hashing": {"bits": 9, "words": [1], "characters": [], "normalisation": 1, "version": 1}}, "weights is"),
        ({"hashing": {"bits": 8, "words": [1], "characters": [], "normalisation": 1, "version": 2}}, "other n-grams"),
    ],
)
def test_metadata_that_do_not_fit_are_refused_by_the_field(change, message):
    router = made_router()
    with pytest.raises(ArtifactError, match=message):
        read_router(content_of(router, metadata(router, **change)), "router")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weights": np.zeros((256, 3), np.float64)}, "weights is float64"),
        ({"weights": np.zeros((3, 256), np.float32)}, r"weights is float32 of shape \(3, 256\)"),
        ({"weights": np.full((256, 3), np.nan, np.float32)}, "weights holds numbers that are not finite"),
        ({"bias": np.array([0, np.inf, 0], np.float32)}, "bias holds numbers that are not finite"),
        ({"weights": np.full((256, 3), 3e38, np.float32)}, "weights holds numbers beyond 10000"),
        ({"bias": np.zeros(4, np.float32)}, r"bias is float32 of shape \(4,\)"),
        ({"more": np.zeros(1, np.float32)}, "holds bias, more, weights; expected bias, weights"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_their_name(tensors, message):
    router = made_router()
    with pytest.raises(ArtifactError, match=message):
        read_router(content_of(router, metadata(router), **tensors), "router")


@pytest.mark.parametrize("told", [None, {}, {"router": "["}, {"router": "[]"}, {"other": "{}"}])
def test_metadata_that_are_none_are_refused(told):
    router = made_router()
    with pytest.raises(ArtifactError, match=r"router has no metadata 'router' in JSON|is a router of format"):
        read_router(save({"weights": router.weights, "bias": router.bias}, told), "router")


def test_a_router_that_is_too_large_is_neither_read_nor_written(monkeypatch, tmp_path):
    content = router_bytes(made_router())
    (tmp_path / "router.safetensors").write_bytes(content)
    monkeypatch.setattr(router_file, "MOST_BYTES", len(content) - 1)
    with pytest.raises(InputError, match="more than"):
        load_router(tmp_path / "router.safetensors")
    with pytest.raises(InputError, match="fewer bits"):
        router_bytes(made_router())


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="train-router"):
        load_router(tmp_path / "router.safetensors")


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=12), cut=st.integers(0, 20))
def test_any_change_of_the_bytes_is_read_or_refused(place, junk, cut):
    content = router_bytes(made_router(bits=4))
    start = int(place * len(content))
    with contextlib.suppress(ArtifactError):
        read_router(content[:start] + junk + content[start + cut :], "router").route("How many?")
