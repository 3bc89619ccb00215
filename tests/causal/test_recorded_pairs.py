"""Which pairs of traces are kept for patching, and the counts of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.recorded_pairs import (
    ANOTHER,
    KEPT,
    NO_ANSWER,
    NOT_ALIGNED,
    NOT_ENDED,
    NOT_FOLLOWED,
    SAME_ANSWER,
    SMALL_GAP,
    pair_funnel,
    sift,
    why_none_is_kept,
)
from r2a_utils.collecting.backends import teacher_forced
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.texts.trace import Trace, encode
from r2a_utils.tiny import world
from r2a_utils.tiny.world import contrast_problems


@pytest.fixture(scope="module")
def written(tiny):
    """Twelve pairs of the bundled world as the bundled model writes them."""
    sides = [
        collect_traces(tiny, problems, sampling=Sampling(512))
        for problems in zip(*contrast_problems(12), strict=True)
    ]
    return list(zip(*sides, strict=True))


def test_what_is_kept_meets_every_rule(tiny, written):
    sifted = sift(tiny, written)
    assert sifted.kept
    for recorded in sifted.kept:
        pair = recorded.pair
        assert pair.flipping_position in pair.differing_positions
        for ids, answer in zip((pair.clean_ids, pair.corrupted_ids), pair.answers, strict=True):
            with torch.no_grad():
                logits = tiny.hf(torch.tensor([ids])).logits[0, -1]
            assert logits.argmax() == answer[0]
    assert sifted.counts["kept"] == len(sifted.kept)


def test_every_pair_is_counted_once(tiny, written):
    # A trace beside itself has nothing to contrast.
    pairs = [*written, *((clean, clean) for clean, _ in written)]
    counts = sift(tiny, pairs).counts
    assert sum(counts.values()) == len(pairs)
    assert counts[SAME_ANSWER] == len(written)


def test_a_refusal_is_named_by_what_it_is(tiny, written):
    clean, corrupted = written[0]
    ids = [*clean.token_ids[: clean.segments["answer"].start], *encode(tiny.tokenizer, "So.")]
    boxless = Trace.from_ids(ids, tiny.tokenizer, model=tiny.name)
    reasons = sift(tiny, [(clean, corrupted), (clean, clean), (clean, boxless)])
    assert reasons.reasons == [KEPT, SAME_ANSWER, NO_ANSWER]
    problems = contrast_problems(4)
    table = pair_funnel(problems, [True, True, False, True], reasons)
    assert table.loc[NOT_ENDED, "comparison"] == 1 and table.loc[KEPT, "comparison"] == 1
    assert table["all"].sum() == 4 and table.loc[SAME_ANSWER].tolist() == [1, 0, 1]


def test_a_gap_above_every_pair_s_keeps_none(tiny, written):
    kept = sift(tiny, written).kept
    gaps = sorted(abs(recorded.gap) for recorded in kept)
    middle = gaps[len(gaps) // 2]
    again = sift(tiny, written, min_gap=middle).kept
    assert [r.gap for r in again] == [r.gap for r in kept if abs(r.gap) >= middle]
    assert sift(tiny, written, min_gap=2 * gaps[-1]).kept == []


def test_an_answer_that_is_stated_before_its_box_is_made_where_it_is_stated(tiny):
    """Long answers to arithmetic restate the steps, whose last result is the answer."""
    problems = [
        pair
        for pair in contrast_problems(60)
        if "We start" in world.write_text(pair[0], "with_reasoning")
    ]
    sides = [
        collect_traces(tiny, side, backend=teacher_forced(tiny, world.write_text))
        for side in zip(*problems, strict=True)
    ]
    for asked, traces in zip(problems, zip(*sides, strict=True), strict=True):
        pair = ContrastPair.from_traces(*traces)
        text = "".join(pair.tokens)
        assert "boxed" not in text[text.index("We start") :] and "gives" in text
        assert [text.strip() for text in pair.answer_texts] == [p.answer for p in asked]


def test_a_pair_that_the_model_does_not_tell_apart_is_left_out(make_random_model, written):
    random = make_random_model("qwen2")
    pairs = [tuple(replace(trace, model=random.name) for trace in pair) for pair in written]
    sifted = sift(random, pairs)
    assert sifted.kept == []
    assert sum(sifted.counts[reason] for reason in (NOT_FOLLOWED, SMALL_GAP, ANOTHER)) == len(pairs)


def test_where_no_pair_is_kept_it_is_said_why_and_what_can_be_done():
    counts = {"own": {KEPT: 3, NOT_ALIGNED: 1}, "probe": {NOT_ALIGNED: 7, KEPT: 0}}
    told = why_none_is_kept(counts, "probe")
    assert told.startswith("Patching needs 1 pair, has 0 under the protocol 'probe'")
    assert "7: not aligned" in told and "Under 'own' 3 of 4 are kept: --set protocol=own." in told
    told = why_none_is_kept({name: {KEPT: 0} for name in counts}, "probe")
    assert "--set n_pairs=" in told and "prompt_style" in told


def test_no_traces_give_no_pairs(tiny):
    assert sift(tiny, []).counts["kept"] == 0
