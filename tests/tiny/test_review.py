"""The review of a trace finds the errors that were put in, and none in what the world writes."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest

from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode
from r2a_utils.tiny import world
from r2a_utils.tiny.review import (
    corrections,
    first_error,
    leads_to,
    restatements,
    review,
    reviewable,
)


@pytest.fixture(scope="module")
def written(tokenizer):
    """300 held-out problems with the world's own text, as traces."""
    problems = world.held_out_problems(300, seed=5)

    def trace(problem, text=None):
        text = text or world.write_text(problem, "with_reasoning")
        ids = render_prompt(tokenizer, problem.question) + encode(tokenizer, text)
        return Trace.from_ids(ids, tokenizer, problem_id=problem.id, meta=problem.meta)

    return [(problem, trace(problem)) for problem in problems], trace


def test_what_the_world_writes_has_no_error_that_stays(written):
    traces, _ = written
    for _, trace in traces:
        assert first_error(trace) is None, trace.reasoning_text
    slips = [s for _, trace in traces for s in review(trace) if not s.right]
    assert len(slips) > 50  # they are there, and each is corrected


def test_a_reasoning_that_breaks_off_leads_to_the_answer(written):
    traces, _ = written
    tried = 0
    for problem, _ in traces:
        text = world.write_text(problem, "with_reasoning")
        if problem.meta["family"] == "comparison":
            assert leads_to(problem.meta, text) is None
            continue
        for step in re.finditer(r"so \d\.\n(?=Step)|, not \d\.\n(?=Step)", text):
            assert leads_to(problem.meta, text[: step.end()]) == problem.answer
            tried += 1
    assert tried > 300


def test_a_wrong_digit_is_carried_through_the_steps_that_are_left():
    operations = [("add", 4), ("multiply", 3), ("subtract", 9)]
    meta = {"family": "arithmetic", "steps": 3, "start": 8, "operations": operations}
    begun = "Okay, I start with 8.\nStep 1: add 4. "
    assert leads_to(meta, begun) is None
    assert leads_to(meta, f"{begun}8+4=13, so 3.\n") == "0"  # 9, then 9-9
    assert leads_to(meta, f"{begun}8+4=12, so 2.\nStep 2: times 3. 2*3=7, so 7.") == "8"  # 17-9


def test_a_changed_step_is_the_first_error(written):
    traces, make = written
    rng, tried = random.Random(0), 0
    for problem, trace in traces:
        if problem.meta["family"] != "arithmetic" or corrections(trace):
            continue
        text = world.write_text(problem, "with_reasoning")
        equations = list(re.finditer(r"=(\d+), so (\d)\.\n(?!Wait|That|So|Let)", text))
        if not equations:
            continue
        chosen = rng.choice(equations)
        wrong = (int(chosen[2]) + 1) % 10
        broken = make(problem, text[: chosen.start(2)] + str(wrong) + text[chosen.end(2) :])
        error = first_error(broken)
        assert error is not None
        assert f"so {wrong}." in "".join(broken.tokens[error])
        tried += 1
    assert tried > 50


def test_a_changed_order_is_the_first_error(written):
    traces, make = written
    for problem, trace in traces:
        if problem.meta["family"] != "comparison" or any(not s.right for s in review(trace)):
            continue
        text = world.write_text(problem, "with_reasoning")
        first = re.search(r"So (\w+), (\w+)\.", text)
        broken = make(
            problem, text[: first.start()] + f"So {first[2]}, {first[1]}." + text[first.end() :]
        )
        assert f"So {first[2]}, {first[1]}." in "".join(broken.tokens[first_error(broken)])


def test_corrections_point_at_the_wrong_and_the_right_digit(written):
    found = 0
    for problem, trace in written[0]:
        for step, wrong, right in corrections(trace):
            value = world.running_values(problem.meta)[step]
            assert trace.tokens[right] == str(value) != trace.tokens[wrong]
            assert wrong < right
            found += 1
    assert found > 20


def test_a_restated_correction_is_written_by_the_token_before_its_digit(written):
    traces, _ = written
    found = [r for _, trace in traces for r in restatements(trace)]
    assert len(found) > 20
    for r in found:
        tokens, answer = r.trace.tokens, r.trace.segments["answer"]
        assert tokens[r.query + 1].strip() == tokens[r.corrected].strip()
        assert "".join(tokens[r.query - 2 : r.query + 1]).endswith(" gives ")
        assert r.wrong < r.corrected < answer.start <= r.query
        assert tokens[r.wrong].strip() != tokens[r.corrected].strip()
        assert r.denied > r.corrected
        assert tokens[r.denied].strip() == tokens[r.wrong].strip()


def test_only_the_worlds_own_problems_can_be_reviewed(written):
    traces, _ = written
    trace = traces[0][1]
    assert reviewable(trace)
    assert not reviewable(dataclasses.replace(trace, meta={"subject": "Algebra"}))
