"""A sweep on SLURM, for labs that have nothing but `sbatch`: one job of an array for each run.

`submitit` writes the array's script and starts it; a job that is preempted or reaches its limit is
put into the queue again and goes on where it was, because a run goes on where it was. The folder of
the runs must be on storage that the nodes share, as home folders on such clusters are.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from r2a_utils.runs.running import RUNS, StageResult
from r2a_utils.runs.sweep import ClusterError, Plan, Progress, Request

JOBS = RUNS / ".slurm"  # scripts, logs and results of the jobs
_LOOK = 5.0  # seconds between two looks at what has happened
_GB = 10**9
_ROOM_GB = 8  # of a job's memory beside the model
_DAY = 24 * 60  # minutes; a job that needs more is put into the queue again


class RunJob:
    """What a job does: a run from where it stands to its end. submitit calls it."""

    def __call__(self, request: Request) -> list[StageResult]:
        """Run what must run of one run; returns its results."""
        return request.go_on()

    def checkpoint(self, request: Request):
        """What is put into the queue when the job is preempted: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, request)


def run_on_slurm(
    plans: Sequence[Plan], options: Mapping[str, str], cluster: str = "slurm"
) -> dict[str, object]:
    """Run what is planned; returns for each run its list of StageResult, or the error it ended in.

    `options` are those of `sbatch` by name, as in partition, time, account, qos; `cluster="local"`
    starts processes on this machine in place of jobs. Runs that need the same
    number of GPUs are one array. The jobs go on if this process is stopped.

    Raises ClusterError where submitit is not installed, or this machine has no `sbatch`.
    """
    try:
        import submitit
    except ImportError as error:
        raise ClusterError("--on slurm needs submitit: pip install 'r2a[slurm]'") from error
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ClusterError("this machine has no `sbatch`: run this on a login node of the cluster")
    jobs, outcomes = {}, {}
    for gpus in sorted({plan.gpus for plan in plans}):
        same = [plan for plan in plans if plan.gpus == gpus]
        executor = submitit.AutoExecutor(folder=JOBS / "%j", cluster=cluster)
        executor.update_parameters(name="r2a", **_asked(same, gpus, options, cluster))
        with executor.batch():
            for plan in same:
                request = replace(plan.request, folder=plan.request.run)
                jobs[plan.request.run_id] = plan, executor.submit(RunJob(), request)
    with Progress(plans) as progress:
        waiting = dict(jobs)
        while waiting:
            for run_id, (plan, job) in list(waiting.items()):
                if not job.done():
                    progress.say(run_id, 0, job.state.lower(), f"job {job.job_id}")
                    continue
                del waiting[run_id]
                error = job.exception()
                outcomes[run_id] = job.result() if error is None else error
                how = ("done", len(plan.stages)) if error is None else ("failed", 0)
                progress.say(run_id, how[1], how[0], f"job {job.job_id}")
            time.sleep(_LOOK if waiting and cluster == "slurm" else 0.2)
    return outcomes


def _asked(
    plans: Sequence[Plan], gpus: int, options: Mapping[str, str], cluster: str
) -> dict[str, object]:
    """The parameters of an array, in submitit's words; `options` stand above what it sets."""
    memory = max((plan.memory or 0) for plan in plans)
    asked: dict[str, object] = {"mem_gb": _ROOM_GB + memory // _GB, "timeout_min": _DAY}
    if cluster == "slurm":
        asked |= {"gpus_per_node": gpus} if gpus else {}
        asked["slurm_additional_parameters"] = {"requeue": True, **options}
    return asked
