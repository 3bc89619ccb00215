"""Where a thought begins and ends: looked for from the prompt's end, whatever the prompt holds."""

from __future__ import annotations

import pandas as pd
import pytest
from vocabularies import merging, splitting

from r2a_utils.texts.completions import Completion
from r2a_utils.texts.prompts import PREFILLED, render_prompt
from r2a_utils.texts.tags import answer_part
from r2a_utils.texts.trace import CONDITIONS, Trace, encode

BLOCK = "{{ '<think>\\n\\n</think>\\n\\n' }}"
TURN = "{{ '<|user|>' + messages[0]['content'] + '<|end|>\\n<|assistant|>\\n' }}"
# The ends of prompts that chat templates write: nothing, an opened thought, a closed empty one.
TEMPLATES = {
    "opens nothing": TURN,
    "opens a thought": TURN + "{{ '<think>\\n' }}",
    "closes an empty thought": TURN + BLOCK,
    "tells of the tags": "{{ 'Think in <think> and </think>.\\n' }}" + TURN,
    "is a turn of its own": "{{ '<think> or </think>?' }}" + TURN + BLOCK,
}


def completed(tokenizer, question, condition, written, **options) -> Completion:
    prompt = render_prompt(tokenizer, question, condition, **options)
    ids = tuple(encode(tokenizer, written))
    return Completion("p", condition, 0, "", "", tuple(prompt), ids, tokenizer.decode(ids), True)


WRITTEN = {"with_reasoning": "So 4.\n</think>\n\nIt is 4.", "without_reasoning": "It is 4."}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("bos", ["<|bos|>", None])
def test_the_prompts_own_tags_are_never_the_thoughts(bos, template, condition):
    tokenizer = merging(bos)
    tokenizer.chat_template = ("{{ bos_token }}" if bos else "") + TEMPLATES[template]
    question = "What do <think> and </think> mean?"
    trace = completed(tokenizer, question, condition, WRITTEN[condition]).to_trace(tokenizer)
    thought = "So 4.\n" if condition == "with_reasoning" else PREFILLED["finished"]
    assert trace.reasoning_text == thought  # the line break before it is part of the tag's token
    assert trace.answer_text.strip() == "It is 4."
    prompt = trace.segment_text("bos") + trace.segment_text("prompt")
    assert prompt.endswith(question + "<|end|>\n<|assistant|>\n")
    if condition == "with_reasoning":
        assert trace.tokens[trace.prompt_length - 1] == ">\n"
    else:
        assert trace.segments["answer"].start == trace.prompt_length


@pytest.mark.parametrize("opens", ["", "{{ '<think>\\n' }}"])
def test_a_prompt_begins_and_ends_as_its_template_writes_it(opens):
    """No padding token in front of a model without BOS; the line break behind its role stays."""
    tokenizer = merging()
    tokenizer.chat_template = TURN + opens
    ids = render_prompt(tokenizer, "2+2?")
    assert tokenizer.decode(ids) == "<|user|>2+2?<|end|>\n<|assistant|>\n<think>\n"


def test_a_tag_of_several_tokens_is_found_where_it_merges_with_its_neighbours():
    tokenizer = merging("<|bos|>")
    completion = completed(
        tokenizer, "2+2?", "with_reasoning", "So 4.</think>\n\n4", prompt_style="raw"
    )
    merged = {"</think>\n\n", ".</think>\n\n"}
    trace = completion.to_trace(tokenizer)
    assert trace.segment_text("end_think") in merged
    assert (trace.reasoning_text, trace.answer_text) == ("So 4", "4")
    assert trace.text.endswith("<think>\nSo 4.</think>\n\n4")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_tag_that_is_split_inside_its_word_is_found_by_its_text(condition):
    """What looks like a tag's half in the question or the thought is none."""
    tokenizer = splitting()
    written = "<think 4.\n</think>\n\n4" if condition == "with_reasoning" else "4 ink>"
    question = "<think, 2+2?"
    completion = completed(tokenizer, question, condition, written, prompt_style="raw")
    trace = completion.to_trace(tokenizer)
    think = trace.tokens[trace.segments["think"]]
    assert tuple(think) == ("<th", "ink>")
    assert tuple(trace.tokens[trace.segments["end_think"]])[:4] == ("<", "/", "th", "ink>")
    assert question in trace.segment_text("prompt")
    assert trace.answer_text.strip() == written.rpartition("\n")[2]
    thought = "<think 4.\n" if condition == "with_reasoning" else PREFILLED["finished"]
    assert trace.reasoning_text.strip() == thought.strip()


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(
    "written",
    ["So 4.</think>4", "</think>4", "So 4.", "a</think>b</think>c", "So.</think> \n", " \n", ""],
)
def test_the_funnel_and_the_reader_of_traces_agree(tokenizer, condition, written):
    completion = completed(tokenizer, "2+2?", condition, written)
    expected = answer_part(completion.text, condition)
    if expected is None:
        with pytest.raises(ValueError, match="trace 'p'"):
            completion.to_trace(tokenizer)
    else:
        assert completion.to_trace(tokenizer).answer_text.strip() == expected.strip()


def test_a_prompt_that_opens_no_thought_is_refused(tokenizer):
    ids = [tokenizer.bos_token_id, *encode(tokenizer, "2+2?")]
    rest = encode(tokenizer, "So.</think>4")
    with pytest.raises(ValueError, match="does not end in <think>"):
        Trace.from_ids([*ids, *rest], tokenizer, prompt_length=len(ids))
    with pytest.raises(ValueError, match="does not end in a closed thought"):
        Trace.from_ids(
            [*ids, *encode(tokenizer, "4")],
            tokenizer,
            prompt_length=len(ids),
            condition="without_reasoning",
        )


def test_a_whole_text_with_tags_in_its_question_is_refused(tokenizer):
    """Which of them is the thought's cannot be told from the text."""
    text = "What is <think>?<think>\nA tag.</think>A tag"
    with pytest.raises(ValueError, match=r"has 2 <think>.*prompt_length"):
        Trace.from_text(text, tokenizer)


@pytest.mark.parametrize("style", ["chat", "raw"])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("without", PREFILLED)
@pytest.mark.parametrize("opens", [False, True])
def test_r1s_own_prompts(r1_tokenizer, style, condition, without, opens):
    """Both templates that were published: one opens the thought, one does not."""
    own = r1_tokenizer.chat_template
    try:
        if opens:
            r1_tokenizer.chat_template = own + "{{ '<think>\\n' }}"
        ids = render_prompt(r1_tokenizer, "2+2?", condition, style, without)
    finally:
        r1_tokenizer.chat_template = own
    assert ids.count(r1_tokenizer.bos_token_id) == 1
    text = r1_tokenizer.decode(ids[1:])
    before, _, thought = text.partition("<think>")
    if style == "chat":
        assert before == "<｜User｜>2+2?<｜Assistant｜>"
    closed = condition == "without_reasoning"
    assert thought == (f"\n{PREFILLED[without]}</think>\n\n" if closed else "\n")
    if closed:
        assert ids[-2:] == [151649, 271]


def test_the_authors_traces_survive_r1s_tokenizer(r1_tokenizer, paper_data):
    traces = pd.read_parquet(paper_data / "math500_greedy_traces.parquet")
    for text in traces["response"]:
        trace = Trace.from_text(text, r1_tokenizer)
        assert trace.text == text.removesuffix("<｜end▁of▁sentence｜>")
        assert [len(trace.token_ids[trace.segments[s]]) for s in ("bos", "think", "end_think")] == [
            1, 1, 1,
        ]  # fmt: skip
