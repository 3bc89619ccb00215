"""How fast a view answers: a trace of 2,000 tokens with eleven heads, pointed at in Chromium.

    python benchmarks/views.py

Prints the view's size, and the milliseconds from a movement of the pointer to the end of what it
sets off: the median and the longest of sixty. What takes less than 100 ms a reader feels as at once
(Nielsen). Asserts nothing. Needs a Chromium on the PATH or in R2A_CHROMIUM.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from r2a_utils.figures.views import View, trace_view
from r2a_utils.texts.trace import Trace

TOKENS, REASONING, ANSWER = 2_000, slice(121, 1_599), slice(1_600, 2_000)
HEADS, READ = 11, 60  # of a row: tokens that it gives weight to
WORDS = ("so", "we", "get", "7", "Wait,", "and", ".\n")

TIMES = """() => {
  const answer = [...document.querySelectorAll("[data-segment=answer] .r2a-token")];
  return answer.slice(0, 60).map((span) => {
    const move = new PointerEvent("pointermove", { bubbles: true, pointerType: "mouse" });
    const start = performance.now();
    span.dispatchEvent(move);
    return performance.now() - start;
  });
}"""


def main() -> None:
    view = long_view()
    program = os.environ.get("R2A_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page()
        page.goto(view.save(Path(folder) / "view.html").as_uri())
        times = page.evaluate(TIMES)
        browser.close()
    print(f"{len(view.html().encode()) / 1e6:.2f} MB")
    print(f"{np.median(times):.1f} ms in the median, {max(times):.1f} ms at most")


def long_view() -> View:
    """A trace of random words, whose answer gives random weights to the reasoning."""
    generator = np.random.default_rng(0)
    tokens = [f" {word}" for word in generator.choice(WORDS, TOKENS)]
    borders = {
        "bos": slice(0, 1),
        "prompt": slice(1, 120),
        "think": slice(120, 121),
        "reasoning": REASONING,
        "end_think": slice(1_599, 1_600),
        "answer": ANSWER,
    }
    trace = Trace(tuple(range(TOKENS)), tuple(tokens), borders)
    weights = np.zeros((HEADS, ANSWER.stop - ANSWER.start, TOKENS))
    for row in weights.reshape(-1, TOKENS):
        row[generator.integers(REASONING.start, REASONING.stop, READ)] = generator.exponential(
            size=READ
        )
    weights /= weights.sum(axis=-1, keepdims=True)
    return trace_view(trace, {f"L{i}.H0": head for i, head in enumerate(weights)})


if __name__ == "__main__":
    main()
