"""Is the answer right: the boxed answer of a text, and whether it equals the known one.

Mathematics is compared by math-verify, after three shortcuts that need no algebra: identical
texts, plain numbers, and single words (a name or an object; as algebra its letters would be a
product, and every anagram right). How good an open answer is, `judging.py` asks a judge.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from r2a_utils.texts.boxed import extract_answer, final_answer
from r2a_utils.texts.tags import answer_part

if TYPE_CHECKING:  # the annotations alone need them
    from transformers import PreTrainedTokenizerBase

    from r2a_utils.texts.completions import Completion
    from r2a_utils.texts.problem import Problem
    from r2a_utils.texts.trace import Trace

# Seconds of computing, whatever else the machine does; the slowest of the paper's 400 takes 0.2.
COMPARISON_LIMIT_S = 10.0
WORKER_SCRIPT = Path(__file__).with_name("math_worker.py")

_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_BASE = re.compile(r"\d_\{?(\d+)\}?$")
# Shorter plain words may well be products of variables, in which the order does not matter.
_SHORTEST_WORD = 3


def grade_math(answer_text: str, gold: str) -> bool:
    """Whether an answer equals the known one.

    `answer_text` is a whole answer part, of which the boxed answer counts (see `final_answer`),
    or, without a box, the bare answer itself. Works in any thread. A comparison that takes more
    than 10 s of computing counts as wrong, with a warning.
    """
    boxed = final_answer(answer_text)
    answer = _bare(answer_text if boxed is None else boxed)
    gold = _bare(gold)
    answer_words, gold_words = _unwrapped(answer), _unwrapped(gold)
    if answer_words == gold_words:
        return answer_words != ""
    if not answer_words or not gold_words:
        return False
    if _NUMBER.fullmatch(answer_words) and _NUMBER.fullmatch(gold_words):
        return Decimal(answer_words) == Decimal(gold_words)
    if gold_words.isalpha() and _word(answer) == gold_words.casefold():
        return len(gold_words) > 1 or answer_words == gold_words
    if gold_words.isalpha() and len(gold_words) >= _SHORTEST_WORD:
        return False
    bases = _BASE.search(answer), _BASE.search(gold)
    if all(bases) and bases[0][1] != bases[1][1]:
        return False  # math-verify reads past the base of 204_5
    return _equal(gold, answer)


def same_answer(first: str | None, second: str | None) -> bool:
    """Whether two bare answers are equal, by `grade_math` with either as the known one.

    None, no answer, is the same as nothing, not even as another None.
    """
    if first is None or second is None:
        return False
    return grade_math(first, second) or grade_math(second, first)


def answer_texts(completions: Iterable[Completion]) -> pd.DataFrame:
    """One row per completion: problem_id, condition, sample, finished, well_formed, answer_text
    (missing where it is not well formed), n_tokens.
    """
    return pd.DataFrame([_answer_row(completion) for completion in completions])


def _answer_row(completion: Completion) -> dict:
    text = answer_part(completion.text, completion.condition)
    return {
        "problem_id": completion.problem_id,
        "condition": completion.condition,
        "sample": completion.sample,
        "finished": completion.finished,
        "well_formed": text is not None,
        "answer_text": text,
        "n_tokens": completion.n_tokens,
    }


def find_answers(completions: Iterable[Completion], problems: list[Problem]) -> pd.DataFrame:
    """`answer_texts` with answer, a row each, in order, and nothing graded.

    The answer is the boxed one, missing where there is none; of an open question the whole text.
    Raises ValueError for a completion of a problem that is not given.
    """
    return pd.DataFrame([row for _, row in _answered(completions, problems)])


def grade_completions(completions: Iterable[Completion], problems: list[Problem]) -> pd.DataFrame:
    """Grade completions: the *answers* frame that `comparison.py` describes, a row each, in order.

    `find_answers` with correct, and what the problems' `meta` say in single values (family, steps,
    subject, level, …). Raises ValueError, besides, for a problem that has no known answer.
    """
    rows = []
    for problem, row in _answered(completions, problems):
        if problem.answer is None:
            raise ValueError(
                f"problem {problem.id!r} has no known answer: it cannot be graded; leave stage 02 "
                "out (--stages 01,03), or give open questions to a judge there (`open_dataset`)"
            )
        correct = row["answer"] is not None and grade_math(row["answer_text"], problem.answer)
        slices = {k: v for k, v in problem.meta.items() if isinstance(v, str | int | float)}
        rows.append(slices | row | {"correct": correct})
    return pd.DataFrame(rows)


def traces_by_grade(
    completions: Sequence[Completion],
    problems: list[Problem],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[bool, list[Trace]]:
    """Right (True) and wrong (False) traces; what has no boxed answer is left out.

    Raises ValueError as `grade_completions` does.
    """
    metas = {problem.id: problem.meta for problem in problems}
    found = {True: [], False: []}
    table = grade_completions(completions, problems)
    for completion, row in zip(completions, table.itertuples(), strict=True):
        if row.well_formed and pd.notna(row.answer):
            found[row.correct].append(completion.to_trace(tokenizer, metas[row.problem_id]))
    return found


def _answered(
    completions: Iterable[Completion], problems: list[Problem]
) -> Iterator[tuple[Problem, dict]]:
    """Each completion's problem, and its row with the answer."""
    known = {problem.id: problem for problem in problems}
    for row in map(_answer_row, completions):
        if row["problem_id"] not in known:
            raise ValueError(f"problem {row['problem_id']!r} is not among the problems given")
        problem, answer = known[row["problem_id"]], row["answer_text"]
        if answer is not None and problem.answer is not None:
            answer = extract_answer(answer)
        yield problem, row | {"answer": answer}


def _bare(answer: str) -> str:
    """The answer without dollar signs around it or a full stop after it."""
    return answer.strip().strip("$").strip().removesuffix(".").strip()


def _unwrapped(answer: str) -> str:
    r"""The answer without a `\text{…}` around the whole of it."""
    wrapped = _TEXT.fullmatch(answer)
    return _bare(wrapped[1]) if wrapped else answer


def _word(answer: str) -> str:
    """The answer as a bare word: "the lamp" and "**Lamp**" are lamp."""
    bare = _TEXT.sub(r"\1", answer).strip("*_\"'“”‘’.!()[] ").casefold()
    return re.sub(r"^(?:the|a|an)\s+", "", bare)


@lru_cache(maxsize=10_000)
def _equal(gold: str, answer: str) -> bool:
    reply = _WORKER.ask(gold, answer)
    if "failure" in reply:
        warnings.warn(
            f"counted as wrong: comparing {answer[:80]!r} with {gold[:80]!r}: {reply['failure']}",
            stacklevel=3,
        )
    return reply.get("equal", False)


class _Worker:
    """The math-verify process: started when first asked, started again after it ran out of time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, gold: str, answer: str) -> dict:
        """{"equal": bool}, or {"failure": why} where math-verify cannot tell."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.stop()
                self._start()
            process = self._process
            try:
                process.stdin.write(json.dumps([gold, answer, COMPARISON_LIMIT_S]) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:
                # Interrupted: the reply still to come must not answer the next question.
                process.kill()
                raise
            if line:
                return json.loads(line)
            code = process.wait()
        if code == -signal.SIGPROF:
            return {"failure": f"no result in {COMPARISON_LIMIT_S:g} s of computing"}
        raise RuntimeError(
            f"the math-verify process ended with code {code}: run `{sys.executable} "
            f'{WORKER_SCRIPT}` and give it a line such as ["1/2", "0.5", 10] to see why'
        )

    def _start(self) -> None:
        # -P keeps this folder off its path, where statistics.py would hide the standard library's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._process.stdout.readline()  # ready

    def stop(self) -> None:
        """End the process, if there is one, and close its pipes."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):  # a question that it will not read
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()


_WORKER = _Worker()
atexit.register(_WORKER.stop)
