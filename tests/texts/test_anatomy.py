"""What the first page shows of a trace is counted from the trace itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from r2a_utils.texts import (
    SEGMENTS,
    Completion,
    Problem,
    Trace,
    anatomy_of,
    encode,
    problems_of_steps,
    render_prompt,
    segment_table,
    sentence_table,
    telling_trace,
)


@pytest.fixture(scope="module")
def completion(tokenizer):
    """`completion("p", "So 4.</think>4")`: what a model wrote with reasoning."""

    def make(name: str, written: str) -> Completion:
        prompt, ids = render_prompt(tokenizer, "2+2?"), encode(tokenizer, written)
        return Completion(
            name, "with_reasoning", 0, "", "", tuple(prompt), tuple(ids), written, True
        )

    return make


def test_tables_and_numbers_cover_the_trace(tokenizer):
    trace = Trace.from_text("2+2?<think>\nSo 5. Wait, 4.\n</think>\n\n4", tokenizer, problem_id="p")
    table, rows = segment_table(trace), sentence_table(trace)
    assert list(table.index) == list(SEGMENTS) and table["tokens"].sum() == len(trace)
    assert table["text"]["reasoning"] == "⏎So 5. Wait, 4.⏎"
    assert list(rows["sentence"]) == ["So 5.", "Wait, 4."]
    assert list(rows["cue"]) == ["", "wait"]
    numbers = anatomy_of(trace)
    assert (numbers.sentences, numbers.cues, numbers.tokens) == (2, 1, len(trace))
    assert numbers.reasoning_tokens == table["tokens"]["reasoning"]


def test_the_example_turns_on_itself_where_one_does(completion, tokenizer):
    plain, torn = completion("a", "So 4.</think>4"), completion("b", "So")
    turning = completion("c", "So 5. Wait, 4.</think>4")
    assert telling_trace([torn, plain, turning], tokenizer).problem_id == "c"
    assert telling_trace([torn, plain], tokenizer).problem_id == "a"
    with pytest.raises(ValueError, match="no trace is whole: trace 'b' has no </think>"):
        telling_trace([torn, replace(plain, finished=False)], tokenizer)


def test_problems_that_do_not_count_their_steps_stay():
    steps = [3, 4, "many", None]
    problems = [Problem(str(n), "?", None, {"steps": n}) for n in steps]
    assert [p.id for p in problems_of_steps(problems)] == ["4", "many", "None"]
