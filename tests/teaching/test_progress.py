"""Passed exercises are remembered beside the copies, over notebooks and sessions."""

import json
import os

import pytest

from r2a_utils.runs.header import Header
from r2a_utils.runs.stage import NOTEBOOKS, load_stage
from r2a_utils.teaching.checks import CheckFailed, progress
from r2a_utils.teaching.checks import attention as workshop
from r2a_utils.teaching.notebook_copies import copy_of, write_copy

STAGE = load_stage(NOTEBOOKS / "03_segment_attention.py")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    write_copy(copy_of(STAGE, "runs/lab", {}), tmp_path / f"{STAGE.name}.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mass_of_head(weights, source, target):
    return weights[source, target].sum(axis=1).mean()


def wrong(weights, source, target):
    return weights[source, target].sum()


def test_a_passed_check_stands_in_the_table_and_a_failed_one_does_not(lab):
    assert list(progress()["passed"]) == ["not yet"] * 3
    with pytest.raises(CheckFailed):
        workshop.check_mass_of_head(wrong)
    assert list(progress()["passed"]) == ["not yet"] * 3
    workshop.check_mass_of_head(mass_of_head)
    table = workshop.progress()
    assert list(table.index) == ["3.1", "3.2", "3.3"]
    assert table.loc["3.1", "title"] == "The mass of one head"
    assert table.loc["3.1", "passed"].startswith("20")
    assert list(table["passed"][1:]) == ["not yet", "not yet"]
    assert [path.name for path in lab.iterdir() if path.suffix != ".ipynb"] == ["progress.json"]


def test_the_first_time_is_kept_and_other_passes_stay(lab):
    (lab / "progress.json").write_text('{"0.1": "2026-01-01 10:00", "3.1": "2026-01-02 10:00"}')
    workshop.check_mass_of_head(mass_of_head)
    kept = json.loads((lab / "progress.json").read_text())
    assert kept == {"0.1": "2026-01-01 10:00", "3.1": "2026-01-02 10:00"}


def test_a_file_that_is_no_longer_ours_begins_anew(lab):
    (lab / "progress.json").write_text("{")
    assert list(progress()["passed"]) == ["not yet"] * 3
    workshop.check_mass_of_head(mass_of_head)
    assert list(json.loads((lab / "progress.json").read_text())) == ["3.1"]


def test_nothing_is_written_for_the_book_or_where_no_copies_lie(lab):
    with Header(STAGE.name).in_force():
        workshop.check_mass_of_head(mass_of_head)
    os.remove(lab / f"{STAGE.name}.ipynb")
    workshop.check_mass_of_head(mass_of_head)
    assert list(lab.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="r2a lab"):
        progress()
