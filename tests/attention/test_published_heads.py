"""The distills' heads as the book's file has them, and the printed lists beside them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from r2a_utils.attention import distills as module
from r2a_utils.attention.distills import FILE, lifts_of_distills, measure_distills, read_distills
from r2a_utils.attention.heads import head_scores, uniform_mass
from r2a_utils.attention.published_heads import (
    printed_heads,
    printed_places,
    ranked_heads,
    summarise_published,
)
from r2a_utils.attention.segment_attention import answer_by_segment, lift_by_head, segment_controls
from r2a_utils.paper import data_folder, load_segment_mass, mass_files, published
from r2a_utils.texts.trace import SEGMENTS

WHO = "R1-Qwen-1.5B"


@pytest.fixture(scope="module")
def distills():
    return read_distills()


def numbers(tree) -> list[float]:
    """All numbers of a JSON value, in order; NaN where there is none."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        return [number for part in tree for number in numbers(part)]
    return [] if isinstance(tree, str) else [np.nan if tree is None else tree]


def test_the_file_is_what_the_authors_masses_give(paper_data):
    kept, made = json.loads(FILE.read_text(encoding="utf-8")), measure_distills(paper_data)
    assert kept["source"] == made["source"] and kept["made_by"] == made["made_by"]
    assert kept["models"].keys() == made["models"].keys()
    for who, model in made["models"].items():
        assert kept["models"][who]["files"] == model["files"]
        rounded = 1.5 * 10**-module.DIGITS
        np.testing.assert_allclose(numbers(kept["models"][who]), numbers(model), atol=rounded)


def test_the_command_writes_the_file(paper_data, distills, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE", tmp_path / "distills.json")
    monkeypatch.setenv("R2A_PAPER_DATA", str(paper_data))
    module.main()
    written = read_distills()
    assert list(written) == list(distills)
    np.testing.assert_allclose(written[WHO].scores, distills[WHO].scores, atol=1e-4)


def test_no_folder_is_needed_to_read_it_and_its_numbers_are_shares(distills, monkeypatch):
    monkeypatch.delenv("R2A_PAPER_DATA", raising=False)
    with pytest.raises(FileNotFoundError):
        data_folder()
    for who, distill in read_distills().items():
        n_cases = {cases.shape for cases in distill.answer.values()}
        assert n_cases == {(100, len(SEGMENTS))}
        assert all(
            np.allclose(cases.sum(axis=1), 1, atol=1e-3) for cases in distill.answer.values()
        )
        scores = distill.scores
        assert (scores["ci_low"] <= scores["mass"]).all() and (scores["mass"] <= 1).all()
        assert scores["mass"].is_monotonic_decreasing
        assert (scores["sink_free"] >= scores["mass"] - 1e-4).all()
        assert scores["lift"].max() < distill.ceiling
        assert distill.by_head("mass").mean() == pytest.approx(
            distill.controls["mass"]["reasoning"], abs=1e-4
        ), who


def test_counts_agree_with_the_masses_themselves(paper_data, distills):
    summary, lifts = summarise_published(distills), lifts_of_distills(distills)
    for alias in mass_files(paper_data):
        mass = load_segment_mass(paper_data, alias)
        who = mass.attrs["model"]
        found, scores = summary.models[who], head_scores(mass)
        lift = segment_controls(mass)["lift"]["reasoning"]
        assert lifts.lift_reasoning[who] == pytest.approx(lift, abs=1e-4)
        assert lifts.above[who] == (lift_by_head(mass) > 1).sum()
        answer = distills[who].answer["with_reasoning"]
        np.testing.assert_allclose(answer, answer_by_segment(mass), atol=1e-4)
        assert found.heads == len(scores)
        assert found.lift == pytest.approx(scores["lift"].mean(), abs=1e-4)
        assert found.above == (scores["lift"] > 1).sum()
        assert found.ceiling == pytest.approx(float((1 / uniform_mass(mass)).mean()), abs=1e-4)


def test_the_printed_heads_are_marked_and_what_our_ranking_lacks_is_counted(distills):
    distill = distills[WHO]
    printed = printed_heads()[WHO]["reasoning-focus head"]
    ranked = ranked_heads({WHO: distill})
    marked = ranked[ranked["printed"]]
    assert set(zip(marked["layer"], marked["head"], strict=True)) == set(printed)
    assert ranked["rank"].tolist() == list(range(1, len(ranked) + 1))
    order = {head: place for place, head in enumerate(printed)}
    last = len(order)
    places = [order.get(head, last) for head in zip(ranked["layer"], ranked["head"], strict=True)]
    # the same heads with the printed ones in front: nothing is lost
    scores = distill.scores.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
    same = summarise_published({WHO: replace(distill, scores=scores)})
    assert (same.printed, same.lost, same.models[WHO].shared) == (10, 0, 10)
    # the tenth, which is on the list of retrieval heads or not, behind another head
    swapped = scores.iloc[[*range(9), 10, 9, *range(11, len(scores))]].reset_index(drop=True)
    swapped.loc[10, "ci_high"] = swapped.loc[9, "mass"] - 0.01
    less = summarise_published({WHO: replace(distill, scores=swapped)})
    assert (less.lost, less.lost_below_cut, less.models[WHO].shared) == (1, 1, 9)
    assert less.lost_retrieval == int(printed[9] in printed_heads()[WHO]["retrieval head"])


def test_a_preference_is_counted_by_its_sign(distills):
    distill = distills[WHO]
    liked = replace(distill, scores=distill.scores.assign(length_matched=1.0))
    found = summarise_published({WHO: liked})
    assert (found.prefer_prompt, found.models[WHO].prefer_reasoning) == (0, 336)
    shunned = replace(distill, scores=distill.scores.assign(length_matched=-1.0))
    found = summarise_published({WHO: shunned})
    assert (found.prefer_prompt, found.models[WHO].prefer_reasoning) == (10, 0)


def test_overlaps_with_the_printed_retrieval_heads_are_those_that_are_known():
    places = printed_places()
    assert list(places.index) == list(published()["models"])
    assert places["shared"].to_dict() == {"R1-Llama-8B": 2, "R1-Qwen-7B": 1, WHO: 4}
    assert places["p"][WHO] == pytest.approx(8e-5, abs=5e-6)
    assert (places["p_groups"] >= 0.5 * places["p"]).all()
    assert places["in_middle"][WHO] == sum(
        28 / 3 < layer + 0.5 < 56 / 3 for layer, _ in printed_heads()[WHO]["reasoning-focus head"]
    )


@pytest.mark.parametrize("who", ["R1-Llama-8B", "R1-Qwen-7B", WHO])
def test_each_model_has_three_printed_lists(who):
    assert {len(heads) for heads in printed_heads()[who].values()} == {10}
