"""A model with tags of its own is asked, graded, cut and forced with them in every room."""

from __future__ import annotations

from dataclasses import replace

from r2a_utils.answers import answer_texts, early_answers
from r2a_utils.causal import shortened
from r2a_utils.collecting import Sampling, collect_completions, teacher_forced
from r2a_utils.texts import Problem, Tags, answer_stem

SQUARE = Tags("[THINK]", "[/THINK]", after_open="", before_close="", after_close="")
PROBLEM = Problem("a", "What is 2 + 2?", "4")


def write(problem, condition):
    return "So 4. Yes.\n</think>\n\nThe answer is \\boxed{4}."


def test_written_texts_stand_between_the_models_own_tags(make_random_model, tokenizer):
    model = replace(make_random_model("llama"), tags=SQUARE)
    [completion] = collect_completions(
        model, [PROBLEM], sampling=Sampling(400), backend=teacher_forced(model, write)
    )
    trace = completion.to_trace(tokenizer, tags=SQUARE)
    assert trace.segment_text("think") == "[THINK]"
    assert (trace.segment_text("end_think"), trace.reasoning_text) == ("[/THINK]", "So 4. Yes.\n")
    assert answer_texts([completion], SQUARE)["well_formed"].tolist() == [True]
    assert answer_texts([completion])["well_formed"].tolist() == [False]
    assert answer_stem(SQUARE) == "The answer is \\boxed{"
    assert shortened(trace, tokenizer, SQUARE).text.endswith("[/THINK]The answer is \\boxed{4}")


def test_a_thought_is_cut_and_closed_by_the_models_own_tag(
    make_random_model, tokenizer, monkeypatch
):
    model = replace(make_random_model("llama"), tags=SQUARE)
    [completion] = collect_completions(
        model, [PROBLEM], sampling=Sampling(400), backend=teacher_forced(model, write)
    )
    asked = []

    def decode(model, prompts, sampling, batch_size):
        asked.extend(tokenizer.decode(prompt.ids) for prompt in prompts)
        return ((index, [], False) for index in range(len(prompts)))

    monkeypatch.setattr("r2a_utils.answers.early_answering.decode", decode)
    early_answers(model, [completion.to_trace(tokenizer, tags=SQUARE)], [PROBLEM], [0.5])
    assert all(text.endswith("[/THINK]The answer is \\boxed{") for text in asked)
    assert len(asked) == 2 and not any("</think>" in text for text in asked)
