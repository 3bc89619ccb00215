"""Exchanged texts: whose answer the model gives when parts of a pair's two texts are each other's.

Two questions, asked of words and not of states. On every pair asked, whether or not it can be
patched: when the question is one side's and the reasoning the other's, whose answer is forced? On
the pairs that are kept: what does it take to turn the answer over, the one token that states the
conclusion, every token that states it, or all that differs in the reasoning? This file knows forced
answers; what patching does by layer, `two_places.py` knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.recorded_pairs import RecordedPair, families_of, family_of
from r2a_utils.engine.answer_logprobs import answer_caches, cached_scores, logit_difference
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import bootstrap_interval, wilson_interval
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, encode, forced_ids, sentences

SIDES = ("clean", "corrupted")
ANOTHER = "another"
EXCHANGED = ("its last statement", "every statement of it", "the whole reasoning")
"""What of the reasoning is exchanged: the token that states the conclusion last, every token that
states it, and all aligned tokens that differ."""


def crossed_answers(
    model: ReasoningModel,
    pairs: Sequence[tuple[Trace, Trace]],
    problems: Sequence[tuple[Problem, Problem]],
) -> pd.DataFrame:
    """The answers forced after either question with either reasoning, four rows a pair.

    `pairs` are (clean, corrupted) traces of the problems, as they were written; each reasoning is
    put behind each question, closed, and followed by "The answer is \\boxed{". Columns pair,
    family, question and reasoning (whose it is, a word of `SIDES`), clean and corrupted
    (log-probability in nats of the known answers of the two problems), and `written`, whose of them
    greedy decoding writes, or "another". Stage 05.
    """
    rows = []
    for number, (traces, asked) in enumerate(zip(pairs, problems, strict=True)):
        answers = [tuple(encode(model.tokenizer, problem.answer)) for problem in asked]
        cache = None
        for question, before in zip(SIDES, traces, strict=True):
            for reasoning, thought in zip(SIDES, traces, strict=True):
                ids = _crossed_ids(model, before, thought)
                caches = answer_caches(model, ids, answers, after=cache)
                scores = cached_scores(caches, answers)
                cache = next(iter(caches.values()))
                first = [side for side, (_, rank) in zip(SIDES, scores, strict=True) if rank == 0]
                written = first[0] if first else ANOTHER
                row = (number, family_of(asked[0]), question, reasoning)
                rows.append((*row, *scores[:, 0].tolist(), written))
    columns = ["pair", "family", "question", "reasoning", *SIDES, "written"]
    return pd.DataFrame(rows, columns=columns)


def _crossed_ids(model: ReasoningModel, before: Trace, thought: Trace) -> list[int]:
    """One trace up to its reasoning, then the other's reasoning, closed, and the answer's stem."""
    forced = forced_ids(thought, model.tokenizer, len(sentences(thought)), tags=model.tags)
    head = before.token_ids[: before.segments["reasoning"].start]
    return [*head, *forced[thought.segments["reasoning"].start :]]


@dataclass(frozen=True)
class Following:
    """Whose answer is forced where question and reasoning are not of one side; shares of pairs.

    asked, scored: pairs posed, and those of which both texts ended. follows (follows_low to
    follows_high, Wilson) and stays are shares of those *asked*: in both crossed texts the answer is
    the one that the reasoning leads to, or the question's. own: in both texts that are of one side,
    it is that side's. reasoning, question: nats by which exchanging the one and keeping the other
    moves the answer (mean over scored pairs, None without one).
    """

    asked: int
    scored: int
    own: float
    follows: float
    follows_low: float
    follows_high: float
    stays: float
    stays_low: float
    stays_high: float
    reasoning: float | None
    question: float | None

    @property
    def verdict(self) -> str:
        """What decides most answers, as far as the interval tells."""
        if self.follows_low > 0.5:
            return "reasoning"
        if self.stays_low > 0.5:
            return "question"
        return "neither" if self.follows_high < 0.5 else "open"


def following(crossed: pd.DataFrame, asked: int) -> Following:
    """Sum up `crossed_answers` over the pairs `asked`, of which those missing follow nothing."""
    same = crossed["question"] == crossed["reasoning"]

    def share(frame: pd.DataFrame, side: str) -> tuple[float, float, float]:
        hits = (frame["written"] == frame[side]).groupby(frame["pair"]).all().sum()
        return hits / asked, *wilson_interval(int(hits), asked)

    ld = crossed.assign(ld=crossed["clean"] - crossed["corrupted"])
    means = ld.groupby(["question", "reasoning"])["ld"].mean().unstack() if len(ld) else None
    moved = [None, None]
    if means is not None:
        a, b = SIDES
        moved = [
            float((means.loc[a, a] - means.loc[a, b] + means.loc[b, a] - means.loc[b, b]) / 2),
            float((means.loc[a, a] - means.loc[b, a] + means.loc[a, b] - means.loc[b, b]) / 2),
        ]
    return Following(
        asked,
        crossed["pair"].nunique(),
        share(crossed[same], "question")[0],
        *share(crossed[~same], "reasoning"),
        *share(crossed[~same], "question"),
        *moved,
    )


def following_record(crossed: pd.DataFrame, problems: Sequence[tuple[Problem, Problem]]) -> dict:
    """`following` over all problems asked, as the prose quotes it: with its verdict, by family."""
    asked = Counter(family_of(problem) for problem, _ in problems)
    families = [
        {"family": family, **asdict(following(crossed[crossed["family"] == family], n))}
        for family, n in asked.items()
    ]
    found = following(crossed, len(problems))
    return {**asdict(found), "verdict": found.verdict, "families": families}


def following_table(record: Mapping) -> pd.DataFrame:
    """The rows of `following_record`: a family each, and all where there are several."""
    rows = [*record["families"], {"family": "all", **record}]
    columns = ["asked", "scored", "own", "follows", "follows_low", "follows_high", "stays"]
    table = pd.DataFrame(rows[: -1 if len(rows) == 2 else None]).set_index("family")
    return table[[*columns, "reasoning", "question"]]


def exchanged_tokens(model: ReasoningModel, pairs: Sequence[RecordedPair]) -> pd.DataFrame:
    """The corrupted text with tokens of the clean one, a row a pair and a word of `EXCHANGED`.

    Columns pair, family, exchanged, effect (normalised logit difference), flip (greedy decoding now
    writes the clean answer and did not before) and tokens, how many were exchanged. The first is
    what patching before layer 0 does. Stage 05.
    """
    rows = []
    for number, (recorded, family) in enumerate(zip(pairs, families_of(pairs), strict=True)):
        pair = recorded.pair
        reasoning = pair.segments.get("reasoning", slice(0, len(pair)))
        every = [p for p in pair.differing_positions if reasoning.start <= p < reasoning.stop]
        for name, places in zip(
            EXCHANGED, (pair.stating_positions[-1:], pair.stating_positions, every), strict=True
        ):
            scores = _exchanged_scores(model, recorded, places)
            effect = (logit_difference(scores) - recorded.ld_corrupted) / recorded.gap
            flip = bool(scores[0, 1] == 0 and recorded.corrupted_scores[0, 1] > 0)
            rows.append((number, family, name, effect, flip, len(places)))
    columns = ["pair", "family", "exchanged", "effect", "flip", "tokens"]
    return pd.DataFrame(rows, columns=columns)


def _exchanged_scores(model: ReasoningModel, recorded: RecordedPair, places: Sequence[int]):
    pair: ContrastPair = recorded.pair
    ids = list(pair.corrupted_ids)
    for place in places:
        ids[pair.alignment[place]] = pair.clean_ids[place]
    after = next(iter(recorded.corrupted.values()))
    caches = answer_caches(model, ids, pair.answers, after=after)
    return cached_scores(caches, pair.answers)


def exchanged_table(exchanged: pd.DataFrame, asked: Mapping[str, int]) -> pd.DataFrame:
    """`exchanged_tokens` by family: means over pairs kept, flips of those kept and of those asked.

    `asked` counts the pairs by family. Columns n (kept), asked, tokens, effect with its interval
    (bootstrap), flips and flips_of_asked (shares), the latter with Wilson's interval.
    """
    rows = {}
    for (family, name), group in exchanged.groupby(["family", "exchanged"], sort=False):
        n, hits = asked[family], int(group["flip"].sum())
        low, high = bootstrap_interval(group["effect"])
        rows[family, name] = {
            "n": len(group),
            "asked": n,
            "tokens": group["tokens"].mean(),
            "effect": group["effect"].mean(),
            "effect_low": low,
            "effect_high": high,
            "flips": hits / len(group),
            "flips_of_asked": hits / n,
            **dict(zip(("low", "high"), wilson_interval(hits, n), strict=True)),
        }
    table = pd.DataFrame(rows).T.rename_axis(["family", "exchanged"])
    return table.astype({"n": int, "asked": int})


def exchanged_record(table: pd.DataFrame) -> list[dict]:
    """The rows of `exchanged_table` as the prose quotes them, without what is not finite."""
    rows = table.reset_index().to_dict("records")
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]
