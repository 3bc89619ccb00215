"""Lens, forced answers, resampling and knockout over sentences, against plain forwards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from r2a_utils.causal.interventions import knockout
from r2a_utils.causal.sentences import (
    answer_lens,
    forced_answers,
    resampled_answers,
    sentence_knockouts,
    shortened,
)
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.trace import (
    STEM,
    Trace,
    answer_span,
    encode,
    forced_ids,
    sentences,
)

REASONING = "So 3 plus 4 is 7. Wait, let me check. Yes, it is 7."


@pytest.fixture(scope="module", params=["llama-wide-heads", "qwen3", "granite-scaled"])
def model(request, make_random_model):
    return make_random_model(request.param, seed=5)


@pytest.fixture(scope="module")
def trace(tokenizer):
    text = f"{tokenizer.bos_token}3 plus 4?<think>\n{REASONING}\n</think>\n\nIt is \\boxed{{7}}."
    return Trace.from_text(text, tokenizer, problem_id="seven")


def plain_logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(torch.tensor([list(ids)])).logits[0]


def plain_score(model, context, answer) -> tuple[float, int]:
    """Log-probability and worst rank of an answer after a context, one token after the other."""
    total, worst = 0.0, 0
    for i, token in enumerate(answer):
        logits = plain_logits(model, (*context, *answer[:i]))[-1]
        total += float(logits.log_softmax(-1)[token])
        worst = max(worst, int((logits > logits[token]).sum()))
    return total, worst


def test_the_lens_after_the_last_layer_is_the_model_itself(model, trace):
    lens, span = answer_lens(model, trace), answer_span(trace)
    logits = plain_logits(model, trace.token_ids)[lens.position.values.tolist()]
    token = trace.token_ids[span.start]
    last = lens.isel(layer=-1)
    np.testing.assert_allclose(last.log_probability, logits.log_softmax(-1)[:, token], atol=1e-4)
    np.testing.assert_array_equal(last["rank"], (logits > logits[:, [token]]).sum(-1))
    ends = [sentence.stop - 1 for sentence in sentences(trace)]
    assert lens.position.values.tolist() == [*ends, span.start - 1]
    assert lens.sizes["layer"] == model.n_layers + 1


def test_the_lens_before_layer_0_unembeds_the_embedding(model, trace):
    lens, ids = answer_lens(model, trace, [2, 9]), torch.tensor(trace.token_ids)
    hf = model.hf
    scale = (
        getattr(hf.config, "embedding_multiplier", 1.0),
        getattr(hf.config, "logits_scaling", 1.0),
    )
    with torch.no_grad():
        hidden = hf.model.norm(hf.get_input_embeddings()(ids[[2, 9]]) * scale[0])
        logits = hf.lm_head(hidden) / scale[1]
    expected = logits.log_softmax(-1)[:, trace.token_ids[answer_span(trace).start]]
    np.testing.assert_allclose(lens.log_probability.isel(layer=0), expected, atol=1e-4)
    with pytest.raises(ValueError, match="positions before the answer"):
        answer_lens(model, trace, [len(trace)])


def test_forced_answers_equal_full_forwards(model, trace):
    frame = forced_answers(model, trace)
    answer = trace.token_ids[answer_span(trace)]
    stops = [s.stop for s in sentences(trace)]
    assert frame["position"].tolist() == [trace.segments["reasoning"].start, *stops]
    assert frame["sentences"].tolist() == list(range(len(stops) + 1))
    for row in frame.itertuples():
        context = forced_ids(trace, model.tokenizer, row.sentences)
        assert tuple(context[: row.position]) == trace.token_ids[: row.position]
        log_probability, rank = plain_score(model, context, answer)
        assert row.log_probability == pytest.approx(log_probability, abs=1e-4)
        assert row.rank == rank and row.written == (rank == 0)
    assert frame["log_probability"].std() > 1e-3


def test_answers_of_several_tokens_are_forced_whole(model, tokenizer):
    text = f"{tokenizer.bos_token}3?<think>\nSo. Yes.\n</think>\\boxed{{3.25}}"
    trace = Trace.from_text(text, tokenizer)
    answer = trace.token_ids[answer_span(trace)]
    assert len(answer) == 4
    frame = forced_answers(model, trace, stem="\\boxed{")
    context = forced_ids(trace, tokenizer, 1, "\\boxed{")
    assert frame["log_probability"].iloc[1] == pytest.approx(
        plain_score(model, context, answer)[0], abs=1e-4
    )


def test_a_shortened_answer_keeps_the_reasoning_and_the_result(trace, tokenizer):
    short = shortened(trace, tokenizer)
    assert short.reasoning_text == trace.reasoning_text and short.problem_id == "seven"
    assert short.answer_text == STEM + "7}"
    assert "".join(short.tokens[answer_span(short)]) == "7"


@pytest.fixture
def coin(make_random_model, trace, tokenizer):
    """After a reasoning's token: `</think>`, then a box with 7 (three times of four) or with 8."""
    model = make_random_model("llama", num_hidden_layers=1, tie_word_embeddings=False)
    block, hf = model.hf.model.layers[0], model.hf
    block.self_attn.o_proj.weight.data.zero_()
    block.mlp.down_proj.weight.data.zero_()
    table, head = hf.get_input_embeddings().weight.data, hf.lm_head.weight.data
    table.zero_()
    head.zero_()
    table[:, 0] = 1.0  # any other token: `</think>` follows
    close = encode(tokenizer, R1_TAGS.close)
    box, (seven,), (eight,) = (encode(tokenizer, t) for t in ("\\boxed{", "7", "8"))
    (brace,), end = encode(tokenizer, "}"), tokenizer.eos_token_id
    chain = [*close, *box]
    assert len(set(chain)) == len(chain) < 20 and len(close) == 1
    scale = hf.config.hidden_size**0.5  # the norm makes a one-hot vector this long
    head[close[0], 0] = 40 / scale
    for column, (token, following) in enumerate(pairwise(chain), start=1):
        table[token], table[token, column] = 0, 1
        head[following, column] = 40 / scale
    table[box[-1]], table[box[-1], 30] = 0, 1
    head[seven, 30], head[eight, 30] = (40 + np.log(3)) / scale, 40 / scale
    for column, token, following in ((31, seven, brace), (31, eight, brace), (32, brace, end)):
        table[token], table[token, column] = 0, 1
        head[following, column] = 40 / scale
    return model


def test_resampled_shares_are_those_of_the_model_s_coin(coin, trace):
    sampling = Sampling(max_new_tokens=30, temperature=1.0, seed=0)
    frame = resampled_answers(coin, trace, sampling=sampling, samples=100)
    assert frame["sentences"].tolist() == list(range(len(sentences(trace)) + 1))
    assert (frame["n"] == 100).all() and (frame["unfinished"] == 0).all()
    # The template's line break is not the model's to write.
    assert trace.tokens[frame["position"].iloc[0] - 1] == "\n"
    assert frame["share"].mean() == pytest.approx(0.75, abs=0.09)  # 4 standard errors of 400 throws
    assert frame["share"].nunique() > 1
    for row in frame.itertuples():
        assert (row.ci_low, row.ci_high) == pytest.approx(wilson_interval(row.same, 100))
    np.testing.assert_allclose(frame["importance"].iloc[1:], np.diff(frame["share"]))
    assert np.isnan(frame["importance"].iloc[0])
    again = resampled_answers(coin, trace, sampling=sampling, samples=100)
    pd.testing.assert_frame_equal(frame, again)


def test_what_is_cut_off_is_not_the_same_answer(coin, trace):
    sampling = Sampling(max_new_tokens=3, temperature=1.0)
    frame = resampled_answers(coin, trace, sampling=sampling, samples=5)
    assert (frame["unfinished"] == 5).all() and (frame["same"] == 0).all()
    with pytest.raises(ValueError, match="temperature above 0"):
        resampled_answers(coin, trace, sampling=Sampling(max_new_tokens=3))


def test_equal_answers_are_the_same_however_they_are_written(coin, tokenizer):
    def shares(answer):
        text = f"{tokenizer.bos_token}3?<think>\nSo.\n</think>{answer}"
        trace = Trace.from_text(text, tokenizer)
        sampling = Sampling(max_new_tokens=30, temperature=1.0, seed=0)
        return resampled_answers(coin, trace, sampling=sampling, samples=20)["same"].tolist()

    assert shares("\\boxed{14/2}") == shares("\\boxed{7}")
    assert min(shares("\\boxed{7}")) > 0
    with pytest.raises(ValueError, match="boxes no answer"):
        shares("seven")


def test_each_sentence_is_knocked_out_beside_spans_of_its_length(model, trace):
    frame = sentence_knockouts(model, trace, spans=8, seed=1)
    parts = sentences(trace)
    assert frame["start"].tolist() == [part.start for part in parts]
    for row, part in zip(frame.itertuples(), parts, strict=True):
        expected = knockout(model, trace, ("answer", part))["change"]
        assert row.change == pytest.approx(expected, abs=1e-4)
        assert row.random_low <= row.random_mean <= row.random_high
    assert frame["change"].abs().max() > 1e-3
    pd.testing.assert_frame_equal(frame, sentence_knockouts(model, trace, spans=8, seed=1))


def test_a_sentence_too_long_for_another_like_it_has_no_null(make_random_model, tokenizer):
    model = make_random_model("llama", seed=5)
    text = f"{tokenizer.bos_token}3?<think>\nSo we take 3 and 4 and 5 and 6\n</think>\\boxed{{7}}"
    frame = sentence_knockouts(model, Trace.from_text(text, tokenizer))
    assert frame["random_mean"].isna().iloc[-1] and frame["change"].notna().all()
