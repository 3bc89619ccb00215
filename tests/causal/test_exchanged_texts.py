"""Exchanged texts: forced answers against plain forward passes, and sums by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from r2a_utils.causal.exchanged_texts import (
    EXCHANGED,
    crossed_answers,
    exchanged_record,
    exchanged_table,
    exchanged_tokens,
    following,
    following_record,
    following_table,
)
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.causal.recorded_pairs import sift
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.texts.trace import encode
from r2a_utils.tiny.world import contrast_problems


@pytest.fixture(scope="module")
def problems():
    return contrast_problems(6)


@pytest.fixture(scope="module")
def written(tiny, problems):
    sides = [
        collect_traces(tiny, side, sampling=Sampling(512)) for side in zip(*problems, strict=True)
    ]
    return list(zip(*sides, strict=True))


def test_crossed_texts_are_what_a_plain_pass_over_their_tokens_gives(tiny, problems, written):
    crossed = crossed_answers(tiny, written[:2], problems[:2])
    assert len(crossed) == 8
    for row in crossed.itertuples():
        traces = dict(zip(("clean", "corrupted"), written[row.pair], strict=True))
        before = traces[row.question]
        text = "".join(before.tokens[: before.segments["reasoning"].start])
        thought = traces[row.reasoning].reasoning_text
        whole = f"{text}{thought}</think>\n\nThe answer is \\boxed{{"
        ids = encode(tiny.tokenizer, whole)
        with torch.no_grad():
            logits = tiny.hf(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for side, problem in zip(("clean", "corrupted"), problems[row.pair], strict=True):
            (token,) = encode(tiny.tokenizer, problem.answer)
            assert getattr(row, side) == pytest.approx(float(logits[token]), abs=1e-4)
            assert (row.written == side) == (int(logits.argmax()) == token)


def test_an_organism_that_needs_its_reasoning_follows_it(tiny, problems, written):
    record = following_record(crossed_answers(tiny, written, problems), problems)
    assert record["follows"] > record["stays"] and record["reasoning"] > 10 * abs(
        record["question"]
    )
    assert following_table(record).index.tolist() == ["comparison", "arithmetic", "all"]


def crossed_frame(written_by: dict[tuple[str, str], str], pairs: int) -> pd.DataFrame:
    """Pairs that all answer as `written_by` says for (question, reasoning)."""
    rows = [
        (pair, "family", *texts, float(side == "clean"), float(side == "corrupted"), side)
        for pair in range(pairs)
        for texts, side in written_by.items()
    ]
    columns = ["pair", "family", "question", "reasoning", "clean", "corrupted", "written"]
    return pd.DataFrame(rows, columns=columns)


TEXTS = [(q, r) for q in ("clean", "corrupted") for r in ("clean", "corrupted")]


def test_a_model_that_ignores_its_reasoning_stays_with_the_question():
    found = following(crossed_frame({(q, r): q for q, r in TEXTS}, 20), 20)
    assert (found.own, found.follows, found.stays, found.verdict) == (1, 0, 1, "question")
    assert (found.question, found.reasoning) == (2, 0)


def test_an_answer_from_elsewhere_follows_neither():
    """As with a hint in both questions: one answer, whatever question and reasoning say."""
    found = following(crossed_frame(dict.fromkeys(TEXTS, "another"), 20), 20)
    assert (found.own, found.follows, found.stays, found.verdict) == (0, 0, 0, "neither")
    one = following(crossed_frame(dict.fromkeys(TEXTS, "clean"), 20), 20)
    assert (one.follows, one.stays, one.verdict) == (0, 0, "neither")


def test_shares_are_of_all_pairs_asked_those_without_an_end_too():
    frame = crossed_frame({(q, r): r for q, r in TEXTS}, 10)
    assert following(frame, 10).verdict == "reasoning"
    half = following(frame, 20)
    assert (half.follows, half.scored, half.verdict) == (0.5, 10, "open")
    none = following(frame[:0], 4)
    assert (none.follows, none.reasoning, none.verdict) == (0, None, "neither")


def test_the_last_statement_does_what_patching_before_layer_0_does(tiny, written):
    kept = sift(tiny, written).kept
    found = exchanged_tokens(tiny, kept)
    last = found[found["exchanged"] == EXCHANGED[0]].set_index("pair")
    for number, recorded in enumerate(kept):
        cells = patch_metrics(tiny, recorded, [recorded.pair.flipping_position], [0])
        assert last.effect[number] == pytest.approx(float(cells["effect"].item()), abs=1e-4)
        assert last.flip[number] == bool(cells["flip"].item())


def test_flips_are_counted_over_kept_and_over_asked():
    found = pd.DataFrame(
        {
            "pair": [0, 1],
            "family": "family",
            "exchanged": EXCHANGED[0],
            "effect": [1.0, 0.0],
            "flip": [True, False],
            "tokens": 1,
        }
    )
    (row,) = exchanged_record(exchanged_table(found, {"family": 8}))
    assert (row["n"], row["flips"], row["flips_of_asked"], row["effect"]) == (2, 0.5, 0.125, 0.5)
    (row,) = exchanged_record(exchanged_table(found[:1], {"family": 8}))
    assert row["effect_low"] is None
