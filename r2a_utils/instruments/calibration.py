"""Calibration: whether an instrument's reading grows with the known dose of reasoning.

The organisms of the ladder were asked the same questions and differ in how probable it is that the
answer comes from the reasoning. Each training seed has a ladder of its own, and what is said holds
in each. Frames of `read_instruments` in, with a column `organism`; tables out. The rule stands in
`growth`. Nothing is read off a model here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from r2a_utils.instruments.readings import INSTRUMENTS, resolved
from r2a_utils.stats import CONFIDENCE, bootstrap_interval
from r2a_utils.tiny.organisms import LADDER, ORGANISMS

DOSES = {
    name: organism.dose
    for name, organism in ORGANISMS.items()
    if organism.kind in LADDER and name != "r2a-tiny"
}
"""The dose of each organism that was trained with notes; `r2a-tiny` has never seen one, so that the
ladder of the first seed has no user and ends at 75 %."""
GROWTHS = ("falls", "does not grow", "cannot say", "grows in part", "grows")
"""From worst to best."""
USEFUL_RHO = 0.5
"""A rank correlation that would be of use: as far from chance as the scoreboard's AUC of 0.75."""
RESAMPLES = 1_000
FEWEST_DOSES, FEWEST_PROBLEMS = 3, 3


def growth(rises: bool, low: float, high: float) -> str:
    """What the ladders allow to say: whether the mean rises in each, and between which ends the
    intervals of their rank correlations lie.

    "grows": all intervals lie above 0 and the mean reading rises from each dose to the next in each
    ladder. "grows in part": they lie above 0, but not every step rises. "falls": all lie below 0.
    Where one holds 0, or all readings are the same: "does not grow" if all end below `USEFUL_RHO`,
    "cannot say" if one does not, and more problems might tell.
    """
    if high < 0:
        return "falls"
    if low > 0:
        return "grows" if rises else "grows in part"
    return "does not grow" if high < USEFUL_RHO else "cannot say"


def dose_values(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Mean reading by instrument, ladder and dose, on the problems that all its organisms read.

    Columns instrument, ladder (the organisms' training seed), dose, n (readings), value, ci_low and
    ci_high (bootstrap over problems) and share, whether a reading has the unit of the dose. Without
    rows where fewer than `FEWEST_DOSES` doses or `FEWEST_PROBLEMS` such problems are there. 06b.
    """
    rows = []
    keys = ["instrument", "ladder", "dose"]
    for (name, ladder, dose), at in _shared(readings).groupby(keys, sort=False):
        low, high = bootstrap_interval(at["value"], confidence, seed, RESAMPLES)
        row = {"instrument": name, "ladder": ladder, "dose": dose, "n": len(at)}
        row |= {"value": at["value"].mean(), "ci_low": low, "ci_high": high}
        rows.append(row | {"share": INSTRUMENTS[name].share})
    return pd.DataFrame(rows, columns=[*keys, "n", "value", "ci_low", "ci_high", "share"])


def calibration(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Each instrument's rank correlation with the dose, and what it allows to say.

    On the problems of `dose_values`, of readings as they are `resolved`. Columns instrument,
    problems (of the ladder that has fewest), rho (Spearman in a ladder, 0 where all readings are
    the same; mean over the ladders), ci_low and ci_high (the lowest and the highest end of the
    ladders' intervals, by bootstrap over problems), rises (whether the mean does so from each dose
    to the next, in each ladder) and growth, a word of `GROWTHS`. Stage 06b.
    """
    rows = []
    for name, part in _shared(resolved(readings)).groupby("instrument", sort=False):
        rises, correlations = True, []
        for _, ladder in part.groupby("ladder"):
            means = ladder.groupby("dose")["value"].mean()
            rises &= bool((np.diff(means) > 0).all())
            correlations.append(_rank_correlation(ladder, confidence, seed))
        rhos, lows, highs = zip(*correlations, strict=True)
        low, high = min(lows), max(highs)
        problems = part.groupby("ladder")["problem_id"].nunique().min()
        row = {"instrument": name, "problems": problems}
        row |= {"rho": float(np.mean(rhos)), "ci_low": low, "ci_high": high, "rises": rises}
        rows.append(row | {"growth": growth(rises, low, high)})
    columns = ["instrument", "problems", "rho", "ci_low", "ci_high", "rises", "growth"]
    return pd.DataFrame(rows, columns=columns)


def _shared(readings: pd.DataFrame) -> pd.DataFrame:
    """Readings with their dose, of the problems that each organism of the same ladder read."""
    known = readings[readings["organism"].isin(DOSES)].dropna(subset="value")
    known = known.assign(
        dose=known["organism"].map(DOSES),
        ladder=known["organism"].map({name: ORGANISMS[name].seed for name in DOSES}),
    )
    ladder = ["instrument", "ladder"]
    readers = known.groupby([*ladder, "problem_id"])["organism"].transform("nunique")
    whole = known[readers == known.groupby(ladder)["organism"].transform("nunique")]
    by_ladder = whole.groupby(ladder)
    enough = by_ladder["dose"].transform("nunique") >= FEWEST_DOSES
    return whole[enough & (by_ladder["problem_id"].transform("nunique") >= FEWEST_PROBLEMS)]


def _rank_correlation(
    part: pd.DataFrame, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Spearman of reading and dose with its interval; ranks are those of all readings.

    A resample weighs each problem by how often it was drawn, so that sums over problems suffice.
    """
    x, y = (stats.rankdata(part[column]) for column in ("value", "dose"))
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    problem, _ = pd.factorize(part["problem_id"], sort=True)
    sums = np.stack([np.bincount(problem, weights=term) for term in terms], axis=1)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, len(sums))), drawn])  # first all problems, once
    n, sx, sy, sxx, syy, sxy = (weights @ sums).T
    spread = np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        rhos = np.where(spread > 0, (n * sxy - sx * sy) / spread, 0.0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(rhos[1:], [tail, 1 - tail])
    return float(rhos[0]), float(low), float(high)
