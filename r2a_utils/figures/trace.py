"""Figures of one trace: its segments, its text shaded by what is read, everything on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from r2a_utils.figures.attention import AttentionPanel, draw_map
from r2a_utils.figures.style import (
    INK,
    PAGE_WIDTH,
    SEGMENT_COLOURS,
    SEGMENT_LABELS,
    BookFigure,
    segment_legend,
    show_token,
    styled,
)

if TYPE_CHECKING:
    from r2a_utils.texts.trace import Cue


@styled
def trace_anatomy(traces: Mapping[str, Mapping[str, slice]]) -> BookFigure:
    """The six segments of a few traces as bands of tokens.

    traces: label → segments (name → slice). Notebook 00.
    """
    figure = BookFigure(0.9 + 0.42 * len(traces))
    axes = figure.subplots()
    longest = max(span.stop for segments in traces.values() for span in segments.values())
    for row, segments in enumerate(traces.values()):
        for name, span in segments.items():
            length = span.stop - span.start
            axes.barh(row, length, left=span.start - 0.5, height=0.64, color=SEGMENT_COLOURS[name])
            if length > 0.05 * longest:
                axes.text(
                    span.start + length / 2 - 0.5,
                    row,
                    f"{length}",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
    axes.set_xlim(-0.5, longest + 0.5)
    axes.set_yticks(range(len(traces)), list(traces))
    axes.set_ylim(len(traces) - 0.5, -0.5)
    axes.set_xlabel("Token position")
    drawn = {name for segments in traces.values() for name in segments}
    segment_legend(figure, [s for s in SEGMENT_LABELS if s in drawn], loc="outside upper left")
    figure.alt_text = (
        "Segments of traces in tokens. "
        + "; ".join(
            f"{label}: "
            + ", ".join(f"{SEGMENT_LABELS[n]} {s.stop - s.start}" for n, s in segments.items())
            for label, segments in traces.items()
        )
        + "."
    )
    return figure


@styled
def coloured_tokens(
    tokens: Sequence[str],
    weights: Sequence[float],
    segments: Mapping[str, slice],
    cues: Sequence[Cue] = (),
    title: str = "",
) -> BookFigure:
    """A trace's text, each token shaded by its weight in the colour of its segment.

    tokens and weights: one each per token, weights ≥ 0 (for example the mean attention that the
    answer pays to it); the darkest shade is the 99th percentile. Cues are underlined. Notebook 04.
    """
    figure = BookFigure(
        0.35 + _LINE / 72 * _wrapped_lines(tokens, PAGE_WIDTH - 0.2) + (0.25 if title else 0)
    )
    axes = figure.subplots()
    _draw_tokens(axes, tokens, weights, segments, cues, width=PAGE_WIDTH - 0.2)
    axes.set_title(title)
    segment_legend(figure, [s for s in SEGMENT_COLOURS if s in segments], loc="outside lower left")
    order = np.argsort(np.asarray(weights, dtype=float))[::-1][:5]
    figure.alt_text = (
        (f"{title}: " if title else "")
        + "tokens shaded by weight; the five heaviest are "
        + ", ".join(f"“{show_token(tokens[i])}” at {i} ({weights[i]:.2g})" for i in order)
        + "."
    )
    return figure


_FONT, _LINE = 8.0, 14.0  # points
_CHARACTER = 0.602 * _FONT  # advance of DejaVu Sans Mono


def _wrap(tokens: Sequence[str], width: float):
    """Yield (index, text, line, column) of every token in a block `width` inches wide."""
    columns = int(width * 72 / _CHARACTER)
    line = column = 0
    for index, piece in enumerate(tokens):
        breaks = "\n" in piece
        text = piece.replace("\t", " ").replace("\n", "" if piece.strip("\n") else "⏎")
        if piece.startswith("<｜") or len(text) > columns:
            text = show_token(piece, longest=columns)
        if column + len(text) > columns:
            line, column = line + 1, 0
        yield index, text, line, column
        column += len(text)
        if breaks:
            line, column = line + 1, 0


def _wrapped_lines(tokens: Sequence[str], width: float) -> int:
    return 1 + max((line for _, _, line, _ in _wrap(tokens, width)), default=0)


def _draw_tokens(axes: Axes, tokens, weights, segments, cues, width: float) -> None:
    if len(tokens) != len(weights):
        raise ValueError(f"{len(tokens)} tokens but {len(weights)} weights")
    weights = np.asarray(weights, dtype=float)
    ceiling = max(float(np.quantile(weights, 0.99)), 1e-12)
    segment_of = {i: name for name, span in segments.items() for i in range(span.start, span.stop)}
    cue_positions = {cue.position for cue in cues}
    lines = _wrapped_lines(tokens, width)
    for index, text, line, column in _wrap(tokens, width):
        x, y = column * _CHARACTER, (lines - line) * _LINE
        shade = matplotlib.colors.to_rgba(
            SEGMENT_COLOURS[segment_of[index]], 0.06 + 0.94 * min(1.0, weights[index] / ceiling)
        )
        axes.add_patch(
            Rectangle(
                (x, y - _LINE * 0.92),
                len(text) * _CHARACTER,
                _LINE * 0.86,
                facecolor=shade,
                linewidth=0,
            )
        )
        axes.text(
            x,
            y - _LINE * 0.5,
            text,
            family="DejaVu Sans Mono",
            fontsize=_FONT,
            va="center_baseline",
            color=INK,
        )
        if index in cue_positions:
            axes.plot(
                [x + _CHARACTER * (len(text) - len(text.lstrip())), x + len(text) * _CHARACTER],
                [y - _LINE * 0.9] * 2,
                color=INK,
                linewidth=1.2,
            )
    axes.set_xlim(0, width * 72)
    axes.set_ylim(0, lines * _LINE)
    axes.axis("off")


@styled
def one_trace(
    tokens: Sequence[str],
    weights: np.ndarray,
    segments: Mapping[str, slice],
    cues: Sequence[Cue] = (),
    title: str = "",
) -> BookFigure:
    """One trace on one page: its text shaded by what the answer reads, that reading along the
    trace, and the map.

    tokens: T of them. weights: [answer token, key], mean over the Reasoning-Focus Heads.
    Notebook 04.
    Raises ValueError for weights of another shape.
    """
    weights = np.asarray(weights, dtype=float)
    answer = segments["answer"]
    expected = (answer.stop - answer.start, len(tokens))
    if weights.shape != expected:
        raise ValueError(
            f"weights must be [answer tokens, tokens] = {expected}, got {weights.shape}"
        )
    read = weights.mean(axis=0)
    text_height = 0.3 + _LINE / 72 * _wrapped_lines(tokens, PAGE_WIDTH - 0.2)
    figure = BookFigure(text_height + 4.2)
    above, below = figure.subfigures(2, 1, height_ratios=[text_height, 4.2])
    text = above.subplots()
    profile, attention = below.subplots(2, 1, height_ratios=[1, 2], sharex=True)
    _draw_tokens(text, tokens, read, segments, cues, width=PAGE_WIDTH - 0.2)
    text.set_title(title)
    for name, span in segments.items():
        profile.bar(
            range(span.start, span.stop), read[span], width=1.0, color=SEGMENT_COLOURS[name]
        )
    for cue in cues:
        profile.axvline(cue.position, color=INK, linestyle=(0, (3, 2)), linewidth=0.9)
    profile.set_ylabel("attention of the\nanswer (mean)")
    draw_map(attention, AttentionPanel(weights, answer.start, segments, cues))
    attention.set_xlabel("Token position")
    attention.set_ylabel("answer token")
    segment_legend(below, list(segments), loc="outside lower left")
    shares = ", ".join(f"{SEGMENT_LABELS[n]} {read[s].sum():.0%}" for n, s in segments.items())
    figure.alt_text = (
        f"{title or 'One trace'}: its text shaded by the attention that answer tokens pay (by "
        f"segment: {shares}), that attention along the trace, and the map of answer tokens against "
        f"all tokens; {len(cues)} cues marked."
    )
    return figure
