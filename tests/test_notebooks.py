"""The stage notebooks run through, on small parameters, by the same code as the book's."""

import ast
import inspect
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import nbformat
import netCDF4
import pandas as pd
import pytest
import xarray as xr
from local_server import serve
from teaching.right_variants import RIGHT

from r2a_utils.collecting.loading import load_problems
from r2a_utils.models.registry import BUNDLED
from r2a_utils.publishing.book_runs import declared_runs
from r2a_utils.publishing.exercises import has_tag, load_exercises
from r2a_utils.publishing.headlines import headline
from r2a_utils.runs.archive import pack
from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.running import outdated, read_parameters, run_stages
from r2a_utils.runs.stage import NOTEBOOKS, load_stages
from r2a_utils.texts.tags import R1_TAGS, SQUARE_TAGS, respelt

pytestmark = pytest.mark.xdist_group("book")
# Runs of their own, which need no book: they may be made beside it, on another core.
own_run = pytest.mark.xdist_group("runs")

STAGES = load_stages()
OVERRIDES = read_parameters(Path(__file__).with_name("overrides.yml"))
SECOND = read_parameters(Path(__file__).with_name("second_values.yml"))
# Parameters that need more than a value, and the test below that gives them another than their own.
ELSEWHERE = {
    "judge_url": "test_a_judge_scores_open_questions_where_a_run_names_one",
    "judge_model": "test_a_judge_scores_open_questions_where_a_run_names_one",
    "open_dataset": "test_a_judge_scores_open_questions_where_a_run_names_one",
    "n_open": "test_a_judge_scores_open_questions_where_a_run_names_one",
    "dataset": "test_problems_of_one_s_own_file_run_through_the_first_stages",
    "columns": "test_problems_of_one_s_own_file_run_through_the_first_stages",
    "revision": "test_a_revision_on_the_hub_is_the_one_that_runs",
    "remote": "test_a_stage_on_the_way_to_a_host_gives_the_same_tables",
    "pairs": "test_pairs_of_plain_questions_are_run_too",
    "paper_data": "test_every_stage_completes_with_a_second_value_of_every_parameter",
}
MAIN_RUN = declared_runs()[0].id


@pytest.fixture(scope="module")
def pages(small_runs) -> dict[str, nbformat.NotebookNode]:
    """The executed notebooks of the main run, by stage."""
    folder = small_runs / MAIN_RUN / "notebooks"
    return {path.stem: nbformat.read(path, as_version=4) for path in sorted(folder.glob("*.ipynb"))}


def test_every_stage_completes(small_runs, pages):
    assert list(pages) == list(STAGES)
    entries = read_manifest(small_runs / MAIN_RUN)["stages"]
    assert {entry["status"] for entry in entries.values()} == {"completed"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_has_a_second_value(stage):
    for name, parameter in STAGES[stage].parameters.items():
        if name in ELSEWHERE:
            assert name in inspect.getsource(globals()[ELSEWHERE[name]])
        elif name != "run_dir":
            assert SECOND[name] != parameter.default, name
            parameter.convert(SECOND[name])
    assert SECOND.keys() <= {name for stage in STAGES.values() for name in stage.parameters}


def test_what_needs_the_book_stands_on_one_core(request):
    """Else each core makes a book of its own. pytest 9.2 hides the group from pytest-xdist 3.8."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@book")


@own_run
def test_every_stage_completes_with_a_second_value_of_every_parameter(tmp_path, request):
    given = dict(SECOND)
    if os.environ.get("R2A_PAPER_DATA"):
        given["paper_data"] = str(request.getfixturevalue("paper_data"))
    results = run_stages(tmp_path / "second", given=given, progress=False)
    assert [result.stage for result in results if result.ran] == list(STAGES)
    run = Run.open(tmp_path / "second")
    for stage in STAGES:
        assert "no attribute" not in headline(stage, "second", run.records())
    assert run.read_record("collection")["n"] == SECOND["n_problems"]
    assert len(run.read_table("answers")) == 2 * SECOND["samples"] * SECOND["n_problems"]
    assert run.read_record("activation_patching")["protocol"] == SECOND["protocol"]


@own_run
def test_other_right_solutions_go_through_the_cells_that_follow_them(tmp_path):
    """Each stage with its exercises solved a second time, in another right way."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    exercises = load_exercises(STAGES)
    assert RIGHT.keys() <= {exercise.function for exercise in exercises}
    for stage in STAGES.values():
        added = []
        for exercise in (e for e in exercises if e.stage == stage.name and e.function in RIGHT):
            cells = [stage.notebook.cells[i] for i in exercise.cells]
            code = [cell.source for cell in cells if cell.cell_type == "code"]
            check = next(cell.source for cell in cells if has_tag(cell, "check"))
            added += [RIGHT[exercise.function], *code[code.index(check) :]]
        path = tmp_path / "notebooks" / f"{stage.name}.py"
        path.write_text(stage.source + "".join(f"\n\n# %%\n{source.strip()}\n" for source in added))
    given = {**OVERRIDES, "n_problems": 24, "n_traces": 8, "n_pairs": 4}
    folder, notebooks = tmp_path / "run", tmp_path / "notebooks"
    results = run_stages(folder, given=given, notebooks=notebooks, progress=False)
    assert [result.stage for result in results if result.ran] == list(STAGES)


@own_run
def test_a_revision_on_the_hub_is_the_one_that_runs(tmp_path, monkeypatch):
    """Out of the hub's cache, as on a machine without a network."""
    commits = {"old": "1" * 40, "main": "2" * 40}
    hub = tmp_path / "hub" / "models--owner--tiny"
    for branch, commit in commits.items():
        shutil.copytree(BUNDLED, hub / "snapshots" / commit)
        (hub / "refs").mkdir(exist_ok=True)
        (hub / "refs" / branch).write_text(commit)
    (hub / "snapshots" / commits["main"] / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"model_name": "owner/tiny", "revision": "old"}
    run_stages(tmp_path / "run", ["00"], settings=settings, progress=False)
    model = Run.open(tmp_path / "run").read_record("model")
    assert (model["name"], model["revision"]) == ("owner/tiny", "old")
    with pytest.raises(StageFailed):
        settings["revision"] = "main"
        run_stages(tmp_path / "run", ["00"], settings=settings, progress=False)


KEYS = {name: f"known-{name.lower()}-4711" for name in ("NDIF_API_KEY", "HF_TOKEN")}


@pytest.fixture(scope="module")
def there_and_here(tmp_path_factory) -> tuple[Path, Path]:
    """A run whose stage 03 went the way to a host, made with keys in the environment, and one here.

    Given texts, so that nothing is written.
    """
    here, there = (tmp_path_factory.mktemp("hosts") / name for name in ("here", "there"))
    given = {"n_problems": 12, "n_traces": 6, "n_untrained": 0, "source": "written"}
    with pytest.MonkeyPatch.context() as patched:
        for name, key in KEYS.items():
            patched.setenv(name, key)
        run_stages(here, ["01", "03"], given=given, progress=False)
        shutil.copytree(here, there)
        run_stages(there, ["03"], settings={"remote": "local"}, progress=False)
    return there, here


@own_run
def test_a_stage_on_the_way_to_a_host_gives_the_same_tables(there_and_here):
    there, here = map(Run.open, there_and_here)
    assert there.read_record("model")["remote"] == "local"
    assert "remote" not in here.read_record("model")
    masses = (run.read_array("segment_mass_with_reasoning") for run in (there, here))
    xr.testing.assert_allclose(*masses, atol=1e-6)
    for name in ("segment_attention", "sink", "looking"):
        numbers = (flatten(run.read_record(name)) for run in (there, here))
        assert next(numbers) == pytest.approx(next(numbers), abs=1e-5)


@own_run
def test_a_key_stands_in_no_file_of_a_run_and_in_no_archive(there_and_here, tmp_path):
    folder, archive = there_and_here[0], tmp_path / "run.r2a"
    pack(folder, archive, traces=True)
    files = [*(path for path in folder.rglob("*") if path.is_file()), archive]
    assert len(files) > 10
    for path in files:
        for name, data in opened(path.name, path.read_bytes()):
            for key in KEYS.values():
                assert key.encode() not in data, name


def flatten(record, name="") -> dict[str, float]:
    """The numbers of a record, by where they stand."""
    if isinstance(record, dict):
        parts = (flatten(value, f"{name}/{key}") for key, value in record.items())
        return {place: number for part in parts for place, number in part.items()}
    return {name: record} if isinstance(record, int | float) else {}


def opened(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file as it lies there and as it is read: what is packed in it, and the words of arrays."""
    yield name, data
    if name.endswith((".zip", ".r2a")):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for member in file.namelist():
                yield from opened(f"{name}/{member}", file.read(member))
    elif name.endswith(".nc"):
        with netCDF4.Dataset(name, memory=data) as file:
            words = [v[:].tolist() for v in file.variables.values() if v.dtype is str]
            yield name, str([file.__dict__, words]).encode()
    elif name.endswith(".parquet"):
        yield name, pd.read_parquet(io.BytesIO(data)).to_csv().encode()


@own_run
def test_pairs_of_plain_questions_are_run_too(tmp_path):
    settings = {"pairs": "questions", "n_pairs": "4"}
    run_stages(tmp_path / "run", ["05"], settings=settings, progress=False)
    assert Run.open(tmp_path / "run").read_record("activation_patching")["n"] in range(1, 5)


def test_where_no_pair_is_kept_patching_ends_and_the_stages_after_it_go_on(small_runs, tmp_path):
    """The bundled model hardly tells the two sides of a plain question apart."""
    folder = tmp_path / MAIN_RUN
    shutil.copytree(small_runs / MAIN_RUN, folder)
    settings = {"pairs": "questions", "source": "written", "n_pairs": "1"}
    run_stages(folder, ["05", "06", "07"], settings=settings, progress=False)
    entries = read_manifest(folder)["stages"]
    assert {entry["status"] for entry in entries.values()} == {"completed"}
    assert "needs 1 pair, has 0" in entries["05_activation_patching"]["ended"]
    records = Run.open(folder).records()
    assert records["contrast_pairs"]["counts"]["own"]["kept"] == 0
    assert not {"activation_patching", "attribution_patching"} & set(records)
    assert records.keys() >= {"head_interventions", "home_figures"}
    assert (
        Run.open(folder).read_table("findings")["effect before layer 0, “own”"].isna()["this run"]
    )


def test_a_model_with_other_tags_reads_and_writes_the_same(small_runs, tmp_path):
    """The bundled model, but that its vocabulary and template spell the tags as Mistral does."""
    model = tmp_path / "square"
    shutil.copytree(BUNDLED, model, ignore=shutil.ignore_patterns("deltas", "__pycache__"))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (model / file).read_text(encoding="utf-8")
        (model / file).write_text(respelt(text, SQUARE_TAGS), encoding="utf-8")
    tags = {**asdict(R1_TAGS), "open": SQUARE_TAGS.open, "close": SQUARE_TAGS.close}
    given = {**declared_runs()[0].parameters, **OVERRIDES, "model_name": str(model), "tags": tags}
    run_stages(tmp_path / "run", ["01", "02", "02b"], given=given, progress=False)
    found = Run.open(tmp_path / "run").records()
    expected = Run.open(small_runs / MAIN_RUN).records()
    assert found.pop("model")["name"] == "square"
    assert found == {name: expected[name] for name in found}
    assert found.keys() >= {"collection", "early_answering", "text_tests"}


def test_nothing_runs_again_when_nothing_has_changed(small_runs, pages):
    results = run_stages(small_runs / MAIN_RUN, progress=False)
    assert [result.stage for result in results if result.ran] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_shows_results_and_no_warning(pages, stage):
    outputs = [output for cell in pages[stage].cells for output in cell.get("outputs", [])]
    assert outputs
    told = [output.text for output in outputs if output.get("name") == "stderr"]
    assert told == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_shows_the_parameters_it_ran_with(pages, stage):
    cell = pages[stage].cells[STAGES[stage].parameters_cell].source
    assert 'run_dir = "runs/' in cell
    for name in OVERRIDES.keys() & STAGES[stage].parameters.keys():
        assert re.search(rf"(?m)^{name} = {OVERRIDES[name]}\b", cell)


@pytest.mark.parametrize("stage", STAGES)
def test_functions_in_a_notebook_are_short(stage):
    for node in ast.walk(ast.parse(STAGES[stage].code)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 16, f"{node.name} belongs into the package"


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_asks_shows_and_limits(stage):
    prose = "\n".join(c.source for c in STAGES[stage].notebook.cells if c.cell_type == "markdown")
    assert prose.startswith("# ")
    assert "**Question.**" in prose
    assert "**What you will see.**" in prose
    assert re.search(r"(?i)what this does not show", prose)


def test_touching_the_code_of_a_page_makes_it_old_and_what_reads_it(small_runs, tmp_path):
    notebooks = shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    made = small_runs / MAIN_RUN
    assert outdated(made, notebooks=notebooks) == []
    readers = {
        "00": ["00"],
        "01": ["01", "02", "02b", "03", "04", "04b", "04c", "06", "06b", "07"],
        "04b": ["04b"],
        "05": ["05", "06", "07"],
        "07": ["07"],
    }
    for number, old in readers.items():
        (page,) = notebooks.glob(f"{number}_*.py")
        source = page.read_text()
        page.write_text(source + "\n# %%\ntouched = True\n")
        told = outdated(made, notebooks=notebooks)
        assert [name.partition("_")[0] for name in told] == old
        page.write_text(source)


def test_a_judge_scores_open_questions_where_a_run_names_one(small_runs, pages, tmp_path):
    run = shutil.copytree(small_runs / MAIN_RUN, tmp_path / "judged")
    questions = [{"id": f"q{i}", "question": f"Which box is heavy, {i}?"} for i in range(6)]
    file = tmp_path / "open.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in questions))
    asked = []

    def judge(path, body, headers):
        asked.append(body["messages"][0]["content"])
        verdict = {"strengths": "short", "weaknesses": "wrong", "score": 3 + len(asked) % 4}
        rubbish = "heavy, 0?" in asked[-1]
        content = "five" if rubbish else json.dumps(verdict)
        return {"choices": [{"message": {"content": content}}]}

    with serve(judge) as url:
        given = read_parameters(run / "parameters.yml")
        given |= {"judge_url": url, "judge_model": "a-judge"}
        given |= {"open_dataset": str(file), "n_open": 6}
        run_stages(run, ["02_answer_quality"], given=given, progress=False)

    scores = Run.open(run).read_table("judge_scores")
    assert len(scores) == 12
    assert asked
    assert set(scores.loc[scores.problem_id == "q0", "verdict"]) <= {"rubbish", "unanswered"}
    scored = scores[scores.verdict == "scored"]
    assert scored.score.between(3, 6).all()
    assert scored.judge.str.startswith("judge a-judge (temperature 0.0").all()
    assert Run.open(run).read_record("open_answers")["n"] > 0
    page = nbformat.read(run / "notebooks" / "02_answer_quality.ipynb", as_version=4)
    shown = str([cell.outputs for cell in page.cells if cell.cell_type == "code"])
    assert "judge a-judge" in shown
    assert "This run names no judge" not in shown


@own_run
def test_problems_of_one_s_own_file_run_through_the_first_stages(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [{"text": p.question, "label": p.answer} for p in load_problems("tiny", n=12, seed=5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"dataset": str(file), "columns": "question=text,answer=label", "n_problems": "12"}
    results = run_stages(
        tmp_path / "run", ["00", "01", "02", "03"], settings=settings, progress=False
    )
    assert len(results) == 4
    answers = Run.open(tmp_path / "run").read_table("answers")
    assert len(answers) == 24
    assert set(answers.steps) == {"all"}
