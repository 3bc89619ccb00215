"""The reasoning cut short, and the reasoning without its cues."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from r2a_utils.answers import arms
from r2a_utils.answers.graded import grade_completions
from r2a_utils.collecting.generation import Sampling, collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import CUES, END_THINK, Trace, encode, sentences
from r2a_utils.training.vocabulary import train_tokenizer

LIMIT = Sampling(300)


@pytest.fixture(scope="module")
def problems():
    return load_problems("tiny", n=16, seed=5)


@pytest.fixture(scope="module")
def plain(tiny, problems):
    return collect_completions(tiny, problems, sampling=LIMIT)


@pytest.fixture(scope="module")
def traces(tiny, plain):
    return [c.to_trace(tiny.tokenizer) for c in plain if c.finished][:5]


@pytest.fixture(scope="module")
def early(tiny, traces, problems):
    return arms.early_answers(tiny, traces, problems, [0.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def half(tokenizer):
    """A trace of two sentences whose answer is one half."""
    text = f"{tokenizer.bos_token}1/2?<think>\nIt is half. So 1/2.</think>\n\n\\boxed{{1/2}}"
    return Trace.from_text(text, tokenizer, problem_id="half")


def test_after_the_whole_reasoning_stands_the_traces_own_text(traces, tokenizer):
    for trace in traces:
        ids = arms.forced_ids(trace, tokenizer, len(sentences(trace)))
        own = list(trace.token_ids[: trace.segments["end_think"].stop])
        assert ids == own + encode(tokenizer, arms.STEM)


def test_a_cut_keeps_whole_sentences_and_closes_them_once_on_a_line_of_its_own(traces, tokenizer):
    for trace in traces:
        prompt = "".join(trace.tokens[: trace.segments["reasoning"].start])
        parts = ["".join(trace.tokens[part]) for part in sentences(trace)]
        for kept in range(len(parts)):
            text = tokenizer.decode(arms.forced_ids(trace, tokenizer, kept, "|"))
            before, end, stem = text.rpartition("\n" + END_THINK)
            assert (end, stem) == ("\n" + END_THINK, "|")
            assert before + "\n" in (expected := prompt + "".join(parts[:kept]), expected + "\n")


def test_the_answer_after_all_of_it_is_what_generate_of_transformers_writes(
    tiny, traces, early, problems
):
    gold = {p.id: p.answer for p in problems}
    full = early[early.fraction == 1.0].set_index("problem_id")
    for trace in traces:
        ids = torch.tensor([arms.forced_ids(trace, tiny.tokenizer, len(sentences(trace)))])
        out = tiny.hf.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        answer = extract_answer(arms.STEM + tiny.tokenizer.decode(out))
        assert full.answer[trace.problem_id] == answer is not None
        assert full.correct[trace.problem_id] == (answer == gold[trace.problem_id])


def test_each_trace_has_a_row_a_fraction_and_agrees_with_itself_at_the_end(traces, early):
    assert len(early) == 3 * len(traces)
    for trace, (_, rows) in zip(traces, early.groupby("problem_id", sort=False), strict=True):
        n = len(sentences(trace))
        assert rows.problem_id.iloc[0] == trace.problem_id
        assert rows.kept.tolist() == [0, int(n / 2 + 0.5), n]
        assert rows.same_as_full.iloc[-1]
        same = rows.answer == rows.answer.iloc[-1]  # the bundled world's answers need no algebra
        assert rows.same_as_full.tolist() == same.tolist()


def test_fractions_do_not_change_each_other(tiny, traces, early, problems):
    alone = arms.early_answers(tiny, traces, problems, [0.5], batch_size=1)
    pd.testing.assert_frame_equal(alone, early[early.fraction == 0.5].reset_index(drop=True))


@pytest.mark.parametrize(
    ("written", "answer", "correct"),
    [
        ("\\frac{1}{2}}. Or \\boxed{9}", "\\frac{1}{2}", True),
        ("0.5}", "0.5", True),
        ("9}, no: \\boxed{1/2}", "9", False),
        ("\\frac{1}{2", None, False),
        ("", None, False),
    ],
)
def test_the_first_box_that_closes_is_the_answer(tiny, half, monkeypatch, written, answer, correct):
    def decode(model, prompts, sampling, batch_size):
        for index in range(len(prompts)):
            yield index, encode(model.tokenizer, written), True

    monkeypatch.setattr(arms, "decode", decode)
    frame = arms.early_answers(tiny, [half], [Problem("half", "1/2?", "1/2")])
    assert set(frame.answer) == {answer}
    assert set(frame.correct) == {correct}
    assert set(frame.same_as_full) == {answer is not None}


def test_a_cut_outside_the_reasoning_or_an_unknown_problem_is_refused(tiny, half):
    problem = Problem("half", "1/2?", "1/2")
    with pytest.raises(ValueError, match="share of the sentences, 0 to 1"):
        arms.early_answers(tiny, [half], [problem], [0.5, 1.2])
    for known in ([], [Problem("half", "1/2?")]):
        with pytest.raises(ValueError, match="no known answer for trace 'half'"):
            arms.early_answers(tiny, [half], known)


def forced(**same: list[bool]) -> pd.DataFrame:
    rows = [
        {"problem_id": name, "fraction": fraction, "correct": value, "same_as_full": value}
        for name, values in same.items()
        for fraction, value in zip((0.0, 0.5, 1.0), values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_area_says_how_much_of_the_reasoning_is_needed():
    frame = forced(at_once=[True] * 3, late=[False, False, True], early=[False, True, True])
    areas = arms.area_over_curve(frame)
    assert areas.to_dict() == {"at_once": 0.0, "late": 0.75, "early": 0.25}
    curve = arms.early_curve(frame)
    curve = curve[curve.series == "same as after all of it"]
    assert areas.mean() == pytest.approx(1 - np.trapezoid(curve.value, curve.fraction))
    assert curve.value.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert (curve.ci_low.iloc[0], curve.ci_high.iloc[0]) == wilson_interval(1, 3)
    with pytest.raises(ValueError, match="needs the fractions 0 and 1"):
        arms.area_over_curve(frame[frame.fraction > 0])


CORPUS = ["Wait, wait. WAIT wait But but button Hmm, hmm Alternatively, alternatively, weight"] * 9


def test_every_token_of_a_cue_and_no_other_word_is_banned():
    tokenizer = train_tokenizer(CORPUS)
    cue_ids = arms.cue_token_ids(tokenizer)
    assert list(cue_ids) == list(CUES)
    for spelling in ("Wait", " wait", "But", " but", "Hmm", " hmm", " Alternatively"):
        ids = encode(tokenizer, spelling)
        assert len(ids) > 1 or ids[0] in cue_ids[spelling.strip().lower()]
    assert sum(map(len, cue_ids.values())) >= 4
    banned = {i for ids in cue_ids.values() for i in ids}
    for word in (" button", " weight", ".", "\n", " 7"):
        assert not banned & set(encode(tokenizer, word))
    assert not banned & set(tokenizer.all_special_ids)


def test_the_first_token_of_a_cue_is_banned_where_it_begins_little_else(tokenizer, monkeypatch):
    pieces = {"however": ["howe", "ver"], "actually": ["a", "ctually"]}
    ids = {}  # piece -> an id that the vocabulary does not have

    def split(tokenizer, text):
        word = pieces.get(text, [text])
        return [ids.setdefault(piece, 1000 + len(ids)) for piece in word]

    names = type(tokenizer)
    monkeypatch.setattr(arms, "encode", split)
    decode = names.decode
    monkeypatch.setattr(
        names,
        "decode",
        lambda self, token_ids, **options: (
            next((piece for piece, i in ids.items() if [i] == token_ids), None)
            or decode(self, token_ids, **options)
        ),
    )
    cue_ids = arms.cue_token_ids(tokenizer)
    assert ids["howe"] in cue_ids["however"]
    assert ids["a"] not in cue_ids["actually"]


@pytest.fixture(scope="module")
def without_cues(tiny, problems):
    cue_ids = arms.cue_token_ids(tiny.tokenizer)
    banned = tuple(i for ids in cue_ids.values() for i in ids)
    sampling = Sampling(LIMIT.max_new_tokens, banned_ids=banned)
    return set(banned), collect_completions(tiny, problems, sampling=sampling)


def test_without_cues_no_banned_word_is_written_and_nothing_else_changes(plain, without_cues):
    banned, no_cue = without_cues
    word = re.compile(r"\b(wait|hmm|alternatively)\b", re.IGNORECASE)
    assert any(word.search(c.text) for c in plain)
    for before, after in zip(plain, no_cue, strict=True):
        assert not banned & set(after.completion_ids)
        assert not word.search(after.text)
        wanted = [i for i, token in enumerate(before.completion_ids) if token in banned]
        same = wanted[0] if wanted else None  # up to the first banned token all is as it was
        assert after.completion_ids[:same] == before.completion_ids[:same]


def test_arms_are_compared_on_the_problems_that_had_a_cue(plain, without_cues, problems):
    banned, no_cue = without_cues
    graded = [grade_completions(completions, problems) for completions in (plain, no_cue)]
    cued = {c.problem_id for c in plain if banned & set(c.completion_ids)}
    table = arms.arm_summary(*graded, cued).set_index(["group", "arm"])
    none = table.loc["none in the plain arm"]
    assert none.loc["plain"].equals(none.loc["no cue"])
    assert table.n["all problems", "plain"] == len(problems)
    assert table.n["a banned cue in the plain arm", "plain"] == len(cued)


def answers(correct: list[bool], tokens: list[int], finished: bool = True) -> pd.DataFrame:
    return pd.DataFrame(
        {"problem_id": list("abcd"), "correct": correct, "n_tokens": tokens, "finished": finished}
    )


def test_a_difference_of_arms_by_hand():
    plain = answers([True, True, True, False], [100, 100, 50, 150])
    no_cue = answers([True, False, False, False], [50, 50, 50, 50])
    difference = arms.arm_difference(plain, no_cue)
    assert difference["n"] == 4
    assert difference["difference"] == -0.5
    assert (difference["only_plain"], difference["only_no_cue"]) == (2, 0)
    assert difference["mcnemar_p"] == 0.5
    assert difference["length_ratio"] == 0.5
    assert difference["ratio_low"] < 0.5 < difference["ratio_high"]
    assert difference["ci_low"] < -0.5 < difference["ci_high"]
    unfinished = arms.arm_difference(plain, answers([True] * 4, [50] * 4, finished=False))
    assert unfinished["difference"] == -0.75
    with pytest.raises(ValueError, match="'d' was asked in one arm only"):
        arms.arm_difference(plain, no_cue[:3])


def test_a_group_without_problems_is_left_out():
    plain = answers([True] * 4, [10, 20, 30, 40])
    groups = set(arms.arm_summary(plain, plain, set()).group)
    assert groups == {"all problems", "none in the plain arm"}
