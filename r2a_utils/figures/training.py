"""The figure of the bundled model's making: what it had learnt after how many tokens."""

from __future__ import annotations

import pandas as pd

from r2a_utils.figures.answers import MARKERS, conditions_of
from r2a_utils.figures.style import (
    CONDITION_COLOURS,
    CONDITION_LABELS,
    INK,
    BookFigure,
    percent_axis,
    require_columns,
    styled,
)


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
    for condition in conditions_of(checks):
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
        + ", ".join(f"{final[c]:.0%} {CONDITION_LABELS[c]}" for c in conditions_of(checks))
        + "."
    )
    return figure
