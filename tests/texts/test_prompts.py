"""Prompts as a value: system message, worked examples, template options, the answer alone."""

from __future__ import annotations

import json

import pytest

from r2a_utils.collecting import Sampling, collect_completions
from r2a_utils.texts import (
    CONDITIONS,
    CUES,
    EXAMPLES,
    SEGMENTS,
    STYLES,
    Completion,
    Example,
    Problem,
    PromptStyle,
    boxes,
    encode,
    read_completions,
    read_style,
    render_prompt,
)
from r2a_utils.texts.prompts import rendered

QUESTION = "What is 2 + 2?"
WRITTEN = {
    "with_reasoning": "2 and 2 are 4.\n</think>\n\nThe answer is \\boxed{4}.",
    "without_reasoning": "The answer is \\boxed{4}.",
}


def completed(tokenizer, condition, written, **options) -> Completion:
    ids, examples = rendered(tokenizer, QUESTION, condition, **options)
    text = tuple(encode(tokenizer, written))
    return Completion("p", condition, 0, "", "", tuple(ids), text, written, True, examples=examples)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("without", ["finished", "direct"])
def test_worked_examples_are_a_segment_of_their_own(instruct_tokenizer, condition, without):
    options = {"prompt_style": "example", "without": without}
    completion = completed(instruct_tokenizer, condition, WRITTEN[condition], **options)
    trace = completion.to_trace(instruct_tokenizer)
    assert list(trace.segments) == ["bos", EXAMPLES, *SEGMENTS[1:]]
    assert trace.segment_text("prompt") == (
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    told = trace.segment_text(EXAMPLES)
    direct = condition == "without_reasoning" and without == "direct"
    for example in STYLES["example"].examples:
        assert example.question in told and example.answer in told
        assert (example.thought in told) is not direct
    assert ("at once" in told) is direct
    assert trace.answer_text.strip() == "The answer is \\boxed{4}."


@pytest.mark.parametrize("style", ["chat", "raw"])
def test_a_prompt_without_examples_has_the_six_segments(instruct_tokenizer, style):
    completion = completed(
        instruct_tokenizer, "with_reasoning", WRITTEN["with_reasoning"], prompt_style=style
    )
    assert completion.examples == 0
    assert tuple(completion.to_trace(instruct_tokenizer).segments) == SEGMENTS


def test_the_prompt_is_token_for_token_what_the_template_writes(instruct_tokenizer):
    example = Example("1 + 1?", "It is 2.", "\\boxed{2}")
    style = PromptStyle("Think in {open}{close}.", examples=(example,))
    turns = [
        {"role": "system", "content": "Think in <think></think>."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "<think>\nIt is 2.\n</think>\n\n\\boxed{2}"},
        {"role": "user", "content": QUESTION},
    ]
    expected = instruct_tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False
    )
    expected += encode(instruct_tokenizer, "<think>\n")
    assert render_prompt(instruct_tokenizer, QUESTION, prompt_style=style) == expected


def test_a_system_message_alone_is_part_of_the_prompt(instruct_tokenizer):
    ids, examples = rendered(instruct_tokenizer, QUESTION, prompt_style=PromptStyle("Be brief."))
    assert examples == 0 and "system\nBe brief." in instruct_tokenizer.decode(ids)


def test_the_options_of_a_template_are_given_to_it_and_unknown_ones_refused(tokenizer):
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = own + "{% if enable_thinking is false %}(no){% endif %}"
        off = PromptStyle(template={"enable_thinking": False})
        assert tokenizer.decode(render_prompt(tokenizer, QUESTION, prompt_style=off)).endswith(
            "(no)<think>\n"
        )
    finally:
        tokenizer.chat_template = own
    with pytest.raises(ValueError, match="knows no option enable_thinking"):
        render_prompt(tokenizer, QUESTION, prompt_style=off)


def test_a_template_that_loses_the_thoughts_of_examples_is_refused(instruct_tokenizer):
    own = instruct_tokenizer.chat_template
    try:
        instruct_tokenizer.chat_template = own.replace(
            "m.content", "m.content.split('</think>')[-1]"
        )
        with pytest.raises(ValueError, match="does not keep worked examples whole"):
            render_prompt(instruct_tokenizer, QUESTION, prompt_style="example")
    finally:
        instruct_tokenizer.chat_template = own


def test_the_answer_alone_is_asked_for_without_examples_too(instruct_tokenizer):
    ids = render_prompt(instruct_tokenizer, QUESTION, "without_reasoning", without="direct")
    text = instruct_tokenizer.decode(ids)
    assert "at once and alone" in text and text.endswith("<think>\n\n</think>\n\n")
    with pytest.raises(ValueError, match="a raw prompt has no template"):
        render_prompt(instruct_tokenizer, QUESTION, "without_reasoning", "raw", "direct")


def test_a_style_is_read_from_a_file(instruct_tokenizer, tmp_path):
    path = tmp_path / "style.json"
    example = {"question": "1 + 1?", "thought": "It is 2.", "answer": "\\boxed{2}"}
    path.write_text(json.dumps({"system": "Think.", "examples": [example]}))
    assert read_style(str(path)) == PromptStyle("Think.", examples=(Example(**example),))
    for wrong in ('{"system": 1', '{"sytem": "Think."}', '{"examples": [{"question": "?"}]}', "[]"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"style\.json is no prompt style"):
            read_style(str(path))
    with pytest.raises(ValueError, match="unknown prompt style 'chatt'"):
        read_style("chatt")


def test_the_built_in_examples_box_what_they_work_out():
    for example in STYLES["example"].examples:
        [box] = boxes(example.answer)
        assert f" {box.content}" in example.thought and box.content not in example.question
        # What is imitated is no reflection: cues are counted in what the model writes.
        assert not [cue for cue in CUES if cue in example.thought.lower()]


def test_a_collected_completion_knows_where_its_examples_end(
    make_random_model, instruct_tokenizer, tmp_path
):
    model = make_random_model("qwen2", tokenizer=instruct_tokenizer)
    path, problems = tmp_path / "kept.jsonl", [Problem("p", QUESTION)]
    options = {"path": path, "prompt_style": "example", "sampling": Sampling(4)}
    [completion] = collect_completions(model, problems, **options)
    assert [completion] == read_completions(path, problems)
    told = instruct_tokenizer.decode(completion.prompt_ids[: completion.examples])
    assert STYLES["example"].examples[-1].answer in told and QUESTION not in told
