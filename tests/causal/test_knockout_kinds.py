"""Kinds of knockout: against hand-written forwards, and what is told of them at its borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2a_utils.causal.interventions import Knockout, knockout, knockout_heads, measure
from r2a_utils.causal.knockout_kinds import (
    KnockoutKinds,
    knockout_kinds,
    log_probability_without_reasoning,
    summarised_kinds,
)
from r2a_utils.causal.sentences import forced_answers
from r2a_utils.engine.patches import CUT_KINDS
from r2a_utils.texts.trace import Trace, answer_span


@pytest.fixture(scope="module")
def model(make_random_model):
    return make_random_model("qwen2", seed=3)


@pytest.fixture(scope="module")
def traces(tokenizer):
    texts = ["3 plus 4 is 7. So 7.", "Take 3. Wait, 4. It is 7.", "Seven."]
    return [
        Trace.from_text(
            f"{tokenizer.bos_token}3 plus 4?<think>\n{text}\n</think>The answer is \\boxed{{7}}.",
            tokenizer,
            problem_id=f"p{i}",
        )
        for i, text in enumerate(texts)
    ]


def by_hand(model, trace, kind, chosen) -> float:
    """Log-probability of the answer, every layer written out: q, k, v, rotary, weights, o_proj.

    `chosen` are the (layer, head) whose edges from the answer to the reasoning are cut.
    """
    decoder, ids = model.hf.model, torch.tensor([trace.token_ids])
    n, shared = len(trace), model.n_heads // model.n_kv_heads
    answer, reasoning = trace.segments["answer"], trace.segments["reasoning"]
    hidden = decoder.embed_tokens(ids)
    cos, sin = decoder.rotary_emb(hidden, torch.arange(n)[None])

    def rotated(x):
        half = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    for index, layer in enumerate(decoder.layers):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        q, k, v = (
            project(normed)[0].unflatten(-1, (-1, model.head_dim)).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = rotated(q), rotated(k)
        results = []
        for head in range(model.n_heads):
            scores = q[head] @ k[head // shared].T * model.head_dim**-0.5
            scores = scores + torch.full((n, n), -torch.inf).triu(1)
            cut = (index, head) in chosen
            if cut and kind == "renormalised":
                scores[answer, reasoning] = -torch.inf
            weights = scores.softmax(-1)
            values = v[head // shared]
            result = weights @ values
            if cut and kind != "renormalised":
                taken = weights[answer, reasoning]
                result[answer] -= taken @ values[reasoning]
            if cut and kind == "mean":
                result[answer] += taken.sum(-1, keepdim=True) * values[reasoning].mean(0)
            results.append(result)
        hidden = hidden + attention.o_proj(torch.cat(results, -1))[None]
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    logits = model.hf.lm_head(decoder.norm(hidden))[0].log_softmax(-1)
    span = answer_span(trace)
    return sum(float(logits[i - 1, trace.token_ids[i]]) for i in range(span.start, span.stop))


@pytest.mark.parametrize("kind", CUT_KINDS)
def test_each_kind_is_a_forward_written_out_by_hand(model, traces, kind):
    every = {(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)}
    with torch.no_grad():
        whole = by_hand(model, traces[0], kind, every)
        one_layer = by_hand(model, traces[0], kind, {(1, h) for h in range(model.n_heads)})
        heads = by_hand(model, traces[0], kind, {(0, 1), (2, 3)})
        one_head = by_hand(model, traces[0], kind, {(1, 4)})
        uncut = by_hand(model, traces[0], kind, set())
    got = [
        knockout(model, traces[0], kind=kind),
        knockout(model, traces[0], layers=[1], kind=kind),
        knockout(model, traces[0], heads=((0, 1), (2, 3)), kind=kind),
    ]
    for row, expected in zip(got, (whole, one_layer, heads), strict=True):
        assert row["after"] == pytest.approx(expected, abs=1e-4)
        assert abs(row["change"]) > 1e-3 and row["before"] == pytest.approx(uncut, abs=1e-4)
    change = knockout_heads(model, traces[0], kind=kind).sel(layer=1, head=4)
    assert float(change) == pytest.approx(one_head - uncut, abs=1e-4)


def test_kinds_are_told_apart_by_trace_and_layer(model, traces):
    found = knockout_kinds(model, traces)
    for k, kind in enumerate(CUT_KINDS):
        for t, trace in enumerate(traces):
            alone = [knockout(model, trace, layers=[i], kind=kind)["change"] for i in range(3)]
            np.testing.assert_allclose(found.alone[k, t], alone, atol=1e-4)
            together = knockout(model, trace, kind=kind)["change"]
            assert found.together[k, t] == pytest.approx(together, abs=1e-4)
    assert found.curves()["effect"].to_numpy() == pytest.approx(found.alone.mean(1).ravel())


def test_without_reasoning_is_the_answer_forced_before_the_first_sentence(model, traces):
    trace = traces[1]
    first = forced_answers(model, trace)["log_probability"].iloc[0]
    assert log_probability_without_reasoning(model, trace) == pytest.approx(first, abs=1e-4)
    before = measure(model, trace, [Knockout()])["before"].iloc[0]
    absent = knockout_kinds(model, [trace] * 2).absent
    assert absent == pytest.approx([first - before] * 2, abs=1e-4)


def told(*excesses):
    """What is told where one layer costs so much more than all together, by kind, 20 traces."""
    spread = np.linspace(-0.1, 0.1, 20)
    together = np.full((3, 20), -4.0) + spread
    alone = np.stack([together[i] - excess for i, excess in enumerate(excesses)])
    alone = alone + np.linspace(-0.2, 0.2, 20)[::-1]
    layers = np.stack([alone, np.zeros((3, 20))], -1)
    return summarised_kinds(KnockoutKinds(layers, together, np.full(20, -5.0), (2, 5), 0), "mean")


def test_a_layer_exceeds_the_whole_only_where_the_interval_does():
    found = told(1.0, -0.5, 0.0)
    assert found.exceeding == ["renormalised"] and found.only_renormalised
    assert found.kinds["renormalised"].layer == 2
    assert found.kinds["renormalised"].excess == pytest.approx(1.0)
    assert found.kinds["mean"].excess_low < 0 < found.kinds["mean"].excess_high
    # The interval of the mean is about 0.1 wide to each side: on either side of that border.
    assert told(0.05, 0.0, 0.0).exceeding == [] and told(0.2, 0.0, 0.0).only_renormalised
    assert not told(1.0, 1.0, 0.0).only_renormalised
    assert not told(0.0, 1.0, 0.0).only_renormalised


def test_an_unknown_kind_is_refused(model, traces):
    with pytest.raises(ValueError, match="unknown kind of knockout 'soft'"):
        knockout(model, traces[0], kind="soft")
