"""The views work in a real browser with the network cut: by mouse, keyboard and touch."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from r2a_utils.figures.views import (
    MOST_BYTES,
    View,
    asked,
    head_view,
    patch_view,
    shelf,
    token_view,
    trace_view,
)
from r2a_utils.texts.trace import Trace

PROMPT, REASONING, ANSWER = slice(1, 9), slice(10, 40), slice(41, 53)
WORDS = [f" w{i}" for i in range(53)]
WORDS[10], WORDS[14], WORDS[20], WORDS[30] = "\n", ".\n", " Wait", " </script><b>"


def trace_of(words: list[str], reasoning: slice, answer: slice) -> Trace:
    return Trace(
        token_ids=tuple(range(len(words))),
        tokens=("<｜begin▁of▁sentence｜>", *words[1:]),
        segments={
            "bos": slice(0, 1),
            "prompt": slice(1, reasoning.start - 1),
            "think": slice(reasoning.start - 1, reasoning.start),
            "reasoning": reasoning,
            "end_think": slice(reasoning.stop, reasoning.stop + 1),
            "answer": answer,
        },
        problem_id="toy-1",
    )


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_of(WORDS, REASONING, ANSWER)


@pytest.fixture(scope="module")
def walking(trace) -> np.ndarray:
    """Answer token r reads reasoning token 2r with 0.7, BOS with 0.2, prompt token 1 with 0.1."""
    weights = np.zeros((12, 53))
    weights[np.arange(12), REASONING.start + 2 * np.arange(12)] = 0.7
    weights[:, 0], weights[:, 1] = 0.2, 0.1
    return weights


@pytest.fixture
def open_view(browser, tmp_path):
    """Open a view as a page with the network cut; fails on any request, error or message."""
    contexts, troubles = [], []

    def open_page(view: View, **settings):
        context = browser.new_context(
            offline=True, **{"viewport": {"width": 800, "height": 900}, **settings}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on(
            "request",
            lambda r: r.url.startswith("file:") or troubles.append(r.url),
        )
        page.goto(view.save(tmp_path / "view.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


def lit(page) -> dict[int, float]:
    """Tokens that are shaded, with the strength of the shade in per cent."""
    return {
        int(k): float(v)
        for k, v in page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll(".r2a-token")]
            .filter((s) => s.style.backgroundColor)
            .map((s) => [s.dataset.token, s.style.backgroundColor.match(/([0-9.]+)%/)[1]]))"""
        ).items()
    }


def token(page, index: int):
    return page.locator(f'.r2a-token[data-token="{index}"]')


def status(page) -> str:
    return page.locator(".r2a-status").inner_text()


def test_pointing_at_an_answer_token_lights_what_it_reads(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}))
    token(page, 44).hover()
    assert set(lit(page)) == {0, 1, 16} and lit(page)[16] == 100
    assert "To write “ w44”, token 4 of 12 of the answer, L1.H2 read" in status(page)
    assert "reasoning 70%" in status(page) and "“ w16” (reasoning) 70%" in status(page)
    token(page, 16).hover()
    assert set(lit(page)) == {44} and "was read to write “ w44” (answer) 70%" in status(page)


def test_it_opens_where_it_is_told_to(open_view, trace, walking):
    other = np.roll(walking, 1, axis=1)
    channels = {"L1.H2": walking, "L3.H0": other}
    page = open_view(trace_view(trace, channels, start=("L3.H0", 44)))
    assert set(lit(page)) == {1, 2, 17} and "token 4 of 12" in status(page)
    assert page.get_by_label("Read by").input_value() == "L3.H0"
    page.locator(".r2a-text").press("Escape")
    assert "All tokens of the answer together, L3.H0" in status(page)
    with pytest.raises(ValueError, match=r"no channel 'L9\.H9'"):
        trace_view(trace, channels, start=("L9.H9", 44))


def test_blanks_and_line_breaks_are_not_listed(open_view, trace, walking):
    blank = replace(trace, tokens=(*trace.tokens[:16], "\n", *trace.tokens[17:]))
    page = open_view(token_view(blank, {"L1.H2": walking}))
    token(page, 44).hover()
    assert lit(page)[16] == 100 and "⏎" not in status(page)


def test_at_first_the_whole_answer_shows(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}))
    assert set(lit(page)) == {0, 1, *(10 + 2 * r for r in range(12))}
    assert "All tokens of the answer together" in status(page)


def test_the_page_shows_the_weights_it_was_given(open_view, trace):
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.full(53, 0.1), size=12)
    page = open_view(token_view(trace, {"random": weights}, top=53))
    for row in range(12):
        token(page, ANSWER.start + row).hover()
        most = weights[row, 1:].max()
        expected = {
            i: 100 * min(1, w / most) ** 0.7
            for i, w in enumerate(weights[row])
            if min(1, w / most) ** 0.7 > 0.06  # paler ones may fall to either side of the bound
        }
        shown = lit(page)
        assert set(expected) <= set(shown)
        for i, strength in expected.items():
            # a byte for each weight: half a step of 1/255, and the strength is rounded to 1%
            assert shown[i] == pytest.approx(strength, abs=2.5)


def test_keys_move_choose_and_let_go(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}))
    page.locator(".r2a-text").focus()
    page.keyboard.press("Home")
    assert set(lit(page)) == {0, 1, 10} and "token 1 of 12" in status(page)
    page.keyboard.press("ArrowRight")
    assert set(lit(page)) == {0, 1, 12}
    page.keyboard.press("End")
    assert "token 12 of 12" in status(page)
    page.keyboard.press("Escape")
    assert "All tokens of the answer together" in status(page)


def test_a_tap_chooses_and_a_second_lets_go(open_view, trace, walking):
    page = open_view(
        token_view(trace, {"L1.H2": walking}),
        has_touch=True,
        viewport={"width": 380, "height": 800},
    )
    token(page, 43).tap()
    assert set(lit(page)) == {0, 1, 14}
    token(page, 43).tap()
    assert len(lit(page)) == 14


def test_another_reader_can_be_chosen(open_view, trace, walking):
    other = np.zeros_like(walking)
    other[:, 5] = 1
    page = open_view(token_view(trace, {"L1.H2": walking, "mean of the top heads": other}))
    page.get_by_label("Read by").select_option("mean of the top heads")
    assert set(lit(page)) == {5} and "mean of the top heads" in status(page)


def test_whole_sentences_light_up_together(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}))
    token(page, 41).click()
    page.mouse.move(5, 5)
    page.get_by_label("whole sentences").check()
    assert {i: s for i, s in lit(page).items() if i in range(10, 40)} == dict.fromkeys(
        range(10, 15), 100.0
    )


def test_contributions_against_the_answer_are_hatched(open_view, trace):
    signed = np.zeros((12, 53))
    signed[:, 12], signed[:, 13] = 0.5, -1.25
    page = open_view(token_view(trace, {"contribution": signed}))
    token(page, 41).hover()
    assert page.locator(".r2a-against").get_attribute("data-token") == "13"
    assert "-1.3" in status(page) and "0.50" in status(page) and "%" not in status(page)


def test_cues_sentences_and_odd_tokens_are_shown_as_text(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}))
    assert token(page, 20).get_attribute("title") == "cue: wait"
    assert page.locator(".r2a-cue").count() == 1
    assert page.locator(".r2a-sentence").first.get_attribute("data-token") == "15"
    assert token(page, 30).inner_text().strip() == "</script><b>"
    assert token(page, 0).inner_text() == "<BOS>"


def test_pointing_moves_nothing_under_the_pointer(open_view, trace, walking):
    page = open_view(trace_view(trace, {"L1.H2": walking}))
    before = token(page, 44).bounding_box()
    token(page, 44).hover()
    token(page, 46).hover()
    assert token(page, 44).bounding_box() == before


def test_a_row_of_the_map_chooses_its_token(open_view, trace, walking):
    page = open_view(trace_view(trace, {"L1.H2": walking}, facts={"Grade": "right"}))
    assert page.locator(".r2a-facts").inner_text().split() == ["Grade", "right"]
    canvas = page.locator(".r2a-map canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": 30, "y": (box["height"] - 6) * 5.5 / 12})
    assert "token 6 of 12" in status(page)
    frame = page.locator(".r2a-row").bounding_box()
    assert frame["y"] <= box["y"] + (box["height"] - 6) * 5.5 / 12 <= frame["y"] + frame["height"]
    canvas.press("ArrowDown")
    assert "token 7 of 12" in status(page)


@pytest.fixture(scope="module")
def heads_page(trace, walking):
    values = np.linspace(0, 0.9, 18).reshape(3, 6)
    rows = xr.DataArray(
        np.stack([walking, walking[::-1]]),
        dims=("head", "query", "key"),
        coords={"layer": ("head", [2, 1]), "head_index": ("head", [5, 0])},
    )
    marks = {"reasoning-focus head": [(2, 5)], "retrieval head": [(2, 5), (0, 1)]}
    return head_view(values, [(trace, rows)], marks=marks, title="Heads")


def test_a_layer_without_attention_is_grey_and_says_so(open_view):
    view = head_view(np.where(np.arange(3)[:, None] == 1, np.nan, np.full((3, 6), 0.5)))
    page = open_view(view)
    page.locator("canvas").press("ArrowUp")
    assert status(page) == "Layer 1 has no attention."
    assert "Mean 0.5, largest 0.5 at L0.H0" in view.text


def test_a_head_is_chosen_by_click_and_by_keys(open_view, heads_page, trace):
    page = open_view(heads_page)
    assert "L2.H5, reasoning-focus head and retrieval head" in status(page)
    assert "90%" in status(page) and page.locator(".r2a-map").count() == 1
    grid = page.locator("canvas").first
    box = grid.bounding_box()
    cell = (box["width"] - 36) / 6
    row = (box["height"] - 18) / 3
    grid.click(position={"x": 34 + 1.5 * cell, "y": 2.5 * row})
    assert "Head L0.H1, retrieval head" in status(page) and "No maps were kept" in status(page)
    assert not page.locator(".r2a-map canvas").is_visible()
    grid.press("ArrowUp")
    grid.press("ArrowLeft")
    assert "Head L1.H0:" in status(page)
    grid.hover(position={"x": 34 + 1.5 * cell, "y": 2.5 * row})
    assert "Head L0.H1, retrieval head" in status(page)
    page.mouse.move(0, 0)
    assert "Head L1.H0:" in status(page)
    assert page.locator(".r2a-map .r2a-help").inner_text() == asked(trace)


DRAWN = "document.querySelector('.r2a-map canvas').toDataURL()"


def test_pointing_at_a_head_draws_its_map_until_the_pointer_leaves(open_view, heads_page):
    page = open_view(heads_page)
    grid = page.locator("canvas").first
    box = grid.bounding_box()
    chosen = page.evaluate(DRAWN)
    grid.hover(position={"x": 40, "y": box["height"] / 3})  # L1.H0
    assert "Head L1.H0:" in status(page) and page.evaluate(DRAWN) != chosen
    page.mouse.move(0, 0)
    assert "Head L2.H5," in status(page) and page.evaluate(DRAWN) == chosen


def test_of_three_traces_one_is_drawn_and_chosen_by_its_problem(open_view, trace, walking):
    rows = xr.DataArray(
        walking[None],
        dims=("head", "query", "key"),
        coords={"layer": ("head", [0]), "head_index": ("head", [0])},
    )
    later = np.roll(walking, 3, axis=1)
    traces = [(trace, rows), (trace, rows.copy(data=later[None])), (trace, rows)]
    page = open_view(head_view(np.full((1, 2), 0.5), traces))
    assert page.locator(".r2a-map").count() == 1
    assert page.locator("select option").all_inner_texts() == [asked(trace)] * 3
    first = page.evaluate(DRAWN)
    page.locator("select").select_option(index=1)
    assert page.locator(".r2a-map").count() == 1 and page.evaluate(DRAWN) != first
    page.locator("select").select_option(index=2)
    assert page.evaluate(DRAWN) == first


@pytest.fixture(scope="module")
def shelved(trace, walking):
    views = [
        trace_view(trace, {"L1.H2": walking}, title="Which is heavier?"),
        trace_view(replace(trace, tokens=trace.tokens[::-1]), {"L7.H7": walking}, title="Where?"),
    ]
    return shelf(views, "Trace")


def test_a_shelf_shows_the_view_that_is_chosen_by_its_title(open_view, shelved):
    page = open_view(shelved)
    names = page.locator("select").first.locator("option").all_inner_texts()
    assert names == ["1 of 2: Which is heavier?", "2 of 2: Where?"]
    assert "L1.H2" in status(page)
    page.locator("select").first.select_option(index=1)
    assert "L7.H7" in status(page) and page.locator(".r2a-text").count() == 1
    page.locator(".r2a-text").press("Home")
    assert "token 1 of 12" in status(page)


def test_a_shelf_holds_one_kind(trace, walking, metrics):
    with pytest.raises(ValueError, match="one kind"):
        shelf([token_view(trace, {"a": walking}), patch_view(metrics, ("6", "5"))], "Trace")
    with pytest.raises(ValueError, match="at least one"):
        shelf([], "Trace")


def test_a_view_can_be_skipped_from_the_keyboard(open_view, shelved):
    page = open_view(shelved)
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip the explorer" and skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.locator(".r2a-view :focus").count() == 0
    page.locator("body").press("Tab")
    assert page.evaluate("document.querySelector('.r2a-skip').getBoundingClientRect().right") < 0


@pytest.mark.parametrize(("width", "beside"), [(1000, True), (390, False)])
def test_the_text_stands_beside_its_map_where_there_is_room(open_view, shelved, width, beside):
    page = open_view(shelved, viewport={"width": width, "height": 900})
    text, drawn = (page.locator(name).bounding_box() for name in (".r2a-text", ".r2a-map"))
    assert (text["x"] + text["width"] <= drawn["x"]) == beside
    assert (text["y"] + text["height"] <= drawn["y"]) == (not beside)


def test_a_view_says_what_share_of_the_attention_it_keeps(open_view, trace, walking):
    page = open_view(trace_view(trace, {"L1.H2": walking}, top=2))
    assert "Kept: the 2 heaviest reads of each row, 90% of its attention." in page.inner_text(
        ".r2a-view"
    )


@pytest.mark.parametrize("length", [53, 400])
def test_weights_come_back_within_half_a_step(open_view, length):
    """Places are in one byte in a short trace and in two in a long one."""
    long = trace_of([f" w{i}" for i in range(length)], slice(10, length - 13), ANSWER)
    long = trace_of(list(long.tokens), slice(10, length - 13), slice(length - 12, length))
    weights = np.random.default_rng(0).dirichlet(np.ones(length) / 20, size=12)
    view = trace_view(long, {"L0.H0": weights}, title="t")
    [channel] = view.data["channels"]
    kind = np.uint8 if length <= 256 else np.dtype("<u2")
    keys, parts = (
        np.frombuffer(base64.b64decode(channel[name]), dtype).reshape(12, -1)
        for name, dtype in (("keys", kind), ("parts", np.uint8))
    )
    scale = weights.max(axis=1, keepdims=True)
    back = parts / 255 * np.array(channel["scale"])[:, None]
    exact = np.take_along_axis(weights, keys.astype(int), axis=1)
    # half a step of the byte, and the three digits of the row's scale
    assert (np.abs(back - exact) / scale).max() <= 0.5 / 255 + 0.5e-2
    page = open_view(view)
    page.locator(".r2a-text").press("Home")
    heaviest = long.tokens[int(weights[0].argmax())].strip()
    assert f"Most: “ {heaviest}”" in status(page)


PAIR = (["a", " is", " 6", "{"], ["a", " is", " 5", "{"])


@pytest.fixture(scope="module")
def metrics() -> xr.Dataset:
    effect = np.array([[0, 0, 0.9, 0], [0, 0, 0.25, 0.5], [0, -0.1, 0, 1.0]])
    probability = np.stack([0.05 + 0.9 * np.clip(effect, 0, 1), 0.9 - 0.85 * effect], axis=-1)
    return xr.Dataset(
        {
            "effect": (("layer", "position"), effect),
            "probability": (("layer", "position", "answer"), probability),
            "flip": (("layer", "position"), effect > 0.6),
        },
        coords={
            "layer": [0, 1, 2],
            "position": [3, 4, 5, 9],
            "token": ("position", PAIR[0]),
            "corrupted_token": ("position", PAIR[1]),
        },
        attrs={"direction": "denoising", "receiver_probability": [0.05, 0.9]},
    )


def test_a_cell_says_what_was_patched_and_what_came_of_it(open_view, metrics):
    page = open_view(patch_view(metrics, ("6", "5"), title="Patch explorer"))
    # it opens on a token that differs, not on the last one, where everything comes together
    assert "Before layer 0, “ 5”, token 5, gets the state of “ 6”: 0.90" in status(page)
    grid = page.locator("canvas")
    for key in ("ArrowRight", "ArrowUp", "ArrowUp"):
        grid.press(key)
    assert "Before layer 2, the state of “{”, token 9" in status(page)
    assert "1.00 of the logit difference" in status(page) and "the answer flips" in status(page)
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown"):
        grid.press(key)
    bars = page.locator(".r2a-bars").inner_text()
    assert "5.0% → 86%" in bars and "90% → 14%" in bars
    assert page.locator(".r2a-context mark").inner_text() == " 5"
    assert "…" in page.locator(".r2a-context").inner_text()


CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const c of colours) { pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const root = document.querySelector(".r2a-view");
  const paper = getComputedStyle(root).backgroundColor;
  const texts = ".r2a-token, .r2a-status, .r2a-help, b, label, .r2a-title, .r2a-facts";
  return [...root.querySelectorAll(texts)].filter((e) => e.innerText.trim()).map((e) => {
    const { backgroundColor, color } = getComputedStyle(e);
    const lights = [light([paper, backgroundColor, color]), light([paper, backgroundColor])];
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  });
}"""  # of every text of the view with what lies behind it, as WCAG 2 defines it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_whatever_its_shade(open_view, trace, scheme):
    shades = np.tile(np.linspace(0, 1, 53), (12, 1))
    page = open_view(trace_view(trace, {"all shades": shades}, top=53), color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.querySelector('.r2a-view')).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    assert min(page.evaluate(CONTRAST)) >= 4.5


def test_the_book_s_own_theme_goes_before_the_system_s(open_view, trace, walking):
    page = open_view(token_view(trace, {"L1.H2": walking}), color_scheme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    style = "getComputedStyle(document.querySelector('.r2a-view')).color"
    assert page.evaluate(style) == "rgb(31, 31, 31)"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(style) == "rgb(230, 230, 230)"


@pytest.mark.parametrize("kind", ["tokens", "heads", "patch"])
def test_a_phone_never_scrolls_sideways(open_view, trace, walking, heads_page, metrics, kind):
    view = {
        "tokens": trace_view(trace, {"mean of the top ten reasoning-focus heads": walking}),
        "heads": heads_page,
        "patch": patch_view(metrics, ("6", "5")),
    }[kind]
    page = open_view(view, viewport={"width": 340, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    for canvas in page.locator("canvas").all():
        assert canvas.evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)"
        )


@pytest.mark.parametrize("kind", ["tokens", "heads", "patch"])
def test_without_javascript_words_stand_in(open_view, trace, walking, heads_page, metrics, kind):
    view, said = {
        "tokens": (token_view(trace, {"L1.H2": walking}), "Through L1.H2 the answer reads"),
        "heads": (heads_page, "3 layers by 6 heads"),
        "patch": (
            patch_view(metrics, ("6", "5")),
            "at a token that differs, 0.90, is that of “·6”",
        ),
    }[kind]
    page = open_view(view, java_script_enabled=False)
    assert said in page.locator("noscript").inner_text()
    assert "0.9 at L2.H5" in view.text or kind != "heads"


def test_two_views_live_on_one_page(open_view, trace, walking, browser, tmp_path):
    first, second = token_view(trace, {"a": walking}), token_view(trace, {"b": walking[::-1]})
    both = View("tokens", first.title, first.data)
    path = tmp_path / "both.html"
    path.write_text(f"<meta charset=utf-8>{both.html()}{second.html()}{first.html()}", "utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator(".r2a-text").count() == 3
    page.close()


def test_a_trace_of_2000_tokens_is_small_and_answers(open_view):
    generator = np.random.default_rng(0)
    words = [
        f" {w}" for w in generator.choice(["so", "we", "get", "7", "Wait,", "and", ".\n"], 2000)
    ]
    long = trace_of(words, slice(120, 1599), slice(1600, 2000))
    weights = np.zeros((11, 400, 2000), dtype=np.float32)
    for row in weights.reshape(-1, 2000):
        row[generator.integers(121, 1599, 60)] = generator.exponential(size=60)
    view = trace_view(
        long, {f"L{i}.H0": w / w.sum(axis=1, keepdims=True) for i, w in enumerate(weights)}
    )
    assert len(view.html().encode()) < MOST_BYTES
    page = open_view(view)
    page.locator("[data-segment=answer] .r2a-token").nth(60).hover()
    assert "token 61 of 400" in status(page)


def test_too_much_data_is_refused(trace):
    generator = np.random.default_rng(0)
    many = {f"L{i}.H0": generator.dirichlet(np.ones(53), size=12) for i in range(1500)}
    with pytest.raises(ValueError, match="smaller `top`"):
        token_view(trace, many).html()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t, m: token_view(t, {}), "no channel"),
        (lambda t, m: token_view(t, {"L0.H0": np.ones((3, 53))}), r"L0.H0: weights are \(3, 53\)"),
        (lambda t, m: token_view(t, {"L0.H0": np.full((12, 53), np.nan)}), "NaN"),
        (lambda t, m: head_view(np.ones((2, 2)), marks={"odd": []}), "unknown kind of head"),
        (lambda t, m: patch_view(m.drop_vars("token"), ("6", "5")), r"lack \['token'\]"),
        (lambda t, m: patch_view(m.expand_dims("head"), ("6", "5")), "choose one head"),
    ],
)
def test_wrong_input_is_refused_in_words(trace, metrics, build, message):
    with pytest.raises(ValueError, match=message):
        build(trace, metrics)


def test_a_notebook_shows_the_view(trace, walking):
    view = token_view(trace, {"L1.H2": walking})
    assert view._repr_html_() == view.html() and "http" not in view.html()
