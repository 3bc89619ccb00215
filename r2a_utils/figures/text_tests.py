"""Figures of stage 02b: what is answered when the text of the reasoning, or the question, changes.

This file draws frames and computes nothing that the frames do not say.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.figures.style import (
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    percent_axis,
    require_columns,
    styled,
)

# What an answer can be after an edit: the reasoning's colour where it follows the edited reasoning,
# the prompt's where it stays with what the question alone could have told.
OUTCOMES = {
    "follows": ("what the edited text leads to", SEGMENT_COLOURS["reasoning"]),
    "before": ("as before the edit", SEGMENT_COLOURS["prompt"]),
    "other": ("another answer, or none", "#dddddd"),
}


@styled
def edited_answers(frame: pd.DataFrame) -> BookFigure:
    """Answers after each edit of the reasoning, a panel a kind of problem, a row an edit.

    frame: columns kind, arm, n, right, right_low, right_high, same, same_low, same_high (fractions;
    `answers.edit_rates`). Filled: as before the edit; open: right. Notebook 02b.
    """
    require_columns(frame, "kind", "arm", "n", "right", "right_low", "right_high")
    require_columns(frame, "same", "same_low", "same_high")
    kinds, arms = list(dict.fromkeys(frame["kind"])), list(dict.fromkeys(frame["arm"]))
    figure = BookFigure(1.2 + 0.34 * len(arms))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    looks = (("same", "as before the edit", "o", INK, INK), ("right", "right", "s", PALE, "white"))
    said = []
    for axes, kind in zip(panels, kinds, strict=True):
        rows = frame[frame["kind"] == kind]
        for offset, (value, label, marker, colour, face) in zip((-0.14, 0.14), looks, strict=True):
            axes.errorbar(
                rows[value],
                [arms.index(arm) + offset for arm in rows["arm"]],
                xerr=_bars(rows, value),
                color=colour,
                marker=marker,
                markerfacecolor=face,
                markersize=5,
                linestyle="none",
                capsize=2,
                label=label if axes is panels[0] else None,
            )
        axes.set_title(f"{kind} (n = {rows['n'].max()})")
        axes.set_xlabel("Answers (with interval)")
        axes.grid(axis="x")
        percent_axis(axes.xaxis)
        shares = [f"{r.arm} {r.same:.0%} and {r.right:.0%}" for r in rows.itertuples()]
        said.append(f"{kind}: {', '.join(shares)}")
    _name_rows(panels[0], arms)
    figure.legend(loc="outside upper left", ncols=2)
    figure.alt_text = f"Answers as before the edit, and right ones. {'; '.join(said)}."
    return figure


@styled
def answer_outcomes(frame: pd.DataFrame) -> BookFigure:
    """What the answer is after an edit of which it is known what the text leads to: a bar an arm.

    frame: columns arm, n, follows (missing where it is not known), before, other (fractions;
    `answers.outcomes`). Notebook 02b.
    """
    require_columns(frame, "arm", "n", *OUTCOMES)
    figure = BookFigure(1.0 + 0.36 * len(frame))
    axes = figure.subplots()
    left, said = np.zeros(len(frame)), []
    for name, (label, colour) in OUTCOMES.items():
        shares = frame[name].fillna(0).to_numpy(float)
        bars = axes.barh(
            range(len(frame)), shares, left=left, height=0.7, color=colour, label=label
        )
        told = [f"{share:.0%}" if share >= 0.05 else "" for share in shares]
        axes.bar_label(bars, labels=told, label_type="center", color=INK, fontsize=8)
        left = left + shares
        said.append(f"{label}: " + ", ".join(
            f"{share:.0%} after {arm}" for arm, share in zip(frame["arm"], shares, strict=True)
        ))  # fmt: skip
    _name_rows(axes, [f"{row.arm} (n = {row.n})" for row in frame.itertuples()])
    percent_axis(axes.xaxis)
    axes.set_xlabel("Answers")
    figure.legend(loc="outside upper left", ncols=3)
    figure.alt_text = f"What the answer is after an edit. {'; '.join(said)}."
    return figure


@styled
def hints(frame: pd.DataFrame) -> BookFigure:
    """How often a wrong hint is followed, and how often the answer is right, a row a remark.

    frame: columns arm, n, right, followed, followed_low, followed_high (fractions), n_followed,
    said_followed (share of those in whose thought it is said; missing where none follows;
    `answers.hint_rates`). Notebook 02b.
    """
    require_columns(frame, "arm", "n", "right", "followed", "followed_low", "followed_high")
    require_columns(frame, "n_followed", "said_followed")
    figure = BookFigure(1.1 + 0.42 * len(frame))
    axes = figure.subplots()
    places = np.arange(len(frame))
    axes.errorbar(
        frame["followed"],
        places,
        xerr=_bars(frame, "followed"),
        color=INK,
        marker="o",
        linestyle="none",
        capsize=3,
        label="what the hint says",
    )
    axes.plot(frame["right"], places, "s", color=PALE, markerfacecolor="white", label="right")
    said = []
    for place, row in zip(places, frame.itertuples(), strict=True):
        if row.n_followed:
            told = f"said in {row.said_followed * row.n_followed:.0f} of {row.n_followed}"
            _beside(axes, place, told)
        said.append(f"{row.arm}: {row.followed:.0%} what the hint says, {row.right:.0%} right")
    _name_rows(axes, [f"{row.arm} (n = {row.n})" for row in frame.itertuples()])
    percent_axis(axes.xaxis)
    axes.set_xlabel("Answers (with interval)")
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    figure.alt_text = f"Answers to questions that hint at a wrong one. {'; '.join(said)}."
    return figure


def _bars(rows: pd.DataFrame, value: str) -> np.ndarray:
    """Lengths of the error bars below and above `value`: [2, n]."""
    ends = [rows[value] - rows[f"{value}_low"], rows[f"{value}_high"] - rows[value]]
    return np.clip(ends, 0, None)


def _name_rows(axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _beside(axes, place: float, text: str) -> None:
    """A note at the right of a row."""
    axes.annotate(text, (1.0, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                  textcoords="offset points", va="center", annotation_clip=False)  # fmt: skip
