"""Explorers measure what their controls ask for, say what they refuse, and live in JupyterLab."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest

from r2a_utils import explorers
from r2a_utils.attention.mass import attention_rows, segment_mass
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.explorers import ask_explorer, head_explorer, patch_explorer, trace_explorer
from r2a_utils.figures.views import asked
from r2a_utils.tiny.world import contrast_problems, held_out_problems

QUESTION = (
    "Start with 3. Step 1: add 5. Step 2: multiply by 7. Step 3: subtract 9. "
    "Keep only the last digit each time. Where do you end?"
)
HEADS = [(3, 2), (1, 0)]
WAIT = 120_000  # milliseconds: a kernel that loads torch on a busy machine
ARTEFACTS = Path(__file__).parents[1] / "test-artefacts"


def data_of(view) -> dict:
    """The data that a view carries into the page."""
    packed = re.search(r'<script type="application/json">(.*?)</script>', view.html()).group(1)
    return json.loads(packed)


@pytest.fixture(scope="module")
def traces(tiny):
    problems = held_out_problems(3, seed=1)
    return collect_traces(tiny, problems, sampling=Sampling(512), on_unfinished="drop")


@pytest.fixture(scope="module")
def sides(tiny):
    problems = contrast_problems(3, seed=0)
    return [
        collect_traces(tiny, side, sampling=Sampling(512), on_unfinished="drop")
        for side in map(list, zip(*problems, strict=True))
    ]


def test_ask_answers_both_ways_and_shows_where_it_looked(tiny):
    explorer = ask_explorer(tiny, HEADS, QUESTION)
    bars, with_reasoning, without = explorer.static().parts
    assert "with reasoning: BOS" in bars.alt_text and "without reasoning: BOS" in bars.alt_text
    assert data_of(with_reasoning)["facts"][0] == ["Answer", "7"]
    reasoned, prefilled = (
        next(stop - start for name, start, stop in data_of(v)["trace"]["segments"]
             if name == "reasoning")
        for v in (with_reasoning, without)
    )  # fmt: skip
    assert reasoned > 3 * prefilled


def test_a_typed_question_is_the_one_that_is_asked(tiny):
    explorer = ask_explorer(tiny, HEADS, QUESTION)
    explorer.controls["question"].value = QUESTION.replace("Start with 3", "Start with 4")
    text = "".join(data_of(explorer.static().parts[1])["trace"]["tokens"])
    assert "Start with 4" in text and "Start with 3" not in text


def test_what_cannot_be_shown_is_said_in_place_of_the_picture(tiny):
    explorer = ask_explorer(tiny, HEADS, "", sampling=Sampling(3))
    explorer._button.click()
    assert "type a problem first" in explorer._message.value
    explorer.controls["question"].value = QUESTION
    explorer._button.click()
    assert "was cut at 3 tokens" in explorer._message.value and not explorer._output.outputs


def test_the_trace_page_follows_its_control(tiny, traces):
    explorer = trace_explorer(tiny, traces, HEADS)
    explorer.controls["trace"].value = 1
    data = data_of(explorer.static())
    assert len(data["trace"]["tokens"]) == len(traces[1])
    names = [channel["name"] for channel in data["channels"]]
    assert names[:3] == ["mean of 2 heads", "L3.H2", "L1.H0"]
    assert names[3].startswith("contribution of 2 heads") and data["channels"][3]["signed"]
    answer = traces[1].segments["answer"]
    queries = slice(answer.start - 1, answer.stop - 1)  # each writes the token behind it
    rows = attention_rows(tiny, traces[1], HEADS, queries).values
    heaviest = rows[0].max(axis=1)
    np.testing.assert_allclose(data["channels"][1]["scale"], heaviest, rtol=1e-2)
    channel, position = data["start"]
    assert traces[1].tokens[position - 1].endswith("{") and names[channel] in names[1:3]
    to_reasoning = rows[:, position - answer.start, traces[1].segments["reasoning"]].sum(-1)
    assert names[channel] == names[1 + to_reasoning.argmax()]


def test_traces_are_named_by_their_problems(tiny, traces):
    explorer = trace_explorer(tiny, traces, HEADS)
    question = held_out_problems(3, seed=1)[0].question
    title = data_of(explorer.static())["title"]
    assert question.startswith(title.removesuffix(" …")) and len(title) > 20
    names = [name for name, _ in explorer.controls["trace"].options]
    assert names[0] == f"0: {title} ({len(traces[0])} tokens)"


def test_any_head_can_be_looked_at(tiny, traces):
    explorer = head_explorer(tiny, traces, segment_mass(tiny, traces), HEADS)
    explorer.controls["layer"].value, explorer.controls["head"].value = 0, 1
    data = data_of(explorer.static())
    assert data["kept"] == [[0, 1], [3, 2], [1, 0]] and data["start"] == [0, 1]
    explorer.controls["head"].value = 99
    assert explorer.controls["head"].value == tiny.n_heads - 1


def test_patching_two_traces_shows_the_answer_flip(tiny, sides):
    explorer = patch_explorer(tiny, *sides)
    data = data_of(explorer.static())
    assert len(set(data["answers"])) == 2
    assert np.array(data["flip"]).any() and np.max(data["effect"]) > 0.9
    assert data["before"][1] > 0.5 > data["before"][0]  # the corrupted run gives its own answer
    assert data["clean"] != data["corrupted"]


def test_the_shelf_of_pairs_has_those_that_can_be_patched(tiny, sides):
    explorer = patch_explorer(tiny, sides[0], [*sides[1][:2], sides[0][2]])  # the last: no contrast
    views = data_of(explorer.shelf())["views"]
    assert [view["kind"] for view in views] == ["patch"] * 2
    assert views[0]["clean"] != views[1]["clean"]
    assert views[0]["title"].startswith(asked(sides[0][0])[:20])


def test_traces_that_cannot_be_aligned_are_refused_with_the_reason(tiny, sides):
    explorer = patch_explorer(tiny, sides[0], sides[0])
    explorer._button.click()
    assert "the same answer" in explorer._message.value


def test_no_traces_is_said_at_once(tiny):
    with pytest.raises(ValueError, match="no traces to explore"):
        trace_explorer(tiny, [], HEADS)


def test_several_traces_show_a_head_and_at_least_one_must(tiny, traces):
    explorer = head_explorer(tiny, traces, segment_mass(tiny, traces), HEADS)
    assert len(data_of(explorer.static())["maps"]) == 2
    kept = [m["trace"]["title"] for m in data_of(explorer.shelf())["maps"]]
    assert kept == [asked(trace) for trace in traces]
    explorer.controls["examples"].value = (1,)
    maps = data_of(explorer.static())["maps"]
    assert [m["trace"]["title"] for m in maps] == [asked(traces[1])]
    explorer.controls["examples"].value = ()
    assert "choose a trace" in explorer._message.value


def test_long_traces_keep_to_their_share_of_a_page(tiny, traces, random_trace):
    long = [random_trace(reasoning=900, answer=300, seed=seed) for seed in (0, 1)]
    every_head = list(np.ndindex(tiny.n_layers, tiny.n_heads))
    explorer = head_explorer(tiny, long, segment_mass(tiny, traces), every_head)
    shown = data_of(explorer.static())
    assert 1 < len(shown["kept"]) < len(every_head)
    texts = 20 * sum(map(len, long))  # bytes of the traces' own texts, at most
    assert len(json.dumps(shown)) < explorers.HEADS_BYTES + texts
    page = data_of(trace_explorer(tiny, long[:1], every_head[:10]).static())
    assert 1 < page["channels"][0]["top"] < 32
    assert len(json.dumps(page)) < explorers.TRACE_BYTES + texts
    shelf = data_of(trace_explorer(tiny, long * 4, every_head[:3]).shelf())
    assert 1 < len(shelf["views"]) < 8  # fewer traces rather than too few weights
    assert shelf["views"][0]["channels"][0]["top"] >= explorers.LEAST_TOP
    assert len(json.dumps(shelf)) < explorers.TRACE_BYTES * 1.1


def test_what_is_known_of_a_trace_stands_above_it(tiny, traces):
    explorer = trace_explorer(tiny, traces, HEADS, lambda trace: {"Problem": trace.problem_id})
    assert data_of(explorer.static())["facts"][0] == ["Problem", traces[0].problem_id]


def test_a_page_without_a_kernel_has_all_traces_to_choose_from(tiny, traces):
    explorer = trace_explorer(tiny, traces, HEADS)
    explorer.controls["trace"].value = 1
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.shelf().html()
    data = data_of(explorer.shelf())
    order = [traces[1], traces[0], *traces[2:]]
    assert [view["title"] for view in data["views"]] == [asked(t) for t in order]
    assert [len(view["trace"]["tokens"]) for view in data["views"]] == [len(t) for t in order]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    refused = ask_explorer(tiny, HEADS, "")
    assert "type a problem first" in refused._repr_mimebundle_()["text/html"]


def test_static_is_plain_html_without_widgets(tiny, traces):
    shown = explorers.Panels((trace_explorer(tiny, traces, HEADS).static(),))._repr_html_()
    assert "r2a-view" in shown and "widget" not in shown and "http" not in shown


# --- in JupyterLab, with a live kernel ----------------------------------------------------------


SETUP = f"""
from r2a_utils.attention.mass import segment_mass
from r2a_utils.explorers import ask_explorer, head_explorer, patch_explorer, trace_explorer
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.models.loading import load_model
from r2a_utils.tiny.world import contrast_problems, held_out_problems

model = load_model("r2a-tiny", dtype="float32", device="cpu")
some = dict(sampling=Sampling(512), on_unfinished="drop")
traces = collect_traces(model, held_out_problems(2, seed=1), **some)
clean, corrupted = (
    collect_traces(model, list(side), **some) for side in zip(*contrast_problems(2, seed=0))
)
heads = {HEADS}
"""
CELLS = [
    f"ask_explorer(model, heads, {QUESTION!r})",
    "trace_explorer(model, traces, heads)",
    "head_explorer(model, traces, segment_mass(model, traces), heads)",
    "patch_explorer(model, clean, corrupted)",
]


LAB_SETTINGS = {
    # all cells stay in the page, also those that are scrolled out of sight
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, with a notebook of the four explorers."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in [SETUP.strip(), *CELLS]]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "explorers.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / "home"
    root = Path(explorers.__file__).parents[1]
    options = {
        "port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    for extension, chosen in LAB_SETTINGS.items():
        path = home / "settings" / f"{extension}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(chosen))
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(root)}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        environment[name] = str(home)
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    log = folder / "lab.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if server.poll() is not None:
                pytest.fail(f"JupyterLab ended: {log.read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{address}/api", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/lab/tree/explorers.ipynb"
    finally:
        server.terminate()
        server.wait(60)


def explore(page) -> None:
    """Use each of the four explorers as a reader would."""
    expect = pytest.importorskip("playwright.sync_api").expect
    expect.set_options(timeout=WAIT)
    outputs = page.locator(".jp-Notebook .jp-CodeCell")
    trace = outputs.nth(2)
    expect(trace.locator(".r2a-status")).to_contain_text("To write")
    before = trace.locator(".r2a-token").count()
    trace.locator("select").first.select_option(index=1)
    expect(trace.locator(".r2a-token")).not_to_have_count(before)
    trace.locator(".r2a-text").focus()
    page.keyboard.press("Home")
    expect(trace.locator(".r2a-status")).to_contain_text("token 1 of")

    heads = outputs.nth(3)
    expect(heads.locator(".r2a-status")).to_contain_text("Head L3.H2")
    heads.locator("input[type=number]").first.fill("0")
    page.keyboard.press("Enter")
    expect(heads.locator(".r2a-status")).to_contain_text("Head L0.H2")

    patch = outputs.nth(4)
    patch.get_by_role("button", name="Patch").click()
    expect(patch.locator(".r2a-status")).to_contain_text("the answer flips")
    expect(patch.locator(".r2a-bars")).to_contain_text("→")

    ask = outputs.nth(1)
    ask.get_by_role("button", name="Ask both ways").click()
    expect(ask.locator(".r2a-view")).to_have_count(2)
    ask.locator("textarea").fill(QUESTION.replace("Start with 3", "Start with 4"))
    ask.get_by_role("button", name="Ask both ways").click()
    expect(ask.locator(".r2a-text").first).to_contain_text("Start with 4")


def test_the_explorers_live_in_jupyterlab(lab, browser):
    page = browser.new_page(viewport={"width": 1300, "height": 1400})
    page.set_default_timeout(WAIT)
    page.goto(lab)
    page.locator(".jp-Notebook .jp-CodeCell").nth(4).wait_for()
    # cells that are run before the kernel listens are forgotten
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    try:
        explore(page)
    finally:
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / "jupyterlab.png")
    page.close()
