"""Prompts: what is put before a model, up to where it goes on writing.

This file knows how a question becomes a prompt, with reasoning and without. It knows tokenizers and
their templates, and no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.tokens import check_bos, encode, first_ids
from r2a_utils.texts.trace import CONDITIONS

# The paper's raw prompt and its prefilled thought.
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."
PREFILLED = {"finished": "Okay, I think I have finished thinking.\n", "empty": "\n"}
# What the condition without reasoning puts in the reasoning's place.
WITHOUT = (*PREFILLED, "direct")

# What makes a model that was taught no tags think between them, and what makes it answer at once.
THINK_FIRST = (
    "Solve the problem. First think step by step between {open} and {close}; then give the answer "
    "alone, within \\boxed{}."
)
DIRECT = "Give the answer to the problem at once and alone, within \\boxed{}. Write no working."


@dataclass(frozen=True)
class Example:
    """A problem that is solved in the prompt: its question, a thought and the answer's text."""

    question: str
    thought: str
    answer: str


WORKED = (
    Example(
        "A baker fills 6 trays with 8 rolls each. She sells 29 of the rolls. How many are left?",
        "The baker has 6 trays of 8 rolls, which is 6 * 8 = 48 rolls.\n"
        "She sells 29 of them, so 48 - 29 = 19 are left.\n"
        "Let me check: 19 + 29 = 48. Good.",
        "The answer is \\boxed{19}.",
    ),
    Example(
        "Nora is 12 years old. Her brother is half as old, and their aunt is 5 times as old as the "
        "brother. How old is the aunt?",
        "Nora is 12, and her brother is half as old: 12 / 2 = 6.\n"
        "The aunt is 5 times as old as the brother, not as Nora: 5 * 6 = 30.",
        "The answer is \\boxed{30}.",
    ),
)


@dataclass(frozen=True)
class PromptStyle:
    """How a question is put before a model.

    `system` is the system message, of which `direct_system` takes the place where the condition
    without reasoning asks for the answer alone; `{open}` and `{close}` in them are the model's
    tags. `examples` are solved problems, each a turn of the user and one of the model. `template`
    are options of the tokenizer's chat template (`{"enable_thinking": True}`, a date). A style that
    is `raw` has none of this: the question and the instruction, without a template.
    """

    system: str | None = None
    direct_system: str = DIRECT
    examples: tuple[Example, ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False


STYLES = {
    "chat": PromptStyle(),
    "raw": PromptStyle(raw=True),
    "example": PromptStyle(THINK_FIRST, examples=WORKED),
}


class Rendered(NamedTuple):
    """A prompt's token ids; the first `examples` of them hold what another problem is told of."""

    ids: list[int]
    examples: int


def read_style(prompt_style: str | PromptStyle) -> PromptStyle:
    """The style of a name in `STYLES`, or of a JSON file with the fields of a `PromptStyle`.

    In a file, `examples` are objects with question, thought and answer. Raises ValueError for an
    unknown name or a file that says something else. Stages 00 to 05.
    """
    if isinstance(prompt_style, PromptStyle):
        return prompt_style
    if prompt_style in STYLES:
        return STYLES[prompt_style]
    if not prompt_style.endswith(".json"):
        raise ValueError(
            f"unknown prompt style {prompt_style!r}; choose {', '.join(STYLES)} or a JSON file."
        )
    try:
        fields = json.loads(Path(prompt_style).read_text(encoding="utf-8"))
        examples = tuple(Example(**example) for example in fields.pop("examples", ()))
        return PromptStyle(**fields, examples=examples)
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{prompt_style} is no prompt style ({error}): give it system, direct_system, template "
            "and examples, a list of objects with question, thought and answer."
        ) from error


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    condition: str = "with_reasoning",
    prompt_style: str | PromptStyle = "chat",
    without: str = "finished",
    tags: Tags = R1_TAGS,
) -> list[int]:
    """Token ids of a prompt, with BOS exactly once, up to where the model goes on writing.

    `prompt_style` is "chat" (the tokenizer's own template), "raw" (the paper's: the question, the
    instruction to reason and to box the answer, no template), "example" (a system message and
    worked examples, for a model that thinks between tags when asked), a JSON file or a
    `PromptStyle`. With reasoning, the prompt ends in the opening tag and a line break. Without, the
    thought is prefilled and closed: `without` is "finished" (the paper's sentence), "empty", or
    "direct", where the system message and the examples ask for the answer alone as well. A thought
    that the template opens, or closes with nothing in it, is written anew. A model without a BOS
    gets none: its template's first token then stands in the segment `bos`.

    Raises ValueError for an unknown choice, a tokenizer without a template, a template that writes
    BOS twice, knows nothing of an option, or loses what an example thinks. Stage 01 uses it.
    """
    return rendered(tokenizer, question, condition, prompt_style, without, tags).ids


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    condition: str = "with_reasoning",
    prompt_style: str | PromptStyle = "chat",
    without: str = "finished",
    tags: Tags = R1_TAGS,
) -> Rendered:
    """The prompt of `render_prompt`, with where its worked examples end.

    Raises ValueError as it does. Completions are asked so.
    """
    style = read_style(prompt_style)
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(CONDITIONS)}.")
    if without not in WITHOUT:
        raise ValueError(f"unknown without={without!r}; choose from {', '.join(WITHOUT)}.")
    closed = condition == "without_reasoning"
    if not style.raw:
        before, opening = _conversation(
            tokenizer, question, style, closed and without == "direct", tags
        )
    elif closed and without == "direct":
        raise ValueError('a raw prompt has no system message: pass without="empty".')
    else:
        before, opening = "", question + INSTRUCTION + " "
    prefilled = PREFILLED["empty" if without == "direct" else without]
    ids = [*first_ids(tokenizer), *encode(tokenizer, before)]
    examples = len(ids) if before else 0
    for piece in (opening, *(tags.around(prefilled) if closed else tags.opening())):
        ids += encode(tokenizer, piece)
    check_bos(ids, tokenizer, "the prompt", len(ids))
    return Rendered(ids, examples)


def _conversation(
    tokenizer: PreTrainedTokenizerBase, question: str, style: PromptStyle, direct: bool, tags: Tags
) -> tuple[str, str]:
    """The text of the system message and the worked examples, if there are any, and of the rest."""
    if not tokenizer.chat_template:
        raise ValueError('the tokenizer has no chat template; pass prompt_style="raw".')
    unknown = [name for name in style.template if name not in tokenizer.chat_template]
    if unknown:
        raise ValueError(f"the chat template knows no option {', '.join(unknown)}; leave it out.")

    def written(turns: list[dict[str, str]], **options: bool) -> str:
        return tokenizer.apply_chat_template(turns, tokenize=False, **style.template, **options)

    turns = []
    system = style.direct_system if direct else style.system
    if system:
        system = system.replace("{open}", tags.open).replace("{close}", tags.close)
        turns.append({"role": "system", "content": system})
    for example in style.examples:
        thought = PREFILLED["empty"] if direct else example.thought + tags.before_close
        solved = "".join(tags.around(thought)) + example.answer
        turns.append({"role": "user", "content": example.question})
        turns.append({"role": "assistant", "content": solved})
    before = written(turns) if style.examples else ""
    whole = written([*turns, {"role": "user", "content": question}], add_generation_prompt=True)
    lost = [t["content"] for t in turns if t["role"] == "assistant" and t["content"] not in before]
    if lost or not whole.startswith(before):
        raise ValueError(
            "the chat template does not keep worked examples whole: it has one turn only, or takes "
            'the thoughts out of earlier ones; pass prompt_style="chat".'
        )
    opening = _without_thought(whole[len(before) :], tags)
    if tokenizer.bos_token:
        opening = opening if before else opening.removeprefix(tokenizer.bos_token)
        before = before.removeprefix(tokenizer.bos_token)
    return before, opening


def _without_thought(opening: str, tags: Tags) -> str:
    """A template's text without the thought that it opens, or opens and closes, at its end.

    White space behind a role's name is the template's and stays.
    """
    space, open_tag, close_tag = r"\s*", re.escape(tags.open), re.escape(tags.close)
    thought = f"{open_tag}{space}(?:{close_tag}{space})?$"
    return re.sub(thought, "", opening)
