"""Figures of stage 1 and of the bundled model's making: how good the answers are."""

from __future__ import annotations

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


def _conditions(frame: pd.DataFrame) -> list[str]:
    """The conditions of a frame in the book's order."""
    require_known("condition", frame["condition"].unique(), CONDITION_COLOURS)
    return [c for c in CONDITION_COLOURS if c in set(frame["condition"])]


def _interval(rows: pd.DataFrame, value: str) -> np.ndarray:
    """Lengths of the error bars below and above `value`: [2, n]."""
    return np.clip([rows[value] - rows["ci_low"], rows["ci_high"] - rows[value]], 0, None)


@styled
def accuracy_by_steps(
    frame: pd.DataFrame,
    chance: float | None = None,
    xlabel: str = "Steps that the problem needs",
) -> BookFigure:
    """Accuracy against the number of steps that a problem needs, a line for each condition.

    frame: columns steps, condition, accuracy, ci_low, ci_high (fractions). chance: accuracy of
    guessing, drawn as a line. Where problems have no steps the column may hold levels or subjects
    (`xlabel` says so); kinds that are no numbers are joined by no line. Stage 1, notebook 02.
    """
    require_columns(frame, "steps", "condition", "accuracy", "ci_low", "ci_high")
    figure = BookFigure(3.2)
    axes = figure.subplots()
    kinds = sorted(frame["steps"].unique())
    numbers = pd.api.types.is_numeric_dtype(frame["steps"])
    said, handles = [], []
    for condition in _conditions(frame):
        rows = frame[frame["condition"] == condition].sort_values("steps")
        drawn = axes.errorbar(
            rows["steps"] if numbers else [kinds.index(kind) for kind in rows["steps"]],
            rows["accuracy"],
            yerr=_interval(rows, "accuracy"),
            color=CONDITION_COLOURS[condition],
            marker=MARKERS[condition],
            capsize=3,
            linestyle="-" if numbers else "none",
            label=CONDITION_LABELS[condition],
        )
        handles.append(drawn)
        first, last = rows.iloc[0], rows.iloc[-1]
        said.append(
            f"{CONDITION_LABELS[condition]} {first.accuracy:.0%} at {first.steps} "
            f"and {last.accuracy:.0%} at {last.steps}"
        )
    if chance is not None:
        handles.append(
            axes.axhline(chance, color=PALE, linestyle=":", linewidth=1.2, label="guessing")
        )
    if numbers:
        axes.set_xticks(kinds)
    else:
        axes.set_xticks(range(len(kinds)), kinds, rotation=20, ha="right")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("Right answers")
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
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
    axes.set_xlabel("Right answers (with 95% interval)")
    return figure


@styled
def paired_scores(
    frame: pd.DataFrame, xlabel: str = "Mean judge score (1 to 10, with 95% interval)"
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
    conditions = _conditions(frame)
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
    conditions = _conditions(frame)
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
def training_curve(losses: pd.DataFrame, checks: pd.DataFrame) -> BookFigure:
    """How the bundled model learnt: loss and held-out accuracy against tokens seen.

    losses: columns tokens, loss (nats a token). checks: columns tokens, condition, accuracy
    (fraction).
    """
    require_columns(losses, "tokens", "loss")
    require_columns(checks, "tokens", "condition", "accuracy")
    figure = BookFigure(4.2)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(losses["tokens"] / 1e6, losses["loss"], color=INK, linewidth=1.2)
    above.set_yscale("log")
    for level in (above.yaxis.set_major_formatter, above.yaxis.set_minor_formatter):
        level(lambda loss, _: f"{loss:g}" if f"{loss:e}"[0] in "125" else "")
    above.set_ylabel("Training loss\n(nats a token)")
    above.grid(axis="y")
    for condition in _conditions(checks):
        rows = checks[checks["condition"] == condition].sort_values("tokens")
        below.plot(
            rows["tokens"] / 1e6,
            rows["accuracy"],
            color=CONDITION_COLOURS[condition],
            marker=MARKERS[condition],
            markersize=4,
            label=CONDITION_LABELS[condition],
        )
    below.set_xlabel("Tokens seen (millions)")
    below.set_ylabel("Right answers,\nheld-out problems")
    below.grid(axis="y")
    percent_axis(below.yaxis)
    figure.legend(loc="outside upper left", ncols=2)
    final = checks.sort_values("tokens").groupby("condition")["accuracy"].last()
    figure.alt_text = (
        f"Training over {losses['tokens'].max() / 1e6:.1f} million tokens: the loss falls from "
        f"{losses['loss'].iloc[0]:.2f} to {losses['loss'].iloc[-1]:.2f} nats; final accuracy "
        + ", ".join(f"{final[c]:.0%} {CONDITION_LABELS[c]}" for c in _conditions(checks))
        + "."
    )
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
        for offset, condition in zip((-0.1, 0.1), _conditions(frame), strict=False):
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
