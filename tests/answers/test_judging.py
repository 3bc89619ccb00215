"""A judge behind a real local server: what it says is scored only where it obeys."""

from __future__ import annotations

import json
import threading

import pandas as pd
import pytest
from local_server import serve

from r2a_utils.answers.comparison import paired_scores
from r2a_utils.answers.judging import Judge, judge_answers, read_verdict, write_prompt
from r2a_utils.collecting.endpoint import Endpoint, EndpointError
from r2a_utils.texts.problem import Problem

PROBLEMS = [
    Problem("p", "Write a poem.", meta={"area": "Creative Tasks", "checklist": ["Does it rhyme?"]}),
    Problem("q", "Plan a {trip}.", meta={"area": "Reasoning & Planning", "checklist": []}),
]


def answers(*rows) -> pd.DataFrame:
    """Rows of (problem, condition, text); a text None is an answer that never came."""
    return pd.DataFrame(
        {
            "problem_id": problem,
            "condition": condition,
            "sample": 0,
            "finished": text is not None,
            "answer_text": text,
        }
        for problem, condition, text in rows
    )


def said(text: str) -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def verdict(score) -> str:
    return json.dumps({"strengths": "short", "weaknesses": "none", "score": score})


class LocalJudge:
    """A judge that scores an answer by its length, or says what a test tells it to say."""

    def __init__(self, say=None):
        self.say = say or (lambda body: verdict(self.score(body)))
        self.bodies: list[dict] = []
        self._lock = threading.Lock()

    @staticmethod
    def score(body: dict) -> int:
        prompt = body["messages"][0]["content"]
        answer = prompt.split("<answer>\n")[1].split("\n</answer>")[0]
        return min(10, 1 + len(answer.split()))

    def __call__(self, path, body, headers):
        assert path == "/v1/chat/completions"
        with self._lock:
            self.bodies.append(body)
        return said(self.say(body))


def judge_at(url: str, **settings) -> Judge:
    return Judge(Endpoint(url, "local-judge", delay_s=0.01, retries=1, timeout_s=10), **settings)


ROWS = answers(
    ("p", "with_reasoning", "Rose, nose, toes."),
    ("p", "without_reasoning", "No."),
    ("q", "with_reasoning", "Pack and go there now"),
    ("q", "without_reasoning", None),
)


def test_each_answer_is_scored_and_stamped(tmp_path):
    local = LocalJudge()
    with serve(local) as url:
        judge = judge_at(url, temperature=0.5)
        frame = judge_answers(judge, ROWS, PROBLEMS, tmp_path / "cache.jsonl")
    assert frame["verdict"].tolist() == ["scored", "scored", "scored", "unanswered"]
    assert frame["score"].tolist()[:3] == [4.0, 2.0, 6.0] and frame["score"].isna().sum() == 1
    assert frame["problem_id"].tolist() == ["p", "p", "q", "q"]
    assert frame["area"].tolist() == ["Creative Tasks"] * 2 + ["Reasoning & Planning"] * 2
    assert set(frame["judge"]) == {judge.stamp}
    assert "local-judge" in judge.stamp and "temperature 0.5" in judge.stamp
    assert len(local.bodies) == 3  # nobody asks about an answer that never came
    assert {body["model"] for body in local.bodies} == {"local-judge"}
    assert {body["temperature"] for body in local.bodies} == {0.5}
    row = paired_scores(frame).iloc[0]
    assert (row["n"], row["score_with"], row["score_without"]) == (1, 4, 2)


def test_the_prompt_holds_question_answer_and_checklist():
    prompt = write_prompt(PROBLEMS[0], " Rose {nose}. ")
    assert "<question>\nWrite a poem.\n</question>" in prompt
    assert "<answer>\nRose {nose}.\n</answer>" in prompt
    assert "- Does it rhyme?" in prompt
    assert "Plan a {trip}." in write_prompt(PROBLEMS[1], "Go.")


def test_nothing_is_asked_twice(tmp_path):
    local, cache = LocalJudge(), tmp_path / "cache.jsonl"
    twins = answers(("p", "with_reasoning", "Same."), ("p", "without_reasoning", "Same."))
    with serve(local) as url:
        first = judge_answers(judge_at(url), twins, PROBLEMS, cache)
        assert len(local.bodies) == 1  # by content: the same answer in both conditions
        again = judge_answers(judge_at(url), twins, PROBLEMS, cache)
        assert len(local.bodies) == 1
        pd.testing.assert_frame_equal(first, again)
        # Another answer, another checklist and other settings are other questions.
        other = answers(("p", "with_reasoning", "Other."), ("p", "without_reasoning", "Same."))
        judge_answers(judge_at(url), other, PROBLEMS, cache)
        assert len(local.bodies) == 2
        stricter = [Problem("p", "Write a poem.", None, {"checklist": ["Is it long?"]})]
        judge_answers(judge_at(url), twins, stricter, cache)
        assert len(local.bodies) == 3
        judge_answers(judge_at(url, temperature=1.0), twins, PROBLEMS, cache)
        assert len(local.bodies) == 4


def test_a_judge_that_disobeys_once_is_corrected(tmp_path):
    def say(body):
        return verdict(9) if len(body["messages"]) > 1 else "I like it! 9 of 10."

    local = LocalJudge(say)
    with serve(local) as url:
        frame = judge_answers(judge_at(url), ROWS.iloc[:1], PROBLEMS, tmp_path / "c.jsonl")
    assert frame["score"].tolist() == [9.0]
    assert frame["replies"].tolist() == [["I like it! 9 of 10.", verdict(9)]]
    correction = local.bodies[1]["messages"]
    assert [m["role"] for m in correction] == ["user", "assistant", "user"]
    assert "it is not JSON" in correction[2]["content"]


def test_rubbish_is_counted_kept_and_never_scored(tmp_path):
    local, cache = LocalJudge(lambda body: "9/10, well done"), tmp_path / "cache.jsonl"
    with serve(local) as url:
        frame = judge_answers(judge_at(url, attempts=2), ROWS, PROBLEMS, cache)
        assert len(local.bodies) == 6
        judge_answers(judge_at(url, attempts=2), ROWS, PROBLEMS, cache)
        assert len(local.bodies) == 6
    assert frame["verdict"].tolist() == ["rubbish"] * 3 + ["unanswered"]
    assert frame["score"].isna().all()
    assert frame["replies"].tolist()[0] == ["9/10, well done"] * 2
    row = paired_scores(frame, "unfinished_wrong").iloc[0]
    assert (row["n"], row["rubbish"]) == (0, 3)


def test_a_reply_without_a_message_is_rubbish(tmp_path):
    with serve(lambda path, body, headers: {"choices": []}) as url:
        frame = judge_answers(judge_at(url), ROWS.iloc[:1], PROBLEMS, tmp_path / "c.jsonl")
    assert frame["verdict"].tolist() == ["rubbish"]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("score: 7", "not JSON"),
        (verdict(7) + " I hope this helps.", "not JSON"),
        ("[7]", "not a JSON object"),
        ('{"strengths": "a", "score": 7}', "weaknesses is missing"),
        ('{"strengths": "a", "weaknesses": 3, "score": 7}', "weaknesses is missing, or no text"),
        (verdict("7"), 'score is "7"'),
        (verdict(7.5), "score is 7.5"),
        (verdict(0), "score is 0"),
        (verdict(11), "score is 11"),
        (verdict(True), "score is true"),
        (verdict(None), "score is null"),
        ('{"strengths": "a", "weaknesses": "b"}', "score is null"),
        ("", "not JSON"),
    ],
)
def test_only_the_one_json_object_is_a_verdict(reply, fault):
    found, told = read_verdict(reply)
    assert found is None
    assert fault in told


@pytest.mark.parametrize("score", [1, 7, 10])
def test_a_verdict_is_read_bare_or_in_one_fence(score):
    for reply in (verdict(score), f"  {verdict(score)}\n", f"```json\n{verdict(score)}\n```"):
        found, told = read_verdict(reply)
        assert (found.score, found.verdict, found.strengths, told) == (score, "scored", "short", "")


@pytest.mark.parametrize(
    "thought",
    [
        "<think>\nIt rhymes. {score: 3}?\n</think>\n\n",
        "It rhymes.\n</think>\n",
        "[THINK]It rhymes, and </think> is quoted.[/THINK]",
        "It rhymes.[/THINK]",
        "<seed:think>It rhymes.</seed:think>",
    ],
)
def test_a_judge_may_think_before_it_answers(tmp_path, thought):
    def say(body):
        return thought + (verdict(9) if len(body["messages"]) > 1 else "nine")

    local = LocalJudge(say)
    with serve(local) as url:
        frame = judge_answers(judge_at(url), ROWS.iloc[:1], PROBLEMS, tmp_path / "c.jsonl")
    assert frame["score"].tolist() == [9.0]
    # Its thought is kept with the verdict and not shown to it again.
    assert frame["replies"].tolist()[0] == [thought + "nine", thought + verdict(9)]
    assert local.bodies[1]["messages"][1]["content"].strip() == "nine"


def test_a_verdict_that_quotes_the_tag_is_read_whole():
    quoting = json.dumps({"strengths": "a", "weaknesses": "it ends in </think>", "score": 2})
    assert read_verdict(quoting)[0].weaknesses == "it ends in </think>"


def test_halves_of_characters_are_kept_as_whole_ones(tmp_path):
    halves = '{"strengths": "\\ud800", "weaknesses": "b", "score": 2}'
    with serve(lambda *request: said(halves)) as url:
        frame = judge_answers(judge_at(url), ROWS.iloc[:1], PROBLEMS, tmp_path / "c.jsonl")
    frame.to_parquet(tmp_path / "scores.parquet")
    assert frame["strengths"].tolist() == ["\ufffd"]


def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path):
    cache = tmp_path / "cache.jsonl"
    local = LocalJudge()
    many = answers(*[("p", "with_reasoning", "word " * i) for i in range(1, 7)])

    def breaks_down(path, body, headers):
        return (500, "out of memory") if len(local.bodies) >= 3 else local(path, body, headers)

    with serve(breaks_down) as url, pytest.raises(EndpointError, match="out of memory"):
        judge_answers(judge_at(url), many, PROBLEMS, cache, concurrency=1)
    assert cache.read_text().count("\n") == 3
    with cache.open("a") as file:
        file.write('{"key": "torn')
    with serve(local) as url:
        frame = judge_answers(judge_at(url), many, PROBLEMS, cache)
    assert frame["score"].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert len(local.bodies) == 6
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 6


def test_an_answer_to_an_unknown_problem_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1 answers are to problems not given, as 'q'"):
        judge_answers(judge_at("http://127.0.0.1:9/v1"), ROWS, PROBLEMS[:1], tmp_path / "c.jsonl")
