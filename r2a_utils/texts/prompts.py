"""Prompts: what is put before a model, up to where it goes on writing.

This file knows how a question becomes a prompt, with reasoning and without. It knows tokenizers and
their templates, and no model.
"""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.tokens import check_bos, encode, first_ids
from r2a_utils.texts.trace import CONDITIONS

# The paper's raw prompt and its prefilled thought.
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."
PREFILLED = {"finished": "Okay, I think I have finished thinking.\n", "empty": "\n"}


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
    the opening tag and a line break. Without, the thought is prefilled and closed: `without` is
    "finished" (the paper's sentence) or "empty". A thought that the template opens, or closes with
    nothing in it, is written anew. A model without a BOS gets none: its template's first token then
    stands in the segment `bos`.

    Raises ValueError for an unknown choice, a tokenizer without a template, and a template that
    writes BOS twice. Stage 01 uses it.
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
        opening = _without_thought(opening, tags)
        if tokenizer.bos_token:
            opening = opening.removeprefix(tokenizer.bos_token)
    elif prompt_style == "raw":
        opening = question + INSTRUCTION + " "
    else:
        raise ValueError(f'unknown prompt style {prompt_style!r}; choose "chat" or "raw".')
    closed = condition == "without_reasoning"
    thought = tags.around(PREFILLED[without]) if closed else tags.opening()
    ids = first_ids(tokenizer)
    for piece in (opening, *thought):
        ids += encode(tokenizer, piece)
    check_bos(ids, tokenizer, "the prompt", len(ids))
    return ids


def _without_thought(opening: str, tags: Tags) -> str:
    """A template's text without the thought that it opens, or opens and closes, at its end.

    White space behind a role's name is the template's and stays.
    """
    space, open_tag, close_tag = r"\s*", re.escape(tags.open), re.escape(tags.close)
    thought = f"{open_tag}{space}(?:{close_tag}{space})?$"
    return re.sub(thought, "", opening)
