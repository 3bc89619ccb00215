"""Jobs of an array run what a run needs; the same classes start them here without a cluster."""

from __future__ import annotations

import pytest

from r2a_utils.runs import on_slurm
from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run
from r2a_utils.runs.on_slurm import RunJob, run_on_slurm
from r2a_utils.runs.sweep import ClusterError, Request, plan

submitit = pytest.importorskip("submitit", reason="needs submitit: pip install 'r2a[slurm]'")

STAGE = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/square]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
x = 1

# %%
from r2a_utils.runs.folder import Run

Run.open(run_dir).write_record("square", {"x": x**2 if x else 1 / x})
"""


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "01_square.py").write_text(STAGE)

    def make(x: int) -> Request:
        name = f"x{x}"
        return Request(name, None, {"x": x}, folder=tmp_path / name, notebooks=tmp_path / "stages")

    return make


def test_each_run_is_a_job_and_one_that_fails_stops_no_other(request_of, monkeypatch, tmp_path):
    monkeypatch.setattr(on_slurm, "JOBS", tmp_path / "jobs")
    plans = [plan(request_of(x)) for x in (2, 0, 3)]
    outcomes = run_on_slurm(plans, {}, cluster="local")
    for x in (2, 3):
        assert [result.stage for result in outcomes[f"x{x}"]] == ["01_square"]
        assert Run.open(tmp_path / f"x{x}").read_record("square") == {"x": x**2}
    assert "division by zero" in str(outcomes["x0"])


def test_a_job_that_is_preempted_goes_on_where_it_was(request_of):
    request = request_of(4)
    again = RunJob().checkpoint(request)
    assert [result.ran for result in RunJob()(request)] == [True]
    assert [result.ran for result in again.function(*again.args, **again.kwargs)] == [False]


def test_a_job_fails_as_its_run_does(request_of):
    with pytest.raises(StageFailed, match="division by zero"):
        RunJob()(request_of(0))


def test_an_array_asks_for_what_the_plan_says_and_for_a_new_try(request_of):
    asked = on_slurm._asked([plan(request_of(2))], 2, {"partition": "gpu"}, "slurm")
    assert asked["gpus_per_node"] == 2
    assert asked["slurm_additional_parameters"] == {"requeue": True, "partition": "gpu"}


def test_without_sbatch_it_says_so(request_of, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError, match="no `sbatch`"):
        run_on_slurm([plan(request_of(2))], {})
