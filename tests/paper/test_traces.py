"""The authors' traces as problems, and as completions that another model reads."""

from __future__ import annotations

import pytest

from r2a_utils.collecting.backends import backend_of
from r2a_utils.collecting.generation import Sampling, collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.paper import artefacts
from r2a_utils.paper.traces import TRACED, paper_writer
from r2a_utils.texts.trace import CONDITIONS, encode

BEGIN_OF_SENTENCE = "<｜begin▁of▁sentence｜>"


@pytest.fixture
def data(paper_data, monkeypatch):
    monkeypatch.setenv(artefacts.DATA_VARIABLE, str(paper_data))


@pytest.mark.parametrize("name", TRACED)
def test_the_problems_of_a_distill_s_traces_are_problems_of_math500(data, paper_data, name):
    problems = load_problems(name)
    known = {problem.id: problem for problem in load_problems(paper_data / "math500.jsonl")}
    assert len(problems) == 100
    assert problems == [known[problem.id] for problem in problems]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_prompt_and_completion_are_the_stored_text(data, tiny, paper_data, condition):
    problems = load_problems("R1-Qwen-7B", n=10)
    backend = backend_of("written", tiny, paper_writer("R1-Qwen-7B"))
    options = {"prompt_style": "raw", "sampling": Sampling(100_000), "backend": backend}
    completions = collect_completions(tiny, problems, condition, **options)
    traces = artefacts.load_traces(paper_data).query("model_alias == 'qwen-7B'")
    stored = traces.set_index(["problem_id", "condition"])["response"]
    for completion in completions:
        trace = completion.to_trace(tiny.tokenizer)
        response = stored[completion.problem_id, condition]
        body = response.removeprefix("<｜begin▁of▁sentence｜>").removesuffix(
            "<｜end▁of▁sentence｜>"
        )
        assert "".join(trace.tokens[1:]) == body


def test_a_text_beyond_the_limit_is_cut_and_is_not_finished(data, tiny):
    problems = load_problems("R1-Qwen-1.5B", n=3)
    write = paper_writer("R1-Qwen-1.5B")
    lengths = [len(encode(tiny.tokenizer, write(p, "without_reasoning"))) for p in problems]
    limit = sorted(lengths)[1]  # the end token does not fit behind a text of as many tokens
    completions = collect_completions(
        tiny,
        problems,
        "without_reasoning",
        sampling=Sampling(limit),
        backend=backend_of("written", tiny, write),
    )
    assert [c.finished for c in completions] == [length < limit for length in lengths]
    assert all(
        len(c.completion_ids) == min(n, limit) for c, n in zip(completions, lengths, strict=True)
    )
    with pytest.raises(ValueError, match=f"was cut at {limit} tokens"):
        next(c for c in completions if not c.finished).to_trace(tiny.tokenizer)


def test_a_problem_without_a_trace_is_no_text(data):
    [problem] = load_problems("tiny", n=1)
    with pytest.raises(KeyError):
        paper_writer("R1-Qwen-1.5B")(problem, "with_reasoning")
