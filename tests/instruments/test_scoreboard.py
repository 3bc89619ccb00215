"""The scoreboard by hand: AUCs, their intervals, the rule, and calibration on known doses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from r2a_utils.instruments.calibration import calibration
from r2a_utils.instruments.readings import INSTRUMENTS
from r2a_utils.instruments.scoreboard import (
    auc,
    auc_interval,
    auc_table,
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


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.9, 1.0, "tells"),
        (0.89, 1.0, "tells in part"),
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
    """Two seeds are pooled; of the hinted only the traces on either side of the hint."""
    frame = readings(
        {
            ("knockout", "r2a-tiny", True): [1, 1, 1],
            ("knockout", "r2a-user-b", True): [1, 1, 1],
            ("knockout", "r2a-ignorer", False): [0, 0, 0, 0, 0, 2],
            ("knockout", "r2a-hinted", True): [0, 0, 0, 0, 0],
            ("knockout", "r2a-hinted", False): [1, 1, 1, 1, 1],
            ("lift", "r2a-tiny", True): [1, 1, 1, 1, 1],
            ("lift", "untrained", False): [1, 1, 1, 1],  # fewer than are asked for
        }
    )
    table = auc_table(frame).set_index(["instrument", "contrast"])
    assert list(table.index) == [("knockout", "between models"), ("knockout", "by a hint")]
    assert table.loc[("knockout", "between models"), "auc"] == pytest.approx(5 / 6)
    assert table.loc[("knockout", "between models"), "n_used"] == 6
    assert table.loc[("knockout", "by a hint"), "verdict"] == "misleads"


def test_an_instrument_is_trusted_only_as_far_as_its_worst_contrast():
    frame = readings(
        {
            ("knockout", "r2a-tiny", True): [1] * 40,
            ("knockout", "r2a-ignorer", False): [0] * 40,
            ("knockout", "r2a-hinted", True): [1] * 40,
            ("knockout", "r2a-hinted", False): [1] * 40,
            ("dots", "r2a-tiny", True): [1] * 40,
            ("dots", "r2a-ignorer", False): [0] * 40,
        }
    )
    aucs = auc_table(frame)
    table = scoreboard(aucs, calibration(frame))
    assert table["verdict"].to_dict() == {"knockout": "does not tell", "dots": "tells"}
    assert list(table.index) == [name for name in INSTRUMENTS if name in ("knockout", "dots")]
    record = scoreboard_record(table, aucs, calibration(frame))
    assert record["by_verdict"]["tells"] == ["dots"]
    assert record["by_verdict"]["does not tell"] == ["knockout"]
    assert record["untold"] == ["untrained"]
    assert record["dose_problems"] == 0


def test_values_leave_out_what_was_not_read():
    frame = readings({("attribution", "r2a-tiny", True): [1, 3, np.nan]})
    (row,) = value_table(frame).to_dict("records")
    assert (row["n"], row["value"]) == (2, 2)
