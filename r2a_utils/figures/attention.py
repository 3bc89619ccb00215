"""Figures of stage 2 about where a trace's tokens look: six boxes, attention maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.patheffects
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from r2a_utils.figures.style import (
    INK,
    PAGE_WIDTH,
    SEGMENT_COLOURS,
    SEGMENT_LABELS,
    SIX,
    BookFigure,
    percent_axis,
    require_known,
    segment_band,
    segment_legend,
    styled,
)

if TYPE_CHECKING:  # reading traces needs a tokenizer's libraries, drawing them does not
    from r2a_utils.texts.trace import Cue

# As many shades as an eye tells apart: a map in all of them weighs half as much again.
ATTENTION_CMAP = matplotlib.colormaps["Greys"].resampled(16)
# Columns of weights told apart over the width of a page. Longer traces are pooled by maximum,
# so that a single weight stays visible.
MAP_PIXELS = 450
# Names of cues stand above each other in so many lines; one that still finds no room is left out.
CUE_LINES = 2
_CUE_SIZE = 7.5  # points
_CUE_CHARACTER = 0.62 * _CUE_SIZE  # a generous advance of DejaVu Sans Oblique
_HALO = [matplotlib.patheffects.withStroke(linewidth=2.4, foreground="white")]


@dataclass(frozen=True)
class AttentionPanel:
    """One head on one trace, as `attention_maps` draws it.

    weights: [query, key], rows sum to at most 1; the first row is the query at token `first_query`.
    segments: the trace's segments, name → slice. cues: `traces.cues` of the trace.
    """

    weights: np.ndarray
    first_query: int
    segments: Mapping[str, slice]
    cues: Sequence[Cue] = field(default=())
    title: str = ""


@styled
def six_boxes(panels: Mapping[str, np.ndarray]) -> BookFigure:
    """Where the answer's tokens look: a box for each segment, a panel for each condition or model.

    panels: label → mass [trace, segment] in the order of `SIX`, or of `SEGMENT_COLOURS` where
    prompts hold worked examples; a point a trace (mean over layers and heads). The number beside a
    box is the mean, at its own height. The paper's figure of stage 2; notebook 03. Raises
    ValueError for masses that are not [trace, 6], or of all panels [trace, 7].
    """
    counts = {np.shape(mass)[-1] for mass in panels.values()}
    names = list(SEGMENT_COLOURS) if counts == {len(SEGMENT_COLOURS)} else SIX
    figure = BookFigure(0.9 + 1.55 * len(panels))
    said = []
    for axes, (label, mass) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False).flat,
        panels.items(),
        strict=True,
    ):
        mass = np.asarray(mass, dtype=float)
        if mass.ndim != 2 or mass.shape[1] != len(names):
            raise ValueError(f"{label}: masses must be [trace, 6 segments], got {mass.shape}")
        seaborn.boxplot(
            pd.DataFrame(mass, columns=names),
            ax=axes,
            palette=SEGMENT_COLOURS,
            saturation=1,
            width=0.55,
            linecolor=INK,
            linewidth=0.8,
            medianprops={"linewidth": 1.4},
            flierprops={"marker": ".", "markersize": 4},
        )
        for index in range(len(names)):
            axes.annotate(
                f"{mass[:, index].mean():.1%}",
                (index + 0.33, mass[:, index].mean()),
                va="center",
                fontsize=7.5,
                color="#555555",
                path_effects=_HALO,
            )
        axes.set_title(f"{label} (n = {len(mass)})")
        axes.grid(axis="y")
        percent_axis(axes.yaxis, high=max(0.05, np.max([np.max(m) for m in panels.values()])))
        axes.set_xlim(-0.6, len(names) - 0.2)
        said.append(
            f"{label}: "
            + ", ".join(
                f"{SEGMENT_LABELS[n]} {m:.1%}"
                for n, m in zip(names, mass.mean(axis=0), strict=True)
            )
        )
    axes.set_xticks(range(len(names)), [f"answer →\n{SEGMENT_LABELS[n]}" for n in names])
    figure.supylabel("Attention of answer tokens\n(mean over layers and heads)", fontsize=9)
    figure.alt_text = (
        "Box plots of the answer tokens' attention by segment, means: " + "; ".join(said) + "."
    )
    return figure


@styled
def segment_shares(rows: Mapping[str, np.ndarray]) -> BookFigure:
    """The answer's attention by segment as stacked bars, a bar for each label (a trace, a run).

    rows: label → mass of the six segments in the order of `SIX`, or of all in that of
    `SEGMENT_COLOURS`. Raises ValueError for masses that do not sum to 1. Notebook 03.
    """
    counts = {np.size(shares) for shares in rows.values()}
    names = list(SEGMENT_COLOURS) if counts == {len(SEGMENT_COLOURS)} else SIX
    figure = BookFigure(0.9 + 0.42 * len(rows))
    axes = figure.subplots()
    said = []
    for place, (label, shares) in enumerate(rows.items()):
        shares = np.asarray(shares, dtype=float)
        if shares.shape != (len(names),) or not np.isclose(shares.sum(), 1, atol=1e-2):
            raise ValueError(f"{label}: expected the masses of 6 segments that sum to 1: {shares}")
        for name, share, start in zip(names, shares, shares.cumsum() - shares, strict=True):
            axes.barh(place, share, left=start, height=0.66, color=SEGMENT_COLOURS[name])
            if share > 0.05:
                axes.text(
                    start + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8
                )
        parts = zip(names, shares, strict=True)
        said.append(f"{label}: " + ", ".join(f"{SEGMENT_LABELS[n]} {s:.0%}" for n, s in parts))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("Attention of answer tokens (mean over layers and heads)")
    percent_axis(axes.xaxis)
    segment_legend(figure, names, loc="outside upper left")
    figure.alt_text = "The answer's attention by segment. " + "; ".join(said) + "."
    return figure


@styled
def attention_maps(
    panels: Sequence[Sequence[AttentionPanel]], row_labels: Sequence[str]
) -> BookFigure:
    """Attention maps in a grid: a row a head, a column a trace, each trace titled once.

    Darker is more attention (square-root scale, each panel on its own). The bands on both axes
    colour the segments, the green box frames the answer's rows on the reasoning, dashed lines mark
    the cues. Notebook 04b.
    """
    columns = max(len(row) for row in panels)
    figure = BookFigure(0.7 + len(panels) * PAGE_WIDTH / columns * 0.92)
    grid = figure.subplots(len(panels), columns, squeeze=False)
    said_above: dict[int, str] = {}
    for row, label, row_axes in zip(panels, row_labels, grid, strict=True):
        for axes in row_axes[len(row) :]:
            axes.set_visible(False)
        for column, (panel, axes) in enumerate(zip(row, row_axes, strict=False)):
            draw_map(axes, panel, MAP_PIXELS // columns)
            if said_above.get(column) == panel.title:
                axes.set_title("")
            said_above[column] = panel.title
        row_axes[0].set_ylabel(f"{label}\nquery token", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("key token")
    segment_legend(figure, list(panels[0][0].segments), loc="outside upper center")
    titles = ", ".join(dict.fromkeys(panel.title for row in panels for panel in row))
    figure.alt_text = (
        f"Attention maps of {', '.join(row_labels)} on {titles}; "
        "share of the answer's attention on the reasoning: "
        + ", ".join(f"{_answer_share(panel):.0%}" for row in panels for panel in row)
        + "."
    )
    return figure


def _answer_share(panel: AttentionPanel) -> float:
    answer, reasoning = panel.segments["answer"], panel.segments["reasoning"]
    rows = panel.weights[answer.start - panel.first_query : answer.stop - panel.first_query]
    return float(rows[:, reasoning].sum(axis=1).mean())


def draw_map(axes: Axes, panel: AttentionPanel, pixels: int = MAP_PIXELS) -> None:
    """Draw one panel: its weights, the box of answer → reasoning, the cues, the segment bands."""
    require_known("segment", list(panel.segments), SEGMENT_COLOURS)
    weights = np.asarray(panel.weights, dtype=float)
    n_queries, n_keys = weights.shape
    top, bottom = panel.first_query - 0.5, panel.first_query + n_queries - 0.5
    pooled = _max_pool(weights, pixels)
    ceiling = (
        max(float(np.quantile(weights[weights > 0], 0.998)), 1e-6) if (weights > 0).any() else 1.0
    )
    axes.imshow(
        pooled,
        cmap=ATTENTION_CMAP,
        norm=PowerNorm(0.5, 0, ceiling),
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, n_keys - 0.5, bottom, top),
    )
    answer, reasoning = panel.segments["answer"], panel.segments["reasoning"]
    first = max(answer.start - 0.5, top)
    axes.add_patch(
        Rectangle(
            (reasoning.start - 0.5, first),
            reasoning.stop - reasoning.start,
            bottom - first,
            fill=False,
            edgecolor=SEGMENT_COLOURS["answer"],
            linewidth=1.4,
            zorder=3,
        )
    )
    for cue in panel.cues:
        axes.plot(
            [cue.position, cue.position],
            [first, bottom],
            color=INK,
            linestyle=(0, (3, 2)),
            linewidth=0.9,
            zorder=3,
        )
    lines_used = _name_cues(axes, panel.cues, first, n_keys)
    axes.set_xlim(-0.5, n_keys - 0.5)
    axes.set_ylim(bottom, top)
    segment_band(axes.xaxis, panel.segments)
    segment_band(axes.yaxis, panel.segments)
    above = 9 * lines_used if first == top else 0
    axes.set_title(panel.title, fontsize=8.5, fontweight="normal", pad=4 + above)
    axes.tick_params(labelsize=7.5)


def _name_cues(axes: Axes, cues: Sequence[Cue], height: float, n_keys: int) -> int:
    """Write the cues' words above `height`, none over another; how many lines they take."""
    # as it is before the layout, which makes an axis wider and never narrower
    points = axes.get_position().width * axes.get_figure(root=False).bbox.width
    points *= 72 / axes.get_figure(root=True).dpi
    free = [-np.inf] * CUE_LINES  # where each line's last word ends, in points
    for cue in sorted(cues, key=lambda cue: cue.position):
        centre, half = cue.position / n_keys * points, len(cue.word) * _CUE_CHARACTER / 2
        line = next((i for i, end in enumerate(free) if centre - half >= end), None)
        if line is None:
            continue
        free[line] = centre + half + 2
        axes.annotate(
            cue.word,
            (cue.position, height),
            xytext=(0, 2 + 9 * line),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=_CUE_SIZE,
            style="italic",
            path_effects=_HALO,
            zorder=5,
        )
    return sum(end > -np.inf for end in free)


def _max_pool(weights: np.ndarray, longest: int) -> np.ndarray:
    """The map with at most `longest` rows and columns, a pixel the largest weight inside it."""
    for axis in (0, 1):
        size = weights.shape[axis]
        if size > longest:
            weights = np.maximum.reduceat(weights, np.arange(longest) * size // longest, axis=axis)
    return weights
