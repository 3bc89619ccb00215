"""A sweep on Ray ends as the same runs do one after the other, whatever is lost on its way."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.on_ray import run_on_ray
from r2a_utils.runs.sweep import ClusterError, Plan, Request, plan

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'r2a[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402  it exists where Ray is installed

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]

COUNT = """\
# ---
# jupyter:
#   r2a:
#     writes: [tables/walk]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
seed = 0
seconds = 0.0
fails = False

# %%
import os
import time

import numpy as np
import pandas as pd

from r2a_utils.runs.folder import Run

run = Run.open(run_dir)
with (run.folder / "began").open("a") as log:
    log.write(f"{os.getppid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
time.sleep(seconds)
assert not fails, "asked to fail"
run.write_table("walk", pd.DataFrame({"x": np.random.default_rng(seed).normal(size=99).cumsum()}))
"""
SUM = """\
# ---
# jupyter:
#   r2a:
#     reads: [tables/walk]
#     writes: [records/sum]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"

# %%
from r2a_utils.runs.folder import Run

run = Run.open(run_dir)
run.write_record("sum", {"x": run.read_table("walk").x.sum()})
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory) -> Path:
    """Two small stages, of which the second reads what the first writes."""
    folder = tmp_path_factory.mktemp("stages") / "notebooks"
    folder.mkdir()
    (folder / "01_walk.py").write_text(COUNT)
    (folder / "02_sum.py").write_text(SUM)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A head without processors and two nodes with two each, one of them with invented GPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    cluster.add_node(num_cpus=2, num_gpus=0)
    cluster.add_node(num_cpus=2, num_gpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def planned(notebooks: Path, folder: Path, gpus: int = 0, **given) -> Plan:
    request = Request(folder.name, None, given, folder=folder, notebooks=notebooks)
    made = plan(request)
    return Plan(request, made.asked, made.stages, "toy", None, gpus, None)


def run_alone(notebooks: Path, folder: Path, **given) -> Path:
    Request(folder.name, None, given, folder=folder, notebooks=notebooks).go_on()
    return folder


def total(folder: Path) -> float:
    return Run.open(folder).read_record("sum")["x"]


def wait_for(path: Path, seconds: float = 60) -> str:
    for _ in range(int(seconds * 20)):
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} has not appeared")


def test_a_sweep_gives_what_the_runs_give_alone(cluster, notebooks, tmp_path):
    alone = {}
    for seed in range(3):
        alone[seed] = total(run_alone(notebooks, tmp_path / f"a{seed}", seed=seed))
    plans = [planned(notebooks, tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    outcomes = run_on_ray(plans)
    for seed, one in enumerate(plans):
        assert [r.stage for r in outcomes[f"s{seed}"]] == ["01_walk", "02_sum"]
        assert all(r.ran for r in outcomes[f"s{seed}"])
        assert total(one.request.run) == alone[seed]
        assert not (one.request.run / ".here").exists()
    again = run_on_ray([planned(notebooks, tmp_path / "s0", seed=0)])
    assert not any(result.ran for result in again["s0"])


def test_one_that_fails_stops_no_other(cluster, notebooks, tmp_path):
    plans = [
        planned(notebooks, tmp_path / "good", seed=1),
        planned(notebooks, tmp_path / "bad", fails=True),
        planned(notebooks, tmp_path / "large", gpus=3),
    ]
    outcomes = run_on_ray(plans)
    assert isinstance(outcomes["bad"], StageFailed)
    assert "asked to fail" in str(outcomes["bad"])
    assert isinstance(outcomes["large"], ClusterError)
    assert "needs 3 GPU(s) in one machine" in str(outcomes["large"])
    assert len(outcomes["good"]) == 2


def test_a_run_gets_the_gpus_of_its_plan(cluster, notebooks, tmp_path):
    run_on_ray([planned(notebooks, tmp_path / "two", gpus=2)])
    assert (tmp_path / "two" / "began").read_text().split()[1] == "0,1"


def test_a_killed_worker_costs_its_stage_and_no_more(cluster, notebooks, tmp_path):
    folder = tmp_path / "k"

    def kill() -> None:
        psutil.Process(int(wait_for(folder / "began").split()[0])).send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = run_on_ray([planned(notebooks, folder, seed=5, seconds=3.0)])
    killer.join()
    assert len((folder / "began").read_text().splitlines()) == 2
    assert len(outcomes["k"]) == 2
    assert total(folder) == total(run_alone(notebooks, tmp_path / "p", seed=5))


def test_where_the_folder_is_not_shared_the_run_comes_home(
    cluster, notebooks, tmp_path, monkeypatch
):
    from r2a_utils.runs import on_ray

    sent = on_ray._sent

    def unshared(one: Plan):
        request, mark, code = sent(one)
        return request, mark + " of another machine", code

    monkeypatch.setattr(on_ray, "_sent", unshared)
    outcomes = run_on_ray([planned(notebooks, tmp_path / "far", seed=7)])
    assert outcomes["far"][0].notebook.parent == tmp_path / "far" / "notebooks"
    assert outcomes["far"][0].notebook.exists()
    alone = run_alone(notebooks, tmp_path / "p", seed=7)
    assert total(tmp_path / "far") == total(alone)


def test_a_machine_with_other_code_is_refused(cluster, notebooks, tmp_path, monkeypatch):
    from r2a_utils.runs import on_ray

    monkeypatch.setattr(on_ray, "_code", lambda: "of another commit")
    outcomes = run_on_ray([planned(notebooks, tmp_path / "old")])
    assert "another version of R2A" in str(outcomes["old"])
    assert os.listdir(tmp_path / "old") == []


# The last one: its node stays away.
def test_a_lost_node_costs_its_stage_and_no_more(cluster, notebooks, tmp_path):
    folder = tmp_path / "n"

    def lose() -> None:
        worker = psutil.Process(int(wait_for(folder / "began").split()[0]))
        raylet = worker.ppid()
        node = next(n for n in cluster.worker_nodes if raylet in _processes(n))
        cluster.remove_node(node, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    outcomes = run_on_ray([planned(notebooks, folder, seed=6, seconds=4.0)])
    loser.join()
    assert len((folder / "began").read_text().splitlines()) == 2
    assert len(outcomes["n"]) == 2
    assert {e["status"] for e in read_manifest(folder)["stages"].values()} == {"completed"}


def _processes(node) -> set[int]:
    return {info.process.pid for infos in node.all_processes.values() for info in infos}
