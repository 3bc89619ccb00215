"""Rankings of heads find what is planted, and their controls say when nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from families.zoo import FAMILIES, plain_model
from toy_masses import attention_masses

from r2a_utils import paper
from r2a_utils.attention import heads
from r2a_utils.attention.head_tests import border_test, depth_test, head_overlap, shuffled_borders
from r2a_utils.attention.heads import (
    head_scores,
    rank_heads,
    ranking_reliability,
    sink_free_mass,
    uniform_mass,
)
from r2a_utils.attention.mass import segment_mass
from r2a_utils.engine.forward import replayable
from r2a_utils.models.loading import load_model


@pytest.fixture(scope="module")
def lengths():
    generator = np.random.default_rng(0)
    return np.array(
        [[1, generator.integers(5, 15), 1, generator.integers(8, 60), 1, generator.integers(6, 12)]
         for _ in range(24)]
    )  # fmt: skip


@pytest.fixture(scope="module")
def planted(lengths):
    """Heads (2, 1) and (1, 0) prefer reasoning keys 9 and 4 times over; all others are uniform."""

    def weights(layer, head, segment, query, key):
        boost = {(2, 1): 9, (1, 0): 4}.get((layer, head), 1)
        return np.where(segment == 3, boost, 1)

    return attention_masses(weights, lengths)


def test_planted_heads_lead_the_ranking(planted):
    ranking = rank_heads(planted, k=2)
    assert list(zip(ranking["layer"], ranking["head"], strict=True)) == [(2, 1), (1, 0)]
    assert (ranking["rank_stability"] == 1.0).all()
    assert ((ranking["ci_low"] < ranking["mass"]) & (ranking["mass"] < ranking["ci_high"])).all()
    columns = ["layer", "head", "mass", "lift", "ci_low", "ci_high", "rank_stability"]
    assert list(ranking.columns) == columns
    told = rank_heads(planted.assign_attrs(engine="plain"), k=2)
    assert told.attrs["engine"] == "plain"


def test_uniform_mass_is_that_of_a_uniform_head(planted):
    measured = planted.sel(from_segment="answer", to_segment="reasoning")[:, 0, 0]
    np.testing.assert_allclose(uniform_mass(planted), measured, rtol=1e-12)
    inside = planted.sel(from_segment="reasoning", to_segment="reasoning")[:, 0, 0]
    np.testing.assert_allclose(uniform_mass(planted, "reasoning", "reasoning"), inside, rtol=1e-12)


def test_a_head_that_sees_a_window_only_is_uniform_within_it(make_random_model, random_trace):
    model = make_random_model("qwen2-window")  # layer 0 sees all, the others nine tokens
    for layer in model.hf.model.layers:  # without queries every head is uniform
        layer.self_attn.q_proj.weight.zero_()
        layer.self_attn.q_proj.bias.zero_()
    mass = segment_mass(model, [random_trace(seed=i, reasoning=12 + i) for i in range(3)])
    assert mass.coords["window"].values.tolist() == [0, 9, 9]
    null = uniform_mass(mass)
    measured = mass.sel(from_segment="answer", to_segment="reasoning").isel(head=0)
    np.testing.assert_allclose(null.transpose("trace", "layer"), measured, atol=1e-6)
    assert (null[:, 0] != null[:, 1]).all()
    np.testing.assert_allclose(head_scores(mass)["lift"], 1.0, atol=1e-5)


def test_a_head_that_sees_its_chunk_only_is_uniform_within_it(
    make_random_model, tokenizer, random_trace, tmp_path
):
    [family] = [family for family in FAMILIES if family.name == "llama4_text"]
    plain_model(family).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float32", device="cpu")  # chunks of nine tokens
    kinds = model.hf.config.layer_types
    for layer in model.hf.model.layers:  # without queries every head is uniform
        layer.self_attn.q_proj.weight.zero_()
    mass = segment_mass(model, [random_trace(seed=i, reasoning=12 + i) for i in range(3)])
    chunks = [9 if kind == "chunked_attention" else 0 for kind in kinds]
    assert mass.coords["chunk"].values.tolist() == chunks and any(chunks)
    null = uniform_mass(mass)
    measured = mass.sel(from_segment="answer", to_segment="reasoning").isel(head=0)
    np.testing.assert_allclose(null.transpose("trace", "layer"), measured, atol=1e-6)
    assert (null < uniform_mass(mass.drop_vars("chunk"))).sel(layer=np.array(chunks) > 0).all()
    assert [replayable(model, tokens) for tokens in (9, 10)] == [replayable(model, 1), False]


def test_a_uniform_head_has_lift_one_and_no_preference(planted):
    scores = head_scores(planted).set_index(["layer", "head"])
    np.testing.assert_allclose(scores.loc[(0, 0), "lift"], 1.0)
    assert (
        abs(scores.loc[(0, 0), "length_matched"]) < 0.15
    )  # a mean of ratios, not a ratio of means
    assert scores.loc[(0, 0), "length_rho"] > 0.9  # raw mass rewards a long reasoning
    assert scores.loc[(2, 1), "lift"] > scores.loc[(1, 0), "lift"] > 1.1
    # at equal length the planted head reads the reasoning nine times as much: log2(9) = 3.17
    assert scores.loc[(2, 1), "length_matched"] == pytest.approx(np.log2(9), abs=0.15)


def test_sink_free_mass_does_not_care_about_the_sink(lengths):
    def weights(layer, head, segment, query, key):
        return np.where(segment == 0, 1 if head == 0 else 400, 1.0)

    scores = head_scores(attention_masses(weights, lengths)).set_index(["layer", "head"])
    assert scores.loc[(0, 1), "mass"] < 0.2 * scores.loc[(0, 0), "mass"]
    assert scores.loc[(0, 1), "sink_free"] == pytest.approx(
        scores.loc[(0, 0), "sink_free"], rel=0.02
    )


def test_sink_free_masses_share_out_what_is_left(lengths):
    mass = attention_masses(lambda layer, head, s, q, k: np.where(s == 0, 9.0, 1.0), lengths)
    free = sink_free_mass(mass.sel(from_segment="answer"))
    assert (free.sel(to_segment="bos") == 0).all()
    np.testing.assert_allclose(free.sum("to_segment"), 1, atol=1e-5)


def test_a_head_all_on_the_sink_gives_no_infinite_score(lengths):
    mass = attention_masses(lambda layer, head, s, q, k: np.where(s == 0, 1.0, 1e-300), lengths)
    scores = head_scores(mass)
    assert np.isfinite(scores[["mass", "lift", "sink_free"]]).all(axis=None)


def test_stability_of_a_tie_is_that_of_a_coin(lengths):
    generator = np.random.default_rng(1)
    mass = attention_masses(lambda *a: np.ones_like(a[2]), lengths, 5, 4)
    noisy = mass.copy(data=mass.values * generator.uniform(0.9, 1.0, mass.shape))
    ranking = rank_heads(noisy, k=5, resamples=400)
    assert 0.25 < ranking["rank_stability"].mean() < 0.95


def test_ranking_is_the_same_whatever_the_order_of_dimensions(planted):
    turned = planted.transpose("to_segment", "head", "trace", "from_segment", "layer")
    assert rank_heads(turned, k=4).equals(rank_heads(planted, k=4))


def test_reliability_is_high_for_planted_heads_and_nil_for_noise(lengths):
    base = attention_masses(
        lambda layer, head, s, q, k: np.where(s == 3, 1 + layer + head, 1), lengths
    )
    assert ranking_reliability(base).spearman > 0.95
    generator = np.random.default_rng(2)
    noise = base.copy(data=generator.uniform(0, 0.1, base.shape))
    assert abs(ranking_reliability(noise).spearman) < 0.35


def test_four_traces_have_a_ranking_and_halves(planted):
    few = planted[:4]
    assert len(rank_heads(few, k=3)) == 3 and ranking_reliability(few).spearman > 0


def test_shuffled_borders_are_as_long_as_the_reasoning_and_before_the_answer():
    segments = {
        "bos": slice(0, 1),
        "prompt": slice(1, 9),
        "think": slice(9, 10),
        "reasoning": slice(10, 22),
        "end_think": slice(22, 23),
        "answer": slice(23, 30),
    }
    spans = shuffled_borders(segments, draws=200)
    assert spans.shape == (200, 30) and (spans.sum(axis=1) == 12).all()
    assert not spans[:, 0].any() and not spans[:, 23:].any()
    true = np.zeros(30, bool)
    true[10:22] = True
    assert not (spans == true).all(axis=1).any()
    assert len({tuple(span) for span in spans}) == 21  # every other turn of the ring of 22
    assert (shuffled_borders(segments, 5, seed=1) == shuffled_borders(segments, 5, seed=1)).all()


def null_of(mass: xr.DataArray, spread: float, draws: int = 99) -> xr.DataArray:
    observed = mass.sel(from_segment="answer", to_segment="reasoning", drop=True)
    noise = np.random.default_rng(3).normal(1, spread, (draws, *observed.shape))
    return xr.DataArray(
        noise * uniform_mass(mass).values[:, None, None],
        dims=("token_set", "trace", "layer", "head"),
    )


def test_border_test_finds_planted_heads_alone(planted):
    table = border_test(planted, null_of(planted, 0.05)).set_index(["layer", "head"])
    assert set(table.index[table["p_familywise"] <= 0.01]) == {(2, 1), (1, 0)}
    assert (table["p_familywise"] >= table["p"] - 1e-12).all()


def test_depth_test_tells_middle_from_edges_and_spread():
    central = depth_test([(13, h) for h in range(6)] + [(14, h) for h in range(4)], 28, 12, 12)
    assert central.in_middle == 10 and central.p_middle < 1e-4 and central.p_central < 1e-3
    edges = depth_test([(0, h) for h in range(5)] + [(27, h) for h in range(5)], 28, 12, 12)
    assert edges.in_middle == 0 and edges.p_middle == 1.0 and edges.p_central > 0.99
    assert edges.mean_depth == pytest.approx(0.5)


def test_heads_of_one_group_count_as_one_draw():
    """Six heads of one group in the middle say no more than one group there."""
    heads = [(13, h) for h in range(6)]
    alone, together = depth_test(heads, 28, 12, 12), depth_test(heads, 28, 12, 2)
    assert alone.p_middle < 0.01 and together.p_middle == pytest.approx(10 / 28, abs=0.02)
    assert together.in_middle == alone.in_middle == 6


def test_overlap_within_one_group_is_less_surprising_than_across_groups():
    lists = {"a": [(3, 0), (3, 1), (3, 2)], "b": [(3, 0), (3, 1), (3, 3)]}
    row = head_overlap(lists, 6, 8, 2).iloc[0]
    assert row["shared"] == 2 and row["p"] < 0.02
    # The one group of b lies on that of a in 1 of 12 draws; three of its four heads then share at
    # least two with a's three.
    assert row["p_groups"] == pytest.approx(1 / 12, abs=0.01)
    single = head_overlap(lists, 6, 8, 8).iloc[0]
    assert single["p_groups"] == pytest.approx(single["p"], abs=0.004)


def test_expected_middle_share_is_exact():
    result = depth_test([(0, 0)], 6, 4, 2)
    assert result.expected_in_middle == pytest.approx(2 / 6)
    assert result.p_middle == 1.0


def test_heads_are_drawn_from_the_layers_that_attend_alone():
    """One of six layers in the middle two attends, of two that do: half of all draws sit there."""
    result = depth_test([(2, 0)], 6, 4, 2, attending=[2, 5])
    assert result.expected_in_middle == 0.5
    assert result.p_middle == pytest.approx(0.5, abs=0.02)
    lists = {"a": [(2, 0), (5, 1)], "b": [(2, 0)]}
    told = head_overlap(lists, 6, 4, 4, attending=[2, 5]).iloc[0]
    alone = head_overlap({"a": [(0, 0), (1, 1)], "b": [(0, 0)]}, 2, 4, 4).iloc[0]
    assert told["heads"] == [(2, 0)]
    assert told.drop("heads").equals(alone.drop("heads"))


def test_overlap_of_published_lists_gives_the_known_chances():
    published = paper.published()
    lists = {
        "reasoning-focus": published["stage2_reasoning_focus_heads_top10"]["R1-Qwen-1.5B"],
        "retrieval": published["stage2_retrieval_heads_top10"]["R1-Qwen-1.5B"],
    }
    row = head_overlap(lists, 28, 12, 2).iloc[0]
    assert row["shared"] == 4 and row["heads"] == [(14, 3), (19, 1), (19, 5), (23, 2)]
    assert row["p"] == pytest.approx(8e-5, rel=0.1)
    assert row["p_groups"] > row["p"]  # they sit in groups


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.drop_vars("segment_start"), "no segment_start"),
        (lambda m: m * np.nan, "NaN or outside"),
        (lambda m: m.isel(trace=slice(0)), "no traces"),
    ],
)
def test_unusable_masses_are_refused_in_words(planted, change, message):
    with pytest.raises(ValueError, match=message):
        head_scores(change(planted))


def test_more_heads_than_the_model_has_are_refused(planted):
    with pytest.raises(ValueError, match="k = 13: the model has 12 heads"):
        rank_heads(planted, k=13)


@pytest.mark.parametrize(("alias", "name", "at_least"), [
    ("qwen-1p5B", "R1-Qwen-1.5B", 8),
    ("qwen-7B", "R1-Qwen-7B", 9),
])  # fmt: skip
def test_the_authors_masses_give_the_published_heads(paper_data, alias, name, at_least):
    mass = paper.load_segment_mass(paper_data, alias)
    ranking = rank_heads(mass, k=10)
    found = set(zip(ranking["layer"], ranking["head"], strict=True))
    listed = {tuple(head) for head in paper.published()["stage2_reasoning_focus_heads_top10"][name]}
    assert len(found & listed) >= at_least
    # as much as a head that attends uniformly, not more: the page on lift says so with this number
    assert ranking["lift"].between(0.8, 1.05).all()
    assert heads.ranking_reliability(mass).spearman > 0.99


def test_layers_without_attention_have_no_heads_and_a_learned_sink_is_no_token(
    make_random_model, random_trace
):
    traces = [random_trace(5, 12, 6, seed=i) for i in range(4)]
    mass = segment_mass(make_random_model("lfm2"), traces)
    assert np.isnan(mass[:, [0, 2]]).all() and not np.isnan(mass[:, 1]).any()
    table = head_scores(mass)
    assert set(table["layer"]) == {1} and len(rank_heads(mass, 3)) == 3
    np.testing.assert_allclose(mass[:, 1].sum("to_segment"), 1, atol=1e-5)

    mass = segment_mass(make_random_model("gpt_oss"), traces)
    assert mass.to_segment.values[-1] == "learned_sink" and mass[..., -1].mean() > 0.01
    np.testing.assert_allclose(mass.sum("to_segment"), 1, atol=1e-5)
    answer = mass.sel(from_segment="answer")
    assert mass.coords["sink"] == -1  # random weights rest on no token
    learned = answer.sel(to_segment="learned_sink")
    free = (answer.sel(to_segment="reasoning") / (1 - learned)).mean("trace")
    for row in head_scores(mass).itertuples():
        assert row.sink_free == pytest.approx(float(free[row.layer, row.head]), rel=1e-4)
