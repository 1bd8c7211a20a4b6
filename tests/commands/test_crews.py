"""Commands write the very files with other workers that they write alone."""

import shutil
from contextlib import contextmanager

import pytest
from ready_runs import copy_of

from clasp_calib.artifacts.artifact import read_artifact

STUDIES = {
    "evaluate": (["--timed", "0"], "evaluation-test.md"),
    "compare": (["--timed", "0", "--methods", "fastv,random", "--budget", "6"], "comparison-test.json"),
    "ablate": (["parts"], "ablation-parts-test.json"),
}


@pytest.fixture
def searched(finished, tmp_path_factory, command):
    """Searches from nothing in a copy of the run directory; gives the artifact's id."""

    def call(*words):
        ready = copy_of(finished, tmp_path_factory.mktemp("workers"))
        for name in ("study", "artifact"):
            shutil.rmtree(ready.run / name)
        ended = command("search", *ready.words, "--budget", "50%", "--strategy", *words)
        assert ended.code == 0, ended.err
        return read_artifact(ready.run / "artifact").manifest.id

    return call


@pytest.fixture
def measured(finished, tmp_path_factory, command):
    """Gives a study's command in a copy of the run directory; gives the report and the artifact, to the byte."""

    def call(study, *words):
        ready = copy_of(finished, tmp_path_factory.mktemp("workers"))
        own, report = STUDIES[study]
        ended = command(study, *own, *ready.words, *words)
        assert ended.code == 0, ended.err
        return [(ready.run / place).read_bytes() for place in (f"report/{report}", "artifact/artifact.json")]

    return call


@contextmanager
def cluster():
    """The options that ask for a cluster of two nodes on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield ["--engine", "ray", "--ray-address", nodes.address]
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["pooled", "race"])
def test_two_processes_write_the_same_artifact(searched, strategy):
    assert searched(strategy, "--workers", "2") == searched(strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["pooled", "race"])
def test_a_cluster_of_two_nodes_writes_the_same_artifact(searched, strategy, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with cluster() as words:
        there = searched(strategy, *words)
    assert there == searched(strategy)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_two_processes_write_the_same_report(measured, study):
    assert measured(study, "--workers", "2") == measured(study, "--workers", "1")


@pytest.mark.slow
def test_a_cluster_of_two_nodes_writes_the_same_reports(measured, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with cluster() as words:
        there = {study: measured(study, *words) for study in STUDIES}
    assert there == {study: measured(study, "--workers", "1") for study in STUDIES}
