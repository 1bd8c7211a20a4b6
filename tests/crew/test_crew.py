"""Who scores: what may be asked for, and models that other processes cannot load."""

import os
import subprocess
import sys

import pytest
import torch
from tiny_models import tiny_llava

from clasp_calib.common.errors import InputError
from clasp_calib.crew.crew import PROCESS, Crew, crew_for, workers_for
from clasp_calib.crew.local_workers import InProcess


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "steam"}, r"unknown engine 'steam'; expected local or ray \(--engine, or engine of Crew"),
        ({"workers": 0}, r"workers \(--workers\) is 0; expected at least 1"),
        ({"threads": 0}, r"threads \(--threads\) is 0; expected at least 1"),
        ({"ray_address": "auto"}, r"--ray-address auto is for --engine ray; add it.*ray_address and engine of Crew"),
        ({"engine": "ray", "devices": ("cuda:0",)}, r"--devices cuda:0 is for --engine local; Ray gives each task"),
        ({"devices": 5}, r"devices \(--devices\) is 5; expected names such as \('cuda:0', 'cuda:1'\)"),
        ({"devices": "cuda:0,"}, r"devices \(--devices\) is 'cuda:0,'"),
        ({"devices": ("cuda:0", "")}, r"devices \(--devices\) is \('cuda:0', ''\)"),
        ({"devices": (0, 1)}, r"devices \(--devices\) is \(0, 1\)"),
        ({"engine": "ray", "workers": 2}, r"--workers 2 is for --engine local; a Ray cluster takes as many"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Crew(**given)


def test_a_device_has_at_least_one_worker():
    two = Crew(devices=["cuda:0", "cuda:1"])
    assert (two.workers, two.devices, two.alone) == (2, ("cuda:0", "cuda:1"), False)
    assert not Crew(devices=("cuda:1",)).alone, "it may be another than the model's"
    assert Crew(workers=3, devices=("cuda:0",)).workers == 3
    one = Crew(devices="cuda:0")
    assert (one.workers, one.devices) == (1, ("cuda:0",))


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cpu", "cuda")])
def test_devices_are_of_the_kind_of_the_models_own(devices, tmp_path):
    model = tiny_llava()
    model.config._name_or_path = str(tmp_path)
    with pytest.raises(InputError, match=r"devices .*cuda.* the model's own, cpu, .*--device cuda"):
        Crew(devices=devices).check_reaches(model)
    Crew(devices=("cpu", "cpu:0")).check_reaches(model)


def test_a_core_each_as_far_as_memory_allows(tmp_path, monkeypatch):
    model = tiny_llava()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert workers_for(model) == 1, "it exists in memory only"
    model.config._name_or_path = str(tmp_path)
    size = PROCESS + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    for copies, expected in ((0.5, 1), (1.5, 1), (3.5, 3), (99, 6)):
        free = {"SC_AVPHYS_PAGES": int(copies * 4 * size), "SC_PAGE_SIZE": 1}
        monkeypatch.setattr(os, "sysconf", free.get)
        assert workers_for(model) == expected
    assert [workers_for(model, threads) for threads in (2, 4, 6, 12)] == [3, 1, 1, 1], "a core for each thread"


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
    workers = crew_for(Crew(threads=before + 1), None, None)
    assert isinstance(workers, InProcess)
    assert torch.get_num_threads() == before + 1
    workers.close()
    assert torch.get_num_threads() == before


def test_it_is_there_without_torch():
    code = "import sys; from clasp_calib.crew.crew import Crew; Crew(workers=2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
