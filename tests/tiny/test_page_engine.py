"""The page's engine (book/assets/live/) against the package, under node.

The weights of the page have 12 bits. What the engine computes is held against the package with the
same rounded weights, where only the order of sums differs, and what the rounding costs against the
package as it is. Without node on the PATH all is skipped.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from r2a_utils.answers.no_cue import cue_token_ids
from r2a_utils.attention.weights import attention_rows
from r2a_utils.causal.interventions import Knockout, regenerate
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.engine.forward import replay, run_with_cache
from r2a_utils.engine.patches import EdgeCut, Patch, PatchedRun
from r2a_utils.models.loading import load_model
from r2a_utils.runs.stage import ROOT
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import CUES, Trace, encode
from r2a_utils.tiny import world
from r2a_utils.tiny.page_weights import LARGEST, write_page_weights

ENGINE = ROOT / "book" / "assets" / "live"
MODULES = ("kernel", "tokenizer", "interventions", "forward", "greedy", "grid")
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not on the PATH")

SUMS = 2e-4  # of a logit: what another order of sums in float32 may change
ROUNDING = 0.03  # of a logit: what weights of 12 bits may change; 0.01 of a weight of attention
MOST_WRITTEN = 400
N_TEXTS = 24


class Page:
    """The engine as a page loads it: one script after the other, then the model's.

    `first` is what the browser does before.
    """

    def __init__(self, model: Path, first: str = ""):
        self.model = model
        scripts = [*(ENGINE / f"{name}.js" for name in MODULES), model]
        loaded = "".join(f"require({json.dumps(str(path))});" for path in scripts)
        self.begin = (
            f"{first}{loaded}const live = globalThis.r2aLive, model = live.readModel(live.packed);"
            "const given = JSON.parse(require('fs').readFileSync(0));"
            "const read = (pass, at) => at.map((p) => [...live.logitsAt(pass, p)]);"
            "const run = (ids) => live.extend(live.newPass(model), ids);"
        )

    def ask(self, code: str, **given):
        """What the JavaScript of a function's body returns; `given` is what it may read."""
        script = f"{self.begin}console.log(JSON.stringify((() => {{{code}}})()))"
        done = subprocess.run(
            [NODE, "-e", script], input=json.dumps(given), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    path = tmp_path_factory.mktemp("live") / "model.js"
    write_page_weights(path)
    assert path.stat().st_size <= 6_000_000
    return Page(path)


@pytest.fixture(scope="module")
def rounded():
    """The bundled model with the page's weights."""
    model = load_model("r2a-tiny", dtype="float32", device="cpu")
    with torch.no_grad():
        for weight in model.hf.parameters():
            if weight.ndim == 2:
                scale = weight.abs().amax(dim=1, keepdim=True) / LARGEST
                weight.copy_((weight / scale).round() * scale)
    return model


@pytest.fixture(scope="module")
def trace(world_traces) -> Trace:
    """An arithmetic trace with a corrected step and a long answer."""
    return next(t for t in world_traces if "Wait" in t.reasoning_text and "gives" in t.answer_text)


def test_tokens_are_the_tokenizer_s(page, tokenizer, world_traces):
    texts = ["".join(trace.tokens) for trace in world_traces] + ["  Grüße,\n\n12 «x»! "]
    found = page.ask(
        "return given.texts.map((text) => model.tokenizer.encode(text))"
        ".map((ids) => [ids, model.tokenizer.decode(ids)])",
        texts=texts,
    )
    assert [ids for ids, _ in found] == [encode(tokenizer, text) for text in texts]
    assert [text for _, text in found] == texts


def test_prompts_are_the_package_s(page, tokenizer):
    questions = [problem.question for problem in world.held_out_problems(5)]
    found = page.ask("return given.questions.map(model.tokenizer.prompt)", questions=questions)
    assert found == [render_prompt(tokenizer, question) for question in questions]


def test_greedy_texts_are_the_model_s_own(page, tiny):
    """Of the first 500 held-out problems, 24 here; the model's weights are not rounded."""
    assert agreement(page, tiny, world.held_out_problems(500)[:N_TEXTS]) == N_TEXTS


def agreement(page: Page, model, problems) -> int:
    """On how many problems the page writes what the package writes, token by token."""
    written = collect_completions(model, problems, sampling=Sampling(MOST_WRITTEN))
    expected = {c.problem_id: list(c.completion_ids) for c in written}
    found = page.ask(
        "return given.questions.map((question) => [...live.continueGreedily("
        "run(model.tokenizer.prompt(question)), { most: given.most })])",
        questions=[problem.question for problem in problems],
        most=MOST_WRITTEN,
    )
    return sum(expected[problem.id] == ids for problem, ids in zip(problems, found, strict=True))


def test_logits_are_the_package_s(page, tiny, rounded, trace):
    at = list(range(len(trace)))
    found = np.array(
        page.ask("return read(run(given.ids), given.at)", ids=list(trace.token_ids), at=at)
    )
    for model, tolerance in ((rounded, SUMS), (tiny, ROUNDING)):
        expected = run_with_cache(model, trace.token_ids, read=at).logits.numpy()
        assert np.abs(found - expected).max() < tolerance


def test_without_simd_the_engine_computes_the_same(page, rounded, trace):
    """As in a browser whose WebAssembly has no 128-bit numbers, or is switched off."""
    ids, at = list(trace.token_ids), list(range(len(trace)))
    old = Page(page.model, "delete globalThis.WebAssembly;")
    found = np.array(old.ask("return read(run(given.ids), given.at)", ids=ids, at=at))
    expected = run_with_cache(rounded, ids, read=at).logits.numpy()
    assert np.abs(found - expected).max() < SUMS


def test_attention_rows_are_the_package_s(page, tiny, rounded, trace):
    heads = [(layer, head) for layer in range(tiny.n_layers) for head in range(tiny.n_heads)]
    queries = trace.segments["answer"]
    found = page.ask(
        "const pass = run(given.ids);"
        "return given.heads.map(([layer, head]) => given.queries.map("
        "(query) => [...live.attentionRow(pass, layer, head, query)]))",
        ids=list(trace.token_ids),
        heads=heads,
        queries=list(range(queries.start, queries.stop)),
    )
    weights = np.array([[row + [0] * (len(trace) - len(row)) for row in head] for head in found])
    assert np.abs(weights.sum(-1) - 1).max() < 1e-5
    for model, tolerance in ((rounded, SUMS), (tiny, 0.01)):
        expected = attention_rows(model, trace, heads, queries).values
        assert np.abs(weights - expected).max() < tolerance


def replayed(model, trace: Trace, run: PatchedRun) -> np.ndarray:
    """The last logits of a trace under a run."""
    cache = run_with_cache(model, trace.token_ids)
    return replay(model, cache, [run], lambda logits: logits[:, -1])[0].numpy()


def last(page: Page, trace: Trace, change: str, **given) -> np.ndarray:
    """The last logits that the page computes under a change."""
    found = page.ask(
        f"const pass = live.replay(run(given.ids), live.changes({change}));"
        "return read(pass, [given.ids.length - 1])[0]",
        ids=list(trace.token_ids),
        **given,
    )
    return np.array(found)


@pytest.mark.parametrize("heads", [None, [(2, 0), (2, 5), (4, 3)]])
def test_cut_edges_are_the_package_s(page, rounded, trace, heads):
    queries, keys = trace.segments["answer"], trace.segments["reasoning"]
    chosen = [(layer, None) for layer in range(rounded.n_layers)]
    if heads:
        chosen = [(layer, tuple(h for i, h in heads if i == layer)) for layer in (2, 4)]
    places = range(queries.start, queries.stop), range(keys.start, keys.stop)
    run = PatchedRun(cuts=tuple(EdgeCut(layer, *places, own) for layer, own in chosen))
    found = last(
        page,
        trace,
        "live.cutEdges(given.queries, given.keys, given.heads)",
        queries=[queries.start, queries.stop],
        keys=[keys.start, keys.stop],
        heads=heads,
    )
    assert np.abs(found - replayed(rounded, trace, run)).max() < SUMS
    plain = run_with_cache(rounded, trace.token_ids).logits[-1].numpy()
    assert np.abs(found - plain).max() > 10 * SUMS  # it did something


def test_a_cut_leaves_a_key_to_look_at(page, trace):
    with pytest.raises(AssertionError, match="leave at least one visible"):
        last(page, trace, "live.cutEdges([5, 9], [0, 6])")


def test_ablated_heads_are_the_package_s(page, rounded, trace):
    heads, answer = [(1, 7), (3, 0), (3, 2)], trace.segments["answer"]
    zeros = torch.zeros(len(trace) - answer.start, rounded.head_dim)
    run = PatchedRun(patches=tuple(Patch("z", i, answer.start, zeros, h) for i, h in heads))
    found = last(
        page,
        trace,
        "live.ablateHeads(given.heads, [given.start, Infinity])",
        heads=heads,
        start=answer.start,
    )
    assert np.abs(found - replayed(rounded, trace, run)).max() < SUMS


def test_patched_states_are_the_package_s(page, rounded, trace):
    """Cells of a grid: the state of one token of the trace with another number in it."""
    donor = list(trace.token_ids)
    digit = next(
        i for i in range(trace.segments["reasoning"].stop - 1, 0, -1) if trace.tokens[i].isdigit()
    )
    six, seven = encode(rounded.tokenizer, "67")
    donor[digit] = six if donor[digit] != six else seven
    cells = [(0, digit), (2, digit), (3, digit + 2), (5, len(donor) - 1)]
    cache = run_with_cache(rounded, donor, ("resid",))
    found = page.ask(
        "const donor = run(given.donor), pass = run(given.ids);"
        "return given.cells.map(([layer, position]) => read(live.replay(pass, live.changes("
        "live.patchState(donor, layer, position))), [given.ids.length - 1])[0])",
        donor=donor,
        ids=list(trace.token_ids),
        cells=cells,
    )
    for (layer, position), logits in zip(cells, found, strict=True):
        value = cache.activations["resid"][layer][position][None]
        run = PatchedRun(patches=(Patch("resid", layer, position, value),))
        expected = replayed(rounded, trace, run)
        assert np.abs(np.array(logits) - expected).max() < SUMS


def test_a_patch_grid_is_the_package_s(page, rounded, trace):
    """Two thoughts of one length that part in a digit; the answers part where they first differ."""
    clean, corrupted = with_another_digit(page, trace), trace
    pair, found = page.ask(
        "const closed = (ids) => ids.indexOf(model.tokenizer.encode('</think>')[0]) + 1;"
        "const [donor, own] = given.texts.map((ids) => ({ ids, closed: closed(ids) }));"
        "const pair = live.pairOf(donor, own, model.end), cells = given.layers.flatMap((layer) =>"
        "live.alignedFrom(pair, donor, own).slice(-given.n).map((at) => [layer, ...at]));"
        "return [pair, [...live.patchGrid(run(donor.ids), run(own.ids), pair, cells)]]",
        texts=[list(clean.token_ids), list(corrupted.token_ids)],
        layers=[0, 2, 5],
        n=12,
    )
    stop = pair["stop"]
    contrast = ContrastPair(
        clean.token_ids[:stop], corrupted.token_ids[:stop], pair["theirs"], pair["ours"]
    )
    metrics = patch_metrics(rounded, contrast, range(stop - 12, stop), [0, 2, 5])
    effect = np.array([cell["effect"] for cell in found]).reshape(3, 12)
    gap = abs(metrics.attrs["ld_clean"] - metrics.attrs["ld_corrupted"])
    assert np.abs(effect - metrics["effect"].values).max() < 4 * SUMS / gap
    assert np.ptp(effect) > 0.5  # something came over
    probability = np.array([cell["probability"] for cell in found]).reshape(3, 12, 2)
    assert np.abs(probability - metrics["probability"].values).max() < SUMS
    flips = np.array([cell["flip"] for cell in found]).reshape(3, 12)
    assert (flips == metrics["flip"].values).all() and flips.any()


def with_another_digit(page: Page, trace: Trace) -> Trace:
    """The trace with another result of its last step, and the answer that the page writes."""
    ids, start = list(trace.token_ids), trace.segments["answer"].start
    place = next(
        i
        for i in reversed(range(start))
        if trace.tokens[i].isdigit() and "".join(trace.tokens[:i]).endswith("so ")
    )
    six, seven = page.ask("return model.tokenizer.encode('67')")
    ids[place] = six if ids[place] != six else seven
    answer = page.ask(
        "return [...live.continueGreedily(run(given.ids), { most: 200 })]", ids=ids[:start]
    )
    return replace(trace, token_ids=(*ids[:start], *answer))


def test_an_answer_without_its_reading_is_written_as_by_the_package(page, rounded, world_traces):
    for trace in world_traces[:2]:
        start, keys = trace.segments["answer"].start, trace.segments["reasoning"]
        expected = regenerate(rounded, trace, [Knockout()], max_new_tokens=80)["text"][0]
        found = page.ask(
            "const pass = live.newPass(model, live.changes(live.cutEdges(...given.cut)));"
            "live.extend(pass, given.ids);"
            "return model.tokenizer.decode([...live.continueGreedily(pass, { most: 80 })])",
            ids=list(trace.token_ids[:start]),
            cut=[[start, 10_000], [keys.start, keys.stop]],
        )
        assert found == expected


def test_forbidden_cues_are_the_package_s(page, tiny):
    problems = [p for p in world.held_out_problems(40) if p.meta["family"] == "arithmetic"][:4]
    banned = sorted({i for ids in cue_token_ids(tiny.tokenizer).values() for i in ids})
    sampling = Sampling(MOST_WRITTEN, banned_ids=tuple(banned))
    expected = collect_completions(tiny, problems, sampling=sampling)
    found, texts = page.ask(
        "const forbidden = live.cueIds(model.tokenizer, given.cues);"
        "return [[...forbidden].sort((a, b) => a - b), given.questions.map((question) => "
        "model.tokenizer.decode([...live.continueGreedily(run(model.tokenizer.prompt(question)), "
        "{ forbidden, most: 400 })]))]",
        questions=[problem.question for problem in problems],
        cues=list(CUES),
    )
    assert found == banned
    assert not any("Wait" in text or "Hmm" in text for text in texts)
    by_problem = {c.problem_id: c.text for c in expected}
    assert texts == [by_problem[p.id] for p in problems]


def test_after_an_edit_nothing_is_left_of_the_old_text(page, trace):
    """Keys and values before the edit are kept; what comes of it equals a pass from nothing."""
    edited, where = list(trace.token_ids), random.Random(0).sample(range(20, len(trace)), 4)
    for place in where:
        edited[place] = 30
    kept, fresh = page.ask(
        "const kept = live.editTokens(run(given.ids), given.edited);"
        "return [kept, run(given.edited)].map((pass) => read(pass, [given.ids.length - 1])[0])",
        ids=list(trace.token_ids),
        edited=edited,
    )
    assert kept == fresh


def test_a_state_patched_with_itself_changes_nothing(page, trace):
    found, plain = page.ask(
        "const pass = run(given.ids), change = live.changes(live.patchState(pass, 3, 30));"
        "return [live.replay(pass, change), pass].map((p) => read(p, [given.ids.length - 1])[0])",
        ids=list(trace.token_ids),
    )
    assert found == plain
