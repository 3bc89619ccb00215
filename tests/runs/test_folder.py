"""What a stage writes is what the next one reads, and nothing half-written is ever read."""

import multiprocessing
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from r2a_utils.runs import folder
from r2a_utils.runs.folder import Run, RunFolderError, json_lines, kept_lines, write_aside
from r2a_utils.runs.header import Header, makers


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.open(tmp_path / "runs" / "trial")


def test_a_run_is_made_when_it_is_opened_and_can_be_opened_again(run):
    assert run.folder.is_dir()
    assert Run.open(run.folder) == run


def test_an_array_comes_back_with_its_labels_type_and_attributes(run):
    array = xr.DataArray(
        np.random.default_rng(0).random((2, 3), dtype=np.float32),
        dims=("trace", "layer"),
        coords={"trace": ["p1", "p2"], "finished": ("trace", [True, False])},
        name="segment_mass",
        attrs={"condition": "with_reasoning"},
    )
    run.write_array("mass", array)
    xr.testing.assert_identical(run.read_array("mass"), array)
    assert run.read_array("mass").dtype == np.float32


def test_a_missing_value_and_an_unnamed_array_survive(run):
    array = xr.DataArray([1.0, np.nan], dims="x")
    run.write_array("grid", array)
    xr.testing.assert_identical(run.read_array("grid"), array)


def test_a_data_set_of_one_array_stays_a_data_set(run):
    data = xr.Dataset({"only": ("x", [1, 2])}, attrs={"k": 10})
    run.write_array("data", data)
    xr.testing.assert_identical(run.read_array("data"), data)


def test_a_table_comes_back_with_its_types(run):
    table = pd.DataFrame({"problem": ["a", "b"], "right": [True, False], "steps": [1, 8]})
    run.write_table("answers", table)
    pd.testing.assert_frame_equal(run.read_table("answers"), table)


def test_a_record_holds_plain_numbers(run):
    run.write_record(
        "quality", {"n": np.int64(3), "share": np.float32(0.5), "ci": np.array([0, 1]), "p": None}
    )
    assert run.read_record("quality") == {"n": 3, "share": 0.5, "ci": [0, 1], "p": None}
    assert run.records() == {"quality": run.read_record("quality")}


def test_a_number_that_prose_cannot_quote_is_refused(run):
    with pytest.raises(ValueError, match="record 'quality' holds a number that is not finite"):
        run.write_record("quality", {"p": float("nan")})
    assert run.records() == {}


def test_completions_have_one_file_a_condition(run):
    path = run.completions_path("with_reasoning")
    assert path == run.folder / "traces" / "with_reasoning.jsonl"
    assert path.parent.is_dir()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x"])
def test_a_name_cannot_leave_the_run(run, name):
    with pytest.raises(ValueError, match="cannot name an artifact"):
        run.write_record(name, {})


def test_what_is_missing_is_asked_of_the_stage_that_makes_it(run, tmp_path, monkeypatch):
    notebook = tmp_path / "02_answer_quality.py"
    notebook.write_text("# ---\n# jupyter:\n#   r2a:\n#     writes: [tables/answers]\n# ---\n")
    monkeypatch.setattr(folder, "NOTEBOOKS", tmp_path)
    with pytest.raises(FileNotFoundError, match="r2a run --stages 02_answer_quality"):
        run.read_table("answers")
    assert makers("tables/answers", tmp_path) == ["02_answer_quality"]
    assert makers("arrays/answers", tmp_path) == []


def test_a_misspelt_artifact_is_answered_with_the_nearest(run):
    run.write_table("answers", pd.DataFrame({"a": [1]}))
    with pytest.raises(FileNotFoundError, match="no stage makes it; the run has answers"):
        run.read_table("anwsers")


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail(part):
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_aside(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_of_a_run_is_recorded(run, make_random_model):
    model = make_random_model("qwen2")
    run.record_model(model)
    record = run.read_record("model")
    assert record["weights_sha256"] == model.weights_sha256
    assert record["device"] == "cpu"
    assert record["dtype"] == "float32"
    assert record["layers"] == model.n_layers


def test_a_figure_is_kept_as_a_picture(run):
    from matplotlib.figure import Figure

    run.write_figure("profile", Figure())
    assert (run.folder / "figures" / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_a_stage_is_held_to_what_its_header_declares(tmp_path):
    header = Header("09_x", reads=("tables/answers",), writes=("records/found",))
    Run.open(tmp_path).write_table("answers", pd.DataFrame({"a": [1]}))
    with header.in_force():
        run = Run.open(tmp_path)
    assert run.header == header and Run.open(tmp_path).header is None
    assert run.read_table("answers")["a"].tolist() == [1]
    run.write_record("found", {"n": 1})
    assert run.read_record("found") == {"n": 1}  # what it wrote itself it may read
    for use in (
        lambda: run.write_table("answers", pd.DataFrame()),
        lambda: run.read_record("answers"),
        lambda: run.write_record("else", {}),
        lambda: run.completions_path("with_reasoning"),
    ):
        with pytest.raises(ValueError, match=r"stage 09_x uses .* add it to `"):
            use()


def test_a_dataclass_is_a_record(tmp_path):
    @dataclass(frozen=True)
    class Found:
        n: int
        share: np.float64

    run = Run.open(tmp_path)
    run.write_record("found", Found(3, np.float64(0.5)))
    assert run.read_record("found") == {"n": 3, "share": 0.5}


def test_two_writers_of_one_path_do_not_share_a_file(tmp_path):
    def other(part):
        part.write_text("first")
        with multiprocessing.Pool(1) as pool:
            pool.apply(write_text, (path, "second"))
        assert part.read_text() == "first"

    path = tmp_path / "x.txt"
    write_aside(path, other)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def write_text(path, text):
    write_aside(path, lambda part: part.write_text(text))


def test_json_lines_pass_over_empty_lines_and_keep_line_separators_inside_texts():
    """U+2028 ends a line for `str.splitlines`, but not in JSON Lines."""
    assert json_lines('{"a": "x\u2028y"}\n\n {"b": 2}', "f") == [{"a": "x\u2028y"}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1}\n{"b"', "rows.jsonl, line 2 is no JSON"), ("[1]\n", "line 1 is no JSON object")],
)
def test_a_damaged_line_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        json_lines(text, "rows.jsonl")


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}', encoding="utf-8")
    assert kept_lines(path) == [{"a": 1}]
    path.write_text('{"a"\n{"b": 2}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 is no JSON"):
        kept_lines(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"PAR1"])
def test_a_damaged_file_is_named_with_what_to_do(run, content):
    for place in ("tables/answers.parquet", "arrays/mass.nc", "records/found.json"):
        path = run.folder / place
        path.parent.mkdir()
        path.write_bytes(content)
    reads = {
        "answers.parquet": lambda: run.read_table("answers"),
        "mass.nc": lambda: run.read_array("mass"),
        "found.json": run.records,
    }
    for name, read in reads.items():
        with pytest.raises(RunFolderError, match=rf"{name} is damaged \(.*\): delete .*\.ipynb"):
            read()
