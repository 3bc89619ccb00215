"""Equal answers count as equal and others do not: a table decided by hand, and what follows."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from r2a_utils.answers.equality import equal, grade_math, same_answer
from r2a_utils.answers.normal_form import normal_form
from r2a_utils.texts.boxed import boxes

TABLE = Path(__file__).with_name("grading_pairs.jsonl").read_text(encoding="utf-8")
PAIRS = [json.loads(line) for line in TABLE.splitlines()]
KINDS = sorted({pair["kind"] for pair in PAIRS})


def of_kind(kind: str) -> list[dict]:
    return [pair for pair in PAIRS if pair["kind"] == kind]


def test_the_table_has_no_pair_twice_and_both_verdicts_of_each_kind():
    assert len({(pair["gold"], pair["answer"]) for pair in PAIRS}) == len(PAIRS) > 300
    for kind in KINDS:
        assert {pair["equal"] for pair in of_kind(kind)} == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_graded_as_decided_by_hand(kind):
    wrong = [p for p in of_kind(kind) if grade_math(p["answer"], p["gold"]) is not p["equal"]]
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_and_the_words_around_it_change_no_grade(kind):
    bare = [p for p in of_kind(kind) if not boxes(p["answer"]) and p["answer"]]
    answers = [rf"Therefore it is $\boxed{{{p['answer']}}}$, as was to be shown." for p in bare]
    graded = [grade_math(answer, p["gold"]) for answer, p in zip(answers, bare, strict=True)]
    assert graded == [p["equal"] for p in bare]


@pytest.mark.parametrize("kind", KINDS)
def test_equality_is_symmetric_and_a_normal_form_its_own(kind):
    for pair in of_kind(kind):
        gold, answer = pair["gold"], pair["answer"]
        assert equal(gold, answer) == equal(answer, gold)
        for text in (gold, answer):
            assert normal_form(normal_form(text)) == normal_form(text)


def mutations(answer: str) -> set[str]:
    """An answer with a digit, a sign or an operator changed, or a letter of a word."""
    words = re.fullmatch(r"\\text\{\(?(\w+)\)?\}", answer)
    if words:
        letter = {"B": "C", "C": "D", "E": "A"}.get(words[1], words[1][:-1])
        return {answer.replace(words[1], letter)}
    digits = list(re.finditer(r"\d", answer))
    changed = {
        answer[: d.start()] + str((int(d[0]) + 1) % 10) + answer[d.end() :]
        for d in (*digits[:1], *digits[-1:])
    }
    if answer != "0":
        changed.add("-" + answer)
    swaps = {"-": "+", "+": "-", r"\cup": r"\cap", r"\sqrt": r"\sin", "[": "("}
    for sign, other in swaps.items():
        first, rest = ("-", answer[1:]) if answer.startswith("-") else ("", answer)
        if sign in rest:
            changed.add(first + rest.replace(sign, other, 1))
    return changed


def test_answers_of_math500_equal_themselves_in_any_style_and_no_mutation(paper_data):
    lines = (paper_data / "math500.jsonl").read_text(encoding="utf-8").splitlines()
    answers = sorted({json.loads(line)["answer"] for line in lines})
    assert len(answers) == 301
    for answer in answers:
        assert equal(answer, answer)
        assert equal(answer, rf"\boldsymbol{{{answer}}}") and equal(f"$ {answer} $.", answer)
        mutated = mutations(answer)
        assert mutated and answer not in mutated
        assert [m for m in mutated if equal(answer, m) or equal(m, answer)] == []


def test_none_is_the_same_as_nothing():
    assert same_answer("1/2", "0.5") and same_answer("0.5", r"\frac12")
    assert not same_answer("5", "6")
    assert not any(same_answer(*pair) for pair in ((None, None), (None, "5"), ("5", None)))
    assert not equal("", "") and not equal("$$", " ")


def test_the_last_box_counts_and_not_what_stands_before_it():
    assert grade_math(r"Not \boxed{4}: it is \boxed{5}", "5")
    assert not grade_math(r"Not \boxed{5}: it is \boxed{4}", "5")
    assert grade_math(r"\boxed{1}, \boxed{-2}", "-2,1")


def test_grading_works_outside_the_main_thread():
    pairs = [(rf"\frac{{{2 * i}}}{{{2 * i + 2}}}", f"{i}/{i + 1}") for i in range(1, 9)]
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda p=pair: results.append(grade_math(*p))) for pair in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * len(pairs)
