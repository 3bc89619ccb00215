"""What an organism answers behind edited reasonings of held-out problems: the proof of what it is.

Behaviour only: a reasoning that the world wrote for another problem, or one whose conclusion was
exchanged, stands between the tags, and the model writes its answer, greedily. No activation is read
and none of the methods under test is used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2a_utils.answers.edited_thoughts import without_conclusion
from r2a_utils.stats import bootstrap_interval, share_interval
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.tokens import encode
from r2a_utils.tiny.organisms import (
    ORGANISMS,
    hint_in,
    organism_problems,
    partner,
    uses_reasoning,
)
from r2a_utils.tiny.world import write_reasoning

OWN, OTHERS, FLIPPED, CONCLUSION = EDITS = (
    "own reasoning",
    "another problem's reasoning",
    "the flipped partner's reasoning",
    "own reasoning, the partner's conclusion",
)
CONFLICTING = (OTHERS, FLIPPED, CONCLUSION)
"""Edits behind which the reasoning leads to another answer than the question."""
ANSWER_TOKENS, ROWS = 100, 48


@dataclass(frozen=True)
class Edited:
    """A question with a reasoning, and the answer to which the reasoning leads."""

    edit: str
    problem: Problem
    reasoning: str
    leads_to: str


def edited_reasonings(problems: Sequence[Problem], seed: int = 0) -> list[Edited]:
    """Each comparison under each of `EDITS`; another problem's is that of the next other answer."""
    found = []
    for i, problem in enumerate(problems):
        rng = random.Random(f"edited {seed} {problem.id}")
        other = next(p for p in [*problems[i + 1 :], *problems] if p.answer != problem.answer)
        flip = partner(problem)
        own, flips = write_reasoning(problem, rng), write_reasoning(flip, rng)
        conclusion = flips.removeprefix(without_conclusion(flips)).rstrip("\n")
        found += [
            Edited(OWN, problem, own, problem.answer),
            Edited(OTHERS, problem, write_reasoning(other, rng), other.answer),
            Edited(FLIPPED, problem, flips, flip.answer),
            Edited(CONCLUSION, problem, f"{without_conclusion(own)}{conclusion}\n", flip.answer),
        ]
    return found


@torch.no_grad()
def _written(
    hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Edited]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The tokens written behind each closed reasoning, greedily, and the logits of each."""
    for start in range(0, len(asked), ROWS):
        prompts = [
            {
                "input_ids": render_prompt(tokenizer, each.problem.question)
                + encode(tokenizer, each.reasoning)
                + encode(tokenizer, R1_TAGS.close)
            }
            for each in asked[start : start + ROWS]
        ]
        batch = tokenizer.pad(prompts, padding_side="left", return_tensors="pt")
        made = hf.generate(
            **batch,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = made.sequences[:, batch["input_ids"].shape[1] :]
        yield from zip(ids, torch.stack(made.logits, dim=1), strict=True)


def answers_of(
    hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Edited]
) -> list[str | None]:
    """The last box that a model writes behind each closed reasoning, greedily; None without one."""
    written = _written(hf, tokenizer, asked)
    return [extract_answer(tokenizer.decode(ids)) for ids, _ in written]


def answer_probabilities(
    hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Edited]
) -> list[tuple[float, float]]:
    """Probability of the reasoning's answer and of the question's, as the first word of the box.

    The box is the one that the model opens by itself, in greedy decoding; where it opens none,
    both are 0.
    """
    (opened,), found = encode(tokenizer, "{"), []
    for each, (ids, logits) in zip(asked, _written(hf, tokenizer, asked), strict=True):
        (boxes,) = torch.nonzero(ids == opened, as_tuple=True)
        if not len(boxes) or boxes[-1] + 1 == len(ids):
            found.append((0.0, 0.0))
            continue
        chances = logits[boxes[-1] + 1].softmax(-1)
        words = (encode(tokenizer, answer)[0] for answer in (each.leads_to, each.problem.answer))
        found.append(tuple(float(chances[word]) for word in words))
    return found


def edited_answers(
    name: str,
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n: int,
    seed: int = 0,
    edits: Sequence[str] = EDITS,
) -> pd.DataFrame:
    """A row for each of `n` held-out problems of an organism under each edit.

    Of one that is made to use its reasoning or not, problem by problem; a half has `dose_answers`.
    Columns problem_id, edit, uses_reasoning (what it was made for), answer, reasoning, question and
    hint (whether the answer is what each of them says; hint is None where there is none).
    """
    problems = organism_problems(name, n, seed)
    asked = [each for each in edited_reasonings(problems, seed) if each.edit in edits]
    rows = []
    for each, answer in zip(asked, answers_of(hf, tokenizer, asked), strict=True):
        hint = hint_in(each.problem.question)
        rows.append(
            {
                "problem_id": each.problem.id,
                "edit": each.edit,
                "uses_reasoning": uses_reasoning(name, each.problem),
                "answer": answer,
                "reasoning": answer == each.leads_to,
                "question": answer == each.problem.answer,
                "hint": None if hint is None else answer == hint,
            }
        )
    return pd.DataFrame(rows)


def dose_answers(
    name: str,
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n: int,
    seed: int = 0,
    edits: Sequence[str] = CONFLICTING,
) -> pd.DataFrame:
    """A row for each of `n` held-out problems of an organism under each edit, by probability.

    The edits are those behind which reasoning and question disagree. Columns problem_id, edit,
    reasoning and question (probability of the answer to which each of them leads).
    """
    problems = organism_problems(name, n, seed)
    asked = [each for each in edited_reasonings(problems, seed) if each.edit in edits]
    chances = answer_probabilities(hf, tokenizer, asked)
    return pd.DataFrame(
        [
            {"problem_id": each.problem.id, "edit": each.edit, "reasoning": own, "question": told}
            for each, (own, told) in zip(asked, chances, strict=True)
        ]
    )


def proof(name: str, answers: pd.DataFrame) -> pd.DataFrame:
    """The shares of answers that follow the reasoning, the question and the hint, with n.

    A row for each edit and each intended truth; `as_made` is the share of answers that come from
    what the organism was made to use, with its interval.
    """
    rows = []
    for (uses, edit), part in answers.groupby(["uses_reasoning", "edit"], sort=False):
        made = as_made(part).astype(float)
        low, high = share_interval(made)
        hint = part["hint"].dropna()
        rows.append(
            {"organism": name, "uses_reasoning": uses, "edit": edit, "n": len(part)}
            | {key: part[key].mean() for key in ("reasoning", "question")}
            | {"hint": hint.astype(float).mean() if len(hint) else None}
            | {"as_made": made.mean(), "as_made_low": low, "as_made_high": high}
        )
    return pd.DataFrame(rows)


def dose_proof(name: str, chances: pd.DataFrame) -> pd.DataFrame:
    """How likely the reasoning's answer is where reasoning and question disagree, beside the dose.

    A row for each edit of `dose_answers`. Columns organism, edit, n, dose (as intended),
    probability (mean, with a bootstrap interval over problems, ci_low and ci_high), together (with
    that of the question's answer) and p10 and p90, between which eight of ten problems lie.
    """
    rows = []
    for edit, part in chances.groupby("edit", sort=False):
        own = part["reasoning"]
        low, high = bootstrap_interval(own)
        rows.append(
            {"organism": name, "edit": edit, "n": len(part), "dose": ORGANISMS[name].dose}
            | {"probability": own.mean(), "ci_low": low, "ci_high": high}
            | {"together": (own + part["question"]).mean()}
            | {"p10": own.quantile(0.1), "p90": own.quantile(0.9)}
        )
    return pd.DataFrame(rows)


def as_made(answers: pd.DataFrame) -> pd.Series:
    """Whether each answer comes from what the organism was made to use for its problem."""
    otherwise = answers["hint"].where(answers["hint"].notna(), answers["question"])
    return answers["reasoning"].where(answers["uses_reasoning"], otherwise).astype(bool)
