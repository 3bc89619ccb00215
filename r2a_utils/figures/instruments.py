"""Figures of stage 06b: which instruments tell answers made from the reasoning from others.

This file draws frames and computes nothing that the frames do not say.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.figures.style import INK, PALE, BookFigure, require_columns, styled

MARKERS = "osD^v"
COLUMNS = 4


@styled
def instrument_aucs(frame: pd.DataFrame) -> BookFigure:
    """How well each instrument tells: a row an instrument, a mark a contrast, with intervals.

    frame: columns instrument, contrast, auc, ci_low, ci_high (`instruments.auc_table`). The line is
    chance; left of it an instrument tells the wrong way round. Notebook 06b.
    """
    require_columns(frame, "instrument", "contrast", "auc", "ci_low", "ci_high")
    names = list(dict.fromkeys(frame["instrument"]))
    contrasts = list(dict.fromkeys(frame["contrast"]))
    figure = BookFigure(1.2 + 0.36 * len(names))
    axes = figure.subplots()
    offsets = np.linspace(-0.24, 0.24, len(contrasts)) if len(contrasts) > 1 else [0.0]
    said = []
    for i, (contrast, offset) in enumerate(zip(contrasts, offsets, strict=True)):
        rows = frame[frame["contrast"] == contrast]
        axes.errorbar(
            rows["auc"],
            [names.index(name) + offset for name in rows["instrument"]],
            xerr=np.clip([rows["auc"] - rows["ci_low"], rows["ci_high"] - rows["auc"]], 0, None),
            color=INK if i % 2 == 0 else PALE,
            marker=MARKERS[i % len(MARKERS)],
            markerfacecolor=INK if i % 2 == 0 else "white",
            markersize=4.5,
            linestyle="none",
            capsize=2,
            linewidth=1,
            label=contrast,
        )
        told = ", ".join(f"{row.instrument} {row.auc:.2f}" for row in rows.itertuples())
        said.append(f"{contrast}: {told}")
    axes.axvline(0.5, color=PALE, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("AUC, with interval (0.5: chance; 1: told apart)")
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=4)
    figure.alt_text = f"AUC of each instrument. {'; '.join(said)}."
    return figure


@styled
def instrument_doses(frame: pd.DataFrame) -> BookFigure:
    """Each instrument's mean reading by the dose of reasoning: small multiples, with intervals.

    frame: columns instrument, dose, value, ci_low, ci_high, share (`instruments.dose_values`). The
    dotted line is where a reading equals the dose, drawn where it has the dose's unit (share).
    Notebook 06b.
    """
    require_columns(frame, "instrument", "dose", "value", "ci_low", "ci_high", "share")
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
        axes.errorbar(
            part["dose"],
            part["value"],
            yerr=np.clip(
                [part["value"] - part["ci_low"], part["ci_high"] - part["value"]], 0, None
            ),
            color=INK,
            marker="o",
            markersize=3.5,
            linewidth=1,
            capsize=2,
        )
        axes.set_title(names[i], fontsize=8)
        axes.tick_params(labelsize=7.5)
        axes.set_xticks([0, 0.5, 1])
        told = ", ".join(f"{row.dose:g}: {row.value:.2f}" for row in part.itertuples())
        said.append(f"{names[i]} {told}")
    for axes in grid[-1]:
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("Dose: probability that the answer comes from the reasoning", fontsize=9)
    figure.supylabel("Mean reading", fontsize=9)
    figure.alt_text = f"Mean reading of each instrument by dose. {'; '.join(said)}."
    return figure
