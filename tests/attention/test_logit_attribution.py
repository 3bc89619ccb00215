"""Direct contributions add up to the logits, part by part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2a_utils.attention.logit_attribution import has_contributions, head_contributions
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.hooks import head_outputs, logit_directions


def every_head(model):
    return list(np.ndindex(model.n_layers, model.n_heads))


@pytest.mark.parametrize(
    "kind",
    [
        *("llama", "qwen2", "qwen3", "llama-wide-heads", "qwen2-ungrouped", "granite-scaled"),
        *("starcoder2", "olmo"),  # their norms centre, one with biases, one without gains
    ],
)
def test_heads_mlps_and_the_embedding_add_up_to_the_logit(kind, make_random_model, random_trace):
    """Every direct path together is the whole logit difference."""
    model = make_random_model(kind)
    trace = random_trace(answer=6)
    answer = trace.segments["answer"]
    against = trace.token_ids[2]
    given = head_contributions(model, trace, every_head(model), against=against)
    cache = run_with_cache(model, trace.token_ids, ("mlp_out",), read=range(len(trace)))
    queries = np.arange(answer.start, answer.stop) - 1
    residuals = cache.activations["resid"]
    targets = torch.tensor(trace.token_ids[answer])
    directions = logit_directions(model, residuals[-1][queries], targets, against)
    others = [residuals[0], *cache.activations["mlp_out"]]
    rest = sum((directions * part[queries]).sum(-1) for part in others)
    logits = cache.logits[queries]
    expected = logits[np.arange(6), targets] - logits[:, against]
    total = given.sum(["head", "key"]).values + rest.numpy()
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-4)


def test_a_head_s_contribution_is_its_z_through_its_own_output_weights(
    make_random_model, random_trace
):
    model = make_random_model("qwen3")
    trace = random_trace(answer=4)
    given = head_contributions(model, trace, [(1, 5), (0, 2)])
    cache = run_with_cache(model, trace.token_ids, ("z",))
    queries = np.arange(trace.segments["answer"].start, len(trace)) - 1
    targets = torch.tensor(trace.token_ids[trace.segments["answer"]])
    directions = logit_directions(model, cache.activations["resid"][-1][queries], targets)
    for row, (layer, head) in zip(given, [(1, 5), (0, 2)], strict=True):
        z = cache.activations["z"][layer].reshape(len(trace), model.n_heads, model.head_dim)
        written = z[queries, head] @ head_outputs(model, layer)[head]
        expected = (written * directions).sum(-1)
        np.testing.assert_allclose(row.sum("key"), expected, rtol=1e-4, atol=1e-6)
    assert given.coords["query"].values.tolist() == (queries + 1).tolist()


def test_without_a_rival_the_vocabulary_s_mean_is_taken_off(make_random_model, random_trace):
    model = make_random_model("llama")
    residuals = torch.randn(3, model.hidden_size, generator=torch.Generator().manual_seed(0))
    every = torch.arange(model.vocab_size)
    total = sum(logit_directions(model, residuals[:1], every[i : i + 1]) for i in every)
    assert total.abs().max() < 1e-3 * model.vocab_size**0.5


def test_nothing_is_read_from_what_comes_later(make_random_model, random_trace):
    trace = random_trace()
    given = head_contributions(make_random_model("qwen2"), trace, [(0, 0)], writes=[5, 9])
    assert (given.sel(query=5).values[0, 5:] == 0).all()
    assert (given.sel(query=9).values[0, :9] != 0).any()


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("granite", {"residual_multiplier": 0.22}),
        ("granite", {"logits_scaling": 8.0}),
        *((kind, {}) for kind in ("bitnet", "gemma3_text", "glm4", "olmo2", "exaone4", "cohere")),
    ],
)
def test_what_does_not_add_up_is_refused(kind, shape, make_random_model, random_trace):
    """Something scales or normalises around o_proj, or the logits: a head has no share."""
    model = make_random_model(kind, **shape)
    assert not has_contributions(model, random_trace())
    with pytest.raises(ValueError, match=r"single heads have no share|not a scale with gains"):
        head_contributions(model, random_trace(), [(0, 0)])


def test_the_first_token_is_written_by_nobody(make_random_model, random_trace):
    assert has_contributions(make_random_model("qwen2"), random_trace())
    with pytest.raises(ValueError, match="written tokens must lie in"):
        head_contributions(make_random_model("qwen2"), random_trace(), [(0, 0)], writes=[0])


def test_the_boxed_answer_is_what_the_contributions_point_at(tiny):
    """On the bundled model the heads together push the answer, most of it from the reasoning."""
    from r2a_utils.collecting.decoding import Sampling
    from r2a_utils.collecting.generation import collect_traces
    from r2a_utils.texts.trace import answer_span
    from r2a_utils.tiny.world import held_out_problems

    traces = collect_traces(tiny, held_out_problems(4, seed=3), sampling=Sampling(512))
    for trace in traces:
        write = answer_span(trace).start
        given = head_contributions(tiny, trace, every_head(tiny), writes=[write]).sum("head")[0]
        assert given.sum() > 0
        assert given[trace.segments["reasoning"]].sum() > given[trace.segments["prompt"]].sum()


def test_a_wide_stream_in_bfloat16_is_no_reason_to_refuse(make_random_model, random_trace):
    """Adding to a stream of thousands rounds to steps that are wide beside what a layer gives."""
    model = make_random_model("qwen2")
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[:, 3] += 4096.0  # one massive activation
    model.hf.to(torch.bfloat16)
    assert has_contributions(model, random_trace())
