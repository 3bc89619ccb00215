"""Prompts: what is put before a model, up to where it goes on writing.

This file knows how a question becomes a prompt, with reasoning and without. It knows tokenizers and
their templates, and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.templates import in_template
from r2a_utils.texts.tokens import check_bos, encode, first_ids
from r2a_utils.texts.trace import CONDITIONS, answer_stem

# The paper's raw prompt and its prefilled thought.
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."
PREFILLED = {"finished": "Okay, I think I have finished thinking.\n", "empty": "\n"}
# What the condition without reasoning puts in the reasoning's place.
WITHOUT = (*PREFILLED, "direct", "native")

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
        "She sells 29 of them, so 48 - 29 = 19 are left.",
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
    is `raw` is the question and the instruction, without a template; a system message is text.
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


def read_style(prompt_style: str | PromptStyle, system: str = "") -> PromptStyle:
    """The style of a name in `STYLES`, or of a JSON file with the fields of a `PromptStyle`.

    In a file, `examples` are objects with question, thought and answer. A `system` message takes
    the place of the style's own. Raises ValueError for an unknown name or a file that says
    something else. Stages 00 to 05.
    """
    if system:
        return replace(read_style(prompt_style), system=system)
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
    """Token ids of a prompt, up to where the model goes on writing.

    `prompt_style` is "chat" (the tokenizer's own template, token for token), "raw" (the paper's:
    BOS, the question, the instruction to reason and to box the answer, no template; a system
    message stands as text in front), "example" (a system message and worked examples, for a model
    that thinks between tags when asked), a JSON file or a `PromptStyle`. With reasoning, the prompt
    ends in the opening tag, which is added where the template lacks it. Without, it ends in a
    closed thought: `without` is "finished" (the paper's sentence), "empty", "direct", where the
    system message and the examples ask for the answer alone as well, or "native", which switches
    thinking off in the model's own way. Where a template writes no BOS, its first token stands in
    the segment `bos`.

    Raises ValueError for an unknown choice, a tokenizer without a template, a template that writes
    BOS twice, knows nothing of an option, has no switch for "native", refuses or leaves out a
    message, or loses what an example thinks. Stage 01 uses it.
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
    way = without if condition == "without_reasoning" else ""
    if style.raw:
        if way in ("direct", "native"):
            raise ValueError(
                'a raw prompt has no template: pass without="empty", or prompt_style="chat".'
            )
        told = f"{style.system}\n\n" if style.system else ""
        asked = encode(tokenizer, told + question + INSTRUCTION + " ")
        before, ids = "", [*first_ids(tokenizer), *asked]
        thought = _thought(tags, tags.after_open, way)
    else:
        before, text = _conversation(tokenizer, question, style, way, tags)
        text, thought = _with_thought(text, question, way, tags)
        ids = [*encode(tokenizer, before), *encode(tokenizer, text)]
    ids += encode(tokenizer, thought)
    check_bos(ids, tokenizer, "the prompt", len(ids))
    return Rendered(ids, len(encode(tokenizer, before)))


def thought_ids(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    thought: str,
    closed: bool,
    prompt_style: str | PromptStyle = "chat",
    tags: Tags = R1_TAGS,
) -> list[int]:
    """Token ids of a question's prompt and a thought of any text that the model did not write so.

    `closed`: the thought ends, and `answer_stem` forces the answer; otherwise the model goes on
    writing it. Raises ValueError as `render_prompt` does. Stage 02b.
    """
    pieces = [thought]
    if closed:
        line = "" if thought.endswith(tags.before_close) else tags.before_close
        pieces = [thought + line, tags.close, answer_stem(tags)]
    ids = render_prompt(tokenizer, question, CONDITIONS[0], prompt_style, tags=tags)
    return [*ids, *(i for piece in pieces for i in encode(tokenizer, piece))]


def _conversation(
    tokenizer: PreTrainedTokenizerBase, question: str, style: PromptStyle, way: str, tags: Tags
) -> tuple[str, str]:
    """The text of the system message and the worked examples, if there are any, and of the rest."""
    asked = {"thinks": way != "native", "options": style.template}
    turns = []
    system = style.direct_system if way == "direct" else style.system
    if system:
        system = system.replace("{open}", tags.open).replace("{close}", tags.close)
        turns.append({"role": "system", "content": system})
    for example in style.examples:
        thought = PREFILLED["empty"] if way == "direct" else example.thought + tags.before_close
        turns.append({"role": "user", "content": example.question})
        turns.append({"role": "assistant", "content": tags.around(thought) + example.answer})
    before = in_template(tokenizer, turns, goes_on=False, **asked) if style.examples else ""
    lost = [t["content"] for t in turns if t["role"] == "assistant" and t["content"] not in before]
    whole = (
        ""
        if lost
        else in_template(tokenizer, [*turns, {"role": "user", "content": question}], **asked)
    )
    if not whole.startswith(before):
        raise ValueError(
            "the chat template does not keep worked examples whole: it has one turn only, or takes "
            'the thoughts out of earlier ones; pass prompt_style="chat".'
        )
    return before, whole[len(before) :]


def _with_thought(text: str, question: str, way: str, tags: Tags) -> tuple[str, str]:
    """A template's text, and what is put behind it to open a thought, or to close one (`way`).

    What the template itself opens, or closes as its way not to think, stays as it is. An empty
    thought that it closes in any case is written anew. Where a family is only told not to think and
    its template closes nothing, the empty thought is put there.
    """
    before, own = _parted(text, tags)
    closes = tags.close in own
    if own and closes == (way == "native") and way in ("", "native"):
        return text, ""
    if way == "native":
        behind = text[text.rfind(question.strip()) + len(question.strip()) :]
        if tags.open in behind or tags.close in behind:
            raise ValueError(
                "this model's template switches thinking off without a closed thought; choose "
                "another way for the condition without reasoning (`without`)."
            )
    space = own.removeprefix(tags.open) if own and not closes else tags.after_open
    return before, _thought(tags, space, way)


def _thought(tags: Tags, space: str, way: str) -> str:
    """An opened thought, with `space` behind its tag; closed where it stands for no reasoning."""
    filled = PREFILLED.get(way, PREFILLED["empty"])
    return tags.open + space + (filled + tags.close + tags.after_close if way else "")


def _parted(text: str, tags: Tags) -> tuple[str, str]:
    """A template's text, and the thought that it opens, or opens and closes, at its end.

    Tags elsewhere, as in a question about them, are text.
    """
    start = text.rfind(tags.open)
    inside, closed, after = text[start + len(tags.open) :].partition(tags.close)
    if start < 0 or (after if closed else inside).strip():
        return text, ""
    return text[:start], text[start:]
