"""What the tests on the text found: rates with intervals, paired tests, and the record of them.

Frames of `text_tests.ask_edited` in, frames and a record out. The unit is the problem, which stands
once in an arm; of swapped thoughts it is the pair, which stands there in both directions: what is
counted is the pair's mean. Nothing is asked here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from r2a_utils.answers.edited_thoughts import EDITS, PLACES
from r2a_utils.answers.equality import same_answer
from r2a_utils.answers.text_tests import (
    ANOTHERS,
    KEPT,
    NOT_REMOVED,
    REMOVED,
    SWAPPED,
    UNCHANGED,
    WRITTEN_ON,
)
from r2a_utils.stats import (
    CONFIDENCE,
    LEVEL,
    bootstrap_interval,
    holm,
    mcnemar_exact,
    mean_share_interval,
)

# The arms of which it is known, by a rule or by the other trace, what their text leads to; by the
# name that the record has for them.
ARMS = {"swapped": SWAPPED, "anothers": ANOTHERS} | {
    f"{name}_{short}": arm.format(place)
    for name, arm in (("kept", KEPT), ("written_on", WRITTEN_ON), ("unchanged", UNCHANGED))
    for short, place in zip(("earlier", "last"), PLACES, strict=True)
}
AS_WRITTEN, CONTROL = list(EDITS)[:2]
OUTCOME_COLUMNS = (
    "arm", "n", "follows", "follows_low", "follows_high", "before", "before_low",
    "before_high", "other", "p",
)  # fmt: skip


@dataclass(frozen=True)
class SwapEffects:
    """The 2 × 2 of question and reasoning over `n` pairs of problems.

    Of the change from one answer to the other, `reasoning` is the part that exchanging the
    reasoning makes at a fixed question (the indirect effect) and `question` the part that
    exchanging the question makes at a fixed reasoning (the direct one), each averaged over both
    values of what is fixed; with bootstrap intervals over pairs. None without a pair.
    """

    n: int
    reasoning: float | None = None
    reasoning_low: float | None = None
    reasoning_high: float | None = None
    question: float | None = None
    question_low: float | None = None
    question_high: float | None = None


def edit_rates(answers: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """How often the answer is right, and the same as before, after each of `EDITS`.

    A row per kind of problem and arm: kind, arm, n, right, right_low, right_high, same, same_low,
    same_high. Stage 02b.
    """
    rows = []
    for kind, part in answers.groupby("kind", sort=False):
        for arm in EDITS:
            of_arm = part[part["arm"] == arm]
            row = {"kind": kind, "arm": arm, "n": len(of_arm)}
            rows.append(row | _share("right", of_arm["right"], confidence)
                        | _share("same", of_arm["same"], confidence))  # fmt: skip
    return pd.DataFrame(rows)


def edit_tests(answers: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Each closed edit against the harmless one on the same problems: does the answer change more?

    A row per arm but the control: arm, n (problems; pairs of swapped ones), changed (share of
    answers not as before), changed_low, changed_high, control (the share under the harmless edit,
    on these problems), p (exact McNemar, of pairs the sign test) and holm_p (over the arms). Stage
    02b.
    """
    same = answers.pivot(index="problem_id", columns="arm", values="same")
    rows = []
    for arm in [arm for arm in dict.fromkeys(answers["arm"]) if arm != CONTROL]:
        changed = 1 - same[[arm, CONTROL]].dropna().astype(float)
        units = _units(answers[answers["arm"] == arm])
        changed = changed.groupby(units[changed.index].to_numpy()).mean()
        row = {"arm": arm, "n": len(changed)} | _share("changed", changed[arm], confidence)
        p = _sign_p(changed[arm] - changed[CONTROL])
        rows.append(row | {"control": changed[CONTROL].mean(), "p": p})
    table = pd.DataFrame(rows)
    return table.assign(holm_p=holm(table["p"]))


def outcomes(answers: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """What the answer is after an edit: what the edited text leads to, as before, or another.

    A row per arm of `ARMS` that has cases: arm, n (those for which it is known what the text leads
    to, or all where that is known of none; pairs of swapped thoughts), and shares of them: follows
    (missing where it is not known), before, other; follows_low to before_high are intervals, p the
    exact sign test of follows against before. Stage 02b.
    """
    rows = []
    for arm in ARMS.values():
        part = answers[answers["arm"] == arm]
        known = part["follows"].notna()
        part = part[known] if known.any() else part
        if len(part):
            given = pd.DataFrame({"follows": part["follows"].eq(True), "before": part["same"]})
            given = given.astype(bool).assign(other=~given.astype(bool).any(axis=1)).astype(float)
            given = given.groupby(_units(part).to_numpy()).mean()
            row = {"arm": arm, "n": len(given)} | _share("before", given["before"], confidence)
            row["other"] = given["other"].mean()
            if known.any():
                row |= _share("follows", given["follows"], confidence)
                row["p"] = _sign_p(given["follows"] - given["before"])
            rows.append(row)
    return pd.DataFrame(rows, columns=OUTCOME_COLUMNS)


def swap_effects(
    answers: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> SwapEffects:
    """Direct and indirect effect from the arms "as written" and "swapped" of one frame.

    Of either answer in a pair: with Y(q, r) whether it is given to question q after reasoning r,
    the indirect effect is the mean over q of Y(q, own) − Y(q, other's), the direct one the mean
    over r of Y(own, r) − Y(other's, r). The two sum to the whole change, which is 1 where each
    problem keeps its answer after its own thought. Stage 02b.
    """
    own = answers[answers["arm"] == AS_WRITTEN].set_index("problem_id")
    swapped = answers[answers["arm"] == SWAPPED].set_index("problem_id")
    effects: dict[frozenset, list[tuple[float, float]]] = {}
    for a, row in swapped.iterrows():
        b = row["partner_id"]
        aa, ab, ba = map(int, (own["same"][a], row["same"], swapped["follows"][b]))
        given = own["answer"][b]
        bb = int(pd.notna(given) and same_answer(given, own["own"][a]))
        halves = ((aa - ab + ba - bb) / 2, (aa - ba + ab - bb) / 2)
        effects.setdefault(frozenset((a, b)), []).append(halves)
    if not effects:
        return SwapEffects(0)
    means = np.array([np.mean(both, axis=0) for both in effects.values()])
    found = {}
    for name, values in zip(("reasoning", "question"), means.T, strict=True):
        low, high = bootstrap_interval(values, confidence, seed)
        found |= {name: float(values.mean())}
        found |= {f"{name}_low": _finite(low), f"{name}_high": _finite(high)}
    return SwapEffects(len(means), **found)


def text_record(
    closed: pd.DataFrame, written_on: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> dict:
    """What the book quotes: `n` thoughts, and what the functions of this file found, by arm.

    `edits` over all problems, `more_than_harmless` the names of those that change more answers than
    the harmless one (Holm, `LEVEL`), `outcomes`, `swap`, `removed` and `not_removed`. `verdict`:
    "reasoning" or "question", where the interval over pairs of the share of swapped thoughts whose
    answer follows the one lies above one half, else "neither". An arm without cases is missing.
    Stage 02b.
    """
    if closed.empty:
        return {"n": 0, "verdict": "neither", "outcomes": {}}
    rates = edit_rates(closed.assign(kind="all"), confidence).drop(columns="kind")
    told = outcomes(pd.concat([closed, written_on]), confidence)
    told = told.astype(object).where(told.notna(), None).set_index("arm").to_dict("index")
    tests = edit_tests(closed, confidence)
    more = tests[(tests["holm_p"] <= LEVEL) & (tests["changed"] > tests["control"])]
    coming = {"removed": REMOVED, "not_removed": NOT_REMOVED}
    return {
        "n": int((closed["arm"] == AS_WRITTEN).sum()),
        "verdict": _verdict(told.get(SWAPPED)),
        "edits": rates.set_index("arm").to_dict("index"),
        "more_than_harmless": more["arm"].tolist(),
        "outcomes": {key: told[arm] for key, arm in ARMS.items() if arm in told},
        "swap": asdict(swap_effects(closed, confidence, seed)),
        **{name: _coming_back(written_on, arm, confidence) for name, arm in coming.items()},
    }


def _coming_back(answers: pd.DataFrame, arm: str, confidence: float) -> dict:
    """Of a removed sentence: how often it comes back, and how often the answer is as before."""
    part = answers[answers["arm"] == arm]
    if part.empty:
        return {"n": 0}
    back, same = part["comes_back"].astype(bool), part["same"].astype(bool)
    shares = _share("back", back, confidence) | _share("same", same, confidence)
    return {"n": len(part), **shares, "same_without": _finite(same[~back].mean())}


def _verdict(told: dict | None) -> str:
    if told and told["follows_low"] > 0.5:
        return "reasoning"
    return "question" if told and told["before_low"] > 0.5 else "neither"


def _units(arm: pd.DataFrame) -> pd.Series:
    """By problem, what it is a case of: itself; where thoughts are swapped, its pair."""
    units = arm["problem_id"].tolist()
    if (arm["arm"] == SWAPPED).all():
        pairs = zip(units, arm["partner_id"], strict=True)
        units = [" & ".join(sorted(pair)) for pair in pairs]
    return pd.Series(units, index=arm["problem_id"])


def _sign_p(difference: pd.Series) -> float:
    """Exact sign test; of differences of what is 0 or 1, McNemar's."""
    return mcnemar_exact(int((difference > 0).sum()), int((difference < 0).sum()))


def _share(name: str, values: pd.Series, confidence: float) -> dict[str, float]:
    low, high = mean_share_interval(values.mean(), len(values), confidence)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
