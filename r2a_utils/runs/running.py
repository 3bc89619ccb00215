"""Run stages: execute their notebooks with Papermill into a run folder, and say what was done.

A stage is run only if something that its result depends on has changed since it last completed:
its code, the package modules it imports, its parameters, the files that they name, the versions of
the numeric packages, or the stages whose artifacts it reads. New prose is put on its page without
running it. All parameters are checked before anything runs. A stage has succeeded when every code
cell of its notebook has completed; only then is its notebook cleaned, stamped and put in its place.
This file knows nothing of what the stages compute.
"""

from __future__ import annotations

import datetime
import functools
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from tqdm.auto import tqdm

from r2a_utils.runs.attempt import begin, clear_parts, finish, go_on_finishing, run_of
from r2a_utils.runs.execution import StageFailed, execute, stop_kernels
from r2a_utils.runs.folder import Run, write_aside
from r2a_utils.runs.header import told_to_kernels
from r2a_utils.runs.lock import hold
from r2a_utils.runs.manifest import HOST, chain, is_current, read_manifest, write_entry
from r2a_utils.runs.parameters import ParameterError, resolve
from r2a_utils.runs.pieces import clear_pieces
from r2a_utils.runs.plain_yaml import read_yaml
from r2a_utils.runs.prose import in_todays_words
from r2a_utils.runs.side_by_side import in_order
from r2a_utils.runs.stage import (
    NOTEBOOKS,
    ROOT,
    Stage,
    code_commit,
    data_hashes,
    load_stages,
    needed_stages,
    numeric_versions,
    select,
    source_hash,
)

RUNS = ROOT / "runs"
_THREADS = "OMP_NUM_THREADS"  # of which PyTorch makes its threads
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class StageResult:
    """What became of one asked-for stage."""

    stage: str
    ran: bool  # False: its inputs had not changed, its earlier result stands
    seconds: float  # how long it took when it ran
    notebook: Path  # the executed notebook


def run_folder(run_id: str) -> Path:
    """The folder of a run id; ParameterError if the id cannot name a folder."""
    if not _RUN_ID.fullmatch(run_id):
        raise ParameterError(
            f"{run_id!r} cannot be a run id: use letters, digits, '_', '-' and '.'"
        )
    return RUNS / run_id


def check_request(
    folder: Path,
    stages: Sequence[str] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
    notebooks: Path = NOTEBOOKS,
) -> dict[str, dict[str, Any]]:
    """All parameters of each stage that `run_stages` would look at; runs nothing.

    Raises ParameterError where it would refuse these arguments.
    """
    available = load_stages(notebooks)
    selected = select(available, stages)
    return _settled(folder, available, selected, given, settings or {})[1]


def run_stages(
    folder: Path,
    stages: Sequence[str] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
    notebooks: Path = NOTEBOOKS,
    cell_timeout: int | None = None,
    progress: bool = True,
    only_next: bool = False,
    jobs: int = 1,
) -> list[StageResult]:
    """Run the stages (all if None) whose inputs have changed, in order, into a run folder.

    `given` are parameters as a YAML file holds them and `settings` texts from the command line (see
    `parameters.resolve`). Where `given` is None, the run goes on with the parameters that it was
    started with. `cell_timeout` is in seconds, for each cell; None waits for ever. With `only_next`
    the first stage that must run is run and no other, and the results end with it; called again
    with the same arguments until the results name every stage, it does what one call does. `jobs`
    stages at a time are run, where none reads what another makes; the kernels share the cores.

    Raises ParameterError before anything runs, for an unknown stage or refused parameters,
    RunFolderError where another process has the run or it is damaged, and StageFailed when a cell
    fails; the stages that do not read what that one makes are run all the same, what finished is
    kept, and a run that stood before stays as it was.
    """
    available = load_stages(notebooks)
    selected = select(available, stages)
    _settled(folder, available, selected, given, settings or {})  # before a folder is made
    with hold(folder):
        clear_parts(folder)
        go_on_finishing(folder)
        given, values = _settled(folder, available, selected, given, settings or {})
        place = folder
        entries = read_manifest(folder)["stages"]
        old = _outdated(folder, available, selected, values)
        # something good is at stake where what has completed must run again
        if any(entries.get(name, {}).get("status") == "completed" for name in old):
            place = begin(folder, {"parameters": given, "stages": selected})
        text = yaml.safe_dump(given, allow_unicode=True, sort_keys=False)
        write_aside(_parameters(place), lambda part: part.write_text(text, encoding="utf-8"))
        asked = selected
        if only_next and (old := _outdated(place, available, selected, values)):
            asked = selected[: selected.index(old[0]) + 1]
        work = _Work(folder, place, available, values, asked, cell_timeout, progress, jobs)
        results = work.done()
        if asked != selected:
            return results
        if place != folder:
            finish(folder)
        for name in selected:
            _remove_what_it_lacks(folder, available[name])
    return results


def outdated(
    folder: Path,
    stages: Sequence[str] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
    notebooks: Path = NOTEBOOKS,
) -> list[str]:
    """Which stages `run_stages` would run with these arguments; runs nothing.

    Raises ParameterError where it would refuse them.
    """
    available = load_stages(notebooks)
    selected = select(available, stages)
    _, values = _settled(folder, available, selected, given, settings or {})
    return _outdated(folder, available, selected, values)


def _outdated(
    folder: Path,
    available: Mapping[str, Stage],
    selected: Sequence[str],
    values: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """The selected stages that must run, because of their own inputs or of an earlier one's."""
    entries = dict(read_manifest(folder)["stages"])
    old = []
    for name in selected:
        inputs = _inputs(available[name], values[name], available, entries)
        entry = entries.get(name, {})
        if not (is_current(entry, inputs) and _page(folder, name).exists()):
            old.append(name)
            entries[name] = {**entry, "chain": chain(inputs)}  # what it will be when it has run
    return old


def _settled(
    folder: Path,
    available: Mapping[str, Stage],
    selected: Sequence[str],
    given: Mapping[str, Any] | None,
    settings: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The run's parameters, to go on with later, and all values of each selected stage."""
    stored = given is None and _parameters(folder).exists()
    if given is None:
        given = read_parameters(_parameters(folder)) if stored else {}
    declared = {name: stage.parameters for name, stage in available.items()}
    try:
        values = resolve(declared, selected, given, settings)
    except ParameterError as error:
        if stored:
            raise ParameterError(f"{error}\n(some may come from {_parameters(folder)})") from error
        raise
    return _with_settings(given, declared, selected, settings), values


def read_parameters(path: Path) -> dict[str, Any]:
    """A parameter file: names and values, or a mapping of them under a stage's name.

    Raises ParameterError, in one line, for a file that cannot be read or holds anything else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"cannot read the parameter file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is no text in UTF-8: save it anew as UTF-8") from error
    try:
        parameters = read_yaml(text)
    except ValueError as error:
        raise ParameterError(f"{path} is not YAML as it is read here: {error}") from error
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise ParameterError(f"{path} must hold names and values, as in `n_problems: 50`")
    return parameters


def _parameters(folder: Path) -> Path:
    return folder / "parameters.yml"


def _page(folder: Path, stage: str) -> Path:
    return folder / "notebooks" / f"{stage}.ipynb"


def _inputs(
    stage: Stage, values: Mapping[str, Any], available: Mapping[str, Stage], entries: Mapping
) -> dict[str, Any]:
    """All that a stage's result depends on, prose left out; if equal, it need not run again.

    `entries` are those of the manifest.
    """
    earlier = [other for name, other in available.items() if name < stage.name and name in entries]
    parameters = {name: value for name, value in values.items() if name != "run_dir"}
    inputs = {
        "source": source_hash(stage.code),
        "parameters": parameters,
        "versions": numeric_versions(),
        "stages": {name: entries[name].get("chain") for name in needed_stages(stage, earlier)},
    }
    data = data_hashes(parameters)
    return {**inputs, "data": data} if data else inputs


@dataclass
class _Work:
    """The stages of one call of `run_stages`, each run once those whose results it reads are there.

    What is kept of them is written by the thread that made this; others only wait for kernels.
    """

    folder: Path
    place: Path  # the run folder, or the attempt in it
    available: Mapping[str, Stage]
    values: Mapping[str, Mapping[str, Any]]
    asked: Sequence[str]
    cell_timeout: int | None
    progress: bool
    jobs: int

    def done(self) -> list[StageResult]:
        """Run them; StageFailed names all that failed, and what was not run because of it."""
        self._results: dict[str, StageResult] = {}
        self._failed: dict[str, StageFailed] = {}
        self._under_way: dict[str, tuple[int, dict[str, Any]]] = {}  # line of the bar, entry
        stages = [self.available[name] for name in self.asked]
        needs = {
            stage.name: needed_stages(stage, stages[:place]) for place, stage in enumerate(stages)
        }
        self._bar = tqdm(
            total=len(stages), unit="stage", disable=None if self.progress else True, position=0
        )
        with self._bar:
            in_order(needs, self._begin, self._end, jobs=self.jobs, stop=stop_kernels)
        if self._failed:
            left = [n for n in self.asked if n not in {*self._results, *self._failed}]
            messages = [str(error) for error in self._failed.values()]
            if left:
                messages.append(f"Not run, because of that: {', '.join(left)}")
            raise StageFailed("\n".join(messages)) from next(iter(self._failed.values()))
        return [self._results[name] for name in self.asked]

    def _begin(self, name: str) -> Callable[[], tuple[NotebookNode, float]] | None:
        """What is to be done for a stage, away from the run's manifest; None: nothing."""
        stage, page = self.available[name], _page(self.place, name)
        entries = read_manifest(self.place)["stages"]
        inputs = _inputs(stage, self.values[name], self.available, entries)
        entry = entries.get(name, {})
        if page.exists() and is_current(entry, inputs):
            _print_prose(stage, page)
            self._finish(name, False, entry["seconds"])
            return None
        page.unlink(missing_ok=True)
        write_entry(self.place, name, {"status": "running", "inputs": inputs})
        line = min(set(range(1, self.jobs + 1)) - {line for line, _ in self._under_way.values()})
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._under_way[name] = line, {"inputs": inputs, "started": started}
        self._say()
        return functools.partial(self._execute, stage, inputs, line)

    def _execute(
        self, stage: Stage, inputs: Mapping[str, Any], line: int
    ) -> tuple[NotebookNode, float]:
        """Run a stage's notebook, in a thread of its own; returns the page and the seconds."""
        off = None if self.progress else True
        bar = {"desc": stage.name, "leave": False, "position": line, "disable": off}
        clock = time.monotonic()
        with told_to_kernels(_threads(self.jobs)):
            executed = execute(
                stage,
                self.values[stage.name],
                self.place,
                inputs=chain(inputs),
                cell_timeout=self.cell_timeout,
                progress_bar=bar,
            )
        return executed, round(time.monotonic() - clock, 1)

    def _end(self, name: str, work: Future) -> bool:
        """Keep what came of a stage: its page and its entry appear only when it has succeeded."""
        _, begun = self._under_way.pop(name)
        self._say()
        try:
            executed, seconds = work.result()
        except StageFailed as error:
            write_entry(self.place, name, {"status": "failed", "inputs": begun["inputs"]})
            self._failed[name] = error
            return False
        entry = {
            "status": "completed",
            "inputs": begun["inputs"],
            "chain": chain(begun["inputs"]),
            "started": begun["started"],
            "seconds": seconds,
            "commit": code_commit(),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "model": Run.open(self.place).records().get("model"),
        }
        if "ended" in executed.metadata:
            entry["ended"] = executed.metadata.pop("ended")
        executed.metadata["r2a"] = {"stage": name, "run_id": run_of(self.place).name, **entry}
        write_aside(_page(self.place, name), lambda path: nbformat.write(executed, path))
        write_entry(self.place, name, {**entry, HOST: socket.gethostname()})  # on no page
        clear_pieces(self.place, name)
        self._finish(name, True, seconds)
        return True

    def _finish(self, name: str, ran: bool, seconds: float) -> None:
        self._results[name] = StageResult(name, ran, seconds, _page(self.folder, name))
        self._bar.update()

    def _say(self) -> None:
        self._bar.set_description(f"run {self.folder.name}: {', '.join(self._under_way)}")


def _threads(jobs: int) -> dict[str, str]:
    """What kernels are told so that, side by side, they have no more threads than cores."""
    if jobs == 1 or _THREADS in os.environ:
        return {}
    return {_THREADS: str(max(1, (os.cpu_count() or 1) // jobs))}


def _remove_what_it_lacks(folder: Path, stage: Stage) -> None:
    """Remove what an earlier run of a stage left that has now ended without making it again."""
    entry = read_manifest(folder)["stages"][stage.name]
    if "ended" not in entry:
        return
    started = datetime.datetime.fromisoformat(entry["started"]).timestamp()
    for kind, _, name in (artifact.partition("/") for artifact in stage.header.writes):
        for path in () if kind == "traces" else (folder / kind).glob(f"{name}.*"):
            if path.stat().st_mtime < started:
                path.unlink()


def _print_prose(stage: Stage, page: Path) -> None:
    """Give a page whose code and results stand the prose that the notebook has now."""
    executed = nbformat.read(page, as_version=4)
    reworded = in_todays_words(stage, executed)
    if reworded != executed:
        write_aside(page, lambda path: nbformat.write(reworded, path))


def _with_settings(given, declared, selected, settings) -> dict[str, Any]:
    """The parameters to go on with later: those given and, typed, those set by name."""
    merged = {
        name: {k: v for k, v in value.items() if k not in settings}
        if isinstance(value, Mapping)
        else value
        for name, value in given.items()
    }
    for name, text in settings.items():
        stage = next(stage for stage in selected if name in declared[stage])
        merged[name] = declared[stage][name].parse(text)
    return merged
