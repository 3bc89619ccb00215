"""What a stage's result depends on, read from its source."""

import re

import pytest

from r2a_utils import paper
from r2a_utils.runs import stage
from r2a_utils.runs.parameters import ParameterError
from r2a_utils.runs.stage import Stage, load_stage, load_stages, needed_stages, select, source_hash


def write_stage(folder, name: str, code: str, parameters: str = "", header: str = "") -> Stage:
    path = folder / f"{name}.py"
    declared = "".join(f"#     {line}\n" for line in header.split("\n") if line)
    path.write_text(
        (f"# ---\n# jupyter:\n#   r2a:\n{declared}# ---\n\n" if declared else "")
        + f'# %% [markdown]\n# # {name}\n\n# %% tags=["parameters"]\n'
        f'run_dir = "runs/default"\n{parameters}\n\n# %%\n{code}\n'
    )
    return load_stage(path)


def test_stages_are_loaded_in_order_and_selected_by_name_number_or_noun(tmp_path):
    for name in ("02_second", "01_first", "10_tenth"):
        write_stage(tmp_path, name, "pass")
    (tmp_path / "notes.py").write_text("not a stage")
    loaded = load_stages(tmp_path)
    assert list(loaded) == ["01_first", "02_second", "10_tenth"]
    assert select(loaded, None) == ["01_first", "02_second", "10_tenth"]
    assert select(loaded, ["tenth", "01"]) == ["01_first", "10_tenth"]
    assert select(loaded, ["10", "1"]) == ["01_first", "10_tenth"]
    with pytest.raises(ParameterError, match="did you mean 02_second"):
        select(loaded, ["02_secnd"])


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path):
    path = tmp_path / "01_first.py"
    path.write_text("# %%\nrun_dir = 1\n")
    with pytest.raises(ParameterError, match="one cell tagged `parameters`"):
        load_stage(path)


def test_a_notebook_without_a_run_folder_is_refused(tmp_path):
    path = tmp_path / "01_first.py"
    path.write_text('# %% tags=["parameters"]\nn = 1\n')
    with pytest.raises(ParameterError, match="must declare run_dir"):
        load_stage(path)


def test_a_stage_needs_those_that_write_what_it_reads(tmp_path):
    earlier = [
        write_stage(tmp_path, "01_a", "pass", header="writes: [tables/quality]"),
        write_stage(tmp_path, "02_b", "pass", header="writes: [arrays/mass, traces/with]"),
        write_stage(tmp_path, "03_c", "pass"),
    ]

    def needed(header: str) -> list[str]:
        return needed_stages(write_stage(tmp_path, "04_d", "pass", header=header), earlier)

    assert needed("reads: [tables/quality]") == ["01_a"]
    assert needed("reads: [traces/with, tables/quality]") == ["01_a", "02_b"]
    assert needed("reads: [records/quality]") == []
    assert needed("writes: [tables/quality]") == []


@pytest.mark.parametrize(
    ("header", "message"),
    [("raeds: [tables/x]", r"declares \['raeds'\]"), ("reads: [x]", "'x' in its header is no")],
)
def test_a_header_that_declares_something_else_is_refused(tmp_path, header, message):
    with pytest.raises(ValueError, match=message):
        write_stage(tmp_path, "01_a", "pass", header=header)


def test_the_stages_of_the_book_depend_on_each_other_so():
    stages = load_stages()
    graph = {
        name: [other.partition("_")[0] for other in needed_stages(stage, list(stages.values())[:i])]
        for i, (name, stage) in enumerate(stages.items())
    }
    assert graph == {
        "00_anatomy_of_a_trace": [],
        "01_collect_traces": [],
        "02_answer_quality": ["01"],
        "02b_edited_thoughts": ["01"],
        "03_segment_attention": ["01"],
        "04_reasoning_focus_heads": ["01", "03"],
        "04b_what_the_heads_do": ["01", "04"],
        "04c_failed_traces": ["01", "04"],
        "05_activation_patching": [],
        "06_head_interventions": ["01", "03", "04", "05"],
        "06b_which_instruments": ["01"],
        "07_synthesis": ["02", "03", "04", "05", "06"],
    }
    written = [artifact for each in stages.values() for artifact in each.header.writes]
    assert len(set(written)) == len(written)  # each artifact has one maker
    read = {artifact for each in stages.values() for artifact in each.header.reads}
    assert read <= set(written)  # and what is read has a maker


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of r2a_utils: two rooms with faces, and a package's face above."""
    folder = tmp_path / "r2a_utils"
    for path, text in {
        "__init__.py": face(models=["load_model"]),
        "figures/__init__.py": face(dots=["dots"], style=["COLOURS"]),
        "figures/dots.py": "from .style import COLOURS",
        "figures/style.py": "COLOURS = {}",
        "answers/__init__.py": "",
        "answers/graded.py": "WORKER = Path(__file__).with_name('worker.py')",
        "answers/worker.py": "import sys",
        "models/__init__.py": face(loading=["load_model"]),
        "models/loading.py": "from r2a_utils.tiny import world",
        "tiny/__init__.py": "",
        "tiny/world.py": "from ..figures.style import COLOURS",
        "tiny/model.safetensors": "weights",
        "../book/data/problems.jsonl": "{}",
        "../book/data/questions.csv": "question",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    monkeypatch.setattr(stage, "PACKAGE", folder)
    monkeypatch.setattr(stage, "source_folder", lambda: tmp_path)
    return folder


def face(**modules: list[str]) -> str:
    return f"import lazy_loader\nlazy_loader.attach(__name__, submod_attrs={modules!r})"


@pytest.mark.parametrize(
    ("code", "changed", "matters"),
    [
        ("from r2a_utils.figures import dots", "figures/dots.py", True),
        ("from r2a_utils.figures import dots", "figures/style.py", True),
        ("from r2a_utils.figures import COLOURS", "figures/dots.py", False),
        ("from r2a_utils import figures\nfigures.dots()", "figures/dots.py", True),
        ("from r2a_utils import figures\nfigures.COLOURS", "figures/dots.py", False),
        ("from r2a_utils.figures import dots", "models/loading.py", False),
        ("%matplotlib inline\nfrom r2a_utils.models.loading import load", "tiny/world.py", True),
        ("def late():\n    import r2a_utils.models.loading as m", "figures/style.py", True),
        ("from r2a_utils.figures import dots", "answers/worker.py", False),
        ("from r2a_utils import load_model", "models/loading.py", True),
        ("from r2a_utils import load_model", "figures/dots.py", False),
        ("from r2a_utils.answers.graded import grade", "answers/worker.py", True),
        ("import numpy", "figures/style.py", False),
        ("import numpy", "tiny/model.safetensors", True),
        ("import numpy", "../book/data/problems.jsonl", True),
        ("import numpy", "../book/data/questions.csv", True),
    ],
)
def test_the_source_hash_follows_the_modules_that_a_stage_imports(package, code, changed, matters):
    before = source_hash(code)
    assert source_hash(code) == before
    (package / changed).write_text("from .style import OTHER  # changed")
    assert (source_hash(code) != before) is matters


def test_every_file_of_data_counts():
    """Pictures, and texts about the project, decide no number."""
    places = (stage.ROOT / "r2a_utils", stage.ROOT / "book/data")
    files = [path for place in places for path in place.rglob("*.*") if "__" not in str(path)]
    kinds = {path.suffix for path in files} - {".py", ".md", ".png", ".ipynb"}
    assert kinds == stage._DATA


def test_a_stage_that_reads_the_papers_folder_declares_it():
    assert stage.FROM_ENVIRONMENT["paper_data"] == paper.DATA_VARIABLE
    reading = re.compile(r"paper\.(load_\w+|patching_cases)\(")
    readers = [s for s in load_stages().values() if reading.search(s.code)]
    assert readers
    assert all("paper_data" in stage.parameters for stage in readers)


@pytest.mark.parametrize("value", [None, 3, "", "tiny", "a" * 5000, "\0", "~nobody-here/x.jsonl"])
def test_what_names_no_file_has_no_hash(value, monkeypatch):
    monkeypatch.delenv("R2A_PAPER_DATA", raising=False)
    assert stage.data_hashes({"dataset": value, "paper_data": None}) == {}


def test_a_folder_is_its_names_and_contents(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.csv").write_text("1")
    first = stage.data_hashes({"dataset": str(tmp_path / "a")})
    (tmp_path / "a").rename(tmp_path / "b")
    assert stage.data_hashes({"dataset": str(tmp_path / "b")}) == first
    (tmp_path / "b/x.csv").rename(tmp_path / "b/y.csv")
    assert stage.data_hashes({"dataset": str(tmp_path / "b")}) != first
