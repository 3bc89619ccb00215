"""Kill `r2a run` at random moments, again and again, and see that nothing was lost or torn.

A small run is made once without a kill. The same run is then started in another folder and killed
(SIGKILL, with its kernel) after a random time, until it has come to its end, with a change of a
parameter in the middle, so that kills also meet an attempt beside a good run and the move that ends
it. After every kill: no trace that was there is gone, every JSON, Parquet and netCDF file is whole,
and a completed run stays complete until the new one takes its place. At the end the records, tables
and traces equal those without a kill.

    python benchmarks/kills.py --kills 40 --seed 0

It needs minutes, asserts, and prints a line for every kill. No test runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import xarray as xr

from r2a_utils.runs.attempt import UNFINISHED
from r2a_utils.runs.manifest import read_manifest

STAGES = ["00", "01", "02", "03"]
FIRST = {"n_problems": 12, "n_traces": 6, "n_no_cue": 4, "batch_size": 4}
SECOND = {**FIRST, "n_problems": 16}
COMMAND = """
import json, sys
from pathlib import Path
from r2a_utils.runs.running import run_stages
folder, stages, given = sys.argv[1:]
run_stages(Path(folder), json.loads(stages), given=json.loads(given), progress=False)
"""


def start(folder: Path, given: dict) -> subprocess.Popen:
    """The run in a process group of its own, so that its kernel is killed with it."""
    arguments = [str(folder), json.dumps(STAGES), json.dumps(given)]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], start_new_session=True, stderr=subprocess.PIPE
    )


def kill_until_done(folder: Path, given: dict, kills: int, source: random.Random) -> int:
    """Start the run until it ends by itself; the first `kills` starts are killed. Returns them."""
    done = 0
    while True:
        before = traces(folder)
        process = start(folder, given)
        patience = source.uniform(1, 30) if done < kills else None
        try:
            _, told = process.communicate(timeout=patience)
            assert process.returncode == 0, told.decode()
            return done
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        done += 1
        lost = before - traces(folder)
        assert not lost, f"traces lost: {list(lost)[:3]}"
        check_whole(folder)
        stages = read_manifest(folder)["stages"] if folder.exists() else {}
        states = ", ".join(f"{name[:2]} {entry['status']}" for name, entry in stages.items())
        aside = " (an attempt beside it)" if (folder / UNFINISHED).exists() else ""
        print(f"kill {done:3} after {patience:4.1f} s: {states}{aside}", flush=True)


def traces(folder: Path) -> Counter:
    """The whole lines of all traces that are kept, those of an attempt included."""
    places = [folder, folder / UNFINISHED]
    found: Counter = Counter()
    for place in places:
        lines = Counter()
        for path in place.glob("traces/*.jsonl"):
            whole = path.read_text(encoding="utf-8").split("\n")[:-1]
            lines.update((path.name, line) for line in whole)
        found |= lines
    return found


def check_whole(folder: Path) -> None:
    """Every file that has a name can be read."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".ipynb"):
            # Papermill writes this one as it goes; nothing reads it
            assert path.name.endswith(".part.ipynb") or json.loads(path.read_text()) is not None
        elif path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".nc":
            xr.load_dataset(path).close()


def results(folder: Path) -> dict[str, object]:
    """What two runs must have in common: records, tables, and traces in any order."""
    found: dict[str, object] = {"traces": sorted(traces(folder))}
    for path in sorted(folder.glob("records/*.json")):
        found[path.name] = json.loads(path.read_text())
    for path in sorted(folder.glob("tables/*.parquet")):
        found[path.name] = pd.read_parquet(path).to_json()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="r2a-kills-"))
    began = time.monotonic()
    for given in (FIRST, SECOND):
        kill_until_done(work / "calm", given, 0, source)
        killed = kill_until_done(work / "killed", given, options.kills // 2, source)
        calm, rough = results(work / "calm"), results(work / "killed")
        differing = [name for name in calm | rough if calm.get(name) != rough.get(name)]
        assert not differing, f"not equal: {differing}"
        print(f"{killed} kills: equal to the run without, to the last digit")
    shutil.rmtree(work)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
