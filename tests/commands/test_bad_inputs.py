"""What is wrong with an input is said in one line, with what to do about it; there is no traceback."""

import re

import pytest
from bad_inputs import (
    Place,
    begins,
    empty,
    flipped,
    forget_model,
    label,
    model,
    new_picture,
    no_weights,
    notes,
    nothing,
    only,
    removed,
    rows,
    text,
    text_model,
)
from ready_runs import copy_of

from clasp_calib.cli import run

LABEL = "label {bad} --run {new}"
CACHE = "cache-features --run {run} --model {model}"
SEARCH = "search --run {run} --model {model} --budget 50%"
EVALUATE = "evaluate --run {run} --model {model} --timed 0"
SHOW = "artifact show --run {run}"
GENERATE = "generate --run {run} --model {model} --image {picture} --prompt What?"
SPACE = "rhos: [0.5]\nprototypes: [{name: a, weights: {1: 1.0}}]"
ADVICE = re.compile(
    r"\b(expected|give|run|choose|make|mend|remove|check|try|add|use|must|rename|map|take[s]?|calibrate|fetch|needs|known)\b"
)

CASES = {
    "samples missing": (LABEL, nothing, r"no sample file at .*nothing; expected a \.parquet, \.jsonl, \.csv file"),
    "samples a directory": (LABEL, empty, "is a directory without .*, and without Parquet files; give one"),
    "unknown extension": (LABEL, text("bad.txt", "x"), r"ends in '\.txt'; expected one of \.parquet, \.jsonl, \.csv"),
    "empty file": (LABEL, text("bad.jsonl", ""), "holds no rows; expected at least one question"),
    "no question": (
        LABEL,
        text("bad.jsonl", '{"q": "a"}\n'),
        r"no column 'question' \(it has q\); rename it, or map it",
    ),
    "broken line": (LABEL, text("bad.jsonl", '{"question": "a"}\n{"q\n'), r"cannot be read as jsonl: line 2: "),
    "lines of lists": (LABEL, text("bad.jsonl", "[1]\n"), "line 1: a list, expected an object"),
    "mixed types": (
        LABEL,
        rows({"note": 1}, {"note": "x", "id": "2"}),
        "as jsonl: column 'note': .*; mend",
    ),
    "not UTF-8": (
        LABEL,
        text("bad.csv", b"question\n\xff\xfe\n"),
        r"cannot be read as csv: line 2 is not UTF-8 \(byte 0xff\); save the file as UTF-8; mend it",
    ),
    "damaged Parquet": (LABEL, text("bad.parquet", "PAR1"), "cannot be read as parquet: .*; mend it"),
    "duplicate ids": (LABEL, rows({}, {}), "holds the id '1' more than once; ids must be unique"),
    "blank question": (
        LABEL,
        rows({"question": " "}),
        r"1 rows have no question \(first id '1'\); remove or fill them",
    ),
    "unknown intent": (LABEL, rows({"intent": "magic"}), "has the intent 'magic'; expected one of .*Mend it"),
    "unknown class": (LABEL, rows({"class": "magic"}), "has the class 'magic'; expected one of object, attribute"),
    "unknown split": (LABEL, rows({"split": "valid"}), "has split 'valid'; expected one of train, calibration"),
    "image a number": (LABEL, rows({"image": 7}), "has the image 7; expected the path of a file"),
    "answers a truth value": (
        LABEL,
        rows({"answers": True}),
        "column 'answers': the truth value True; write",
    ),
    "split a number": (LABEL, rows({"split": 3}), "has the split 3; expected a text"),
    "samples a device": ("label /dev/zero --run {new}", None, "the sample file /dev/zero is a device; give a regular"),
    "pictures nowhere": (
        "label {samples} --run {new} --image-root {bad}",
        nothing,
        "the directory of pictures .*nothing is none; give one",
    ),
    "a backend's option": (
        LABEL + " --chunk 9",
        rows({}),
        "--chunk is used by --backend vllm or auto; and .* keywords: remove",
    ),
    "bad column": (LABEL + " --column question", rows({}), "takes OURS=YOURS, for instance question=prompt"),
    "column not there": (LABEL + " --column question=q", rows({}), r"no column 'q' \(it has id, .*give one of these"),
    "bad taxonomy": (
        "label {samples} --run {new} --taxonomy {bad}",
        text("t.yaml", "version: 2"),
        "taxonomy .*; mend the",
    ),
    "bad rules": (
        "label {samples} --run {new} --rules {bad}",
        text("r.yaml", "- ["),
        "is not valid YAML.*; mend the file",
    ),
    "run below a file": ("label {samples} --run {bad}/run", text("f", ""), "cannot write to the run directory .*--run"),
    "run in /proc": (
        "label {samples} --run /proc/run",
        None,
        r"cannot write to the run directory /proc/run .*with --run",
    ),
    "out below a file": (
        "label {samples} --run {new} --out {bad}/l.parquet",
        text("f", ""),
        "cannot write .*; give another",
    ),
    "no labels": (
        "cache-features --run {new}",
        None,
        r"no sample file at .*labels\.parquet; expected .*; make it with `clasp-calib label FILE --run ",
    ),
    "no model": (CACHE + " --model {bad}", nothing, "cannot load a multimodal model from .*; give a model directory"),
    "no config": (CACHE + " --model {bad}", empty, r"no config\.json\); give a transformers model directory"),
    "text model": (
        CACHE + " --model {bad}",
        text_model,
        r"no adapter for the architecture 'bert'; use a model of a known one \(.*llava, .*\), or write an adapter",
    ),
    "no weights": (
        CACHE + " --model {bad}",
        no_weights,
        "cannot load a multimodal model from .*; give a model directory",
    ),
    "unknown dtype": (
        CACHE + " --dtype int4",
        None,
        "unknown dtype 'int4'; expected one of float32, bfloat16, float16",
    ),
    "unknown device": (CACHE + " --device tpu9", None, r"cannot use the device 'tpu9' \(.*\); try --device cpu"),
    "layers no numbers": (CACHE + " --layers x,y", None, "takes 'auto' or numbers such as 3,9,15,23; got 'x,y'"),
    "layers too high": (CACHE + " --layers 3,5", None, r"layers \(--layers\) is \[3, 5\]; expected some of 0"),
    "no pictures": (
        "cache-features --run {new} --model {model} --samples {bad}",
        rows({"image": None}),
        "none of the 1 samples has a picture; expected a column 'image'",
    ),
    "cache of another tower": (
        CACHE + " --model {bad}",
        model(seed=7, decoder_layers=17),
        "was made with the encoder .* or another directory",
    ),
    "budget under the floor": (
        SEARCH + " --budget 2",
        None,
        "a budget of 2 cannot be met: .* give a budget of at least",
    ),
    "budget above all": (SEARCH + " --budget 9999", None, "prunes nothing: .*; give a budget under 16, or 100%"),
    "budget no number": (SEARCH + " --budget abc", None, "budget 'abc' is neither .*; give a positive whole number"),
    "budget zero": (SEARCH + " --budget 0", None, "budget '0' is neither a number of tokens nor a share; give"),
    "budget above 100%": (SEARCH + " --budget 101%", None, "a percentage above 0% and up to 100%"),
    "too few layers": (
        SEARCH + " --model {bad} --out {new}",
        model(decoder_layers=15),
        "stages at layers 2, 6, 15 do not fit a decoder of 15 layers; expected",
    ),
    "starts no numbers": (SEARCH + " --starts 2,x", None, "--starts takes layer numbers such as 2,6,15; got '2,x'"),
    "starts not rising": (SEARCH + " --starts 6,2,15", None, "stages at layers 6, 2, 15 do not fit a decoder"),
    "not labelled": (SEARCH + " --samples {samples}", None, "have no 'class' .*run `clasp-calib label` first"),
    "no answers": (SEARCH, label(answers=[]), r"1 of 30 samples have no 'answers' .*the score compares with them"),
    "searched picture missing": (
        SEARCH,
        label(image="x.png"),
        "which does not exist; paths are relative to .*; mend the path",
    ),
    "unknown metric": (SEARCH, label(metric="bleu"), "unknown metric 'bleu'; expected one of exact, "),
    "place without a picture": (
        SEARCH,
        label(question="<image> or <image>?"),
        "holds <image> 2 times and comes with",
    ),
    "no calibration split": (SEARCH, only("test"), r"no sample is of the split 'calibration' \(there are test\)"),
    "no cache": (SEARCH + " --cache {bad}", nothing, "no feature cache at .*; make one with cache-features"),
    "picture not cached": (
        SEARCH,
        new_picture,
        r"1 of 8 pictures are not cached .*run `clasp-calib cache-features --layers",
    ),
    "no space": (
        SEARCH + " --space {bad}",
        nothing,
        "no search space at .*make one to start from with `clasp-calib search --plan`",
    ),
    "space no YAML": (SEARCH + " --space {bad}", text("s", "rhos: ["), "is not valid YAML: .*; mend"),
    "space not convex": (
        SEARCH + " --space {bad}",
        text("s", SPACE.replace("1.0", "2")),
        "must be positive and sum to 1",
    ),
    "space too deep": (
        SEARCH + " --space {bad}",
        text("s", SPACE.replace("{1:", "{9:")),
        r"names vision layers \[9\]; this",
    ),
    "space not cached": (
        SEARCH + " --space {bad}",
        text("s", SPACE.replace("{1:", "{4:")),
        r"not \[4\]; add them: clasp-calib",
    ),
    "bad prompt": (SEARCH + " --prompt <image>", None, r"must hold <image> and \{question\}, once each"),
    "study of other settings": (
        SEARCH + " --starts 2,6,14 --out {new}",
        None,
        r"were recorded .*settings: .*schedule.starts was \[2, 6, 15\], is now \[2, 6, 14\].*--run",
    ),
    "study damaged": (
        SEARCH,
        begins("study/scores.jsonl", "{torn\n"),
        r"line 1 of the journal .*scores\.jsonl is damaged .*remove",
    ),
    "storage unknown": (SEARCH + " --storage {bad}", nothing, r"cannot use the storage .*expected journal:FILE"),
    "address without Ray": (SEARCH + " --ray-address auto", None, "--ray-address is used by --engine ray; .*remove"),
    "artifact place taken": (SEARCH + " --out {bad}", notes, "is not empty and holds no artifact; give another place"),
    "artifact of another prompt": (
        SEARCH + " --prompt <image>{{question}}",
        None,
        r"other settings \(prompt\); give another",
    ),
    "no artifact": (
        "artifact show {bad}",
        nothing,
        "no artifact at .*; make one with `clasp-calib search --budget 192`",
    ),
    "artifact damaged": (
        SHOW,
        flipped("artifact/weights.safetensors"),
        "is damaged: .*; fetch or make the artifact again",
    ),
    "artifact edited": (SHOW, begins("artifact/artifact.json", " [1]"), "cannot be read as JSON .*; fetch or make"),
    "artifact in part": (
        EVALUATE,
        removed("artifact/weights.safetensors"),
        r"weights\.safetensors is missing; fetch or make",
    ),
    "artifact of another model": (
        EVALUATE + " --model {bad}",
        model(decoder_layers=18),
        "text_layers: 17, 18.*; use the model",
    ),
    "asking another model": (
        GENERATE + " --model {bad}",
        model(decoder_layers=18),
        "text_layers: 17, 18.*; use the model",
    ),
    "budget not in it": (
        EVALUATE + " --budget 7",
        None,
        r"no budget '7' \(it holds 6, 50%\); choose one of these, or calibrate",
    ),
    "no test split": (EVALUATE, only("calibration"), r"no sample is of the split 'test' \(there are calibration\)"),
    "unknown split to report": (EVALUATE + " --split tset", None, r"'tset' \(there are calibration, selection, test\)"),
    "evaluate without cache": (EVALUATE, removed("cache"), "no feature cache at .*; make one with cache-features"),
    "broken config": (EVALUATE, begins("config.json", "["), r"config\.json is not JSON .*; mend or remove it"),
    "picture to ask about missing": (
        GENERATE + " --image {bad}",
        nothing,
        "nothing cannot be read .*No such file",
    ),
    "no picture to ask about": (
        GENERATE + " --image {bad}",
        text("x", "x"),
        "cannot be read .*no picture that Pillow knows, such as PNG",
    ),
    "asking for a class": (
        GENERATE + " --class cats",
        None,
        "knows no class 'cats'; expected one of object, attribute",
    ),
    "asking at a budget": (GENERATE + " --budget 7", None, "no budget '7' .*choose one of these, or calibrate it"),
    "asking with two places": (GENERATE + " --prompt <image><image>?", None, "holds <image> 2 times and comes with 1"),
    "quickstart too small": (
        "quickstart --run {new} --pictures 1 2",
        None,
        "--pictures 1 2: every part needs at least 2",
    ),
}


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory):
    """For all cases that change nothing; that a command was given is recorded even where it fails."""
    return copy_of(finished, tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize(("words", "spoil", "expected"), CASES.values(), ids=CASES)
def test_a_bad_input_is_refused_in_one_line(words, spoil, expected, shared, tmp_path, capsys):
    place = Place(shared, tmp_path)
    bad = spoil(place) if spoil else None
    names = place.names(bad)
    # Another model than the run's would be refused for that alone.
    forget_model(names["run"])
    capsys.readouterr()
    code = run([word.format(**names) for word in words.split()])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert re.search(expected, err), err
    assert ADVICE.search(err), "it does not say what to do"


def test_a_run_of_another_model_is_refused_by_name(finished, command, tmp_path):
    for words in (CACHE, SEARCH, EVALUATE, GENERATE):
        names = {"run": finished.run, "model": tmp_path, "picture": finished.picture}
        ended = command(*words.format(**names).split())
        assert ended.code == 2
        assert f"is of the model {finished.model}, and --model gives {tmp_path}; leave --model out" in ended.err


def test_a_run_remembers_its_model(copied, command):
    ended = command("evaluate", "--run", copied.run, "--timed", "0", "--budget", "6")
    assert ended.code == 0, ended.err
