"""Problems come from where they should, and a faulty row is named."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from r2a_utils.collecting.loading import column_names, load_problems
from r2a_utils.texts.problem import Problem, problems_from_table, problems_table

ROWS = [
    {"id": "a", "question": "1+1?", "answer": "2", "kind": "easy"},
    {"id": "b", "question": "2+2?", "answer": "4", "kind": "hard"},
    {"id": "c", "question": "3+3?", "answer": "6", "kind": "hard"},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


def wildbench_row(session: str, tag: str, question: str = "Write a poem.") -> dict:
    return {
        "id": f"row of {session}",
        "session_id": session,
        "conversation_input": [
            {"content": question, "role": "user", "language": "English"},
            {"content": "Which one?", "role": "assistant", "language": "English"},
            {"content": "Any.", "role": "user", "language": "English"},
        ],
        "references": {"gpt-4": "…"},
        "length": 3,
        "checklist": ["Is it a poem?", "Does it rhyme?"],
        "intent": "…",
        "primary_tag": tag,
        "secondary_tags": ["Editing"],
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_same_rows_give_the_same_problems_in_every_format(tmp_path, suffix):
    problems = load_problems(write(tmp_path / f"rows{suffix}", ROWS))
    assert problems[0] == Problem("a", "1+1?", "2", {"kind": "easy"})
    assert [p.id for p in problems] == ["a", "b", "c"]


def test_a_mapping_says_which_columns_hold_what(tmp_path):
    rows = [
        {"key": 7, "text": "Say it.", "gold": 3, "tags": ["x"]},
        {"key": 8, "text": "And this."},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    columns = {"id": "key", "question": "text", "answer": "gold"}
    first, second = load_problems(path, columns=columns)
    assert first == Problem("7", "Say it.", "3", {"tags": '["x"]'})
    assert second.answer is None


def test_a_row_without_an_id_is_named_by_its_question(tmp_path):
    """So that a row put in front does not give the others new names, and old answers."""
    rows = [{"question": "A?"}, {"question": "B?"}, {"question": "A?"}]
    before = load_problems(write(tmp_path / "rows.csv", rows))
    after = load_problems(write(tmp_path / "rows.csv", [{"question": "C?"}, *rows]))
    assert after[1:] == before
    assert len({p.id for p in after}) == 4 and all(p.answer is None for p in after)


def test_n_draws_by_the_seed_and_keeps_the_order(tmp_path):
    rows = [{"id": f"{i:03}", "question": f"What is {i}?"} for i in range(100)]
    path = write(tmp_path / "rows.csv", rows)
    drawn = [p.id for p in load_problems(path, n=20, seed=1)]
    assert drawn == sorted(drawn) and len(set(drawn)) == 20
    assert drawn == [p.id for p in load_problems(path, n=20, seed=1)]
    assert drawn != [p.id for p in load_problems(path, n=20, seed=2)]


def test_tiny_problems_are_held_out_ones_with_family_and_steps():
    problems = load_problems("tiny", n=40, seed=3)
    assert len({p.id for p in problems}) == 40
    assert {p.meta["family"] for p in problems} == {"arithmetic", "comparison"}
    assert all(p.answer and isinstance(p.meta["steps"], int) for p in problems)
    assert problems == load_problems("tiny", n=40, seed=3)
    assert problems != load_problems("tiny", n=40, seed=4)


def test_the_told_problems_are_comparisons_that_say_their_answer():
    problems = load_problems("told", n=12, seed=3)
    assert len({problem.id for problem in problems}) == 12
    for problem in problems:
        assert f"Note: the {problem.answer} is the" in problem.question


def test_wildbench_takes_the_first_turn_and_the_area_and_leaves_mathematics_out(tmp_path):
    tags = ["Role playing", "Math", "Planning", "Coding & Debugging", "Advice seeking"]
    rows = [wildbench_row(f"s{i}", tag) for i, tag in enumerate(tags)]
    problems = load_problems(write(tmp_path / "rows.jsonl", rows))
    assert [p.id for p in problems] == ["s0", "s2", "s3", "s4"]
    assert [p.meta["area"] for p in problems] == [
        "Creative Tasks", "Reasoning & Planning", "Coding & Analysis", "Information Seeking",
    ]  # fmt: skip
    assert problems[0].question == "Write a poem."
    assert problems[0].answer is None
    assert problems[0].meta["checklist"] == ["Is it a poem?", "Does it rhyme?"]
    assert problems[0].meta["turns"] == 2


def test_wildbench_reads_the_same_from_parquet(tmp_path):
    rows = [wildbench_row("s0", "Editing"), wildbench_row("s1", "Reasoning", "Why?")]
    from_lines = load_problems(write(tmp_path / "rows.jsonl", rows))
    assert load_problems(write(tmp_path / "rows.parquet", rows)) == from_lines


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([ROWS[0], ROWS[1] | {"question": " "}], None, "row 2: no question"),
        ([ROWS[0], {"id": "b", "answer": "4"}], None, "row 2: no question"),
        ([*ROWS, ROWS[1]], None, "row 4: the id 'b'"),
        ([ROWS[0], ROWS[1] | {"id": None}], None, "row 2: no id"),
        ([], None, "no rows"),
        ([{"prompt": "A?"}], None, "say which hold what"),
        (ROWS, {"question": "questions"}, "no column 'questions': did you mean 'question'?"),
        (ROWS, {"id": "id"}, "the keys are question"),
        (ROWS, {"question": "question", "gold": "answer"}, "the keys are question"),
        ([wildbench_row("s", "Cooking")], None, "row 1: the paper has no area .* 'Cooking'"),
        ([wildbench_row("s", "Editing", "")], None, "row 1: no question"),
        ([wildbench_row("s", "Math")], None, "every row has a tag that the paper leaves out"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, rows, columns, message):
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        load_problems(path, columns=columns)


def test_a_faulty_file_is_named(tmp_path):
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"id": "a", "question": "A?"}\n{"id": "b", "ques')
    with pytest.raises(ValueError, match=r"torn\.jsonl, line 2 is no JSON"):
        load_problems(torn)
    torn.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 is no JSON object"):
        load_problems(torn)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="no rows"):
        load_problems(tmp_path / "empty.csv")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv is not there"):
        load_problems(tmp_path / "gone.csv")


def test_an_unknown_name_brings_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'math500'"):
        load_problems("math-500")
    with pytest.raises(
        ValueError, match=re.escape("known are tiny, told, grade_school, math500, wildbench")
    ):
        load_problems("gsm8k")


def test_more_problems_than_there_are_is_an_error(tmp_path):
    path = write(tmp_path / "rows.csv", ROWS)
    with pytest.raises(ValueError, match="has 3 problems, not 4"):
        load_problems(path, n=4)
    with pytest.raises(ValueError, match="at least one"):
        load_problems(path, n=0)


def test_named_sets_come_from_the_hub(monkeypatch):
    import datasets

    asked = []

    def load_dataset(**arguments):
        asked.append(arguments)
        return datasets.Dataset.from_list(
            [{"unique_id": "test/1", "problem": "1+1?", "answer": "2", "solution": "…",
              "subject": "Algebra", "level": 2}]
        )  # fmt: skip

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_problems("math500") == [
        Problem("test/1", "1+1?", "2", {"subject": "Algebra", "level": 2})
    ]
    assert asked == [{"path": "HuggingFaceH4/MATH-500", "split": "test"}]


def test_without_the_hub_the_error_says_what_else_to_do(monkeypatch):
    import datasets

    def load_dataset(**arguments):
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ConnectionError, match=r"allenai/WildBench.*path of a local copy"):
        load_problems("wildbench")


def test_math500_itself(paper_data):
    problems = load_problems(paper_data / "math500.jsonl")
    assert len(problems) == 500
    assert all(p.answer and p.question for p in problems)
    assert {p.meta["level"] for p in problems} == {1, 2, 3, 4, 5}
    assert len({p.meta["subject"] for p in problems}) == 7


def test_problems_survive_a_table(tmp_path):
    problems = [
        Problem("a", "1+1?", "2", {"steps": 1, "operations": [["add", 1]], "note": None}),
        Problem("b", "Write a poem.", None, {"checklist": ["Does it rhyme?"]}),
    ]
    problems_table(problems).to_parquet(tmp_path / "problems.parquet")
    assert problems_from_table(pd.read_parquet(tmp_path / "problems.parquet")) == problems


def test_names_of_columns_come_from_texts():
    assert column_names(["question=text", "answer=a=b"]) == {"question": "text", "answer": "a=b"}
    assert column_names(None) is None
    with pytest.raises(ValueError, match="such as question=text, not 'text'"):
        column_names(["text"])


QUESTION, ANSWER = "What is 1+1?", "2"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": QUESTION},
]
TURNS = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "It is 2."}]
# A row as each tool exports it, and the id that it is known by.
EXPORTS = {
    "lm-eval": (
        {"doc_id": 3, "doc": {"problem": QUESTION}, "target": ANSWER, "resps": [["2"]]}, "3", ANSWER
    ),
    "lm-eval, another task": ({"doc_id": 3, "doc": {"question": QUESTION}, "target": 2}, "3", "2"),
    "lighteval": (
        {"doc": {"id": "7", "query": QUESTION, "choices": [ANSWER]}, "metric": {"em": 1.0}}, "7",
        ANSWER,
    ),
    "inspect": ({"id": 1, "input": CHAT, "target": [ANSWER], "epoch": 1}, "1", ANSWER),
    "vLLM": (
        {"custom_id": "r1", "method": "POST", "body": {"messages": CHAT, "model": "m"}}, "r1", None
    ),
    "verl": (
        {"prompt": CHAT, "reward_model": {"style": "rule", "ground_truth": ANSWER}}, None, ANSWER
    ),
    "OpenThoughts": ({"system": "Think.", "conversations": TURNS}, None, None),
    "OpenThoughts, metadata": (
        {"problem": QUESTION, "ground_truth_solution": ANSWER, "domain": "math"}, None, ANSWER
    ),
    "a chat": ({"messages": CHAT}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("tool", EXPORTS)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_what_other_tools_export_is_read_by_name(tmp_path, tool, ending):
    row, name, answer = EXPORTS[tool]
    [problem] = load_problems(write(tmp_path / f"rows{ending}", [row]))
    assert (problem.question, problem.answer) == (QUESTION, answer)
    assert problem.id == (name or problem.id)


def test_a_turn_in_parts_is_read_where_all_are_text(tmp_path):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1+1?"}]
    rows = [{"messages": [{"role": "user", "content": parts}]}]
    [problem] = load_problems(write(tmp_path / "rows.jsonl", rows))
    assert problem.question == QUESTION


def test_an_inspect_log_holds_its_samples(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"version": 2, "samples": [EXPORTS["inspect"][0]], "stats": {}}))
    assert [p.question for p in load_problems(path)] == [QUESTION]


@pytest.mark.parametrize(
    ("cell", "described"),
    [
        (["A?", "B?"], "a list of 2"),
        ({"text": "A?"}, "an object with text"),
        ([{"role": "assistant", "content": "A."}], "a list of 1"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a list of 1"),
    ],
)
def test_a_cell_that_could_mean_several_things_is_refused(tmp_path, cell, described):
    path = write(tmp_path / "rows.jsonl", [ROWS[0], ROWS[1] | {"question": cell}])
    with pytest.raises(ValueError, match=f"row 2: the column 'question' holds {described}"):
        load_problems(path)


def test_a_dotted_path_leads_into_a_cell(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"task": {"text": "A?", "gold": [5]}, "kind": 1}])
    columns = {"question": "task.text", "answer": "task.gold"}
    [problem] = load_problems(path, columns=columns)
    assert (problem.question, problem.answer, problem.meta) == ("A?", "5", {"kind": 1})


def test_the_layout_is_that_of_all_rows(tmp_path):
    """The first row has no answer: the others' are read all the same."""
    rows = [{"id": "a", "question": "A?"}, {"id": "b", "question": "B?", "answer": "4"}]
    assert [p.answer for p in load_problems(write(tmp_path / "rows.jsonl", rows))] == [None, "4"]


def test_columns_nobody_asked_about_never_stop_a_run(tmp_path):
    """Each becomes a number, a truth value or a text, of one kind, that every table can hold."""
    odd = {
        "mixed": [1, "one"],
        "huge": [2**70, 1],
        "infinite": [1e999, 1.0],
        "nested": [[[1], {"a": 2}], None],
        "half": ["\ud83d", "whole"],
        "number": [1, 2.5],
        "true": [True, None],
    }
    rows = [
        {"id": str(i), "question": "A?", **{c: cells[i] for c, cells in odd.items()}}
        for i in range(2)
    ]
    problems = load_problems(write(tmp_path / "rows.jsonl", rows))
    metas = pd.DataFrame([p.meta for p in problems])
    metas.to_parquet(tmp_path / "metas.parquet")
    problems_table(problems).to_parquet(tmp_path / "problems.parquet")
    assert list(metas["mixed"]) == ["1", "one"] and list(metas["huge"]) == [str(2**70), "1"]
    assert problems[0].meta["nested"] == '[[1], {"a": 2}]' and problems[1].meta["nested"] is None
    assert problems[0].meta["half"] == "\ufffd" and problems[0].meta["true"] is True
    assert list(metas["number"]) == [1, 2.5]


def test_dates_decimals_and_bytes_of_parquet_become_text(tmp_path):
    frame = pd.DataFrame({"question": ["A?", "B?"], "answer": [1, None]}, index=["x", "y"])
    frame["answer"] = frame["answer"].astype("Int64")
    frame["day"] = [pd.Timestamp("2026-01-02"), pd.NaT]
    frame["price"] = [Decimal("1.50"), Decimal("2.00")]
    frame["raw"] = [b"\xff", b"a"]
    frame.to_parquet(tmp_path / "rows.parquet")
    first, second = load_problems(tmp_path / "rows.parquet")
    assert (first.answer, second.answer) == ("1", None)
    assert set(first.meta) == {"day", "price", "raw"}
    assert first.meta["price"] == "1.50" and second.meta["day"] is None
    problems_table([first, second])


def test_an_id_that_is_the_index_is_the_id(tmp_path):
    pd.DataFrame(ROWS).set_index("id").to_parquet(tmp_path / "rows.parquet")
    assert [p.id for p in load_problems(tmp_path / "rows.parquet")] == ["a", "b", "c"]


def test_half_a_character_in_a_question_is_refused(tmp_path):
    path = write(tmp_path / "rows.jsonl", [ROWS[0], ROWS[1] | {"question": "A\ud83d?"}])
    with pytest.raises(ValueError, match="row 2: the column 'question' holds half a character"):
        load_problems(path)
