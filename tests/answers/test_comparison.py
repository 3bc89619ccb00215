"""The two conditions compared: both accounting rules, by hand and against the paper's counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from r2a_utils import paper
from r2a_utils.answers.comparison import (
    accuracies,
    equally_long,
    funnel,
    mean_scores,
    paired_comparison,
    paired_scores,
    paired_values,
    tokens_per_right_answer,
)
from r2a_utils.stats import holm, mcnemar_exact, wilson_interval

WITH, WITHOUT = "with_reasoning", "without_reasoning"


def answer(problem, condition, correct=True, *, finished=True, formed=True, found=True, **more):
    return {
        "problem_id": problem,
        "condition": condition,
        "sample": 0,
        "finished": finished,
        "well_formed": formed,
        "answer": "1" if found else None,
        "correct": correct,
        "n_tokens": 10,
    } | more


def frame(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows)


@pytest.fixture
def answers() -> pd.DataFrame:
    """Six problems; of their arms, three do not end in an answer."""
    return frame(
        answer("a", WITH), answer("a", WITHOUT, False),
        answer("b", WITH), answer("b", WITHOUT),
        answer("c", WITH, False), answer("c", WITHOUT),
        answer("d", WITH, finished=False), answer("d", WITHOUT),
        answer("e", WITH), answer("e", WITHOUT, formed=False),
        answer("f", WITH), answer("f", WITHOUT, found=False),
    )  # fmt: skip


def test_the_funnel_counts_what_passes_each_step_and_all_before(answers):
    counts = funnel(answers).pivot(index="condition", columns="step", values="count")
    steps = ["asked", "finished", "well formed", "answer found"]
    assert counts.loc[WITH, steps].tolist() == [6, 5, 5, 5]
    assert counts.loc[WITHOUT, steps].tolist() == [6, 6, 5, 4]
    assert funnel(answers)["step"].tolist()[:4] == steps
    # Cut off, and an answer found all the same: it did not pass "finished".
    row = answer("a", WITH, finished=False)
    assert funnel(frame(row))["count"].tolist() == [1, 0, 0, 0]


def test_the_funnel_counts_the_thoughts_that_were_closed_for_the_model(answers):
    assert "closed by us" not in set(funnel(answers.assign(closed_by_us=False))["step"])
    closed = (answers["condition"] == WITH) & answers["problem_id"].isin(["a", "b"])
    counts = funnel(answers.assign(closed_by_us=closed)).query("step == 'closed by us'")
    assert dict(zip(counts["condition"], counts["count"], strict=True)) == {WITH: 2, WITHOUT: 0}


def test_the_funnel_by_slice(answers):
    sliced = funnel(answers.assign(steps=[1] * 8 + [2] * 4), by="steps")
    assert list(sliced) == ["steps", "condition", "step", "count"]
    found = sliced[(sliced["step"] == "answer found") & (sliced["condition"] == WITHOUT)]
    assert dict(zip(found["steps"], found["count"], strict=True)) == {1: 4, 2: 0}


def test_finished_pairs_need_an_answer_in_both_conditions(answers):
    row = paired_comparison(answers, "finished_pairs").iloc[0]
    # a, b, c remain: right with 2 of 3, without 2 of 3, one discordant each way.
    assert row["n"] == 3
    assert row["accuracy_with"] == row["accuracy_without"] == pytest.approx(2 / 3)
    assert (row["only_with"], row["only_without"], row["mcnemar_p"]) == (1, 1, 1.0)
    assert row["accounting"] == "finished_pairs"


def test_unfinished_counts_as_wrong_under_the_other_rule(answers):
    row = paired_comparison(answers, "unfinished_wrong").iloc[0]
    # With: a, b, e, f right, c wrong, d cut. Without: b, c, d right.
    assert row["n"] == 6
    assert row["accuracy_with"] == pytest.approx(4 / 6)
    assert row["accuracy_without"] == pytest.approx(3 / 6)
    assert (row["only_with"], row["only_without"]) == (3, 2)
    assert row["mcnemar_p"] == pytest.approx(mcnemar_exact(3, 2))
    assert row["difference"] == pytest.approx(1 / 6)
    assert row["ci_low"] < 1 / 6 < row["ci_high"]


@pytest.mark.parametrize(
    "row", paper.published()["stage1_math500"]["rows"], ids=lambda r: r["model"]
)
def test_the_papers_comparison_comes_out(row):
    only_with, only_without = paper.discordant_pairs(
        row["n"], row["with_reasoning"], row["without_reasoning"], row["t"]
    )
    both = round(row["with_reasoning"] * row["n"]) - only_with
    grades = [(1, 0)] * only_with + [(0, 1)] * only_without + [(1, 1)] * both
    grades += [(0, 0)] * (row["n"] - len(grades))
    rows = [
        answer(str(i), condition, bool(grade))
        for i, pair in enumerate(grades)
        for condition, grade in zip((WITH, WITHOUT), pair, strict=True)
    ]
    found = paired_comparison(frame(*rows)).iloc[0]
    assert found["n"] == row["n"]
    assert found["accuracy_with"] == pytest.approx(row["with_reasoning"], abs=0.0005)
    assert found["accuracy_without"] == pytest.approx(row["without_reasoning"], abs=0.0005)
    assert found["t"] == pytest.approx(row["t"], abs=1e-6)
    assert found["t_p"] == pytest.approx(row["p"], rel=1e-6)
    # The exact test and the bootstrap agree with the paper's t-test that reasoning helps.
    assert found["mcnemar_p"] < 1e-4 and found["ci_low"] > 0


def test_slices_are_compared_one_by_one_and_holm_goes_over_all_of_them():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        steps = 1 + i % 3
        rows.append(answer(f"p{i}", WITH, bool(rng.random() < 0.9), steps=steps))
        rows.append(answer(f"p{i}", WITHOUT, bool(rng.random() < 1 - 0.2 * steps), steps=steps))
    answers = frame(*rows)
    by_steps = paired_comparison(answers, by="steps")
    assert by_steps["steps"].tolist() == [1, 2, 3]
    assert by_steps["n"].tolist() == [100, 100, 100]
    assert by_steps["holm_p"].tolist() == pytest.approx(holm(by_steps["mcnemar_p"]))
    assert (by_steps["holm_p"] >= by_steps["mcnemar_p"]).all()
    alone = paired_comparison(answers[answers["steps"] == 2])
    for column in ("difference", "ci_low", "ci_high", "mcnemar_p", "t"):
        assert by_steps.loc[1, column] == pytest.approx(alone.loc[0, column])


def test_the_order_of_the_rows_does_not_matter(answers):
    shuffled = answers.sample(frac=1, random_state=0)
    for accounting in ("finished_pairs", "unfinished_wrong"):
        pd.testing.assert_frame_equal(
            paired_comparison(answers, accounting), paired_comparison(shuffled, accounting)
        )


def test_samples_of_a_problem_are_averaged_and_not_counted_as_more_problems():
    rows = [
        answer("a", WITH, True, sample=0), answer("a", WITH, False, sample=1),
        answer("a", WITHOUT, False, sample=0), answer("a", WITHOUT, False, sample=1),
        answer("b", WITH, True, sample=0), answer("b", WITH, True, finished=False, sample=1),
        answer("b", WITHOUT, True, sample=0), answer("b", WITHOUT, False, sample=1),
    ]  # fmt: skip
    finished = paired_values(frame(*rows), "finished_pairs")
    assert finished.loc["a"].tolist() == [0.5, 0.0]
    assert finished.loc["b"].tolist() == [1.0, 0.5]  # the cut sample says nothing
    wrong = paired_values(frame(*rows), "unfinished_wrong")
    assert wrong.loc["b"].tolist() == [0.5, 0.5]
    row = paired_comparison(frame(*rows)).iloc[0]
    assert row["n"] == 2 and np.isnan(row["mcnemar_p"]) and row["difference"] == 0.5


def test_accuracies_carry_wilson_intervals(answers):
    table = accuracies(answers, "unfinished_wrong").set_index("condition")
    assert table.loc[WITH, "accuracy"] == pytest.approx(4 / 6)
    interval = table.loc[WITH, ["ci_low", "ci_high"]].tolist()
    assert interval == pytest.approx(wilson_interval(4, 6))


def test_no_pair_left_is_shown_and_not_hidden():
    rows = [answer("a", WITH, finished=False), answer("a", WITHOUT)]
    row = paired_comparison(frame(*rows)).iloc[0]
    assert row["n"] == 0 and np.isnan(row["difference"]) and np.isnan(row["t"])
    assert row["mcnemar_p"] == 1.0
    assert accuracies(frame(*rows))["n"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="correct"), "no column correct"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.iloc[:-1], "asked in one condition only, for example 'f'"),
        (lambda f: f[f["condition"] == WITH], "both conditions are needed"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "two rows for .*'problem_id': 'a'"),
    ],
)
def test_a_frame_that_cannot_be_compared_is_refused(answers, change, message):
    with pytest.raises(ValueError, match=message):
        paired_comparison(change(answers))


def test_unknown_rules_and_slices_are_refused(answers):
    with pytest.raises(ValueError, match="choose one of finished_pairs, unfinished_wrong"):
        paired_comparison(answers, "finished")
    with pytest.raises(ValueError, match="no column level"):
        paired_comparison(answers, by="level")
    with pytest.raises(ValueError, match="problem 'a' has no level"):
        paired_comparison(answers.assign(level=[None] + [1] * 11), by="level")


@pytest.mark.parametrize(
    ("without", "told"), [(205, True), (165, True), (160, False), (12, False), (400, True)]
)
def test_a_condition_without_reasoning_that_writes_as_much_is_told(without, told):
    """Three problems, of which one never ended without reasoning and counts in neither mean."""
    rows = [answer(p, WITH) | {"n_tokens": 206 + d} for p, d in (("a", -6), ("b", 6))]
    rows += [answer(p, WITHOUT) | {"n_tokens": without} for p in ("a", "b")]
    rows += [answer("c", WITH) | {"n_tokens": 9000}]
    rows += [answer("c", WITHOUT, finished=False) | {"n_tokens": 10_000}]
    found = {"with_reasoning": 206.0, "without_reasoning": float(without)}
    assert equally_long(frame(*rows)) == (found if told else {})
    assert equally_long(frame(*rows[:2])) == {}


def test_tokens_per_right_answer_pays_for_the_wrong_ones_too():
    rows = [
        answer("a", WITH, n_tokens=300), answer("a", WITHOUT, n_tokens=20),
        answer("b", WITH, finished=False, n_tokens=700), answer("b", WITHOUT, False, n_tokens=30),
        answer("c", WITH, n_tokens=200), answer("c", WITHOUT, False, n_tokens=10),
    ]  # fmt: skip
    table = tokens_per_right_answer(frame(*rows)).set_index("condition")
    assert table.loc[WITH, "tokens_per_right"] == pytest.approx(1200 / 2)
    assert table.loc[WITHOUT, "tokens_per_right"] == pytest.approx(60 / 1)
    assert table.loc[WITH, ["n", "right", "tokens"]].tolist() == [3, 2, 400]
    assert table.loc[WITH, "ci_low"] < 600 < table.loc[WITH, "ci_high"]
    none_right = frame(answer("a", WITH, False), answer("b", WITH, False))
    assert tokens_per_right_answer(none_right)["tokens_per_right"].tolist() == [np.inf]
    sliced = tokens_per_right_answer(frame(*rows).assign(area=["x"] * 2 + ["y"] * 4), by="area")
    assert sliced[["area", "condition"]].values.tolist() == [
        ["x", WITH], ["x", WITHOUT], ["y", WITH], ["y", WITHOUT],
    ]  # fmt: skip


def score(problem, condition, value, verdict="scored", **more):
    return {
        "problem_id": problem,
        "condition": condition,
        "sample": 0,
        "verdict": verdict,
        "score": value,
    } | more


def test_scores_are_paired_rubbish_left_out_and_unanswered_by_the_rule():
    nan = float("nan")
    scores = frame(
        score("a", WITH, 8.0), score("a", WITHOUT, 6.0),
        score("b", WITH, 7.0), score("b", WITHOUT, 7.0),
        score("c", WITH, 9.0), score("c", WITHOUT, 4.0),
        score("d", WITH, nan, "rubbish"), score("d", WITHOUT, 5.0),
        score("e", WITH, nan, "unanswered"), score("e", WITHOUT, 5.0),
    )  # fmt: skip
    row = paired_scores(scores).iloc[0]
    assert (row["n"], row["rubbish"]) == (3, 1)
    assert row["score_with"] == pytest.approx(8) and row["score_without"] == pytest.approx(17 / 3)
    assert row["t"] == pytest.approx(stats.ttest_rel([8, 7, 9], [6, 7, 4]).statistic)
    assert row["wilcoxon_p"] == pytest.approx(0.5)  # two differences, both positive: 2 / 4
    row = paired_scores(scores, "unfinished_wrong").iloc[0]
    assert (row["n"], row["rubbish"]) == (4, 1)
    assert row["score_with"] == pytest.approx((8 + 7 + 9 + 1) / 4)
    table = mean_scores(scores).set_index("condition")
    assert table["score"].tolist() == pytest.approx([8, 17 / 3])
    assert table.loc[WITH, "ci_low"] < 8 < table.loc[WITH, "ci_high"]
