"""Which pairs of traces are kept for patching, and the counts of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from r2a_utils.causal.pairs import PROBES, probed
from r2a_utils.causal.selection import Sifted, check_kept, sift
from r2a_utils.collecting.generation import Sampling, collect_traces
from r2a_utils.texts.trace import answer_span
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
    sifted = sift(tiny, {"own": written})["own"]
    assert sifted.kept
    for pair in sifted.kept:
        assert pair.flipping_position in pair.differing_positions
        for ids, answer in zip((pair.clean_ids, pair.corrupted_ids), pair.answers, strict=True):
            with torch.no_grad():
                logits = tiny.hf(torch.tensor([ids])).logits[0, -1]
            assert logits.argmax() == answer[0]
    assert sifted.counts["kept"] == len(sifted.kept)


def test_every_pair_is_counted_once(tiny, written):
    # A trace beside itself has nothing to contrast.
    pairs = [*written, *((clean, clean) for clean, _ in written)]
    counts = sift(tiny, {"own": pairs})["own"].counts
    assert sum(counts.values()) == len(pairs)
    assert counts["refused: cannot be aligned"] >= len(written)


def test_a_pair_that_the_model_does_not_tell_apart_is_left_out(make_random_model, tiny, written):
    random = make_random_model("qwen2")
    pairs = [tuple(replace(trace, model=random.name) for trace in pair) for pair in written]
    sifted = sift(random, {"own": pairs})["own"]
    assert sifted.kept == []
    left_out = "left out: too small a gap, or not the answer that the model writes"
    assert sifted.counts[left_out] == len(pairs) - sifted.counts["refused: cannot be aligned"]


def test_no_pair_at_all_is_refused_with_what_can_be_done():
    nothing = Sifted([], {"refused: cannot be aligned": 7, "kept": 0})
    something = Sifted(["a pair"], {"kept": 1})
    by_protocol = {"own": something, "probe": nothing}
    check_kept(by_protocol, "own")
    with pytest.raises(ValueError, match="under the protocol 'probe'") as raised:
        check_kept(by_protocol, "probe")
    for said in ("'refused: cannot be aligned': 7", "'own': 1", "n_pairs", "prompt_style"):
        assert said in str(raised.value)


def test_no_traces_give_no_pairs(tiny):
    assert sift(tiny, {"own": []})["own"].counts["kept"] == 0


def test_protocols_are_sifted_together_as_each_would_be_alone(tiny, written):
    answers = [[answer_text(trace) for trace in pair] for pair in written]
    by_protocol = {
        "own": written,
        "probe": [
            tuple(
                probed(trace, tiny.tokenizer, " " + answer, PROBES[0], "\n\nFinal answer is", ".")
                for trace, answer in zip(pair, both, strict=True)
            )
            for pair, both in zip(written, answers, strict=True)
        ],
    }
    together = sift(tiny, by_protocol)
    for protocol, pairs in by_protocol.items():
        assert together[protocol] == sift(tiny, {protocol: pairs})[protocol]
    assert together["own"] != together["probe"]


def answer_text(trace) -> str:
    return "".join(trace.tokens[answer_span(trace)])
