"""Stages side by side: in order, alike, and a failure or an interruption reaches what it must."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest

from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.running import outdated, run_stages
from r2a_utils.runs.side_by_side import in_order
from r2a_utils.runs.stage import ROOT

NEEDS = {"a": [], "b": ["a"], "c": ["a"], "d": [], "e": ["b", "d"], "f": ["c"], "g": [], "h": []}


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_everything_is_done_after_what_it_needs_and_so_many_at_a_time(jobs):
    under_way, most, done, lock = set(), [0], [], threading.Lock()

    def begin(name):
        assert set(NEEDS[name]) <= set(done)
        if name == "d":
            return None  # nothing to do, as where a stage is unchanged

        def work():
            with lock:
                under_way.add(name)
                most[0] = max(most[0], len(under_way))
            time.sleep(0.05)
            with lock:
                under_way.remove(name)

        return work

    def end(name, future: Future):
        future.result()
        done.append(name)
        return True

    done.append("d")
    in_order(NEEDS, begin, end, jobs=jobs, stop=lambda: None)
    assert sorted(done) == sorted(NEEDS)
    assert min(jobs, 3) <= most[0] <= jobs
    if jobs == 1:
        assert [name for name in done if name != "d"] == list("abcefgh")


def test_what_fails_stops_what_needs_it_and_nothing_else():
    begun = []

    def begin(name):
        begun.append(name)
        return lambda: name

    in_order(NEEDS, begin, lambda name, _: name != "b", jobs=2, stop=lambda: None)
    assert sorted(begun) == list("abcdfgh")


def test_an_interruption_stops_what_is_under_way_first():
    stopped = threading.Event()

    def end(name, future):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_order(
            {"short": [], "long": []},
            lambda name: stopped.wait if name == "long" else int,
            end,
            jobs=2,
            stop=stopped.set,
        )
    assert stopped.is_set()


HEADER = """\
# ---
# jupyter:
#   r2a:
#     reads: [{reads}]
#     writes: [records/{writes}]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
{parameter} = "work"

# %%
import os, time
from pathlib import Path
from r2a_utils.runs.folder import Run
run = Run.open(run_dir)
"""
# Each of two stages waits for the other: one after the other they would never end.
MEETING = """\
(Path(run_dir) / "{own}.here").touch()
deadline = time.monotonic() + 60
while not (Path(run_dir) / "{other}.here").exists() and {parameter} != "fail":
    assert time.monotonic() < deadline
    time.sleep(0.05)
if {parameter} == "wait":
    time.sleep(600)

# %%
if {parameter} == "fail":
    raise RuntimeError("no such luck")
run.write_record("{own}", {{"threads": os.environ.get("OMP_NUM_THREADS"), "at": os.getcwd()}})
"""
LAST = """\
found = [run.read_record(name) for name in ({read!r},)]
run.write_record("{own}", {{"found": found}})
"""


@pytest.fixture
def notebooks(tmp_path) -> Path:
    """Two stages that meet, one that reads the first, and one that reads the second."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for own, other, number in (("left", "right", 1), ("right", "left", 2)):
        header = HEADER.format(reads="", writes=own, parameter=f"{own}_mode")
        text = header + MEETING.format(own=own, other=other, parameter=f"{own}_mode")
        (folder / f"0{number}_{own}.py").write_text(text)
        header = HEADER.format(reads=f"records/{own}", writes=f"after_{own}", parameter="mode")
        text = header + LAST.format(read=own, own=f"after_{own}")
        (folder / f"0{number + 2}_after_{own}.py").write_text(text)
    return folder


def test_stages_run_side_by_side_come_to_the_same_as_one_by_one(notebooks, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    here = {"notebooks": notebooks, "progress": False}
    results = run_stages(tmp_path / "two", jobs=2, **here)
    assert [(result.stage, result.ran) for result in results] == [
        ("01_left", True),
        ("02_right", True),
        ("03_after_left", True),
        ("04_after_right", True),
    ]
    (tmp_path / "one").mkdir()
    for name in ("left", "right"):
        (tmp_path / "one" / f"{name}.here").touch()
    run_stages(tmp_path / "one", **here)
    two, one = (Run.open(tmp_path / name).records() for name in ("two", "one"))
    assert two["left"].pop("threads") == str(max(1, os.cpu_count() // 2))
    assert one["left"].pop("threads") is None
    assert two["left"] == one["left"] == {"at": str(ROOT)}
    assert two.keys() == one.keys()
    chains = [
        {stage: entry["chain"] for stage, entry in read_manifest(tmp_path / name)["stages"].items()}
        for name in ("one", "two")
    ]
    assert chains[0] == chains[1]
    assert outdated(tmp_path / "two", notebooks=notebooks) == []
    results = run_stages(tmp_path / "two", jobs=2, **here)
    assert not any(result.ran for result in results)


def test_a_failing_stage_is_named_with_what_was_not_run_and_the_others_finish(notebooks, tmp_path):
    here = {"notebooks": notebooks, "progress": False, "jobs": 2}
    with pytest.raises(StageFailed) as error:
        run_stages(tmp_path / "run", settings={"left_mode": "fail"}, **here)
    assert "01_left.py, code cell 3" in str(error.value)
    assert str(error.value).endswith("Not run, because of that: 03_after_left")
    entries = read_manifest(tmp_path / "run")["stages"]
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "01_left": "failed",
        "02_right": "completed",
        "04_after_right": "completed",
    }
    results = run_stages(tmp_path / "run", settings={"left_mode": "work"}, **here)
    assert [result.stage for result in results if result.ran] == ["01_left", "03_after_left"]


def test_an_interruption_leaves_no_kernel(notebooks, tmp_path):
    code = (
        "import signal\nfrom pathlib import Path\nfrom r2a_utils.runs.running import run_stages\n"
        # a shell that runs the tests in the background has them ignore it
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"run_stages(Path({str(tmp_path / 'run')!r}), jobs=2, progress=False,"
        f" settings={{'left_mode': 'wait', 'right_mode': 'wait'}},"
        f" notebooks=Path({str(notebooks)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "run").glob("*.here"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    kernels = psutil.Process(process.pid).children()
    assert len(kernels) == 2
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert told.decode().strip().endswith("KeyboardInterrupt")
    assert psutil.wait_procs(kernels, timeout=10)[1] == []
    entries = read_manifest(tmp_path / "run")["stages"]
    assert {entry["status"] for entry in entries.values()} == {"running"}
