"""What the tests on the text say, on frames whose numbers are worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from r2a_utils.answers.edited_thoughts import EDITS
from r2a_utils.answers.text_effects import (
    ARMS,
    edit_rates,
    edit_tests,
    outcomes,
    swap_effects,
    text_record,
)
from r2a_utils.answers.text_tests import COLUMNS, NOT_REMOVED, REMOVED, SWAPPED
from r2a_utils.stats import mean_share_interval, wilson_interval


def answers(*rows: tuple) -> pd.DataFrame:
    """Rows of (problem, arm, own, answer) and, where they say so, follows, partner, comes back."""
    full = [(*row, None, None, None)[:7] for row in rows]
    cells = [
        (problem, "k", arm, partner, own, answer, answer == "1", answer == own, follows, back)
        for problem, arm, own, answer, follows, partner, back in full
    ]
    return pd.DataFrame(cells, columns=COLUMNS)


def swaps(answer: str, n: int = 6) -> pd.DataFrame:
    """`n` pairs; where swapped, the answer goes with the "reasoning", the "question" or neither."""
    rows = []
    for i in range(n):
        for own, other in (("1", "2"), ("2", "1")):
            name, partner = f"{own}-{i}", f"{other}-{i}"
            rows += [(name, arm, own, own) for arm in EDITS]
            given = {"reasoning": other, "question": own}.get(answer)
            rows.append((name, SWAPPED, own, given, given == other, partner))
    return answers(*rows)


@pytest.mark.parametrize(
    ("goes", "reasoning", "question", "verdict"),
    [("reasoning", 1, 0, "reasoning"), ("question", 0, 1, "question"), ("", 0.5, 0.5, "neither")],
)
def test_the_two_by_two_finds_what_decides(goes, reasoning, question, verdict):
    frame = swaps(goes)
    found = swap_effects(frame)
    assert (found.n, found.reasoning, found.question) == (6, reasoning, question)
    record = text_record(frame, answers(), confidence=0.9)
    assert record["verdict"] == verdict and record["n"] == 12
    assert record["outcomes"].keys() == {"swapped"}
    told = record["outcomes"]["swapped"]
    assert told["n"] == 6
    assert told["follows"] == (goes == "reasoning") and told["before"] == (goes == "question")
    assert told["other"] == (goes == "")


@pytest.mark.parametrize("answer", ["reasoning", "question"])
def test_of_swapped_thoughts_a_pair_is_one_case(answer):
    """Three pairs are six answers, of which six alike would be a verdict and three are none."""
    record = text_record(swaps(answer, n=3), answers())
    told, going = record["outcomes"]["swapped"], "follows" if answer == "reasoning" else "before"
    assert record["verdict"] == "neither"
    assert (told["n"], told["p"]) == (3, 2 / 2**3)
    low_and_high = (told[f"{going}_low"], told[f"{going}_high"])
    assert low_and_high == pytest.approx(wilson_interval(3, 3))
    row = edit_tests(swaps("reasoning", n=3)).set_index("arm").loc[SWAPPED]
    assert (row.n, row.p) == (3, 2 / 2**3)


def test_a_pair_that_goes_both_ways_counts_for_neither():
    frame = swaps("reasoning", n=2)
    stays = (frame["arm"] == SWAPPED) & (frame["problem_id"] == "1-0")
    frame.loc[stays, ["answer", "same", "follows"]] = ["1", True, False]
    told = text_record(frame, answers())["outcomes"]["swapped"]
    assert (told["n"], told["follows"], told["before"], told["other"]) == (2, 0.75, 0.25, 0)
    assert told["p"] == 1  # one pair follows, the other is a tie
    low_and_high = (told["follows_low"], told["follows_high"])
    assert low_and_high == pytest.approx(mean_share_interval(0.75, 2))


def test_few_cases_give_no_verdict():
    frame = swaps("reasoning", n=1)
    assert text_record(frame, answers())["verdict"] == "neither"
    assert swap_effects(frame).reasoning_low is None  # one pair has no interval


def test_an_answer_that_is_missing_is_nobody_s():
    frame = swaps("reasoning", n=2)
    frame.loc[(frame["arm"] == "as written") & (frame["problem_id"] == "1-0"), "answer"] = None
    frame["same"] = frame["same"] & frame["answer"].notna()
    # Of one of four answers the own cell is lost: both effects of it lose a half.
    assert swap_effects(frame).reasoning == 0.875 and swap_effects(frame).question == -0.125


def test_without_a_pair_there_is_no_effect():
    frame = answers(("a", "as written", "1", "1"))
    assert swap_effects(frame).n == 0 and swap_effects(frame).reasoning is None


def test_an_arm_s_shares_are_counted_where_it_is_known_what_its_text_leads_to():
    kept = ARMS["kept_earlier"]
    frame = answers(
        ("a", kept, "1", "1", False), ("b", kept, "1", "3", True), ("c", kept, "1", "4", False),
        ("d", kept, "1", "1", False), ("e", kept, "1", "1", None),
    )  # fmt: skip
    (row,) = outcomes(frame).itertuples()
    assert (row.arm, row.n) == (kept, 4)
    assert (row.follows, row.before, row.other) == (0.25, 0.5, 0.25)
    assert (row.follows_low, row.follows_high) == pytest.approx(wilson_interval(1, 4))
    assert row.p == 1.0  # one against two
    unknown = outcomes(frame.assign(follows=None))
    assert unknown.n.tolist() == [5] and unknown.follows.isna().all()
    assert unknown.before.tolist() == [0.6]


def test_rates_are_counted_by_kind_and_arm():
    frame = pd.concat([swaps("reasoning"), swaps("question").assign(kind="other")])
    rates = edit_rates(frame).set_index(["kind", "arm"])
    assert list(rates.index.levels[0]) == ["k", "other"] and len(rates) == 2 * len(EDITS)
    dots = rates.loc["k", "dots"]
    assert (dots.n, dots.same, dots.right) == (12, 1, 0.5)
    assert (dots.right_low, dots.right_high) == pytest.approx(wilson_interval(6, 12))


def test_an_edit_is_tested_against_the_harmless_one_on_the_same_problems():
    rows = []
    for i in range(10):
        rows += [(f"p{i}", "reworded", "1", "1" if i else "5")]
        rows += [(f"p{i}", "dots", "1", "7"), (f"p{i}", "as written", "1", "1")]
    tests = edit_tests(answers(*rows)).set_index("arm")
    assert list(tests.index) == ["dots", "as written"]
    assert (tests.loc["dots", "changed"], tests.loc["dots", "control"]) == (1, 0.1)
    assert tests.loc["dots", "p"] == pytest.approx(2 / 2**9)  # nine problems changed by dots alone
    assert tests.loc["dots", "holm_p"] == pytest.approx(4 / 2**9)
    assert (tests.loc["as written", "changed"], tests.loc["as written", "p"]) == (0, 1)


def test_only_what_changes_more_than_the_harmless_edit_is_named():
    frame = swaps("reasoning", n=12)
    assert text_record(frame, answers())["more_than_harmless"] == [SWAPPED]
    changed = frame.assign(same=frame["same"] ^ frame["arm"].isin(["reworded", SWAPPED]))
    assert text_record(changed, answers())["more_than_harmless"] == []


def test_what_comes_back_is_counted():
    opened = answers(
        ("a", REMOVED, "1", "1", None, None, True), ("b", REMOVED, "1", "2", None, None, False),
        ("a", NOT_REMOVED, "1", "1", None, None, False),
    )  # fmt: skip
    record = text_record(swaps("reasoning"), opened)
    removed = record["removed"]
    assert (removed["n"], removed["back"], removed["same"], removed["same_without"]) == (
        2,
        0.5,
        0.5,
        0,
    )
    assert record["not_removed"]["back"] == 0


def test_nothing_asked_is_a_record_that_says_so():
    assert text_record(answers(), answers()) == {"n": 0, "verdict": "neither", "outcomes": {}}
