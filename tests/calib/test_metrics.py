"""The metrics by name, and those that other packages bring."""

import pytest
from installed_packages import installing

from clasp_calib.calib.scoring.metrics import GROUP, METRICS, generated, metric
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package that brings metrics."""
    with installing(GROUP, tmp_path, monkeypatch) as install:
        yield install


STARTS = "def score(answer, references):\n    return float(any(answer.startswith(r) for r in references))\n"


def test_an_installed_package_brings_its_metric(package):
    package("starts_with", STARTS, ["starts_with = starts_with:score"])
    assert metric("starts_with")("two cups", ["two"]) == 1
    assert metric("exact")("two cups", ["two"]) == 0
    with pytest.raises(InputError, match=r"'bleu'; expected one of exact, .*, starts_with"):
        metric("bleu")


def test_a_metric_that_cannot_be_told_from_another_is_refused(package):
    package("starts_with", STARTS, ["starts_with = starts_with:score", "vqa = starts_with:score"])
    package("twin", STARTS, ["starts_with = twin:score"])
    with pytest.raises(InputError, match=r"'starts_with' is brought by (starts_with and twin|twin and starts_with)"):
        metric("starts_with")
    with pytest.raises(InputError, match="'vqa' is brought by clasp-calib and starts_with; remove one"):
        metric("vqa")


@pytest.mark.parametrize("code", ["import nothing_of_this_name", "1 / 0", "other = 1"])
def test_a_package_that_does_not_load_is_named(package, code):
    package("broken", code, ["bad = broken:score"])
    with pytest.raises(InputError, match=r"metric 'bad' of broken \(broken:score\) cannot be loaded \(.+\); mend"):
        metric("bad")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=rf"'bleu'; expected one of {', '.join(METRICS)}"):
        metric("bleu")


def test_all_but_exact_have_to_generate():
    samples = [
        Sample(str(number), "?", metric=name) for number, name in enumerate([None, "exact", "vqa", "vqa", "mme"])
    ]
    assert generated(samples) == {"vqa": 2, "mme": 1}
