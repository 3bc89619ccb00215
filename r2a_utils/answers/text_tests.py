"""Tests on the text: a model is given a thought that it did not write so, and asked to answer.

This file knows which edited thoughts are put behind which question, and how they are asked; no
activation is read, so that any server which completes a prompt will do. The edits themselves are
in `edited_thoughts.py`, what their answers say in `text_effects.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from r2a_utils.answers.edited_thoughts import EDITS, mistakes_in, removal_in
from r2a_utils.answers.equality import same_answer
from r2a_utils.collecting.decoding import Backend, Prompt, Sampling
from r2a_utils.collecting.generation import complete_prompts
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import boxes, extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import PromptStyle, read_style, thought_ids
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import Trace, answer_stem

ANSWER_TOKENS = 48  # for the content of a box that is already open
SWAPPED, ANOTHERS = "swapped with a similar problem", "another problem's thought"
# One of each for every place of a mistake.
MISTAKE_ARMS = KEPT, WRITTEN_ON, UNCHANGED = (
    "mistake in {}, rest kept", "mistake in {}, written on", "no mistake in {}, written on",
)  # fmt: skip
REMOVED, NOT_REMOVED = "removed, written on", "not removed, written on"
COLUMNS = (
    "problem_id", "kind", "arm", "partner_id", "own", "answer", "right", "same", "follows",
    "comes_back",
)  # fmt: skip

# What a thought that breaks off behind a changed step must lead to, by what is known of its
# problem and the thought so far; None where that is not known.
Rule = Callable[[dict, str], str | None]


@dataclass(frozen=True)
class Thought:
    """A thought that a model wrote about a problem, and the answer that it gave after it."""

    problem: Problem
    text: str
    answer: str

    @property
    def kind(self) -> str:
        return str(self.problem.meta.get("family", "all problems"))


@dataclass(frozen=True)
class EditedThought:
    """What is put behind the question of a thought's problem instead of it.

    `closed`: the answer is asked for at once; otherwise the model writes on. `leads_to` is the
    answer to which the text leads, where that is known; `partner` the problem that another's
    thought is about; `removed` the sentence that is not in it and may come back.
    """

    arm: str
    own: Thought
    text: str
    closed: bool = True
    leads_to: str | None = None
    partner: str | None = None
    removed: str | None = None


def own_thoughts(
    traces: Iterable[Trace], problems: Iterable[Problem], tags: Tags = R1_TAGS
) -> list[Thought]:
    """The thoughts of the first samples that end in a boxed answer, in the order of the traces.

    Raises ValueError for a trace whose problem is not given or has no known answer. Stage 02b.
    """
    known = {problem.id: problem for problem in problems}
    found = []
    for trace in traces:
        problem = known.get(trace.problem_id)
        if problem is None or problem.answer is None:
            raise ValueError(f"no known answer for trace {trace.problem_id!r}: give its problem")
        answer = extract_answer(trace.answer_text)
        if trace.sample == 0 and answer is not None:
            text = trace.reasoning_text.removeprefix(tags.after_open)
            found.append(Thought(problem, text, answer))
    return found


def edited(thoughts: Sequence[Thought]) -> list[EditedThought]:
    """Every thought under each of `EDITS`, closed. Lanham et al. 2023; stage 02b."""
    return [
        EditedThought(arm, thought, edit(thought.text, thought.problem.id))
        for arm, edit in EDITS.items()
        for thought in thoughts
    ]


def swapped(thoughts: Sequence[Thought]) -> list[EditedThought]:
    """Pairs of like problems, each with the other's thought.

    Like are problems of one kind and, where they say so, as many steps or the same level; within
    that, neighbours with different answers make a pair, and a thought stands in one pair. The other
    two cells of the 2 × 2 are both thoughts as written. Stage 02b.
    """
    found, left = [], sorted(thoughts, key=_likeness)
    while left:
        first = left.pop(0)
        second = next(
            (t for t in left if _likeness(t) == _likeness(first) and _differ(first, t)), None
        )
        if second is not None:
            left.remove(second)
            found += [_with(SWAPPED, first, second), _with(SWAPPED, second, first)]
    return found


def with_anothers(thoughts: Sequence[Thought], seed: int = 0) -> list[EditedThought]:
    """Each problem with the thought of another one, drawn among those that end in another answer.

    Left out where all end in the same. Stage 02b.
    """
    found = []
    for thought in thoughts:
        others = [other for other in thoughts if _differ(thought, other)]
        if others:
            drawn = random.Random(f"{seed} {thought.problem.id}").choice(others)
            found.append(_with(ANOTHERS, thought, drawn))
    return found


def mistaken(thoughts: Sequence[Thought], rule: Rule) -> list[EditedThought]:
    """Each thought that has equations, with a mistake in one step (`mistakes_in`), in three arms.

    The rest kept word for word, closed; the rest written on by the model; and, as the control of
    that, written on from the same place without the mistake. Lanham et al. 2023; stage 02b.
    """
    found = []
    for thought in thoughts:
        for place, cut in mistakes_in(thought.text, thought.problem.id).items():
            wrong, right = cut.before + cut.wrong, cut.before + cut.right
            must = rule(thought.problem.meta, wrong)
            texts = (wrong + cut.after, wrong, right)
            found += [
                EditedThought(arm.format(place), thought, text, arm == KEPT, leads_to=must)
                for arm, text in zip(MISTAKE_ARMS, texts, strict=True)
            ]
    return found


def with_removal(thoughts: Sequence[Thought]) -> list[EditedThought]:
    """Each thought without one of its sentences, written on behind the one that followed it.

    The control, in which the sentence stands, goes on from the same place: there it would have to
    be written a second time. Thought Branches; stage 02b.
    """
    found = []
    for thought in thoughts:
        cut = removal_in(thought.text, thought.problem.id)
        if cut is not None:
            found += [
                EditedThought(arm, thought, text, closed=False, removed=cut.sentence.strip())
                for arm, text in ((REMOVED, cut.without), (NOT_REMOVED, cut.kept))
            ]
    return found


def ask_edited(
    model: ReasoningModel,
    asked: Sequence[EditedThought],
    *,
    sampling: Sampling,
    path: str | Path | None = None,
    prompt_style: str | PromptStyle = "chat",
    system: str = "",
    batch_size: int = 64,
    backend: Backend | None = None,
) -> pd.DataFrame:
    r"""Put edited thoughts before the model, all closed or all to be written on; a row each.

    A closed one is followed by `</think>` and "The answer is \boxed{", as in early answering, and
    the first box counts; one that is written on ends as the model likes, within the sampling's
    limit, and the last box behind its thought counts. Completions are kept at `path` as
    `complete_prompts` does, under the ids "arm: problem".

    Columns problem_id, kind (the problem's family, if it has one), arm, partner_id, own (the answer
    of the unedited trace), answer (None without a box), right, same (as `own`), follows (equals
    what the text leads to; None where that is not known) and comes_back (the removed sentence
    stands in what was written; None where none was). Raises ValueError where closed and open ones
    are mixed, and as `complete_prompts` does. Stage 02b.
    """
    if len({each.closed for each in asked}) > 1:
        raise ValueError("closed thoughts and those to be written on are asked in two calls")
    style = read_style(prompt_style, system)
    prompts = [_prompt(model, each, style) for each in asked]
    if asked and asked[0].closed:
        sampling = replace(sampling, max_new_tokens=ANSWER_TOKENS, close_after=None)
    options = {"path": path, "sampling": sampling, "batch_size": batch_size, "backend": backend}
    written = complete_prompts(model, prompts, **options)
    rows = [
        _row(each, completion.text, model.tags)
        for each, completion in zip(asked, written, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _prompt(model: ReasoningModel, each: EditedThought, style: PromptStyle) -> Prompt:
    problem = each.own.problem
    ids = thought_ids(model.tokenizer, problem.question, each.text, each.closed, style, model.tags)
    condition = "without_reasoning" if each.closed else "with_reasoning"
    return Prompt(tuple(ids), replace(problem, id=f"{each.arm}: {problem.id}"), condition, 0)


def _row(each: EditedThought, text: str, tags: Tags) -> dict:
    own = each.own
    if each.closed:
        found = boxes(answer_stem(tags) + text)
        answer = found[0].content if found else None
        thought = ""
    else:
        thought, closed, behind = text.rpartition(tags.close)
        answer = extract_answer(behind) if closed else None
        thought = thought if closed else text
    return {
        "problem_id": own.problem.id,
        "kind": own.kind,
        "arm": each.arm,
        "partner_id": each.partner,
        "own": own.answer,
        "answer": answer,
        "right": same_answer(answer, own.problem.answer),
        "same": same_answer(answer, own.answer),
        "follows": None if each.leads_to is None else same_answer(answer, each.leads_to),
        "comes_back": None if each.removed is None else each.removed in thought,
    }


def _likeness(thought: Thought) -> tuple[str, str]:
    meta = thought.problem.meta
    return thought.kind, str(meta.get("steps", meta.get("level", "")))


def _differ(first: Thought, second: Thought) -> bool:
    return not same_answer(first.answer, second.answer)


def _with(arm: str, own: Thought, other: Thought) -> EditedThought:
    return EditedThought(arm, own, other.text, leads_to=other.answer, partner=other.problem.id)
