"""Stages run only when they must, fail loudly, and leave nothing half-made."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from r2a_utils.runs.execution import StageFailed, clean, failed_notebook
from r2a_utils.runs.folder import Run, RunFolderError
from r2a_utils.runs.lock import hold
from r2a_utils.runs.manifest import read_manifest, stale_stages
from r2a_utils.runs.parameters import ParameterError
from r2a_utils.runs.running import read_parameters, run_folder, run_stages
from r2a_utils.runs.stage import ROOT

FIRST = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/count]
# ---

# %% [markdown]
# # Count

# %% tags=["parameters"]
run_dir = "runs/default"  # where the run is kept
n = 3

# %%
from r2a_utils.runs.folder import Run, RunFolderError
run = Run.open(run_dir)
run.write_record("count", {"n": n})
with open(run.folder / "log", "a") as log:
    log.write("first\\n")
n
"""
SECOND = """\
# ---
# jupyter:
#   r2a:
#     reads: [records/count]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
scale = 1.0

# %%
from r2a_utils.runs.folder import Run, RunFolderError
run = Run.open(run_dir)
count = run.read_record("count")
with open(run_dir + "/log", "a") as log:
    log.write("second\\n")
count["n"] * scale
"""
THIRD = """\
# %% tags=["parameters"]
run_dir = "runs/default"
mode = "work"

# %%
import sys, time
print(sys.executable, run_dir)

# %%
if mode == "fail":
    raise RuntimeError("no such luck")
if mode == "exit":
    sys.exit(0)
if mode == "wait":
    time.sleep(600)

# %%
print("the end")
"""
FOURTH = """\
# %% tags=["parameters"]
run_dir = "runs/default"
dataset = "tiny"
paper_data: str | None = None

# %%
dataset
"""


@pytest.fixture
def notebooks(tmp_path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    texts = {"01_first": FIRST, "02_second": SECOND, "03_third": THIRD, "04_fourth": FOURTH}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def run(tmp_path, notebooks):
    """Run stages of the small notebooks into one folder; returns the stages that really ran."""

    def call(stages=("01", "02"), **keywords) -> list[str]:
        results = run_stages(
            tmp_path / "trial", stages, notebooks=notebooks, progress=False, **keywords
        )
        return [result.stage for result in results if result.ran]

    return call


def log(tmp_path) -> list[str]:
    return (tmp_path / "trial" / "log").read_text().split()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_stage_runs_again_only_when_something_it_depends_on_has_changed(run, tmp_path, notebooks):
    assert run(given={"n": 4}) == ["01_first", "02_second"]
    assert log(tmp_path) == ["first", "second"]
    pages = sorted((tmp_path / "trial/notebooks").iterdir())
    before = [page.read_bytes() for page in pages]
    assert run() == []  # goes on with n = 4
    assert [page.read_bytes() for page in pages] == before
    assert run(settings={"scale": "2"}) == ["02_second"]
    assert run(settings={"scale": "2.0"}) == []
    assert read_parameters(tmp_path / "trial" / "parameters.yml") == {"n": 4, "scale": 2.0}

    page = nbformat.read(tmp_path / "trial/notebooks/02_second.ipynb", as_version=4)
    assert page.cells[1].outputs[0].data["text/plain"] == "8.0"
    assert "scale = 2.0" in page.cells[0].source

    edit(notebooks / "02_second.py", "count = ", "count  = ")
    assert run() == ["02_second"]
    (tmp_path / "trial/notebooks/02_second.ipynb").unlink()
    assert run() == ["02_second"]


def test_new_prose_is_printed_anew_without_running_the_code(run, tmp_path, notebooks):
    run(["01"])
    edit(notebooks / "01_first.py", "# # Count\n", "# # Counting\n#\n# With a sentence more.\n")
    assert run(["01"]) == []
    page = nbformat.read(tmp_path / "trial/notebooks/01_first.ipynb", as_version=4)
    assert page.cells[0].source == "# Counting\n\nWith a sentence more."
    assert page.cells[2].outputs[0].data["text/plain"] == "3"
    assert log(tmp_path) == ["first"]


def test_a_change_upstream_makes_what_reads_it_old(run, tmp_path):
    run()
    assert stale_stages(read_manifest(tmp_path / "trial")) == {}
    assert run(["01"], given={"n": 5}) == ["01_first"]
    reason = "01_first has been run anew since"
    assert stale_stages(read_manifest(tmp_path / "trial")) == {"02_second": reason}
    assert run() == ["02_second"]
    assert stale_stages(read_manifest(tmp_path / "trial")) == {}


def test_a_stage_runs_again_when_a_file_that_a_parameter_names_has_changed(run, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("{}")
    given = {"dataset": str(problems)}
    assert run(["04"], given=given) == ["04_fourth"]
    assert run(["04"], given=given) == []
    problems.write_text('{"question": "2 + 2"}')
    assert run(["04"], given=given) == ["04_fourth"]


def test_a_stage_runs_again_when_the_environment_names_other_data(run, tmp_path, monkeypatch):
    monkeypatch.delenv("R2A_PAPER_DATA", raising=False)
    assert run(["04"]) == ["04_fourth"]
    folder = tmp_path / "paper"
    folder.mkdir()
    monkeypatch.setenv("R2A_PAPER_DATA", str(folder))
    assert run(["04"]) == ["04_fourth"]
    assert run(["04"]) == []
    (folder / "pairs.csv").write_text("a,b")
    assert run(["04"]) == ["04_fourth"]
    digest = read_manifest(tmp_path / "trial")["stages"]["04_fourth"]["inputs"]["data"]
    assert set(digest) == {"paper_data"}
    assert len(digest["paper_data"]) == 64
    monkeypatch.delenv("R2A_PAPER_DATA")
    assert run(["04"]) == ["04_fourth"]


def test_a_failing_cell_is_named_and_what_finished_is_kept(run, tmp_path, notebooks):
    with pytest.raises(StageFailed) as error:
        run(["01", "03"], given={"mode": "fail"})
    message = str(error.value)
    assert '03_third.py, code cell 3 (`if mode == "fail":`): RuntimeError: no such luck' in message
    folder = tmp_path / "trial"
    assert (folder / "notebooks/01_first.ipynb").exists()
    assert not (folder / "notebooks/03_third.ipynb").exists()
    kept = nbformat.read(failed_notebook(folder, "03_third"), as_version=4)
    assert any("no such luck" in str(cell.get("outputs")) for cell in kept.cells)
    statuses = {n: e["status"] for n, e in read_manifest(folder)["stages"].items()}
    assert statuses == {"01_first": "completed", "03_third": "failed"}
    assert run(["01", "03"], given={}) == ["03_third"]
    assert not failed_notebook(folder, "03_third").exists()


def everything(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if not {"unfinished", ".lock"} & set(path.parts)]
    return {path: path.read_bytes() for path in kept}


def test_a_run_that_fails_leaves_the_good_one_before_it_as_it_was(run, tmp_path, notebooks):
    assert run(["01", "02", "03"], given={"n": 4}) == ["01_first", "02_second", "03_third"]
    before = everything(tmp_path / "trial")
    asked = {"stages": ["01", "02", "03"], "settings": {"n": "5", "mode": "fail"}}
    with pytest.raises(StageFailed, match=r"trial/unfinished/notebooks/03_third.failed.ipynb"):
        run(**asked)
    assert everything(tmp_path / "trial") == before
    assert run(["01", "02", "03"]) == []  # n is 4 as it was

    edit(notebooks / "03_third.py", "no such luck", "again")
    with pytest.raises(StageFailed, match="again"):
        run(**asked)
    edit(notebooks / "03_third.py", 'raise RuntimeError("again")', "pass")
    assert run(**asked) == ["03_third"]  # what was finished there is finished
    assert not (tmp_path / "trial/unfinished").exists()
    assert read_parameters(tmp_path / "trial/parameters.yml") == {"n": 5, "mode": "fail"}
    assert Run.open(tmp_path / "trial").read_record("count") == {"n": 5}
    page = nbformat.read(tmp_path / "trial/notebooks/03_third.ipynb", as_version=4)
    assert page.metadata["r2a"]["run_id"] == "trial"
    assert page.cells[0].source.startswith('run_dir = "runs/trial"')
    assert run(["01", "02", "03"]) == []


def test_traces_of_a_run_that_failed_are_not_written_again(run, tmp_path):
    traces = tmp_path / "trial/traces/with.jsonl"
    run(["01", "03"])
    traces.parent.mkdir(exist_ok=True)
    traces.write_text("1\n")
    with pytest.raises(StageFailed):
        run(["01", "03"], settings={"mode": "fail"})
    with (tmp_path / "trial/unfinished/traces/with.jsonl").open("a") as file:
        file.write("2\n")
    assert traces.read_text() == "1\n"
    assert run(["01", "03"], settings={"n": "9"}) == ["01_first"]
    assert traces.read_text() == "1\n2\n"


def test_a_move_that_was_killed_is_finished(run, tmp_path):
    run()
    with pytest.raises(StageFailed):
        run(["01", "03"], settings={"n": "7", "mode": "exit"})
    attempt = tmp_path / "trial/unfinished"
    (attempt / ".whole").touch()  # as if all of it had completed
    (attempt / "records/count.json").replace(tmp_path / "trial/records/count.json")
    (tmp_path / "trial/records/x.json.99999999.part").write_text("{")
    assert run(["01"], settings={"n": "7"}) == []
    assert Run.open(tmp_path / "trial").records() == {"count": {"n": 7}}
    assert not attempt.exists()
    assert list((tmp_path / "trial").rglob("*.part")) == []


def test_one_process_has_a_run_and_the_next_is_told_which(run, tmp_path):
    with hold(tmp_path / "trial"):
        told = f"trial is in use by process {os.getpid()} on .* since 20"
        with pytest.raises(RunFolderError, match=told):
            run()
    assert run() == ["01_first", "02_second"]


def test_a_lock_goes_with_the_process_that_held_it(run, tmp_path):
    code = (
        "import os\nfrom pathlib import Path\nfrom r2a_utils.runs.lock import hold\n"
        f"with hold(Path({str(tmp_path / 'trial')!r})):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    assert (tmp_path / "trial/.lock-owner").exists()
    assert run() == ["01_first", "02_second"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stages": {"01_first": {}}}', '{"stages": 1}'])
def test_a_damaged_manifest_is_named_with_what_to_do(run, tmp_path, text):
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"trial/manifest.json is damaged .* delete it"):
        run()


def test_the_kernel_is_this_python_whatever_jupyter_finds(run, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["/bin/false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert run(["04"]) == ["04_fourth"]


def test_a_cell_that_takes_too_long_is_named(run, tmp_path):
    with pytest.raises(StageFailed, match=r"03_third.py, code cell 3 .* took longer than 2 s"):
        run(["03"], given={"mode": "wait"}, cell_timeout=2)
    assert not (tmp_path / "trial/notebooks/03_third.ipynb").exists()


ENDING = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/why, records/found]
# ---

# %% tags=["parameters"]
run_dir = "runs/default"
n = 1

# %%
from r2a_utils.runs.folder import Run
run = Run.open(run_dir)
run.write_record("why", {"n": n})

# %% [markdown]
# Up to here.

# %%
if not n:
    run.end("Needs 1, has 0; --set n=1")

# %%
run.write_record("found", {"n": n})
n
"""


def test_a_stage_that_ends_itself_has_a_page_as_far_as_it_goes_and_is_no_failure(tmp_path):
    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks/01_ending.py"
    notebook.write_text(ENDING)
    place = {"notebooks": tmp_path / "notebooks", "progress": False}
    folder = tmp_path / "run"
    run_stages(folder, **place)
    assert Run.open(folder).records().keys() == {"why", "found"}
    run_stages(folder, settings={"n": "0"}, **place)
    entry = read_manifest(folder)["stages"]["01_ending"]
    assert entry["status"] == "completed" and entry["ended"] == "Needs 1, has 0; --set n=1"
    assert Run.open(folder).records().keys() == {"why"}  # what was found before is of another run
    page = nbformat.read(folder / "notebooks/01_ending.ipynb", as_version=4)
    assert [cell.cell_type for cell in page.cells] == ["code", "code", "markdown", "code"]
    assert page.cells[-1].outputs[0]["data"] == {"text/markdown": "Needs 1, has 0; --set n=1"}
    assert not list(folder.rglob("*.failed.ipynb"))
    notebook.write_text(ENDING.replace("Up to here.", "As far as here."))
    [result] = run_stages(folder, **place)
    assert not result.ran
    page = nbformat.read(folder / "notebooks/01_ending.ipynb", as_version=4)
    assert [cell.cell_type for cell in page.cells] == ["code", "code", "markdown", "code"]
    assert page.cells[2].source == "As far as here."


def test_leaving_early_is_not_success(run, tmp_path):
    with pytest.raises(StageFailed, match=r"code cell 3 .* did not complete"):
        run(["03"], given={"mode": "exit"})
    assert not (tmp_path / "trial/notebooks/03_third.ipynb").exists()


def test_nothing_runs_when_a_parameter_or_a_stage_is_refused(run, tmp_path):
    with pytest.raises(ParameterError, match="did you mean scale"):
        run(settings={"scal": "2"})
    with pytest.raises(ParameterError, match="there is no stage '07'"):
        run(["01", "07"])
    assert not (tmp_path / "trial").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path, notebooks):
    code = (
        "from pathlib import Path\nfrom r2a_utils.runs.running import run_stages\n"
        f"run_stages(Path({str(tmp_path / 'trial')!r}), ['01', '03'], given={{'mode': 'wait'}},"
        f" notebooks=Path({str(notebooks)!r}), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    manifest = {}
    deadline = time.monotonic() + 60
    while "03_third" not in manifest and time.monotonic() < deadline:
        time.sleep(0.2)
        manifest = read_manifest(tmp_path / "trial")["stages"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert {n: e["status"] for n, e in manifest.items()} == {
        "01_first": "completed",
        "03_third": "running",
    }
    results = run_stages(
        tmp_path / "trial", ["01", "03"], given={}, notebooks=notebooks, progress=False
    )
    assert [result.ran for result in results] == [False, True]
    assert log(tmp_path) == ["first"]
    assert [path.name for path in (tmp_path / "trial").rglob("*.part*")] == []
    assert list(Path(tempfile.gettempdir()).glob(f"r2a-kernel-{process.pid}-*")) == []


def test_the_manifest_says_what_a_stage_was_made_from(run, tmp_path):
    Run.open(tmp_path / "trial").write_record("model", {"name": "r2a-tiny", "device": "cpu"})
    run(["01"], given={"n": 7})
    entry = read_manifest(tmp_path / "trial")["stages"]["01_first"]
    assert entry["inputs"]["parameters"] == {"n": 7}
    assert len(entry["inputs"]["source"]) == 64
    assert entry["inputs"]["versions"]["torch"] == "2.13.0"
    assert entry["model"] == {"name": "r2a-tiny", "device": "cpu"}
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", entry["commit"])
    assert 0 < entry["seconds"] < 60


def test_a_page_says_nothing_of_the_machine_that_made_it(run, tmp_path, monkeypatch):
    """Its name stands in the manifest alone."""
    monkeypatch.setattr(socket, "gethostname", lambda: "babbage.example")
    run(["03"])
    assert read_manifest(tmp_path / "trial")["stages"]["03_third"]["host"] == "babbage.example"
    text = (tmp_path / "trial/notebooks/03_third.ipynb").read_text()
    own = (str(tmp_path), str(ROOT), str(Path.home()), sys.prefix, "babbage", "papermill")
    for word in own:
        assert word not in text
    page = nbformat.reads(text, as_version=4)
    assert page.cells[0].source.startswith('run_dir = "runs/trial"')
    assert page.cells[1].outputs[0].text.split() == ["bin/python", "runs/trial"]


def test_what_needs_a_kernel_is_removed_from_a_page(tmp_path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    bar = nbformat.v4.new_output("display_data", data={**view, "text/plain": "HBox()"})
    explorer = nbformat.v4.new_output("display_data", data={**view, "text/html": "<b>still</b>"})
    path = f"\x1b[31m{tmp_path}/x and /tmp/ipykernel_12/34.py:1: UserWarning\x1b[0m"
    warning = nbformat.v4.new_output("stream", name="stderr", text=path)
    cell = nbformat.v4.new_code_cell("1", outputs=[bar, explorer, warning])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}})
    clean(notebook, tmp_path)
    assert [output.output_type for output in cell.outputs] == ["display_data", "stream"]
    assert cell.outputs[0].data == {"text/html": "<b>still</b>"}
    assert cell.outputs[1].text == f"runs/{tmp_path.name}/x and cell:1: UserWarning"
    assert "widgets" not in notebook.metadata


def test_a_run_id_cannot_leave_the_folder_of_runs():
    assert run_folder("default").parts[-2:] == ("runs", "default")
    for run_id in ("../default", "", "a/b", ".hidden"):
        with pytest.raises(ParameterError, match="cannot be a run id"):
            run_folder(run_id)


def test_a_parameter_file_must_hold_names_and_values(tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(yaml.safe_dump(["n_problems"]))
    with pytest.raises(ParameterError, match="must hold names and values"):
        read_parameters(path)
