"""The comparison page: a row a model, a column a finding, a reason where a number is missing."""

import re

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from r2a_utils.attention.head_tests import depth_test
from r2a_utils.figures.comparison import dots_by_model
from r2a_utils.models.registry import shape_of
from r2a_utils.paper import published
from r2a_utils.publishing.book import BookRun
from r2a_utils.publishing.comparison_page import PAPER_CROSSING, compare
from r2a_utils.publishing.findings import FINDINGS, PARTS, middle_third
from r2a_utils.publishing.quoted_numbers import ProseError

RECORDS = {
    "model": {"name": "r2a-tiny", "layers": 6},
    "answer_quality": {
        "n": 400,
        "with_reasoning": 0.985,
        "without_reasoning": 0.2825,
        "difference": -0.0225,
        "ci_low": -0.0525,
        "ci_high": 0.0075,
    },
    "text_tests": {
        "outcomes": {"swapped": {"follows": 0.96, "follows_low": 0.85, "follows_high": 0.99}}
    },
    "segment_attention": {"answer": {"reasoning": 0.4882}, "lift_reasoning": 0.84},
    "reasoning_focus_heads": {
        "top": "L3.H1",
        "top_mass": 0.68,
        "in_middle": 6,
        "k": 10,
        "expected_in_middle": 10 / 3,
    },
    "activation_patching": {
        "protocol": "own",
        "flipping_first": 1.0037,
        "early_probe": None,
        "early_boxed_probe": 0.0018,
        "boxed_probe_nats": 1.2,
        "blind_nats": 6.6,
        "flip_rate": 1.0,
        "flips_of_asked": 0.98,
        "crossing": None,
    },
    "mediation": {"index": 0.98, "low": 0.9, "high": 1.0, "verdict": "thought"},
    "head_interventions": {
        "strongest_layer": 3,
        "smallest_p": 0.157,
        "verdict": "no difference found",
    },
}
MAIN = BookRun("default", "Ours", {})


def summary(records: dict, source: str = "model") -> dict:
    parameters = {"source": source, "dataset": "tiny"}
    stages = {"01_collect_traces": {"inputs": {"parameters": parameters}}}
    return {
        "id": "default",
        "title": "Ours",
        "pages": "stages",
        "records": records,
        "stages": stages,
        "ended": {},
        "archive": None,
    }


def cells_of(model: str, comparison) -> dict[str, str]:
    row = next(row for row in comparison.rows if row.model == model)
    return {key: cell.text or f"({cell.missing})" for key, cell in row.cells.items()}


def test_a_run_says_what_its_records_hold():
    assert cells_of("r2a-tiny", compare([MAIN], {"default": summary(RECORDS)})) == {
        "problems": "400",
        "with_reasoning": "98 %",
        "without_reasoning": "28 %",
        "difference": "−2.2 (−5 to +1)",
        "swapped": "96 % (85 % to 99 %)",
        "mass": "48.8 %",
        "lift": "0.84",
        "strongest": "L3.H1, 68 %",
        "depth": "0.60",
        "middle": "6 of 10 (3.3)",
        "early_probe": "(no pair is kept under this probe)",
        "early_boxed_probe": "0.00",
        "effect": "1.00 (own)",
        "flips": "98 %",
        "mediation": "0.98 (0.90 to 1.00)",
        "crossing": "(the two curves do not cross)",
        "knockout": "3 of 6",
        "random": "do not differ (p = 0.16)",
    }


def test_what_a_run_lacks_is_a_dash_with_the_reason():
    few = {"model": RECORDS["model"]}
    written = cells_of("r2a-tiny", compare([MAIN], {"default": summary(few, "written")}))
    assert written["with_reasoning"] == "(teacher-forced: the model reads given texts)"
    assert written["mass"] == "(not run: `r2a run --run-id default --stages 03`)"
    own = cells_of("r2a-tiny", compare([MAIN], {"default": summary(few)}))
    assert own["with_reasoning"] == "(not run: `r2a run --run-id default --stages 02`)"
    assert own["random"] == "(not run: `r2a run --run-id default --stages 06`)"


def test_an_archive_need_not_hold_what_was_not_measured_when_it_was_made():
    older = {**RECORDS, "segment_attention": {"answer": {"reasoning": 0.4882}}}
    del older["head_interventions"]
    archived = {**summary(older), "archive": {"hours": 1.0}}
    cells = cells_of("r2a-tiny", compare([MAIN], {"default": archived}))
    assert cells["mass"] == "48.8 %"
    assert cells["lift"] == "(its archive was made before this was measured)"
    assert cells["random"] == "(not in its archive)"
    with pytest.raises(ProseError, match="'segment_attention' has no 'lift_reasoning'"):
        compare([MAIN], {"default": summary(older)})


def test_a_run_that_has_not_been_made_says_the_command_that_makes_it():
    run = BookRun("mine", "Mine", {"model_name": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"})
    comparison = compare([MAIN, run], {"default": summary(RECORDS)})
    cells = cells_of("R1-Distill-Qwen-1.5B", comparison)
    assert set(cells.values()) == {"(not made yet: `r2a run --run-id mine`)"}
    table = comparison.table("answers").splitlines()
    assert table[3] == "| R1-Distill-Qwen-1.5B | mine" + 5 * " | – [a]" + " |"
    notes = ["[a] not made yet: `r2a run --run-id mine`.\\", "[b] not in the paper."]
    assert table[-2:] == notes


def test_a_row_says_what_its_weights_were_packed_in_and_no_path():
    packed = {"name": "q4.gguf", "packed": "4.8-bit weights (Q4_K_M), expanded", "layers": 6}
    missing = BookRun("other", "Other", {"model_name": "/home/ann/models/q8.gguf"})
    named = BookRun(
        "third", "Third", {"model_name": "/home/x.gguf", "display_name": "Ours, packed"}
    )
    comparison = compare([MAIN, missing, named], {"default": summary(RECORDS | {"model": packed})})
    rows = comparison.table("answers").splitlines()[2:5]
    assert "4.8-bit weights (Q4_K_M), expanded" in rows[0] and "q4.gguf" in rows[0]
    assert "| q8.gguf |" in rows[1] and "| Ours, packed |" in rows[2]
    assert "/home" not in comparison.table("answers")


def test_two_runs_of_one_model_are_told_apart():
    runs = [BookRun(run, run, {"model_name": "r2a-tiny"}) for run in ("default", "mine")]
    comparison = compare(runs, {"default": summary(RECORDS), "mine": summary(RECORDS)})
    assert set(comparison.values("lift")) == {"r2a-tiny (default)", "r2a-tiny (mine)"}


def test_a_record_that_a_finding_does_not_know_is_refused():
    changed = RECORDS | {"segment_attention": {"answer": {"reasoning": 0.5}}}
    with pytest.raises(ProseError, match="'segment_attention' has no 'lift_reasoning'"):
        compare([MAIN], {"default": summary(changed)})


def test_the_papers_rows_are_what_it_prints():
    comparison = compare([MAIN], {"default": summary(RECORDS)})
    qwen = cells_of("R1-Qwen-7B", comparison)
    assert (qwen["problems"], qwen["with_reasoning"], qwen["without_reasoning"]) == (
        "457",
        "94 %",
        "84 %",
    )
    assert qwen["difference"] == "+10.3"
    assert (qwen["mass"], qwen["early_probe"]) == ("29.4 %", "0.42")
    assert qwen["early_boxed_probe"] == "0.47" and qwen["effect"].startswith("(the paper prints")
    assert qwen["flips"] == "(not in the paper)"
    assert "R2A_PAPER_DATA" in qwen["lift"]
    assert cells_of("R1-Full", comparison)["with_reasoning"] == "96 %"
    assert "| R1-Full |" in comparison.table("answers")
    assert "| R1-Full |" not in comparison.table("attention")


def test_lifts_made_from_the_authors_masses_stand_in_their_rows():
    records = RECORDS | {"segment_attention_of_distills": {"lift_reasoning": {"R1-Qwen-7B": 0.5}}}
    comparison = compare([MAIN], {"default": summary(records)})
    assert cells_of("R1-Qwen-7B", comparison)["lift"] == "0.50"
    assert comparison.values("lift") == {"r2a-tiny": 0.84, "R1-Qwen-7B": 0.5}


def test_the_papers_crossings_are_those_of_its_sentence():
    sentence = published()["stage3_patching"]["finding"]
    told = re.search(r"layer (\d+ of \d+) in Llama-8B, (\S+ of \d+) in the Qwen models", sentence)
    llama, qwens = (text.replace("-", "–") for text in told.groups())
    assert {"R1-Llama-8B": llama, "R1-Qwen-7B": qwens, "R1-Qwen-1.5B": qwens} == PAPER_CROSSING


@pytest.mark.parametrize("model", published()["models"])
def test_the_middle_third_is_that_of_the_depth_test(model):
    listed = published()["stage2_reasoning_focus_heads_top10"][model]
    heads = [(layer, head) for layer, head in listed]
    shape = shape_of(published()["models"][model])
    n_layers = shape["num_hidden_layers"]
    found = depth_test(heads, n_layers, shape["num_attention_heads"], 1, draws=1)
    told = f"{found.in_middle} of 10 ({found.expected_in_middle:.1f})"
    assert middle_third(heads, n_layers).text == told


@pytest.mark.parametrize("part", PARTS)
def test_a_table_has_a_row_a_model_and_a_column_a_finding(part):
    comparison = compare([MAIN], {"default": summary(RECORDS)})
    lines = [line for line in comparison.table(part).splitlines() if line.startswith("|")]
    columns = 2 + sum(finding.part == part for finding in FINDINGS)
    assert {line.count("|") for line in lines} == {columns + 1}
    assert len(lines) == 2 + len(comparison.rows) - (part != "answers")  # R1-Full has stage 1
    letters = set(re.findall(r"– \[(\w+)\]", "".join(lines)))
    told = set(re.findall(r"(?m)^\[(\w+)\] ", comparison.table(part)))
    assert letters == told


def test_the_figure_draws_every_number_own_runs_filled_and_published_hollow():
    columns = {"with_reasoning": [0.9, 0.8], "without_reasoning": [0.5, np.nan]}
    frame = pd.DataFrame(
        {
            **columns,
            "mass": [0.3, 0.2],
            "early_probe": [1.2, np.nan],
            "early_boxed_probe": [0.1, 0.4],
            "own": [True, False],
        },
        index=["ours", "theirs"],
    )
    frame.loc["nobody"] = [np.nan] * 5 + [True]
    figure = dots_by_model(frame)
    answers, attention, patching = figure.axes
    assert [label.get_text() for label in answers.get_yticklabels()] == ["theirs", "ours"]
    (dots,) = attention.collections
    assert dots.get_offsets().tolist() == [[0.2, 0], [0.3, 1]]
    hollow, filled = dots.get_facecolors()
    assert matplotlib.colors.to_hex(hollow) == "#ffffff"
    assert matplotlib.colors.to_hex(filled) != "#ffffff"
    assert patching.get_xlim()[1] > 1.2
    places = [dots.get_offsets().tolist() for dots in patching.collections]
    assert places[1] == [[0.4, 0], [0.1, 1]]
    assert "effect 1.20 (“Final answer is A.”), effect 0.10 (with a box)" in figure.alt_text
    assert "ours: 90% right with reasoning, 50% without, 30% of attention" in figure.alt_text
    assert "theirs (published): 80% right with reasoning, 20% of" in figure.alt_text
