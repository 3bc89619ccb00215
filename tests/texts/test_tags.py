"""Tags are one value: whoever writes or cuts a text takes them, and nothing else spells them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import r2a_utils
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.tags import R1_TAGS, MalformedError, Tags, answer_part, split_completion
from r2a_utils.texts.trace import Trace, encode, forced_ids, sentences

PACKAGE = Path(r2a_utils.__file__).parent
MISTRAL = Tags("[THINK]", "[/THINK]", after_open="", before_close="", after_close="")


def test_no_other_file_of_the_package_spells_a_tag():
    """In a docstring or comment it may; in a text that the program uses it would be a second one.

    A chat template, which is the tokenizer's own, spells its own marks.
    """
    spelt = {R1_TAGS.open, R1_TAGS.close}
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("tags.py", "vocabulary.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in spelt:
                pytest.fail(f"{path.name}, line {node.lineno} spells {node.value}")


def test_the_default_is_what_r1_writes():
    tags = Tags()
    opening, closing = tags.open + tags.after_open, tags.before_close + tags.close
    assert f"{opening}So.{closing}{tags.after_close}" == "<think>\nSo.\n</think>\n\n"


@pytest.mark.parametrize("condition", ["with_reasoning", "without_reasoning"])
def test_other_tags_are_written_and_found_where_they_are_given(tokenizer, condition):
    ids = render_prompt(tokenizer, "2+2?", condition, "raw", tags=MISTRAL)
    written = "So 4. Yes.[/THINK]4" if condition == "with_reasoning" else "4"
    trace = Trace.from_ids([*ids, *encode(tokenizer, written)], tokenizer, tags=MISTRAL)
    assert trace.segment_text("think") == "[THINK]"
    assert trace.segment_text("end_think") == "[/THINK]"
    assert trace.answer_text == "4"
    with pytest.raises(ValueError, match="no <think>"):
        Trace.from_ids(trace.token_ids, tokenizer)


def test_a_cut_thought_is_closed_by_the_tags_that_are_given(tokenizer):
    text = "2+2?[THINK]So 4. Yes.[/THINK]4"
    trace = Trace.from_text(text, tokenizer, tags=MISTRAL)
    assert len(sentences(trace)) == 2
    cut = tokenizer.decode(forced_ids(trace, tokenizer, 1, "It is ", MISTRAL))
    assert cut.endswith("[THINK]So 4.[/THINK]It is ")


def test_a_model_carries_its_tags(tiny):
    assert tiny.tags == Tags()


@pytest.mark.parametrize(
    ("condition", "text", "answer"),
    [
        ("with_reasoning", "2 and 2.\n</think>\n\nIt is 4.", "\n\nIt is 4."),
        ("with_reasoning", "2 and 2, cut", None),
        ("with_reasoning", "2</think>4</think>5", None),
        ("with_reasoning", " \n</think>4", None),
        ("with_reasoning", "2 and 2.</think>\n", None),
        ("without_reasoning", "It is 4.", "It is 4."),
        ("without_reasoning", "It is.</think>4", None),
        ("without_reasoning", " \n", None),
    ],
)
def test_only_a_well_formed_text_has_an_answer_part(condition, text, answer):
    assert answer_part(text, condition) == answer


@pytest.mark.parametrize(
    ("condition", "text", "fault"),
    [
        ("with_reasoning", "So 4, and", "no_end"),
        ("with_reasoning", "So 4</think>4</think>", "several_ends"),
        ("with_reasoning", " \n</think>4", "no_reasoning"),
        ("with_reasoning", "So 4.</think>\n\n", "no_answer"),
        ("without_reasoning", " \n", "no_answer"),
        ("without_reasoning", "So 4.</think>4", "reopened"),
    ],
)
def test_what_is_wrong_has_a_word_and_a_sentence(condition, text, fault):
    with pytest.raises(MalformedError, match="trace 'p' ") as error:
        split_completion(text, condition, name="trace 'p'")
    assert error.value.fault == fault
