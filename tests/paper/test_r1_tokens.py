"""The authors' real traces in R1's true tokens: cut as theirs are, and asked as theirs were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from r2a_utils.texts import Trace, cues, encode, render_prompt, sentences

CONDITIONS = {"with_reasoning": "withR", "without_reasoning": "withoutR"}


@pytest.fixture(scope="module")
def rows(paper_data) -> pd.DataFrame:
    return pd.read_parquet(paper_data / "math500_greedy_traces.parquet")


@pytest.fixture(scope="module")
def traces(rows, r1_tokenizer) -> list[Trace]:
    return [Trace.from_text(text, r1_tokenizer) for text in rows["response"]]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_our_raw_prompt_is_the_authors_token_for_token(rows, traces, r1_tokenizer, condition):
    ours = rows["condition"] == CONDITIONS[condition]
    for row, trace in zip(rows[ours].itertuples(), np.array(traces, object)[ours], strict=True):
        ids = render_prompt(r1_tokenizer, row.problem, condition, "raw")
        if condition == "with_reasoning":
            start = trace.segments["reasoning"].start
            assert ids[:start] == list(trace.token_ids[:start])
            assert r1_tokenizer.decode(ids[start:]) == "\n"
        else:
            stop = trace.segments["end_think"].stop
            assert ids[:stop] == list(trace.token_ids[:stop])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_segments_begin_where_the_authors_begin_them(paper_data, rows, traces, condition):
    """Of other samples of the same problems: the prompts are alike, and the prefilled thoughts."""
    short, compared = CONDITIONS[condition], 0
    with np.load(paper_data / f"segment_attention_qwen-1p5B_{short}.npz") as archive:
        places = zip(archive["r_start_idx"], archive["r_end_idx"], strict=True)
        theirs = dict(zip(archive["unique_id"], places, strict=True))
    for row, trace in zip(rows.itertuples(), traces, strict=True):
        if row.condition == short and row.unique_id in theirs:
            think, end_think = theirs[row.unique_id]
            assert trace.segments["think"].start == think
            if condition == "without_reasoning":
                assert trace.segments["end_think"].start == end_think
            compared += 1
    assert compared > 30


def test_sentences_cues_and_token_texts_of_all_traces(rows, traces, r1_tokenizer):
    assert len(traces) == 400
    for text, trace in zip(rows["response"], traces, strict=True):
        assert "".join(trace.tokens) == text.removesuffix("<｜end▁of▁sentence｜>")
        assert "\ufffd" not in trace.text
        again = Trace.from_ids(list(trace.token_ids), r1_tokenizer)
        assert again.segments == trace.segments and again.tokens == trace.tokens
        parts = sentences(trace)
        borders = [part.start for part in parts] + [parts[-1].stop]
        assert borders[0] == trace.segments["reasoning"].start
        assert borders[-1] == trace.segments["reasoning"].stop
        assert [part.stop for part in parts] == borders[1:]
        for cue in cues(trace):
            word = "".join(trace.tokens[cue.position :][:8]).lower().replace("-", " ")
            assert cue.word in word
    assert encode(r1_tokenizer, "<think></think>\n\n") == [151648, 151649, 271]
