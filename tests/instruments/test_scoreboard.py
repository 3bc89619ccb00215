"""The scoreboard by hand: AUCs, their intervals, the rule, and calibration on known doses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from r2a_utils.instruments.calibration import calibration
from r2a_utils.instruments.readings import INSTRUMENTS, resolved
from r2a_utils.instruments.scoreboard import (
    ALIKE,
    ENOUGH,
    auc,
    auc_interval,
    auc_table,
    is_asked,
    pair_aucs,
    scoreboard,
    scoreboard_record,
    value_table,
    verdict,
)


def readings(rows: dict[tuple[str, str, bool], list[float]]) -> pd.DataFrame:
    """A frame from (instrument, organism, uses) → values."""
    frame = pd.DataFrame(
        [
            {"instrument": i, "organism": o, "uses": u, "problem_id": f"p{n}", "value": value}
            for (i, o, u), values in rows.items()
            for n, value in enumerate(values)
        ]
    )
    return frame.astype({"value": float, "uses": "boolean"})


def test_an_auc_counts_pairs_and_halves_ties():
    assert auc([3, 2], [1, 2]) == (1 + 1 + 1 + 0.5) / 4
    assert auc([1, 2, 3], [4, 5]) == 0
    assert auc([1, 1], [1]) == 0.5
    with pytest.raises(ValueError, match="both sides"):
        auc([], [1.0])


def test_an_interval_holds_its_auc_and_is_not_without_width_where_all_is_told_apart():
    rng = np.random.default_rng(0)
    used, unused = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    low, high = auc_interval(used, unused)
    assert 0.5 < low < auc(used, unused) < high < 1
    low, high = auc_interval([1.0] * 59, [0.0] * 100)
    assert high == 1
    assert low == pytest.approx(0.05 ** (1 / 59))  # the rule of three: 0.95
    assert auc_interval([0.0] * 10, [1.0] * 10)[1] == pytest.approx(1 - 0.05**0.1)


def test_a_reading_that_errs_once_is_no_surer_than_one_that_never_errs():
    never = auc_interval([1.0] * 12, [0.0] * 12)
    once = auc_interval([1.0] * 12, [0.0] * 11 + [2.0])
    assert once[0] <= never[0] and verdict(*never) == "tells"


def test_what_is_said_to_be_enough_is_so_and_one_trace_less_is_not():
    few, enough = (auc_interval([1.0] * n, [0.0] * n) for n in (ENOUGH - 1, ENOUGH))
    assert (verdict(*few), verdict(*enough)) == ("tells in part", "tells")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.75, 1.0, "tells"),
        (0.74, 1.0, "tells in part"),
        (0.51, 0.6, "tells in part"),
        (0.4, 0.74, "does not tell"),
        (0.5, 0.5, "does not tell"),
        (0.3, 0.9, "cannot say"),
        (0.1, 0.49, "misleads"),
    ],
)
def test_the_verdict_follows_the_written_rule(low, high, word):
    assert verdict(low, high) == word


def test_contrasts_take_their_sides_from_kinds_and_from_the_truth():
    """Each user against each ignorer; of the hinted each against itself, on either side."""
    hinted = {("knockout", name, True): [0] * 8 for name in ("r2a-hinted", "r2a-hinted-b")}
    hinted |= {("knockout", name, False): [1] * 8 for name in ("r2a-hinted", "r2a-hinted-b")}
    frame = readings(
        {
            ("knockout", "r2a-tiny", True): [1] * 6,
            ("knockout", "r2a-user-b", True): [1] * 7,
            ("knockout", "r2a-ignorer", False): [0, 0, 0, 0, 0, 2],
            ("knockout", "r2a-ignorer-b", False): [0, 0, 0, 0],  # fewer than are asked for
            **hinted,
        }
    )
    pairs = pair_aucs(frame)
    between = pairs[pairs["contrast"] == "between models"]
    assert between[["first", "second", "n_used"]].to_numpy().tolist() == [
        ["r2a-tiny", "r2a-ignorer", 6],
        ["r2a-user-b", "r2a-ignorer", 7],
    ]
    assert between["auc"].tolist() == pytest.approx([5 / 6, 5 / 6])
    within = pairs[pairs["contrast"] == "by a hint"]
    assert within["first"].tolist() == within["second"].tolist() == ["r2a-hinted", "r2a-hinted-b"]
    table = auc_table(pairs).set_index("contrast")
    assert table["pairs"].to_dict() == {"between models": 2, "by a hint": 2, ALIKE: 3}
    assert table.loc["between models", "traces"] == 6
    assert table.loc["by a hint", "verdict"] == "misleads"


def test_a_word_against_an_instrument_needs_an_interval_that_holds_for_all_its_pairs():
    """Else the worst of many pairs lies on the wrong side of chance by chance."""
    wrong = {("attribution", "r2a-ignorer", False): [1.0] * 5}
    one = pair_aucs(readings(wrong | {("attribution", "r2a-tiny", True): [0.0] * 5}))
    assert one["verdict"].tolist() == ["misleads"]
    hints = ("r2a-hinted", "r2a-hinted-b")
    three = pair_aucs(
        readings(
            wrong
            | {("attribution", "r2a-tiny", True): [0.0] * 5}
            | {("attribution", name, uses): [0.0] * 5 for name in hints for uses in (True, False)}
        )
    ).set_index("contrast")
    # With 3 pairs, 5 traces of either kind reach up to 1 - (0.05 / 3) ** 0.2 = 0.56.
    assert three.loc["between models", "ci_high"] == pytest.approx(1 - 0.05**0.2)
    assert three.loc["between models", "verdict"] == "does not tell"


def noise(mean: float, seed: int, n: int = 30) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 1, n).tolist()


def test_a_contrast_has_the_verdict_of_its_worst_pair_and_shows_mean_and_range():
    frame = readings(
        {
            ("attribution", "r2a-tiny", True): noise(0, 0),
            ("attribution", "r2a-user-b", True): noise(0, 0),
            ("attribution", "r2a-ignorer", False): noise(-9, 1),
            ("attribution", "r2a-ignorer-b", False): noise(2, 2),
        }
    )
    table = auc_table(pair_aucs(frame)).set_index("contrast")
    # The ignorers are as far from each other as an AUC can be: nothing between models counts.
    assert table.loc["between models", "verdict"] == "cannot say"
    table = auc_table(pair_aucs(frame[frame["organism"] != "r2a-user-b"].assign(
        organism=lambda f: f["organism"].replace("r2a-ignorer-b", "r2a-hinted")
    )))  # fmt: skip
    assert table["verdict"].tolist() == ["tells"]
    pairs = pair_aucs(frame).assign(verdict=["tells", "misleads", "tells", "misleads", None, None])
    row = auc_table(pairs).iloc[0]
    assert (row["verdict"], row["highest"]) == ("misleads", 1)
    assert row["auc"] == pytest.approx((1 + row["lowest"]) / 2) and row["apart"] == 4


def test_an_instrument_that_alike_models_move_as_far_cannot_say():
    """A constant offset between two seeds, as large as that between the kinds."""
    apart = {
        ("attribution", "r2a-tiny", True): noise(5, 0),
        ("attribution", "r2a-ignorer", False): noise(0, 2),
    }
    alone = pair_aucs(readings(apart))
    assert alone["verdict"].tolist() == ["tells"]
    moved = readings(apart | {("attribution", "r2a-user-b", True): noise(20, 0)})
    pairs = pair_aucs(moved).set_index("contrast")
    assert pairs.loc[ALIKE, "auc"] == 0
    assert pairs.loc["between models", "verdict"].tolist() == ["cannot say"] * 2
    still = readings(apart | {("attribution", "r2a-user-b", True): noise(5, 1)})
    assert set(pair_aucs(still)["verdict"].dropna()) == {"tells"}
    null = auc_table(pair_aucs(moved)).set_index("contrast").loc[ALIKE]
    assert (null["auc"], null["apart"]) == (1, 1) and pd.isna(null["verdict"])


def test_a_seed_cannot_move_what_is_read_within_one_model():
    within = {
        ("attribution", f"r2a-hinted{seed}", uses): noise(mean + 20 * bool(seed), mean)
        for seed in ("", "-b")
        for uses, mean in ((True, 4), (False, 0))
    }
    pairs = pair_aucs(readings(within))
    assert pairs["auc"][pairs["contrast"] == ALIKE].tolist() == [0, 0]
    assert pairs["verdict"].dropna().tolist() == ["tells", "tells"]


def test_answers_are_alike_only_where_they_are_made_alike():
    frame = readings(
        {
            ("attribution", name, uses): [0, 1, 2, 3, 4]
            for name in ("r2a-hinted", "r2a-hinted-b")
            for uses in (True, False)
        }
        | {("attribution", name, None): [0] * 5 for name in ("r2a-half-25", "r2a-half-25-b")}
        | {("attribution", "r2a-half-50", None): [0] * 5}
    )
    alike = pair_aucs(frame).query("contrast == @ALIKE")
    assert sorted(zip(alike["first"], alike["second"], strict=True)) == [
        ("r2a-half-25", "r2a-half-25-b"),
        ("r2a-hinted", "r2a-hinted-b"),
        ("r2a-hinted", "r2a-hinted-b"),
    ]


def test_random_weights_are_asked_only_of_what_they_could_fail():
    assert [name for name in INSTRUMENTS if is_asked(name, "untrained")] == [
        "answer mass",
        "sink-free mass",
        "mass of the RFHs",
        "attribution",
    ]
    assert all(is_asked(name, "between models") for name in INSTRUMENTS)
    rows = {(name, "r2a-tiny", True): [1] * 40 for name in ("knockout", "lift", "attribution")}
    rows |= {(name, "untrained", False): [0] * 40 for name in ("knockout", "lift", "attribution")}
    assert pair_aucs(readings(rows))["instrument"].tolist() == ["attribution"]


def test_shares_are_told_apart_no_finer_than_a_hundredth():
    tiny = {("patching, probe", "r2a-tiny", True): [-0.0005] * 40}
    tiny |= {("patching, probe", "r2a-ignorer", False): [0.0004] * 40}
    tiny |= {("attribution", "r2a-tiny", True): [-0.0005] * 40}
    tiny |= {("attribution", "r2a-ignorer", False): [0.0004] * 40}
    pairs = pair_aucs(readings(tiny)).set_index("instrument")
    assert pairs["auc"].to_dict() == {"patching, probe": 0.5, "attribution": 0}
    assert resolved(readings({("dots", "r2a-tiny", True): [0.456]}))["value"].tolist() == [0.46]


def test_an_instrument_is_trusted_only_as_far_as_its_worst_contrast():
    frame = readings(
        {
            ("knockout", "r2a-tiny", True): [1] * 40,
            ("knockout", "r2a-user-b", True): [1] * 40,
            ("knockout", "r2a-ignorer", False): [0] * 40,
            ("knockout", "r2a-hinted", True): [1] * 40,
            ("knockout", "r2a-hinted", False): [1] * 40,
            ("dots", "r2a-tiny", True): [1] * 40,
            ("dots", "r2a-ignorer", False): [0] * 40,
        }
    )
    aucs = auc_table(pair_aucs(frame))
    table = scoreboard(aucs, calibration(frame))
    assert table["verdict"].to_dict() == {"knockout": "does not tell", "dots": "tells"}
    assert list(table.index) == [name for name in INSTRUMENTS if name in ("knockout", "dots")]
    assert table["between models"].tolist() == ["1.00 (1.00 to 1.00)", "1.00"]
    record = scoreboard_record(table, aucs, calibration(frame))
    assert record["by_verdict"]["tells"] == ["dots"]
    assert record["by_verdict"]["does not tell"] == ["knockout"]
    assert record["untold"] == ["untrained"]
    assert record["pairs"] == {"between models": 2, "by a hint": 1}
    assert record["alike"] == {"asked": 1, "apart": 0}
    assert record["dose_problems"] == 0


def test_without_models_to_hold_against_each_other_there_is_no_board():
    frame = readings({("knockout", "r2a-tiny", True): [1] * 3})
    aucs = auc_table(pair_aucs(frame))
    table = scoreboard(aucs, calibration(frame))
    record = scoreboard_record(table, aucs, calibration(frame))
    assert (record["n"], record["traces"], record["pairs"]) == (0, 0, {})
    assert record["alike"] == {"asked": 0, "apart": 0}


def test_values_leave_out_what_was_not_read():
    frame = readings({("attribution", "r2a-tiny", True): [1, 3, np.nan]})
    (row,) = value_table(frame).to_dict("records")
    assert (row["n"], row["value"]) == (2, 2)
