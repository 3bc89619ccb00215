"""Attention masses and rows: exact, causal, the same in any batch, and linear in memory."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import r2a_utils.attention.mass as attention
import r2a_utils.attention.weights as rows
from r2a_utils.attention.mass import attention_profile, attention_rows, segment_mass, token_set_mass
from r2a_utils.models.hooks import most_marks
from r2a_utils.texts.trace import SEGMENTS, Trace


def eager_weights(model, token_ids) -> torch.Tensor:
    """[layer, head, query, key]: every matrix of the plain eager softmax of transformers."""
    model.hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = model.hf(torch.tensor([token_ids]), output_attentions=True, use_cache=False)
    finally:
        model.hf.set_attn_implementation("sdpa")
    return torch.cat(output.attentions)


def eager_segment_mass(model, trace) -> np.ndarray:
    weights = eager_weights(model, trace.token_ids)
    spans = [trace.segments[segment] for segment in SEGMENTS]
    means = [[weights[..., s, t].sum(-1).mean(-1) for t in spans] for s in spans]
    return torch.stack([torch.stack(row, -1) for row in means], -2).numpy()


def assert_exact(model, traces):
    masses = segment_mass(model, traces)
    for mass, trace in zip(masses, traces, strict=True):
        np.testing.assert_allclose(mass, eager_segment_mass(model, trace), rtol=0, atol=1e-5)


# Segment masses -----------------------------------------------------------------------------------


def test_segment_masses_are_those_of_the_eager_softmax(any_model, random_trace):
    assert_exact(any_model, [random_trace(7, 60, 25), random_trace(3, 1, 1)])


def test_segment_masses_are_exact_on_the_bundled_model(tiny, random_trace):
    assert_exact(tiny, [random_trace(20, 150, 40)])


def test_segment_masses_are_exact_on_a_pretrained_model(smollm2):
    text = (
        "What is 13 + 28?<think>\nFirst, 13 + 28 is 13 + 30 - 2. Wait, let me check: 43 - 2 = 41.\n"
        "</think>\n\nThe answer is \\boxed{41}."
    )
    assert_exact(smollm2, [Trace.from_text(text, smollm2.tokenizer)])


def test_masses_from_a_segment_sum_to_one_and_spare_the_future(any_model, random_trace):
    masses = segment_mass(any_model, [random_trace(seed=s) for s in range(3)])
    assert masses.dims == ("trace", "layer", "head", "from_segment", "to_segment")
    assert masses.dtype == np.float32 and masses.name == "segment_mass"
    np.testing.assert_allclose(masses.sum("to_segment"), 1, atol=1e-5)
    assert not masses.values[..., np.triu(np.ones((6, 6), dtype=bool), k=1)].any()
    assert (masses.sel(from_segment="bos", to_segment="bos") == 1).all()


def test_worked_examples_are_no_part_of_the_prompts_mass(make_random_model, random_trace):
    model, plain = make_random_model("llama"), random_trace(prompt=9)
    prompt, stop = plain.segments["prompt"], plain.segments["prompt"].start + 4
    parts = {"examples": slice(prompt.start, stop), "prompt": slice(stop, prompt.stop)}
    segments = {"bos": plain.segments["bos"], **parts}
    segments |= {name: plain.segments[name] for name in plain.segments if name not in segments}
    whole, parted = (
        segment_mass(model, [trace])[0].sel(from_segment="answer")
        for trace in (plain, replace(plain, segments=segments))
    )
    assert parted.to_segment.values.tolist() == ["bos", "examples", *SEGMENTS[1:]]
    apart = parted.sel(to_segment=["examples", "prompt"])
    assert (apart > 0.01).all()
    np.testing.assert_allclose(apart.sum("to_segment"), whole.sel(to_segment="prompt"), atol=1e-6)
    same = ["bos", "think", "reasoning", "end_think", "answer"]
    np.testing.assert_allclose(parted.sel(to_segment=same), whole.sel(to_segment=same), atol=1e-6)


def test_uniform_attention_has_the_masses_that_one_counts_by_hand(make_random_model, random_trace):
    """Without queries all scores are 0, and token i pays 1/(i+1) to each of the first i+1."""
    model = make_random_model("llama")
    for layer in model.hf.model.layers:
        layer.self_attn.q_proj.weight.zero_()
    trace = random_trace(prompt=4, reasoning=10, answer=3)
    mass = segment_mass(model, [trace])[0, 0, 0]
    reasoning, answer = trace.segments["reasoning"], trace.segments["answer"]
    expected = np.mean([10 / (i + 1) for i in range(answer.start, answer.stop)])
    assert float(mass.sel(from_segment="answer", to_segment="reasoning")) == pytest.approx(expected)
    expected = np.mean([(i - reasoning.start + 1) / (i + 1) for i in range(*reasoning.indices(99))])
    assert float(mass.sel(from_segment="reasoning", to_segment="reasoning")) == pytest.approx(
        expected
    )


def test_a_batch_gives_what_single_traces_give(any_model, random_trace):
    traces = [random_trace(3 + s, 5 + 17 * s, 2 + 3 * s, seed=s) for s in range(5)]
    together = segment_mass(any_model, traces, batch_size=5)
    alone = [segment_mass(any_model, [trace]) for trace in traces]
    np.testing.assert_allclose(together, xr.concat(alone, "trace"), rtol=0, atol=1e-5)
    assert list(together.trace) == [trace.problem_id for trace in traces]


def test_batches_hold_similar_lengths_and_a_bounded_number_of_tokens(monkeypatch):
    monkeypatch.setattr(attention, "_BATCH_TOKENS", 100)
    lengths = [10, 90, 20, 300, 45, 11, 44]
    jobs = [
        attention._Job(torch.zeros(n, dtype=int), torch.ones(1, n), torch.ones(n, 1))
        for n in lengths
    ]
    batches = list(attention._batches(list(range(7)), jobs, batch_size=3))
    assert [[lengths[i] for i in batch] for batch in batches] == [
        [300],
        [90],
        [45, 44],
        [20, 11, 10],
    ]


def test_segment_borders_travel_with_the_masses(make_random_model, random_trace):
    trace = random_trace(prompt=4, reasoning=10, answer=3)
    mass = segment_mass(make_random_model("qwen2"), [trace])
    for segment in SEGMENTS:
        border = mass.isel(trace=0).sel(to_segment=segment)
        assert slice(int(border.segment_start), int(border.segment_stop)) == trace.segments[segment]


def test_lower_precision_stays_close(make_random_model, random_trace):
    traces = [random_trace(5, 80, 20)]
    exact = segment_mass(make_random_model("qwen2", initializer_range=0.05), traces)
    rough = segment_mass(
        make_random_model("qwen2", dtype="bfloat16", initializer_range=0.05), traces
    )
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, rtol=0, atol=0.02)


def test_attention_that_looks_ahead_is_refused(make_random_model, random_trace):
    model, trace = make_random_model("qwen2"), random_trace()
    for layer in model.hf.model.layers:
        layer.self_attn.is_causal = False
    refusal = r"by 'sdpa' is not that of its family's eager function \(logits off by"
    with pytest.raises(RuntimeError, match=refusal):
        segment_mass(model, [trace])
    with pytest.raises(RuntimeError, match=refusal):
        attention_rows(model, trace, [(0, 0)])


def test_traces_of_another_vocabulary_are_refused(make_random_model, random_trace):
    model, trace = make_random_model("llama", vocab_size=100), random_trace()
    with pytest.raises(ValueError, match=r"made for another model; build it with model\.tokenizer"):
        segment_mass(model, [trace])
    with pytest.raises(ValueError, match="no traces to read"):
        segment_mass(model, [])


# Memory -------------------------------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.itemsize)
        return made


def test_no_tensor_grows_faster_than_the_trace(make_random_model, random_trace):
    model = make_random_model("llama", num_hidden_layers=1)
    largest = []
    for length in (256, 512, 1024):
        with LargestTensor() as seen:
            segment_mass(model, [random_trace(10, length, length // 4)])
        largest.append(seen.elements / length)
    assert max(largest) < 1.1 * min(largest)
    assert largest[-1] * 1024 < 1024**2  # less than one head's matrix


MEMORY_PROBE = """
import resource, sys, torch
from transformers import PreTrainedTokenizerFast
from r2a_utils.attention.mass import token_set_mass
from r2a_utils.models.loading import random_model
from r2a_utils.texts.trace import Trace
torch.set_num_threads(1)
model = random_model("llama", PreTrainedTokenizerFast.from_pretrained(sys.argv[1]), vocab_size=300,
    hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=16,
    num_key_value_heads=4, head_dim=16, max_position_embeddings=4096)
def measure(length):
    trace = Trace((1,) * length, ("x",) * length, {"answer": slice(length // 2, length)})
    token_set_mass(model, [trace], [{"first half": slice(0, length // 2)}])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(measure(256), measure(4096))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_the_process_stays_far_below_the_matrices_of_all_heads(tokenizer, tmp_path):
    """At 4,096 tokens, one head's float32 matrix is 64 MiB and all 16 are 1 GiB."""
    tokenizer.save_pretrained(tmp_path)
    output = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, after = map(int, output.split())
    assert after - before < 64


# Resuming -----------------------------------------------------------------------------------------


def test_a_killed_call_continues_where_it_was(
    make_random_model, random_trace, tmp_path, monkeypatch
):
    model = make_random_model("qwen2")
    traces = [random_trace(reasoning=10 + s, seed=s) for s in range(5)]
    plain = segment_mass(model, traces)
    read, lengths = attention.read_marks, []

    def killed_after_two(model, token_ids, *rest):
        if len(lengths) == 2:
            raise KeyboardInterrupt
        lengths.append(token_ids.shape[1])
        return read(model, token_ids, *rest)

    monkeypatch.setattr(attention, "read_marks", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        segment_mass(model, traces, batch_size=1, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2

    computed = []
    monkeypatch.setattr(
        attention,
        "read_marks",
        lambda m, ids, *rest: computed.append(ids.shape[1]) or read(m, ids, *rest),
    )
    resumed = segment_mass(model, traces, batch_size=1, folder=tmp_path)
    assert sorted(computed + lengths) == sorted(len(trace) for trace in traces)
    xr.testing.assert_allclose(resumed, plain, rtol=0, atol=1e-6)

    computed.clear()
    xr.testing.assert_identical(segment_mass(model, traces, folder=tmp_path), resumed)
    assert not computed


def test_what_is_kept_belongs_to_one_set_of_weights_and_one_question(
    make_random_model, random_trace, tmp_path
):
    first, other = make_random_model("qwen2"), make_random_model("qwen2", seed=1)
    trace = random_trace()
    segment_mass(first, [trace], folder=tmp_path)
    kept = segment_mass(other, [trace], folder=tmp_path)
    xr.testing.assert_allclose(kept, segment_mass(other, [trace]), rtol=0, atol=1e-6)
    sets = [{"cue": [7, 9]}]
    kept = token_set_mass(other, [trace], sets, folder=tmp_path)
    xr.testing.assert_allclose(kept, token_set_mass(other, [trace], sets), rtol=0, atol=1e-6)


# Token sets ---------------------------------------------------------------------------------------


def test_sets_of_tokens_may_overlap_have_gaps_and_be_empty(any_model, random_trace):
    trace = random_trace(6, 30, 9)
    sets = {"gaps": [2, 7, 8, 20], "overlap": slice(7, 25), "none": [], "all": slice(None)}
    mass = token_set_mass(any_model, [trace], [sets])
    assert mass.dims == ("trace", "layer", "head", "token_set")
    answer = eager_weights(any_model, trace.token_ids)[:, :, trace.segments["answer"]]
    expected = [answer[..., tokens].sum(-1).mean(-1) for tokens in sets.values()]
    np.testing.assert_allclose(mass[0], torch.stack(expected, -1), rtol=0, atol=1e-5)
    assert (mass.sel(token_set="none") == 0).all()


def test_more_sets_than_one_pass_carries_are_read_in_several(make_random_model, random_trace):
    model, trace = make_random_model("llama"), random_trace(20, 250, 30)
    sets = {str(i): [i] for i in range(260)}
    assert len(sets) > most_marks(model)
    mass = token_set_mass(model, [trace], [sets])
    answer = eager_weights(model, trace.token_ids)[:, :, trace.segments["answer"], :260]
    np.testing.assert_allclose(mass[0], answer.mean(2), rtol=0, atol=1e-5)


def test_queries_may_be_any_tokens(make_random_model, random_trace):
    model, traces = make_random_model("qwen3"), [random_trace(seed=0), random_trace(seed=1)]
    sets = [{"prompt": trace.segments["prompt"]} for trace in traces]
    mass = token_set_mass(model, traces, sets, queries=[[9, 15], slice(20, 21)])
    for i, queries in enumerate(([9, 15], [20])):
        weights = eager_weights(model, traces[i].token_ids)[:, :, queries, sets[i]["prompt"]]
        np.testing.assert_allclose(mass[i, ..., 0], weights.sum(-1).mean(-1), rtol=0, atol=1e-5)


def test_sets_that_do_not_match_are_refused(make_random_model, random_trace):
    model, traces = make_random_model("qwen3"), [random_trace(seed=0), random_trace(seed=1)]
    with pytest.raises(ValueError, match=r"its sets are \['b'\], not \['a'\]"):
        token_set_mass(model, traces, [{"a": [1]}, {"b": [1]}])
    with pytest.raises(ValueError, match="a set of queries is empty"):
        token_set_mass(model, traces, [{"a": [1]}] * 2, queries=[[3], []])


# Rows ---------------------------------------------------------------------------------------------


def test_rows_of_chosen_heads_are_those_of_the_eager_softmax(any_model, random_trace):
    trace = random_trace(6, 30, 9)
    heads = [(2, 3), (0, 5), (2, 0)]
    found = attention_rows(any_model, trace, heads)
    assert found.dims == ("head", "query", "key")
    weights = eager_weights(any_model, trace.token_ids)[:, :, trace.segments["answer"]]
    for row, (layer, head) in zip(found, heads, strict=True):
        assert (int(row.layer), int(row.head_index)) == (layer, head)
        np.testing.assert_allclose(row, weights[layer, head], rtol=0, atol=1e-5)
    assert found["query"].values.tolist() == list(range(*trace.segments["answer"].indices(99)))


def test_rows_of_plain_token_ids_are_all_rows(make_random_model):
    model, ids = make_random_model("llama"), [5, 9, 7, 31, 9, 77]
    found = attention_rows(model, ids, [(1, 4)])
    np.testing.assert_allclose(found[0], eager_weights(model, ids)[1, 4], rtol=0, atol=1e-5)
    part = attention_rows(model, ids, [(1, 4)], queries=slice(2, 5))
    np.testing.assert_allclose(part[0], found[0, 2:5], rtol=0, atol=1e-7)


def test_heads_and_rows_that_are_not_there_are_refused(make_random_model, random_trace):
    model, trace = make_random_model("llama"), random_trace()
    with pytest.raises(ValueError, match=r"no head \(3, 0\): 3 of 3 layers attend, with 6"):
        attention_rows(model, trace, [(3, 0)])
    with pytest.raises(ValueError, match="no run of queries"):
        attention_rows(model, trace, [(0, 0)], queries=slice(500, 600))
    with pytest.raises(ValueError, match="no key lies in"):
        attention_profile(model, trace, keys=slice(9, 9))


def test_attention_with_another_formula_is_refused(make_random_model, random_trace):
    """A model that divides its results afterwards, say by a sink, is no plain softmax."""
    model, trace = make_random_model("llama"), random_trace()
    functional = torch.nn.functional.scaled_dot_product_attention

    def with_sink(*args, **kwargs):
        return 0.7 * functional(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", with_sink)
        with pytest.raises(RuntimeError, match="is not that of its family's eager function"):
            attention_rows(model, trace, [(0, 0)])


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_rows_with_a_cap_or_a_sink_are_the_model_s_own(make_random_model, random_trace, family):
    """The first token sees itself alone, whatever caps the scores: all rows are held against it."""
    model, ids = make_random_model(family), random_trace().token_ids
    found = attention_rows(model, ids, [(1, 4), (0, 2)])
    with torch.no_grad():
        weights = model.hf(torch.tensor([ids]), output_attentions=True).attentions
    np.testing.assert_allclose(found[0], weights[1][0, 4], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], weights[0][0, 2], rtol=0, atol=1e-6)


def test_profiles_are_those_of_the_eager_softmax(any_model, random_trace, monkeypatch):
    trace = random_trace(6, 30, 9)
    profile = attention_profile(any_model, trace)
    weights = eager_weights(any_model, trace.token_ids)[:, :, trace.segments["answer"]].double()
    span = trace.segments["reasoning"]
    inside = weights[..., span]
    centre = (inside * torch.arange(span.start, span.stop)).sum(-1) / inside.sum(-1)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(profile["mass"], inside.sum(-1), **close)
    # A window may leave a query nothing of the reasoning: no centre, in both ways.
    np.testing.assert_allclose(profile["mean_position"], centre, rtol=0, atol=1e-3)
    np.testing.assert_allclose(
        profile["entropy"], torch.special.entr(weights).sum(-1), rtol=0, atol=1e-4
    )
    assert (profile["peak"].values == span.start + inside.argmax(-1).numpy()).mean() > 0.999

    monkeypatch.setattr(rows, "_CHUNK_WEIGHTS", 2 * any_model.n_heads * len(trace))
    # A position near 30 has float32 steps of 2e-6: it is held to a share of itself.
    chunked = attention_profile(any_model, trace)
    places = ["mean_position"]
    xr.testing.assert_allclose(chunked[places], profile[places], rtol=1e-5, atol=0)
    xr.testing.assert_allclose(
        chunked.drop_vars(places), profile.drop_vars(places), rtol=0, atol=1e-5
    )


def test_entropy_is_at_most_that_of_uniform_attention(make_random_model):
    model, ids = make_random_model("llama"), list(range(5, 45))
    for layer in model.hf.model.layers:
        layer.self_attn.q_proj.weight.zero_()
    profile = attention_profile(model, ids)
    expected = [math.log(i + 1) for i in range(40)]
    np.testing.assert_allclose(profile["entropy"][1, 2], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(profile["mean_position"][0, 0], np.arange(40) / 2, rtol=0, atol=1e-4)
