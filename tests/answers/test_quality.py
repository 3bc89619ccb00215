"""Stage 1 in a few numbers: by one sample or several, sliced by what the problems say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from r2a_utils.answers.comparison import paired_comparison
from r2a_utils.answers.quality import (
    MOST_SLICES,
    accuracies_by_family,
    accuracies_by_rule,
    answer_quality,
    asked_for,
    compare_conditions,
    compare_slices,
    slicing,
)
from r2a_utils.stats import bootstrap_interval, holm, paired_t


def frame(grades: dict[str, tuple], sample: int = 0, finished: bool = True) -> pd.DataFrame:
    """One row per problem and condition: grades with and without reasoning."""
    rows = [
        {"problem_id": problem, "condition": condition, "sample": sample, "finished": finished}
        | {"well_formed": True, "answer": "1", "correct": bool(grade), "n_tokens": 9}
        | {"steps": 1 + index % 2}
        for index, (problem, pair) in enumerate(grades.items())
        for condition, grade in zip(("with_reasoning", "without_reasoning"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


FIRST = {"a": (1, 0), "b": (1, 0), "c": (1, 1), "d": (0, 1), "e": (1, 0), "f": (1, 0)}
SECOND = {"a": (1, 0), "b": (0, 0), "c": (1, 0), "d": (1, 1), "e": (1, 0), "f": (0, 1)}


def summary(answers: pd.DataFrame):
    rules = compare_conditions(answers)
    slices = compare_slices(answers, "steps")
    return rules, slices, answer_quality(rules, slices, answers, 0.95)


def test_one_sample_has_mcnemars_test():
    rules, _, quality = summary(frame(FIRST))
    assert rules["accounting"].tolist() == ["finished_pairs", "unfinished_wrong"]
    assert (quality.n, quality.only_with, quality.only_without) == (6, 4, 1)
    assert quality.mcnemar_p == pytest.approx(2 * 6 / 32)
    assert (quality.slice_by, quality.last_slice, quality.samples) == ("steps", "2", 1)
    assert quality.asked_for == "Steps that the problem needs"


def test_several_samples_are_compared_by_their_means_and_without_mcnemar():
    answers = pd.concat([frame(FIRST), frame(SECOND, sample=1)])
    rules, slices, quality = summary(answers)
    with_ = np.array([1, 0.5, 1, 0.5, 1, 0.5])
    without = np.array([0, 0, 0.5, 1, 0, 0.5])
    assert quality.n == 6
    assert quality.difference == pytest.approx((with_ - without).mean())
    interval = bootstrap_interval(with_ - without)
    assert (quality.ci_low, quality.ci_high) == pytest.approx(interval)
    assert (quality.only_with, quality.only_without, quality.mcnemar_p) == (None, None, None)
    assert quality.t_p == pytest.approx(paired_t(with_, without)[1])
    assert quality.samples == 2
    assert slices["mcnemar_p"].isna().all()
    assert slices["holm_p"].tolist() == pytest.approx(holm(slices["t_p"]), nan_ok=True)
    assert rules["mcnemar_p"].isna().all()


def test_samples_that_agree_do_not_bring_mcnemar_back_in_one_slice():
    answers = pd.concat([frame(FIRST), frame(FIRST, sample=1)])
    assert paired_comparison(answers)["only_with"].isna().all()


def test_where_nothing_finished_the_papers_rule_has_no_row_and_the_other_says_zero():
    answers = frame(FIRST, finished=False)
    _, _, quality = summary(answers)
    assert (quality.finished_pairs, quality.n) == (0, 6)
    assert (quality.with_reasoning, quality.difference, quality.ci_high) == (0, 0, 0)
    assert quality.t_p is None
    assert set(accuracies_by_rule(answers)["label"]) == {"unfinished is wrong"}


def test_one_problem_is_no_comparison():
    with pytest.raises(ValueError, match="needs 2 problems, has 1; --set n_problems=2"):
        compare_conditions(frame({"a": (1, 0)}))


def test_a_slice_is_what_problems_say_and_anything_else_is_refused():
    answers = frame(FIRST).assign(family="sums", answer_text="1")
    assert slicing(answers, None).name == "steps"
    assert slicing(answers, "family").unique().tolist() == ["sums"]
    for wrong in ("typo", "condition", "correct", "n_tokens", "answer_text"):
        with pytest.raises(ValueError, match=f"slice_by is '{wrong}'.*one of steps, family"):
            slicing(answers, wrong)
    levels = answers.rename(columns={"steps": "level"})
    assert slicing(levels, None).name == "level"
    with pytest.raises(ValueError, match="choose one of level, family"):
        slicing(levels, "steps")


def test_problems_that_say_nothing_are_one_slice():
    plain = frame(FIRST).drop(columns="steps")
    assert slicing(plain, None).unique().tolist() == ["all"]
    with pytest.raises(ValueError, match="they say nothing"):
        slicing(plain, "steps")


def test_a_column_of_several_kinds_is_compared_as_text_and_a_list_is_no_slicing():
    answers = frame(FIRST)
    answers["mixed"] = [2, "two", 3.5] * 4
    assert sorted(slicing(answers, "mixed").unique()) == ["2", "3.5", "two"]
    many = pd.concat([answers] * 4, ignore_index=True)
    many["number"] = range(len(many))
    with pytest.raises(
        ValueError, match=f"number makes 48 slices, and a figure holds {MOST_SLICES}"
    ):
        slicing(many, "number")


def test_a_slice_has_an_axis_label():
    assert asked_for("steps").startswith("Steps that")
    assert asked_for("level") == "Level"


def test_each_family_has_its_own_accuracies_and_its_own_chance():
    frame = pd.DataFrame(
        [
            (f"{family} {steps}", condition, 0, True, True, "7", family == "comparison", 9, family,
             steps)
            for family, most in (("arithmetic", 4), ("comparison", 2))
            for steps in range(1, most + 1)
            for condition in ("with_reasoning", "without_reasoning")
        ],
        columns=["problem_id", "condition", "sample", "finished", "well_formed", "answer",
                 "correct", "n_tokens", "family", "steps"],
    )  # fmt: skip
    table = accuracies_by_family(frame, "steps")
    assert table.groupby("family")["accuracy"].mean().to_dict() == {
        "arithmetic": 0,
        "comparison": 1,
    }
    chances = table.groupby(["family", "steps"])["chance"].first()
    assert chances["arithmetic", 4] == 0.1 and chances["comparison", 2] == pytest.approx(1 / 3)
    alone = accuracies_by_family(frame[frame["family"] == "arithmetic"], "steps")
    assert "family" not in alone
    assert "chance" not in accuracies_by_family(frame.replace("comparison", "other"), "steps")


def test_the_slices_of_a_table_are_those_of_one_family_and_corrected_together():
    of_two = frame(FIRST).assign(family="arithmetic")
    other = frame(SECOND).assign(family="comparison")
    other["problem_id"] += "2"
    both = pd.concat([of_two, other], ignore_index=True)
    table = compare_slices(both, "steps")
    assert list(table)[:2] == ["steps", "family"]
    assert table["family"].tolist() == ["arithmetic"] * 2 + ["comparison"] * 2
    assert table["n"].tolist() == [3] * 4
    alone = paired_comparison(of_two, "unfinished_wrong", "steps")
    for name in ("accuracy_with", "accuracy_without", "mcnemar_p"):
        assert table[name].tolist()[:2] == alone[name].tolist()
    np.testing.assert_allclose(table["holm_p"], holm(table["mcnemar_p"]))
    quality = answer_quality(compare_conditions(both), table, both, 0.95)
    assert (quality.last_slice, quality.last_family) == ("2", "comparison")
    assert quality.last_slice_with == pytest.approx(table["accuracy_with"].iloc[-1])
    by_family = compare_slices(both, "family")
    assert by_family["family"].tolist() == ["arithmetic", "comparison"]
    assert answer_quality(compare_conditions(both), by_family, both, 0.95).last_family is None
