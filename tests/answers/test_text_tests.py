"""Edited thoughts put before the bundled model and before a local server."""

from __future__ import annotations

import pytest
from local_server import serve

from r2a_utils.answers.edited_thoughts import EDITS
from r2a_utils.answers.text_tests import (
    ANOTHERS,
    MISTAKE_ARMS,
    NOT_REMOVED,
    REMOVED,
    SWAPPED,
    Thought,
    ask_edited,
    edited,
    mistaken,
    own_thoughts,
    swapped,
    with_anothers,
    with_removal,
)
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.endpoint import Endpoint
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.collecting.loading import load_problems
from r2a_utils.collecting.server import server_backend
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import thought_ids
from r2a_utils.texts.tokens import encode
from r2a_utils.texts.trace import answer_stem, forced_ids, sentences
from r2a_utils.tiny.review import leads_to

SAMPLING = Sampling(300)


@pytest.fixture(scope="module")
def problems():
    return load_problems("tiny", n=10, seed=5)


@pytest.fixture(scope="module")
def traces(tiny, problems):
    return collect_traces(tiny, problems, sampling=SAMPLING, on_unfinished="drop")


@pytest.fixture(scope="module")
def thoughts(traces, problems):
    return own_thoughts(traces, problems)


def made_up(name: str, answer: str, steps: int, text: str = "So it is.\n") -> Thought:
    meta = {"family": "arithmetic", "steps": steps}
    return Thought(Problem(name, f"{name}?", answer, meta), text, answer)


def test_a_thought_as_written_is_forced_with_the_trace_s_own_tokens(tiny, traces, thoughts):
    assert len(thoughts) == len(traces)
    for trace, thought in zip(traces, thoughts, strict=True):
        question = thought.problem.question
        ids = thought_ids(tiny.tokenizer, question, thought.text, closed=True)
        stem = answer_stem(tiny.tags)
        assert ids == forced_ids(trace, tiny.tokenizer, len(sentences(trace)), stem, tiny.tags)
        begun = thought_ids(tiny.tokenizer, question, thought.text, closed=False)
        assert begun == list(trace.token_ids[: len(begun)])


def test_a_thought_needs_a_problem_with_an_answer(traces):
    with pytest.raises(ValueError, match="no known answer for trace"):
        own_thoughts(traces, [])


def test_each_edit_is_asked_of_each_problem_and_the_text_decides(tiny, thoughts):
    closed = ask_edited(tiny, edited(thoughts), sampling=SAMPLING)
    assert list(dict.fromkeys(closed.arm)) == list(EDITS)
    assert len(closed) == len(EDITS) * len(thoughts)
    by_arm = closed.groupby("arm").same.mean()
    assert by_arm["as written"] == by_arm["reworded"] == 1
    assert by_arm["dots"] < 0.5
    assert closed.follows.isna().all() and closed.comes_back.isna().all()
    right = closed[closed.arm == "as written"].right
    assert right.tolist() == [t.answer == t.problem.answer for t in thoughts]


def test_pairs_are_alike_and_differ_in_their_answer():
    thoughts = [
        made_up("a", "1", 2), made_up("b", "1", 2), made_up("c", "4", 2), made_up("d", "5", 3),
    ]  # fmt: skip
    pairs = {(each.own.problem.id, each.partner) for each in swapped(thoughts)}
    assert pairs == {("a", "c"), ("c", "a")}  # b has no partner left, d no like one
    (first, _) = swapped(thoughts)
    assert (first.leads_to, first.text, first.arm) == ("4", thoughts[2].text, SWAPPED)
    assert swapped(thoughts[:2]) == []


def test_another_s_thought_ends_in_another_answer():
    thoughts = [made_up(name, answer, 2) for name, answer in (("a", "1"), ("b", "1"), ("c", "4"))]
    found = with_anothers(thoughts)
    assert [(e.own.problem.id, e.partner) for e in found[:2]] == [("a", "c"), ("b", "c")]
    assert found[2].partner in ("a", "b") and found == with_anothers(thoughts)
    assert with_anothers(thoughts[:2]) == []


def test_answers_follow_the_thought_that_is_put_before_the_model(tiny, thoughts):
    others = with_anothers(thoughts)
    told = ask_edited(tiny, others, sampling=SAMPLING)
    assert told.follows.all() and not told.same.any()
    assert (told.answer == [each.leads_to for each in others]).all()
    assert set(told.arm) == {ANOTHERS}


def test_a_mistake_makes_three_arms_and_the_rule_says_where_it_leads(tiny):
    meta = {"family": "arithmetic", "steps": 2, "start": 8}
    meta["operations"] = [("add", 4), ("multiply", 3)]
    text = "Okay.\nStep 1: add 4. 8+4=12, so 2.\nStep 2: times 3. 2*3=6, so 6.\nSo 6.\n"
    thought = Thought(Problem("p", "?", "6", meta), text, "6")
    found = mistaken([thought], leads_to)
    first = found[:3]
    assert [each.arm for each in first] == [a.format("an earlier step") for a in MISTAKE_ARMS]
    assert [each.closed for each in first] == [True, False, False]
    assert {each.leads_to for each in first} == {"9"}  # 3 * 3
    assert first[0].text == text.replace("8+4=12, so 2", "8+4=13, so 3")
    assert first[1].text == "Okay.\nStep 1: add 4. 8+4=13, so 3.\n"
    assert first[2].text == "Okay.\nStep 1: add 4. 8+4=12, so 2.\n"
    assert {each.leads_to for each in found[3:]} == {"7"}  # the last step itself
    assert mistaken([thought], lambda meta, written: None)[0].leads_to is None


def test_what_is_written_on_is_propagated_or_repaired_and_nothing_else(tiny, thoughts):
    opened = [each for each in mistaken(thoughts, leads_to) if not each.closed]
    told = ask_edited(tiny, opened, sampling=SAMPLING)
    wrong = told[told.arm.str.startswith("mistake")]
    assert len(wrong) >= 4
    assert (wrong.follows.astype(bool) ^ wrong.same).all()
    control = told[told.arm.str.startswith("no mistake")]
    assert control.same.all() and not control.follows.any()


def test_a_removed_sentence_is_looked_for_in_what_is_written(tiny, thoughts):
    asked = with_removal(thoughts)
    told = ask_edited(tiny, asked, sampling=SAMPLING)
    assert set(told.arm) == {REMOVED, NOT_REMOVED}
    control = told[told.arm == NOT_REMOVED]
    assert control.same.all() and not control.comes_back.any()

    def again(prompts, sampling):
        for index, _ in enumerate(prompts):
            text = f"{asked[index].removed}\n</think>\n\n\\boxed{{7}}"
            yield index, encode(tiny.tokenizer, text), True

    told = ask_edited(tiny, asked, sampling=SAMPLING, backend=again)
    assert told.comes_back.all() and set(told.answer) == {"7"}


def test_a_thought_that_never_ends_has_no_answer(tiny, thoughts):
    told = ask_edited(tiny, with_removal(thoughts), sampling=Sampling(2))
    assert told.answer.isna().all() and not told.right.any() and not told.same.any()


def test_what_has_been_asked_is_not_asked_again(tiny, thoughts, tmp_path):
    asked, path = with_anothers(thoughts), tmp_path / "edited.jsonl"
    first = ask_edited(tiny, asked, sampling=SAMPLING, path=path)

    def decode(prompts, sampling):
        pytest.fail(f"{len(prompts)} prompts were asked again")
        yield

    again = ask_edited(tiny, asked, sampling=SAMPLING, path=path, backend=decode)
    assert again.equals(first)


def test_closed_and_open_thoughts_are_not_asked_together(tiny, thoughts):
    with pytest.raises(ValueError, match="two calls"):
        ask_edited(tiny, mistaken(thoughts, leads_to), sampling=SAMPLING)
    assert ask_edited(tiny, [], sampling=SAMPLING).empty


def test_a_server_answers_what_is_put_before_it(tiny, thoughts):
    heard = []

    def complete(path, body, headers):
        prompt = tiny.tokenizer.decode(body["prompt"])
        heard.append((prompt, body["max_tokens"]))
        ends = prompt.endswith("The answer is \\boxed{")
        text = "7}." if ends else "Then 7.\n</think>\n\n\\boxed{3}"
        usage = {"prompt_tokens": len(body["prompt"])}
        return {"choices": [{"text": text, "finish_reason": "stop"}], "usage": usage}

    with serve(complete) as url:
        backend = server_backend(Endpoint(url, "m"), tiny.tokenizer)
        closed = ask_edited(tiny, with_anothers(thoughts), sampling=SAMPLING, backend=backend)
        opened = ask_edited(tiny, with_removal(thoughts), sampling=SAMPLING, backend=backend)
    assert set(closed.answer) == {"7"} and set(opened.answer) == {"3"}
    assert (closed.follows == [e.leads_to == "7" for e in with_anothers(thoughts)]).all()
    # The first requests ask for one token: they find out what the server takes.
    assert [limit for _, limit in heard[:2]] == [1, 1]
    assert {limit for _, limit in heard[2:]} == {48, 300}
    texts = [prompt for prompt, _ in heard]
    assert all(any(each.text in text for text in texts) for each in with_removal(thoughts))
