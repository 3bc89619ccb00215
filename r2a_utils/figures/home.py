"""The three small figures of the home page: one a stage, each with one thing to see.

They are shown at a third of the page's width, so they hold few words, and colours are named where
they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from r2a_utils.figures.answers import families_of
from r2a_utils.figures.heads import HEAD_CMAP, HEAD_MARKS, NO_ATTENTION
from r2a_utils.figures.patching import CURVE_COLOURS, family_lines
from r2a_utils.figures.style import (
    CONDITION_COLOURS,
    CONDITION_LABELS,
    INK,
    PALE,
    BookFigure,
    head_name,
    percent_axis,
    require_columns,
    styled,
)

_WIDTH, _HEIGHT = 2.3, 2.0  # inches; three of them side by side fill the text column
_NAMED = {"labelcolor": "linecolor", "handlelength": 0.8, "fontsize": 8}  # a legend in its colours


@styled
def home_answers(frame: pd.DataFrame, xlabel: str = "Steps that the problem needs") -> BookFigure:
    """Stage 1 in small: right answers by what a problem asks (`xlabel`), in both conditions.

    frame: columns steps (numbers or names), condition, accuracy, and perhaps family and chance
    (pale lines). Notebook 07.
    """
    require_columns(frame, "steps", "condition", "accuracy")
    figure = BookFigure(_HEIGHT, _WIDTH)
    axes = figure.subplots()
    kinds = sorted(frame["steps"].unique())
    said = []
    for condition, colour in CONDITION_COLOURS.items():
        for family, dashes, rows in families_of(frame[frame["condition"] == condition]):
            places = [kinds.index(kind) for kind in rows["steps"]]
            axes.plot(places, rows["accuracy"], color=colour, marker="o", markersize=3.5,
                      linestyle=dashes)  # fmt: skip
            first, last = rows["accuracy"].iloc[[0, -1]]
            named = ", ".join(filter(None, (CONDITION_LABELS[condition], family)))
            said.append(f"{named} from {first:.0%} to {last:.0%}")
    if "chance" in frame:
        for _, dashes, rows in families_of(frame.drop_duplicates(["family", "steps"])):
            places = [kinds.index(kind) for kind in rows["steps"]]
            axes.plot(places, rows["chance"], color=PALE, linestyle=dashes, linewidth=1.0)
    numbers = pd.api.types.is_numeric_dtype(frame["steps"])
    axes.set_xticks(range(len(kinds)), kinds, rotation=0 if numbers else 60)
    # centred, it would run out of so small a figure
    axes.set_xlabel(xlabel if numbers else "", loc="right")
    drawn = {CONDITION_LABELS[name]: colour for name, colour in CONDITION_COLOURS.items()}
    _legend(axes, drawn, frame, "best")
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    axes.set_title("Right answers")
    by = xlabel[0].lower() + xlabel[1:]
    figure.alt_text = f"Right answers by {by}, {kinds[0]} to {kinds[-1]}: {'; '.join(said)}."
    return figure


def _legend(axes, colours: dict[str, str], frame: pd.DataFrame, loc: str) -> None:
    """What each colour is, and below, in ink, what each dash is where there are families."""
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    if "family" in frame:
        handles += [
            Line2D([], [], color=INK, linestyle=dashes, linewidth=1.2, label=family)
            for family, dashes, _ in families_of(frame.assign(steps=0))
        ]
    axes.legend(handles=handles, loc=loc, **_NAMED | {"handlelength": 1.6, "fontsize": 7.5})


@styled
def home_heads(values: np.ndarray, marked: Sequence[tuple[int, int]]) -> BookFigure:
    """Stage 2 in small: the answer's attention on the reasoning, a cell a head.

    values: [layer, head], shares. marked: the Reasoning-Focus Heads. Notebook 07.
    """
    values = np.asarray(values, dtype=float)
    figure = BookFigure(_HEIGHT, _WIDTH)
    axes = figure.subplots()
    colours = matplotlib.colormaps[HEAD_CMAP].with_extremes(bad=NO_ATTENTION)
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=colours, vmin=0)
    layers, heads = zip(*marked, strict=True)
    style = {**HEAD_MARKS["reasoning-focus head"], "markersize": 6, "markeredgewidth": 1.2}
    for colour, width in (("white", 2.6), (INK, 1.2)):
        axes.plot(heads, layers, linestyle="none", color=colour,
                  **{**style, "markeredgewidth": width})  # fmt: skip
    for axis, label in ((axes.xaxis, "Head"), (axes.yaxis, "Layer")):
        axis.get_major_locator().set_params(integer=True)
        axis.set_label_text(label)
    bar = figure.colorbar(image, ax=axes, aspect=14)
    bar.ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    bar.ax.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.set_title("Answer → reasoning")
    best = np.unravel_index(np.nanargmax(values), values.shape)
    figure.alt_text = (
        f"Map of {values.shape[0]} layers by {values.shape[1]} heads: attention of the answer on "
        f"the reasoning, mean {np.nanmean(values):.0%}, largest {values[best]:.0%} in "
        f"{head_name(*best)}"
        f"; squares mark the top {len(marked)}."
    )
    return figure


@styled
def home_patching(curves: pd.DataFrame) -> BookFigure:
    """Stage 3 in small: what patching two tokens brings back, by layer.

    curves: columns curve (the two of `CURVE_COLOURS`), layer, mean, and perhaps family. Notebook
    07.
    """
    require_columns(curves, "curve", "layer", "mean")
    figure = BookFigure(_HEIGHT, _WIDTH)
    axes = figure.subplots()
    said = []
    for name, dashes, rows in family_lines(curves[curves["curve"].isin(CURVE_COLOURS)]):
        curve = rows["curve"].iloc[0]
        axes.plot(rows["layer"], rows["mean"], color=CURVE_COLOURS[curve], linestyle=dashes,
                  marker="o", markersize=3.5)  # fmt: skip
        first, last = rows["mean"].iloc[[0, -1]]
        said.append(f"{name}: {first:.2f} before the first layer, {last:.2f} before the last")
    axes.axhline(0, color=PALE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("Patched before layer")
    axes.grid(axis="y")
    short = ("reasoning token", "last token")
    _legend(axes, dict(zip(short, CURVE_COLOURS.values(), strict=True)), curves, "center left")
    axes.set_title("Answer brought back")
    figure.alt_text = "Share of the difference that a patch brings back. " + "; ".join(said) + "."
    return figure
