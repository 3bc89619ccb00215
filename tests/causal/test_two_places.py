"""The two places of many pairs: measured as one pair is, and summed up by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from r2a_utils.causal.attribution import BUDGETS, TAIL, check_attribution
from r2a_utils.causal.pairs import PROTOCOLS, ContrastPair, under_protocol
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.causal.patching_controls import (
    CONTROLS,
    OTHER_DONORS,
    control_table,
    controls_at_two_places,
    donors,
)
from r2a_utils.causal.recorded_pairs import record_pair
from r2a_utils.causal.two_places import (
    PLACES,
    by_depth,
    case_curves,
    crossed_flips,
    crossing,
    early_effect,
    first_and_last,
    flip_rates,
    mean_curve,
    patch_two_places,
    place_curves,
    summarised_patching,
    two_places,
)
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, answer_span

LENGTH, CONCLUSION = 40, 33
# [pair, layer, place]: the conclusion's token counts before two layers, the last token after them.
EFFECTS = np.array([[[1.0, 0.0], [0.8, 0.2], [0.0, 1.0]], [[0.6, 0.0], [0.4, 0.4], [0.2, 0.8]]])


@pytest.fixture(scope="module")
def model(make_random_model):
    return make_random_model("llama-wide-heads", seed=2)


@pytest.fixture(scope="module")
def pairs(model):
    """Six pairs over three answers, with gaps that the random weights can tell."""
    found, seed = [], 0
    answers = [((5,), (6,)), ((6,), (7,)), ((7,), (5,))]
    while len(found) < 6:
        clean = np.random.default_rng(seed).integers(0, 90, LENGTH)
        corrupted = clean.copy()
        corrupted[[4, CONCLUSION]] += 3
        pair = ContrastPair(clean, corrupted, *answers[len(found) % 3], problem_id=str(seed))
        recorded = record_pair(model, pair)
        if abs(recorded.gap) >= 1:
            found.append(recorded)
        seed += 1
    return found


def test_two_places_are_measured_as_one_pair_is(model, pairs):
    found = patch_two_places(model, pairs, direction="noising")
    assert found["effect"].dims == ("pair", "layer", "place")
    for i, recorded in enumerate(pairs):
        grid = patch_metrics(model, recorded, [CONCLUSION, LENGTH - 1], direction="noising")
        np.testing.assert_array_equal(found["effect"][i], grid["effect"])
        np.testing.assert_array_equal(found["flip"][i], grid["flip"])
        assert grid.noise_floor <= found.noise_floor
    assert found.engine == "fast"
    none = patch_two_places(model, [])
    assert none["effect"].shape == (0, model.n_layers, 2) and none.noise_floor == 0


def test_a_pair_whose_conclusion_is_no_single_token_has_no_place():
    pair = ContrastPair((1, 2, 3), (1, 9, 3), 5, 6, segments={"reasoning": slice(2, 3)})
    with pytest.raises(ValueError, match="no single token states the conclusion"):
        two_places(pair)


def test_curves_are_means_over_pairs_within_their_intervals():
    curves = place_curves(EFFECTS, called="{}, here")
    assert list(dict.fromkeys(curves["curve"])) == [f"{place}, here" for place in PLACES]
    np.testing.assert_allclose(curves["mean"], [0.8, 0.6, 0.1, 0, 0.3, 0.9])
    assert (curves["ci_low"] <= curves["mean"]).all() and (
        curves["mean"] <= curves["ci_high"]
    ).all()
    with pytest.raises(ValueError, match="cases are needed"):
        mean_curve("none", np.empty((0, 3)))
    assert by_depth(curves, 3)["layer"].max() == pytest.approx(2 / 3)


def test_the_curves_cross_where_the_last_token_takes_over():
    found = crossing(EFFECTS)
    assert (found.layer, found.low, found.high, found.share) == (2, 2, 2, 1.0)
    assert crossing(EFFECTS[:, :2]).layer is None
    never = crossing(EFFECTS[:1, :2])
    assert (never.layer, never.low, never.high, never.share) == (None, None, None, 0.0)


def test_the_early_effect_is_of_the_first_third_of_the_layers():
    assert early_effect(EFFECTS) == pytest.approx(0.8)
    assert early_effect(np.concatenate([EFFECTS, EFFECTS[:, :1]], 1)) == pytest.approx(0.7)
    assert early_effect(EFFECTS[:0]) is None


def test_flips_are_counted_at_a_layer_that_other_pairs_chose():
    flips = np.zeros((40, 3, 2), dtype=bool)
    flips[:30, 1, 0] = flips[:20, 2, 1] = True
    table = flip_rates(flips, ["a"] * 20 + ["b"] * 20)
    assert table["rate"].tolist() == [1.0, 0.5, 1.0, 0.0] and set(table["n"]) == {20}
    assert (table.ci_low[1], table.ci_high[1]) == wilson_interval(10, 20)


def test_the_best_of_many_layers_by_chance_does_not_flatter_itself():
    """Coins: at the best of 30 layers most of 12 flip, at one chosen on others half of them do."""
    throws = np.random.default_rng(0).random((40, 12, 30, 2)) < 0.5
    best = np.mean([coins[..., 0].mean(0).max() for coins in throws])
    fair = np.mean([crossed_flips(coins)[:, 0].mean() for coins in throws])
    assert best > 0.75 and abs(fair - 0.5) < 0.08
    alone = crossed_flips(np.ones((1, 3, 2), dtype=bool))
    assert alone.all()


def test_protocols_without_a_pair_have_no_row():
    table = first_and_last({"own": EFFECTS, "probe": EFFECTS[:0]})
    assert table.index.tolist() == ["own"]
    assert table.loc["own"].tolist() == pytest.approx([2, 0.8, 0.1, 0.0, 0.9])


def test_what_is_told_of_a_run_is_what_was_measured(model):
    effect = xr.DataArray(EFFECTS, dims=("pair", "layer", "place"))
    attrs = {"noise_floor": 1e-6, "engine": "plain"}
    found = xr.Dataset({"effect": effect, "flip": effect > 0.5}, attrs=attrs)
    nothing = EFFECTS[:0]

    told = summarised_patching(
        model,
        "own",
        {"a": 5, "b": 2},
        ["a", "b"],
        {"own": EFFECTS, "probe": nothing, "boxed_probe": EFFECTS[:1]},
        found,
        found,
        {"same_answer": nothing, "matched_noise": -EFFECTS / 2},
        {"probe": None, "boxed_probe": 2.0},
    )
    assert (told.asked, told.n, told.crossing, told.engine) == (7, 2, 2, "plain")
    assert told.flips_of_asked == pytest.approx(told.flip_rate * 2 / 7)
    assert [(f.family, f.asked, f.n, f.first) for f in told.families] == [
        ("a", 5, 1, 1.0),
        ("b", 2, 1, 0.6),
    ]
    assert (told.flipping_first, told.last_last) == pytest.approx((0.8, 0.9))
    assert told.early_probe is None and told.early_boxed_probe == pytest.approx(1.0)
    assert [(other.protocol, other.n) for other in told.others] == [("boxed_probe", 1)]
    assert told.largest_control == pytest.approx(0.45) and told.same_answer is None


def test_a_case_of_the_authors_has_two_curves_by_depth():
    case = xr.DataArray(
        [[0.9, 0.0], [0.1, 0.8]],
        dims=("layer", "position"),
        coords={
            "position": [3, 8],
            "clean_token": ("position", ["lamp", "is"]),
            "corrupted_token": ("position", ["vase", "is"]),
        },
        attrs={"model": "a distill"},
    )
    curves = case_curves(case)
    assert curves["mean"].tolist() == [0.9, 0.1, 0.0, 0.8]
    assert curves["layer"].tolist() == [0, 0.5, 0, 0.5]
    with pytest.raises(ValueError, match="are the same"):
        case_curves(case.assign_coords(corrupted_token=case["clean_token"]))


# Controls ---------------------------------------------------------------------------------------


def test_donors_conclude_what_their_control_says_at_the_receiver_s_distance(pairs):
    everything = [recorded.pair for recorded in pairs]
    for pair in everything:
        sides = {(p.clean_ids, p.answers[0]) for p in everything}
        sides |= {(p.corrupted_ids, p.answers[1]) for p in everything}
        answer_of = dict(sides)
        same, other = (donors(everything, pair, control) for control in OTHER_DONORS[::-1])
        assert same and other
        assert {answer_of[ids] for ids in same} == {pair.answers[1]}
        assert not {answer_of[ids] for ids in other} & set(pair.answers)
        assert not {pair.clean_ids, pair.corrupted_ids} & {*same, *other}
    with pytest.raises(ValueError, match="takes no other donor"):
        donors(everything, pair, "matched_noise")


def test_donors_elsewhere_are_none():
    near = ContrastPair((1, 2, 3), (1, 9, 3), 5, 6)
    far = ContrastPair((4, 2, 3, 3), (4, 9, 3, 3), 7, 6)
    assert donors([near, far], near, "same_answer") == []


def test_every_control_has_its_pairs(model, pairs):
    found = controls_at_two_places(model, pairs, seed=3)
    assert list(found) == list(CONTROLS)
    assert (found["same_prompt"] == 0).all()
    for control in ("same_prompt", "wrong_position", "matched_noise"):
        assert found[control].shape == (len(pairs), model.n_layers, 2)
    again = controls_at_two_places(model, pairs, seed=3)
    np.testing.assert_array_equal(found["random_donor"], again["random_donor"])
    alone = controls_at_two_places(model, pairs[:1])
    assert len(alone["random_donor"]) == len(alone["same_answer"]) == 0


def test_the_table_of_controls_shows_the_largest_mean():
    table = control_table({"matched_noise": EFFECTS * [1, -1], "same_answer": EFFECTS[:0]})
    assert table.index.tolist() == [("matched_noise", place) for place in PLACES]
    assert table.iloc[0].tolist() == pytest.approx([2, 0, 0.8, 1.0])
    assert table.iloc[1].tolist() == pytest.approx([2, 2, -0.9, 1.0])


# Attribution and protocols ----------------------------------------------------------------------


def test_attribution_is_checked_on_the_differing_tokens_and_the_tail(model, pairs):
    checked = check_attribution(model, pairs[:2])
    cells = model.n_layers * len({4, *range(LENGTH - TAIL, LENGTH)})
    assert checked.n == 2 and len(checked.exact) == len(checked.estimate) == 2 * cells
    told = checked.summary()
    assert told.recall == checked.quality.loc["atp", BUDGETS[0]]
    assert told.recall_low <= told.recall <= told.recall_high
    assert told.spearman_star == checked.quality.loc["atp*", "Spearman"]
    assert (told.n, told.budget, told.tail) == (2, BUDGETS[0], TAIL)


def test_a_probe_states_the_answer_as_the_question_names_it(tokenizer):
    text = f"{tokenizer.bos_token}Which?<think>\nIt is 7.\n</think>Long story."
    trace = Trace.from_text(text, tokenizer, problem_id="a")
    named = Problem("a", "Which?", "lamp", {"article": "the "})
    assert under_protocol(trace, tokenizer, named, "own") is trace
    said = {name: under_protocol(trace, tokenizer, named, name) for name in list(PROTOCOLS)[1:]}
    assert said["probe"].reasoning_text.endswith("\nFinal answer is the lamp.\n")
    assert said["probe"].answer_text.endswith("Final answer is the lamp.")
    assert said["boxed_probe"].reasoning_text.endswith("\nFinal answer is \\boxed{lamp}.\n")
    for probed in said.values():
        assert "".join(probed.tokens[answer_span(probed)]).strip() == "lamp"
    with pytest.raises(ValueError, match="unknown protocol 'probes'"):
        under_protocol(trace, tokenizer, named, "probes")
