"""The model that lives on two pages, in a real browser with the network cut, from disk.

The pages hold the pieces of HTML of book/intro.md and book/playground.md and what the book puts
beside its pages, so that no stage has to run. Pictures are left in test-artefacts/live/.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from book_visit import PHONE, Visit

from r2a_utils.causal import Knockout, patch_metrics, regenerate
from r2a_utils.engine.forward import continue_greedily, run_with_cache
from r2a_utils.figures.style import SEGMENT_COLOURS
from r2a_utils.playground import open_state, playground_link
from r2a_utils.publishing.book import copy_assets
from r2a_utils.publishing.book_runs import BOOK
from r2a_utils.runs.stage import ROOT
from r2a_utils.texts.boxed import final_answer
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.tokens import encode

pytestmark = pytest.mark.xdist_group("live")
pytest.importorskip("playwright.sync_api")

SCREENSHOTS = ROOT / "test-artefacts" / "live"
MOST_BEFORE = 1_500_000  # bytes of a page before a reader asks for its model
PIECES = {
    name: re.search(r"```\{raw\} html\n(.*?)```", (BOOK / f"{name}.md").read_text("utf-8"), re.S)[1]
    for name in ("intro", "playground")
}
PIECE = PIECES["intro"]
EXPERIMENTS = json.loads(re.search(r"application/json\">(.*?)</script>", PIECE, re.S)[1])
PROBLEMS = [
    [text.replace("&lt;", "<") for text in re.findall(r"</b><div>(.*?)</div>", problem, re.S)]
    for problem in PIECE.split('class="r2a-problem"')[1:]
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    copy_assets(BOOK / "assets", folder)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    for name, piece in PIECES.items():
        page = f"<!doctype html><html lang='en'><head>{head}<title>Live</title></head><body>{piece}"
        (folder / "extra" / f"{name}.html").write_text(page, encoding="utf-8")
    return folder / "extra"


def written(model, question: str, thought: str) -> str:
    """What the bundled model writes behind a part of its thought, or behind all of it."""
    ids = render_prompt(model.tokenizer, question) + encode(model.tokenizer, thought)
    cache = run_with_cache(model, ids)
    return model.tokenizer.decode(continue_greedily(model, cache, [None], 300)[0])


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_the_texts_on_the_page_are_the_model_s_own(tiny, number):
    question, thought, answer = PROBLEMS[number]
    assert written(tiny, question, "") == f"{thought}\n</think>\n\n{answer}"


@pytest.mark.parametrize("number", range(len(EXPERIMENTS)))
def test_what_an_experiment_teaches_is_so_in_the_package(tiny, number):
    experiment = EXPERIMENTS[number]
    question, thought, answer = PROBLEMS[experiment["problem"]]
    old, new = experiment["edit"]
    assert thought.count(old) == 1
    before, behind = thought.split(old)
    rest = f"{behind}\n</think>" if experiment["rest"] == "stays" else ""
    box = final_answer(written(tiny, question, before + new + rest))
    assert (box != final_answer(answer)) == experiment["changes"]


def test_the_colours_are_the_book_s():
    style = (BOOK / "assets" / "live" / "live.css").read_text()
    for segment in ("prompt", "reasoning", "answer"):
        assert f"--c-{segment}: {SEGMENT_COLOURS[segment]};" in style


def awake(browser, home, page: str = "intro.html", **settings) -> Visit:
    visit = Visit(browser, home, page, **settings)
    visit.page.get_by_role("button", name="Wake the model").click()
    visit.page.wait_for_selector(".r2a-bars u", state="attached", timeout=60_000)
    return visit


def part(visit: Visit, segment: str):
    return visit.page.locator(f".r2a-stage [data-segment={segment}] > div")


def writes(visit: Visit, box: str) -> None:
    """The answer comes to stand with this box, and the bars with it."""
    visit.page.wait_for_function(
        "box => document.querySelector('.r2a-stage [data-segment=answer]').innerText"
        ".endsWith(`\\\\boxed{${box}}.`)"
        "&& document.querySelector('.r2a-bars').innerText.includes(`answer, ${box}`)",
        arg=box,
        timeout=30_000,
    )


def test_before_a_reader_asks_the_page_is_light_and_whole(browser, home):
    with Visit(browser, home, "intro.html") as visit:
        sizes = {path.name: path.stat().st_size for path in visit.files}
        assert "model.js" not in sizes and sum(sizes.values()) < MOST_BEFORE
        assert PROBLEMS[0][2] in visit.page.locator(".r2a-given").inner_text()
        assert visit.faults == []


def test_without_scripts_the_text_stands(browser, home):
    with Visit(browser, home, "intro.html", javascript=False) as visit:
        assert PROBLEMS[0][1] in visit.page.locator(".r2a-given").inner_text()


def test_a_changed_digit_changes_the_answer(browser, home):
    with awake(browser, home) as visit:
        page = visit.page
        assert part(visit, "answer").inner_text() == PROBLEMS[0][2]
        kept = part(visit, "reasoning").locator(".r2a-editable").nth(-2)  # step 4: "so 3"
        kept.click()
        page.locator(".r2a-choices").get_by_role("button", name="8").click()
        writes(visit, "8")
        assert "Step 4 gives 8" in part(visit, "answer").inner_text()
        assert "So 3 is the last digit" in part(visit, "reasoning").inner_text()
        assert re.search(
            r"old answer, 3\s+100 % → <? ?\d+ %", page.locator(".r2a-bars").inner_text()
        )
        page.screenshot(path=SCREENSHOTS / "changed.png", full_page=True)
        page.get_by_role("button", name="Undo all").click()
        writes(visit, "3")
        assert visit.faults == []


def test_the_digit_that_stands_is_the_one_that_is_pressed(browser, home):
    with awake(browser, home) as visit:
        page = visit.page
        part(visit, "reasoning").locator(".r2a-editable").first.click()
        pressed = page.locator(".r2a-choices [aria-pressed=true]")
        old = pressed.inner_text()
        new = "9" if old != "9" else "8"
        page.locator(".r2a-choices").get_by_role("button", name=new, exact=True).click()
        page.locator(".r2a-choices").get_by_text(f"in place of “{new}”").wait_for()
        assert pressed.all_inner_texts() == [new]
        assert page.evaluate("document.activeElement.textContent") == new


def test_heads_that_are_cut_are_put_back_before_a_grid(browser, home, tiny):
    question, thought, _ = PROBLEMS[0]
    own, other = (
        open_state(tiny, "#" + urlencode({"question": question, "thought": text})).trace
        for text in (thought, thought.replace("6-3=3, so 3", "6-3=3, so 5"))
    )
    with awake(browser, home, playground_link(own, Knockout(heads=((3, 1),)), beside=other)) as v:
        v.page.get_by_role("button", name="Fill the grid").click()
        v.page.get_by_text("put back the heads that A or B cuts").wait_for()
        assert v.page.locator(".r2a-grid canvas").count() == 0 and v.faults == []


def test_the_rest_of_the_thought_is_written_anew_if_asked(browser, home):
    with awake(browser, home) as visit:
        visit.page.get_by_label("After a change the rest").select_option("anew")
        stage = visit.page.locator(".r2a-stage")
        stage.focus()
        for key in ("ArrowRight", "9"):  # the first digit of the thought
            stage.press(key)
        writes(visit, "6")  # 63, 3 + 4, 49, 9 - 3
        assert part(visit, "reasoning").inner_text().startswith("Okay, I start with 9.\nStep 1")


def test_pointing_shows_what_was_read(browser, home):
    with awake(browser, home) as visit:
        part(visit, "answer").locator(".r2a-token", has_text="3").last.hover()
        assert visit.page.locator(".r2a-arcs path").count() >= 1
        assert re.search(
            r"To write “3”, L\d\.H\d read “so 3” \d+ %",
            visit.page.locator(".r2a-status").inner_text(),
        )
        visit.page.screenshot(path=SCREENSHOTS / "arcs.png", full_page=True)


def test_a_prediction_comes_first(browser, home):
    with awake(browser, home) as visit:
        lab = visit.page.locator(".r2a-lab")
        lab.locator("li").get_by_role("button").nth(4).click()
        assert EXPERIMENTS[4]["lesson"] not in lab.inner_text()
        lab.get_by_role("button", name="the box stays").click()
        lab.get_by_text(EXPERIMENTS[4]["lesson"]).wait_for()
        assert "The box went from coin to key, and you said otherwise." in lab.inner_text()
        writes(visit, "key")


def test_a_phone_in_the_dark_can_do_it_by_touch(browser, home):
    with awake(browser, home, viewport=PHONE, scheme="dark", touch=True) as visit:
        page = visit.page
        part(visit, "reasoning").locator(".r2a-editable").nth(-2).tap()
        page.locator(".r2a-choices").get_by_role("button", name="7").tap()
        writes(visit, "7")
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        view = page.locator(".r2a-view")
        assert view.evaluate("v => getComputedStyle(v).backgroundColor") == "rgb(22, 24, 28)"
        page.screenshot(path=SCREENSHOTS / "phone_dark.png", full_page=True)
        assert visit.faults == []


def test_a_line_that_is_deleted_is_missed_in_the_answer(browser, home):
    question, thought, _ = PROBLEMS[0]
    with awake(browser, home, "playground.html") as visit:
        page = visit.page
        page.get_by_label("problem", exact=True).fill(question)
        page.wait_for_function(
            "t => document.querySelectorAll('textarea')[1].value === t", arg=thought
        )
        kept = [line for line in thought.split("\n") if not line.startswith("Wait")]
        page.get_by_label("its thought").fill("\n".join(kept))
        page.get_by_text("Step 3 gives 4").wait_for()  # the slip, 54, that was corrected
        assert visit.faults == []


def test_cues_are_not_written_once_they_are_banned(browser, home):
    with awake(browser, home, "playground.html") as visit:
        visit.page.get_by_label("problem", exact=True).fill(PROBLEMS[0][0])
        part(visit, "reasoning").get_by_text("Wait").wait_for()
        visit.page.get_by_label("ban the cues").check()
        part(visit, "reasoning").get_by_text("Wait").wait_for(state="detached")
        visit.page.wait_for_function("() => document.querySelector('.r2a-bars u')")
        assert "cues=banned" in visit.page.url


def test_a_state_is_a_link(browser, home):
    """Cut heads change the answer; who opens the address sees the same."""
    with awake(browser, home, "playground.html", viewport=PHONE, touch=True) as visit:
        page = visit.page
        before = part(visit, "answer").inner_text()
        page.get_by_text("Heads: cut").tap()
        page.get_by_role("button", name="all", exact=True).tap()
        page.get_by_label("what to do with the heads").select_option("cut")
        page.locator(".r2a-stage [data-segment=answer] .r2a-changed").first.wait_for()
        address = page.url.rpartition("/")[2]
        assert "act=cut" in address
        page.wait_for_timeout(1000)
        cut = part(visit, "answer").inner_text()
        assert cut != before and visit.faults == []
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        page.screenshot(path=SCREENSHOTS / "playground.png", full_page=True)
    with awake(browser, home, address) as visit:
        visit.page.wait_for_function(
            "t => document.querySelector('.r2a-stage [data-segment=answer] > div').innerText === t",
            arg=cut,
        )


def downloaded(visit: Visit, folder: Path) -> Path:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download as JSON").click()
    download.value.save_as(folder / "state.json")
    return folder / "state.json"


def test_a_file_holds_what_the_package_writes(browser, home, tiny, tmp_path):
    """Half of the heads cut, and no thought but the model's own."""
    heads = tuple((layer, head) for layer in range(tiny.n_layers) for head in range(0, 8, 2))
    address = "#" + urlencode({"question": PROBLEMS[0][0]})
    own = open_state(tiny, address).trace
    with awake(browser, home, playground_link(own, Knockout(heads=heads))) as visit:
        part(visit, "answer").locator(".r2a-changed").first.wait_for()
        visit.page.wait_for_timeout(1000)
        path = downloaded(visit, tmp_path)
        assert visit.faults == []
    opened = open_state(tiny, path)
    assert opened.trace.token_ids == own.token_ids
    assert opened.interventions == (Knockout(heads=heads),)
    written = regenerate(tiny, opened.trace, opened.interventions, max_new_tokens=300)
    answer = json.loads(path.read_text("utf-8"))["answer"]
    assert answer == written["text"][0].strip() != own.answer_text.strip()


def test_the_state_of_one_token_brings_another_thought_s_answer(browser, home, tiny, tmp_path):
    """The grid of the page has the package's cells; one that is clicked is a state of its own."""
    question, thought, _ = PROBLEMS[0]
    edited = thought.replace("6-3=3, so 3", "6-3=3, so 5")
    own, other = (
        open_state(tiny, "#" + urlencode({"question": question, "thought": text})).trace
        for text in (thought, edited)
    )
    link = playground_link(own, beside=other)
    pair = open_state(tiny, link).pair
    [digit] = pair.differing_positions
    expected = patch_metrics(tiny, pair, [digit])
    with awake(browser, home, link) as visit:
        below = visit.page.locator(".r2a-below")
        below.get_by_role("button", name="Fill the grid").click()
        below.get_by_text(re.compile(r"All \d+ cells")).wait_for(timeout=120_000)
        told = below.locator(".r2a-status").last.inner_text()
        layer, effect = re.match(
            r"Before layer (\d), “3”, token \d+, gets the state of “5”: ([\d.]+)", told
        ).groups()
        layer = int(layer)
        assert abs(float(effect) - expected["effect"].values[layer, 0]) < 0.02
        assert expected["flip"].values[layer, 0]
        canvas = below.locator("canvas")
        for key in ("ArrowUp", "ArrowDown"):
            canvas.press(key)
        writes(visit, "5")
        assert f"patch={layer}.{digit}" in visit.page.url
        visit.page.screenshot(path=SCREENSHOTS / "grid.png", full_page=True)
        opened = open_state(tiny, downloaded(visit, tmp_path))
        assert opened.cell == (layer, digit) and opened.pair == pair
        below.get_by_role("button", name="Take the patch back").click()
        writes(visit, "3")
        assert visit.faults == []
    with awake(browser, home, f"{link}&patch={layer}.{digit}", viewport=PHONE) as visit:
        writes(visit, "5")
        assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
