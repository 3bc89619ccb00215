"""Figures of stage 1's further arms: the reasoning cut short, and without its cues."""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.figures.style import INK, BookFigure, percent_axis, require_columns, styled

# Shape, line and shade tell these series apart, as no colour of the book means one of them.
LOOKS = [("o", "-", INK), ("s", "--", "#666666"), ("^", ":", "#999999"), ("D", "-.", "#444444")]


@styled
def early_answering(frame: pd.DataFrame, ylabel: str = "Right answers") -> BookFigure:
    """What is answered when the reasoning is cut at a fraction (Lanham et al. 2307.13702).

    frame: columns series, fraction (of the reasoning kept, 0 to 1), value, ci_low, ci_high
    (fractions). Told apart by line style and marker, as no colour of the book means a series.
    """
    require_columns(frame, "series", "fraction", "value", "ci_low", "ci_high")
    figure = BookFigure(3.2)
    axes = figure.subplots()
    said = []
    for (marker, line, colour), name in zip(
        LOOKS * 3, dict.fromkeys(frame["series"]), strict=False
    ):
        rows = frame[frame["series"] == name].sort_values("fraction")
        axes.plot(
            rows["fraction"],
            rows["value"],
            marker=marker,
            linestyle=line,
            color=colour,
            label=name,
            markersize=4,
        )
        axes.fill_between(
            rows["fraction"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15, linewidth=0
        )
        said.append(f"{name} from {rows['value'].iloc[0]:.0%} to {rows['value'].iloc[-1]:.0%}")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlabel("Reasoning kept before the answer is forced")
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=4)
    figure.alt_text = (
        "Early answering, from no reasoning kept to all of it: " + "; ".join(said) + "."
    )
    return figure


@styled
def no_cue(frame: pd.DataFrame) -> BookFigure:
    """Two arms side by side, right answers and tokens written, a row for each group of problems.

    frame: columns group, arm, n, accuracy, ci_low, ci_high (fractions), tokens, tokens_low,
    tokens_high. Told apart by shape and shade. Stage 1, notebook 02; NoWait (2506.08343).
    """
    require_columns(frame, "group", "arm", "n", "accuracy", "ci_low", "ci_high")
    require_columns(frame, "tokens", "tokens_low", "tokens_high")
    groups, arms = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["arm"]))
    figure = BookFigure(1.1 + 0.55 * len(groups))
    left, right = figure.subplots(1, 2, sharey=True)
    panels = (
        (left, "accuracy", "ci_low", "ci_high"),
        (right, "tokens", "tokens_low", "tokens_high"),
    )
    for offset, arm, (marker, _, colour) in zip((-0.13, 0.13), arms, LOOKS, strict=False):
        rows = frame[frame["arm"] == arm]
        places = [groups.index(group) + offset for group in rows["group"]]
        for axes, value, low, high in panels:
            bars = np.clip([rows[value] - rows[low], rows[high] - rows[value]], 0, None)
            axes.errorbar(
                rows[value],
                places,
                xerr=np.nan_to_num(bars),
                color=colour,
                marker=marker,
                markerfacecolor=colour if arm == arms[0] else "white",
                linestyle="none",
                capsize=3,
                label=arm if axes is left else None,
            )
    counts = frame.groupby("group")["n"].first()
    left.set_yticks(range(len(groups)), [f"{group}\n(n = {counts[group]})" for group in groups])
    left.set_ylim(len(groups) - 0.5, -0.5)
    percent_axis(left.xaxis)
    left.set_xlabel("Right answers (95% interval)")
    right.set_xlim(left=0)
    right.set_xlabel("Tokens written (mean, 95% interval)")
    for axes in (left, right):
        axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    said = [
        f"{row.group} (n = {row.n}), {row.arm}: {row.accuracy:.0%} right, {row.tokens:.0f} tokens"
        for row in frame.itertuples()
    ]
    figure.alt_text = "Right answers and length by arm. " + "; ".join(said).replace("\n", " ") + "."
    return figure
