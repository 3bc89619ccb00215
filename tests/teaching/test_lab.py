"""JupyterLab works on copies; no copy ever changes the source it came from."""

import nbformat
import pytest

from r2a_utils.runs.folder import Run
from r2a_utils.teaching.lab import refresh

SOURCE = '# %% [markdown]\n# # One\n\n# %% tags=["parameters"]\nrun_dir = "runs/default"\n'


@pytest.fixture
def place(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_one.py").write_text(SOURCE)
    return tmp_path


def update(place):
    return refresh(place / "lab", place / "notebooks", place / "runs")


def read(place, name="01_one"):
    return nbformat.read(place / "lab" / f"{name}.ipynb", as_version=4)


def test_a_copy_is_a_notebook_that_is_paired_with_nothing(place):
    assert update(place) == []
    copy = read(place)
    assert [cell.cell_type for cell in copy.cells] == ["markdown", "code"]
    assert copy.cells[1].metadata["tags"] == ["parameters"]
    assert "jupytext" not in copy.metadata


def test_copies_work_in_a_run_of_their_own_that_begins_as_the_main_run(place):
    main = Run.open(place / "runs" / "default")
    main.write_record("count", {"n": 3})
    (main.folder / "manifest.json").write_text("{}")
    update(place)
    assert read(place).cells[1].source == 'run_dir = "runs/lab"'
    own = Run.open(place / "lab" / "runs" / "lab")
    assert own.read_record("count") == {"n": 3}
    assert not (own.folder / "manifest.json").exists()

    own.write_record("count", {"n": 4})
    update(place)
    assert own.read_record("count") == {"n": 4}
    assert main.read_record("count") == {"n": 3}


def test_a_first_copy_that_was_killed_is_begun_anew(place):
    """What a kill leaves stands under another name and is taken for no run."""
    Run.open(place / "runs" / "default").write_record("count", {"n": 3})
    (place / "runs" / "lab.part" / "records").mkdir(parents=True)
    (place / "runs" / "lab.part" / "records" / "other.json").write_text("{")
    update(place)
    assert Run.open(place / "runs" / "lab").records() == {"count": {"n": 3}}
    assert not (place / "runs" / "lab.part").exists()


def test_a_copy_with_results_is_kept_while_its_source_stands(place):
    update(place)
    copy = read(place)
    copy.cells[1].outputs = [nbformat.v4.new_output("stream", text="42")]
    nbformat.write(copy, place / "lab" / "01_one.ipynb")
    assert update(place) == []
    assert read(place).cells[1].outputs[0].text == "42"


def test_new_source_replaces_an_unchanged_copy(place):
    update(place)
    (place / "notebooks" / "01_one.py").write_text(SOURCE.replace("# One", "# Two"))
    assert update(place) == []
    assert read(place).cells[0].source == "# Two"


def test_an_edited_copy_is_set_aside_and_the_source_stays(place):
    update(place)
    copy = read(place)
    copy.cells[1].source = "run_dir = 'mine'"
    nbformat.write(copy, place / "lab" / "01_one.ipynb")
    assert update(place) == []  # the source has not changed: nothing to do

    source = SOURCE.replace("# One", "# Two")
    (place / "notebooks" / "01_one.py").write_text(source)
    assert [path.name for path in update(place)] == ["01_one.mine-1.ipynb"]
    assert read(place, "01_one.mine-1").cells[1].source == "run_dir = 'mine'"
    assert read(place).cells[0].source == "# Two"
    assert (place / "notebooks" / "01_one.py").read_text() == source


def test_a_copy_has_the_numbers_of_the_main_run_and_plain_markdown(place):
    source = SOURCE.replace(
        "# # One\n",
        "# There are {{ count.n }} of {term}`trace`.\n\n# %% [markdown]\n# Not {{ yet.known }}.\n",
    )
    (place / "notebooks" / "01_one.py").write_text(source)
    Run.open(place / "runs" / "default").write_record("count", {"n": 3})
    update(place)
    texts = [cell.source for cell in read(place).cells if cell.cell_type == "markdown"]
    assert texts == ["There are 3 of trace.", "Not {{ yet.known }}."]
