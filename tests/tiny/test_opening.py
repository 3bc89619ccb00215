"""The problem that the book opens on is one, on its home page and in its stages."""

from __future__ import annotations

import html
import re
from pathlib import Path

from r2a_utils import causal, load_problems
from r2a_utils.collecting import Sampling, collect_traces
from r2a_utils.texts.trace import cues
from r2a_utils.tiny import opening
from r2a_utils.tiny.world import is_held_out

HOME = Path(__file__).parents[2] / "book" / "intro.md"


def test_home_shows_it_first():
    shown = re.findall('data-segment="prompt".*?<div>(.*?)</div>', HOME.read_text("utf-8"))
    assert html.unescape(shown[0]) == opening.PROBLEM.question


def test_it_is_among_the_problems_of_a_run_and_was_never_trained_on():
    same = [problem for problem in load_problems("tiny", seed=0) if opening.opens(problem)]
    assert [problem.answer for problem in same] == [opening.PROBLEM.answer]
    assert all(map(is_held_out, opening.opening_pair()))


def test_it_goes_first_and_the_others_keep_their_order():
    problems = load_problems("tiny", seed=0)[160:180]
    moved = opening.opening_first(problems)
    assert moved[0].id == opening.PROBLEM.id
    assert moved[1:] == [problem for problem in problems if not opening.opens(problem)]
    assert opening.opening_first(problems[:5]) == problems[:5]


def test_the_bundled_model_corrects_itself_in_it_and_its_pair_can_be_patched(tiny):
    sides = collect_traces(tiny, opening.opening_pair(), sampling=Sampling(512))
    assert "wait" in {cue.word for cue in cues(sides[0])}
    [kept] = causal.sift(tiny, [tuple(sides)]).kept
    assert opening.opens(sides[0]) and kept.pair.problem_id == opening.PROBLEM.id
