"""One list or several: kinds of traces with heads of their own are told from kinds without."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.attention.head_lists import (
    HeadLists,
    kinds_of_traces,
    ranking_across,
    ranking_where_written,
    summarise_lists,
)
from r2a_utils.attention.mass import segment_mass
from r2a_utils.attention.weights import attention_rows
from r2a_utils.texts.trace import Trace
from tests.toy_masses import attention_masses

LENGTHS = np.array([[1, 5, 1, 8 + i, 1, 4] for i in range(12)])


def reads(strong: int):
    """Heads of which the one numbered so reads the reasoning most, then less and less."""

    def weights(layer, head, segment, query, key):
        rank = (layer * 3 + head - strong) % 12
        return np.where(segment == 3, 1 + (12 - rank), 1)

    return weights


def test_a_kind_with_its_own_heads_shares_few_and_a_random_half_all():
    first, second = (attention_masses(reads(strong), LENGTHS) for strong in (0, 6))
    mass = first.copy(data=np.where(np.arange(12)[:, None, None, None, None] < 6, first, second))
    kinds = {"first": np.arange(12) < 6, "every other": np.arange(12) % 2 == 0}
    table = ranking_across(mass, kinds, k=4).set_index("kind")
    assert table.loc["first", "shared"] == 0 and table.loc["first", "spearman"] < 0
    assert table.loc["every other", "shared"] == 4 and table.loc["every other", "spearman"] > 0.95
    lists = summarise_lists(table.reset_index(), {}, 4)
    assert (lists.least_kind, lists.least_shared, lists.written_shared) == ("first", 0, None)


def test_layers_without_attention_play_no_part():
    mass = attention_masses(reads(0), LENGTHS)
    kinds = {"every other": np.arange(12) % 2 == 0}
    hybrid = mass.copy(data=np.where(np.arange(4)[:, None, None, None] == 1, np.nan, mass))
    expected = ranking_across(mass.isel(layer=[0, 2, 3]), kinds, k=3)
    assert ranking_across(hybrid, kinds, k=3).equals(expected)


def test_thirds_families_and_forms_are_kinds_and_single_traces_are_none(random_trace):
    traces = [random_trace(reasoning=20 + i, answer=40 if i % 2 else 8, seed=i) for i in range(6)]
    for i, trace in enumerate(traces):
        trace.meta["family"] = "odd" if i == 5 else "even"
    kinds = kinds_of_traces(traces)
    assert list(kinds) == [
        "reasoning of 20 to 21 tokens",
        "reasoning of 22 to 23 tokens",
        "reasoning of 24 to 25 tokens",
        "long answers",
        "short answers",
    ]
    assert kinds["long answers"].tolist() == [bool(i % 2) for i in range(6)]
    assert kinds_of_traces(traces[:1]) == {}


def test_without_kinds_and_boxes_nothing_is_said():
    mass = attention_masses(reads(0), LENGTHS[:1])
    assert summarise_lists(ranking_across(mass, {}, 3), {}, 3) == HeadLists(3)


def test_the_writing_tokens_are_those_before_the_boxs_content(tokenizer, make_random_model):
    model = make_random_model("qwen2")
    text = (
        f"{tokenizer.bos_token}How many? <think>\nThree and four make seven.\n</think>\n\n"
        "It is \\boxed{7}."
    )
    trace = Trace.from_text(text, tokenizer)
    mass = segment_mass(model, [trace])
    found = ranking_where_written(model, mass, [trace], k=2)
    digit = next(i for i in reversed(range(len(trace))) if trace.tokens[i] == "7")
    heads = list(np.ndindex(model.n_layers, model.n_heads))
    rows = attention_rows(model, trace, heads, slice(digit - 1, digit))
    expected = rows.values[:, 0, trace.segments["reasoning"]].sum(-1).mean()
    assert found["n"] == 1 and found["mass"] == pytest.approx(expected, abs=1e-5)


def test_no_box_no_ranking_by_it(random_trace, make_random_model):
    model, trace = make_random_model("qwen2"), random_trace()
    assert ranking_where_written(model, segment_mass(model, [trace]), [trace]) == {}
