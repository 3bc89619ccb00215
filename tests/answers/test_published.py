"""The paper's stage 1 read anew: counts from its t, its funnel, its areas after Holm."""

from __future__ import annotations

import pytest

from r2a_utils.answers.published import (
    most_unfinished,
    published_comparison,
    published_funnel,
    published_scores,
)
from r2a_utils.stats import paired_t


def test_the_counts_that_are_found_give_the_papers_t_again():
    for row in published_comparison().itertuples():
        same = row.n - row.only_with - row.only_without
        pairs = [(1, 0)] * row.only_with + [(0, 1)] * row.only_without + [(1, 1)] * same
        assert paired_t(*zip(*pairs, strict=True))[0] == pytest.approx(row.t, abs=1e-3)
        assert row.difference == pytest.approx((row.only_with - row.only_without) / row.n, abs=1e-3)


def test_the_papers_filters_only_ever_leave_problems_out():
    funnel = published_funnel()
    assert set(funnel["asked"]) == {500}
    assert (funnel.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    unfinished = most_unfinished(funnel)
    assert unfinished * 500 == pytest.approx(round(unfinished * 500))
    assert 0 < unfinished < 1


def test_both_conditions_of_an_area_share_one_verdict_and_a_stricter_level_passes_fewer():
    scores = published_scores()
    assert scores.groupby(["panel", "label"]).size().eq(2).all()
    assert scores.groupby(["panel", "label"])["differs"].nunique().eq(1).all()
    assert 0 < published_scores(1e-6)["differs"].sum() <= scores["differs"].sum() < len(scores)
    assert not scores.loc[scores["p"] > 0.05, "differs"].any()
