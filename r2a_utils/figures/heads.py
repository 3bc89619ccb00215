"""Figures of stage 2 about heads: head maps, rankings, depth, trajectory tracking, cue lift,
corrected digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patches
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.lines import Line2D

from r2a_utils.figures.style import (
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    head_name,
    percent_axis,
    require_columns,
    styled,
)
from r2a_utils.stats import CONFIDENCE

HEAD_CMAP = "viridis"
NO_ATTENTION = "#dddddd"  # no colour of the map
HEAD_MARKS = {  # kinds of heads are told apart by shape
    "reasoning-focus head": {
        "marker": "s",
        "markersize": 9,
        "fillstyle": "none",
        "markeredgewidth": 1.6,
    },
    "induction head": {"marker": "x", "markersize": 5, "markeredgewidth": 1.6},
    "retrieval head": {"marker": "o", "markersize": 8, "fillstyle": "none", "markeredgewidth": 1.4},
}
_HALO = [matplotlib.patheffects.withStroke(linewidth=3.2, foreground="white")]


@styled
def head_maps(
    maps: Mapping[str, np.ndarray],
    marks: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    quantity: str = "Attention of answer tokens (share)",
    linear_below: float | None = None,
) -> BookFigure:
    """Layer × head heat maps side by side on one scale, with marks on chosen heads (the paper's
    heat maps; notebook 03).

    maps: title → values [layer, head]; layer 0 at the bottom, NaN (no attention) in pale grey.
    marks: a kind of `HEAD_MARKS` → (layer, head) pairs. linear_below: where values spread over
    orders of magnitude, the size from which on the scale is logarithmic.
    Raises ValueError for an unknown kind of head.
    """
    unknown = [kind for kind in marks or {} if kind not in HEAD_MARKS]
    if unknown:
        raise ValueError(f"unknown kind of head {unknown}; the book marks {list(HEAD_MARKS)}")
    columns = 2 if len(maps) == 4 else min(len(maps), 3)
    rows = -(-len(maps) // columns)
    figure = BookFigure(0.8 + rows * (2.5 if columns > 1 else 3.6))
    grid = figure.subplots(rows, columns, squeeze=False)
    ceiling = max(float(np.nanmax(values)) for values in maps.values())
    floor = min(0.0, *(float(np.nanmin(values)) for values in maps.values()))
    norm = Normalize(floor, ceiling)
    if linear_below is not None:
        norm = SymLogNorm(linear_below, vmin=floor, vmax=max(ceiling, linear_below))
    missing = any(np.isnan(values).any() for values in maps.values())
    said = []
    for axes, (title, values) in zip(grid.flat, maps.items(), strict=False):
        values = np.asarray(values, dtype=float)
        image = axes.imshow(
            values,
            origin="lower",
            aspect="auto",
            cmap=matplotlib.colormaps[HEAD_CMAP].with_extremes(bad=NO_ATTENTION),
            norm=norm,
            interpolation="nearest",
        )
        for kind, heads in (marks or {}).items():
            if heads:
                layers, indices = zip(*heads, strict=True)
                for effects, zorder in (
                    (_HALO, 3),
                    (None, 4),
                ):  # all halos lie below all marks: marks may coincide
                    axes.plot(
                        indices,
                        layers,
                        linestyle="none",
                        color=INK,
                        path_effects=effects,
                        zorder=zorder,
                        **HEAD_MARKS[kind],
                    )
        axes.set_title(title)
        axes.set_xlabel("Head")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        layer, head = np.unravel_index(np.nanargmax(values), values.shape)
        said.append(
            f"{title}: mean {np.nanmean(values):.2g}, "
            f"largest {np.nanmax(values):.2g} at {head_name(layer, head)}"
        )
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("Layer")
    bar = figure.colorbar(image, ax=grid, label=quantity, shrink=0.9, aspect=30)
    if linear_below is not None:  # powers would be set as formulas, which the style leaves as text
        bar.ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    handles = [
        Line2D([], [], linestyle="none", color=INK, label=kind, **HEAD_MARKS[kind])
        for kind in marks or {}
    ]
    if missing:
        handles.append(matplotlib.patches.Patch(facecolor=NO_ATTENTION, label="no attention"))
        without = sorted({int(i) for v in maps.values() for i in np.argwhere(np.isnan(v))[:, 0]})
        said.append("layers without attention: " + ", ".join(map(str, without)))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
    figure.alt_text = "Heat maps over layers and heads. " + "; ".join(said) + "."
    return figure


@styled
def head_ranking(ranking: pd.DataFrame, uniform: float | None = None) -> BookFigure:
    """The top heads with their intervals, lift and stability, as `rank_heads` returns them;
    notebook 04.

    uniform: mass of a head that attends uniformly, drawn as a line.
    """
    require_columns(ranking, "layer", "head", "mass", "lift", "ci_low", "ci_high", "rank_stability")
    figure = BookFigure(0.9 + 0.27 * len(ranking))
    axes = figure.subplots()
    places = np.arange(len(ranking))
    errors = np.clip(
        [ranking["mass"] - ranking["ci_low"], ranking["ci_high"] - ranking["mass"]], 0, None
    )
    axes.errorbar(
        ranking["mass"],
        places,
        xerr=errors,
        linestyle="none",
        marker="o",
        capsize=3,
        color=SEGMENT_COLOURS["reasoning"],
        ecolor=INK,
        elinewidth=1.0,
        markeredgecolor=INK,
    )
    if uniform is not None:
        axes.axvline(uniform, color=PALE, linestyle=":", linewidth=1.4)
        axes.annotate(
            "uniform attention",
            (uniform, len(ranking) - 0.6),
            xytext=(3 if uniform < 0.5 else -3, 0),
            textcoords="offset points",
            fontsize=7.5,
            color="#555555",
            va="center",
            ha="left" if uniform < 0.5 else "right",
        )
    for place, row in zip(places, ranking.itertuples(), strict=True):
        axes.annotate(
            f"{row.lift:.2f} ×", (1.03, place), xycoords=("axes fraction", "data"), va="center"
        )
        axes.annotate(
            f"{row.rank_stability:.0%}",
            (1.15, place),
            xycoords=("axes fraction", "data"),
            va="center",
        )
    axes.annotate(
        "lift", (1.03, -0.85), xycoords=("axes fraction", "data"), fontweight="bold", fontsize=8
    )
    axes.annotate(
        "stable", (1.15, -0.85), xycoords=("axes fraction", "data"), fontweight="bold", fontsize=8
    )
    names = [head_name(row.layer, row.head) for row in ranking.itertuples()]
    axes.set_yticks(places, names)
    axes.set_ylim(len(ranking) - 0.3, -0.7)
    axes.set_xlabel(
        f"Attention of answer tokens on the reasoning (with {CONFIDENCE:.0%} interval over traces)"
    )
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    figure.alt_text = (
        "Top heads by attention of the answer on the reasoning: "
        + ", ".join(
            f"{name} {row.mass:.0%} (lift {row.lift:.2f})"
            for name, row in zip(names, ranking.itertuples(), strict=True)
        )
        + "."
    )
    return figure


@styled
def depth_distribution(
    heads: Sequence[tuple[int, int]],
    n_layers: int,
    p_value: float | None = None,
    attending: Sequence[int] | None = None,
) -> BookFigure:
    """In which layers the top heads sit, beside an even spread; notebook 04.

    heads: (layer, head) pairs. attending: the layers over which the spread is (None: all). p_value:
    of `head_tests.depth_test`, against an even spread.
    """
    counts = np.bincount([layer for layer, _ in heads], minlength=n_layers)
    figure = BookFigure(2.6)
    axes = figure.subplots()
    bars = axes.bar(
        range(n_layers),
        counts,
        color=SEGMENT_COLOURS["reasoning"],
        edgecolor=INK,
        linewidth=0.6,
        label=f"top {len(heads)} reasoning-focus heads",
    )
    there = range(n_layers) if attending is None else attending
    spread = np.where(np.isin(range(n_layers), there), len(heads) / len(there), 0.0)
    [even] = axes.plot(
        np.arange(n_layers + 1) - 0.5,
        [*spread, spread[-1]],
        drawstyle="steps-post",
        color=PALE,
        linestyle=":",
        linewidth=1.4,
        label="even spread",
    )
    axes.set_xlabel("Layer")
    axes.set_ylabel("Heads")
    axes.set_xlim(-0.6, n_layers - 0.4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    verdict = (
        "" if p_value is None else f"nearer to the middle than an even spread: p = {p_value:.2g}"
    )
    axes.set_title(verdict, fontweight="normal")
    figure.legend(handles=[bars, even], loc="outside upper left", ncols=2)
    figure.alt_text = (
        f"Layers of the top {len(heads)} heads out of {n_layers} layers: "
        + ", ".join(f"{count} in layer {layer}" for layer, count in enumerate(counts) if count)
        + (f"; {verdict}" if verdict else "")
        + "."
    )
    return figure


@styled
def trajectories(paths: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> BookFigure:
    """How heads walk along the reasoning while the answer is written, a small panel for each;
    notebook 04.

    paths: label → (answer index as a share of the answer, attended place as a share of the
    reasoning), both in [0, 1].
    """
    columns = min(3, len(paths))
    rows = -(-len(paths) // columns)
    figure = BookFigure(0.5 + rows * 2.1)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    said = []
    for axes, (label, (index, place)) in zip(grid.flat, paths.items(), strict=False):
        axes.plot([0, 1], [0, 1], color=PALE, linestyle=":", linewidth=1.2)
        axes.scatter(index, place, s=6, color=SEGMENT_COLOURS["answer"], edgecolor="none")
        axes.set_title(label, fontweight="normal")
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        rho = pd.Series(index).corr(pd.Series(place), method="spearman")
        said.append(f"{label}: rank correlation {rho:.2f}")
    for axes in grid.flat[len(paths) :]:
        axes.set_visible(False)
    figure.supxlabel("Answer written", fontsize=9)
    figure.supylabel("Place read in the reasoning", fontsize=9)
    figure.alt_text = (
        "Place read in the reasoning against progress of the answer. " + "; ".join(said) + "."
    )
    return figure


@styled
def cue_lift(frame: pd.DataFrame) -> BookFigure:
    """How much more the answer reads what follows a cue than other text at matched places; notebook
    04.

    frame: columns word, lift (ratio), ci_low, ci_high, n (cues); `heads.cue_lift` makes it.
    """
    require_columns(frame, "word", "lift", "ci_low", "ci_high", "n")
    figure = BookFigure(0.8 + 0.32 * len(frame))
    axes = figure.subplots()
    places = np.arange(len(frame))
    errors = np.clip([frame["lift"] - frame["ci_low"], frame["ci_high"] - frame["lift"]], 0, None)
    axes.errorbar(
        frame["lift"],
        places,
        xerr=errors,
        linestyle="none",
        marker="D",
        markersize=5,
        capsize=3,
        color=INK,
    )
    axes.axvline(1.0, color=PALE, linestyle=":", linewidth=1.4)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g} ×"))
    axes.set_yticks(places, [f"{row.word} (n = {row.n})" for row in frame.itertuples()])
    axes.set_ylim(len(frame) - 0.5, -0.5)
    axes.set_xlabel("Attention on what follows the cue, against text at matched places")
    low, high = _log_limits(frame)
    axes.set_xlim(low, high)
    parts = [1.0, 1.25, 1.5, 1.75] if high < 4 * low else [1.0]  # an octave alone has one tick
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(base=2, subs=parts))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.grid(axis="x")
    figure.alt_text = (
        "Cue lift by word: "
        + ", ".join(
            f"{row.word} {row.lift:.2f}"
            + (f" ({row.ci_low:.2f} to {row.ci_high:.2f})" if row.ci_low == row.ci_low else "")
            for row in frame.itertuples()
        )
        + "."
    )
    return figure


@styled
def corrected_digits(frame: pd.DataFrame, named: str) -> BookFigure:
    """What each head reads where a corrected step is stated again: the corrected digit or the wrong
    one; notebook 04b.

    frame: columns layer, head, corrected, wrong (mean attention on each digit, shares of 1);
    `attention.value_shares` makes it. named: the head to name, as "L3.H2".
    """
    require_columns(frame, "layer", "head", "corrected", "wrong")
    figure = BookFigure(3.6, 4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=PALE, linestyle=":", linewidth=1.4)
    axes.scatter(
        frame["wrong"],
        frame["corrected"],
        s=22,
        color=SEGMENT_COLOURS["reasoning"],
        edgecolors=INK,
        linewidths=0.6,
    )
    names = [
        head_name(layer, head) for layer, head in frame[["layer", "head"]].itertuples(index=False)
    ]
    row = frame.iloc[names.index(named)]
    axes.annotate(
        named, (row["wrong"], row["corrected"]), (7, 0), textcoords="offset points", va="center"
    )
    most = 1.08 * frame[["corrected", "wrong"]].to_numpy().max()
    axes.set_xlim(-0.03 * most, most)
    axes.set_ylim(-0.03 * most, most)
    axes.set_aspect("equal")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlabel("Attention on the wrong digit")
    axes.set_ylabel("Attention on the corrected digit")
    axes.grid()
    above = int((frame["corrected"] > frame["wrong"]).sum())
    figure.alt_text = (
        f"Each of {len(frame)} heads by its attention on the wrong digit and on the corrected one. "
        f"{above} give the corrected one more. {named} gives the corrected digit "
        f"{row['corrected']:.0%}, the wrong one {row['wrong']:.0%}."
    )
    return figure


def _log_limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Limits on a log axis that hold every interval and the line at 1, with the same room on both
    sides.
    """
    # what comes from one trace has no interval, and is drawn all the same
    drawn = frame[["lift", "ci_low", "ci_high"]]
    low, high = min(1.0, drawn.min(axis=None)), max(1.0, drawn.max(axis=None))
    room = (high / low) ** 0.08
    return low / max(room, 1.1), high * max(room, 1.1)
