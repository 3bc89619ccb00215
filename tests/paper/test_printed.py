"""The numbers that the paper prints hang together."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils import paper

WITH, WITHOUT = "with_reasoning", "without_reasoning"


def test_the_published_numbers_hang_together():
    published = paper.published()
    stage1 = published["stage1_math500"]
    for row in stage1["rows"]:
        funnel = stage1["funnel"][row["model"]]
        for counts in funnel.values():
            assert counts == sorted(counts, reverse=True) and counts[0] == 500
        # A pair needs both answers: no more than the smaller arm, no fewer than both leave over.
        with_, without = funnel[WITH][-1], funnel[WITHOUT][-1]
        assert with_ + without - 500 <= row["n"] <= min(with_, without)
    for row in published["stage1_wildbench"]["rows"]:
        assert sum(row["n"][:-1]) == row["n"][-1]
    for masses in list(published["stage2_mean_segment_mass_answer"].values())[2:]:
        assert sum(masses) == pytest.approx(1, abs=5e-4)
    assert "1e43ea686b39aa67ba3e87daca947fcafd170f3d" in published["paper"]["code"]


def test_discordant_pairs_are_found_or_refused():
    # 20 pairs, 6 right only with and 1 only without reasoning: d = 0.25, s² = (7/20 - 1/16)·20/19.
    t = 0.25 / np.sqrt((7 / 20 - 1 / 16) * 20 / 19 / 20)
    assert paper.discordant_pairs(20, 0.75, 0.5, t) == (6, 1)
    with pytest.raises(ValueError, match="0 pairs of counts"):
        paper.discordant_pairs(20, 0.75, 0.5, t + 0.01)


def test_the_published_findings_are_a_row_a_distill():
    findings = paper.published_findings()
    assert list(findings.index) == list(paper.published()["models"])
    assert findings.loc["R1-Llama-8B"].tolist() == [0.935, 0.797, 0.1383, 0.29, 0.38]
