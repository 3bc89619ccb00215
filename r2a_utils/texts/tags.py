"""Tags: the marks that a model writes around its thought, and what stands between them and text.

A loaded model carries its own (`ReasoningModel.tags`). Whoever writes or cuts a text takes them as
an argument; nothing else in the package spells a tag. This file knows neither tokens nor templates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tags:
    r"""The marks around a thought, and the white space that their model writes beside them.

    `open` and `close` are texts of any length, and of any number of tokens: `<think>`, `[THINK]`,
    or the head of a channel. `after_open`, `before_close` and `after_close` are what stands between
    a mark and its neighbour. The default is what the R1 models write::

        <think>\nSo it is 7.\n</think>\n\nThe answer is 7.
    """

    open: str = "<think>"
    close: str = "</think>"
    after_open: str = "\n"
    before_close: str = "\n"
    after_close: str = "\n\n"

    def opening(self) -> tuple[str, str]:
        """The pieces that open a thought; each is tokenised apart, so that a tag never merges."""
        return self.open, self.after_open

    def around(self, thought: str) -> tuple[str, str, str, str]:
        """The pieces of a whole thought, up to where the answer begins; tokenised apart as well.

        `thought` ends in its own line break (`before_close`), if it has one.
        """
        return self.open, self.after_open + thought, self.close, self.after_close


R1_TAGS = Tags()

# What can be wrong with what a model wrote, by the word that counts it.
FAULTS = {
    "no_end": "has no {close}: its reasoning was cut off, or never closed; raise "
    'max_new_tokens, or pass on_unfinished="drop" to leave such traces out.',
    "several_ends": "has several {close}; where its reasoning ends is not known. Leave it out.",
    "reopened": "closes, with {close}, a thought that its prompt had closed. Leave it out.",
    "no_reasoning": "has an empty reasoning; leave such traces out.",
    "no_answer": "has an empty answer; leave such traces out.",
}


class MalformedError(ValueError):
    """A completion that is not well formed; `fault` is its word in `FAULTS`."""

    def __init__(self, fault: str, tags: Tags, name: str = "the trace") -> None:
        super().__init__(f"{name} {FAULTS[fault].format(close=tags.close)}")
        self.fault = fault


def split_completion(
    text: str, condition: str, tags: Tags = R1_TAGS, name: str = "the trace"
) -> tuple[str, str]:
    """The reasoning and the answer in what a model wrote behind its prompt.

    Well formed is, with reasoning, a reasoning, one closing tag and an answer; without, where the
    prompt has closed the reasoning already, an answer and no closing tag. The reasoning is then
    empty. This is the one definition: the funnel counts by it, and traces are cut by it. What the
    prompt holds, tags or not, plays no part. Raises MalformedError, a ValueError that says which
    rule fails and what to do; `name` is what it calls the text. Stages 01 and 02 count the faults.
    """
    ends = text.count(tags.close)
    if condition == "without_reasoning":
        reasoning, answer = "", text
        if ends:
            raise MalformedError("reopened", tags, name)
    else:
        if ends != 1:
            raise MalformedError("several_ends" if ends else "no_end", tags, name)
        reasoning, _, answer = text.partition(tags.close)
        if not reasoning.strip():
            raise MalformedError("no_reasoning", tags, name)
    if not answer.strip():
        raise MalformedError("no_answer", tags, name)
    return reasoning, answer


def answer_part(text: str, condition: str, tags: Tags = R1_TAGS) -> str | None:
    """The answer in a completion's text, or None where it is not well formed (`split_completion`).

    Stage 02 grades it.
    """
    try:
        return split_completion(text, condition, tags)[1]
    except MalformedError:
        return None
