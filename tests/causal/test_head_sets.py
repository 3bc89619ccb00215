"""A set of heads against random sets: by single measurements, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from r2a_utils.causal.chosen_traces import ChosenTraces
from r2a_utils.causal.head_sets import (
    SET_WAYS,
    TurnedOver,
    domination,
    floor_p,
    set_changes,
    set_table,
    summarised_interventions,
    turned_over,
    verdict,
)
from r2a_utils.causal.interventions import (
    WAYS,
    Ablation,
    Knockout,
    answer_z,
    knockout_curves,
    knockout_profile,
    measure,
    regenerate,
)
from r2a_utils.causal.random_sets import own_seed, random_head_sets, random_spans
from r2a_utils.stats import holm
from r2a_utils.texts.trace import Trace

HEADS = ((0, 1), (2, 3))


@pytest.fixture(scope="module")
def model(make_random_model):
    return make_random_model("llama-wide-heads", seed=2)


@pytest.fixture(scope="module")
def traces(tokenizer):
    texts = ["3 plus 4 is 7. So 7.", "Take 3. Wait, 4. It is 7.", "Seven."]
    return [
        Trace.from_text(
            f"{tokenizer.bos_token}3 plus 4?<think>\n{text}\n</think>It is \\boxed{{7}}.",
            tokenizer,
            problem_id=f"p{i}",
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def sets(model):
    return [HEADS, *random_head_sets(HEADS, model.n_heads, 3, seed=1)]


def test_a_window_without_attention_has_no_point_on_the_curves(make_random_model, traces):
    hybrid = make_random_model("lfm2")  # attends in the second of three layers
    curves = knockout_curves(hybrid, traces, n_spans=1)
    assert curves["layer"].tolist() == [1] * len(WAYS) and curves.attrs["engine"] == "plain"
    wide = knockout_curves(hybrid, traces, width=2, n_spans=1)
    assert wide["layer"].tolist() == [0, 1] * len(WAYS) and not wide.isna().any(axis=None)


@pytest.fixture(scope="module")
def pool(model, traces):
    return answer_z(model, traces[2:])


def test_curves_are_means_of_each_trace_s_profiles(model, traces):
    curves = knockout_curves(model, traces, width=2, n_spans=3, seed=4)
    assert curves["edges"].tolist() == [way for way in WAYS for _ in range(model.n_layers)]
    assert set(curves["width"]) == {2} and curves.attrs["engine"] == "fast"
    for place in ("reasoning", "prompt"):
        profiles = [knockout_profile(model, t, [("answer", place)], 2)["change"] for t in traces]
        mine = curves.loc[curves["edges"] == f"answer → {place}", "effect"]
        np.testing.assert_allclose(mine, np.mean(profiles, axis=0), atol=1e-5)
    spans = []
    for trace in traces:
        reasoning = trace.segments["reasoning"]
        drawn = random_spans(trace, reasoning.stop - reasoning.start, 3, own_seed(trace, 4))
        spans += [knockout_profile(model, trace, [("answer", s)], 2)["change"] for s in drawn]
    mine = curves.loc[curves["edges"] == WAYS[1], "effect"]
    np.testing.assert_allclose(mine, np.mean(spans, axis=0), atol=1e-5)


def test_changes_of_sets_are_means_of_single_measurements(model, traces, sets, pool):
    changes = set_changes(model, traces[:2], sets, pool, n_draws=2, seed=5)
    assert list(changes) == list(SET_WAYS)
    assert {way: found.shape for way, found in changes.items()} == {
        "knockout": (1, 4), "zero": (1, 4), "mean": (1, 4), "resample": (2, 4),
    }  # fmt: skip
    for way, change, draw in (
        ("knockout", Knockout(heads=sets[2]), 0),
        ("mean", Ablation(sets[2], "mean"), 0),
        ("resample", Ablation(sets[2], "resample", draw=1), 1),
    ):
        alone = [measure(model, t, [change], pool=pool, seed=5).change[0] for t in traces[:2]]
        assert changes[way][draw, 2] == pytest.approx(np.mean(alone), abs=1e-5)


def test_the_table_takes_the_mean_over_draws_and_corrects_for_the_ways():
    by_draw = {
        "zero": np.array([[-1.0, 0.0, 0.0, 0.0]]),
        "resample": np.array([[-1.0, 0.0, -3.0, 0.0], [0.0, 0.0, -1.0, 0.0]]),
    }
    table = set_table(by_draw)
    assert table.loc["resample", ["rfh", "low"]].tolist() == [-0.5, -2.0]
    assert table["p"].tolist() == [1 / 4, 2 / 4]
    assert table["p, Holm"].tolist() == holm([1 / 4, 2 / 4]).tolist()


def test_answers_turn_over_as_they_are_rewritten(model, traces, sets, pool):
    found = turned_over(model, traces[:2], sets, pool, seed=5)
    # Random weights write no box of their own accord.
    frames = [regenerate(model, t, [Knockout()], max_new_tokens=96) for t in traces[:2]]
    assert all(frame["unaltered"].isna().all() for frame in frames)
    assert found.n == 0 and found.shares == {} and found.table.empty


def test_shares_of_the_bundled_model_are_counted_trace_by_trace(tiny):
    texts = [("scarf", "hat"), ("lamp", "cup")]
    traces = [
        Trace.from_text(
            f"{tiny.tokenizer.bos_token}Which is heavier, the {a} or the {b}?<think>\n"
            f"The {a} is heavier than the {b}. So it is the {a}.\n</think>\n\n"
            f"The answer is \\boxed{{{a}}}.",
            tiny.tokenizer,
            problem_id=a,
        )
        for a, b in texts
    ]
    sets = [HEADS, ((0, 0), (2, 2)), tuple((i, h) for i in range(2) for h in range(tiny.n_heads))]
    pool = answer_z(tiny, traces)
    found = turned_over(tiny, traces, sets, pool)
    changes = [Ablation(heads) for heads in sets]
    frames = [regenerate(tiny, t, changes, max_new_tokens=96) for t in traces]
    counted = [f["flip"] | f["lost"] for f in frames if f["unaltered"].notna().all()]
    assert found.n == len(counted) == 2
    np.testing.assert_allclose(found.shares["zero"], np.mean(counted, axis=0))
    assert found.table.loc["zero", "rfh"] == found.shares["zero"][0]
    assert found.table.loc["zero", "difference"] == pytest.approx(
        np.mean([c[0] - c[1:].mean() for c in counted])
    )


def test_a_head_dominates_where_its_sets_cost_more_than_all_others():
    sets = [HEADS, ((0, 1), (2, 0)), ((0, 2), (2, 3)), ((0, 3), (2, 3)), ((0, 3), (2, 4))]
    changes = np.array([-0.5, -0.4, -2.0, -3.0, -0.6])
    found = domination((2, 3), sets, changes)
    assert (found.dominated, found.dominated_low, found.dominated_high) == (2, -3.0, -2.0)
    assert (found.others, found.others_low, found.others_beyond) == (2, -0.6, 1)
    overlapping = domination((2, 3), sets, np.array([-0.5, -2.5, -2.0, -3.0, -0.6]))
    assert overlapping.dominated == 0 and overlapping.others_low is None
    nowhere = domination((5, 5), sets, changes)
    assert nowhere.dominated == 0 and nowhere.others == 4


def test_what_is_told_of_heads_is_what_was_measured(model, traces, sets):
    curves = pd.DataFrame({"edges": np.repeat(WAYS, 3), "layer": [0, 1, 2] * 3})
    curves["effect"] = [-1, -4, -2, 0, -0.5, 0, 0, 0, 0]
    curves.attrs["engine"] = "plain"
    lost = np.zeros((3, 6))
    lost[2, 3] = 1.5
    by_draw = {way: np.array([[-1.0, 0.0, -2.0, 0.0]]) for way in SET_WAYS}
    by_draw["resample"] = np.array([[-1.0, 0, 0, 0], [-3.0, 0, 0, 0]])
    told = summarised_interventions(
        model,
        ChosenTraces(traces[:2], traces[2:], 1),
        sets,
        curves,
        -3.5,
        lost,
        by_draw,
        TurnedOver(1, {}, pd.DataFrame()),
    )
    assert (told.n, told.n_fresh, told.n_heads, told.n_random_sets) == (2, 1, 2, 3)
    assert told.engine == "plain"
    assert (told.strongest_layer, told.strongest_change, told.strongest_random) == (1, -4, -0.5)
    assert (told.top_is_rfh, told.top_head_lost) == (True, 1.5) and "3" in told.top_head
    assert (told.resample_low, told.resample_high, told.n_draws) == (-3, -1, 2)
    assert told.smallest_possible_p == 1 and told.flips == {} and told.n_flip_sets == 0
    assert told.sets["knockout"]["p"] == 2 / 4


@pytest.mark.parametrize(("n", "floor"), [(79, 0.05), (78, 4 / 79)])
def test_what_could_not_pass_the_level_is_no_null_result(n, floor):
    """Four ways: with 79 random sets the smallest p is the level itself, with 78 just above it."""
    sets = [((0, 0),), *[((0, 1 + i),) for i in range(n)]]
    by_draw = dict.fromkeys(SET_WAYS, np.linspace(-1, 0, n + 1)[None])
    assert floor_p((0, 0), sets, by_draw) == pytest.approx(floor)
    assert verdict(floor, floor) == ("different" if n == 79 else "cannot tell")
    assert verdict(0.5, floor) == ("no difference found" if n == 79 else "cannot tell")


def test_a_dominating_head_that_the_set_lacks_raises_the_floor_in_every_way():
    sets = [((0, 0),), *[((0, 99),)] * 11, *[((0, 1 + i),) for i in range(89)]]
    ahead = np.array([-0.4, *[-3.0] * 11, *np.linspace(-0.5, 0, 89)])[None]
    every = dict.fromkeys(SET_WAYS, ahead)
    floor = floor_p((0, 99), sets, every)
    assert floor == pytest.approx(4 * 12 / 101) and verdict(0.55, floor) == "cannot tell"
    apart = {**every, "mean": np.linspace(-1, 0, 101)[::-1][None]}
    assert floor_p((0, 99), sets, apart) == pytest.approx(4 / 101)
    assert floor_p((0, 0), sets, every) == pytest.approx(4 / 101)
