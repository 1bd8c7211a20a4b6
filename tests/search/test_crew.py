"""Who scores: what may be asked for, and models that other processes cannot load."""

import subprocess
import sys

import pytest
import torch
from made_searches import Fake
from tiny_models import tiny_llava

from clasp_calib.common.errors import InputError
from clasp_calib.search.crew import Crew, crew_for
from clasp_calib.search.local_workers import InProcess


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "steam"}, r"unknown engine 'steam'; expected local or ray \(--engine, or engine of Crew"),
        ({"workers": 0}, r"--workers 0 is too few; expected at least 1 \(workers of Crew"),
        ({"threads": 0}, r"--threads 0 is too few"),
        ({"ray_address": "auto"}, r"--ray-address auto is for --engine ray; add it.*ray_address and engine of Crew"),
        ({"engine": "ray", "workers": 2}, r"--workers 2 is for --engine local; a Ray cluster takes as many"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Crew(**given)


def test_threads_are_shared_out():
    assert Crew().threads_each(8) == 8
    assert Crew(workers=3).threads_each(8) == 2
    assert Crew(workers=9).threads_each(8) == 1
    assert Crew(workers=3, threads=5).threads_each(8) == 5
    assert Crew(engine="ray").threads_each(8) == 1


def test_a_model_in_memory_stays_with_one_worker(tmp_path):
    model = tiny_llava()
    Crew().check_reaches(model)
    for crew in (Crew(workers=2), Crew(engine="ray")):
        with pytest.raises(InputError, match=r"comes from 'memory', .*save it with save_pretrained.*or use one worker"):
            crew.check_reaches(model)
    model.config._name_or_path = "gone"
    with pytest.raises(InputError, match=r"comes from 'gone', which is neither a directory nor"):
        Crew(workers=2).check_reaches(model)
    model.config._name_or_path = str(tmp_path)
    Crew(workers=2).check_reaches(model)
    model.config._name_or_path, model.config._commit_hash = "org/name", "0" * 40
    Crew(workers=2).check_reaches(model)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    workers = crew_for(Crew(threads=before + 1), Fake(None), None)
    assert isinstance(workers, InProcess)
    assert torch.get_num_threads() == before + 1
    workers.close()
    assert torch.get_num_threads() == before


def test_it_is_there_without_torch():
    code = "import sys; from clasp_calib.search.crew import Crew; Crew(workers=2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
