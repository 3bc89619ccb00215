"""Execute one stage's notebook with Papermill, and make a page of it that is good anywhere.

Success means that every code cell completed, or that the stage itself ended its page (`Run.end`);
anything else raises StageFailed, which names the notebook and the cell, and keeps the notebook as
far as it came. A page that succeeded is freed of
what belongs to this machine or needs a live kernel. What the stage computes, and whether it needed
to run, is not this file's business.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from weakref import WeakSet

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default
from traitlets.config import Config

from r2a_utils.folders import PACKAGE
from r2a_utils.runs.attempt import UNFINISHED, run_of
from r2a_utils.runs.folder import StageEnd
from r2a_utils.runs.header import kernel_environment, told_to_kernels
from r2a_utils.runs.local_paths import without_folders
from r2a_utils.runs.parameters import fill, literal
from r2a_utils.runs.pieces import pieces_of
from r2a_utils.runs.stage import ROOT, Stage
from r2a_utils.runs.vectors import kept_in, vectors_file

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Starting a kernel imports IPython; on a busy machine with a cold disk that has taken a minute.
_KERNEL_START_SECONDS = 300
# Kernels show no progress bars, which a printed page cannot show.
_QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# The managers of the kernels that were started and are still there.
_KERNELS: WeakSet[_ThisPython] = WeakSet()


class StageFailed(RuntimeError):  # noqa: N818  a stage fails; this is that event
    """A stage that did not complete; the message names its notebook and cell and what happened."""


def execute(
    stage: Stage,
    values: Mapping[str, Any],
    folder: Path,
    *,
    inputs: str,
    cell_timeout: int | None,
    progress_bar: Mapping[str, Any],
) -> NotebookNode:
    """Run a stage's notebook and return it, cleaned.

    Where the stage ended itself, the notebook goes as far, and its metadata `ended` says why.

    `values` holds every parameter but `run_dir`, which is the run's `folder`; `inputs` is a hash of
    all that the result depends on (pieces of an earlier try with the same are taken up, see
    `pieces.py`); `cell_timeout` is in seconds for each cell; `progress_bar` goes to tqdm. Raises
    StageFailed.
    """
    inside = folder.resolve().is_relative_to(ROOT)
    run_dir = folder.resolve().relative_to(ROOT) if inside else folder.resolve()
    notebook = _prepared(stage, {**values, "run_dir": str(run_dir)})
    part = folder / "notebooks" / f"{stage.name}.part.ipynb"
    failed = failed_notebook(folder, stage.name)
    part.parent.mkdir(exist_ok=True)
    failed.unlink(missing_ok=True)
    try:
        with (
            told_to_kernels(_QUIET),
            stage.header.in_force(),
            pieces_of(folder, stage.name, inputs),
            kept_in(vectors_file(folder, stage.name)),
            _private_folder() as private,
        ):
            papermill.execute_notebook(
                notebook,
                part,
                progress_bar=dict(progress_bar),
                execution_timeout=cell_timeout,
                start_timeout=_KERNEL_START_SECONDS,
                kernel_name="python3",
                # Talk to the kernel through sockets in a folder that only this user may open:
                # other users of the machine could listen on a TCP port.
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{private}/kernel"}}),
                kernel_manager_class=_ThisPython,
                # the kernel's own log: being told to stop is no error worth a line in the terminal
                extra_arguments=["--log-level=CRITICAL"],
            )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        if getattr(error, "ename", None) != StageEnd.__name__:
            os.replace(part, failed)
            index = _last_started(nbformat.read(failed, as_version=4))
            raise _failure(stage, failed, index, _reason(error, cell_timeout)) from error
    executed = _until_its_end(nbformat.read(part, as_version=4))
    unfinished = _first_unfinished(executed)
    if unfinished is not None:
        os.replace(part, failed)
        raise _failure(stage, failed, unfinished, "did not complete")
    # The run's place on this machine is nobody else's business.
    cell = executed.cells[stage.parameters_cell]
    here, shown = literal(str(run_dir)), literal(f"runs/{run_of(folder).name}")
    cell.source = cell.source.replace(f"run_dir = {here}", f"run_dir = {shown}")
    clean(executed, folder)
    part.unlink()
    return executed


def _until_its_end(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without what stands behind the cell in which the stage ended itself."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("ename") == StageEnd.__name__:
                notebook.metadata["ended"] = reason = output.evalue
                cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": reason})]
                cell.metadata.papermill["status"] = "completed"
                kept = [
                    c for c in notebook.cells[: index + 1] if c.get("id", "").startswith("cell-")
                ]
                notebook.cells = kept
                return notebook
    return notebook


@contextmanager
def _private_folder() -> Iterator[str]:
    """A folder for the kernel's sockets, named after this process; those of killed ones go.

    Not in the run folder: the path of a socket may have 108 letters at most.
    """
    _remove_left_folders()
    with TemporaryDirectory(prefix=f"r2a-kernel-{os.getpid()}-") as private:
        yield private
    _remove_left_folders()  # a kernel that outlived its run for a moment may have opened a socket


def _remove_left_folders() -> None:
    for left in Path(gettempdir()).glob("r2a-kernel-*-*"):
        number = left.name.split("-")[2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)  # another user's stays: it may not be removed


class _ThisPython(AsyncKernelManager):
    """The kernel of the Python that runs this, whatever kernels Jupyter finds elsewhere.

    It is told where it runs and what it is to know. Papermill would change the folder of this whole
    process for it, in which another stage may run.
    """

    async def start_kernel(self, **options: Any) -> None:
        told = {"cwd": str(ROOT), "env": kernel_environment()}
        await super().start_kernel(**{**options, **told})
        _KERNELS.add(self)

    @default("kernel_spec_manager")
    def _native_alone(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


def stop_kernels() -> None:
    """Kill the kernels of all stages that are being executed, which fail by it."""
    for manager in list(_KERNELS):
        if manager.has_kernel:
            with suppress(ProcessLookupError):  # it has ended in this moment
                os.killpg(manager.provisioner.pgid, signal.SIGKILL)


def failed_notebook(folder: Path, stage: str) -> Path:
    """Where a failed stage's notebook is kept, with the cells that finished."""
    return folder / "notebooks" / f"{stage}.failed.ipynb"


def _prepared(stage: Stage, values: Mapping[str, Any]) -> NotebookNode:
    """The stage's notebook with this run's values in its parameters cell, as readers will see it.

    Papermill would add a second cell with the injected values; one cell is easier to read.
    """
    notebook = nbformat.from_dict(stage.notebook)
    cell = notebook.cells[stage.parameters_cell]
    cell.source = fill(cell.source, stage.parameters, values)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    return notebook


def clean(notebook: NotebookNode, folder: Path) -> None:
    """Remove from an executed notebook what belongs to this machine or needs a live kernel."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    shorten = _path_shortener(folder)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)  # Papermill gives every cell a list of tags
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = shorten(_ANSI.sub("", output.text))
            data = output.get("data", {})
            live = data.pop("application/vnd.jupyter.widget-view+json", None) is not None
            if live and set(data) <= {"text/plain"}:
                continue  # nothing is left to show without a kernel
            for kind, value in data.items():
                if isinstance(value, str) and (kind.startswith("text/") or kind == "image/svg+xml"):
                    data[kind] = shorten(value)
            kept.append(output)
        cell.outputs = kept


def _path_shortener(folder: Path) -> Callable[[str], str]:
    """A function that replaces this machine's folders by names that mean the same anywhere."""
    run, home = f"runs/{run_of(folder).name}", Path.home()
    folders = {
        str(folder.resolve()): run,
        f"{run}/{UNFINISHED}": run,
        sys.prefix + os.sep: "",
        str(PACKAGE.parent) + os.sep: "",
        str(ROOT) + os.sep: "",
        str(ROOT): ".",
        str(home): "~",
    }
    # "/", the home of a user without one, begins every path
    folders = {path: name for path, name in folders.items() if path.strip("/")}

    def shorten(text: str) -> str:
        text = without_folders(text, folders)
        # Not \S* before the name: an image is one long word, on which that takes minutes.
        return re.sub(r"(?:/[\w.-]+){0,20}/ipykernel_\d+/\d+\.py", "cell", text)

    return shorten


def _first_unfinished(notebook: NotebookNode) -> int | None:
    """The first code cell that did not complete. Papermill itself calls `sys.exit(0)` a success."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            completed = cell.metadata.papermill.get("status") == "completed"
            if not completed or cell.execution_count is None:
                return index
    return None


def _last_started(notebook: NotebookNode) -> int:
    started = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return started[-1] if started else 0


def _reason(error: Exception, cell_timeout: int | None) -> str:
    if isinstance(error, CellTimeoutError):
        return f"took longer than {cell_timeout} s"
    if isinstance(error, DeadKernelError):
        return "the kernel died; most often the machine had no memory left"
    return f"{error.ename}: {error.evalue}"


def _failure(stage: Stage, kept: Path, index: int, reason: str) -> StageFailed:
    """The error that names a cell, counted among the code cells of the notebook's source."""
    cells = nbformat.read(kept, as_version=4).cells
    number = sum(cell.cell_type == "code" for cell in cells[: index + 1])
    first_line = cells[index].source.strip().partition("\n")[0]
    return StageFailed(
        f"{stage.path.name}, code cell {number} (`{first_line}`): {reason}\n"
        f"The notebook as far as it came, with the traceback: {kept}"
    )
