"""How good is an open answer: scores from 1 to 10 by a judge model behind an endpoint.

In the manner of WildBench (Lin et al., 2406.04770): the judge sees the question, the answer and
the problem's checklist, weighs both sides and gives a whole number. It must reply in JSON. A reply
that is anything else is shown to the judge once more; an answer whose judge never obeys gets the
verdict "rubbish" and no score. What a judge says is kept by content, so that nothing is asked
twice and a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from r2a_utils.collecting.endpoint import Endpoint, concurrently, whole_characters
from r2a_utils.runs.folder import cut_torn_line, kept_lines
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import KNOWN_TAGS, R1_TAGS, tags_in

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)

PROMPT = """\
You grade an answer that an AI assistant gave to a user. Be fair and exact; length is no merit.

<question>
{question}
</question>

<answer>
{answer}
</answer>

Points to check. They guide you; other merits and faults count too.
{checklist}

The scale:
1-2: useless, or about something else.
3-4: poor: it hardly helps the user.
5-6: fair: it helps, but has errors, inventions or gaps that matter.
7-8: good: it helps well and could be better in places.
9-10: excellent: right, complete and clear.

First weigh what is good and what is bad in the answer, then give the score. Reply with one JSON \
object and nothing else:
{{"strengths": "<what is good>", "weaknesses": "<what is bad>", "score": <whole number, 1 to 10>}}
"""
CORRECTION = (
    "That reply cannot be used: {fault}. Reply again with the one JSON object that was asked for, "
    "and nothing else."
)


@dataclass(frozen=True)
class Judge:
    """A judge model and the settings that its scores depend on.

    `attempts` is how often it may reply to one answer before its verdict is "rubbish". `max_tokens`
    leaves room for a judge that thinks before it answers.
    """

    endpoint: Endpoint
    temperature: float = 0.0
    max_tokens: int = 8_000
    attempts: int = 3

    @property
    def settings(self) -> dict:
        """What its verdicts depend on, the wording of the prompt included."""
        return {
            "judge": self.endpoint.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "attempts": self.attempts,
            "prompt": hashlib.sha256((PROMPT + CORRECTION).encode()).hexdigest()[:8],
        }

    @property
    def stamp(self) -> str:
        """The judge's name and settings in one line, for every figure that shows its scores."""
        settings = self.settings
        name = settings.pop("judge")
        details = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in settings.items())
        return f"judge {name} ({details})"


@dataclass(frozen=True)
class Verdict:
    """What a judge made of one answer; `replies` holds all it said, the last one last."""

    verdict: str
    score: int | None = None
    strengths: str = ""
    weaknesses: str = ""
    replies: tuple[str, ...] = ()


# Finds the verdict in a reply, or None and what is wrong with the reply.
Read = Callable[[str], tuple[Verdict | None, str]]


def judge_answers(
    judge: Judge,
    answers: pd.DataFrame,
    problems: Iterable[Problem],
    cache: str | Path,
    concurrency: int = 8,
) -> pd.DataFrame:
    """Score answers; one row each, in order.

    `answers` has problem_id, condition, sample, finished and answer_text, as `answer_texts` makes
    them of completions. What is not finished, or has no answer, gets the verdict "unanswered"
    without asking. Returns the three keys with verdict ("scored", "rubbish", "unanswered"), score
    (NaN unless scored), strengths, weaknesses, replies, judge (its stamp), and the single values
    of the problems' `meta` (area, tag).

    `cache` is a JSON Lines file of verdicts by content: of the judge's settings, the question,
    the checklist and the answer. Rubbish is kept as well; give other settings to ask again.
    Raises EndpointError when the judge cannot be reached (verdicts so far are in the cache), and
    ValueError for an answer to a problem that is not given. Stage 02 asks so (`judge_url`).
    """
    known = {problem.id: problem for problem in problems}
    unknown = set(answers["problem_id"]) - set(known)
    if unknown:
        raise ValueError(f"{len(unknown)} answers are to problems not given, as {min(unknown)!r}")
    prompts = [
        write_prompt(known[row.problem_id], row.answer_text) if _is_answered(row) else None
        for row in answers.itertuples()
    ]
    verdicts = cached_verdicts(judge, {p for p in prompts if p is not None}, cache, concurrency)
    rows = []
    for row, prompt in zip(answers.itertuples(), prompts, strict=True):
        verdict = Verdict("unanswered") if prompt is None else verdicts[prompt]
        meta = known[row.problem_id].meta
        rows.append(
            {k: v for k, v in meta.items() if isinstance(v, str | int | float)}
            | {"problem_id": row.problem_id, "condition": row.condition, "sample": row.sample}
            | asdict(verdict)
            | {"replies": list(verdict.replies), "judge": judge.stamp}
        )
    frame = pd.DataFrame(rows)
    return frame.assign(score=frame["score"].astype(float))


def write_prompt(problem: Problem, answer: str) -> str:
    """What the judge is asked about one answer."""
    checklist = problem.meta.get("checklist") or ["Does the answer do what the user asks for?"]
    return PROMPT.format(
        question=problem.question,
        answer=answer.strip(),
        checklist="\n".join(f"- {point}" for point in checklist),
    )


def read_verdict(reply: str) -> tuple[Verdict | None, str]:
    """The verdict in a judge's reply, or None and what is wrong with the reply.

    The reply must be one JSON object, bare or in one code fence, with the texts strengths and
    weaknesses and a whole number score from 1 to 10. A thought may stand before it.
    """
    parsed, fault = json_object(reply)
    if parsed is None:
        return None, fault
    for name in ("strengths", "weaknesses"):
        if not isinstance(parsed.get(name), str):
            return None, f"{name} is missing, or no text"
    score = parsed.get("score")
    if type(score) is not int or not 1 <= score <= 10:
        return None, f"score is {json.dumps(score)}, not a whole number from 1 to 10"
    texts = (whole_characters(parsed[name]) for name in ("strengths", "weaknesses"))
    return Verdict("scored", score, *texts), ""


def json_object(reply: str) -> tuple[dict | None, str]:
    """The one JSON object that a reply is, bare or in a code fence, or None and what it is."""
    reply = without_thought(reply)
    fenced = _FENCE.fullmatch(reply.strip())
    try:
        parsed = json.loads(fenced[1] if fenced else reply)
    except (json.JSONDecodeError, RecursionError) as error:
        return None, f"it is not JSON ({error})"
    return (parsed, "") if isinstance(parsed, dict) else (None, "it is not a JSON object")


def without_thought(reply: str) -> str:
    """What a judge says once it has thought: what stands behind its first closing tag, if any.

    A judge is another model, with tags of its own: any that are known (`KNOWN_TAGS`) count. A reply
    that opens its thought closes it with the same tags, whatever it quotes in between; one that
    begins with its object has no thought, whatever the texts in it quote.
    """
    if reply.lstrip().startswith(("{", "```")):
        return reply
    opened = (tags for tags in KNOWN_TAGS if reply.lstrip().startswith(tags.open))
    tags = next(opened, tags_in(reply) or R1_TAGS)
    thought, tag, rest = reply.partition(tags.close)
    return rest if tag else thought


def ask(judge: Judge, prompt: str, read: Read = read_verdict) -> Verdict:
    """Ask for one verdict, with the judge's own faults held against it until it obeys.

    `read` finds the verdict in a reply. Raises EndpointError when the judge cannot be reached.
    """
    messages = [{"role": "user", "content": prompt}]
    replies: list[str] = []
    while len(replies) < judge.attempts:
        answer = judge.endpoint.post(
            "chat/completions",
            {
                "messages": messages,
                "temperature": judge.temperature,
                "max_tokens": judge.max_tokens,
            },
        )
        replies.append(_content(answer))
        verdict, fault = read(replies[-1])
        if verdict is not None:
            return Verdict(**asdict(verdict) | {"replies": tuple(replies)})
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": without_thought(replies[-1])},
            {"role": "user", "content": CORRECTION.format(fault=fault)},
        ]
    return Verdict("rubbish", replies=tuple(replies))


def _content(answer: dict) -> str:
    """The text of a chat reply; a reply without one is an empty text, which is rubbish."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    return whole_characters(content) if isinstance(content, str) else ""


def cached_verdicts(
    judge: Judge,
    prompts: set[str],
    cache: str | Path,
    concurrency: int = 8,
    read: Read = read_verdict,
) -> dict[str, Verdict]:
    """Verdicts by prompt, from the cache where it has them; the others are asked for and kept.

    Raises EndpointError when the judge cannot be reached.
    """
    path = Path(cache)
    settings = json.dumps(judge.settings, sort_keys=True)
    keys = {p: hashlib.sha256(f"{settings}\n{p}".encode()).hexdigest() for p in prompts}
    kept = _read_cache(path)
    # In order, so that the same work is done in the same order every time.
    missing = sorted(prompt for prompt, key in keys.items() if key not in kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()

    def ask_and_keep(prompt: str) -> None:
        verdict = ask(judge, prompt, read)
        line = json.dumps({"key": keys[prompt], **judge.settings, **asdict(verdict)})
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        kept[keys[prompt]] = verdict

    asked = concurrently(ask_and_keep, missing, concurrency)
    for _ in tqdm(asked, total=len(missing), desc="judge", unit="answer", disable=None):
        pass
    return {prompt: kept[key] for prompt, key in keys.items()}


def _read_cache(path: Path) -> dict[str, Verdict]:
    """What the cache holds, by key; the torn last line that a killed run leaves is cut off."""
    if not path.exists():
        return {}
    cut_torn_line(path)
    kept = {}
    for row in kept_lines(path):
        fields = {name: row[name] for name in Verdict.__dataclass_fields__}
        kept[row["key"]] = Verdict(**fields | {"replies": tuple(row["replies"])})
    return kept


def _is_answered(row) -> bool:
    return bool(row.finished) and isinstance(row.answer_text, str)
