"""A Ray cluster of two nodes, with a worker killed in the middle, finds what this process finds alone."""

import os
from pathlib import Path

import pytest
from test_workers import TASKS, Recipe, expected

from clasp_calib.common.errors import InputError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Two raylets on this machine, one CPU each; the driver is connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Workers find the tests' own classes.
        here = Path(__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
        if ray.is_initialized():
            ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
def test_two_nodes_say_the_same_even_if_a_worker_is_killed(cluster, tmp_path):
    from clasp_calib.crew.ray_workers import RayWorkers

    recipe = Recipe(tmp_path, deaths=1)
    workers = RayWorkers(recipe, cluster.address)
    try:
        assert workers.count == 2
        found = list(workers.do(TASKS))
        assert dict(found) == expected()
        assert len(found) == len(TASKS)
        assert len(list(tmp_path.glob("death-*"))) == 1
        workers_seen = [path for path in tmp_path.iterdir() if path.name.isdigit()]
        assert len(workers_seen) >= 3, "two workers, and one in place of the killed one"
    finally:
        workers.close()


@pytest.mark.slow
def test_an_error_of_a_task_comes_through(cluster, tmp_path):
    from clasp_calib.crew.ray_workers import RayWorkers

    workers = RayWorkers(Recipe(tmp_path / "none"), cluster.address)
    try:
        with pytest.raises(FileNotFoundError):
            list(workers.do(TASKS))
    finally:
        workers.close()


@pytest.mark.slow
def test_an_address_without_a_cluster_is_refused(tmp_path):
    from clasp_calib.crew.ray_workers import RayWorkers

    with pytest.raises(InputError, match=r"no Ray cluster at 'localhost:1' .*--ray-address"):
        RayWorkers(Recipe(tmp_path), "localhost:1")
