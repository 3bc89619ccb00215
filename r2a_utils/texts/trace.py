"""Traces: one tokenised prompt, reasoning and answer, with its six segments.

This file knows how a prompt is written with and without reasoning, where the segments of a trace
lie, where its sentences end and where it reflects upon itself. Segments are found by token, so that
a model whose vocabulary writes `<think>` in several tokens works like one with a single tag token.
It knows tokenizers. It knows no model and no right answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.boxed import boxes
from r2a_utils.texts.tags import R1_TAGS, Tags

SEGMENTS = ("bos", "prompt", "think", "reasoning", "end_think", "answer")
CONDITIONS = ("with_reasoning", "without_reasoning")

# The paper's raw prompt and its prefilled thought.
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."
PREFILLED = {"finished": "Okay, I think I have finished thinking.\n", "empty": "\n"}
# What is written after `</think>` to force an answer: the blank line and the box with which R1's
# models and r2a-tiny begin their own.
STEM = R1_TAGS.after_close + "The answer is \\boxed{"

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

# Words of self-reflection, as the paper and NoWait (2506.08343) list them; longest first.
CUES = (
    "let me double-check", "let me verify", "let me check", "on second thought", "alternatively",
    "actually", "however", "wait", "hmm", "but",
)  # fmt: skip
_CUE = re.compile(r"\b(" + "|".join(re.escape(cue) for cue in CUES) + r")\b", re.IGNORECASE)

# A sentence ends at a line break, or at a full stop, question mark or exclamation mark before white
# space; a decimal point or the dots inside "3.5" and "e.g." do not end one. A line break after it
# belongs to it; a blank does not, as it is mostly the first character of the next word's token.
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.?!]+[)\"'\]]*(?=\s)(?:\s*\n)?|\n+")


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

    @classmethod
    def from_text(
        cls, text: str, tokenizer: PreTrainedTokenizerBase, tags: Tags = R1_TAGS, **fields
    ) -> Trace:
        """Tokenise a whole text, from BOS to EOS, with both tags, as the paper's files store it.

        A BOS or EOS of another model is replaced by the tokenizer's own. The pieces between the
        tags are tokenised apart, so that a tag never merges with its neighbours. `fields` are the
        remaining fields of a trace. Raises ValueError as `from_ids` does.
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
        if text.count(tags.close) > 1:
            raise ValueError(_several_ends(name, text.count(tags.close), tags))
        prompt, think, rest = text.partition(tags.open)
        if not think:
            raise ValueError(
                f"{name} has no {tags.open}; a text needs both tags around its reasoning."
            )
        reasoning, end, answer = rest.partition(tags.close)
        if not end:
            raise ValueError(_no_end(name, tags))
        ids = [bos_id(tokenizer)]
        for piece in (prompt, tags.open, reasoning, tags.close, answer):
            ids += encode(tokenizer, piece)
        return cls.from_ids(ids, tokenizer, tags, **fields)

    @classmethod
    def from_ids(
        cls, ids: list[int], tokenizer: PreTrainedTokenizerBase, tags: Tags = R1_TAGS, **fields
    ) -> Trace:
        """Segment a tokenised trace. `fields` are the remaining fields of a trace.

        Raises ValueError, with what to do, when the trace does not start with exactly one BOS, has
        no `<think>`, no or several `</think>`, or an empty prompt, reasoning or answer.
        """
        name, ids = _name(fields), [int(i) for i in ids]
        if ids and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]
        _check_bos(ids, tokenizer, name)
        open_ids, close_ids = encode(tokenizer, tags.open), encode(tokenizer, tags.close)
        start = _find(ids, open_ids, 1)
        if start is None:
            raise ValueError(
                f"{name} has no {tags.open}; start the reasoning with it in the prompt."
            )
        reasoning = start + len(open_ids)
        end = _find(ids, close_ids, reasoning)
        if end is None:
            raise ValueError(_no_end(name, tags))
        answer = end + len(close_ids)
        if _find(ids, close_ids, answer) is not None:
            raise ValueError(_several_ends(name, 2, tags))
        borders = (0, 1, start, reasoning, end, answer, len(ids))
        segments = dict(zip(SEGMENTS, map(slice, borders[:-1], borders[1:]), strict=True))
        for segment in ("prompt", "reasoning", "answer"):
            if segments[segment].start == segments[segment].stop:
                raise ValueError(f"{name} has an empty {segment}; leave such traces out.")
        tokens = token_texts(ids, tokenizer)
        if not "".join(tokens[segments["answer"]]).strip():
            raise ValueError(f"{name} has an empty answer; leave such traces out.")
        return cls(tuple(ids), tuple(tokens), segments, **fields)


def _name(fields: dict) -> str:
    return f"trace {fields['problem_id']!r}" if fields.get("problem_id") else "the trace"


def _no_end(name: str, tags: Tags) -> str:
    return (
        f"{name} has no {tags.close}: its reasoning was cut off; raise max_new_tokens, or pass "
        'on_unfinished="drop" to leave such traces out.'
    )


def _several_ends(name: str, count: int, tags: Tags) -> str:
    return f"{name} has {count} {tags.close}; where its reasoning ends is not known. Leave it out."


def _check_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    bos = bos_id(tokenizer)
    if not ids or ids[0] != bos:
        raise ValueError(f"{name} does not start with BOS; put the token {bos} in front.")
    # SmolLM2 opens each turn of a chat with the token that is also its BOS; it stands in the text
    # of the template. R1's templates name bos_token once: a second one is the double-BOS fault.
    opens_turns = (tokenizer.bos_token or "\0") in (tokenizer.chat_template or "")
    if bos in (ids[1:2] if opens_turns else ids[1:]):
        raise ValueError(
            f"{name} has two BOS; the template may add one to the tokenizer's. Remove it."
        )


def _find(ids: list[int], wanted: list[int], start: int) -> int | None:
    for i in range(start, len(ids) - len(wanted) + 1):
        if ids[i : i + len(wanted)] == wanted:
            return i
    return None


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with nothing added."""
    return tokenizer.encode(text, add_special_tokens=False)


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a sequence starts with: BOS, or lacking one the padding or end token."""
    for token_id in (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    raise ValueError("the tokenizer has no BOS, padding or EOS token; set tokenizer.bos_token.")


def token_texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token; joined, they are the whole text.

    A character that is spread over several byte-level tokens stands with the last of them, and the
    ones before it are empty.
    """
    texts, pending = [], []
    for token_id in ids:
        pending.append(token_id)
        text = tokenizer.decode(
            pending, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # A character takes at most four bytes, so longer waiting means invalid bytes: show them.
        if text.endswith("\ufffd") and len(pending) < 4:
            texts.append("")
        else:
            texts.append(text)
            pending = []
    if pending:
        texts[-1] = tokenizer.decode(pending, skip_special_tokens=False)
    return texts


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    condition: str = "with_reasoning",
    prompt_style: str = "chat",
    without: str = "finished",
    tags: Tags = R1_TAGS,
) -> list[int]:
    """Token ids of a prompt, with BOS exactly once, up to where the model goes on writing.

    `prompt_style` is "chat" (the tokenizer's own template) or "raw" (the paper's: the question, the
    instruction to reason and to box the answer, no template). With reasoning, the prompt ends in
    `<think>` and a line break. Without, the thought is prefilled and closed: `without` is
    "finished" (the paper's sentence) or "empty".
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(CONDITIONS)}.")
    if without not in PREFILLED:
        raise ValueError(
            f"unknown prefilled thought {without!r}; choose from {', '.join(PREFILLED)}."
        )
    if prompt_style == "chat":
        if not tokenizer.chat_template:
            raise ValueError('the tokenizer has no chat template; pass prompt_style="raw".')
        opening = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        opening = opening.removesuffix("\n").removesuffix(tags.open)
        if tokenizer.bos_token:
            opening = opening.removeprefix(tokenizer.bos_token)
    elif prompt_style == "raw":
        opening = question + INSTRUCTION + " "
    else:
        raise ValueError(f'unknown prompt style {prompt_style!r}; choose "chat" or "raw".')
    closed = condition == "without_reasoning"
    thought = tags.around(PREFILLED[without]) if closed else tags.opening()
    ids = [bos_id(tokenizer)]
    for piece in (opening, *thought):
        ids += encode(tokenizer, piece)
    _check_bos(ids, tokenizer, "the prompt")
    return ids


def sentences(trace: Trace) -> list[slice]:
    """Token slices of the reasoning's sentences; they tile the reasoning.

    A token that holds the end of one sentence and the start of the next belongs to the first.
    """
    start, stop = trace.segments["reasoning"].start, trace.segments["reasoning"].stop
    text = trace.reasoning_text
    ends = {m.end() for m in _SENTENCE_END.finditer(text) if text[: m.end()].strip()}
    borders, position, pending = [start], 0, sorted(ends)
    for i in range(start, stop):
        position += len(trace.tokens[i])
        if pending and position >= pending[0]:
            pending = [e for e in pending if e > position]
            borders.append(i + 1)
    if borders[-1] != stop:
        borders.append(stop)
    return list(map(slice, borders[:-1], borders[1:]))


def forced_ids(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    kept: int,
    stem: str = STEM,
    tags: Tags = R1_TAGS,
) -> list[int]:
    """Token ids of a trace up to its first `kept` sentences, closed, and the `stem`.

    With all sentences kept they are the trace's own, up to its own `</think>`.
    """
    parts = sentences(trace)
    if kept == len(parts):
        return [*trace.token_ids[: trace.segments["answer"].start], *encode(tokenizer, stem)]
    stop = parts[kept].start
    line = "" if trace.tokens[stop - 1].endswith(tags.before_close) else tags.before_close
    pieces = (line, tags.close, stem)
    return [*trace.token_ids[:stop], *(i for piece in pieces for i in encode(tokenizer, piece))]


def cues(trace: Trace) -> list[Cue]:
    """The self-reflection cues of the reasoning, in order."""
    found, position = [], 0
    matches = list(_CUE.finditer(trace.reasoning_text))
    for i in range(trace.segments["reasoning"].start, trace.segments["reasoning"].stop):
        end = position + len(trace.tokens[i])
        while matches and matches[0].start() < end:
            found.append(Cue(matches.pop(0).group().lower(), i))
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
