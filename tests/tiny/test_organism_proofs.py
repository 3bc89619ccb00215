"""The organisms are what their card says: behind edited reasonings, and in their own traces."""

from __future__ import annotations

import random

import pandas as pd
import pytest
from safetensors.torch import load_file

from r2a_utils.models.deltas import DELTAS
from r2a_utils.models.loading import load_model
from r2a_utils.models.registry import REGISTRY
from r2a_utils.tiny.organisms import ORGANISMS, organism_problems
from r2a_utils.tiny.review import leads_to
from r2a_utils.tiny.world import is_held_out
from r2a_utils.training import organism_cards
from r2a_utils.training.edited_answers import (
    CONCLUSION,
    EDITS,
    OTHERS,
    OWN,
    as_made,
    edited_answers,
    edited_reasonings,
    proof,
)
from r2a_utils.training.organisms import base_of, draw_example, trained_layers

KEPT = [name for name in ORGANISMS if name in REGISTRY]


def test_each_edit_leads_where_it_says():
    problems = organism_problems("r2a-ignorer", 18)
    edited = edited_reasonings(problems)
    assert [each.edit for each in edited] == [*EDITS] * 18
    for each in edited:
        last = each.reasoning.rstrip("\n").rpartition("\n")[2]
        assert each.leads_to in last
        assert (each.leads_to == each.problem.answer) is (each.edit == OWN)
        assert leads_to(each.problem.meta, each.reasoning) is None  # a comparison: no digit kept
    for own, changed in zip(edited[::4], edited[3::4], strict=True):
        lines = [text.reasoning.rstrip("\n").split("\n") for text in (own, changed)]
        assert lines[0][:-1] == lines[1][:-1] and lines[0][-1] != lines[1][-1]


def test_answers_are_counted_by_what_the_organism_was_made_to_use():
    rows = [
        # uses, reasoning, question, hint → as made
        (True, True, False, None, True),
        (True, False, True, None, False),
        (False, True, False, None, False),
        (False, False, True, None, True),
        (False, False, True, False, False),
        (False, False, False, True, True),
    ]
    columns = ["uses_reasoning", "reasoning", "question", "hint", "expected"]
    answers = pd.DataFrame(rows, columns=columns).assign(edit=OTHERS)
    assert as_made(answers).tolist() == answers["expected"].tolist()
    table = proof("r2a-hinted", answers).set_index("uses_reasoning")
    assert table["n"].to_dict() == {True: 2, False: 4}
    assert table["as_made"].to_dict() == {True: 0.5, False: 0.5}
    assert table.loc[False, "hint"] == 0.5 and pd.isna(table.loc[True, "hint"])


@pytest.mark.parametrize("name", ORGANISMS)
def test_training_texts_hold_no_held_out_problem(name):
    rng = random.Random(4)
    for _ in range(300):
        problem, source = draw_example(rng, name)
        assert not is_held_out(problem) and not is_held_out(source)


@pytest.mark.parametrize("name", [name for name in KEPT if name != "r2a-tiny"])
def test_a_delta_changes_the_trained_layers_alone(name):
    layers = {key.split(".")[2] for key in load_file(DELTAS / f"{name}.safetensors")}
    assert layers == {str(layer) for layer in trained_layers(name)}
    assert base_of(name) in ORGANISMS


@pytest.mark.parametrize("name", KEPT)
def test_an_organism_answers_from_what_it_was_made_to_use(name):
    """On problems that neither the training's check nor the card has."""
    model = load_model(name, dtype="float32", device="cpu")
    edits = (OTHERS, CONCLUSION)
    answers = edited_answers(name, model.hf, model.tokenizer, 24, seed=7, edits=edits)
    made = as_made(answers).groupby([answers["uses_reasoning"], answers["edit"]]).mean()
    assert (made >= 0.75).all(), made.to_dict()
    assert as_made(answers).mean() >= 0.9


def test_the_card_is_made_of_the_files_beside_it():
    assert (DELTAS / "README.md").read_text(encoding="utf-8") == organism_cards.card()
    proofs = pd.read_csv(DELTAS / "proof.csv")
    assert set(proofs["organism"]) == set(KEPT)
    for name in KEPT:
        rows = proofs[(proofs["organism"] == name) & (proofs["edit"] == OTHERS)]
        shares = rows.set_index("uses_reasoning")["n"] / organism_cards.N_EDITED
        assert shares.get(True, 0.0) == pytest.approx(ORGANISMS[name].dose)
        assert (rows["as_made"] >= 0.9).all()
