"""Which pairs of traces are kept for patching, and the counts of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from r2a_utils.causal.recorded_pairs import sift, why_none_is_kept
from r2a_utils.collecting.generation import Sampling, collect_traces
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
    assert counts["refused: cannot be aligned"] >= len(written)


def test_a_gap_above_every_pair_s_keeps_none(tiny, written):
    kept = sift(tiny, written).kept
    gaps = sorted(abs(recorded.gap) for recorded in kept)
    middle = gaps[len(gaps) // 2]
    again = sift(tiny, written, min_gap=middle).kept
    assert [r.gap for r in again] == [r.gap for r in kept if abs(r.gap) >= middle]
    assert sift(tiny, written, min_gap=2 * gaps[-1]).kept == []


def test_a_pair_that_the_model_does_not_tell_apart_is_left_out(make_random_model, written):
    random = make_random_model("qwen2")
    pairs = [tuple(replace(trace, model=random.name) for trace in pair) for pair in written]
    sifted = sift(random, pairs)
    assert sifted.kept == []
    left_out = "left out: too small a gap, or not the answer that the model writes"
    assert sifted.counts[left_out] == len(pairs) - sifted.counts["refused: cannot be aligned"]


def test_where_no_pair_is_kept_it_is_said_why_and_what_can_be_done():
    counts = {"own": {"kept": 1}, "probe": {"refused: cannot be aligned": 7, "kept": 0}}
    told = why_none_is_kept(counts, "probe")
    assert told.startswith("Patching needs 1 pair, has 0 under the protocol 'probe'")
    for said in ("refused: cannot be aligned 7", "own keeps 1", "--set n_pairs=", "prompt_style"):
        assert said in told


def test_no_traces_give_no_pairs(tiny):
    assert sift(tiny, []).counts["kept"] == 0
