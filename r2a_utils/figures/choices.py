"""Pieces to choose from: an exercise that a reader does in the page, without a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from r2a_utils.figures.style import plain_tag
from r2a_utils.figures.views import View


def pick_view(question: str, pieces: Sequence[str], right: Iterable[int], see: str) -> View:
    """Choose some of the pieces, have the choice checked, and then see.

    right: the places of the pieces that belong. see: what is said of them once they are found or
    shown. Raises ValueError where none belongs or a place is none of a piece. Stages 00 to 02.
    """
    places = sorted({int(place) for place in right})
    if not places or places[0] < 0 or places[-1] >= len(pieces):
        raise ValueError(f"{places} are no places among {len(pieces)} pieces")
    shown = [plain_tag(piece) for piece in pieces]
    data = {"question": question, "pieces": shown, "right": places, "see": see}
    return View("pick", "In the page, without a kernel", data, f"{question} {' | '.join(shown)}")
