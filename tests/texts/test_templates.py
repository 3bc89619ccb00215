"""Prompts are those of the families' own templates, token for token, thinking and not.

The templates are shortened: what they write for one question and a system message is what the
published ones write, in fewer words; tools and longer talks are left out.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import transformers.utils.chat_template_utils as templating
from tokenizers import AddedToken
from vocabularies import merging

from r2a_utils.texts.prompts import PREFILLED, PromptStyle, read_style, render_prompt
from r2a_utils.texts.tags import KNOWN_TAGS, R1_TAGS, Tags, find_tags, read_tags
from r2a_utils.texts.templates import TODAY
from r2a_utils.texts.tokens import encode
from r2a_utils.texts.trace import Trace

TEMPLATES = Path(__file__).with_name("templates")
SQUARE, SEED, THOUGHT, CHANNELS = KNOWN_TAGS[1:]
QUESTION = "What do <think> and </think> mean in 2 + 2?"


class Family:
    """A template with the tokens that its vocabulary has for it."""

    def __init__(
        self, tags: Tags, tokens: str = "", opens: bool = False, native: str | None = None
    ):
        self.tags, self.tokens, self.opens, self.native = tags, tokens.split(), opens, native


NO_THOUGHT = "<think>\n\n</think>\n\n"
THINK = "<think> </think>"
FAMILIES = {
    "qwen3": Family(R1_TAGS, THINK, native=NO_THOUGHT),
    "qwen3-thinking-2507": Family(R1_TAGS, THINK, opens=True),
    "qwen3.5-small": Family(R1_TAGS, THINK, opens=True, native=NO_THOUGHT),
    "smollm3": Family(R1_TAGS, native="<think>\n\n</think>\n"),
    "phi-4-mini-reasoning": Family(R1_TAGS),
    "ministral-3-reasoning": Family(SQUARE, "[THINK] [/THINK] <s>"),
    "gpt-oss": Family(CHANNELS, "<|start|> <|channel|> <|message|> <|end|> <|startoftext|>"),
    "seed-oss": Family(SEED, "<seed:think> </seed:think> <seed:bos>"),
    "nemotron-super-1.5": Family(R1_TAGS, "<|begin_of_text|>", native=NO_THOUGHT),
    "exaone-deep": Family(THOUGHT, opens=True),
    "olmo-3-think": Family(R1_TAGS, opens=True),
    "r1-distill": Family(R1_TAGS, f"{THINK} <｜begin▁of▁sentence｜>", opens=True),
}
BOS = ("<s>", "<|startoftext|>", "<seed:bos>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>")


def tokenizer_of(name: str, tokens: list[str]):
    """Bytes with Qwen's merges, a family's own whole tokens, its BOS and its template."""
    tokenizer = merging()
    tokenizer.add_tokens([AddedToken(token, special=token in BOS) for token in tokens])
    for token in tokens:
        if token in BOS:
            tokenizer.bos_token = token
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    return tokenizer


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family):
    [name] = [name for name, known in FAMILIES.items() if known is family]
    return tokenizer_of(name, family.tokens)


def on_that_day(template: str) -> str:
    for form, written in (("%Y-%m-%d", "2025-12-01"), ("%d %B %Y", "01 December 2025")):
        template = template.replace(f'strftime_now("{form}")', f'"{written}"')
    assert "strftime_now" not in template
    return template


def own_ids(tokenizer, system="", **options) -> list[int]:
    """What transformers makes of the question, on the day that templates are told."""
    messages = [{"role": "system", "content": system}] * bool(system)
    messages.append({"role": "user", "content": QUESTION})
    return tokenizer.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        chat_template=on_that_day(tokenizer.chat_template),
        **options,
    )


def test_there_is_a_family_for_every_template():
    named = {path.stem for path in TEMPLATES.glob("*.jinja")}
    assert named == FAMILIES.keys() | {"llama-nemotron"}


def test_the_tags_are_found_in_the_template_and_the_vocabulary(family, tokenizer):
    assert find_tags(tokenizer.chat_template, tokenizer.get_vocab()) == family.tags


@pytest.mark.parametrize("tags", KNOWN_TAGS[1:4], ids=lambda tags: tags.open)
def test_tags_that_no_template_names_are_found_in_the_vocabulary(tags):
    assert find_tags("", {tags.open: 1, tags.close: 2}) == tags
    assert find_tags("", {tags.open: 1}) == R1_TAGS
    assert find_tags(R1_TAGS.open, {tags.open: 1, tags.close: 2}) == R1_TAGS
    both = f"{R1_TAGS.open} {tags.open}"
    assert find_tags(both, {tags.open: 1, tags.close: 2}) == tags


@pytest.mark.parametrize("system", ["", "Box your answer."])
def test_a_prompt_is_the_templates_own_with_the_opening_tag_where_it_lacks(
    family, tokenizer, system
):
    ids = render_prompt(
        tokenizer, QUESTION, tags=family.tags, prompt_style=read_style("chat", system)
    )
    thinking = {"enable_thinking": True} if "enable_thinking" in tokenizer.chat_template else {}
    own = own_ids(tokenizer, system, **thinking)
    opening = family.tags.open + family.tags.after_open
    assert ids == own + ([] if family.opens else encode(tokenizer, opening))
    assert tokenizer.decode(ids).rstrip().endswith(family.tags.open)
    assert system in tokenizer.decode(ids)


def test_what_is_written_behind_a_prompt_is_cut_at_its_own_tags(family, tokenizer):
    ids, tags = render_prompt(tokenizer, QUESTION, tags=family.tags), family.tags
    written = f"So 4.{tags.before_close}{tags.close}{tags.after_close}It is 4."
    ids, prompt_length = [*ids, *encode(tokenizer, written)], len(ids)
    trace = Trace.from_ids(ids, tokenizer, tags, prompt_length)
    assert trace.reasoning_text.strip() == "So 4."
    assert trace.answer_text.strip() == "It is 4."
    assert trace.segment_text("think").strip() == tags.open
    assert trace.segment_text("end_think").strip().endswith(tags.close)
    assert QUESTION in trace.segment_text("prompt")


@pytest.mark.parametrize("without", PREFILLED)
def test_a_thought_is_prefilled_and_closed_behind_the_same_template(family, tokenizer, without):
    tags = family.tags
    asked = {"condition": "without_reasoning", "without": without, "tags": tags}
    ids = render_prompt(tokenizer, QUESTION, **asked)
    text, thinking = (
        tokenizer.decode(i) for i in (ids, render_prompt(tokenizer, QUESTION, tags=tags))
    )
    opening = thinking[: thinking.rfind(tags.open)]
    space = thinking[thinking.rfind(tags.open) + len(tags.open) :]
    thought = f"{tags.open}{space}{PREFILLED[without]}{tags.close}{tags.after_close}"
    assert text == opening + thought
    written = [*ids, *encode(tokenizer, "It is 4.")]
    trace = Trace.from_ids(written, tokenizer, tags, len(ids), condition="without_reasoning")
    # Where the tag's last token holds the line breaks too, it is all that an empty thought has.
    assert trace.reasoning_text.lstrip(">").strip() == PREFILLED[without].strip()


def test_native_is_the_familys_own_way_not_to_think_or_refused(family, tokenizer):
    asked = {"condition": "without_reasoning", "without": "native", "tags": family.tags}
    if not family.native:
        with pytest.raises(ValueError, match=r"template .*thinking.*choose another way"):
            render_prompt(tokenizer, QUESTION, **asked)
        return
    ids = render_prompt(tokenizer, QUESTION, **asked)
    own = own_ids(tokenizer, "/no_think")
    if "enable_thinking is" in tokenizer.chat_template:
        own = own_ids(tokenizer, enable_thinking=False)
    assert ids == own
    assert tokenizer.decode(ids).endswith(family.native)
    trace = Trace.from_ids(
        [*ids, *encode(tokenizer, "It is 4.")],
        tokenizer,
        family.tags,
        len(ids),
        condition="without_reasoning",
    )
    assert trace.reasoning_text.lstrip(">").strip() == ""
    assert trace.answer_text.strip() == "It is 4."


def test_a_switch_in_the_system_message_is_turned_and_the_thought_closed():
    """Llama-Nemotron's template knows of no switch; the model learnt two words."""
    tokenizer = tokenizer_of("llama-nemotron", ["<|begin_of_text|>"])
    style = PromptStyle("detailed thinking on\n\nBox it.")
    asked = {"condition": "without_reasoning", "without": "native"}
    on, off = (
        tokenizer.decode(render_prompt(tokenizer, QUESTION, prompt_style=style, **options))
        for options in ({}, asked)
    )
    assert on.replace("thinking on", "thinking off") == off.removesuffix("\n</think>\n\n")
    with pytest.raises(ValueError, match="no switch for thinking"):
        render_prompt(tokenizer, QUESTION, **asked)


def test_a_switch_that_leaves_the_thought_open_is_refused_and_one_that_closes_it_is_taken():
    family = FAMILIES["seed-oss"]
    tokenizer = tokenizer_of("seed-oss", family.tokens)
    asked = {"condition": "without_reasoning", "without": "native", "tags": SEED}
    with pytest.raises(ValueError, match="without a closed thought"):
        render_prompt(tokenizer, QUESTION, **asked)
    closing = tokenizer.chat_template.replace(
        '"<seed:cot_budget_reflect>"', '"The budget is 0." + think_end'
    )
    tokenizer.chat_template = closing
    ids = render_prompt(tokenizer, QUESTION, **asked)
    assert ids == own_ids(tokenizer, thinking_budget=0)


@pytest.mark.parametrize("name", ["gpt-oss", "smollm3"])
def test_a_prompt_is_the_same_on_every_day(monkeypatch, name):
    tokenizer, tags = tokenizer_of(name, FAMILIES[name].tokens), FAMILIES[name].tags

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1)

    first = render_prompt(tokenizer, QUESTION, tags=tags)
    monkeypatch.setattr(templating, "datetime", Later)
    asked = [{"role": "user", "content": QUESTION}]
    assert "2031" in tokenizer.apply_chat_template(asked, tokenize=False)
    assert render_prompt(tokenizer, QUESTION, tags=tags) == first
    assert str(TODAY.year) in tokenizer.decode(first)


def test_a_bos_that_the_template_does_not_write_is_not_put_before_it():
    """gpt-oss has one, and never reads it."""
    tokenizer = tokenizer_of("gpt-oss", FAMILIES["gpt-oss"].tokens)
    ids = render_prompt(tokenizer, QUESTION, tags=CHANNELS)
    assert tokenizer.bos_token_id not in ids
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|start|>")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[-1].content }}", "leaves out 'Box it.'"),
        ("{{ messages[0].content }}", "leaves out 'What do"),
        ("{{ raise_exception('no system') }}", "refuses the messages: no system"),
    ],
)
def test_a_message_that_the_template_loses_or_refuses_is_told(template, said):
    tokenizer = merging()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=said):
        render_prompt(tokenizer, QUESTION, prompt_style=PromptStyle("Box it."))


def test_the_raw_prompt_has_no_template_to_switch_and_a_system_message_as_text():
    with pytest.raises(ValueError, match="a raw prompt has no template"):
        render_prompt(merging(), "q", "without_reasoning", "raw", "native")
    ids = render_prompt(merging(), "q", prompt_style=read_style("raw", "Box it."))
    assert merging().decode(ids).startswith("Box it.\n\nq Please reason")


def test_tags_are_read_as_a_run_writes_them():
    assert read_tags({"open": "[THINK]", "close": "[/THINK]"}) == SQUARE
    assert read_tags({"open": "<why>", "close": "</why>"}) == Tags("<why>", "</why>")
    given = {"open": "<why>", "close": "</why>", "after_open": ""}
    assert read_tags(given).after_open == ""
    with pytest.raises(ValueError, match="must differ"):
        read_tags({"open": "|", "close": "|"})
    for wrong in (
        {"open": "[THINK]"},
        {"open": "a", "close": "b", "shut": "c"},
        {"open": 1, "close": 2},
    ):
        with pytest.raises(ValueError, match=r"write \{open:"):
            read_tags(wrong)
