"""The workshop's copies: what participants and teachers get, and that no work is lost."""

import json
import zipfile

import nbformat
import pytest
from cell_runs import run_cell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from r2a_utils import cli
from r2a_utils.publishing.exercises import has_tag, load_exercises, stage_exercises
from r2a_utils.publishing.plain_markdown import plain_markdown, without_answers
from r2a_utils.runs.folder import Run
from r2a_utils.runs.stage import ROOT, load_stages
from r2a_utils.teaching import handout
from r2a_utils.teaching.handout import WorkshopError, write_workshop

STAGES = load_stages()
EXERCISES = load_exercises(STAGES)
STAGE_0 = "00_anatomy_of_a_trace"


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory):
    """A run whose stages have all completed, with one record, one table and other parameters."""
    run = Run.open(tmp_path_factory.mktemp("runs") / "default")
    run.write_record("anatomy", {"tokens": 77, "reasoning_tokens": 5, "sentences": 3, "cues": 1})
    (run.folder / "notebooks").mkdir()
    (run.folder / "notebooks" / "00_anatomy_of_a_trace.ipynb").write_text("a page")
    entry = {"status": "completed", "inputs": {"parameters": {}, "stages": {}}}
    stages = {name: entry for name in STAGES}
    stages["01_collect_traces"] = {
        "status": "completed",
        "inputs": {"parameters": {"n_problems": 48}, "stages": {}},
    }
    (run.folder / "manifest.json").write_text(json.dumps({"run_id": "default", "stages": stages}))
    return run.folder


@pytest.fixture(scope="module")
def workshop(complete_run, tmp_path_factory):
    """The copies as `r2a workshop` writes them."""
    return write_workshop(tmp_path_factory.mktemp("made") / "workshop", complete_run).folder


@pytest.fixture
def fresh(complete_run, tmp_path):
    return write_workshop(tmp_path / "workshop", complete_run).folder


def copy(folder, kind: str, stage: str) -> nbformat.NotebookNode:
    return nbformat.read(folder / kind / f"{stage}.ipynb", as_version=4)


def sources(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


def parts(exercise) -> tuple[str, str]:
    """The solution's code and the answer's text, as the source has them."""
    cells = [STAGES[exercise.stage].notebook.cells[i] for i in exercise.cells]
    solution = next(cell.source for cell in cells if has_tag(cell, "solution"))
    answer = cells[-1].source.partition("{admonition} Answer\n:class: dropdown\n")[2]
    return solution, answer.strip().splitlines()[0]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_participants_get_the_stub_and_neither_solution_nor_answer(workshop, exercise):
    notebook = copy(workshop, "participants", exercise.stage)
    text, (solution, answer) = sources(notebook), parts(exercise)
    assert f"### Exercise {exercise.id}" in text
    assert len(answer) > 20
    assert answer not in text
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (stub,) = (source for source in code if f"def {exercise.function}(" in source)
    assert "raise NotImplementedError" in stub
    there = {line.strip() for source in code for line in source.splitlines()}
    lines = {line.strip() for line in solution.splitlines() if len(line.strip()) > 40}
    assert lines & there <= {line.strip() for line in stub.splitlines()}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_teachers_get_solution_and_answer(workshop, exercise):
    notebook = copy(workshop, "teachers", exercise.stage)
    solution, answer = parts(exercise)
    folded = [cell for cell in notebook.cells if has_tag(cell, "solution")]
    assert solution in [cell.source for cell in folded]
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in folded)
    assert plain_markdown(answer) in sources(notebook)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["participants", "teachers"])
def test_a_copy_shows_in_any_notebook_program_and_works_in_its_own_run(workshop, kind, stage):
    notebook = copy(workshop, kind, stage)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for mark in ("{term}`", "{doc}`", "{cite", "```{admonition}", ":class: dropdown"):
        assert mark not in prose
    assert 'run_dir = "runs/workshop"' in sources(notebook)
    assert "jupytext" not in notebook.metadata
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_copies_have_the_numbers_and_parameters_of_their_run(workshop):
    assert "This trace has 77 tokens" in sources(copy(workshop, "teachers", STAGE_0))
    assert "n_problems = 48" in sources(copy(workshop, "participants", "01_collect_traces"))


def test_the_zip_holds_all_that_a_laptop_needs(workshop):
    with zipfile.ZipFile(workshop / "r2a-workshop.zip") as archive:
        names = set(archive.namelist())
        readme = archive.read("r2a-workshop/README.md").decode()
    assert {f"r2a-workshop/{stage}.ipynb" for stage in STAGES} <= names
    package = {path.name for path in (ROOT / "r2a_utils").glob("*.*") if path.is_file()}
    assert {f"r2a-workshop/r2a_utils/{name}" for name in package} <= names
    weights = (ROOT / "r2a_utils" / "tiny").glob("*.safetensors")
    assert {f"r2a-workshop/r2a_utils/tiny/{path.name}" for path in weights} <= names
    others = {"pyproject.toml", "constraints.txt", "LICENSE", "runs/workshop/records/anatomy.json"}
    assert {f"r2a-workshop/{name}" for name in others} <= names
    assert "pip install -c constraints.txt" in readme
    unwanted = ("__pycache__", "teachers", "manifest.json", "workshop/notebooks")
    assert not [name for name in names if any(part in name for part in unwanted)]
    handed_out = {
        path.relative_to(workshop / "participants").as_posix()
        for path in (workshop / "participants").rglob("*")
        if path.is_file()
    }
    assert {name.partition("/")[2] for name in names} == handed_out


def test_a_participants_copy_runs_up_to_its_first_stub(workshop):
    notebook = copy(workshop, "participants", STAGE_0)
    first = next(i for i, cell in enumerate(notebook.cells) if has_tag(cell, "check"))
    resources = {"metadata": {"path": str(workshop / "participants")}}
    client = NotebookClient(notebook, kernel_name="python3", resources=resources, timeout=300)
    with pytest.raises(CellExecutionError):
        client.execute()
    reached = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    before = sum(cell.cell_type == "code" for cell in notebook.cells[:first])
    assert all(reached[: before + 1])
    assert not any(reached[before + 1 :])
    (output,) = notebook.cells[first].outputs
    assert output.ename == "NotWritten"
    told = "segment_borders is not written yet: find where the tags start; each segment ends there."
    assert output.traceback == [told]


@pytest.mark.parametrize("kind", ["participants", "teachers"])
def test_copies_in_which_somebody_has_worked_are_kept_unless_told(fresh, complete_run, kind):
    path = fresh / kind / f"{STAGE_0}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "def segment_borders" in cell.source)
    cell.source = "def segment_borders(token_ids, think, end_think):\n    return {}"
    nbformat.write(notebook, path)
    with pytest.raises(WorkshopError, match=f"{kind}/{STAGE_0}.ipynb; move it away, or pass"):
        write_workshop(fresh, complete_run)
    assert "return {}" in sources(nbformat.read(path, as_version=4))

    write_workshop(fresh, complete_run, overwrite=True)
    assert "return {}" not in sources(nbformat.read(path, as_version=4))


def test_a_copy_that_was_only_run_is_written_anew(fresh, complete_run):
    path = fresh / "participants" / f"{STAGE_0}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text="42")]
    nbformat.write(notebook, path)
    write_workshop(fresh, complete_run)
    assert not any(c.get("outputs") for c in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize(
    "place", ["notes.md", "participants/notes.md", "participants/runs/workshop/mine/notes.md"]
)
def test_notes_among_the_copies_are_kept_whatever_is_told(fresh, complete_run, place):
    (fresh / place).parent.mkdir(exist_ok=True)
    (fresh / place).write_text("bring cake")
    with pytest.raises(WorkshopError, match=f"would replace: {place}; move"):
        write_workshop(fresh, complete_run)
    assert (fresh / place).read_text() == "bring cake"
    write_workshop(fresh, complete_run, overwrite=True)
    assert not (fresh / place).exists()
    assert (fresh.with_name(f"{fresh.name}.mine-1") / place).read_text() == "bring cake"


def test_a_changed_file_of_ours_is_theirs(fresh, complete_run):
    (fresh / "participants/README.md").write_text("Room 3")
    with pytest.raises(WorkshopError, match=r"participants/README\.md"):
        write_workshop(fresh, complete_run)


def test_nothing_half_written_stays_when_writing_fails(complete_run, tmp_path, monkeypatch):
    def fail(folder, path):
        raise OSError("the disk is full")

    monkeypatch.setattr(handout, "_write_zip", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_workshop(tmp_path / "workshop", complete_run)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_lacks_stages_is_refused_with_the_command_that_makes_them(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("r2a_utils.runs.running.RUNS", tmp_path)
    assert cli.main(["workshop", "--run-id", "new"]) == 1
    told = capsys.readouterr().err
    assert "run 'new' is not complete (00_anatomy_of_a_trace" in told
    assert "r2a run --run-id new" in told
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_was_written(fresh, complete_run, capsys, monkeypatch):
    def written(run, overwrite):
        assert (run.name, overwrite) == ("default", True)
        return write_workshop(fresh, complete_run, overwrite=overwrite)

    monkeypatch.setattr(handout, "write_workshop", written)
    assert cli.main(["workshop", "--overwrite"]) == 0
    told = capsys.readouterr().out
    assert f"{len(EXERCISES)} exercises in {len(STAGES)} notebooks" in told
    assert "r2a-workshop.zip" in told


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("a {term}`segment <segment>` of a {term}`trace`", "a segment of a trace"),
        ("see {doc}`stage 1 <02_answer_quality>`", "see [stage 1](02_answer_quality.ipynb)"),
        ("see {doc}`stages/01_collect`", "see [stages/01_collect](01_collect.ipynb)"),
        ("the {doc}`glossary </glossary>`", "the glossary"),
        ("heads {cite:p}`zhang2025reasoning`", "heads (Zhang 2025)"),
        ("{cite:t}`geva2023a, vig2020b` cut", "Geva 2023; Vig 2020 cut"),
        ("(label)=\n# Title", "# Title"),
        ("a `{term}` in code and {x: 1}", "a `{term}` in code and {x: 1}"),
        (
            "```{admonition} Hint\n:class: dropdown tip\n\nTry `x`.\n\nTwice.\n```",
            "<details>\n<summary>Hint</summary>\n\nTry `x`.\n\nTwice.\n\n</details>",
        ),
        (":::{note}\nOne.\n\nTwo.\n:::", "> **Note**\n>\n> One.\n>\n> Two."),
        ("```python\nx = 1\n```", "```python\nx = 1\n```"),
    ],
)
def test_myst_becomes_plain_markdown(myst, plain):
    assert plain_markdown(myst) == plain


def test_only_answers_are_taken_out():
    hint = "```{admonition} Hint\n:class: dropdown\nAsk.\n```"
    answer = "```{admonition} Answer\n:class: dropdown\nBecause.\n```"
    assert without_answers(f"{hint}\n\n{answer}\n") == f"{hint}\n\n*Your answer:*\n"


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("stage", [name for name in STAGES if list(stage_exercises(STAGES[name]))])
def test_exercises_need_only_the_parameters_and_the_cell_after_them(small_runs, stage):
    """So that nobody has to run a whole page first. In a kernel's stead: plain Python."""
    cells = STAGES[stage].notebook.cells
    exercises = list(stage_exercises(STAGES[stage]))
    code = [i for i, cell in enumerate(cells) if cell.cell_type == "code"]
    setup = max(i for i in code if i < exercises[0].cells.start)
    used = [*code[:2], *(i for i in code if setup <= i < exercises[-1].cells.stop)]
    space = {}
    for i in used:
        source = cells[i].source
        if has_tag(cells[i], "parameters"):
            source = source.replace('"runs/default"', repr(str(small_runs / "default")))
        run_cell(source, space, f"{stage}-{i}")
    assert all(callable(space[exercise.function]) for exercise in exercises)
