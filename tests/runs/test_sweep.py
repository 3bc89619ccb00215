"""What a sweep will take is said before it starts."""

from __future__ import annotations

import pytest

from r2a_utils.cli import main
from r2a_utils.models.memory import PROMPT_TOKENS, ROOM, memory_needed
from r2a_utils.publishing.book_runs import PublishError, declared_runs
from r2a_utils.runs import running
from r2a_utils.runs.manifest import write_entry
from r2a_utils.runs.sweep import Progress, Request, plan, planned

R1 = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "RUNS", tmp_path)
    return tmp_path


def test_the_plan_counts_memory_and_the_gpus_that_hold_it(runs):
    given = {"model_name": R1, "batch_size": 8, "max_new_tokens": 1000}
    one = plan(Request("r1", ["01"], given))
    expected = memory_needed(R1, "bfloat16", 8, PROMPT_TOKENS + 1000) * ROOM
    assert one.memory == pytest.approx(expected, abs=1)
    assert (one.gpus, one.hours, one.stages) == (1, None, ["01_collect_traces"])
    assert plan(Request("r1", ["01"], given), gpu_memory=one.memory / 2.5).gpus == 3
    assert plan(Request("r1", ["01"], given | {"device": "cpu"})).gpus == 0
    assert plan(Request("tiny", ["01"], {})).gpus == 0


def test_hours_are_those_that_the_stages_took_before(runs):
    request = Request("tiny", ["00", "01"], {})
    for stage, seconds in (("00_anatomy_of_a_trace", 1800), ("01_collect_traces", 5400)):
        (runs / "tiny").mkdir(exist_ok=True)
        write_entry(runs / "tiny", stage, {"status": "completed", "seconds": seconds})
    assert plan(request).hours == 2.0
    assert "2.00 hours as measured" in planned([plan(request)])


def test_a_matrix_is_a_run_for_each_combination(tmp_path):
    file = tmp_path / "sweep.yml"
    file.write_text(
        "runs:\n- id: s\n  title: Seeds\n  parameters: {n_problems: 8}\n"
        "  matrix: {seed: [0, 1], model_name: [r2a-tiny, org/Other-7B]}\n"
    )
    found = declared_runs(file=file)
    assert [run.id for run in found] == [
        "s-0-r2a-tiny",
        "s-0-other-7b",
        "s-1-r2a-tiny",
        "s-1-other-7b",
    ]
    assert found[1].parameters == {"n_problems": 8, "seed": 0, "model_name": "org/Other-7B"}
    assert found[1].title == "Seeds: seed = 0, model_name = org/Other-7B"


@pytest.mark.parametrize("matrix", ["3", "{}", "{seed: 1}", "{seed: []}", "{seed: [1, 1]}"])
def test_a_matrix_that_is_none_is_refused(tmp_path, matrix):
    file = tmp_path / "sweep.yml"
    file.write_text(f"runs:\n- id: s\n  title: Seeds\n  matrix: {matrix}\n")
    with pytest.raises(PublishError, match=r"run 1: (its matrix must hold|the id 's-1' stands)"):
        declared_runs(file=file)


def test_a_dry_run_prints_the_plan_and_runs_nothing(runs, tmp_path, capsys):
    file = tmp_path / "sweep.yml"
    file.write_text(
        "runs:\n- id: s\n  title: S\n  stages: ['00', '01']\n  matrix: {seed: [3, 4]}\n"
    )
    assert main(["run", "--sweep", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "s-3 " in printed and "s-4 " in printed and "2 runs, 4 stages" in printed
    assert not (runs / "s-3").exists()


def test_one_table_in_a_terminal_and_lines_elsewhere(runs, capsys):
    one = plan(Request("tiny", ["00"], {}))
    with Progress([one]) as progress:
        progress.say("tiny", 1, "done", "this machine")
        progress.say("tiny", 1, "done", "this machine")
    assert capsys.readouterr().err == "tiny: 1 of 1 stages, done on this machine\n"
    table = progress._table()
    assert [list(column.cells) for column in table.columns][:3] == [["tiny"], ["1/1"], ["done"]]
