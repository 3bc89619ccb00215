"""Figure of one trace by its sentences: where the answer is decided, several measures aligned."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from r2a_utils.figures.style import (
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    require_columns,
    styled,
)

_TEXT_WIDTH = 34  # characters of a sentence in a line, beside five panels
LENS_CMAP = "viridis"


@styled
def sentence_page(
    sentences: Sequence[str],
    mass: Sequence[float],
    lens: np.ndarray,
    forced: pd.DataFrame,
    resampled: pd.DataFrame,
    knocked: pd.DataFrame,
    title: str = "",
) -> BookFigure:
    """One trace, one page: five measures over one axis, the n sentences of its reasoning.

    mass: attention of the answer to each sentence, mean over Reasoning-Focus Heads. lens:
    [layer, sentence], log-probability of the answer read off the residual stream at the sentence's
    last token (nats). forced, resampled, knocked: frames of `causal/sentences.py`; the first two
    have n + 1 rows, from no sentence on. Raises ValueError where they have not. Notebook 06.
    """
    require_columns(forced, "log_probability", "written")
    require_columns(resampled, "share", "ci_low", "ci_high")
    require_columns(knocked, "change", "random_low", "random_high")
    n, lens = len(sentences), np.asarray(lens, dtype=float)
    sizes = (len(mass), lens.shape[1], len(forced) - 1, len(resampled) - 1, len(knocked))
    if set(sizes) != {n}:
        raise ValueError(f"{n} sentences, but the measures have {sizes}")
    lines = [textwrap.wrap(text.strip(), _TEXT_WIDTH) for text in sentences]
    figure = BookFigure(1.7 + 0.15 * max(map(len, lines)) * (n + 1))
    panels = figure.subplots(1, 5, sharey=True)
    rows, orange = np.arange(1, n + 1), SEGMENT_COLOURS["reasoning"]
    reading, lensing, forcing, sampling, cutting = panels

    reading.barh(rows, mass, height=0.6, color=orange)
    reading.set(title="read", xlabel="attention of the\nanswer (share)", xlim=(0, None))
    image = lensing.imshow(
        lens.T,
        aspect="auto",
        cmap=LENS_CMAP,
        extent=(-0.5, len(lens) - 0.5, n + 0.5, 0.5),
        interpolation="nearest",
    )
    lensing.set(title="lens", xlabel="layer")
    figure.colorbar(image, ax=lensing, location="top", label="log-prob. (nats)")
    forcing.plot(forced["log_probability"], range(n + 1), color=INK, linewidth=1.2)
    for written, face in ((True, INK), (False, "white")):
        chosen = np.flatnonzero(forced["written"] == written)
        points = forced["log_probability"].iloc[chosen]
        forcing.plot(points, chosen, "o", color=INK, markerfacecolor=face, markersize=4)
    forcing.set(title="forced", xlabel="log-probability\n(nats)")
    sampling.fill_betweenx(
        range(n + 1), resampled["ci_low"], resampled["ci_high"], color=PALE, alpha=0.3, linewidth=0
    )
    sampling.plot(resampled["share"], range(n + 1), "o-", color=INK, linewidth=1.2, markersize=3)
    sampling.set(title="resampled", xlabel="same answer\n(share)", xlim=(-0.05, 1.05))
    cutting.barh(rows, knocked["change"], height=0.6, color=orange)
    cutting.hlines(rows, knocked["random_low"], knocked["random_high"], color=INK, linewidth=2.2)
    cutting.axvline(0, color=PALE, linewidth=0.8)
    cutting.set(title="knocked out", xlabel="change of log-\nprobability (nats)")
    labels = ["(no sentence yet)", *("\n".join(each) for each in lines)]
    reading.set_yticks(range(n + 1), labels, fontsize=7.5)
    reading.set_ylim(n + 0.6, -0.6)
    for axes in (reading, forcing, sampling, cutting):
        axes.grid(axis="x")
    figure.suptitle(title, fontsize=9.5, fontweight="bold", x=0.01, ha="left")
    figure.alt_text = _in_words(title, sentences, mass, forced, resampled, knocked)
    return figure


def _in_words(title, sentences, mass, forced, resampled, knocked) -> str:
    written = np.flatnonzero(forced["written"])
    strongest = int(np.nanargmin(knocked["change"]))
    return (
        f"{title or 'One trace'}: five measures over {len(sentences)} sentences of the reasoning; "
        f"most read is sentence {int(np.argmax(mass)) + 1}; the forced answer is "
        + (f"right first after {written[0]} sentences" if len(written) else "never right")
        + f"; continuations end in the same answer in {resampled['share'].iloc[0]:.0%} before any "
        f"and {resampled['share'].iloc[-1]:.0%} after all sentences; knocking out sentence "
        f"{strongest + 1} costs most, {knocked['change'].iloc[strongest]:.2f} nats."
    )
