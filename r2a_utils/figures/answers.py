"""Figures of stage 1: how good the answers are, in both conditions and in its further arms.

This file draws frames and computes nothing that the frames do not say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.ticker import MultipleLocator

from r2a_utils.figures.style import (
    CONDITION_COLOURS,
    CONDITION_LABELS,
    INK,
    PALE,
    BookFigure,
    percent_axis,
    require_columns,
    require_known,
    styled,
)

MARKERS = {"with_reasoning": "o", "without_reasoning": "s"}
# Shape, line and shade tell these series apart, as no colour of the book means one of them.
LOOKS = [("o", "-", INK), ("s", "--", "#666666"), ("^", ":", "#999999"), ("D", "-.", "#444444")]
BELIEF_LOOKS = [*LOOKS, ("", (0, (1, 3)), PALE)]


def conditions_of(frame: pd.DataFrame) -> list[str]:
    """The conditions of a frame in the book's order."""
    require_known("condition", frame["condition"].unique(), CONDITION_COLOURS)
    return [c for c in CONDITION_COLOURS if c in set(frame["condition"])]


def _interval(rows: pd.DataFrame, value: str) -> np.ndarray:
    """Lengths of the error bars below and above `value`: [2, n]."""
    return np.clip([rows[value] - rows["ci_low"], rows["ci_high"] - rows[value]], 0, None)


def families_of(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The families of rows, each with its dashes and its rows by steps; "" where there are none."""
    families = sorted(rows["family"].unique()) if "family" in rows else [""]
    for family, dashes in zip(families, itertools.cycle(("-", "--", ":", "-.")), strict=False):
        own = rows[rows["family"] == family] if family else rows
        yield family, dashes, own.sort_values("steps")


@styled
def accuracy_by_steps(
    frame: pd.DataFrame,
    chance: float | None = None,
    xlabel: str = "Steps that the problem needs",
) -> BookFigure:
    """Accuracy against the number of steps that a problem needs, a line for each condition.

    frame: columns steps, condition, accuracy, ci_low, ci_high (fractions). With a column family
    there is a line for each family in each condition, told apart by dashes, and with a column
    chance one for guessing. chance: accuracy of guessing where it is one for all. Where problems
    have no steps the column may hold levels or subjects (`xlabel` says so); kinds that are no
    numbers are joined by no line. Stage 1, notebook 02.
    """
    require_columns(frame, "steps", "condition", "accuracy", "ci_low", "ci_high")
    figure = BookFigure(3.2)
    axes = figure.subplots()
    kinds = sorted(frame["steps"].unique())
    numbers = pd.api.types.is_numeric_dtype(frame["steps"])
    said, handles = [], []
    for condition in conditions_of(frame):
        for family, dashes, rows in families_of(frame[frame["condition"] == condition]):
            name = ", ".join(filter(None, (CONDITION_LABELS[condition], family)))
            drawn = axes.errorbar(
                rows["steps"] if numbers else [kinds.index(kind) for kind in rows["steps"]],
                rows["accuracy"],
                yerr=_interval(rows, "accuracy"),
                color=CONDITION_COLOURS[condition],
                marker=MARKERS[condition],
                capsize=3,
                linestyle=dashes if numbers else "none",
                label=name,
            )
            handles.append(drawn)
            first, last = rows.iloc[0], rows.iloc[-1]
            said.append(
                f"{name} {first.accuracy:.0%} at {first.steps} and {last.accuracy:.0%} at "
                f"{last.steps}"
            )
    if chance is not None:
        handles.append(
            axes.axhline(chance, color=PALE, linestyle=":", linewidth=1.2, label="guessing")
        )
    if "chance" in frame:
        for family, dashes, rows in families_of(frame.drop_duplicates(["family", "steps"])):
            handles += axes.plot(rows["steps"], rows["chance"], color=PALE, linestyle=dashes,
                                 linewidth=1.2, label=f"guessing, {family}")  # fmt: skip
    if numbers:
        axes.set_xticks(kinds)
    else:
        axes.set_xticks(range(len(kinds)), kinds, rotation=20, ha="right")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("Right answers")
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=3)
    figure.alt_text = f"Right answers by {xlabel[0].lower() + xlabel[1:]}: " + "; ".join(said) + "."
    return figure


@styled
def paired_accuracy(frame: pd.DataFrame) -> BookFigure:
    """Accuracy with and without reasoning on the same problems, a row for each label.

    frame: columns label, condition, accuracy, ci_low, ci_high (fractions). Stage 1, notebook 02.
    """
    require_columns(frame, "label", "condition", "accuracy", "ci_low", "ci_high")
    figure = _dumbbells(frame, "accuracy", difference=lambda d: f"{100 * d:+.1f} points")
    axes = figure.axes[0]
    percent_axis(axes.xaxis)
    axes.set_xlabel("Right answers (with interval)")
    return figure


@styled
def paired_scores(
    frame: pd.DataFrame, xlabel: str = "Mean judge score (1 to 10, with interval)"
) -> BookFigure:
    """The picture of `paired_accuracy` for a score.

    frame: columns label, condition, score, ci_low, ci_high.
    """
    require_columns(frame, "label", "condition", "score", "ci_low", "ci_high")
    figure = _dumbbells(frame, "score", difference=lambda d: f"{d:+.2f}")
    figure.axes[0].set_xlabel(xlabel)
    figure.alt_text = f"{xlabel}. {figure.alt_text}".replace("\n", ", ")  # names the judge
    return figure


def _dumbbells(frame: pd.DataFrame, value: str, difference) -> BookFigure:
    labels = list(dict.fromkeys(frame["label"]))
    conditions = conditions_of(frame)
    figure = BookFigure(1.1 + 0.42 * len(labels))
    axes = figure.subplots()
    said = []
    for row, label in enumerate(labels):
        of_label = frame[frame["label"] == label].set_index("condition")
        axes.plot(
            of_label[value],
            [row] * len(of_label),
            color="#bbbbbb",
            linewidth=4,
            solid_capstyle="round",
            zorder=1,
        )
        if set(CONDITION_COLOURS) <= set(of_label.index):
            gap = of_label.loc["with_reasoning", value] - of_label.loc["without_reasoning", value]
            axes.annotate(
                difference(gap),
                (1.0, row),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                annotation_clip=False,
            )
        said.append(
            f"{label}: "
            + ", ".join(
                f"{of_label.loc[c, value]:.3g} {CONDITION_LABELS[c]}"
                for c in conditions
                if c in of_label.index
            )
        )
    for offset, condition in zip((-0.09, 0.09), conditions, strict=False):
        rows = frame[frame["condition"] == condition]
        axes.errorbar(
            rows[value],
            [labels.index(name) + offset for name in rows["label"]],
            xerr=_interval(rows, value),
            color=CONDITION_COLOURS[condition],
            marker=MARKERS[condition],
            linestyle="none",
            capsize=3,
            label=CONDITION_LABELS[condition],
            zorder=2,
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    figure.alt_text = "Paired dots with intervals. " + "; ".join(said) + "."
    return figure


@styled
def funnel(frame: pd.DataFrame) -> BookFigure:
    """How many problems are left after each filter, in each condition.

    frame: columns condition, step, count; steps in their order of appearance. Stage 1, notebook 02.
    """
    require_columns(frame, "condition", "step", "count")
    steps = list(dict.fromkeys(frame["step"]))
    conditions = conditions_of(frame)
    figure = BookFigure(0.9 + 0.46 * len(steps))
    axes = figure.subplots()
    thickness = 0.8 / len(conditions)
    for index, condition in enumerate(conditions):
        counts = frame[frame["condition"] == condition].set_index("step")["count"]
        bars = axes.barh(
            [
                steps.index(s) + (index - (len(conditions) - 1) / 2) * thickness
                for s in counts.index
            ],
            counts,
            height=thickness * 0.9,
            color=CONDITION_COLOURS[condition],
            label=CONDITION_LABELS[condition],
        )
        axes.bar_label(bars, labels=[f"{c:,}" for c in counts], padding=3, color=INK, fontsize=8)
    axes.set_yticks(range(len(steps)), steps)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xlim(0, 1.08 * frame["count"].max())
    axes.set_xlabel("Problems")
    figure.legend(loc="outside upper left", ncols=2)
    said = []
    for condition in conditions:
        rows = frame[frame["condition"] == condition]
        left = ", ".join(
            f"{c:,} {step}" for c, step in zip(rows["count"], rows["step"], strict=True)
        )
        said.append(f"{CONDITION_LABELS[condition]}: {left}")
    figure.alt_text = "Funnel of problems. " + "; ".join(said) + "."
    return figure


@styled
def score_panels(frame: pd.DataFrame, xlabel: str = "Mean judge score (1 to 10)") -> BookFigure:
    """Scores with and without reasoning, a panel for each model and a row for each area.

    frame: columns panel, label, condition, score, differs (whether the two conditions' difference
    is more than chance: its dots are joined by a dark line). Stage 1, notebook 02.
    """
    require_columns(frame, "panel", "label", "condition", "score", "differs")
    panels, labels = (list(dict.fromkeys(frame[name])) for name in ("panel", "label"))
    figure = BookFigure(1.4 + 0.3 * len(labels))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    said = []
    for axes, panel in zip(grid, panels, strict=True):
        rows = frame[frame["panel"] == panel]
        for label, pair in rows.groupby("label", sort=False):
            place, differs = labels.index(label), pair["differs"].all()
            colour = INK if differs else "#dddddd"
            axes.plot(pair["score"], [place] * len(pair), color=colour, linewidth=1.6, zorder=1)
            scores = ", ".join(
                f"{row.score:.1f} {CONDITION_LABELS[row.condition]}" for row in pair.itertuples()
            )
            said.append(f"{panel}, {label}: {scores}{', more than chance' if differs else ''}")
        for offset, condition in zip((-0.1, 0.1), conditions_of(frame), strict=False):
            of_condition = rows[rows["condition"] == condition]
            axes.scatter(
                of_condition["score"],
                [labels.index(label) + offset for label in of_condition["label"]],
                color=CONDITION_COLOURS[condition],
                marker=MARKERS[condition],
                s=28,
                label=CONDITION_LABELS[condition] if panel == panels[0] else None,
                zorder=2,
            )
        axes.set_title(panel)
        axes.grid(axis="x")
    grid[0].xaxis.set_major_locator(MultipleLocator(1))
    grid[0].set_yticks(range(len(labels)), labels)
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel(xlabel, fontsize=9)
    figure.legend(loc="outside upper left", ncols=2)
    figure.alt_text = f"Mean scores. {'; '.join(said)}.".replace("\n", ", ")
    return figure


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
def belief_curves(frame: pd.DataFrame) -> BookFigure:
    """How often the answer is foretold after a share of the reasoning: a panel a family.

    frame: columns family, reader (what foretells it), fraction, value, ci_low, ci_high (fractions);
    `causal.belief_curves`. The first reader has its interval as a band, the others as bars.
    Notebook 02.
    """
    require_columns(frame, "family", "reader", "fraction", "value", "ci_low", "ci_high")
    families = list(dict.fromkeys(frame["family"]))
    figure = BookFigure(3.4)
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    said = []
    for axes, family in zip(panels, families, strict=True):
        of = frame[frame["family"] == family]
        looks = zip(BELIEF_LOOKS, dict.fromkeys(of["reader"]), strict=False)
        for i, ((marker, line, colour), name) in enumerate(looks):
            rows = of[of["reader"] == name].sort_values("fraction")
            x, y = rows["fraction"], rows["value"]
            if i:
                axes.errorbar(x, y, yerr=_interval(rows, "value"), fmt="none", ecolor=colour,
                              elinewidth=0.8, alpha=0.5)  # fmt: skip
            else:
                axes.fill_between(x, rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15,
                                  linewidth=0)  # fmt: skip
            axes.plot(x, y, marker=marker, linestyle=line, color=colour, label=name, markersize=4)
            told = ", ".join(f"{value:.0%}" for value in y)
            said.append(f"{family}, {name}: {told}")
        if len(families) > 1:
            axes.set_title(family)
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        axes.set_xlabel("Reasoning read")
        axes.grid(axis="y")
    panels[0].set_ylabel("Answers predicted")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=3)
    figure.alt_text = f"Answers predicted along the reasoning. {'; '.join(said)}."
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
    left.set_xlabel("Right answers (with interval)")
    right.set_xlim(left=0)
    right.set_xlabel("Tokens written (mean, with interval)")
    for axes in (left, right):
        axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    said = [
        f"{row.group} (n = {row.n}), {row.arm}: {row.accuracy:.0%} right, {row.tokens:.0f} tokens"
        for row in frame.itertuples()
    ]
    figure.alt_text = "Right answers and length by arm. " + "; ".join(said).replace("\n", " ") + "."
    return figure
