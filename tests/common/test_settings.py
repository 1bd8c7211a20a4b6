"""Numbers that are given as settings."""

import pytest

import clasp_calib as cc
from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.settings import check_count, check_number

WRONG = ("15%", None, True, [1], 1j, float("nan"))


@pytest.mark.parametrize("value", [*WRONG, 2.0])
def test_what_is_no_whole_number_is_refused_by_its_name(value):
    with pytest.raises(InputError, match=r"first is .*; expected a whole number, at least 1"):
        check_count("first", value, 1)
    check_count("first", 1, 1)
    with pytest.raises(InputError, match="first is 0; expected at least 1"):
        check_count("first", 0, 1)


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_number_is_refused_by_its_name(value):
    with pytest.raises(InputError, match=r"spend is .*; expected a share"):
        check_number("spend", value, lambda share: 0 < share <= 1, "a share")
    check_number("spend", 1, lambda share: 0 < share <= 1, "a share")


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (cc.CalibrationOptions, {"pruning": "layers"}, "pruning is 'layers'; expected PruningOptions"),
        (cc.CalibrationOptions, {"router": "router.safetensors"}, "router is 'router.safetensors'; expected a Router"),
        (cc.CalibrationOptions, {"refine": "none"}, "refine is 'none'; expected True or False"),
        (
            cc.CalibrationOptions,
            {"class_from": ["task"]},
            r"class_from .* is \['task'\]; expected the name of a column",
        ),
        (cc.CalibrationOptions, {"one_class": "yes"}, "one_class is 'yes'; expected True or False"),
        (cc.CalibrationOptions, {"taxonomy": 3}, "taxonomy is 3; expected a Taxonomy, or a YAML file"),
        (cc.StudyOptions, {"strict": "no"}, "strict is 'no'; expected True or False"),
        (cc.StudyOptions, {"split": 3}, "split is 3; expected a name"),
        (cc.EvaluationOptions, {"record": "no"}, "record is 'no'; expected True or False"),
        (cc.EvaluationOptions, {"checkpoint": 7}, "checkpoint is 7; expected a digest"),
        (cc.GenerationOptions, {"class_": ["text"]}, r"class_ is \['text'\]; expected the name of one class"),
    ],
)
def test_settings_of_another_type_are_refused(kind, given, told):
    with pytest.raises(InputError, match=told):
        kind(**given)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((cc.Pooled, name) for name in ("spend", "until")),
        *((cc.Race, name) for name in ("indifference", "confidence", "first", "growth")),
        *((cc.Halving, name) for name in ("first", "eta")),
        *((cc.TPE, name) for name in ("trials", "samples", "keep")),
        (cc.TwoStep, "rho"),
        *((cc.CalibrationOptions, name) for name in ("cautious", "per_class", "lattice", "seed")),
        *((cc.EvaluationOptions, name) for name in ("per_class", "seed", "timed")),
        *((cc.ComparisonOptions, name) for name in ("per_class", "solve_on", "timed")),
        (cc.GenerationOptions, "max_new_tokens"),
        *((cc.Crew, name) for name in ("workers", "threads")),
        *((cc.PruningOptions, name) for name in ("iterations", "starts")),
    ],
)
@pytest.mark.parametrize("value", ["15%", -1])
def test_no_setting_takes_a_wrong_type_or_a_number_out_of_range(kind, name, value):
    with pytest.raises(ClaspError, match=r"expected"):
        kind(**{name: value})
