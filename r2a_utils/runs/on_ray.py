"""A sweep on Ray: one task a run and stage, on this machine or on a cluster.

Ray decides where and when a stage runs, by the GPUs and the memory of its plan, and starts it again
where its worker or its node is lost. A run's stages follow each other; runs stand side by side, and
one that fails stops no other. Where the machines share the folder of the runs, a stage works in it;
elsewhere the run travels to the worker and comes home after each stage, so that no more than a
stage is ever lost. How a stage is run is `running.py`'s business.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import tarfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from r2a_utils.folders import PACKAGE
from r2a_utils.runs.folder import RunFolderError
from r2a_utils.runs.lock import LOCK, OWNER, hold
from r2a_utils.runs.running import StageResult
from r2a_utils.runs.stage import NOTEBOOKS, numeric_versions
from r2a_utils.runs.sweep import ClusterError, Plan, Progress, Request

RETRIES = 3  # of a stage whose worker or node was lost
_LOOK = 0.5  # seconds between two looks at what has happened
_MARK = ".here"  # a file by which a worker sees that it has the folder that the asker has


@dataclass(frozen=True)
class _Step:
    """What came of one task."""

    results: list[StageResult] | None  # None: the worker has not the asker's folder, nor the run
    host: str
    run: bytes | None = None  # the run folder, where the worker has another than the asker


def run_on_ray(plans: Sequence[Plan], address: str | None = None) -> dict[str, object]:
    """Run what is planned; returns for each run its list of StageResult, or the error it ended in.

    `address` is that of a cluster (`ray://HOST:10001`); None starts Ray on this machine, or joins
    what `RAY_ADDRESS` names. Ray that is started already is used and left as it is.

    Raises ClusterError where Ray is not installed, or no cluster answers.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(
                address=address, log_to_driver=False, include_dashboard=False, logging_level=30
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"no Ray cluster at {address or 'this machine'} ({error}): start one with `ray "
                "start --head`, or leave the address out"
            ) from error
    try:
        return _run(ray, plans)
    finally:
        if started:
            ray.shutdown()


def _run(ray, plans: Sequence[Plan]) -> dict[str, object]:
    task = ray.remote(max_retries=RETRIES, retry_exceptions=False)(_next_stage)
    outcomes: dict[str, object] = {}
    waiting: dict[object, Plan] = {}
    done = {plan.request.run_id: 0 for plan in plans}

    def start(plan: Plan, run: bytes | None = None) -> None:
        needs = {"num_gpus": plan.gpus}
        if not plan.gpus and plan.memory is not None:
            needs["memory"] = plan.memory
        waiting[task.options(name=plan.request.run_id, **needs).remote(*_sent(plan), run)] = plan

    with Progress(plans) as progress:
        for plan in plans:
            lacking = _lacking(ray, plan)
            if lacking:
                outcomes[plan.request.run_id] = ClusterError(lacking)
                progress.say(plan.request.run_id, 0, "refused")
            else:
                start(plan)
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), timeout=_LOOK)
                for reference in ready:
                    plan = waiting.pop(reference)
                    run_id = plan.request.run_id
                    try:
                        step = ray.get(reference)
                        _bring_home(plan.request.run, step)
                    except ray.exceptions.RayTaskError as error:
                        outcomes[run_id] = error.cause
                        progress.say(run_id, done[run_id], "failed")
                        continue
                    except (ray.exceptions.RayError, RunFolderError) as error:
                        outcomes[run_id] = error
                        progress.say(run_id, done[run_id], "lost")
                        continue
                    if step.results is None:
                        start(plan, _packed(plan.request.run))
                        continue
                    done[run_id] = sum(r.stage in plan.stages for r in step.results)
                    if len(step.results) == len(plan.asked):
                        outcomes[run_id] = _of_the_sweep(plan, step.results)
                        progress.say(run_id, done[run_id], "done", step.host)
                    else:
                        # to another machine the run goes at once where it has had to go before
                        start(plan, step.run)
                        progress.say(run_id, done[run_id], "goes on", step.host)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            for plan in plans:
                (plan.request.run / _MARK).unlink(missing_ok=True)
    return outcomes


def _sent(plan: Plan) -> tuple[Request, str, str]:
    """What a task gets: the request, the mark of the folder, the code."""
    folder, mark = plan.request.run, uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text(mark)
    return replace(plan.request, folder=folder), mark, _code()


def _next_stage(request: Request, mark: str, code: str, run: bytes | None) -> _Step:
    """What a worker does: the next stage of a run, in the asker's folder or in one of its own.

    Without the asker's folder it needs the `run` as it stands there.
    """
    if code != _code():
        raise ClusterError(
            f"{socket.gethostname()} has another version of R2A or of its libraries: install there "
            "what is installed here, from the same commit"
        )
    here = request.run / _MARK
    if here.is_file() and here.read_text() == mark:
        return _Step(request.go_on(only_next=True), socket.gethostname())
    if run is None:
        return _Step(None, socket.gethostname())
    with TemporaryDirectory(prefix="r2a-run-") as place:
        folder = Path(place) / request.run.name
        _unpacked(run, folder)
        results = replace(request, folder=folder).go_on(only_next=True)
        return _Step(results, socket.gethostname(), _packed(folder))


def _bring_home(folder: Path, step: _Step) -> None:
    """Put a run that was made elsewhere into its folder; the run that lies there is replaced."""
    if step.run is None:
        return
    with hold(folder):
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        _unpacked(step.run, part)
        for path in part.rglob("*"):
            if path.is_file():
                home = folder / path.relative_to(part)
                home.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, home)
        shutil.rmtree(part)


def _packed(folder: Path) -> bytes:
    """A run folder as it lies there, as a tar file, without its lock and what is half-written."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        return None if name in (LOCK, OWNER, _MARK) or name.endswith(".part") else member

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(folder, arcname=".", filter=kept)
    return file.getvalue()


def _unpacked(run: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(run)) as archive:
        archive.extractall(folder, filter="data")


def _lacking(ray, plan: Plan) -> str:
    """Why no machine of the cluster can take a run; empty where one can."""
    most = max(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"])
    if plan.gpus <= most:
        return ""
    return (
        f"{plan.model} needs {plan.gpus} GPU(s) in one machine, and none of the cluster has more "
        f"than {most}: join one that has, name GPUs' memory with --gpu-memory, or take a model "
        "that fits; --set device=cpu runs it on processors"
    )


def _of_the_sweep(plan: Plan, results: Sequence[StageResult]) -> list[StageResult]:
    """The results of all of a run's tasks as one call of `run_stages` would give them."""
    pages = plan.request.run / "notebooks"
    return [
        replace(r, ran=r.stage in plan.stages, notebook=pages / r.notebook.name) for r in results
    ]


def _code() -> str:
    """A digest of the package, its notebooks and the libraries that its numbers depend on."""
    digest = hashlib.sha256(repr(numeric_versions()).encode())
    for folder in (PACKAGE, NOTEBOOKS):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _ray():
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--on ray needs Ray: pip install 'r2a[ray]'") from error
    return ray
