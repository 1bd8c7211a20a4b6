"""``search`` with other workers writes the very artifact that it writes alone."""

import shutil

import pytest
from ready_runs import copy_of

from clasp_calib.artifacts.artifact import read_artifact


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


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["pooled", "race"])
def test_two_processes_write_the_same_artifact(searched, strategy):
    assert searched(strategy, "--workers", "2") == searched(strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["pooled", "race"])
def test_a_cluster_of_two_nodes_writes_the_same_artifact(searched, strategy, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        there = searched(strategy, "--engine", "ray", "--ray-address", cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert there == searched(strategy)
