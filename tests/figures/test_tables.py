"""A page's tables speak in words, and say what the frame says."""

import pandas as pd

from r2a_utils.figures import reading_table

FRAME = pd.DataFrame(
    {"layer": [3, 0], "head": [1, 7], "ci_low": [0.12345, 0.2], "p_familywise": 0.5, "by_steps": 1}
)


def test_heads_have_their_names_and_columns_are_words():
    shown = reading_table(FRAME)
    assert list(shown.index) == ["L3.H1", "L0.H7"]
    assert list(shown) == ["interval from", "p, best of all heads", "by steps"]
    assert shown["interval from"].tolist() == [0.123, 0.2]
    assert list(FRAME) == ["layer", "head", "ci_low", "p_familywise", "by_steps"]


def test_rows_that_have_names_keep_them():
    named = FRAME.set_axis(["end_think", "an </answer>"]).rename_axis("from_segment")
    shown = reading_table(named, digits=1)
    assert (shown.columns.name, shown.index.name) == ("from segment", None)
    assert list(shown.index) == ["closing tag", "an </answer>"]
    assert shown["head"].tolist() == ["L3.H1", "L0.H7"]
    assert "an &lt;/answer&gt;" in shown.to_html()


def test_levels_and_numbers_as_names_stay():
    table = pd.DataFrame(
        [[1.26, 2.0]], columns=pd.MultiIndex.from_product([["with_reasoning"], [0, 1]])
    )
    shown = reading_table(table, digits=1)
    assert list(shown.columns) == [("with reasoning", 0), ("with reasoning", 1)]
    assert shown.iloc[0, 0] == 1.3


def test_a_mean_over_too_few_cases_is_flagged_where_its_count_stands():
    shown = reading_table(pd.DataFrame({"n": [3, 5, 0], "share": [1.0, 0.5, float("nan")]}))
    assert shown["n"].tolist() == ["3: too few for a mean", "5", "0"]
    assert reading_table(pd.DataFrame({"n": [5, 60]}))["n"].tolist() == [5, 60]
    assert reading_table(pd.DataFrame({"n": [1.0]}))["n"].tolist() == ["1: too few for a mean"]


def test_what_is_missing_is_a_dash_and_the_rest_of_its_column_stays_short():
    frame = pd.DataFrame({"lift": [0.12345, None], "n": [5, None], "said": ["x", None], "k": 3})
    shown = reading_table(frame)
    assert shown["lift"].tolist() == ["0.123", "–"] and shown["n"].tolist() == ["5", "–"]
    assert shown["said"].tolist() == ["x", "–"] and shown["k"].tolist() == [3, 3]
    assert not any(word in shown.to_html() for word in ("NaN", "None"))


def test_the_ends_of_an_interval_stand_in_one_column():
    frame = pd.DataFrame(
        {"mass": [0.5, 0.25], "ci_low": [0.41, None], "ci_high": [0.6, None]}, index=["a", "b"]
    )
    shown = reading_table(frame, digits=2)
    assert list(shown) == ["mass", "interval"]
    assert shown["interval"].tolist() == ["0.41 to 0.60", "–"]
    named = frame.set_axis(["follows", "follows_low", "follows_high"], axis=1)
    assert reading_table(named, digits=2)["follows"].tolist() == ["0.50 (0.41 to 0.60)", "0.25"]
    lone = reading_table(pd.DataFrame({"low": [0.1], "mass_low": [0.2]}))
    assert list(lone) == ["low", "mass low"]


def test_p_values_are_bounded_and_signs_are_true():
    frame = pd.DataFrame({"mcnemar_p": [1e-9, 0.25, None], "points": [-0.5, 0.25, 1.0]})
    shown = reading_table(frame, digits=2)
    assert list(shown) == ["p, McNemar's test", "points"]
    assert shown["p, McNemar's test"].tolist() == ["< 0.001", "0.250", "–"]
    assert shown["points"].tolist() == ["−0.50", "0.25", "1.00"]


def test_whole_numbers_have_no_point_and_yes_is_a_word():
    shown = reading_table(pd.DataFrame({"heads": [18.0, 28.0], "printed": [True, False]}))
    assert shown["heads"].map(str).tolist() == ["18", "28"]
    assert shown["printed"].tolist() == ["yes", "no"]


def test_rows_without_a_name_are_not_counted():
    html = reading_table(pd.DataFrame({"kind": ["a", "b"], "n": [10, 20]})).to_html()
    assert "<th>0</th>" not in html and html.count("<th></th>") >= 2
