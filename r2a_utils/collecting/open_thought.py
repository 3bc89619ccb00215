"""An open thought: whether a text that is being written has closed its own, and what closes it.

Budget forcing: a model that thinks for too long, or ends without having closed its thought, is made
to close it and goes on to its answer. This file knows tags and tokens. It runs no model.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.texts.tags import Tags
from r2a_utils.texts.tokens import encode


class OpenThought:
    """The thought of one text: whether it is still open, and the tokens that close it.

    Tags are looked for in the text: a model without tag tokens writes them in pieces.
    """

    def __init__(self, model: ReasoningModel, condition: str, close_after: int | None) -> None:
        self._model, self._limit = model, close_after
        self._open = close_after is not None and condition == "with_reasoning"
        self._closing: list[int] = []
        self.closed_by_us = False

    def next_token(self, written: list[int], chosen: int) -> int:
        """The token that stands behind `written`: the one that the model chose, or one of ours."""
        ends = chosen in self._model.end_ids
        if self._open and (ends or len(written) >= self._limit):
            self._close(self._model.tokenizer.decode(written), ends)
        return self._closing.pop(0) if self._closing else chosen

    def _close(self, text: str, ends: bool) -> None:
        tags = self._model.tags
        if tags.close in text:
            self._open = False
        elif ends or not begins_to_close(text, tags):
            self._closing += closing_ids(self._model.tokenizer, tags, text)
            self._open, self.closed_by_us = False, True


def begins_to_close(text: str, tags: Tags) -> bool:
    """Whether a text ends within a closing tag, of which the next tokens may be the rest."""
    return any(text.endswith(tags.close[:n]) for n in range(1, len(tags.close)))


def closing_ids(tokenizer: PreTrainedTokenizerBase, tags: Tags, text: str) -> list[int]:
    """The tokens that close a thought whose text so far is given: a line, the tag, a blank line."""
    line = "" if text.endswith(tags.before_close) else tags.before_close
    pieces = (line, tags.close, tags.after_close)
    return [token for piece in pieces for token in encode(tokenizer, piece)]
