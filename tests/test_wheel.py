"""A wheel carries the notebooks and the book: stages run and pages are made from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from r2a_utils.publishing.book_runs import declared_runs
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.stage import ROOT, load_stages, source_hash

MAIN = "import sys; from r2a_utils.cli import main; sys.exit(main(sys.argv[1:]))"
PARTS = ("r2a_utils", "notebooks", "book")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The wheel, built without a network from a copy of the checkout."""
    checkout = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, checkout / part, ignore=ignored, copy_function=os.link)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, checkout)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(checkout / "dist"), "."]
    subprocess.run(command, cwd=checkout, check=True)
    (wheel,) = (checkout / "dist").glob("r2a-*.whl")
    return wheel


@pytest.fixture(scope="module")
def elsewhere(built, tmp_path_factory):
    """`elsewhere("r2a arguments", code=MAIN)`: what the unpacked wheel prints in a folder of its
    own; the folder is `elsewhere.folder`, the wheel `elsewhere.wheel`.
    """
    wheel, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(built).extractall(wheel)

    def call(arguments: str = "", code: str = MAIN) -> str:
        told = subprocess.run(
            [sys.executable, "-c", code, *arguments.split()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    call.folder, call.wheel = folder, wheel
    return call


def test_it_holds_all_that_a_checkout_holds(built):
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
    for part in PARTS:
        place = "" if part == "r2a_utils" else "r2a_utils/carried/"
        files = [path for path in (ROOT / part).rglob("*") if path.is_file()]
        files = {f"{place}{path.relative_to(ROOT)}" for path in files if path.suffix != ".pyc"}
        assert files <= names, sorted(files - names)[:5]
    carried = {name for name in names if name.startswith("r2a_utils/carried/")}
    assert "r2a_utils/carried/_config.yml" in carried
    top = {name.split("/")[0] for name in names}
    assert top == {"r2a_utils", next(name for name in top if name.endswith(".dist-info"))}


@pytest.fixture(scope="module")
def ran(elsewhere):
    """The run folder of one stage, run with the unpacked wheel."""
    told = elsewhere("run --stages 00 --set max_new_tokens=300")
    assert "00_anatomy_of_a_trace" in told
    return elsewhere.folder / "runs/default"


def test_a_stage_runs_in_the_current_folder(elsewhere, ran):
    entry = read_manifest(ran)["stages"]["00_anatomy_of_a_trace"]
    assert entry["status"] == "completed" and entry["commit"] is None
    # the same code has the same hash: a run that was made in a checkout stands
    code = load_stages()["00_anatomy_of_a_trace"].code
    assert entry["inputs"]["source"] == source_hash(code)
    page = (ran / "notebooks/00_anatomy_of_a_trace.ipynb").read_text()
    assert str(elsewhere.folder) not in page and str(elsewhere.wheel) not in page
    assert "runs" in {path.name for path in elsewhere.folder.iterdir()}


def test_a_parameter_file_of_the_book_is_found(elsewhere):
    """And its parameters are checked, before a model is looked for."""
    file = "--params book/params/smollm2-135m.yml"
    with pytest.raises(AssertionError, match="n_problem"):
        elsewhere(f"run --run-id other {file} --stages 01 --set n_problem=1")


def test_the_books_pages_its_data_and_the_lab_are_made_in_the_current_folder(elsewhere, ran):
    code = """
from r2a_utils.collecting.grade_school import read_file
from r2a_utils.publishing import book
from r2a_utils.teaching import refresh
refresh()
book.assemble(book.BOOK, book.declared_runs(), book.BUILD / "source")
print(len(read_file()), book.CONFIG)
"""
    problems, config = elsewhere(code=code).split()
    assert problems == "241" and config == str(elsewhere.wheel / "r2a_utils/carried/_config.yml")
    copies = {path.stem for path in (elsewhere.folder / "lab").glob("*.ipynb")}
    assert copies == set(load_stages())
    source = elsewhere.folder / "_build/source"
    shown = {run.id for run in declared_runs() if run.archive}
    assert {"stages", *shown} <= {path.name for path in source.iterdir()}
    assert (source / "stages/00_anatomy_of_a_trace.ipynb").exists()


def test_the_models_are_listed(elsewhere):
    assert "r2a-tiny" in elsewhere("models")
