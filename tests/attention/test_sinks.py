"""The sink is the key that attention rests on, wherever that is, and some models have none."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.attention import find_sink, head_scores, segment_mass, sink_free_mass
from r2a_utils.attention.sinks import TIMES_UNIFORM

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def resting_on(make_random_model):
    """`resting_on(2)`: a GPT-2 whose every head likes one position and all others alike."""

    def make(position: int, logit: float = 5.0):
        model = make_random_model("gpt2", seed=position)
        transformer, width = model.hf.transformer, model.hidden_size
        transformer.wte.weight[:, :2] = transformer.wpe.weight[:, :2] = 0.0
        transformer.wpe.weight[position, 0] = 1e4  # of mean 0, so that the norm keeps the signs
        transformer.wpe.weight[position, 1] = -1e4
        for block in transformer.h:
            for writes in (block.attn.c_proj, block.mlp.c_proj):
                writes.weight.zero_(), writes.bias.zero_()
            weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
            weight[:, : 2 * width], bias[: 2 * width] = 0.0, 0.0
            bias[:width] = 1.0  # every query is alike, and likes keys that point this way
            scale = logit / model.head_dim**0.5 / (width / 2) ** 0.5
            weight[0, width : 2 * width] = scale / 2
            weight[1, width : 2 * width] = -scale / 2
        return model

    return make


@pytest.mark.parametrize("position", [0, 2, 9])
def test_a_sink_is_found_where_it_is(resting_on, position):
    model = resting_on(position)
    sink = find_sink(model)
    assert sink.position == position
    assert sink.is_bos == (position == 0)
    assert sink.times_uniform > TIMES_UNIFORM and 0.5 < sink.share < 1


def test_what_rests_on_a_sink_elsewhere_is_left_out_of_its_segment(resting_on, random_trace):
    traces = [random_trace(6, 12, 8, seed=i) for i in range(3)]
    mass = segment_mass(resting_on(2), traces)
    assert mass.coords["sink"] == 2
    answer = mass.sel(from_segment="answer")
    free = sink_free_mass(answer)
    assert answer.sel(to_segment="prompt").min() > 0.5  # the sink stands in the prompt
    np.testing.assert_allclose(free.sum("to_segment"), 1, atol=TOLERANCE)
    # Without the sink each head looks at everything alike: 5 of the other tokens are the prompt's.
    start, stop = traces[0].segments["answer"].start, len(traces[0])
    flat = np.mean(5 / np.arange(start, stop))
    np.testing.assert_allclose(free.sel(to_segment="prompt"), flat, rtol=0.03)
    assert free.dims == answer.dims
    scores = head_scores(mass)
    assert (scores["sink_free"] > 2 * scores["mass"]).all()


def test_the_share_on_a_sink_is_that_of_its_own_token(resting_on, random_trace):
    trace = random_trace(6, 12, 8)
    sink, prompt = segment_mass(resting_on(2), [trace]), segment_mass(resting_on(0), [trace])
    assert "sink_mass" not in prompt.coords  # it is the segment `bos`
    on_token = sink.coords["sink_mass"].sel(from_segment="answer")
    on_bos = prompt.sel(from_segment="answer", to_segment="bos")
    np.testing.assert_allclose(on_token, on_bos, rtol=1e-3)


def test_random_weights_have_no_sink_and_nothing_is_left_out(make_random_model, random_trace):
    model = make_random_model("qwen3")
    sink = find_sink(model)
    assert sink.position is None and sink.times_uniform < 2
    mass = segment_mass(model, [random_trace()])
    assert mass.coords["sink"] == -1
    np.testing.assert_allclose(sink_free_mass(mass), mass)


def test_masses_that_name_no_sink_have_theirs_on_bos(make_random_model, random_trace):
    mass = segment_mass(make_random_model("qwen3"), [random_trace()]).drop_vars("sink")
    free = sink_free_mass(mass.sel(from_segment="answer"))
    assert (free.sel(to_segment="bos") == 0).all()
    np.testing.assert_allclose(free.sum("to_segment"), 1, atol=TOLERANCE)


def test_a_real_model_s_sink_is_its_first_token_and_the_bundled_one_has_none(tiny, smollm2):
    assert find_sink(smollm2).position == 0 and find_sink(smollm2).is_bos
    assert find_sink(tiny).position is None


def test_a_first_token_that_is_no_bos_is_said_to_be_foreign(resting_on):
    model = resting_on(0)
    model.tokenizer.bos_token, bos = None, model.tokenizer.bos_token
    try:
        sink = find_sink(model)
    finally:
        model.tokenizer.bos_token = bos
    assert sink.position == 0 and not sink.is_bos
    assert sink.token == "The"
