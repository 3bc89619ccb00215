"""The bundled world is what it says, and the bundled model does what its card says."""

from __future__ import annotations

import json
import random
import re

import pandas as pd
import pytest

from r2a_utils.answers.graded import grade_completions
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.models.registry import BUNDLED
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import CONDITIONS, Trace, encode
from r2a_utils.tiny import world


def draw(n: int, held_out: bool, seed: int = 0) -> list[world.Problem]:
    problems = world.draw_problems(random.Random(seed), held_out)
    return [next(problems) for _ in range(n)]


def solve(problem: world.Problem) -> str:
    """An answer worked out from the question's words alone."""
    if problem.meta["family"] == "arithmetic":
        value = int(re.search(r"\d", problem.question)[0])
        for step in re.findall(r"Step \d: (.*?)\.", problem.question):
            operand = int(step.split()[-1])
            if step.startswith(("add", "plus")):
                value += operand
            elif step.startswith(("subtract", "minus")):
                value -= operand
            else:
                value *= operand
        return str(value % 10)
    ends = {
        word: end for high, low in world.ATTRIBUTES for end, word in enumerate((high[0], low[0]))
    }
    asked = {
        word: end for high, low in world.ATTRIBUTES for end, word in enumerate((high[1], low[1]))
    }
    above = set()
    for first, word, second in re.findall(r"the (\w+) is (\w+) than the (\w+)", problem.question):
        above.add((first, second) if ends[word] == 0 else (second, first))
    objects = {name for pair in above for name in pair}
    end = next(asked[word] for word in re.findall(r"\w+", problem.question) if word in asked)
    beaten = {pair[1 - end] for pair in above}
    (extreme,) = objects - beaten
    return extreme


def test_the_known_answer_follows_from_the_question():
    for problem in draw(400, held_out=True) + draw(400, held_out=False):
        assert solve(problem) == problem.answer


def test_every_wording_of_a_held_out_problem_is_held_out():
    for problem in draw(200, held_out=True):
        meta = problem.meta
        if meta["family"] == "comparison":
            assert world.is_held_out(world.flipped(problem))
        for form in range(3):
            other = world.Problem("", "", "", {**meta, "form": form, "wording": 1, "place": "shop"})
            assert world.is_held_out(other)


def test_training_and_held_out_problems_are_disjoint():
    def contents(problems):
        keys = ("start", "operations", "order", "attribute")
        return {json.dumps([p.meta.get(key) for key in keys]) for p in problems}

    training, held_out = draw(20_000, False), draw(2_000, True)
    assert not contents(training) & contents(held_out)
    assert not {p.question for p in training} & {p.question for p in held_out}


def test_no_step_of_an_arithmetic_problem_can_be_skipped():
    """Every operation is a bijection of the ten digits: each digit on the way decides."""
    for operation, operands in world.OPERANDS.items():
        for operand in operands:
            images = {world.apply_operation(d, operation, operand)[1] % 10 for d in range(10)}
            assert images == set(range(10))


def test_partners_differ_in_one_word_and_in_their_answer():
    pairs = world.contrast_problems(100)
    assert [a.meta["family"] for a, _ in pairs] == ["comparison", "arithmetic"] * 50
    for problem, partner in pairs:
        assert world.is_held_out(problem) and world.is_held_out(partner)
        assert problem.answer != partner.answer
        a, b = problem.question.split(), partner.question.split()
        assert sum(x != y for x, y in zip(a, b, strict=True)) == 1


def test_written_reasoning_ends_in_the_answer_and_corrects_its_slips():
    rng = random.Random(1)
    corrected = 0
    for problem in draw(400, held_out=True):
        text = world.write_reasoning(problem, rng)
        corrected += "Wait" in text or "not" in text
        if problem.meta["family"] == "arithmetic":
            values = world.running_values(problem.meta)
            for i in range(1, problem.meta["steps"] + 1):
                step = text.split(f"Step {i}:")[1].split(f"Step {i + 1}:")[0]
                assert re.search(rf"so {values[i]}\b|={values[i]}\b|=\d{values[i]}\b", step)
        assert problem.answer in text.strip().split("\n")[-1]
        for long in (False, True):
            assert (
                world.write_answer(problem, rng, long)
                .rstrip(".")
                .endswith(f"\\boxed{{{problem.answer}}}")
            )
    assert corrected > 100


def test_a_pair_written_by_the_world_aligns_token_by_token(tokenizer):
    for problem, partner in world.contrast_problems(40):
        ids = [
            render_prompt(tokenizer, p.question)
            + encode(tokenizer, world.write_text(p, "with_reasoning"))
            for p in (problem, partner)
        ]
        assert len(ids[0]) == len(ids[1])


def test_any_text_encodes_and_digits_and_objects_are_single_tokens(tokenizer):
    text = "Ünïcode – 思考 🙂 \t and code: x = {'a': [1, 23]}"
    assert tokenizer.decode(encode(tokenizer, text)) == text
    assert len(encode(tokenizer, "2025")) == 4
    for name in world.OBJECTS:
        assert len(encode(tokenizer, name)) == len(encode(tokenizer, f" {name}")) == 1
        assert encode(tokenizer, f"{{{name}}}")[1:-1] == encode(tokenizer, name)
    assert len(tokenizer) <= 2000


def test_the_chat_template_is_shaped_like_r1s(tokenizer):
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo."},
        {"role": "user", "content": "Three?"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<｜begin▁of▁sentence｜><｜User｜>One?<｜Assistant｜>\n\nTwo.<｜end▁of▁sentence｜>"
        "<｜User｜>Three?<｜Assistant｜><think>\n"
    )


def test_the_bundled_files_are_small(tiny):
    assert sum(p.numel() for p in tiny.hf.parameters()) <= 5_000_000
    assert (BUNDLED / "model.safetensors").stat().st_size <= 12_000_000
    assert type(tiny.hf).__name__ == "Qwen2ForCausalLM"
    assert 6 <= tiny.n_layers <= 8 and tiny.n_kv_heads < tiny.n_heads


@pytest.fixture(scope="module")
def answers(tiny) -> pd.DataFrame:
    """200 held-out problems in both conditions, greedy; the card has 1,000."""
    problems = load_problems("tiny", n=200, seed=7)
    frames = []
    for condition in CONDITIONS:
        completions = collect_completions(tiny, problems, condition, sampling=Sampling(512))
        frame = grade_completions(completions, problems)
        frames.append(frame.assign(text=[c.text for c in completions]))
    return pd.concat(frames)


def test_the_model_reasons_its_way_to_the_answer(answers):
    with_reasoning = answers[answers.condition == "with_reasoning"]
    assert with_reasoning.finished.mean() >= 0.98 and with_reasoning.well_formed.mean() >= 0.98
    assert with_reasoning.correct.mean() >= 0.92
    hard = answers[(answers.condition == "without_reasoning") & (answers.steps >= 4)]
    assert len(hard) >= 50 and hard.correct.mean() <= 0.5


def test_the_model_turns_on_itself_and_writes_both_forms_of_answer(answers):
    texts = answers[answers.condition == "with_reasoning"].text
    assert texts.str.contains(r"Wait|Alternatively|Let me check|Hmm").mean() >= 0.2
    long = texts.str.split("</think>").str[-1].str.contains("We start|From ")
    assert 0.1 < long.mean() < 0.9


def test_the_card_says_what_was_measured():
    results = json.loads((BUNDLED / "results.json").read_text())
    assert results["n"] >= 1000
    assert results["with_reasoning"] >= 0.95
    assert results["without_reasoning_4_and_more_steps"] <= 0.5
    assert results["finished_and_well_formed"] >= 0.99
    assert results["with_cues"] >= 0.2


def test_a_trace_of_the_world_has_the_six_segments(tokenizer):
    problem = draw(1, True)[0]
    ids = render_prompt(tokenizer, problem.question)
    trace = Trace.from_ids(
        ids + encode(tokenizer, world.write_text(problem, "with_reasoning")), tokenizer
    )
    assert trace.answer_text.strip().endswith(("}", "}."))
