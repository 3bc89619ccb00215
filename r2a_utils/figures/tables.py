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
    "mcnemar_p": "p, McNemar's test",
    "t_p": "p, t-test",
    "holm_p": "p, Holm's correction",
    "rho": "rank correlation",
    "p_familywise": "p, best of all heads",
    "p_groups": "p, groups",
    "p_central": "p, nearness to the middle",
    "sink_free": "sink-free",
    "length_matched": "at equal length",
    "n_tokens": "tokens",
    "spearman": "rank correlation",
    "n_followed": "answers that follow",
    "said_followed": "said, of these",
    "unhinted": "without the hint",
    "finished_pairs": "finished pairs",
    "unfinished_wrong": "unfinished is wrong",
}
MISSING = "–"
SMALLEST_P = 0.001  # a smaller one stands as a bound, as it does in prose


def reading_table(frame: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A frame as a page shows it: numbers rounded to `digits`, and words for names.

    `WORDS` has the words; in other names an underscore becomes a space. Columns layer and head
    become the head's name (`L3.H1`) and, where the rows have no names of their own, name them; rows
    that have none are not counted. The ends of an interval stand in one column, or behind their
    value (`x`, `x_low`, `x_high`). In the column n, how many cases a row's means run over, those
    that are too few for one are flagged. What is missing is a dash.
    """
    shown = _with_intervals(frame.apply(_short, digits=digits), frame, digits)
    if "n" in frame and frame["n"].map(few).any():
        counts = [MISSING if pd.isna(n) else f"{n:g}{few(n)}" for n in frame["n"]]
        shown = shown.assign(n=counts)
    nameless = isinstance(frame.index, pd.RangeIndex)
    if {"layer", "head"} <= set(shown):
        pairs = zip(frame["layer"], frame["head"], strict=True)
        shown = shown.assign(head=[head_name(*pair) for pair in pairs]).drop(columns="layer")
        shown = shown.set_index("head") if nameless else shown
    elif nameless:
        shown = shown.set_axis([""] * len(shown))
    shown = shown.rename(columns=_in_words, index=_in_words)
    for axis in ("index", "columns"):
        names = [_in_words(name) for name in getattr(shown, axis).names]
        shown = shown.rename_axis(**{axis: names})
    if shown.columns.names == [None] and shown.index.nlevels == 1:
        # the name of the rows in the corner, and not in a line of its own
        shown = shown.rename_axis(index=None, columns=shown.index.name)
    return shown


def _short(column: pd.Series, digits: int) -> pd.Series:
    """The column as numbers where these read well, otherwise as texts."""
    there = column.dropna()
    if pd.api.types.is_bool_dtype(column):
        return column.map({True: "yes", False: "no"})
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype(object).where(column.notna(), MISSING)
    if _is_p(column.name):
        return column.map(lambda p: _p_text(p, digits))
    if (there % 1 == 0).all():
        digits = 0
    if len(there) < len(column) or (digits and (there < 0).any()):
        return column.map(lambda value: _text(value, digits))
    return column.round(digits) if digits else column.astype(int)


def _with_intervals(shown: pd.DataFrame, frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Both ends of each interval in one column."""
    for name in [name for name in frame if isinstance(name, str)]:
        ends = [f"{name}_low", f"{name}_high"]
        if set(ends) <= set(frame):
            rows = zip(*(frame[each] for each in (name, *ends)), strict=True)
            texts = [_behind(_text(value, digits), _ends(*two, digits)) for value, *two in rows]
            shown = shown.assign(**{name: texts}).drop(columns=ends)
    for low, high in (("ci_low", "ci_high"), ("low", "high")):
        if {low, high} <= set(frame):
            texts = [_ends(*two, digits) for two in zip(frame[low], frame[high], strict=True)]
            shown = shown.assign(**{low: texts}).drop(columns=high)
            shown = shown.rename(columns={low: "interval"})
    return shown


def _ends(low: float, high: float, digits: int) -> str:
    gap = pd.isna(low) or pd.isna(high)
    return MISSING if gap else f"{_text(low, digits)} to {_text(high, digits)}"


def _behind(value: str, interval: str) -> str:
    return value if interval == MISSING else f"{value} ({interval})"


def _text(value: float, digits: int) -> str:
    return MISSING if pd.isna(value) else f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _is_p(name: Any) -> bool:
    return isinstance(name, str) and (name == "p" or name.endswith("_p") or name.startswith("p_"))


def _p_text(p: float, digits: int) -> str:
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else _text(p, max(digits, 3))


def _in_words(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    return WORDS.get(name, name.replace("_", " "))
