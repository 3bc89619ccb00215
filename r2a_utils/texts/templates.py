"""Chat templates: what a tokenizer's own template makes of the turns of a talk.

This file knows by which switch a template turns thinking on and off, and keeps today's date out of
prompts. It knows no tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, meta
from transformers import PreTrainedTokenizerBase

# What a template that writes today's date is told, so that a prompt is the same on every day.
TODAY = date(2025, 12, 1)
_DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")

# The switches that templates have: options, with their values for thinking and for not thinking,
# and words that the system message holds.
_OPTIONS = {"enable_thinking": (True, False), "thinking": (True, False), "thinking_budget": (-1, 0)}
_WORDS = {
    "detailed thinking off": re.compile(r"detailed thinking (?:on|off)"),
    "/no_think": re.compile(r"(?<!<)/(?:no_)?think\b"),
}

Turns = list[dict[str, str]]


def in_template(
    tokenizer: PreTrainedTokenizerBase,
    turns: Turns,
    *,
    thinks: bool = True,
    goes_on: bool = True,
    options: Mapping[str, Any] = {},
) -> str:
    """The text of `turns` in the tokenizer's chat template; `goes_on`: up to the model's own turn.

    The template's switch is set so that the model `thinks`, or does not; `options` go to the
    template as they are, and come before the switch for thinking. A template that asks for today's
    date is told `TODAY`. Raises ValueError for a tokenizer without a template, an option that it
    does not know, turns that it refuses or leaves out, and a template without a switch where
    thinking is to be off. Prompts of style "chat" are written so (stages 00 to 05).
    """
    if not tokenizer.chat_template:
        raise ValueError('the tokenizer has no chat template; pass prompt_style="raw".')
    template = tokenizer.get_chat_template()
    if unknown := [name for name in options if name not in template]:
        raise ValueError(f"the chat template knows no option {', '.join(unknown)}; leave it out.")
    switches = {name: values[not thinks] for name, values in _switches(template).items()}
    if not thinks and not switches:
        turns = _told_not_to_think(template, turns)
    try:
        text = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=goes_on,
            chat_template=_DATE.sub(lambda call: repr(TODAY.strftime(call[2])), template),
            **(switches | dict(options) if thinks else dict(options) | switches),
        )
    except TemplateError as error:
        raise ValueError(f"the tokenizer's chat template refuses the messages: {error}") from error
    for turn in turns if goes_on else ():
        said = _without_words(turn["content"]) if turn["role"] == "system" else turn["content"]
        if turn["role"] != "assistant" and said.strip() not in text:
            raise ValueError(f"the tokenizer's chat template leaves out {said.strip()[:60]!r}.")
    return text


@lru_cache
def _switches(template: str) -> dict[str, tuple]:
    """The options by which a template switches thinking, with their values for on and off."""
    read = meta.find_undeclared_variables(Environment().parse(template))
    return {name: values for name, values in _OPTIONS.items() if name in read}


def _told_not_to_think(template: str, turns: Turns) -> Turns:
    """The turns with the words that switch thinking off, where the family has such words."""
    system = "".join(turn["content"] for turn in turns if turn["role"] == "system")
    for off, words in _WORDS.items():
        if off in template or words.search(system):
            told = f"{off}\n\n{_without_words(system)}".strip()
            others = [turn for turn in turns if turn["role"] != "system"]
            return [{"role": "system", "content": told}, *others]
    raise ValueError(
        "this model's template has no switch for thinking; choose another way for the condition "
        "without reasoning (`without`)."
    )


def _without_words(system: str) -> str:
    """A system message without the words of a switch, which a template may take out of it."""
    for words in _WORDS.values():
        system = words.sub("", system)
    return system.strip()
