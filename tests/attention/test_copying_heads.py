"""Induction and retrieval scores are 1 for a perfect copier and near chance for anything else."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from r2a_utils.attention import copying_heads
from r2a_utils.attention.copying_heads import (
    induction_scores,
    needle_cases,
    retrieval_scores,
    top_copying_heads,
)

PASSAGES = [f"The {thing} stands in the {place}." for thing, place in [
    ("lamp", "kitchen"), ("cup", "garden"), ("clock", "attic"), ("book", "shop"),
    ("chair", "office"), ("coin", "cellar"), ("bell", "garden"),
]]  # fmt: skip


def scripted(monkeypatch, look):
    """Let every head look at `look(ids, query)` alone, head (0, 0) at the start."""

    def rows(model, ids, heads, queries):
        weights = np.zeros((len(heads), queries.stop - queries.start, len(ids)), dtype=np.float32)
        for row, query in enumerate(range(queries.start, queries.stop)):
            weights[0, row, 0] = 1
            weights[1:, row, look(ids, query)] = 1
        return xr.DataArray(weights, dims=("head", "query", "key"))

    monkeypatch.setattr(copying_heads, "attention_rows", rows)


@pytest.fixture(scope="module")
def model(make_random_model):
    return make_random_model("qwen2")


def after_last_occurrence(ids, query):
    earlier = [i for i in range(query) if ids[i] == ids[query]]
    return earlier[-1] + 1 if earlier else 0


def test_a_perfect_induction_head_scores_one(monkeypatch, model):
    # a token that is drawn twice in one half has a later earlier occurrence; few of 10 are
    scripted(monkeypatch, after_last_occurrence)
    scores = induction_scores(model, length=10, repeats=4)
    assert scores[0, 0] == 0
    assert scores.values.ravel()[1:].min() > 0.9


def test_a_random_model_scores_about_uniform(make_random_model):
    flat = make_random_model("llama", initializer_range=0.002)  # attention is then almost uniform
    scores = induction_scores(flat, length=40, repeats=2)
    index = np.arange(40)
    expected = np.mean(1 / (1 + 40 + index + 1))
    np.testing.assert_allclose(scores, expected, rtol=0.05)


def test_random_tokens_are_ordinary_text(monkeypatch, model):
    seen = []

    def look(ids, query):
        seen.extend(ids[1:])
        return 0

    scripted(monkeypatch, look)
    induction_scores(model, length=30, repeats=2)
    special = {*model.tokenizer.all_special_ids, *model.tokenizer.get_added_vocab().values()}
    assert seen and not special & set(seen)


def test_needle_stands_once_in_the_hay_and_once_at_the_end(tokenizer):
    cases = needle_cases(PASSAGES, tokenizer, n=30)
    for case in cases:
        ids = list(case.token_ids)
        assert ids[case.needle] == ids[case.recital] and case.recital.stop == len(ids)
        assert case.needle.stop <= case.recital.start
        text = tokenizer.decode(ids[case.needle]).strip()
        assert text in PASSAGES and tokenizer.decode(ids).count(text) == 2
    assert len({case.needle.start for case in cases}) > 2
    assert needle_cases(PASSAGES, tokenizer, n=3, seed=7) == needle_cases(
        PASSAGES, tokenizer, n=3, seed=7
    )


def test_a_head_that_looks_every_token_up_scores_one(monkeypatch, model, tokenizer):
    cases = needle_cases(PASSAGES, tokenizer, n=5)
    shift = {case.token_ids: case.recital.start - case.needle.start for case in cases}
    scripted(monkeypatch, lambda ids, query: query + 1 - shift[tuple(ids)])
    scores = retrieval_scores(model, cases)
    assert scores[0, 0] == 0
    np.testing.assert_allclose(scores.values.ravel()[1:], 1.0)


def test_looking_at_the_needle_without_copying_scores_little(monkeypatch, model, tokenizer):
    cases = needle_cases(PASSAGES, tokenizer, n=5)
    starts = {case.token_ids: case.needle.start for case in cases}
    scripted(monkeypatch, lambda ids, query: starts[tuple(ids)])
    scores = retrieval_scores(model, cases)
    lengths = [case.needle.stop - case.needle.start for case in cases]
    # one token is looked at in every step, and it is the one being written once
    assert scores.values.max() == pytest.approx(np.mean([1 / n for n in lengths]))


def test_too_few_passages_are_refused(tokenizer, model):
    with pytest.raises(ValueError, match="more than 4 passages, got 3"):
        needle_cases(PASSAGES[:3], tokenizer)
    with pytest.raises(ValueError, match="no cases"):
        retrieval_scores(model, [])


def test_a_pretrained_model_has_heads_that_copy(smollm2):
    induction = induction_scores(smollm2, length=30, repeats=2)
    assert induction.max() > 0.5 and float(induction.median()) < 0.1
    retrieval = retrieval_scores(smollm2, needle_cases(PASSAGES, smollm2.tokenizer, n=3))
    assert retrieval.max() > 0.5 and float(retrieval.median()) < 0.2


def test_only_heads_that_copy_are_listed():
    scores = xr.DataArray([[0.05, 0.3], [0.9, 0.09]], dims=("layer", "head"))
    assert top_copying_heads(scores) == [(1, 0), (0, 1)]
    assert top_copying_heads(scores, k=1) == [(1, 0)]
    assert top_copying_heads(scores, least=0) == [(1, 0), (0, 1), (1, 1), (0, 0)]
    assert top_copying_heads(scores.T) == [(1, 0), (0, 1)]
