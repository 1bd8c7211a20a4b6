"""Who works does not change what is found: this process, two others, one that dies, a Ray cluster."""

import os
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from clasp_calib.common.errors import ComputationError, StudyError
from clasp_calib.crew.crew import Crew, crew_for
from clasp_calib.crew.local_workers import InProcess, Processes
from clasp_calib.crew.tasks import ATTEMPTS, Together


@dataclass(frozen=True)
class Asked:
    """A number that the tool is called with."""

    number: int

    def done_with(self, tool):
        return tool(self.number)


TASKS = [Asked(number) for number in range(8)]


def tenfold(number):
    return 10 * number


class Recipe:
    """Makes a tool that multiplies by ten; pickled by the test's own name."""

    device, threads = "cpu", 1

    def __init__(self, folder, deaths=0):
        self.folder, self.deaths = folder, deaths

    def __hash__(self):
        return hash(self.folder)

    def __eq__(self, other):
        return self.folder == other.folder

    def made(self):
        return Deadly(self.folder, self.deaths)


class Deadly:
    """Its process is killed while it is given 5, as often as it is told to."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __call__(self, number):
        (self.folder / f"{os.getpid()}").touch()
        if number == 5 and len(list(self.folder.glob("death-*"))) < self.deaths:
            (self.folder / f"death-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tenfold(number)


def expected():
    return dict(InProcess(tenfold).do(TASKS))


class Meeting(Recipe):
    """A tool that tells its device, once there are two."""

    device = "none"

    def on(self, device):
        other = Meeting(self.folder)
        other.device = device
        return other

    def made(self):
        def tell(number):
            (self.folder / f"{os.getpid()}").touch()
            limit = time.monotonic() + 60
            while len(list(self.folder.iterdir())) < 2 and time.monotonic() < limit:
                time.sleep(0.01)
            return self.device

        return tell


def test_devices_are_taken_in_turn(tmp_path):
    workers = crew_for(Crew(devices=("one", "two")), None, lambda: Meeting(tmp_path))
    try:
        assert sorted(dict(workers.do(TASKS[:2])).values()) == ["one", "two"]
    finally:
        workers.close()


def test_tasks_that_belong_together_are_done_in_order():
    together = Together(tuple(TASKS[5:2:-1]))
    assert list(InProcess(tenfold).do([together, Together(())])) == [(0, [50, 40, 30]), (1, [])]


def test_two_processes_say_the_same_even_if_one_is_killed(tmp_path):
    workers = Processes(Recipe(tmp_path, deaths=1), 2)
    try:
        found = list(workers.do(TASKS))
        assert dict(found) == expected()
        assert len(found) == len(TASKS), "a task was told twice"
        assert len(list(tmp_path.glob("death-*"))) == 1
    finally:
        workers.close()


@pytest.mark.slow
def test_workers_that_always_die_are_given_up(tmp_path):
    workers = Processes(Recipe(tmp_path, 99), 1)
    found = []
    with pytest.raises(StudyError, match=rf"workers died {ATTEMPTS} times .*fewer --workers"):
        found.extend(workers.do(TASKS))
    workers.close()
    assert len(list(tmp_path.glob("death-*"))) == ATTEMPTS
    assert dict(found) == {number: result for number, result in expected().items() if number < 5}


@pytest.mark.slow
def test_an_error_of_a_worker_comes_through(tmp_path):
    workers = Processes(Recipe(tmp_path / "none"), 1)
    with pytest.raises(FileNotFoundError):
        list(workers.do(TASKS))
    workers.close()


class Failing(Recipe):
    """Cannot make its tool."""

    def made(self):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_failure_in_a_worker_is_named_with_its_traceback(tmp_path):
    workers = Processes(Failing(tmp_path), 1)
    with pytest.raises(ComputationError, match=r"of a worker failed \(RuntimeError: CUDA .*fewer --workers") as caught:
        list(workers.do(TASKS))
    workers.close()
    assert "in made" in "".join(traceback.format_exception(caught.value))


class Sleeping(Recipe):
    """Takes an hour for each task."""

    def made(self):
        (self.folder / "began").touch()
        time.sleep(3600)


def test_workers_are_ended_in_the_middle_of_a_task(tmp_path):
    workers, ended = Processes(Sleeping(tmp_path), 1), []

    def ask():
        with pytest.raises(StudyError, match="the workers were ended"):
            list(workers.do(TASKS))
        ended.append(True)

    thread = Thread(target=ask)
    thread.start()
    limit = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    begun = time.monotonic()
    workers.close()
    thread.join(10)
    assert ended
    assert time.monotonic() - begun < 5


def test_workers_do_not_hear_an_interrupt(tmp_path):
    """Not even while they start: the terminal sends it to all, and one traceback for each would follow."""
    workers = Processes(Recipe(tmp_path), 2)
    try:
        pool = workers._pool
        asked = workers.do(TASKS)
        thread = Thread(target=lambda: next(asked))
        thread.start()
        while not pool._processes:
            time.sleep(0.001)
        for process in list(pool._processes.values()):
            os.kill(process.pid, signal.SIGINT)
        thread.join(60)
        assert len(list(asked)) == len(TASKS) - 1
        assert workers._pool is pool
    finally:
        workers.close()


@pytest.mark.slow
def test_threads_may_ask_at_once(tmp_path):
    workers = Processes(Recipe(tmp_path, 1), 2)
    found = [None] * 3
    threads = [Thread(target=lambda n=n: found.__setitem__(n, dict(workers.do(TASKS)))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workers.close()
    assert found == [expected()] * 3


ORPHAN = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_workers import Processes, Recipe, TASKS
if __name__ == "__main__":
    workers = Processes(Recipe(Path(sys.argv[1])), 2)
    list(workers.do(TASKS))
    print("done", flush=True)
    time.sleep(120)
"""


def test_a_killed_process_leaves_no_workers_behind(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    pids = tmp_path / "pids"
    pids.mkdir()
    here = Path(__file__).parent
    words = [sys.executable, str(script), str(pids), str(here), str(here.parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "done\n"
        parent.kill()
    left = [int(path.name) for path in pids.iterdir()]
    assert left
    limit = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
