"""Contrast pairs: two token sequences that differ in what they conclude, aligned without padding.

This file knows how two traces are cut right before their answers and which positions correspond.
It knows no model; `patching.py` runs one sequence with activations of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import Trace, answer_span, encode, sentences

PROBES = ("Final answer is {}.", "Final answer is \\boxed{{{}}}.")
"""The paper's probe sentences, which close the reasoning with the answer in a fixed place."""

TokenIds = Sequence[int] | Int[np.ndarray, " _"]
"""What a pair is made from; it keeps tuples."""


class Probe(NamedTuple):
    """A line that closes the reasoning, and what stands before and behind the answer after it."""

    line: str
    stem: str
    end: str


PROTOCOLS = {
    "own": None,
    "probe": Probe(PROBES[0], "\n\nFinal answer is", "."),
    "boxed_probe": Probe(PROBES[1], "\n\nFinal answer is \\boxed{", "}."),
}
"""How a trace is read: as it was written, or closed by one of the paper's probes."""


class SameAnswerError(ValueError):
    """Two sequences with one answer: there is nothing to contrast."""


@dataclass(frozen=True)
class ContrastPair:
    """A clean and a corrupted token sequence that end right before their answers.

    `clean_answer_id` and `corrupted_answer_id` are token ids, or tuples of ids for answers of
    several tokens. Sequences of equal length are aligned token by token. Sequences of unequal
    length need `aligned_spans`: (start in clean, start in corrupted, length) of each; what lies
    outside them is never patched, and nothing is padded. Positions count in the clean
    sequence. `tokens` and `answer_texts` are texts, `segments` those of the clean trace. Raises
    ValueError for an empty sequence or answer, for answers or sequences that are the same, and for
    spans that overlap or do not end where both sequences do.
    """

    clean_ids: TokenIds
    corrupted_ids: TokenIds
    clean_answer_id: int | TokenIds
    corrupted_answer_id: int | TokenIds
    problem_id: str = ""
    model: str = ""
    tokens: tuple[str, ...] = ()
    corrupted_tokens: tuple[str, ...] = ()
    answer_texts: tuple[str, str] | None = None
    segments: dict[str, slice] = field(default_factory=dict)
    aligned_spans: tuple[tuple[int, int, int], ...] = ()
    meta: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("clean_ids", "corrupted_ids"):
            object.__setattr__(self, name, tuple(int(i) for i in getattr(self, name)))
        clean, corrupted = self.answers
        if not self.clean_ids or not self.corrupted_ids or not clean or not corrupted:
            raise ValueError(f"{self._name} has an empty sequence or answer")
        if clean == corrupted:
            raise SameAnswerError(
                f"{self._name} has the same answer {clean} twice: nothing to contrast"
            )
        if not self.aligned_spans:
            if len(self.clean_ids) != len(self.corrupted_ids):
                raise ValueError(
                    f"{self._name} has {len(self.clean_ids)} clean and {len(self.corrupted_ids)} "
                    "corrupted tokens, and nothing is padded: write both from one template, or "
                    "use ContrastPair.from_traces, which leaves the unequal part unpatched"
                )
            object.__setattr__(self, "aligned_spans", ((0, 0, len(self.clean_ids)),))
        end_clean = end_corrupted = 0
        for start, other, length in self.aligned_spans:
            if start < end_clean or other < end_corrupted or length < 1:
                raise ValueError(
                    f"{self._name}: the spans {self.aligned_spans} overlap or are out of order"
                )
            end_clean, end_corrupted = start + length, other + length
        if (end_clean, end_corrupted) != (len(self.clean_ids), len(self.corrupted_ids)):
            raise ValueError(
                f"{self._name}: the last aligned span must end where both sequences end, before "
                "the answers"
            )
        if not self.differing_positions and len(self.clean_ids) == len(self.corrupted_ids):
            raise ValueError(f"{self._name}: the clean and the corrupted sequence are the same")

    @property
    def _name(self) -> str:
        return f"pair {self.problem_id!r}" if self.problem_id else "the pair"

    def __len__(self) -> int:
        return len(self.clean_ids)

    @property
    def answers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The clean and the corrupted answer as tuples of token ids."""
        return tuple(
            (int(a),) if np.ndim(a) == 0 else tuple(int(i) for i in a)
            for a in (self.clean_answer_id, self.corrupted_answer_id)
        )

    @cached_property
    def alignment(self) -> dict[int, int]:
        """Clean position → corrupted position, for every aligned position."""
        return {s + i: o + i for s, o, length in self.aligned_spans for i in range(length)}

    @cached_property
    def differing_positions(self) -> tuple[int, ...]:
        """The aligned positions whose tokens differ."""
        return tuple(
            p for p, o in self.alignment.items() if self.clean_ids[p] != self.corrupted_ids[o]
        )

    @cached_property
    def stating_positions(self) -> tuple[int, ...]:
        """The reasoning's differing tokens that state the answers, each its own, in order.

        A difference may also be the other answer in passing ("the cup, not the lamp"), so where
        the answers' texts are known the tokens must begin them.
        """
        reasoning = self.segments.get("reasoning", slice(0, len(self)))
        inside = [p for p in self.differing_positions if reasoning.start <= p < reasoning.stop]
        if self.answer_texts is not None:
            inside = [p for p in inside if self._states_answers(p)]
        return tuple(inside)

    @property
    def flipping_position(self) -> int | None:
        """The last of `stating_positions`: the token that states the conclusion, or None."""
        return self.stating_positions[-1] if self.stating_positions else None

    def _states_answers(self, position: int) -> bool:
        stated = self.tokens[position], self.corrupted_tokens[self.alignment[position]]
        return all(
            token.strip() and answer.strip().startswith(token.strip())
            for token, answer in zip(stated, self.answer_texts, strict=True)
        )

    @classmethod
    def from_traces(
        cls,
        clean: Trace,
        corrupted: Trace,
        *,
        clean_answer: slice | None = None,
        corrupted_answer: slice | None = None,
    ) -> ContrastPair:
        """Cut two traces right before their answers and align them without padding.

        The answers are the given token slices, by default the content of the last `\\boxed{}` of
        each answer, or, where both answers have stated it before their box ("Step 2 gives 7. So the
        answer is \\boxed{7}"), the first token that does: there the answer is made. Aligned are:
        the prompts where they have the same length; the sentences of the
        reasoning from its start and from `</think>` backwards, for as long as they have the same
        number of tokens; and the text between `</think>` and the answer, as a whole where it has
        the same length, otherwise from both ends for as long as its tokens are the same. Raises
        ValueError when the traces come from different models or cannot be aligned up to the answer,
        and its kind SameAnswerError where they end in one answer.
        """
        name = f"pair {clean.problem_id!r}"
        if clean.model != corrupted.model:
            raise ValueError(
                f"{name}: traces of different models, {clean.model!r} and {corrupted.model!r}"
            )
        a = clean_answer or answer_span(clean)
        b = corrupted_answer or answer_span(corrupted)
        spans = _align(clean, corrupted, a.start, b.start)
        if not spans or spans[-1][0] + spans[-1][2] != a.start:
            ends = [
                "".join(t.tokens[s.start - 4 : s.start]) for t, s in ((clean, a), (corrupted, b))
            ]
            raise ValueError(
                f"{name} cannot be aligned up to its answers, which stand after {ends[0]!r} and "
                f"{ends[1]!r}: choose traces whose answers end alike, or add the probe (probed)"
            )
        pair = cls(
            clean.token_ids[: a.start],
            corrupted.token_ids[: b.start],
            clean.token_ids[a],
            corrupted.token_ids[b],
            problem_id=clean.problem_id,
            model=clean.model,
            tokens=clean.tokens[: a.start],
            corrupted_tokens=corrupted.tokens[: b.start],
            answer_texts=("".join(clean.tokens[a]), "".join(corrupted.tokens[b])),
            segments={s: slice(i.start, min(i.stop, a.start)) for s, i in clean.segments.items()},
            aligned_spans=spans,
            meta={"clean": clean.meta, "corrupted": corrupted.meta},
        )
        if clean_answer or corrupted_answer:
            return pair
        answer = clean.segments["answer"].start
        stated = [p for p in pair.differing_positions if p >= answer and pair._states_answers(p)]
        if not stated:
            return pair
        starts = stated[0], pair.alignment[stated[0]]
        first, other = (slice(start, start + 1) for start in starts)
        return cls.from_traces(clean, corrupted, clean_answer=first, corrupted_answer=other)


def probed(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    answer: str,
    probe: str = PROBES[0],
    stem: str = "\n\nThus, the correct one is \\boxed{",
    end: str = "}",
    tags: Tags = R1_TAGS,
) -> Trace:
    """The trace with the paper's probe sentence at the end of its reasoning, and a short answer.

    Everything before `</think>` is kept, `probe` states `answer` on a line of its own, and the
    answer segment becomes `stem`, `answer` and `end`, where the answer is a piece of text of its
    own: behind a stem that ends in a word it begins with a space, behind a brace it does not. The
    model did not write the probe, so what a patch on it shows is partly copying: use it beside
    pairs of the model's own traces. Raises ValueError where a tag stands in the answer. The paper's
    protocol; stage 05.
    """
    line_break = "" if trace.reasoning_text.endswith(tags.before_close) else tags.before_close
    ids = list(trace.token_ids[: trace.segments["reasoning"].stop])
    stated = line_break + probe.format(answer.strip()) + tags.before_close
    for piece in (stated, tags.close):
        ids += encode(tokenizer, piece)
    closed = trace.condition == "without_reasoning"
    prompt_length = len(ids) if closed else trace.prompt_length
    ids += encode(tokenizer, stem)
    start = len(ids)
    ids += encode(tokenizer, answer)
    stop = len(ids)
    ids += encode(tokenizer, end)
    return Trace.from_ids(
        ids,
        tokenizer,
        tags,
        prompt_length,
        trace.examples_stop,
        problem_id=trace.problem_id,
        condition=trace.condition,
        model=trace.model,
        sample=trace.sample,
        meta={**trace.meta, "probe": probe, "probed_answer": (start, stop)},
    )


def under_protocol(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    protocol: str,
    tags: Tags = R1_TAGS,
) -> Trace:
    """The trace as a protocol of `PROTOCOLS` reads it: itself, or closed by a probe (`probed`).

    The probe states the problem's answer, boxed or as a word of its own behind its article
    (`problem.meta["article"]`), if it has one. Raises ValueError for an unknown protocol. The
    probes are the paper's; stage 05 compares the protocols.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose from {tuple(PROTOCOLS)}")
    if PROTOCOLS[protocol] is None:
        return trace
    (line, stem, end), answer = PROTOCOLS[protocol], problem.answer
    if not stem.endswith("{"):
        article, answer = problem.meta.get("article", ""), " " + answer
        line, stem = line.format(article + "{}"), f"{stem} {article}".rstrip()
    return probed(trace, tokenizer, answer, line, stem, end, tags)


def _align(
    clean: Trace, corrupted: Trace, stop: int, other_stop: int
) -> tuple[tuple[int, int, int], ...]:
    """Spans (start in clean, start in corrupted, length) that correspond; see `from_traces`."""
    parts = []
    for name in takewhile(lambda name: name != "reasoning", clean.segments):
        parts.append(_whole(clean.segments[name], corrupted.segments[name]))
    parts.append(_from_both_ends(sentences(clean), sentences(corrupted)))
    parts.append(_whole(clean.segments["end_think"], corrupted.segments["end_think"]))
    stem, other_stem = (
        slice(clean.segments["answer"].start, stop),
        slice(corrupted.segments["answer"].start, other_stop),
    )
    if _length(stem) == _length(other_stem):
        parts.append(_whole(stem, other_stem))
    else:
        parts.append(_same_tokens(clean.token_ids, stem, corrupted.token_ids, other_stem))
    spans: list[tuple[int, int, int]] = []
    for start, other, length in (span for part in parts for span in part if span[2]):
        if spans and (spans[-1][0] + spans[-1][2], spans[-1][1] + spans[-1][2]) == (start, other):
            start, other, length = *spans[-1][:2], spans[-1][2] + length
            spans.pop()
        spans.append((start, other, length))
    return tuple(spans)


def _length(part: slice) -> int:
    return part.stop - part.start


def _whole(part: slice, other: slice) -> list[tuple[int, int, int]]:
    return [(part.start, other.start, _length(part))] if _length(part) == _length(other) else []


def _from_both_ends(parts: list[slice], others: list[slice]) -> list[tuple[int, int, int]]:
    """Pairs of equally long sentences, from the front and, for those left over, from the back."""
    shorter = min(len(parts), len(others))
    front = 0
    while front < shorter and _length(parts[front]) == _length(others[front]):
        front += 1
    back = 0
    while back < shorter - front and _length(parts[-1 - back]) == _length(others[-1 - back]):
        back += 1
    paired = list(zip(parts[:front], others[:front], strict=True))
    paired += zip(parts[len(parts) - back :], others[len(others) - back :], strict=True)
    return [span for part, other in paired for span in _whole(part, other)]


def _same_tokens(ids, part: slice, other_ids, other: slice) -> list[tuple[int, int, int]]:
    """The longest equal beginning and, in what is left, the longest equal end."""
    a, b = ids[part], other_ids[other]
    shorter = min(len(a), len(b))
    front = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    left = shorter - front
    back = next((i for i in range(left) if a[-1 - i] != b[-1 - i]), left)
    return [(part.start, other.start, front), (part.stop - back, other.stop - back, back)]
