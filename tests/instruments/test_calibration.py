"""Calibration by hand: readings that are the dose, that are flat, that fall, on shared problems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from r2a_utils.instruments.calibration import DOSES, calibration, dose_values, growth
from r2a_utils.instruments.scoreboard import (
    auc_table,
    pair_aucs,
    scoreboard,
    scoreboard_record,
)


def readings(value: Callable[[str, int], float], instrument: str, n: int = 12) -> pd.DataFrame:
    """A frame in which each organism of the ladder, and r2a-tiny, reads the same `n` problems."""
    rows = [
        {"instrument": instrument, "organism": name, "problem_id": f"p{i}", "value": value(name, i)}
        for name in ("r2a-tiny", *DOSES)
        for i in range(n)
    ]
    return pd.DataFrame(rows).assign(uses=pd.array([pd.NA] * len(rows), dtype="boolean"))


def dose(name: str) -> float:
    return DOSES.get(name, 1.0)


def test_the_ladder_goes_from_no_dose_to_all_and_leaves_out_who_never_saw_a_note():
    assert sorted(set(DOSES.values())) == [0, 0.25, 0.5, 0.75, 1]
    assert "r2a-tiny" not in DOSES


def test_a_reading_that_is_the_dose_grows_a_flat_one_does_not_and_a_mirrored_one_falls():
    frame = pd.concat(
        [
            readings(lambda name, i: dose(name) + 0.01 * i, "knockout"),
            readings(lambda name, i: 0.01 * i, "lift"),
            readings(lambda name, i: -dose(name) + 0.01 * i, "dots"),
            readings(lambda name, i: 1.0, "empty"),
            readings(lambda name, i: float(dose(name) >= 0.75) + 0.01 * i, "shuffled"),
        ]
    )
    table = calibration(frame).set_index("instrument")
    assert table["growth"].to_dict() == {
        "knockout": "grows",
        "lift": "does not grow",
        "dots": "falls",
        "empty": "does not grow",
        "shuffled": "grows in part",
    }
    assert table.loc["empty", "rho"] == 0
    assert (table["problems"] == 12).all()
    values = dose_values(frame).set_index(["instrument", "ladder", "dose"]).sort_index()
    assert values.loc[("knockout", 1, 0.5), "value"] == pytest.approx(
        0.5 + 0.01 * np.mean(range(12))
    )
    assert values.loc[("knockout", 1, 0.5), "share"] and not values.loc[("lift", 2, 0.5), "share"]
    assert values.loc[("knockout", 1)].index.tolist() == [0, 0.25, 0.5, 0.75]
    assert values.loc[("knockout", 2)].index.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_what_grows_has_to_grow_in_each_seeds_own_ladder():
    """Steps that rise only on the average of the seeds, and a growth that is one seed's alone."""
    dips = {"r2a-half-25": 0.3, "r2a-half-50": 0.2}
    frame = pd.concat(
        [
            readings(lambda name, i: dips.get(name, dose(name)) + 0.01 * i, "knockout"),
            readings(lambda name, i: dose(name) * (name[-2:] == "-b") + 0.01 * i, "dots"),
        ]
    )
    means = frame.assign(dose=frame["organism"].map(DOSES)).groupby(["instrument", "dose"])["value"]
    assert (means.mean().groupby("instrument").diff().dropna() > 0).all()
    growths = calibration(frame).set_index("instrument")["growth"]
    assert growths.to_dict() == {"knockout": "grows in part", "dots": "cannot say"}


def test_a_growth_of_less_than_a_hundredth_of_a_share_is_none():
    frame = pd.concat([readings(lambda name, i: 0.004 * dose(name), n) for n in ("dots", "lift")])
    growths = calibration(frame).set_index("instrument")["growth"]
    assert growths.to_dict() == {"dots": "does not grow", "lift": "grows"}


def test_rho_is_the_mean_of_the_ladders_spearmans_and_lies_between_their_ends():
    rng = np.random.default_rng(1)
    frame = readings(lambda name, i: dose(name) + rng.normal(), "attribution")
    row = calibration(frame).iloc[0]
    known = frame[frame["organism"].isin(DOSES)]
    second = known["organism"].str.endswith("-b")
    expected = [
        stats.spearmanr(part["value"], part["organism"].map(DOSES)).statistic
        for part in (known[~second], known[second])
    ]
    assert row["rho"] == pytest.approx(np.mean(expected))
    assert row["ci_low"] < min(expected) and max(expected) < row["ci_high"]


def test_only_problems_that_every_organism_of_a_ladder_read_count():
    frame = readings(lambda name, i: dose(name), "knockout")
    lost = (frame["organism"] == "r2a-half-50") & frame["problem_id"].isin(["p0", "p1"])
    frame.loc[lost, "value"] = np.nan
    lost = (frame["organism"] == "r2a-tiny") & (frame["problem_id"] == "p5")  # not of the ladder
    frame.loc[lost, "value"] = np.nan
    assert calibration(frame)["problems"].tolist() == [10]
    counts = dose_values(frame).groupby("ladder")["n"].unique().map(list).to_dict()
    assert counts == {1: [10], 2: [12]}


def test_two_doses_or_two_problems_are_no_calibration():
    frame = readings(lambda name, i: dose(name), "dots")
    ends = frame[frame["organism"].isin(["r2a-user-b", "r2a-ignorer"])]
    for few in (ends, frame[frame["problem_id"].isin(["p0", "p1"])]):
        assert calibration(few).empty and dose_values(few).empty


@pytest.mark.parametrize(
    ("rises", "low", "high", "word"),
    [
        (True, 0.1, 0.5, "grows"),
        (False, 0.1, 0.5, "grows in part"),
        (True, -0.1, 0.4, "does not grow"),
        (True, -0.1, 0.5, "cannot say"),
        (False, 0.0, 0.7, "cannot say"),
        (False, 0.0, 0.0, "does not grow"),
        (False, -0.5, -0.1, "falls"),
    ],
)
def test_the_word_follows_the_written_rule(rises, low, high, word):
    assert growth(rises, low, high) == word


def test_the_scoreboard_has_the_word_and_the_record_lists_it():
    frame = readings(lambda name, i: dose(name) + 0.01 * i, "knockout")
    using = frame["organism"].map(dose)
    frame["uses"] = pd.array(
        [None if 0 < d < 1 else bool(d) for d in using], dtype="boolean"
    )  # fmt: skip
    aucs, calibrated = auc_table(pair_aucs(frame)), calibration(frame)
    table = scoreboard(aucs, calibrated)
    assert table.loc["knockout", "with the dose"] == "grows"
    record = scoreboard_record(table, aucs, calibrated)
    assert record["by_growth"]["grows"] == ["knockout"] and record["by_growth"]["falls"] == []
    assert record["dose_problems"] == 12
    assert record["rhos"]["knockout"]["rho"] > 0.9
