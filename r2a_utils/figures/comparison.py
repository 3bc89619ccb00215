"""The figure of the comparison page: a few findings, a row a model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.figures.style import (
    CONDITION_COLOURS,
    CONDITION_LABELS,
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    percent_axis,
    require_columns,
    styled,
)

MARKERS = {"with_reasoning": "o", "without_reasoning": "s"}
# The paper's two probes, by finding: how each is written in the legend, and its marker.
PROBES = {"early_probe": ("“Final answer is A.”", "o"), "early_boxed_probe": ("with a box", "s")}


@styled
def dots_by_model(frame: pd.DataFrame) -> BookFigure:
    """Right answers in both conditions, mass answer → reasoning, and effects under two probes.

    frame: indexed by model, from top to bottom; columns with_reasoning, without_reasoning, mass
    (shares), early_probe, early_boxed_probe (normalised logit difference in the early layers), NaN
    where there is none, and own, which says whether a row is a run (filled) or published (hollow).
    A model without any number is left out.
    """
    findings = ["with_reasoning", "without_reasoning", "mass", *PROBES]
    require_columns(frame, *findings, "own")
    frame = frame[frame[findings].notna().any(axis=1)].iloc[::-1]
    figure = BookFigure(1.3 + 0.32 * len(frame))
    answers, attention, patching = figure.subplots(1, 3, sharey=True)
    rows = np.arange(len(frame))

    answers.hlines(rows, frame["without_reasoning"], frame["with_reasoning"], color=PALE, lw=1)
    for condition, marker in MARKERS.items():
        _dots(answers, frame, condition, CONDITION_COLOURS[condition], marker)
        answers.plot([], [], marker, color=CONDITION_COLOURS[condition],
                     label=CONDITION_LABELS[condition])  # fmt: skip
    _dots(attention, frame, "mass", SEGMENT_COLOURS["reasoning"], "D")
    for probe, (label, marker) in PROBES.items():
        _dots(patching, frame, probe, INK, marker)
        patching.plot([], [], marker, color=INK, label=label)
    percent_axis(answers.xaxis)
    percent_axis(attention.xaxis)
    patching.set_xlim(-0.02, max(1.02, 1.04 * frame[list(PROBES)].max().max()))
    answers.set(title="Right answers", xlabel="share of problems", yticks=rows)
    answers.set_yticklabels(frame.index)
    answers.set_ylim(-0.6, len(frame) - 0.4)
    attention.set(title="Reasoning is read", xlabel="attention of the answer")
    patching.set(title="Effect of one token", xlabel="logit difference restored")
    for axes in (answers, attention, patching):
        axes.grid(axis="y")
    figure.legend(loc="outside lower left", ncols=4)
    figure.alt_text = _said(frame)
    return figure


def _dots(axes, frame: pd.DataFrame, finding: str, colour: str, marker: str) -> None:
    faces = [colour if own else "white" for own in frame["own"]]
    axes.scatter(
        frame[finding],
        range(len(frame)),
        c=faces,
        edgecolors=colour,
        marker=marker,
        s=34,
        linewidths=1.4,
        zorder=3,
    )


def _said(frame: pd.DataFrame) -> str:
    said = []
    for model, row in frame.iloc[::-1].iterrows():
        parts = []
        if pd.notna(row.with_reasoning):
            parts.append(f"{row.with_reasoning:.0%} right with reasoning")
        if pd.notna(row.without_reasoning):
            parts.append(f"{row.without_reasoning:.0%} without")
        if pd.notna(row.mass):
            parts.append(f"{row.mass:.0%} of attention on the reasoning")
        for probe, (label, _) in PROBES.items():
            if pd.notna(row[probe]):
                parts.append(f"effect {row[probe]:.2f} ({label})")
        said.append(f"{model}{'' if row.own else ' (published)'}: {', '.join(parts)}")
    return "Dots by model in three panels. " + "; ".join(said) + "."
