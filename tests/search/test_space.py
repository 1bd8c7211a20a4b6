"""The search space: what it holds, and what a file may not say."""

import pytest
import yaml
from hypothesis import given, strategies as st

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import RELEVANCES, SEEDINGS
from clasp_calib.search.calibration_options import CalibrationOptions
from clasp_calib.search.search_plan import contents
from clasp_calib.search.space import OWN, Prototype, SearchSpace, default_space, read_space, write_space

NUMBERS = st.floats(0.01, 1)


@st.composite
def spaces(draw, layers=12):
    prototypes = []
    names = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != OWN)
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        raw = draw(st.dictionaries(st.integers(0, layers), NUMBERS, min_size=1, max_size=4))
        weights, smaller = {k: v / sum(raw.values()) for k, v in raw.items()}, draw(st.sampled_from([None, 0.25, 0.5]))
        prototypes.append(Prototype(name=name, weights=weights, downsample=smaller))
    rhos = draw(st.lists(st.integers(0, 100).map(lambda hundredths: hundredths / 100), min_size=1, max_size=5))
    seedings = draw(st.lists(st.sampled_from(SEEDINGS), min_size=1, unique=True))
    relevances = draw(st.lists(st.sampled_from(RELEVANCES), unique=True))
    return SearchSpace(
        prototypes=tuple(prototypes),
        rhos=tuple(rhos),
        seedings=tuple(seedings),
        relevances=tuple(relevances),
        selectors=("clasp", *draw(st.lists(selectors(), max_size=3, unique_by=lambda of: of["name"]))),
    )


@st.composite
def selectors(draw):
    values = st.one_of(st.integers(), st.sampled_from(["a", "b"]), st.booleans(), st.just((1, 2)), st.floats(0, 1))
    knobs = st.dictionaries(st.sampled_from(["layer", "share"]), st.lists(values, min_size=1, max_size=2, unique=True))
    return {"name": draw(st.sampled_from(["fastv", "divprune", "dart"])), "knobs": draw(knobs)}


@given(spaces())
def test_what_is_read_is_what_was_written(tmp_path_factory, space):
    path = tmp_path_factory.mktemp("space") / "deep" / "space.yaml"
    write_space(space, path)
    assert read_space(path) == space
    assert read_space(path).digest == space.digest


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*space\.yaml .*--run"):
        write_space(default_space((1,), 1), tmp_path / "file" / "space.yaml")


@given(spaces(), st.integers(0, 12))
def test_doing_nothing_is_always_there_and_first(space, own):
    candidates = space.candidates(12, own)
    first = candidates[0]
    assert (first.prototype, first.rho) == (OWN, 1.0)
    assert first.alpha == tuple(float(layer == own) for layer in range(13))
    own = {(c.alpha, c.rho, c.seeding, c.relevance, c.downsample, c.selector) for c in candidates}
    assert len(own) == len({c.name for c in candidates})
    assert {c.downsample for c in candidates} == {None, *space.downsamples}
    assert len({*candidates}) == len({c.key for c in candidates}) == len(candidates)
    asked = {(p.name, rho, s) for p in space.prototypes for rho in space.rhos for s in space.seedings if rho < 1}
    asked |= {(p.name, 1.0, "redundancy") for p in space.prototypes if 1 in space.rhos}
    asked |= {(p.name, 0.0, "redundancy") for p in space.prototypes if "none" in space.relevances}
    assert {(c.prototype, c.rho, c.seeding) for c in candidates[1:] if not c.selector} <= asked
    assert {(c.prototype, c.downsample) for c in candidates if c.selector} <= {(p.name, None) for p in space.prototypes}
    mixtures = {tuple(sorted(p.weights.items())) for p in space.prototypes if p.downsample is None}
    assert sum(c.selector is not None for c in candidates) == len(mixtures) * len({*space.others})
    assert {c.relevance for c in candidates} <= {None, *space.relevances} - {"none"}
    for candidate in candidates:
        assert len(candidate.alpha) == 13
        assert sum(candidate.alpha) == pytest.approx(1)


def test_other_selectors_are_tried_with_every_mixture_and_every_knob():
    prototypes = (Prototype(name="a", weights={1: 1.0}), Prototype(name="small", weights={1: 1.0}, downsample=0.5))
    fastv = {"name": "fastv", "knobs": {"layer": [1, 2]}}
    space = SearchSpace(prototypes=prototypes, rhos=(0.5,), selectors=("clasp", fastv, "divprune"))
    names = [c.name for c in space.candidates(4, 3)]
    others = ["a/fastv layer=1", "a/fastv layer=2", "a/divprune"]
    assert names == ["own/rho=1", "a/rho=0.5", *others, "small/rho=0.5/downsample=0.5"]
    alone = [c.name for c in space.of_method("fastv").candidates(4, 3)]
    assert alone == ["own/fastv layer=1", "a/fastv layer=1", "a/fastv layer=2"]
    assert [c.name for c in space.of_method("dart").candidates(4, 3)] == ["own/dart", "a/dart"]
    assert space.of_method("clasp").digest != space.digest


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        ([], "selectors: Tuple should have at least 1 item"),
        (["fastv", "fastv"], "each selector may stand once"),
        ([{"name": "clasp", "knobs": {"rho": 1}}], "'clasp' has no knobs"),
        ([{"name": "fastv", "knobs": {"layer": []}}], "no values of the knob 'layer'"),
        ([{"name": "fastv", "layer": 2}], "Extra inputs"),
        (
            [{"name": "scope", "knobs": {"alpha": [1.0, float("inf")]}}],
            "'scope': the values of the knob 'alpha' have to be",
        ),
        ([{"name": "btp", "knobs": {"candidates": [[1.0, float("nan"), 1.0]]}}], "'candidates' have to be finite"),
    ],
)
def test_selectors_that_a_file_may_not_name(tmp_path, selectors, message):
    path = tmp_path / "space.yaml"
    path.write_text(
        yaml.safe_dump({"prototypes": [{"name": "a", "weights": {1: 1}}], "rhos": [1], "selectors": selectors})
    )
    with pytest.raises(InputError, match=message):
        read_space(path)


def test_a_mixture_that_two_prototypes_share_is_tried_once():
    space = SearchSpace(
        prototypes=(
            Prototype(name="a", weights={1: 0.5, 2: 0.5}),
            Prototype(name="b", weights={2: 0.5, 1: 0.5}),
            Prototype(name=OWN, weights={3: 1.0}),
        ),
        rhos=(0.5, 1.0, 0.5),
    )
    assert [c.name for c in space.candidates(4, 3)] == ["own/rho=1", "a/rho=0.5", "a/rho=1", "own/rho=0.5"]


def test_seedings_are_tried_with_every_ratio_that_has_medoids():
    space = SearchSpace(prototypes=(Prototype(name="a", weights={1: 1.0}),), rhos=(0.5, 1.0), seedings=SEEDINGS)
    names = [c.name for c in space.candidates(4, 3)]
    assert names == ["own/rho=1", "a/rho=0.5", "a/rho=0.5/farthest", "a/rho=0.5/k-center", "a/rho=1"]
    plain = SearchSpace(prototypes=space.prototypes, rhos=space.rhos)
    assert space.with_lattice(2).seedings == SEEDINGS
    assert plain.digest != space.digest
    assert plain.digest == "d55a16acb7665c0420da66dd8abb1a0fad60fdb0adaced1b869f8c7d23e8bc35", (
        "stored searches would not be known again"
    )


def test_relevances_are_tried_with_every_ratio_that_has_pivots():
    prototypes, relevances = (Prototype(name="a", weights={1: 1.0}),), ("class-token", "mean-attention", "none")
    space = SearchSpace(prototypes=prototypes, rhos=(0.0, 0.5), seedings=("farthest",), relevances=relevances)
    found = space.candidates(4, 3, "class-token")
    assert [c.name for c in found] == [
        "own/rho=1",
        "a/rho=0/farthest",
        "a/rho=0.5/farthest",
        "a/rho=0.5/farthest/mean-attention",
        "a/rho=0",
    ]
    assert found[3].key == "1.0*1 rho=0.5 farthest mean-attention"
    assert space.with_lattice(2).relevances == relevances
    plain = SearchSpace(prototypes=prototypes, rhos=(0.5,))
    assert [(c.name, c.rho) for c in plain.candidates(4, 3, "none")] == [("own/rho=0", 0.0), ("a/rho=0", 0.0)]


def test_a_prototype_may_show_pictures_smaller():
    whole, half = Prototype(name="a", weights={1: 1.0}), Prototype(name="b", weights={1: 1.0}, downsample=0.5)
    space = SearchSpace(prototypes=(whole, half), rhos=(0.5,))
    found = space.candidates(4, 3)
    assert [c.name for c in found] == ["own/rho=1", "a/rho=0.5", "b/rho=0.5/downsample=0.5"]
    assert found[2].key == "1.0*1 rho=0.5 downsample=0.5"
    assert space.downsamples == (0.5,)
    assert [p.downsample for p in SearchSpace(prototypes=(half,), rhos=(0.5,)).with_lattice(1).prototypes] == [
        0.5,
        None,
    ]


def test_smaller_pictures_that_no_selector_is_tried_with():
    whole, half = Prototype(name="a", weights={1: 1.0}), Prototype(name="b", weights={1: 1.0}, downsample=0.5)
    space = SearchSpace(prototypes=(whole, half), rhos=(0.5,), selectors=("divprune",))
    assert (space.untried, space.downsamples) == (("b",), ())
    assert [c.prototype for c in space.candidates(4, 3)] == [OWN, "a"]
    assert space.of_method("clasp").untried == ()
    other = Prototype(name="c", weights={2: 1.0}, downsample=0.5)
    wider = space.model_copy(update={"prototypes": (whole, half, other)})
    assert (wider.layers, wider.of_method("clasp").layers) == ((1,), (1, 2))
    assert contents(wider, rated=True)["prototypes"] == ["a"]
    assert [p.weights for p in wider.with_lattice(1).tried] == [{1: 1.0}, {2: 1.0}]
    alone = SearchSpace(prototypes=(half,), rhos=(0.5,))
    assert CalibrationOptions(space=alone).space == alone
    with pytest.raises(InputError, match=r"all prototypes of the space show smaller pictures \(b\).* 'clasp'"):
        CalibrationOptions(space=alone, method="divprune")
    assert CalibrationOptions(space=alone, method="divprune", lattice=1).space.untried == ("b",)


def test_what_scores_are_recorded_under_names_the_paper_seeding_by_nothing():
    plain, other = (Candidate("a", (0.0, 1.0), 0.5, seeding) for seeding in ("redundancy", "farthest"))
    assert (plain.key, other.key) == ("1.0*1 rho=0.5", "1.0*1 rho=0.5 farthest")
    assert plain == Candidate("b", (0.0, 1.0), 0.5) != other


def test_names_that_a_search_could_not_tell_apart_are_refused():
    foreign = SearchSpace(prototypes=(Prototype(name=OWN, weights={2: 1.0}),), rhos=(1.0,))
    with pytest.raises(
        InputError, match=r"2 different candidates called 'own/rho=1'; rename a prototype \('own' stands"
    ):
        foreign.candidates(4, 3)
    near = SearchSpace(prototypes=(Prototype(name="a", weights={2: 1.0}),), rhos=(0.5, 0.50000001))
    with pytest.raises(InputError, match=r"2 different candidates called 'a/rho=0\.5'"):
        near.candidates(4, 3)


def test_layers_that_the_tower_lacks_are_refused():
    space = SearchSpace(prototypes=(Prototype(name="a", weights={-1: 0.5, 5: 0.5}),), rhos=(1.0,))
    with pytest.raises(InputError, match=r"names vision layers \[-1, 5\]; this tower has hidden states 0 to 4"):
        space.candidates(4, 3)


@given(st.sets(st.integers(0, 24), min_size=1), st.data())
def test_the_default_space_mixes_cached_layers_around_the_own_one(layers, data):
    own = data.draw(st.sampled_from(sorted(layers)))
    space = default_space(sorted(layers), own)
    assert set(space.layers) <= layers
    assert own in space.layers
    candidates = space.candidates(24, own)
    assert len(candidates) >= len(space.rhos)
    if min(layers) < own:
        assert {"deep", "hybrid", "hybrid-light"} <= {p.name for p in space.prototypes}


def test_the_default_space_needs_the_own_layer():
    with pytest.raises(InputError, match=r"holds the layers \(1, 2\), without .* own layer 3; .*--layers 1,2,3"):
        default_space((1, 2), 3)


VALID = "rhos: [0.5]\nprototypes: [{name: a, weights: {1: 1.0}}]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rhos: [", "is not valid YAML"),
        ("\xff", "is not valid YAML: line 1 is not UTF-8"),
        ("", "is not a search space: the file: Input should be"),
        ("- 1", "is not a search space: the file"),
        (VALID + "\nseeds: 1", "is not a search space: seeds: Extra inputs"),
        ("rhos: [0.5]", "is not a search space: prototypes: Field required"),
        (VALID.replace("[0.5]", "[]"), "rhos: Tuple should have at least 1"),
        (VALID.replace("[0.5]", "[1.5]"), r"every rho must lie in \[0, 1\]"),
        (VALID + "\nseedings: [relevance]", "different ones of redundancy, farthest, k-center, got relevance"),
        (VALID + "\nseedings: [farthest, farthest]", "seedings must be different ones of .* got farthest, farthest"),
        (VALID.replace("}}]", "}, downsample: 1}]"), r"prototypes\.0\.downsample: Input should be less than 1"),
        (VALID.replace("}}]", "}, downsample: 0}]"), r"downsample: Input should be greater than or equal to 0\.01"),
        (VALID + "\nrelevances: [text]", "different ones of class-token, mean-attention, none, got text"),
        (VALID + "\nrelevances: [none, none]", "relevances must be different ones of .* got none, none"),
        (VALID.replace("[0.5]", "[.nan]"), r"every rho must lie in \[0, 1\]"),
        (VALID.replace("1: 1.0", "1: 0.9"), r"prototype 'a': weights must be positive and sum to 1, got \{1: 0\.9\}"),
        (VALID.replace("1: 1.0", "1: 1.5, 2: -0.5"), "must be positive and sum to 1"),
        (VALID.replace("1: 1.0", "1: .nan"), "must be positive and sum to 1"),
        (VALID.replace("1: 1.0", "deep: 1.0"), r"prototypes\.0\.weights\.deep"),
        (VALID.replace("{1: 1.0}", "{}"), r"prototypes\.0\.weights"),
        (VALID.replace("}}]", "}}, {name: a, weights: {2: 1.0}}]"), "prototype names must be unique, got a, a"),
    ],
)
def test_a_file_that_is_no_space_is_refused(tmp_path, text, expected):
    (tmp_path / "space.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=expected):
        read_space(tmp_path / "space.yaml")


def test_a_missing_file_says_where_to_get_one(tmp_path):
    with pytest.raises(
        InputError, match=r"no search space at .*space\.yaml; make one to start from with `clasp-calib search"
    ):
        read_space(tmp_path / "space.yaml")
