"""Figures of stage 06b: which instruments tell answers made from the reasoning from others.

This file draws frames and computes nothing that the frames do not say.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.figures.style import INK, PALE, BookFigure, require_columns, styled

MARKERS = "osD^v"
BAND = "#e3e3e3"
LADDER_MARKERS = "os"
COLUMNS = 4


@styled
def instrument_aucs(frame: pd.DataFrame) -> BookFigure:
    """How well each instrument tells: a row an instrument, a mark a contrast, a bar its range.

    frame: columns instrument, contrast, auc, lowest, highest, verdict (`instruments.auc_table`).
    The line is chance; left of it an instrument tells the wrong way round. Rows without a verdict
    are the null: grey, as far from chance to either side as the furthest pair. Notebook 06b.
    """
    require_columns(frame, "instrument", "contrast", "auc", "lowest", "highest", "verdict")
    names = list(dict.fromkeys(frame["instrument"]))
    null = frame[frame["verdict"].isna()]
    contrasts = list(dict.fromkeys(frame["contrast"][frame["verdict"].notna()]))
    figure = BookFigure(1.2 + 0.36 * len(names))
    axes = figure.subplots()
    offsets = np.linspace(-0.24, 0.24, len(contrasts)) if len(contrasts) > 1 else [0.0]
    said = []
    if len(null):
        axes.barh(
            [names.index(name) for name in null["instrument"]],
            2 * (null["highest"] - 0.5),
            height=0.8,
            left=1 - null["highest"],
            color=BAND,
            label=null["contrast"].iloc[0],
        )
        told = ", ".join(f"{row.instrument} {row.highest:.2f}" for row in null.itertuples())
        said.append(f"{null['contrast'].iloc[0]}, at most: {told}")
    for i, (contrast, offset) in enumerate(zip(contrasts, offsets, strict=True)):
        rows = frame[frame["contrast"] == contrast]
        axes.errorbar(
            rows["auc"],
            [names.index(name) + offset for name in rows["instrument"]],
            xerr=np.clip([rows["auc"] - rows["lowest"], rows["highest"] - rows["auc"]], 0, None),
            color=INK if i % 2 == 0 else PALE,
            marker=MARKERS[i % len(MARKERS)],
            markerfacecolor=INK if i % 2 == 0 else "white",
            markersize=4.5,
            linestyle="none",
            capsize=2,
            linewidth=1,
            label=contrast,
        )
        told = ", ".join(
            f"{row.instrument} {row.auc:.2f} ({row.lowest:.2f} to {row.highest:.2f})"
            for row in rows.itertuples()
        )
        said.append(f"{contrast}: {told}")
    axes.axvline(0.5, color=PALE, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("AUC, mean and range over pairs (0.5: chance; 1: told apart)")
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=4)
    figure.alt_text = f"AUC of each instrument. {'; '.join(said)}."
    return figure


@styled
def instrument_doses(frame: pd.DataFrame) -> BookFigure:
    """Each instrument's mean reading by the dose of reasoning: small multiples, a line a ladder.

    frame: columns instrument, ladder, dose, value, ci_low, ci_high, share
    (`instruments.dose_values`). The dotted line is where a reading equals the dose, drawn where it
    has the dose's unit (share). Notebook 06b.
    """
    require_columns(frame, "instrument", "ladder", "dose", "value", "ci_low", "ci_high", "share")
    ladders = sorted(set(frame["ladder"]))
    names = list(dict.fromkeys(frame["instrument"]))
    rows = -(-len(names) // COLUMNS)
    figure = BookFigure(0.6 + 1.35 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True)
    said = []
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.set_axis_off()
            continue
        part = frame[frame["instrument"] == names[i]].sort_values("dose")
        if part["share"].all():
            axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle=":")
        for j, ladder in enumerate(ladders):
            rung = part[part["ladder"] == ladder]
            axes.errorbar(
                rung["dose"] + 0.015 * j,  # aside, so that both intervals are seen
                rung["value"],
                yerr=np.clip(
                    [rung["value"] - rung["ci_low"], rung["ci_high"] - rung["value"]], 0, None
                ),
                color=INK if j % 2 == 0 else PALE,
                marker=LADDER_MARKERS[j % len(LADDER_MARKERS)],
                markerfacecolor=INK if j % 2 == 0 else "white",
                markersize=3.5,
                linewidth=1,
                capsize=2,
                label=f"training seed {ladder}",
            )
            told = ", ".join(f"{row.dose:g}: {row.value:.2f}" for row in rung.itertuples())
            said.append(f"{names[i]}, training seed {ladder}, {told}")
        axes.set_title(names[i], fontsize=8)
        axes.tick_params(labelsize=7.5)
        axes.set_xticks([0, 0.5, 1])
    for axes in grid[-1]:
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    figure.supxlabel("Dose: probability that the answer comes from the reasoning", fontsize=9)
    figure.supylabel("Mean reading", fontsize=9)
    figure.alt_text = f"Mean reading of each instrument by dose. {'; '.join(said)}."
    return figure
