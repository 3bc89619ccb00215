"""Traces: one tokenised prompt, reasoning and answer, with its segments.

This file knows where the segments of a trace lie, where its sentences end and where it reflects
upon itself. Tags are found in the text, from the prompt's end, so that a model whose vocabulary
writes them in several tokens works like one with a single tag token. It knows tokenizers. It knows
no model and no right answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.boxed import boxes
from r2a_utils.texts.tags import R1_TAGS, MalformedError, Tags, split_completion
from r2a_utils.texts.tokens import check_bos, encode, first_ids, token_texts

SEGMENTS = ("bos", "prompt", "think", "reasoning", "end_think", "answer")
# Between the first two, in a trace whose prompt has them: the system message and the worked
# examples. They hold the reasoning of other problems.
EXAMPLES = "examples"
CONDITIONS = ("with_reasoning", "without_reasoning")

_STEM = "The answer is \\boxed{"
# What is written after `</think>` to force an answer: the blank line and the box with which R1's
# models and r2a-tiny begin their own.
STEM = R1_TAGS.after_close + _STEM

# Beginnings and ends of sentence that a stored text may carry over from the model that wrote it.
_FOREIGN_BOS = ("<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<|endoftext|>", "<s>")
_FOREIGN_EOS = (
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
)

# Words of self-reflection, as the paper and NoWait (2506.08343) list them; longest first. Where a
# blank stands, a hyphen may ("double-check").
CUES = (
    "let me double check", "let me verify", "let me check", "on second thought", "alternatively",
    "double check", "actually", "however", "wait", "hmm", "but",
)  # fmt: skip
_CUE = re.compile(
    r"\b(" + "|".join(cue.replace(" ", "[ -]") for cue in CUES) + r")\b", re.IGNORECASE
)

# A sentence ends at a line break, at a full stop, question mark or exclamation mark before white
# space, and at a full-width one. A line break after it belongs to it; a blank does not, as it is
# mostly the first character of the next word's token.
_SENTENCE_END = re.compile(
    r"(?:[.?!]+[)\"'\]]*(?=\s)|[。！？]+[)\"'」』”’）]*)(?P<line_break>\s*\n)?|\n+"
)
# A full stop ends none behind the number of a list's item and behind these, of which the second
# ones stand before numbers alone; nor do the dots of "1, 2, ..., n" and "1 + 2 + ... + n".
_NO_END_BEHIND = re.compile(
    r"(?:^|\n)[ \t]*\(?\d{1,3}$|\b(?:[Ee]\.g|[Ii]\.e|cf|vs|Dr|Mrs?|Ms|Prof)$"
)
_BEFORE_NUMBERS = re.compile(r"\b(?:[Ff]igs?|[Ee]qs?|Sec|Ch|Thm|pp)$")
_LONGEST_BEHIND = 16  # characters that the two look back


@dataclass(frozen=True)
class Cue:
    """A self-reflection cue: its word in lower case and the position of its first token."""

    word: str
    position: int


@dataclass(frozen=True)
class Trace:
    """One tokenised prompt + reasoning + answer.

    `token_ids` run from BOS to the last token of the answer; the final end-of-sentence token is
    left out. `tokens` are their texts: joined, they are the text. `segments` maps each of
    `SEGMENTS` to its slice; the six slices tile the sequence, and each holds at least one token.
    Worked examples in the prompt are a seventh, `EXAMPLES`, between the first two.
    `meta` holds what is known of the problem (family, steps, subject, …).
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    segments: dict[str, slice]
    problem_id: str = ""
    condition: str = "with_reasoning"
    model: str = ""
    sample: int = 0
    meta: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def text(self) -> str:
        return "".join(self.tokens)

    def segment_text(self, segment: str) -> str:
        """The text of one segment."""
        return "".join(self.tokens[self.segments[segment]])

    @property
    def reasoning_text(self) -> str:
        return self.segment_text("reasoning")

    @property
    def answer_text(self) -> str:
        return self.segment_text("answer")

    @property
    def prompt_length(self) -> int:
        """Tokens that were put before the model: up to its reasoning, or without one its answer."""
        own = "answer" if self.condition == "without_reasoning" else "reasoning"
        return self.segments[own].start

    @property
    def examples_stop(self) -> int:
        """Where the worked examples of the prompt end; 0 where it has none."""
        return self.segments[EXAMPLES].stop if EXAMPLES in self.segments else 0

    @classmethod
    def from_text(
        cls, text: str, tokenizer: PreTrainedTokenizerBase, tags: Tags = R1_TAGS, **fields
    ) -> Trace:
        """Tokenise a whole text, from BOS to EOS, with both tags, as the paper's files store it.

        A BOS or EOS of another model is replaced by the tokenizer's own. The pieces between the
        tags are tokenised apart, so that a tag never merges with its neighbours. `fields` are the
        remaining fields of a trace. Raises ValueError as `from_ids` does, without a prompt's
        length. Stage 00 explains the segments.
        """
        name = _name(fields)
        for mark in (tokenizer.bos_token, *_FOREIGN_BOS):
            if mark and text.startswith(mark):
                text = text[len(mark) :]
                break
        text = text.rstrip("\n")
        for mark in (tokenizer.eos_token, *_FOREIGN_EOS):
            if mark and text.endswith(mark):
                text = text[: -len(mark)]
                break
        for mark in (tokenizer.bos_token, *_FOREIGN_BOS):
            if mark and text.startswith(mark):
                raise ValueError(f"{name} begins with two BOS; store the text with one.")
        opened, closed = _only_tags(text, tags, name)
        behind = opened + len(tags.open), closed + len(tags.close)
        places = (0, opened, behind[0], closed, behind[1], len(text))
        ids = first_ids(tokenizer)
        borders = [len(ids)]
        for start, stop in pairwise(places):
            ids += encode(tokenizer, text[start:stop])
            borders.append(len(ids))
        # Without a BOS of its own, a model reads the prompt's first token in that place.
        return cls._cut(ids, token_texts(ids, tokenizer), [1, *borders[1:-1]], name, **fields)

    @classmethod
    def from_ids(
        cls,
        ids: list[int],
        tokenizer: PreTrainedTokenizerBase,
        tags: Tags = R1_TAGS,
        prompt_length: int | None = None,
        examples_stop: int = 0,
        **fields,
    ) -> Trace:
        """Segment a tokenised trace; `fields` are the remaining fields of a trace.

        `prompt_length` is how many of the tokens were put before the model. Tags are then looked
        for from the prompt's end: a system prompt or a question may hold tags of its own. Without
        it, the text may hold each tag once. Tags are found in the text, so that a tag of several
        tokens may merge with its neighbours: a token that holds a part of a tag belongs to the tag,
        unless the reasoning is that token alone, as in an empty thought. `examples_stop` is where
        the prompt's worked examples end, 0 where it has none.

        Raises ValueError, with what to do, when the trace does not start with exactly one BOS, its
        prompt does not end in an opened (without reasoning, a closed) thought, what follows is not
        well formed (MalformedError of `split_completion`), or a segment is empty. Stage 00 explains
        the segments.
        """
        name, ids = _name(fields), [int(i) for i in ids]
        if ids and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]
        check_bos(ids, tokenizer, name, prompt_length)
        tokens = token_texts(ids, tokenizer)
        text = "".join(tokens)
        if prompt_length is None:
            opened, closed = _only_tags(text, tags, name)
        else:
            prompt = "".join(tokens[:prompt_length])
            condition = fields.get("condition", "with_reasoning")
            opened, closed = _own_tags(prompt, text[len(prompt) :], condition, tags, name)
        ends = np.cumsum([len(token) for token in tokens])
        borders = [1]
        for start, tag in ((opened, tags.open), (closed, tags.close)):
            borders.append(int(np.searchsorted(ends, start, side="right")))
            borders.append(int(np.searchsorted(ends, start + len(tag), side="left")) + 1)
        if borders[2] == borders[3] and ends[borders[2] - 1] > opened + len(tags.open):
            borders[2] -= 1  # all of the reasoning is white space that the tag's last token holds
        if examples_stop:
            borders.insert(1, examples_stop)
        return cls._cut(ids, tokens, borders, name, **fields)

    @classmethod
    def _cut(
        cls, ids: list[int], tokens: list[str], borders: list[int], name: str, **fields
    ) -> Trace:
        """`borders`: where (examples,) prompt, tag, reasoning, tag and answer begin, in tokens."""
        names = SEGMENTS if len(borders) < len(SEGMENTS) else (SEGMENTS[0], EXAMPLES, *SEGMENTS[1:])
        borders = [0, *borders, len(ids)]
        segments = {s: slice(*ends) for s, ends in zip(names, pairwise(borders), strict=True)}
        for segment in ("prompt", "reasoning", "answer"):
            if segments[segment].start >= segments[segment].stop:
                raise ValueError(f"{name} has an empty {segment}; leave such traces out.")
        if not "".join(tokens[segments["answer"]]).strip():
            raise ValueError(f"{name} has an empty answer; leave such traces out.")
        return cls(tuple(ids), tuple(tokens), segments, **fields)


def _name(fields: dict) -> str:
    return f"trace {fields['problem_id']!r}" if fields.get("problem_id") else "the trace"


def _only_tags(text: str, tags: Tags, name: str) -> tuple[int, int]:
    """Where the tags start in a text of which it is not known where its prompt ends."""
    opened = text.find(tags.open)
    if opened < 0:
        raise ValueError(f"{name} has no {tags.open}; start the reasoning with it in the prompt.")
    closed = text.find(tags.close, opened + len(tags.open))
    if closed < 0:
        raise MalformedError("no_end", tags, name)
    for tag, count in (
        (tags.open, text.count(tags.open, 0, closed)),
        (tags.close, text.count(tags.close)),
    ):
        if count > 1:
            raise ValueError(
                f"{name} has {count} {tag}; which of them is the reasoning's is not known. Say "
                "where the prompt ends, Trace.from_ids(…, prompt_length=…), or leave it out."
            )
    return opened, closed


def _own_tags(prompt: str, written: str, condition: str, tags: Tags, name: str) -> tuple[int, int]:
    """Where the tags of the thought start, looked for from the prompt's end."""
    reasoning, _ = split_completion(written, condition, tags, name)
    if condition == "without_reasoning":
        closed = prompt.rfind(tags.close)
        opened = prompt.rfind(tags.open, 0, max(closed, 0))
        if opened < 0 or prompt[closed + len(tags.close) :].strip():
            raise ValueError(f"the prompt of {name} does not end in a closed thought; write one.")
        return opened, closed
    opened = prompt.rfind(tags.open)
    if opened < 0 or prompt[opened + len(tags.open) :].strip():
        raise ValueError(f"the prompt of {name} does not end in {tags.open}; put it there.")
    return opened, len(prompt) + len(reasoning)


def sentences(trace: Trace) -> list[slice]:
    """Token slices of the reasoning's sentences; they tile the reasoning.

    A token that holds the end of one sentence and the start of the next belongs to the first.
    """
    start, stop = trace.segments["reasoning"].start, trace.segments["reasoning"].stop
    text = trace.reasoning_text
    borders, position, pending = [start], 0, sentence_ends(text)
    for i in range(start, stop):
        position += len(trace.tokens[i])
        if pending and position >= pending[0]:
            pending = [e for e in pending if e > position]
            borders.append(i + 1)
    if borders[-1] != stop:
        borders.append(stop)
    return list(map(slice, borders[:-1], borders[1:]))


def sentence_texts(text: str) -> list[str]:
    """The sentences of a text that has no tokens yet; joined, they are the text."""
    borders = [0, *sentence_ends(text), len(text)]
    return [text[start:stop] for start, stop in pairwise(borders) if start < stop]


def sentence_ends(text: str) -> list[int]:
    """Where sentences end, in characters; blank text in front belongs to the first."""
    begun = len(text) - len(text.lstrip())
    return [
        m.end() for m in _SENTENCE_END.finditer(text) if m.end() > begun and not _goes_on(text, m)
    ]


def _goes_on(text: str, end: re.Match) -> bool:
    """Whether the sentence goes on behind this full stop, or these dots."""
    if not end.group().startswith(".") or end["line_break"]:
        return False
    behind, following = max(0, end.start() - _LONGEST_BEHIND), text[end.end() :][:8].lstrip()
    if end.group().startswith(".."):
        return text[behind : end.start()].rstrip().endswith(",") or following[:1] in tuple(",+*=<")
    if _BEFORE_NUMBERS.search(text, behind, end.start()):
        return following[:1].isdigit() or following[:1] == "("
    return _NO_END_BEHIND.search(text, behind, end.start()) is not None


def answer_stem(tags: Tags) -> str:
    """What forces an answer behind the closing tag of a model with these tags. Stages 02 and 06."""
    return tags.after_close + _STEM


def forced_ids(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    kept: int,
    stem: str | None = None,
    tags: Tags = R1_TAGS,
) -> list[int]:
    """Token ids of a trace up to its first `kept` sentences, closed, and the `stem`.

    With all sentences kept they are the trace's own, up to its own closing tag. The stem is
    `answer_stem` if none is given.
    """
    parts, stem = sentences(trace), answer_stem(tags) if stem is None else stem
    if kept == len(parts):
        return [*trace.token_ids[: trace.segments["answer"].start], *encode(tokenizer, stem)]
    stop = parts[kept].start
    line = "" if trace.tokens[stop - 1].endswith(tags.before_close) else tags.before_close
    pieces = (line, tags.close, stem)
    return [*trace.token_ids[:stop], *(i for piece in pieces for i in encode(tokenizer, piece))]


def has_cue(text: str) -> bool:
    """Whether a word of self-reflection (`CUES`) stands in a text."""
    return _CUE.search(text) is not None


def cues(trace: Trace) -> list[Cue]:
    """The self-reflection cues of the reasoning, in order."""
    found, position = [], 0
    matches = list(_CUE.finditer(trace.reasoning_text))
    for i in range(trace.segments["reasoning"].start, trace.segments["reasoning"].stop):
        end = position + len(trace.tokens[i])
        while matches and matches[0].start() < end:
            found.append(Cue(matches.pop(0).group().lower().replace("-", " "), i))
        position = end
    return found


def answer_span(trace: Trace) -> slice:
    r"""Token slice of the content of the last box in the trace's answer (see `texts/boxed.py`).

    A token that also holds the brace belongs to the answer only if it holds part of its content.
    Of a trace that `probed` made, it is the answer that was put there, boxed or not. Raises
    ValueError where the answer has no complete box.
    """
    if "probed_answer" in trace.meta:
        return slice(*trace.meta["probed_answer"])
    segment, found = trace.segments["answer"], boxes(trace.answer_text)
    if not found:
        raise ValueError(
            f"trace {trace.problem_id!r} has no \\boxed{{}} in its answer: pass the answer's slice"
        )
    ends = np.cumsum([len(token) for token in trace.tokens[segment]])
    begins = np.concatenate([[0], ends[:-1]])
    inside = np.flatnonzero((ends > found[-1].content_start) & (begins < found[-1].content_stop))
    return slice(segment.start + int(inside[0]), segment.start + int(inside[-1]) + 1)
