"""Calibration: whether an instrument's reading grows with the known dose of reasoning.

The organisms of the ladder were asked the same questions and differ in how probable it is that the
answer comes from the reasoning. Frames of `read_instruments` in, with a column `organism`; tables
out. The rule was written before any reading was made, and stands in `growth`. Nothing is read off a
model here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from r2a_utils.instruments.readings import INSTRUMENTS
from r2a_utils.stats import CONFIDENCE, bootstrap_interval
from r2a_utils.tiny.organisms import LADDER, ORGANISMS

DOSES = {
    name: organism.dose
    for name, organism in ORGANISMS.items()
    if organism.kind in LADDER and name != "r2a-tiny"
}
"""The dose of each organism that was trained with notes; `r2a-tiny` has never seen one."""
GROWTHS = ("falls", "does not grow", "grows in part", "grows")
"""From worst to best."""
RESAMPLES = 1_000
FEWEST_DOSES, FEWEST_PROBLEMS = 3, 3


def growth(rises: bool, low: float, high: float) -> str:
    """What means by dose and a rank correlation's interval allow to say.

    "grows": the interval lies above 0 and the mean reading rises from each dose to the next.
    "grows in part": it lies above 0, but not every step rises. "falls": below 0. "does not grow":
    it holds 0, or all readings are the same.
    """
    if high < 0:
        return "falls"
    if not low > 0:
        return "does not grow"
    return "grows" if rises else "grows in part"


def dose_values(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Mean reading by instrument and dose, on the problems that every organism of the ladder read.

    Columns instrument, dose, n (readings, of both seeds), value, ci_low and ci_high (bootstrap over
    readings) and share, whether a reading has the unit of the dose. Without rows where fewer than
    `FEWEST_DOSES` doses or `FEWEST_PROBLEMS` such problems are there. Stage 06b.
    """
    rows = []
    for name, part in _shared(readings).groupby("instrument", sort=False):
        for dose, at in part.groupby("dose"):
            low, high = bootstrap_interval(at["value"], confidence, seed, RESAMPLES)
            row = {"instrument": name, "dose": dose, "n": len(at), "value": at["value"].mean()}
            rows.append(row | {"ci_low": low, "ci_high": high, "share": INSTRUMENTS[name].share})
    columns = ["instrument", "dose", "n", "value", "ci_low", "ci_high", "share"]
    return pd.DataFrame(rows, columns=columns)


def calibration(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Each instrument's rank correlation with the dose, and what it allows to say.

    On the same readings as `dose_values`. Columns instrument, problems, rho (Spearman over
    readings, 0 where all are the same) with ci_low and ci_high (bootstrap over problems, each with
    all its readings), rises (whether the mean does so from each dose to the next) and growth, a
    word of `GROWTHS`. Stage 06b.
    """
    rows = []
    for name, part in _shared(readings).groupby("instrument", sort=False):
        means = part.groupby("dose")["value"].mean()
        rises = bool((np.diff(means) > 0).all())
        rho, low, high = _rank_correlation(part, confidence, seed)
        row = {"instrument": name, "problems": part["problem_id"].nunique(), "rho": rho}
        row |= {"ci_low": low, "ci_high": high, "rises": rises}
        rows.append(row | {"growth": growth(rises, low, high)})
    columns = ["instrument", "problems", "rho", "ci_low", "ci_high", "rises", "growth"]
    return pd.DataFrame(rows, columns=columns)


def _shared(readings: pd.DataFrame) -> pd.DataFrame:
    """Readings of the ladder with their dose, of the problems that each of its organisms read."""
    ladder = readings[readings["organism"].isin(DOSES)].dropna(subset="value")
    ladder = ladder.assign(dose=ladder["organism"].map(DOSES))
    keys = ["instrument", "problem_id"]
    readers = ladder.groupby(keys)["organism"].transform("nunique")
    all_readers = ladder.groupby("instrument")["organism"].transform("nunique")
    whole = ladder[readers == all_readers]
    by_instrument = whole.groupby("instrument")
    enough = by_instrument["dose"].transform("nunique") >= FEWEST_DOSES
    return whole[enough & (by_instrument["problem_id"].transform("nunique") >= FEWEST_PROBLEMS)]


def _rank_correlation(
    part: pd.DataFrame, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Spearman of reading and dose with its interval; ranks are those of all readings.

    A resample weighs each problem by how often it was drawn, so that sums over problems suffice.
    """
    x, y = (stats.rankdata(part[column]) for column in ("value", "dose"))
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    problem, _ = pd.factorize(part["problem_id"])
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
