"""The Ray engine on a cluster of two nodes on this machine, of which one is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from medplus.errors import SweepError  # noqa: E402
from medplus.sweep.conduct import Running, Sweep  # noqa: E402
from medplus.sweep.engines.ray import RayEngine, room  # noqa: E402
from medplus.sweep.plan import Plan  # noqa: E402
from tests.sweep.here import Here  # noqa: E402
from tests.sweep.test_local import LONG, Disturbance, kill, metrics  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
Make = Callable[..., Sweep]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start a cluster of two nodes, and connect to the first."""
    before = signal.getsignal(signal.SIGTERM)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    nodes.add_node(**NODE)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.mark.extensive
def test_every_run_is_made_once_though_a_worker_and_a_node_are_lost(
    cluster: Cluster, new_sweep: Make, tmp_path: Path
) -> None:
    undisturbed = new_sweep(2, root=tmp_path / "undisturbed", protocols=LONG)
    undisturbed.run(Here())
    sweep = new_sweep(2, protocols=LONG)
    [second] = cluster.worker_nodes

    def lose_the_node(pid: int) -> None:
        cluster.remove_node(second, allow_graceful=False)

    killing, losing = Disturbance(kill), Disturbance(lose_the_node)

    def disturb(plan: Plan, running: Running) -> None:
        killing(plan, running)
        if plan.count("finished"):
            losing(plan, running)

    plan = sweep.run(RayEngine(), disturb)

    assert plan.count("finished") == 4 and sweep.claims.standing().failures == {}
    assert metrics(sweep.place.runs) == metrics(undisturbed.place.runs)
    cluster.add_node(**NODE)


@pytest.mark.extensive
def test_an_interrupt_lets_the_workers_save(cluster: Cluster, new_sweep: Make) -> None:
    def press_ctrl_c(pid: int) -> None:
        raise KeyboardInterrupt

    sweep = new_sweep(1, protocols=LONG)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(RayEngine(workers=1), Disturbance(press_ctrl_c))
    assert list(sweep.claims.folder.glob("claims/*")) == []
    assert sweep.run(Here()).count("finished") == 2


@pytest.mark.parametrize("options", [{"gpus": 1}, {"cpus": 3}, {"memory_gb": 1e6}])
def test_more_than_any_node_has_is_refused(
    options: dict[str, float], new_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"Alive": True, "Resources": {"CPU": 1.0, "memory": 4e9}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [node, node])
    with pytest.raises(SweepError, match="no node of the Ray cluster has all that each worker"):
        new_sweep(1).run(RayEngine(**options))  # type: ignore[arg-type]


def test_a_request_must_fit_on_one_node() -> None:
    have = [{"CPU": 8.0, "memory": 8e9}, {"CPU": 1.0, "GPU": 2.0, "memory": 4e9}]

    assert room({"CPU": 1, "GPU": 0, "memory": 0}, have) == 9
    assert room({"CPU": 1, "GPU": 0.5, "memory": 1e9}, have) == 1
    assert room({"CPU": 2, "GPU": 1, "memory": 0}, have) == 0


@pytest.mark.parametrize("address", ["127.0.0.1:9", "head", "ray://head:10001"])
def test_an_address_that_does_not_answer_is_told_at_once(
    address: str, new_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    says = f"Ray at {address} cannot be used: .*; into a cluster, start the sweep on one of its"
    with pytest.raises(SweepError, match=says):
        new_sweep(1).run(RayEngine(address=address))


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(SweepError, match="pip install ray"):
        RayEngine()
