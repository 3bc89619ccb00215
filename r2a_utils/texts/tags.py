"""Tags: the marks that a model writes around its thought, and what stands between them and text.

A loaded model carries its own (`ReasoningModel.tags`), found from its template and its vocabulary.
Whoever writes or cuts a text takes them as an argument; nothing else in the package spells a tag.
This file knows how the families spell theirs. It tokenises nothing and renders no template.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace


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

    def __post_init__(self) -> None:
        if not self.open.strip() or not self.close.strip() or self.open == self.close:
            raise ValueError(
                f"tags {self.open!r} and {self.close!r}: both must be texts, and must differ."
            )

    def around(self, thought: str) -> str:
        """A whole thought, up to where the answer begins.

        `thought` ends in its own line break (`before_close`), if it has one.
        """
        return self.open + self.after_open + thought + self.close + self.after_close


R1_TAGS = Tags()

# Mistral's, of Magistral from 2507 on and of Ministral 3.
SQUARE_TAGS = Tags("[THINK]", "[/THINK]", after_open="", before_close="", after_close="")

# How the families spell their tags; the first is what a model has of which nothing is known.
KNOWN_TAGS = (
    R1_TAGS,
    SQUARE_TAGS,
    Tags("<seed:think>", "</seed:think>", after_open="", before_close="", after_close=""),
    Tags("<thought>", "</thought>"),
    Tags(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        after_open="",
        before_close="",
        after_close="",
    ),
)


def find_tags(template: str, vocabulary: Container[str]) -> Tags:
    """The tags that a chat template names, or else those that are tokens of the vocabulary.

    Where a template names several, those that are tokens too come first. A model that has neither
    gets `<think>` and `</think>`, in as many tokens as they take. Loading a model asks so.
    """
    named = [tags for tags in KNOWN_TAGS if tags.open in template or tags.close in template]
    whole = [tags for tags in KNOWN_TAGS if tags.open in vocabulary and tags.close in vocabulary]
    return next(iter([tags for tags in named if tags in whole] or named or whole), R1_TAGS)


def read_tags(given: Mapping[str, str]) -> Tags:
    """Tags as a run's parameters write them: `{open: "[THINK]", close: "[/THINK]"}`.

    White space beside a known tag is what its model writes, beside another what the R1 models do,
    unless it is given as well. Raises ValueError for other entries, and for tags that are empty or
    equal.
    """
    if not {"open", "close"} <= set(given) <= set(Tags.__dataclass_fields__) or not all(
        isinstance(text, str) for text in given.values()
    ):
        raise ValueError(
            f'tags are {dict(given)!r}; write {{open: "[THINK]", close: "[/THINK]"}}, and if the '
            "model writes other white space beside them than R1, after_open, before_close and "
            "after_close."
        )
    known = [tags for tags in KNOWN_TAGS if tags.open == given["open"]]
    return replace(known[0] if known else R1_TAGS, **given)


def tags_in(text: str) -> Tags | None:
    """The known tags of which a closing one stands in a text, the first one there; None for none.

    For a text of which it is not known what model wrote it: a judge's reply, a user's file.
    """
    closed = [tags for tags in KNOWN_TAGS if tags.close in text]
    return min(closed, key=lambda tags: text.index(tags.close), default=None)


def respelt(text: str, tags: Tags, written: Tags = R1_TAGS) -> str:
    """A text that was written with R1's tags, or others, as a model with these tags writes it."""
    for theirs, ours in ((written.open, tags.open), (written.close, tags.close)):
        text = text.replace(theirs, ours)
    return text


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
