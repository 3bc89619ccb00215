"""Checks of the exercises on traces and on answers: stages 00 to 02.

Each takes the participant's function; see `outcome.py` for what a check is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from scipy import stats
from transformers import AutoTokenizer

from r2a_utils.models.registry import BUNDLED
from r2a_utils.stats import mcnemar_exact
from r2a_utils.teaching.checks.outcome import CheckFailed, Passed, called, compare
from r2a_utils.teaching.checks.passed_exercises import exercise
from r2a_utils.teaching.checks.passed_exercises import progress as progress  # workshop.progress()
from r2a_utils.texts.prompts import INSTRUCTION, PREFILLED
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.trace import SEGMENTS, encode

THINK, END_THINK = R1_TAGS.open, R1_TAGS.close

RESAMPLES = 4_000  # the ends of a 95 % interval then wander by about 3 % of its width


@exercise("0.1")
def check_segment_borders(function: Callable) -> Passed:
    """Exercise 0.1: `f(token_ids, think, end_think)` gives a slice for each of the six segments."""
    random = np.random.default_rng(0)
    for think, end_think in itertools.product(([11], [11, 12, 13]), ([14], [15, 12, 13])):
        lengths = random.integers(3, 9, size=3)
        prompt, reasoning, answer = (random.integers(20, 90, size=n).tolist() for n in lengths)
        if len(think) > 1:
            prompt[1] = think[0]  # a tag's first token alone is no tag
        ids = [1, *prompt, *think, *reasoning, *end_think, *answer]
        _check_borders(function, ids, think, end_think, *map(len, (prompt, reasoning)))
    return Passed(
        f"{function.__name__} is right, also where a tag is several tokens and where its first "
        "token stands in the question."
    )


def _check_borders(function, ids, think, end_think, n_prompt, n_reasoning) -> None:
    start = 1 + n_prompt
    end = start + len(think) + n_reasoning
    edges = [0, 1, start, start + len(think), end, end + len(end_think), len(ids)]
    right = np.stack([edges[:-1], edges[1:]], axis=1)

    def changed(*changes: tuple[int, int, int]) -> np.ndarray:
        wrong = right.copy()
        for row, column, value in changes:
            wrong[row, column] = value
        return wrong

    early = np.array(edges)
    early[3], early[5] = start + 1, end + 1
    first = next(i for i, token in enumerate(ids) if token == think[0])
    alone = np.array(edges)
    alone[2:4] = first, first + len(think)
    mistakes = {
        "a tag may be several tokens: its segment ends len(tag) tokens after it starts": np.stack(
            [early[:-1], early[1:]], axis=1
        ),
        "it looks for the tag's first token alone; all of them must follow each other": np.stack(
            [alone[:-1], alone[1:]], axis=1
        ),
        "BOS belongs to its own segment, and the prompt starts behind it": changed((1, 0, 0)),
        "the tags are segments of their own and no part of the reasoning": changed(
            (3, 0, start), (3, 1, edges[5])
        ),
        "the answer lacks its last token: a slice ends behind it, at len(token_ids)": changed(
            (5, 1, len(ids) - 1)
        ),
        "a slice ends behind its last token, not on it": np.stack(
            [right[:, 0], right[:, 1] - 1], axis=1
        ),
    }
    found = called(function, ids, think, end_think)
    if not isinstance(found, dict) or set(found) != set(SEGMENTS):
        keys = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise CheckFailed(
            f"{function.__name__} returned {keys}; a dictionary with the keys "
            f"{', '.join(SEGMENTS)} is needed."
        )
    if not all(isinstance(part, slice) for part in found.values()):
        raise CheckFailed(f"{function.__name__}: the values must be slices, as in slice(0, 1).")
    borders = [found[name].indices(len(ids))[:2] for name in SEGMENTS]
    case = f"rows: {', '.join(SEGMENTS)}; a tag of {len(think)}, one of {len(end_think)} tokens"
    compare(function, borders, right, mistakes, case=case)


CUE_CASES = (
    (
        ["Wait", ",", " the", " but", "ton", " is", " red", ".", " Let", " me", " check", "."],
        [0, 8],
    ),
    (["So", " 4", ".", " H", "mm", ",", " but", " WAIT", ".", " wait", " a", " bit"], [3, 6, 7, 9]),
    (["await", " it", ".", " Let", " me", " see", ".", " Let", " me", " check", "."], [7]),
    (["All", " is", " well"], []),
)
CUE_WORDS = ("wait", "hmm", "but", "let me check")


@exercise("0.2")
def check_cue_positions(function: Callable) -> Passed:
    """Exercise 0.2: `f(tokens, words)` gives the positions of the tokens where a cue begins."""
    for tokens, right in CUE_CASES:
        mistakes = {
            "it finds a cue inside a longer word (“but” in “button”); use word borders": (
                _cue_positions(tokens, r"({})")
            ),
            "upper and lower case are the same word: “Wait” is a cue": _cue_positions(
                tokens, r"\b({})\b", flags=0
            ),
            "a cue may span several tokens (“ H” + “mm”); search in the joined text": [
                i for i, token in enumerate(tokens) if token.strip().lower() in CUE_WORDS
            ],
            "it returns places in the text; wanted is the token in which each one lies": [
                match.start() for match in _cue_matches(tokens, r"\b({})\b")
            ],
            "it reports the last token of a cue; wanted is the one in which it begins": (
                _cue_positions(tokens, r"\b({})\b", end=True)
            ),
            "every occurrence counts, not only the first of each word": _firsts(tokens, right),
        }
        found = called(function, list(tokens), CUE_WORDS)
        compare(function, list(found), right, mistakes, case=f"tokens {tokens}")
    return Passed(f"{function.__name__} is right on {len(CUE_CASES)} texts.")


def _cue_matches(tokens: Sequence[str], pattern: str, flags: int = re.IGNORECASE) -> list[re.Match]:
    words = "|".join(map(re.escape, CUE_WORDS))
    return list(re.finditer(pattern.format(words), "".join(tokens), flags))


def _cue_positions(tokens, pattern, flags: int = re.IGNORECASE, end: bool = False) -> list[int]:
    """The tokens in which matches start, or end."""
    ends = np.cumsum([len(token) for token in tokens])
    places = [m.end() - 1 if end else m.start() for m in _cue_matches(tokens, pattern, flags)]
    return np.searchsorted(ends, places, side="right").tolist()


def _firsts(tokens: Sequence[str], right: Sequence[int]) -> list[int]:
    words = [match.group().lower() for match in _cue_matches(tokens, r"\b({})\b")]
    return [place for i, place in enumerate(right) if words[i] not in words[:i]]


@cache
def _tokenizer():
    return AutoTokenizer.from_pretrained(BUNDLED)


@exercise("1.1")
def check_bare_prompt(function: Callable) -> Passed:
    """Exercise 1.1: `f(tokenizer, question)` gives the ids of a prompt with a prefilled thought.

    Raises CheckFailed, also where the pieces are encoded as one text.
    """
    tokenizer = _tokenizer()
    bos, thought = tokenizer.bos_token_id, "\n" + PREFILLED["finished"]
    for question in ("What is 3 + 4?", "Who is taller, the lamp or the cup?"):
        opening = question + INSTRUCTION + " "

        def ids(*pieces: str) -> list[int]:
            return [i for piece in pieces for i in encode(tokenizer, piece)]

        body = ids(opening, THINK, thought, END_THINK, "\n\n")
        mistakes = {
            "BOS stands twice: the tokenizer had added one already": [bos, bos, *body],
            "BOS is missing in front": body,
            f"{END_THINK} is missing, so the thought is not closed": [
                bos, *ids(opening, THINK, thought, "\n\n")
            ],
            "the blank line behind </think>, where the answer starts, is missing": [
                bos, *ids(opening, THINK, thought, END_THINK)
            ],
            "the thought is empty; the paper prefills a sentence": [
                bos, *ids(opening, THINK, "\n", END_THINK, "\n\n")
            ],
            "the line break behind <think> is missing": [
                bos, *ids(opening, THINK, PREFILLED["finished"], END_THINK, "\n\n")
            ],
            "the instruction to reason and to box the answer is missing": [
                bos, *ids(question, THINK, thought, END_THINK, "\n\n")
            ],
            "<think> is missing": [bos, *ids(opening, thought, END_THINK, "\n\n")],
        }  # fmt: skip
        found = called(function, tokenizer, question)
        if found == [bos, *body] and _encoded_at_once(function, question):
            raise CheckFailed(
                f"{function.__name__} encodes the pieces as one text: where a tag is several "
                "tokens, it may merge with its neighbours; encode piece by piece."
            )
        text = repr(tokenizer.decode(found)) if all(isinstance(i, int) for i in found) else "?"
        compare(function, found, [bos, *body], mistakes, case=f"as text: {text}")
    return Passed(f"{function.__name__} is right: one BOS, one closed thought, room for an answer.")


class _TagsInPieces:
    """The bundled tokenizer, which notes the texts that it is asked for."""

    def __init__(self) -> None:
        self._tokenizer, self.asked = _tokenizer(), []

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)

    def __call__(self, text, *arguments, **options):
        self.asked.append(text)
        return self._tokenizer(text, *arguments, **options)

    def encode(self, text, *arguments, **options):
        self.asked.append(text)
        return self._tokenizer.encode(text, *arguments, **options)


def _encoded_at_once(function: Callable, question: str) -> bool:
    """Whether a tag goes to the tokenizer together with what stands beside it."""
    tokenizer = _TagsInPieces()
    called(function, tokenizer, question)
    texts = [text for text in tokenizer.asked if isinstance(text, str)]
    return any(tag in text and text != tag for text in texts for tag in (THINK, END_THINK))


@exercise("2.1")
def check_mcnemar(function: Callable) -> Passed:
    """Exercise 2.1: `f(with_reasoning, without_reasoning)` gives McNemar's exact two-sided p."""
    random = np.random.default_rng(0)
    # Of n problems: solved only with, only without, both ways. The first p is near 0.05, where the
    # tests that are taken for this one differ; then a tie, one pair, and none.
    for n, plus, minus, solved in ((60, 15, 5, 30), (40, 10, 10, 12), (12, 1, 0, 11), (8, 0, 0, 8)):
        order = random.permutation(n)
        a = np.isin(order, range(plus)) | (order >= n - solved)
        b = np.isin(order, range(plus, plus + minus)) | (order >= n - solved)
        both = plus + minus
        p = mcnemar_exact(plus, minus)
        tail = float(stats.binom.cdf(min(plus, minus), both, 0.5)) if both else 1.0
        table = [[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]]
        chi = (plus - minus) ** 2 / both if both else 0.0
        corrected = max(abs(plus - minus) - 1, 0) ** 2 / both if both else 0.0
        alike = np.ptp(a.astype(int) - b) == 0  # a t-test of equal differences is undefined
        mistakes = {
            "p exceeds 1: where both kinds are equally many, twice the tail must be cut at 1": (
                2 * tail
            ),
            "that is one tail; two-sided is twice it, and at most 1": tail,
            "the pairs in which both conditions agree say nothing and must not be counted": (
                stats.binomtest(plus, n, 0.5).pvalue
            ),
            "that test forgets that the same problems were asked twice; compare within pairs": (
                stats.fisher_exact(table).pvalue
            ),
            "that is the χ² approximation; the exact test is binomial": stats.chi2.sf(chi, 1),
            "that is the χ² approximation with a continuity correction; the exact test is "
            "binomial": stats.chi2.sf(corrected, 1),
            "that is a paired t-test, of means of numbers; the answers are right or wrong, and "
            "the exact test is binomial": (
                1.0 if alike else stats.ttest_rel(a.astype(int), b.astype(int)).pvalue
            ),
        }
        case = f"{plus} only with, {minus} only without, of {n}"
        compare(function, called(function, a, b), p, mistakes, case=case)
    return Passed(f"{function.__name__} is right, also where no pair differs.")


@exercise("2.2")
def check_difference_interval(function: Callable) -> Passed:
    """Exercise 2.2: `f(with_reasoning, without_reasoning, rng)`: a paired bootstrap interval.

    Raises CheckFailed where it is none.
    """
    random = np.random.default_rng(0)
    hard = random.random(500)
    a, b = (hard < 0.75).astype(float), (hard < 0.6).astype(float)
    b[:20] = 1 - b[:20]
    found = called(function, a.copy(), b.copy(), np.random.default_rng(1))
    if np.shape(found) != (2,):
        raise CheckFailed(f"{function.__name__} must return two numbers, low and high.")
    low, high = _interval(a - b)
    rows = np.random.default_rng(2).integers(500, size=(2, RESAMPLES, 500))
    apart = a[rows[0]].mean(1) - b[rows[1]].mean(1)
    middle = (a - b).mean()
    error = (a - b).std() / np.sqrt(500)
    mistakes = {
        "the upper end comes first": (high, low),
        "both conditions must be resampled together, problem by problem: an interval for "
        "unpaired answers is too wide": np.quantile(apart, [0.025, 0.975]),
        "that is the spread of single differences, not of their mean": np.quantile(
            a - b, [0.025, 0.975]
        ),
        "that is one standard error each way, which holds 68 % and not 95 %": (
            middle - error, middle + error
        ),
        "that holds 90 %; 95 % leaves 2.5 % on either side": _interval(a - b, 0.05),
        "that is the accuracy with reasoning; wanted is the difference": _interval(a),
        "the sign is turned: with reasoning less without": _interval(b - a),
    }  # fmt: skip
    # Three standard errors of an end with 2,000 resamples; a 90 % interval is off by 8 %.
    width = 0.05 * (high - low)
    compare(function, found, (low, high), mistakes, tolerance=width)
    return Passed(f"{function.__name__} is right: paired, and as wide as 95 % asks.")


def _interval(values: np.ndarray, tail: float = 0.025) -> np.ndarray:
    rows = np.random.default_rng(2).integers(len(values), size=(RESAMPLES, len(values)))
    return np.quantile(values[rows].mean(1), [tail, 1 - tail])


@exercise("2.3")
def check_early_prompt(function: Callable) -> Passed:
    """Exercise 2.3: `f(token_ids, sentences, kept, closing)`: the reasoning cut and closed."""
    ids = list(range(100, 160))
    spans = [slice(12, 20), slice(20, 27), slice(27, 40), slice(40, 44)]
    closing = [7, 8, 9]
    for kept in (2, 0, 4, 1):
        stop = spans[kept - 1].stop if kept else spans[0].start
        after = spans[min(kept, 3)].stop
        mistakes = {
            "the prompt is lost: the model must see the question, too": (
                ids[spans[0].start : stop] + closing
            ),
            "the closing ids are missing: nothing forces the answer": ids[:stop],
            "that keeps one sentence more than asked": ids[:after] + closing,
            "kept = 0 keeps nothing of the reasoning, and all that stands before it": (
                ids[: spans[-1].stop] + closing
            ),
            "that cuts after `kept` tokens; wanted are sentences": (
                ids[: spans[0].start + kept] + closing
            ),
            "what follows the cut must be left out": (
                ids[:stop] + closing + ids[spans[-1].stop :]
            ),
        }  # fmt: skip
        found = called(function, list(ids), list(spans), kept, list(closing))
        compare(function, found, ids[:stop] + closing, mistakes, case=f"kept = {kept}")
    return Passed(f"{function.__name__} is right, for no sentence, some, and all.")
