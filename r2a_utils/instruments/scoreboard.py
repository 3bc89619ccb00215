"""The scoreboard: does an instrument tell answers made from the reasoning from others?

Frames of `read_instruments` in, with a column `organism`; tables out. The unit is the model: an AUC
is of two models, or of one model by its hint, and counts only as far as it goes beyond those of two
models made alike. The rule stands in `verdict` and `pair_aucs`. Nothing is read off a model here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from r2a_utils.instruments.calibration import GROWTHS, USEFUL_RHO
from r2a_utils.instruments.readings import INSTRUMENTS, resolved
from r2a_utils.stats import CONFIDENCE, bootstrap_interval
from r2a_utils.tiny.organisms import ORGANISMS

UNTRAINED = "untrained"
"""The name that a twin's readings go by."""
KIND = {name: organism.kind for name, organism in ORGANISMS.items()} | {UNTRAINED: UNTRAINED}
CONTRASTS = {
    "between models": ("user", "ignorer"),
    "by a hint": ("hinted", "hinted"),
    "untrained": ("user", UNTRAINED),
}
"""The kinds whose answers made from the reasoning are held against those that are not. Of one kind
twice, each model is held against itself."""
ALIKE = "between alike models"
"""The null: two models made alike but for their seed, on answers that are made alike."""
ONE_UNTRAINED = ("lift",)
"""Readings that random weights fix without being a share: attention spread evenly lifts nothing."""
USEFUL, CHANCE = 0.75, 0.5
VERDICTS = ("misleads", "does not tell", "cannot say", "tells in part", "tells")
"""From worst to best."""
AGAINST = ("misleads", "does not tell")
"""What one pair alone says against an instrument."""
APART = ("misleads", "tells in part", "tells")
"""What says that the readings differ."""
RESAMPLES = 1_000
AUC_RESAMPLES = 10_000  # the tails of intervals that hold together are thin
ENOUGH = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(USEFUL)))
"""Traces on either side from which on a reading that never errs has an interval above `USEFUL`."""
FEWEST = 5
"""Traces on either side below which an AUC is not asked for."""


def auc(used: Sequence[float], unused: Sequence[float]) -> float:
    """How often a reading of an answer made from the reasoning is larger than one of another.

    Ties count one half (Mann–Whitney): 1 tells them apart, 0.5 is chance, 0 tells them apart the
    wrong way round. Raises ValueError where a side is empty.
    """
    if len(used) == 0 or len(unused) == 0:
        raise ValueError(f"an AUC needs both sides, got {len(used)} and {len(unused)} readings")
    u = stats.mannwhitneyu(used, unused, method="asymptotic").statistic
    return float(u / (len(used) * len(unused)))


def auc_interval(
    used: Sequence[float], unused: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `auc`, either side resampled.

    Where all is told apart, or nearly, resampling sees no spread, or too little; an end is never
    closer to 1 or 0 than the smaller side allows: with none of n out of order, up to
    1 − (1 − confidence)^(1/n) could be.
    """
    used, unused = np.asarray(used, float), np.asarray(unused, float)
    wins = (used[:, None] > unused) + 0.5 * (used[:, None] == unused)
    rows, columns = _resamples(*wins.shape, seed)
    ends = ((rows @ wins) * columns).sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ends, [tail, 1 - tail])
    unseen = 1 - (1 - confidence) ** (1 / min(wins.shape))
    return float(min(low, 1 - unseen)), float(max(high, unseen))


@lru_cache(maxsize=16)  # nearly all pairs have as many traces
def _resamples(n_used: int, n_unused: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of each trace in resamples of either side; [resample, trace]."""
    rng = np.random.default_rng(seed)
    rows, columns = (
        rng.multinomial(n, np.full(n, 1 / n), AUC_RESAMPLES) / n for n in (n_used, n_unused)
    )
    return rows, columns


def verdict(low: float, high: float) -> str:
    """What the interval of an AUC allows to say.

    "tells": it lies at or above `USEFUL`. "tells in part": above chance. "misleads": below chance.
    Where it holds chance: "does not tell" if it ends below `USEFUL`, "cannot say" if it does not,
    and more traces might tell.
    """
    if low >= USEFUL:
        return "tells"
    if low > CHANCE:
        return "tells in part"
    if high < CHANCE:
        return "misleads"
    return "does not tell" if high < USEFUL else "cannot say"


def value_table(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Mean reading by instrument, organism and truth, with bootstrap intervals over traces.

    Columns instrument, organism, uses, n, value, ci_low, ci_high. Readings that are missing are
    left out. Stage 06b.
    """
    rows = []
    there = readings.dropna(subset="value")
    keys = ["instrument", "organism", "uses"]
    for (name, organism, uses), part in there.groupby(keys, sort=False, dropna=False):
        low, high = bootstrap_interval(part["value"], confidence, seed, RESAMPLES)
        row = {"instrument": name, "organism": organism, "uses": uses, "n": len(part)}
        rows.append(row | {"value": part["value"].mean(), "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows, columns=[*keys, "n", "value", "ci_low", "ci_high"])


def is_asked(instrument: str, contrast: str) -> bool:
    """Whether a contrast can go wrong for an instrument.

    A twin with random weights gives the answer next to no probability, so that nothing can be lost:
    instruments that read a share are not held against it, nor are those of `ONE_UNTRAINED`.
    """
    fixed = INSTRUMENTS[instrument].share or instrument in ONE_UNTRAINED
    return contrast != UNTRAINED or not fixed


def pair_aucs(
    readings: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """Each instrument's AUC in each pair of models of each of `CONTRASTS`, and in those `ALIKE`.

    Of readings as they are `resolved`; pairs with fewer than `FEWEST` traces on a side are left
    out. Columns instrument, contrast, first and second (organisms), n_used, n_unused, auc, ci_low,
    ci_high (over traces) and verdict. To tell, an instrument must tell in all its pairs; one that
    misleads or does not tell decides alone, so that these two words need an interval that holds
    together with those of all its pairs at `confidence` (Bonferroni). Between different models, a
    pair whose AUC is no further from chance than one of the instrument's pairs of alike models has
    "cannot say" for a word of `APART`. Alike pairs have no verdict. Stage 06b.
    """
    rows = []
    there = resolved(readings).dropna(subset="value")
    made = there["uses"].astype(object).map({True: "used", False: "unused"}).fillna("by chance")
    for name in INSTRUMENTS:
        part = there[there["instrument"] == name]
        grouped = part.groupby(["organism", made.loc[part.index]], sort=False)["value"]
        sides = {key: values.to_numpy() for key, values in grouped if len(values) >= FEWEST}
        pairs = [p for p in _pairs(list(sides)) if p[0] == ALIKE or is_asked(name, p[0])]
        judged = sum(contrast != ALIKE for contrast, _, _ in pairs)
        together = 1 - (1 - confidence) / max(judged, 1)
        found = []
        for contrast, first, second in pairs:
            used, unused = sides[first], sides[second]
            area = auc(used, unused)
            low, high = auc_interval(used, unused, confidence, seed)
            word = verdict(low, high)
            if word in AGAINST:
                word = verdict(*auc_interval(used, unused, together, seed))
            row = {"instrument": name, "contrast": contrast, "first": first[0]}
            row |= {"second": second[0], "n_used": len(used), "n_unused": len(unused)}
            row |= {"auc": area, "ci_low": low, "ci_high": high, "verdict": word}
            found.append(row)
        rows += _held_against_alike(found)
    columns = ["instrument", "contrast", "first", "second", "n_used", "n_unused", "auc"]
    return pd.DataFrame(rows, columns=[*columns, "ci_low", "ci_high", "verdict"])


def _pairs(sides: list[tuple[str, str]]) -> Iterator[tuple[str, tuple, tuple]]:
    """Contrasts with two of the sides: organisms with how their answers were made."""
    for contrast, (using, ignoring) in CONTRASTS.items():
        used = [side for side in sides if KIND[side[0]] == using and side[1] == "used"]
        unused = [side for side in sides if KIND[side[0]] == ignoring and side[1] == "unused"]
        for first in used:
            for second in unused:
                if using != ignoring or first[0] == second[0]:
                    yield contrast, first, second
    made_as = {name: (organism.kind, organism.dose) for name, organism in ORGANISMS.items()}
    for first, second in combinations([side for side in sides if side[0] in made_as], 2):
        alike = made_as[first[0]] == made_as[second[0]] and first[0] != second[0]
        if alike and first[1] == second[1]:
            yield ALIKE, first, second


def _held_against_alike(found: list[dict]) -> list[dict]:
    """Rows of one instrument with the verdicts that its alike pairs leave them."""
    furthest = max(
        (abs(row["auc"] - CHANCE) for row in found if row["contrast"] == ALIKE), default=0
    )
    held = []
    for row in found:
        # The tolerance is that of 0.8 − 0.5 and 0.5 − 0.2 in floating point.
        no_further = abs(row["auc"] - CHANCE) <= furthest + 1e-9
        between = row["first"] != row["second"]
        if row["contrast"] == ALIKE:
            row = row | {"verdict": None}
        elif between and no_further and row["verdict"] in APART:
            row = row | {"verdict": "cannot say"}
        held.append(row)
    return held


def auc_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """The frame of `pair_aucs` by instrument and contrast: means, ranges and the worst verdict.

    Columns instrument, contrast, pairs (their number), traces (the fewest on a side of a pair), auc
    (mean over pairs), lowest, highest, apart (pairs whose interval does not hold chance) and
    verdict. Which of two alike models is first means nothing: their AUCs are turned to lie at or
    above chance. Stage 06b.
    """
    rows = []
    for (name, contrast), part in pairs.groupby(["instrument", "contrast"], sort=False):
        areas = part["auc"]
        if contrast == ALIKE:
            areas = CHANCE + (areas - CHANCE).abs()
        row = {"instrument": name, "contrast": contrast, "pairs": len(part)}
        row |= {"traces": int(part[["n_used", "n_unused"]].min(axis=None)), "auc": areas.mean()}
        row |= {"lowest": areas.min(), "highest": areas.max()}
        row["apart"] = int(((part["ci_low"] > CHANCE) | (part["ci_high"] < CHANCE)).sum())
        words = part["verdict"].dropna()
        rows.append(row | {"verdict": min(words, key=VERDICTS.index, default=None)})
    columns = ["instrument", "contrast", "pairs", "traces", "auc", "lowest", "highest", "apart"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


def scoreboard(aucs: pd.DataFrame, calibrated: pd.DataFrame) -> pd.DataFrame:
    """One row an instrument: one verdict, growth with the dose, AUCs by contrast, passes, kind.

    `aucs` is the frame of `auc_table`, `calibrated` that of `calibration`. A contrast's cell has
    the mean over pairs and the range over pairs behind it, where there are two. The verdict is the
    worst over the contrasts: an instrument that is trusted must tell in each. Instruments of which
    nothing is known are left out. Stage 06b.
    """
    shown = aucs.assign(cell=[_with_range(row) for row in aucs.itertuples()])
    wide = shown.pivot(index="instrument", columns="contrast", values="cell")
    wide = wide.reindex(columns=[c for c in (*CONTRASTS, ALIKE) if c in wide])
    judged = aucs.dropna(subset="verdict")
    worst = judged.groupby("instrument")["verdict"].agg(
        lambda words: min(words, key=VERDICTS.index)
    )
    order = [name for name in INSTRUMENTS if name in worst.index]
    table = wide.loc[order]
    growths = calibrated.set_index("instrument")["growth"]
    table.insert(0, "verdict", worst.reindex(order))  # what scrolls out of sight stands last
    table.insert(1, "with the dose", growths.reindex(order))
    table["passes"] = [INSTRUMENTS[name].passes for name in order]
    table["kind"] = [INSTRUMENTS[name].kind for name in order]
    return table


def _with_range(row) -> str:
    several = f" ({row.lowest:.2f} to {row.highest:.2f})" if row.pairs > 1 else ""
    return f"{row.auc:.2f}{several}"


def scoreboard_record(table: pd.DataFrame, aucs: pd.DataFrame, calibrated: pd.DataFrame) -> dict:
    """What the pages quote: `n` instruments, the `contrasts` asked, and names by verdict.

    `by_growth` lists instruments by what they do with the dose, from the best word on, on at least
    `dose_problems` problems (0: no doses are there), `rhos` has the rank correlations with their
    intervals by instrument. `by_verdict` lists instruments, from the best verdict on, `aucs` has
    the AUC with its range over pairs by instrument and contrast, `pairs` the most pairs of models
    by contrast, `traces` the fewest on a side of one, `tells_in` by contrast the instruments that
    tell in it. `alike` counts what was asked of alike models
    and how often an interval said that they differ. `untold` has the contrasts for which no
    organism is there, `rule` the areas between which `verdict` tells. Stages 06b and 07.
    """
    asked = [c for c in CONTRASTS if (aucs["contrast"] == c).any()]
    judged = aucs[aucs["contrast"] != ALIKE]
    alike = aucs[aucs["contrast"] == ALIKE]
    entries = aucs.set_index("instrument")
    by_verdict = {
        word: table.index[table["verdict"] == word].tolist() for word in reversed(VERDICTS)
    }
    return {
        "n": len(table),
        "contrasts": asked,
        "untold": [c for c in CONTRASTS if c not in asked],
        "pairs": {c: int(judged["pairs"][judged["contrast"] == c].max()) for c in asked},
        "traces": int(judged["traces"].min()) if len(judged) else 0,
        "alike": {"asked": int(alike["pairs"].sum()), "apart": int(alike["apart"].sum())},
        "aucs": {
            name: entries.loc[[name]].set_index("contrast")[["auc", "lowest", "highest"]]
            .to_dict("index")
            for name in table.index
        },
        "by_growth": {
            word: calibrated["instrument"][calibrated["growth"] == word].tolist()
            for word in reversed(GROWTHS)
        },
        "dose_problems": int(calibrated["problems"].min()) if len(calibrated) else 0,
        "rhos": calibrated.set_index("instrument")[["rho", "ci_low", "ci_high"]].to_dict("index"),
        "verdicts": table["verdict"].to_dict(),
        "by_verdict": by_verdict,
        "tells_in": {
            c: judged["instrument"][(judged["contrast"] == c) & (judged["verdict"] == "tells")]
            .tolist()
            for c in asked
        },
        "rule": {"useful": USEFUL, "chance": CHANCE, "useful_rho": USEFUL_RHO, "enough": ENOUGH},
    }  # fmt: skip
