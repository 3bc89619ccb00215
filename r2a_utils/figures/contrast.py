"""A contrast pair as text: both sides in full, what differs marked. Tokens in, HTML out."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from r2a_utils.figures.style import SEGMENT_COLOURS, SEGMENT_LABELS, plain_tag
from r2a_utils.figures.views import asset
from r2a_utils.texts.trace import Trace


@dataclass(frozen=True)
class PairTexts:
    """Two texts side by side, or one below the other where there is no room; shows itself."""

    clean: Trace
    corrupted: Trace
    alignment: Mapping[int, int] = field(repr=False)

    def differing(self) -> tuple[set[int], set[int]]:
        """The positions of either side that have no partner, or another token as theirs.

        Behind the alignment, whose end is where the answers begin, tokens are compared in order.
        """
        end, other_end = max(self.alignment.items(), default=(-1, -1))
        behind = zip(
            range(end + 1, len(self.clean)),
            range(other_end + 1, len(self.corrupted)),
            strict=False,
        )
        alike = {
            (place, other)
            for place, other in [*self.alignment.items(), *behind]
            if self.clean.token_ids[place] == self.corrupted.token_ids[other]
        }
        return (
            set(range(len(self.clean))) - {place for place, _ in alike},
            set(range(len(self.corrupted))) - {other for _, other in alike},
        )

    def _repr_html_(self) -> str:
        sides = zip(
            ("Clean", "Corrupted"), (self.clean, self.corrupted), self.differing(), strict=True
        )
        columns = "".join(
            f'<div><p class="r2a-title">{name}</p>{_segments(trace, marked)}</div>'
            for name, trace, marked in sides
        )
        return (
            f'<div class="r2a-view r2a-pair"><style>{asset("views.css")}</style>'
            f'<div class="r2a-sides">{columns}</div></div>'
        )


def pair_texts(clean: Trace, corrupted: Trace, alignment: Mapping[int, int]) -> PairTexts:
    """Both traces of a contrast pair in full, their differing tokens marked.

    alignment: clean position → corrupted position up to the answers, as `ContrastPair` has it.
    Stage 05.
    """
    return PairTexts(clean, corrupted, alignment)


def _segments(trace: Trace, marked: set[int]) -> str:
    """The segments of a trace one below the other; a tag's own text says which it is."""
    found = []
    for name, span in trace.segments.items():
        text = _marked(trace, span, marked)
        tag = span.stop - span.start == 1 and name != "reasoning"
        label = "" if tag else f"<b>{SEGMENT_LABELS[name]}</b>"
        found.append(
            f'<section class="r2a-segment{" r2a-tag" if tag else ""}" data-segment="{name}" '
            f'style="border-color:{SEGMENT_COLOURS[name]}">{label}<div>{text}</div></section>'
        )
    return "".join(found)


def _marked(trace: Trace, span: slice, marked: set[int]) -> str:
    """The text of a segment, each run of marked tokens in one mark."""
    pieces = []
    for differs, places in groupby(range(span.start, span.stop), marked.__contains__):
        text = html.escape("".join(plain_tag(trace.tokens[place]) for place in places))
        pieces.append(f"<mark>{text}</mark>" if differs else text)
    return "".join(pieces)
