"""When most texts of a run are of no use, what is said names the rule and its likely cause."""

from __future__ import annotations

import pytest

from r2a_utils.collecting import explain_losses
from r2a_utils.runs.execution import StageFailed
from r2a_utils.runs.running import run_stages
from r2a_utils.texts import Completion

GOOD = ("Hm.\n</think>\n\n\\boxed{4}", True)
# What went wrong, as a user meets it: the text, whether it ended, and what names the cause.
CASES = {
    "too short a limit": ("Hm, and then", False, "raise max_new_tokens"),
    "an end token that is not the tokenizer's": (
        "Hm.\n</think>\n\n\\boxed{4}<|im_end|>user",
        False,
        "the end token is never met",
    ),
    "other tags": ("<reason>Hm</reason> \\boxed{4}", True, "writes other tags"),
    "a server that strips the thought": ("\\boxed{4}", True, "a server keeps the thought"),
    "a thought that is closed twice": ("a</think>b</think>4", True, "more than once"),
    "a thought that is switched off": ("\n\n</think>\n\n4", True, "thinking is switched off"),
    "no answer": ("Hm.</think>\n", True, "no answer follows"),
}


def completions(*texts, condition="with_reasoning") -> list[Completion]:
    return [
        Completion(str(i), condition, 0, "m", "s", (1,), tuple(map(ord, text)), text, finished)
        for i, (text, finished) in enumerate(texts)
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_rule_that_most_fail_is_named_with_its_cause(name):
    text, finished, cause = CASES[name]
    lost = (text, finished)
    told = explain_losses(completions(GOOD, lost, lost, lost))
    assert told.startswith("3 of 4 texts with reasoning") and cause in told
    assert explain_losses(completions(GOOD, GOOD, lost, lost)) == ""
    with pytest.raises(ValueError, match=r"^not one well-formed trace: 2 of 2 texts") as refusal:
        explain_losses(completions(lost, lost))
    assert cause in str(refusal.value)


def test_without_reasoning_a_thought_that_is_closed_again_is_told_and_refuses_nothing():
    told = explain_losses(completions(GOOD, GOOD, condition="without_reasoning"))
    assert "2 of 2 texts without reasoning close" in told and "prompt had closed already" in told


def test_texts_that_are_all_of_use_need_no_word():
    assert explain_losses(completions(GOOD, GOOD)) == ""


def test_stage_01_ends_in_this_sentence(tmp_path):
    settings = {"n_problems": "3", "max_new_tokens": "5"}
    with pytest.raises(StageFailed, match=r"not one well-formed trace: 3 of 3 .* max_new_tokens"):
        run_stages(tmp_path / "run", ["01"], settings=settings, progress=False)
