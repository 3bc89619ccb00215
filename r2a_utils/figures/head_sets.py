"""Figure of stage 3: a set of heads beside random sets of the same layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r2a_utils.figures.style import INK, SEGMENT_COLOURS, BookFigure, percent_axis, styled


@styled
def head_sets(
    values: Mapping[str, Sequence[float]], xlabel: str, share: bool = False
) -> BookFigure:
    """What a set of heads does beside what each random set does; a row a way to intervene.

    values: way → values, of the set in question first, then of the random sets. share: the values
    are shares in [0, 1].
    """
    figure = BookFigure(1.0 + 0.5 * len(values))
    axes = figure.subplots()
    said, spread = [], np.random.default_rng(0)
    for place, (way, (own, *others)) in enumerate(values.items()):
        jitter = place + spread.uniform(-0.2, 0.2, len(others))
        named = place == 0  # the legend names each kind once
        axes.scatter(
            others, jitter, s=14, color="#888888", alpha=0.6, linewidth=0,
            label=f"{len(others)} random sets of the same layers" if named else None,
        )  # fmt: skip
        axes.vlines(
            np.median(others), place - 0.32, place + 0.32, color=INK, linewidth=1.2,
            label="their median" if named else None,
        )  # fmt: skip
        axes.scatter(
            [own], [place], s=62, marker="D", color=SEGMENT_COLOURS["reasoning"], edgecolor=INK,
            linewidth=0.8, zorder=3, label="reasoning-focus heads" if named else None,
        )  # fmt: skip
        numbers = (own, np.median(others), min(others), max(others))
        own, median, low, high = (f"{x:.0%}" if share else f"{x:.2f}" for x in numbers)
        said.append(f"{way} {own}, random sets {median} in the median, from {low} to {high}")
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    if share:
        percent_axis(axes.xaxis)
    figure.legend(loc="outside upper left", ncols=3)
    figure.alt_text = f"{xlabel}; reasoning-focus heads against random sets: {'; '.join(said)}."
    return figure
