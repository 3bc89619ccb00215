"""Knockout and ablation against full forwards of plain transformers; free generation; baselines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from r2a_utils.causal.interventions import (
    Ablation,
    Knockout,
    answer_z,
    compared_answers,
    knockout,
    knockout_heads,
    knockout_profile,
    measure,
    regenerate,
)
from r2a_utils.causal.random_sets import (
    against_random,
    n_possible_sets,
    random_head_sets,
    random_spans,
)
from r2a_utils.texts.trace import Trace, answer_span, encode, token_texts

ARCHITECTURES = ("llama-wide-heads", "qwen2", "qwen3", "granite-scaled")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, make_random_model):
    return make_random_model(request.param, seed=1)


@pytest.fixture(scope="module")
def llama(make_random_model):
    return make_random_model("llama-wide-heads", seed=2)


def write(
    tokenizer, reasoning="3 plus 4 is 7. Wait, 8.", answer="So the answer is \\boxed{lamp}"
) -> Trace:
    text = f"{tokenizer.bos_token}Which one?<think>\n{reasoning}\n</think>{answer}."
    return Trace.from_text(text, tokenizer, problem_id="a")


@pytest.fixture(scope="module")
def trace(tokenizer):
    return write(tokenizer)


def run_plainly(model, ids, cuts=(), ablated=()):
    """Logits [position, vocabulary] of transformers alone, eager attention.

    `cuts` are (layer, head, queries, keys), `ablated` (layer, head, queries, value [head_dim]).
    """
    n, handles = len(ids), []

    def mask_of(layer):
        mask = torch.full((n, n), -torch.inf).triu(1).repeat(1, model.n_heads, 1, 1)
        for at, head, queries, keys in cuts:
            if at == layer:
                mask[0, head, queries, keys] = -torch.inf
        return mask

    def replace_z(layer):
        def hook(module, args):
            z = args[0].clone()
            for at, head, queries, value in ablated:
                if at == layer:
                    z[0, queries, head * model.head_dim : (head + 1) * model.head_dim] = value
            return (z,)

        return hook

    for layer, block in enumerate(model.hf.model.layers):
        mask = mask_of(layer)
        handles += [
            block.self_attn.register_forward_pre_hook(
                lambda m, args, kwargs, mask=mask: (args, kwargs | {"attention_mask": mask}),
                with_kwargs=True,
            ),
            block.self_attn.o_proj.register_forward_pre_hook(replace_z(layer)),
        ]
    model.hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return model.hf(torch.tensor([list(ids)]), use_cache=False).logits[0]
    finally:
        model.hf.set_attn_implementation("sdpa")
        for handle in handles:
            handle.remove()


def log_probability(logits, ids, scored) -> float:
    rows = logits.log_softmax(-1)
    return sum(float(rows[i - 1, ids[i]]) for i in range(scored.start, scored.stop))


def segment_cuts(trace, heads, queries="answer", keys="reasoning"):
    return [(layer, head, trace.segments[queries], trace.segments[keys]) for layer, head in heads]


def test_knockout_equals_a_full_forward_with_the_edges_masked(model, trace):
    scored = answer_span(trace)
    plain = log_probability(run_plainly(model, trace.token_ids), trace.token_ids, scored)
    cases = {
        (1,): Knockout(layers=(1,)),
        (0, 2): Knockout(layers=(0, 2)),
        (0, 1, 2): Knockout(),
        ((1, 2), (1, 3), (2, 0)): Knockout(heads=((1, 2), (1, 3), (2, 0))),
    }
    frame = measure(model, trace, list(cases.values()))
    for row, which in zip(frame.itertuples(), cases, strict=True):
        heads = which if isinstance(which[0], tuple) else [(i, h) for i in which for h in range(6)]
        logits = run_plainly(model, trace.token_ids, segment_cuts(trace, heads))
        assert row.before == pytest.approx(plain, abs=1e-4)
        assert row.after == pytest.approx(
            log_probability(logits, trace.token_ids, scored), abs=1e-4
        )
        assert row.change == pytest.approx(row.after - row.before)
    assert frame["change"].abs().min() > 1e-3


def test_edges_may_be_any_two_places(model, trace):
    scored, ids = answer_span(trace), trace.token_ids
    span = slice(5, 9)
    for edges in (("answer", "prompt"), ("end_think", "reasoning"), ("answer", span)):
        queries, keys = (trace.segments[e] if isinstance(e, str) else e for e in edges)
        cuts = [(layer, head, queries, keys) for layer in range(3) for head in range(6)]
        expected = log_probability(run_plainly(model, ids, cuts), ids, scored)
        assert knockout(model, trace, edges)["after"] == pytest.approx(expected, abs=1e-4)


def test_the_whole_answer_can_be_scored_though_its_first_token_cannot_change(model, trace):
    scored, ids = trace.segments["answer"], trace.token_ids
    heads = [(layer, head) for layer in range(3) for head in range(6)]
    expected = log_probability(run_plainly(model, ids, segment_cuts(trace, heads)), ids, scored)
    assert knockout(model, trace, scored=scored)["after"] == pytest.approx(expected, abs=1e-4)
    first = slice(scored.start, scored.start + 1)
    with pytest.raises(ValueError, match="behind what is scored"):
        knockout(model, trace, scored=first)


def test_a_knockout_of_edges_that_cannot_be_does_nothing(model, trace):
    # The reasoning lies before the answer: causal attention has no such edges to cut.
    assert knockout(model, trace, ("reasoning", "answer"))["change"] == pytest.approx(0, abs=1e-4)


def test_the_profile_slides_a_window_over_the_layers(model, trace):
    alone = knockout_profile(model, trace, width=1)
    wide = knockout_profile(model, trace, width=3)
    assert alone["layer"].tolist() == [0, 1, 2]
    for layer in range(3):
        expected = knockout(model, trace, layers=[layer])["after"]
        assert alone["after"][layer] == pytest.approx(expected, abs=1e-4)
    assert wide["after"][0] == pytest.approx(
        knockout(model, trace, layers=[0, 1])["after"], abs=1e-4
    )
    assert wide["after"][1] == pytest.approx(knockout(model, trace)["after"], abs=1e-4)
    with pytest.raises(ValueError, match="window of 4"):
        knockout_profile(model, trace, width=4)


def test_profiles_of_several_edges_are_those_of_each_alone(model, trace):
    edges = [("answer", "reasoning"), ("answer", "prompt")]
    together = knockout_profile(model, trace, edges, width=2)
    assert together["edge"].tolist() == [0, 0, 0, 1, 1, 1]
    assert together["layer"].tolist() == [0, 1, 2, 0, 1, 2]
    apart = [knockout_profile(model, trace, [edge], width=2)["after"] for edge in edges]
    np.testing.assert_allclose(together["after"], np.concatenate(apart), atol=1e-4)


def test_every_single_head_is_knocked_out(model, trace):
    grid = knockout_heads(model, trace)
    assert dict(grid.sizes) == {"layer": 3, "head": 6}
    for layer, head in ((0, 0), (1, 3), (2, 1)):
        expected = knockout(model, trace, heads=[(layer, head)])["change"]
        assert float(grid.sel(layer=layer, head=head)) == pytest.approx(expected, abs=1e-4)


def test_ablation_equals_a_full_forward_with_z_replaced(model, trace, tokenizer):
    scored, ids, heads = answer_span(trace), trace.token_ids, ((0, 1), (2, 3))
    others = [write(tokenizer, "8 is 4."), write(tokenizer, answer="It is \\boxed{stone}")]
    pool = answer_z(model, others)
    assert [len(layer) for layer in pool] == [
        sum(t.segments["answer"].stop - t.segments["answer"].start for t in others)
    ] * 3
    frame = measure(model, trace, [Ablation(heads), Ablation(heads, "mean")], pool=pool)
    for i, method in enumerate(("zero", "mean")):
        ablated = []
        for layer, head in heads:
            mean = pool[layer][:, head * model.head_dim : (head + 1) * model.head_dim].mean(0)
            value = mean if method == "mean" else torch.zeros(model.head_dim)
            ablated.append((layer, head, trace.segments["answer"], value))
        expected = log_probability(run_plainly(model, ids, ablated=ablated), ids, scored)
        assert frame["after"][i] == pytest.approx(expected, abs=1e-4)
    assert frame["change"].abs().min() > 1e-3


def test_the_pool_holds_z_of_the_answer_s_tokens(llama, trace):
    seen = []
    hook = llama.hf.model.layers[1].self_attn.o_proj.register_forward_pre_hook(
        lambda m, args: seen.append(args[0][0])
    )
    run_plainly(llama, trace.token_ids)
    hook.remove()
    torch.testing.assert_close(
        answer_z(llama, [trace])[1], seen[0][trace.segments["answer"]], atol=1e-5, rtol=0
    )


def test_resampled_vectors_are_whole_tokens_of_the_pool(llama, trace):
    # A pool of one token leaves nothing to draw: resampling is then the mean.
    pool = [layer[:1] for layer in answer_z(llama, [trace])]
    one = measure(
        llama, trace, [Ablation(((1, 0),), "resample"), Ablation(((1, 0),), "mean")], pool=pool
    )
    assert one["after"][0] == pytest.approx(one["after"][1], abs=1e-6)
    pool = answer_z(llama, [trace])
    again = [
        measure(llama, trace, [Ablation(((1, 0),), "resample")], pool=pool, seed=s)
        for s in (3, 3, 4)
    ]
    assert again[0].equals(again[1]) and not again[0].equals(again[2])


def test_each_trace_draws_anew_and_sets_of_heads_share_a_draw(llama, trace):
    pool = answer_z(llama, [trace])

    def after(trace, *changes):
        return measure(llama, trace, changes, pool=pool)["after"].tolist()

    resampled = Ablation(((1, 0),), "resample")
    other = replace(resampled, draw=1)
    first, second, elsewhere = after(trace, resampled, other, resampled)
    assert first == pytest.approx(elsewhere, abs=1e-5) and first != pytest.approx(second, abs=1e-5)
    assert after(trace, other)[0] == pytest.approx(second, abs=1e-5)
    for name in ({"problem_id": "b"}, {"sample": 1}):
        assert after(replace(trace, **name), resampled)[0] != pytest.approx(first, abs=1e-5)


def test_flips_are_ranks_that_leave_the_top(llama, trace):
    ids = list(trace.token_ids)
    scored = answer_span(trace)
    ids[scored.start] = int(run_plainly(llama, ids)[scored.start - 1].argmax())
    first = slice(scored.start, scored.start + 1)
    written = Trace.from_ids(ids, llama.tokenizer)
    frame = measure(
        llama,
        written,
        [Knockout(heads=((i, h),)) for i in range(3) for h in range(6)] + [Knockout()],
        scored=first,
    )
    for row in frame.itertuples():
        assert row.flip == (row.rank > 0)
    assert 0 < frame["flip"].sum() < len(frame)
    assert measure(llama, trace, [Knockout()], scored=scored)["flip"].tolist() == [False]


def test_regenerated_answers_equal_a_loop_of_full_forwards(model, trace):
    start, steps = trace.segments["answer"].start, 6
    keys = trace.segments["reasoning"]
    changes = [Ablation(((0, 1), (2, 3))), Knockout(), Knockout(heads=((1, 0), (2, 2)))]
    frame = regenerate(model, trace, changes, max_new_tokens=steps)
    behind = slice(start, None)
    plain = [
        {"ablated": [(i, h, behind, torch.zeros(model.head_dim)) for i, h in ((0, 1), (2, 3))]},
        {"cuts": [(i, h, behind, keys) for i in range(3) for h in range(6)]},
        {"cuts": [(i, h, behind, keys) for i, h in ((1, 0), (2, 2))]},
    ]
    texts = []
    for options in plain:
        ids = list(trace.token_ids[:start])
        while len(ids) < start + steps and (
            len(ids) == start or ids[-1] != model.tokenizer.eos_token_id
        ):
            ids.append(int(run_plainly(model, ids, **options)[-1].argmax()))
        written = [i for i in ids[start:] if i != model.tokenizer.eos_token_id]
        texts.append("".join(token_texts(written, model.tokenizer)))
    assert frame["text"].tolist() == texts


def scripted(model, script: dict[int, int]):
    """A model that writes token b after token a, whatever the rest: no attention, no MLP."""
    for block in model.hf.model.layers:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    model.hf.model.embed_tokens.weight.data.zero_()
    model.hf.lm_head.weight.data.zero_()
    for column, (token, following) in enumerate(script.items()):
        model.hf.model.embed_tokens.weight.data[token, column] = 1.0
        model.hf.lm_head.weight.data[following, column] = 1.0
    return model


def test_what_is_regenerated_is_read_to_the_end_token(make_random_model, tokenizer, trace):
    chain = [trace.token_ids[trace.segments["answer"].start - 1], *encode(tokenizer, "\\boxed{8}")]
    chain.append(tokenizer.eos_token_id)
    assert len(set(chain)) == len(chain)
    plain = make_random_model("llama", tie_word_embeddings=False)
    model = scripted(plain, dict(pairwise(chain)))
    frame = regenerate(model, trace, [Knockout(), Ablation(((0, 0),))], max_new_tokens=20)
    assert frame["text"].tolist() == ["\\boxed{8}"] * 2
    assert frame["answer"].tolist() == ["8", "8"] and (frame["unaltered"] == "8").all()
    assert not frame["flip"].any() and not frame["lost"].any()
    cut_off = regenerate(model, trace, [Knockout()], max_new_tokens=2)
    assert cut_off["answer"].isna().all() and not cut_off["lost"].any()


def test_answers_turn_over_by_the_grader_s_equality():
    def flips(*texts):
        frame = compared_answers(texts)
        return frame["flip"].tolist(), frame["lost"].tolist()

    boxed = ("\\boxed{0.5}", "\\boxed{\\frac12}", "\\boxed{1/2}", "\\boxed{5}", "five")
    assert flips(*boxed) == ([False, False, True, False], [False, False, False, True])
    assert flips("five", "\\boxed{5}", "six") == ([False, False], [False, False])


def test_small_batches_give_the_same_effects(model, trace):
    changes = [Knockout(layers=(i,)) for i in range(3)] + [Ablation(((1, 1),))]
    apart = measure(model, trace, changes, max_tokens=1)
    np.testing.assert_allclose(apart["after"], measure(model, trace, changes)["after"], atol=1e-4)


def test_what_cannot_be_is_refused(llama, trace):
    with pytest.raises(ValueError, match="unknown segment 'thoughts'"):
        knockout(llama, trace, ("answer", "thoughts"))
    with pytest.raises(ValueError, match=r"no head \(1, 6\)"):
        knockout(llama, trace, heads=[(1, 6)])
    with pytest.raises(ValueError, match="not both"):
        knockout(llama, trace, layers=[1], heads=[(1, 1)])
    with pytest.raises(ValueError, match="layer 3 is out of range"):
        knockout(llama, trace, layers=[3])
    with pytest.raises(ValueError, match="leave at least one visible"):
        knockout(llama, trace, ("answer", slice(0, len(trace))))
    with pytest.raises(ValueError, match="no token slice"):
        knockout(llama, trace, ("answer", slice(3, 1000)))
    with pytest.raises(ValueError, match="needs a pool"):
        measure(llama, trace, [Ablation(((0, 0),), "mean")])
    with pytest.raises(ValueError, match="unknown ablation"):
        Ablation(((0, 0),), "half")
    with pytest.raises(ValueError, match="at least one head"):
        Ablation(())
    with pytest.raises(ValueError, match="inside the"):
        regenerate(llama, trace, [Knockout("end_think")], max_new_tokens=3)


def test_random_heads_are_matched_by_layer_and_drawn_from_all_heads():
    heads = [(0, 1), (0, 2), (3, 0)]
    sets = random_head_sets(heads, n_heads=4, n_sets=600, seed=1)
    drawn = Counter(frozenset(found) for found in sets)
    assert len(drawn) == n_possible_sets(heads, n_heads=4) == 6 * 4
    assert frozenset(heads) in drawn
    for found in sets:
        assert Counter(layer for layer, _ in found) == {0: 2, 3: 1} and len(set(found)) == 3
    # All alike: 25 each, give or take five standard errors.
    assert max(abs(count - 25) for count in drawn.values()) < 25
    assert sets == random_head_sets(heads, n_heads=4, n_sets=600, seed=1)
    with pytest.raises(ValueError, match="whole layers"):
        random_head_sets([(0, 0), (0, 1)], n_heads=2)


def test_a_set_chosen_at_random_is_seldom_called_special():
    # One head carries everything, as in the bundled model: the case that broke a null of others.
    cost, chosen = np.zeros((4, 8)), np.random.default_rng(0)
    cost[0, 1], cost[1:] = 3, chosen.normal(0, 0.01, (3, 8))
    p = []
    for seed in range(400):
        heads = [(layer, int(h)) for layer in range(4) for h in chosen.permutation(8)[:2]]
        sets = [heads, *random_head_sets(heads, 8, 100, seed)]
        p.append(against_random([-sum(cost[head] for head in s) for s in sets])["p"])
    # Exact: 5 of 101 places; three standard errors of 400 draws.
    assert abs(np.mean(np.array(p) <= 0.05) - 5 / 101) < 0.033


def test_the_rank_among_random_sets_takes_rounding_for_a_tie():
    found = against_random([-2.0, -2.0 + 1e-8, -3.0, 0.0, 0.0])
    assert found == {"rfh": -2, "median": -1, "low": -3, "high": 0, "p": 3 / 5}
    assert against_random([0.5, 0.25, 0.25], "greater")["p"] == pytest.approx(1 / 3)


def test_random_spans_are_as_long_and_avoid_the_span(trace):
    stop, avoid = trace.segments["answer"].start, slice(4, 9)
    spans = random_spans(trace, 3, 40, seed=2, avoid=avoid)
    for span in spans:
        assert span.stop - span.start == 3 and span.start >= 1 and span.stop <= stop
        assert not set(range(span.start, span.stop)) & set(range(4, 9))
    assert len({span.start for span in spans}) > 5
    with pytest.raises(ValueError, match="no span of"):
        random_spans(trace, stop, 1)
