"""Each edit of a thought against a text worked out by hand."""

from __future__ import annotations

import pytest

from r2a_utils.answers.edited_thoughts import (
    CONNECTIVES,
    EDITS,
    PLACES,
    REWORDINGS,
    Removal,
    dots,
    emptied,
    last_share,
    mistakes_in,
    removal_in,
    reworded,
    shuffled,
    without_conclusion,
)

THOUGHT = (
    "Okay, I start with 8.\nStep 1: add 4. 8+4=12, so 2.\nStep 2: times 3. 2*3=6, so 6.\n"
    "So the result is 6.\n"
)


def test_rewording_exchanges_whole_words_and_keeps_capitals():
    assert reworded("Okay, wait. But let me check: a button.") == (
        "Alright, hold on. Yet I check: a button."
    )
    assert reworded("so 4. So the sofa", CONNECTIVES) == "then 4. Then the sofa"
    assert reworded("so 4") == "so 4"


def test_words_are_exchanged_at_once_and_not_in_turn():
    assert reworded("okay alright") == "alright okay"
    assert not REWORDINGS.keys() & CONNECTIVES.keys()


def test_filler_keeps_words_and_lines_in_number():
    assert dots("8+4=12, so 2.\nSo 2.\n") == "... ... ...\n... ...\n"
    assert emptied(THOUGHT) == ""


def test_shuffling_moves_sentences_and_leaves_the_white_space():
    mixed = shuffled(THOUGHT, "a")
    assert mixed != THOUGHT and shuffled(THOUGHT, "a") == mixed
    assert sorted(mixed.split()) == sorted(THOUGHT.split())
    assert [line.count(".") for line in mixed.split("\n")] == [1, 2, 2, 1, 0]
    assert any(shuffled("One. Two.", str(seed)) == "Two. One." for seed in range(9))


@pytest.mark.parametrize(
    ("thought", "left"),
    [
        (THOUGHT, THOUGHT[: THOUGHT.index("So the")]),
        ("One. Two. So three.", "One. Two."),
        ("So three.", ""),
        ("A\n\nSo 3. Yes.\n\n", "A\n\n"),
    ],
)
def test_the_conclusion_is_the_last_line_or_sentence(thought, left):
    assert without_conclusion(thought) == left


@pytest.mark.parametrize(
    ("share", "left"),
    [(0, ""), (0.25, "Four."), (0.5, "Three.\nFour."), (0.6, "Three.\nFour."),
     (0.75, "Two. Three.\nFour."), (1, "One. Two. Three.\nFour.")],
)  # fmt: skip
def test_the_last_share_is_counted_in_sentences(share, left):
    assert last_share("One. Two. Three.\nFour.", share) == left


def test_a_mistake_changes_the_result_and_what_is_said_of_it():
    found = mistakes_in(THOUGHT)
    assert list(found) == list(PLACES)
    earlier, last = found.values()
    assert earlier.before == "Okay, I start with 8.\nStep 1: add 4."
    assert (earlier.right, earlier.wrong) == (" 8+4=12, so 2.\n", " 8+4=13, so 3.\n")
    assert (last.right, last.wrong) == (" 2*3=6, so 6.\n", " 2*3=7, so 7.\n")
    for cut in found.values():
        assert cut.before + cut.right + cut.after == THOUGHT


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("4+5=9, so 9.", "4+5=8, so 8."),  # no carry: down where up would be one
        ("4+15=19, so 9.", "4+15=18, so 8."),
        ("x = 3 and 3x = 12, which is 12 or 2.", "x = 3 and 3x = 13, which is 13 or 3."),
        ("2+2=4, not 14.", "2+2=5, not 14."),
    ],
)
def test_mistakes_by_hand(sentence, wrong):
    (cut,) = mistakes_in(f"{sentence}\nDone.").values()
    assert cut.wrong == f"{wrong}\n"


@pytest.mark.parametrize(
    "thought",
    [
        "I see.\nIt is 4.",  # no equation
        "I see.\n2+2=4.",  # in the conclusion alone
        "It is x=3.5.\nDone.",  # no whole number
        "2+2=5, so 5.\nWait, 2+2=4, so 4.\nSo 4.",  # one is corrected, the other a correction
    ],
)
def test_where_there_is_no_step_to_change_there_is_no_mistake(thought):
    assert mistakes_in(thought) == {}


@pytest.mark.parametrize(
    ("cut", "without"),
    [
        (Removal("A.\n", "B.", " C.\n"), "A.\nC.\n"),
        (Removal("A.", " B.\n", "C.\n"), "A.\nC.\n"),
        (Removal("A.", " B.", " C."), "A. C."),
        (Removal("A.\n", "B.\n", "C.\n"), "A.\nC.\n"),
    ],
)
def test_a_removed_sentence_takes_its_white_space_with_it(cut, without):
    assert cut.without == without
    assert cut.kept == cut.before + cut.sentence + cut.following


def test_what_is_removed_stands_once_and_inside():
    drawn = {removal_in(THOUGHT, str(seed)).sentence.strip() for seed in range(30)}
    assert drawn == {"Step 1: add 4.", "8+4=12, so 2.", "Step 2: times 3."}
    assert removal_in("One.\nTwo.\nSo.") is None
    assert removal_in("One. Go. Go. Two.\nSo.") is None


def test_the_arms_begin_with_the_text_and_its_control():
    assert list(EDITS)[:2] == ["as written", "reworded"]
    assert EDITS["as written"](THOUGHT, "") == THOUGHT
    texts = {edit(THOUGHT, "seed") for edit in EDITS.values()}
    assert len(texts) == len(EDITS)
