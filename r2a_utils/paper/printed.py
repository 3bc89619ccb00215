"""The numbers that the paper prints: Zhang et al., "From Reasoning to Answer" (EMNLP 2025).

They come with the package (`published.json`). This file knows them and what follows from them by
arithmetic; the authors' files are read by `artefacts.py`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd


def published() -> dict:
    """The numbers that the paper and its code print, by stage, with their source."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def published_findings() -> pd.DataFrame:
    """What the paper prints of its three distills, a row a model, in the words of our records.

    Columns: with_reasoning and without_reasoning, shares of right answers on MATH-500; mass, the
    attention answer → reasoning; early_probe and early_boxed_probe, the mean normalised logit
    difference in the early layers under its two probes. Stage 07 shows it beside a run.
    """
    paper = published()
    stage1 = {row["model"]: row for row in paper["stage1_math500"]["rows"]}
    masses = paper["stage2_mean_segment_mass_answer"]
    effects = paper["stage3_patching"]["mean_early_layer_effect"]
    reasoning = masses["columns"].index("reasoning")
    rows = {
        model: [
            stage1[model]["with_reasoning"],
            stage1[model]["without_reasoning"],
            masses[model][reasoning],
            *effects[model],
        ]
        for model in paper["models"]
    }
    shares = ["with_reasoning", "without_reasoning", "mass"]
    columns = [*shares, "early_probe", "early_boxed_probe"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def discordant_pairs(
    n: int, with_reasoning: float, without_reasoning: float, t: float
) -> tuple[int, int]:
    """The counts (right only with, right only without reasoning) behind published figures.

    A paired t of 0/1 grades is a function of n and of these two counts alone; of those that fit
    the accuracies as printed (three decimals), the one that gives t is returned. Raises
    ValueError when none or several do to t's six decimals.
    """
    fitting = []
    for difference in range(-n, n + 1):
        if abs(difference / n - (with_reasoning - without_reasoning)) > 0.001:
            continue
        for only_without in range(max(0, -difference), (n - difference) // 2 + 1):
            only_with = only_without + difference
            mean, square = difference / n, (only_with + only_without) / n
            variance = (square - mean**2) * n / (n - 1)
            if variance > 0 and abs(mean / math.sqrt(variance / n) - t) < 1e-6:
                fitting.append((only_with, only_without))
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} pairs of counts give t = {t} with n = {n}: {fitting}")
    return fitting[0]
