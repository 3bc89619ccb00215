"""States of the playground: links, files, and what the package makes of them.

That the page itself reads and writes them so, is held in `publishing/test_live_page.py` with a
browser and here, for links, under node.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from urllib.parse import urlencode

import numpy as np
import pytest

from r2a_utils import playground
from r2a_utils.causal import Ablation, Knockout, patch_grid, regenerate
from r2a_utils.collecting import collect_traces
from r2a_utils.playground import open_state, playground_link, read_state
from r2a_utils.publishing.book_runs import BOOK
from r2a_utils.texts.boxed import final_answer
from r2a_utils.texts.tokens import encode
from r2a_utils.tiny import world

NODE = shutil.which("node")
HEADS = ((2, 0), (3, 5))


@pytest.fixture(scope="module")
def traces(tiny):
    problems = [p for p in world.held_out_problems(20) if p.meta["family"] == "arithmetic"]
    return collect_traces(tiny, problems[:2])


@pytest.mark.parametrize(
    "change",
    [
        None,
        Ablation(HEADS),
        Knockout(heads=HEADS),
        Knockout(keys="prompt", heads=HEADS),
    ],
)
def test_a_link_opens_as_what_it_was_made_of(tiny, traces, change):
    opened = open_state(tiny, playground_link(traces[0], change))
    assert opened.trace.token_ids == traces[0].token_ids
    assert opened.trace.segments == traces[0].segments
    assert opened.interventions == (() if change is None else (change,))
    assert opened.pair is None


def test_a_trace_without_reasoning_has_a_link(tiny):
    [trace] = collect_traces(tiny, world.held_out_problems(1), "without_reasoning")
    assert open_state(tiny, playground_link(trace)).trace.token_ids == trace.token_ids


def test_two_states_side_by_side_are_a_pair(tiny, traces):
    """Up to where their answers part; the one that is kept is the clean one."""
    one, other = traces
    link = playground_link(one, beside=other)
    opened = open_state(tiny, f"{link}&patch=3.{len(opened_pair(tiny, link).corrupted_ids) - 1}")
    pair = opened.pair
    assert pair.clean_ids == other.token_ids[: len(pair)]
    assert pair.corrupted_ids == one.token_ids[: len(pair.corrupted_ids)]
    assert pair.answers == (
        (other.token_ids[len(pair)],),
        (one.token_ids[len(pair.corrupted_ids)],),
    )
    assert opened.cell == (3, len(pair) - 1)


def opened_pair(model, link):
    return open_state(model, link).pair


def test_a_line_is_a_place_to_cut(tiny, traces):
    link = playground_link(traces[0], Knockout(heads=HEADS)) + "&to=2"
    [change] = open_state(tiny, link).interventions
    text = "".join(traces[0].tokens[change.keys])
    assert text.strip() == traces[0].reasoning_text.strip().split("\n")[1]
    assert len(regenerate(tiny, traces[0], [change], max_new_tokens=60)) == 1


def test_a_cue_that_is_banned_is_not_written_here_either(tiny):
    question = next(
        p.question
        for p in world.held_out_problems(60)
        if p.meta["family"] == "arithmetic" and "Hmm" in collect_traces(tiny, [p])[0].reasoning_text
    )
    link = playground_link(collect_traces(tiny, [world.held_out_problems(1)[0]])[0])
    state = read_state(link) | {"question": question, "thought": None, "cues": "banned"}
    address = "&".join(f"{name}={state[name]}" for name in ("question", "cues"))
    assert "Hmm" not in open_state(tiny, f"#{address}").trace.reasoning_text


def test_no_cue_is_written_behind_a_thought_that_is_given(tiny, monkeypatch):
    """Nothing of what is banned stands in the answer, and the rest is what is likeliest without."""
    thought = "Okay, I start with 2.\nStep 1: multiply by 7. 2*7=14, so 4.\nSo 4 is the last digit."
    question = "Start with 2. Step 1: multiply by 7. Keep only the last digit each time. "
    question += "Where do you end?"
    link = "#" + urlencode({"question": question, "thought": thought})
    free = open_state(tiny, link).trace
    word = free.tokens[free.segments["answer"].start + 2]
    monkeypatch.setattr(
        playground, "cue_token_ids", lambda _: {"any": list(encode(tiny.tokenizer, word))}
    )
    banned = open_state(tiny, link + "&cues=banned").trace
    assert word in free.answer_text and word not in banned.answer_text
    assert banned.reasoning_text == free.reasoning_text


def test_a_pair_whose_heads_are_changed_is_not_patched(tiny, traces):
    """The page refuses a grid there, too."""
    link = playground_link(traces[0], Knockout(heads=HEADS), beside=traces[1])
    opened = open_state(tiny, link)
    assert opened.pair is None and len(opened.interventions) == 1
    with pytest.raises(ValueError, match="put back its heads"):
        open_state(tiny, link + "&patch=3.20")


def test_what_is_no_state_is_refused(tiny, traces, tmp_path):
    with pytest.raises(ValueError, match="no link to the playground"):
        read_state("playground.html")
    (tmp_path / "other.json").write_text(json.dumps({"model": "gpt2"}))
    with pytest.raises(ValueError, match="whose model is r2a-tiny"):
        read_state(tmp_path / "other.json")
    with pytest.raises(ValueError, match="names no problem"):
        read_state("playground.html#act=cut")
    with pytest.raises(ValueError, match="download the state as JSON"):
        open_state(tiny, "#question=Start+with+0.&act=cut&from=thought&heads=2.0")
    with pytest.raises(ValueError, match="same answer"):
        open_state(tiny, playground_link(traces[0], beside=traces[0]))
    with pytest.raises(ValueError, match="named heads"):
        playground_link(traces[0], Knockout())
    with pytest.raises(ValueError, match="by zero"):
        playground_link(traces[0], Ablation(HEADS, method="mean"))


@pytest.mark.skipif(NODE is None, reason="node is not on the PATH")
def test_the_page_reads_and_writes_the_same_address(traces):
    link = playground_link(traces[0], Knockout(heads=HEADS), beside=traces[1])
    script = (
        f"require({json.dumps(str(BOOK / 'assets' / 'live' / 'state.js'))});"
        "const live = globalThis.r2aLive, given = process.argv[1];"
        "const state = live.stateOfHash(given, ''), beside = live.stateBeside(state);"
        "console.log(JSON.stringify([state, beside, live.stateToHash(state)]))"
    )
    address = link[link.index("#") :]
    done = subprocess.run([NODE, "-e", script, address], capture_output=True, text=True, check=True)
    state, beside, written = json.loads(done.stdout)
    assert read_state(written) == read_state(link) == state | {"beside": beside}


SHEET = (BOOK / "teach" / "first_twenty_minutes.md").read_text("utf-8")
STATES = re.findall(r'data-box="(\w+)" href="[./]*(playground\.html#[^"]+)"', SHEET)


@pytest.mark.parametrize(("box", "link"), STATES)
def test_a_round_of_the_teaching_sheet_ends_as_it_says(tiny, box, link):
    assert final_answer(open_state(tiny, html.unescape(link)).trace.answer_text) == box


def test_the_digit_of_the_sheet_decides_early_and_the_last_token_late(tiny):
    """Its fourth round: up to some layer all comes over at the digit, from there at the end."""
    [link] = [html.unescape(link) for _, link in STATES if "beside=" in link]
    pair = open_state(tiny, link).pair
    [digit] = pair.differing_positions
    at_digit, at_end = patch_grid(tiny, pair, [digit, len(pair) - 1]).values.T
    turned = np.flatnonzero(at_digit > 0.5).tolist()
    assert turned == list(range(len(turned))) and 0 < len(turned) < tiny.n_layers
    assert ((at_digit > 0.9) | (at_digit < 0.1)).all()
    assert ((at_end > 0.9) == (at_digit < 0.1)).all()
