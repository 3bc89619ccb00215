"""Tables for a reader: the names of a frame in words, its numbers short.

What is computed keeps the names that code can use (`ci_low`, `end_think`); what a page shows goes
through `reading_table`. This file knows names, and nothing of what the numbers mean.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from r2a_utils.figures.style import CONDITION_LABELS, SEGMENT_LABELS, head_name
from r2a_utils.stats import few

WORDS = {
    **SEGMENT_LABELS,
    **CONDITION_LABELS,
    "ci_low": "interval from",
    "ci_high": "interval to",
    "p_familywise": "p, best of all heads",
    "p_groups": "p, groups",
    "sink_free": "sink-free",
    "length_matched": "at equal length",
}
MISSING = "–"


def reading_table(frame: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A frame as a page shows it: numbers rounded to `digits`, and words for names.

    `WORDS` has the words; in other names an underscore becomes a space. Columns layer and head
    become the head's name (`L3.H1`) and, where the rows have no names of their own, name them. In
    the column n, how many cases a row's means run over, those that are too few for one are flagged.
    What is missing is a dash.
    """
    shown = frame.round(digits).apply(_with_dashes, digits=digits)
    if "n" in frame and frame["n"].map(few).any():
        counts = [MISSING if pd.isna(n) else f"{n:g}{few(n)}" for n in frame["n"]]
        shown = shown.assign(n=counts)
    if {"layer", "head"} <= set(shown):
        pairs = zip(shown["layer"], shown["head"], strict=True)
        shown = shown.assign(head=[head_name(*pair) for pair in pairs]).drop(columns="layer")
        if isinstance(frame.index, pd.RangeIndex):
            shown = shown.set_index("head")
    shown = shown.rename(columns=_in_words, index=_in_words)
    for axis in ("index", "columns"):
        names = [_in_words(name) for name in getattr(shown, axis).names]
        shown = shown.rename_axis(**{axis: names})
    return shown


def _with_dashes(column: pd.Series, digits: int) -> pd.Series:
    """The column as it is where nothing is missing; otherwise as texts, a dash for each gap."""
    there = column.dropna()
    if len(there) == len(column):
        return column
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype(object).where(column.notna(), MISSING)
    places = 0 if (there % 1 == 0).all() else digits
    return column.map(f"{{:.{places}f}}".format).where(column.notna(), MISSING)


def _in_words(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    return WORDS.get(name, name.replace("_", " "))
