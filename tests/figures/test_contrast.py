"""The texts of a pair stand in full on both sides, and what differs is marked for every eye."""

from __future__ import annotations

import re

from r2a_utils import figures
from r2a_utils.texts.trace import Trace


def trace_of(*tokens: str) -> Trace:
    ids = tuple(sum(map(ord, token)) for token in tokens)
    end = tokens.index("</think>")
    return Trace(
        token_ids=ids,
        tokens=tokens,
        segments={
            "bos": slice(0, 1),
            "prompt": slice(1, 4),
            "think": slice(4, 5),
            "reasoning": slice(5, end),
            "end_think": slice(end, end + 1),
            "answer": slice(end + 1, len(tokens)),
        },
        problem_id="toy",
    )


PROMPT = ("<｜begin▁of▁sentence｜>", "3", "<", "4", "<think>", "So")
CLEAN = trace_of(*PROMPT, " 3", ".\n", "</think>", " 3", ".")
OTHER = trace_of(PROMPT[0], "5", *PROMPT[2:], " well", " 5", ".\n", "</think>", " 5", ".")
# the prompt, then from both ends of what lies between; the pair ends before the answers
ALIGNED = {**{i: i for i in range(6)}, 6: 7, 7: 8, 8: 9}


def test_what_differs_or_has_no_partner_is_marked_on_its_side():
    texts = figures.pair_texts(CLEAN, OTHER, ALIGNED)
    assert texts.differing() == ({1, 6, 9}, {1, 6, 7, 10})
    shown = texts._repr_html_()
    assert re.findall("<mark>(.*?)</mark>", shown) == ["3", " 3", " 3", "5", " well 5", " 5"]


def test_both_texts_stand_in_full_and_as_text():
    shown = figures.pair_texts(CLEAN, OTHER, ALIGNED)._repr_html_()
    left, right = (
        re.sub("<b>.*?</b>|<[^>]*>", "", part)
        for part in re.split('<p class="r2a-title">', shown)[1:]
    )
    assert left == "Clean&lt;BOS&gt;3&lt;4&lt;think&gt;So 3.\n&lt;/think&gt; 3."
    assert right == "Corrupted&lt;BOS&gt;5&lt;4&lt;think&gt;So well 5.\n&lt;/think&gt; 5."


def test_marks_are_told_by_more_than_colour_and_sides_stack_on_a_phone(browser):
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.set_content(figures.pair_texts(CLEAN, OTHER, ALIGNED)._repr_html_())
    mark = page.locator("mark").first
    line = mark.evaluate("mark => getComputedStyle(mark).textDecorationLine")
    assert (line, mark.evaluate("mark => getComputedStyle(mark).fontWeight")) == (
        "underline",
        "700",
    )
    first, second = (page.locator(".r2a-sides > div").nth(i) for i in (0, 1))
    assert first.bounding_box()["y"] == second.bounding_box()["y"]
    page.set_viewport_size({"width": 390, "height": 700})
    assert second.bounding_box()["y"] > first.bounding_box()["y"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
