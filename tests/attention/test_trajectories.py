"""Paths, cues and preferences: what is planted is found, and a null stays a null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from r2a_utils.attention.mass import attention_profile
from r2a_utils.attention.other_texts import as_generic_text
from r2a_utils.attention.trajectories import (
    CueLift,
    best_tracking,
    cue_lift,
    overall_cue_lift,
    preference,
    tracking,
)
from r2a_utils.texts.trace import Trace, cues, sentences


def profile(paths: np.ndarray) -> xr.Dataset:
    """An attention profile with given places [layer, head, query]."""
    return xr.Dataset({"mean_position": (("layer", "head", "query"), paths)})


def walk(n: int, generator: np.random.Generator) -> np.ndarray:
    """A smooth path that leads nowhere in particular: a random walk."""
    return np.cumsum(generator.normal(size=n))


@pytest.fixture(scope="module")
def tracked():
    """Heads (0, 0) forwards, (0, 1) backwards, (1, 0) a random walk, (1, 1) stands still."""
    generator = np.random.default_rng(0)
    profiles = []
    for _ in range(30):
        n = int(generator.integers(12, 40))
        steps = np.arange(n)
        profiles.append(
            profile(
                np.array(
                    [
                        [steps + generator.normal(0, 2, n), -steps + generator.normal(0, 2, n)],
                        [walk(n, generator), np.zeros(n)],
                    ]
                )
            )
        )
    return tracking(profiles).set_index(["layer", "head"])


def test_a_head_that_walks_along_is_told_from_one_that_wanders(tracked):
    assert tracked.loc[(0, 0), "rho"] > 0.9 and tracked.loc[(0, 1), "rho"] < -0.9
    assert tracked.loc[(0, 0), "p_familywise"] < 0.01
    assert tracked.loc[(0, 1), "p"] < 0.01
    assert tracked.loc[(1, 0), "p"] > 0.05 and tracked.loc[(1, 0), "p_familywise"] > 0.05
    assert tracked.loc[(1, 0), "ci_low"] < 0 < tracked.loc[(1, 0), "ci_high"]


def test_layers_without_attention_have_no_rows():
    generator = np.random.default_rng(1)
    paths = [np.arange(20) + generator.normal(0, 2, (3, 2, 20)) for _ in range(5)]
    hybrids = [np.where(np.arange(3)[:, None, None] == 1, np.nan, path) for path in paths]
    whole, hybrid = (tracking([profile(p) for p in each]) for each in (paths, hybrids))
    assert set(hybrid["layer"]) == {0, 2}
    columns = ["layer", "head", "rho", "slope", "n"]
    assert hybrid[columns].equals(whole.loc[whole["layer"] != 1, columns].reset_index(drop=True))
    assert not hybrid.isna().any(axis=None)


def test_a_head_that_stands_still_has_no_direction(tracked):
    assert tracked.loc[(1, 1), ["rho", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    assert tracked.loc[(1, 1), "p"] == 1.0


def test_smooth_wandering_is_rarely_called_significant():
    """The null keeps a path's smoothness: random walks pass at about the level of the test."""
    generator = np.random.default_rng(5)
    traces = [profile(np.array([[walk(25, generator) for _ in range(120)]])) for _ in range(20)]
    table = tracking(traces, draws=500)
    assert (table["p"] < 0.05).mean() < 0.12
    assert table["p_familywise"].min() > 0.005


def test_looking_a_fixed_way_back_shows_as_a_slope_of_one(tracked):
    table = tracking([profile(np.arange(50.0, 70.0)[None, None])] * 3)
    assert table["rho"].item() == pytest.approx(1) and table["slope"].item() == pytest.approx(1)
    assert tracked.loc[(0, 1), "slope"] == pytest.approx(-1, abs=0.05)


def test_rho_is_spearman():
    from scipy.stats import spearmanr

    path = np.random.default_rng(1).normal(size=17)
    table = tracking([profile(path[None, None])] * 2)
    assert table["rho"].item() == pytest.approx(spearmanr(np.arange(17), path).statistic)


def test_short_answers_are_left_out_and_counted():
    long, short = profile(np.arange(9.0)[None, None]), profile(np.arange(3.0)[None, None])
    assert tracking([long, short, long])["n"].item() == 2
    with pytest.raises(ValueError, match="no answer has 5 tokens"):
        tracking([short])


def test_tracking_takes_the_profiles_of_a_model(make_random_model, random_trace):
    model = make_random_model("qwen2")
    traces = [random_trace(answer=9, seed=i) for i in range(3)]
    table = tracking([attention_profile(model, trace) for trace in traces])
    assert len(table) == model.n_layers * model.n_heads and table["rho"].between(-1, 1).all()


REASONING = (
    "We have three and four of them. That makes seven of them here. "
    "Wait, that is not right at all. So we take the first. "
    "Then we add the other one to it. Hmm, this seems to be fine now. Good, so it is done then."
)


@pytest.fixture(scope="module")
def cue_trace(tokenizer) -> Trace:
    text = f"{tokenizer.bos_token}How many? <think>\n{REASONING}\n</think>\n\nIt is \\boxed{{7}}."
    return Trace.from_text(text, tokenizer, problem_id="cues")


def planted_read(trace: Trace, boost: float) -> np.ndarray:
    """A reader that gives what follows a cue, to the end of its sentence, `boost` times as much."""
    read = np.ones(len(trace))
    for cue in cues(trace):
        stop = next(s.stop for s in sentences(trace) if s.stop > cue.position)
        read[cue.position : stop] = boost
    return read / read.sum()


def test_cue_lift_is_the_planted_factor(cue_trace):
    assert [cue.word for cue in cues(cue_trace)] == ["wait", "hmm"]
    table = cue_lift([cue_trace] * 5, [planted_read(cue_trace, 3.0)] * 5).set_index("word")
    assert table.loc["all cues", "n"] == 10 and table.loc["wait", "n"] == 5
    np.testing.assert_allclose(table["lift"], 3.0)
    np.testing.assert_allclose(table[["ci_low", "ci_high"]], 3.0)


def test_the_overall_lift_has_an_interval_from_two_traces_on(cue_trace):
    read = planted_read(cue_trace, 3.0)
    several = overall_cue_lift(cue_lift([cue_trace] * 2, [read] * 2))
    alone = overall_cue_lift(cue_lift([cue_trace], [read]))
    assert several.lift == alone.lift > 1 and several.n == 2 * alone.n
    assert several.low <= several.lift <= several.high
    assert alone.low is None and alone.high is None
    assert overall_cue_lift(None) == CueLift(0)


def test_reading_more_of_late_text_is_no_cue_lift(cue_trace):
    """A head that simply reads later text more, at a steady rate, gets a lift of 1."""
    ramp = np.arange(len(cue_trace), dtype=float)
    np.testing.assert_allclose(cue_lift([cue_trace] * 2, [ramp] * 2)["lift"], 1.0)


def test_cues_without_a_place_to_compare_with_are_counted(tokenizer):
    text = f"{tokenizer.bos_token}How? <think>\nWait, it is seven now.\n</think>\n\nIt is 7."
    trace = Trace.from_text(text, tokenizer)
    table = cue_lift([trace], [np.ones(len(trace))])
    assert table["left_out"].tolist() == [1, 1] and table["n"].tolist() == [0, 0]
    assert np.isnan(table["lift"]).all()


def test_no_cue_at_all_is_said(random_trace):
    trace = random_trace()
    assert not cues(trace)
    with pytest.raises(ValueError, match="no trace has a cue"):
        cue_lift([trace], [np.ones(len(trace))])


def test_reads_of_another_length_are_refused(cue_trace):
    with pytest.raises(ValueError, match=r"trace cues: \d+ tokens, but reads"):
        cue_lift([cue_trace], [np.ones(3)])


def test_preference_is_one_half_without_any():
    generator = np.random.default_rng(0)
    mass = xr.DataArray(
        generator.uniform(0, 0.1, (200, 2, 2, 3)),
        dims=("trace", "layer", "head", "token_set"),
        coords={"token_set": ["wrong", "corrected", "other"]},
    )
    mass[:, 1, 1, 1] *= 4
    mass[:, 0, 1, :2] = 0
    table = preference(mass, "corrected", "wrong").set_index(["layer", "head"])
    assert table.index[0] == (1, 1) and table.loc[(1, 1), "ci_low"] > 0.6
    assert table.loc[(0, 0), "ci_low"] < 0.5 < table.loc[(0, 0), "ci_high"]
    assert table.loc[(0, 1), "share"] == 0.5


def test_a_preference_counts_traces_and_not_their_cases():
    # One trace with nine cases for the first set, nine traces with one case each against it.
    values = np.zeros((18, 1, 1, 2))
    values[:9, ..., 0], values[9:, ..., 1] = 0.5, 0.5
    mass = xr.DataArray(
        values,
        dims=("trace", "layer", "head", "token_set"),
        coords={"trace": ["a"] * 9 + list("bcdefghij"), "token_set": ["first", "second"]},
    )
    found = preference(mass, "first", "second").iloc[0]
    assert (found["share"], found["n"]) == (pytest.approx(0.1), 10)


def test_generic_text_keeps_the_borders_and_nothing_else(tokenizer, random_trace):
    trace = random_trace(reasoning=30)
    passage = "A long walk along the river leads to the old mill and back again. " * 10
    generic = as_generic_text(trace, passage, tokenizer)
    assert generic.segments == trace.segments and len(generic) == len(trace)
    assert generic.token_ids[0] == trace.token_ids[0]
    assert "".join(generic.tokens[1:]) == passage[: len("".join(generic.tokens[1:]))]
    with pytest.raises(ValueError, match="give a longer passage"):
        as_generic_text(trace, "too short", tokenizer)


def test_what_is_beyond_distance_is_the_most_of_the_heads_that_walk_forwards():
    """A head that walks backwards may differ from its profile more, and follows nothing."""
    columns = ["layer", "head", "RFH", "rho", "ci_low", "ci_high", "p_familywise", "n"]
    columns += ["beyond", "beyond_low", "beyond_high", "beyond_p"]
    rows = [
        (0, 1, True, 0.6, 0.5, 0.7, 0.01, 9, 0.1, 0.0, 0.2, 0.2),
        (2, 3, False, 0.4, 0.3, 0.5, 0.01, 9, 0.3, 0.2, 0.4, 0.01),
        (1, 1, False, -0.2, -0.3, -0.1, 0.01, 9, 0.5, 0.4, 0.6, 0.01),
    ]
    best = best_tracking(pd.DataFrame(rows, columns=columns))
    assert (best.best, best.beyond_best, best.beyond, best.beyond_p) == (
        "L0.H1",
        "L2.H3",
        0.3,
        0.01,
    )
    assert (best.rfh, best.rfh_beyond, best.rfh_low, best.rfh_high, best.rfh_p) == (
        "L0.H1",
        0.1,
        0.0,
        0.2,
        0.2,
    )
    backwards = best_tracking(pd.DataFrame(rows[2:], columns=columns))
    assert backwards.beyond_best is None and backwards.beyond_p is None
    assert backwards.rfh is None and backwards.rfh_beyond is None
