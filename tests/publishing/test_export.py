"""What a paper needs of a run: its figures as vectors, numbered as in the book, and its tables."""

import zipfile

import nbformat
import pandas as pd
import pytest

from r2a_utils import cli
from r2a_utils.publishing.export import export
from r2a_utils.runs import running
from r2a_utils.runs.archive import pack, unpack
from r2a_utils.runs.folder import RunFolderError
from r2a_utils.runs.running import run_stages

SOURCE = """\
# ---
# jupyter:
#   r2a:
#     writes: [tables/kept]
# ---
# %% tags=["parameters"]
run_dir = "runs/default"

# %%
import pandas as pd
from r2a_utils.figures import funnel
from r2a_utils.runs import Run
def steps(count):
    return pd.DataFrame(
        {"condition": "with_reasoning", "step": ["asked", "kept"], "count": [500, count]}
    )
Run.open(run_dir).write_table("kept", steps(373))

# %%
funnel(steps(373))

# %% [markdown]
# **Figure.** What is kept.

# %%
funnel(steps(100))

# %%
from IPython.display import HTML
HTML(funnel(steps(7))._repr_html_() + funnel(steps(8))._repr_html_())

# %% [markdown]
# **Figure.** Two beside each other.
"""
NAMES = ["figure-1.1", "figure-1.2a", "figure-1.2b", "01_first-1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of one stage with four figures and a table."""
    place = tmp_path_factory.mktemp("made")
    (place / "notebooks").mkdir()
    (place / "notebooks/01_first.py").write_text(SOURCE)
    run_stages(place / "runs/trial", notebooks=place / "notebooks", progress=False)
    return place / "runs/trial"


def test_figures_have_the_books_numbers_and_are_vectors(made, tmp_path):
    exported = export(made, tmp_path / "paper", ["pdf", "svg", "csv"])
    names = {f"{name}.{kind}" for name in NAMES for kind in ("pdf", "svg")} | {"kept.csv"}
    assert {path.name for path in exported.files} == names
    assert exported.without_figures == ()
    pdf, svg = ((tmp_path / f"paper/figure-1.1.{kind}").read_bytes() for kind in ("pdf", "svg"))
    assert pdf.startswith(b"%PDF") and b"/Subtype /Image" not in pdf
    assert b"<path" in svg and b"<image" not in svg
    others = [(tmp_path / f"paper/{name}.svg").read_bytes() for name in NAMES[1:]]
    assert len({svg, *others}) == 4


def test_a_table_is_as_the_run_has_it(made, tmp_path):
    exported = export(made, tmp_path, ["csv"])
    assert [path.name for path in exported.files] == ["kept.csv"]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "kept.csv"), pd.read_parquet(made / "tables/kept.parquet")
    )


def test_pages_and_archives_are_not_larger_for_it(made, tmp_path):
    page = nbformat.read(made / "notebooks/01_first.ipynb", as_version=4)
    kinds = {kind for cell in page.cells for o in cell.get("outputs", []) for kind in o.data}
    assert kinds == {"text/plain", "text/html"}
    pack(made, tmp_path / "trial.r2a")
    assert not [n for n in zipfile.ZipFile(tmp_path / "trial.r2a").namelist() if "figures" in n]


def test_of_a_run_from_an_archive_there_are_the_tables(made, tmp_path, monkeypatch, capsys):
    pack(made, tmp_path / "trial.r2a")
    unpack(tmp_path / "trial.r2a", tmp_path / "runs/theirs")
    monkeypatch.setattr(running, "RUNS", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "theirs"]) == 1
    told = capsys.readouterr()
    assert told.out == "exports/theirs: 1 files\n"
    assert "01_first" in told.err and "--run-id" in told.err
    assert cli.main(["export", "theirs", "--format", "csv", "--to", "paper"]) == 0
    assert [path.name for path in (tmp_path / "paper").iterdir()] == ["kept.csv"]


def test_what_is_no_run_or_no_format_is_refused(tmp_path, capsys):
    with pytest.raises(RunFolderError, match="no stage"):
        export(tmp_path, tmp_path / "paper")
    with pytest.raises(SystemExit):
        cli.main(["export", "default", "--format", "png"])
    assert "pdf, svg, csv" in capsys.readouterr().err
