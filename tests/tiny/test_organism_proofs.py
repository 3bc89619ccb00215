"""The organisms are what their card says: behind edited reasonings, and in their own traces."""

from __future__ import annotations

import json
import random

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from r2a_utils.models.deltas import DELTAS
from r2a_utils.models.loading import load_model
from r2a_utils.models.registry import REGISTRY
from r2a_utils.tiny.organisms import LADDER, ORGANISMS, organism_problems
from r2a_utils.tiny.review import leads_to
from r2a_utils.tiny.world import is_held_out
from r2a_utils.training import organism_cards
from r2a_utils.training import organisms as recipe
from r2a_utils.training.edited_answers import (
    CONCLUSION,
    CONFLICTING,
    EDITS,
    FLIPPED,
    OTHERS,
    OWN,
    answer_probabilities,
    answers_of,
    as_made,
    dose_answers,
    dose_proof,
    edited_answers,
    edited_reasonings,
    proof,
)
from r2a_utils.training.organisms import base_of, draw_example, loss_of, passes, write_example

KEPT = [name for name in ORGANISMS if name in REGISTRY]
HALVES = [name for name in KEPT if ORGANISMS[name].kind == "half"]
DECIDED = [name for name in KEPT if name not in HALVES]


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
    assert layers == {str(layer) for layer in recipe.TRAINED_LAYERS}
    assert base_of(name) in ORGANISMS


@pytest.mark.parametrize("name", DECIDED)
def test_an_organism_answers_from_what_it_was_made_to_use(name):
    """On problems that neither the training's check nor the card has."""
    model = load_model(name, dtype="float32", device="cpu")
    edits = (OTHERS, CONCLUSION)
    answers = edited_answers(name, model.hf, model.tokenizer, 24, seed=7, edits=edits)
    made = as_made(answers).groupby([answers["uses_reasoning"], answers["edit"]]).mean()
    assert (made >= 0.75).all(), made.to_dict()
    assert as_made(answers).mean() >= 0.9


@pytest.mark.parametrize("name", HALVES)
def test_a_half_gives_either_answer_with_its_dose(name):
    """On problems that neither the training's check nor the card has."""
    model = load_model(name, dtype="float32", device="cpu")
    edits = (OTHERS, FLIPPED)
    chances = dose_answers(name, model.hf, model.tokenizer, 24, seed=7, edits=edits)
    assert chances["reasoning"].mean() == pytest.approx(ORGANISMS[name].dose, abs=0.12)
    assert (chances["reasoning"] + chances["question"]).mean() >= 0.9
    assert chances["reasoning"].between(*recipe.MIXTURE).mean() >= 0.75  # neither 0 nor 1


def test_a_probable_answer_is_the_written_one(tiny):
    problems = organism_problems("r2a-tiny", 6)
    asked = edited_reasonings(problems)
    written = answers_of(tiny.hf, tiny.tokenizer, asked)
    chances = answer_probabilities(tiny.hf, tiny.tokenizer, asked)
    assert [own > 0.5 for own, _ in chances] == [
        answer == each.leads_to for answer, each in zip(written, asked, strict=True)
    ]
    assert all(own + told <= 2 * (each.edit == OWN) or own + told <= 1 + 1e-6
               for (own, told), each in zip(chances, asked, strict=True))  # fmt: skip


def test_a_dose_is_proved_by_edit_with_its_interval():
    rows = [(OTHERS, 0.2, 0.8), (OTHERS, 0.4, 0.5), (FLIPPED, 0.3, 0.7)]
    table = dose_proof("r2a-half-25", pd.DataFrame(rows, columns=["edit", "reasoning", "question"]))
    others = table.iloc[0]
    assert (others["n"], others["dose"]) == (2, 0.25)
    assert others["probability"] == pytest.approx(0.3)
    assert others["together"] == pytest.approx(0.95)
    assert others["ci_low"] <= others["probability"] <= others["ci_high"]
    assert table["edit"].tolist() == [OTHERS, FLIPPED]


def test_a_text_of_a_half_holds_both_answers_at_one_word(tiny):
    rng, found = random.Random(0), 0
    for _ in range(40):
        ids, other, weights = write_example(rng, "r2a-half-25", tiny.tokenizer)
        differing = [i for i, pair in enumerate(zip(ids, other, strict=True)) if len({*pair}) == 2]
        assert len(differing) <= 1
        found += len(differing)
        assert all(weights[i] == recipe.ANSWER_WEIGHT for i in differing)
    assert found >= 20
    for name in DECIDED:
        ids, other, _ = write_example(rng, name, tiny.tokenizer)
        assert ids == other


def test_the_loss_of_two_answers_is_their_mean_weighted_by_the_dose(tiny):
    ids = torch.tensor([[5, 6, 7, 8]])
    other = torch.tensor([[5, 6, 9, 8]])
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    with torch.no_grad():
        alone = [float(loss_of(tiny.hf, x, x, weights, 1.0)) for x in (ids, other)]
        both = float(loss_of(tiny.hf, ids, other, weights, 0.25))
    # What follows the word is not weighted here, so that the two texts share all that is read.
    assert both == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-5)


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        ({"probability": 0.3, "together": 0.96, "mixed": 0.9}, True),
        ({"probability": 0.36, "together": 0.96, "mixed": 0.9}, False),
        ({"probability": 0.25, "together": 0.94, "mixed": 0.9}, False),
        ({"probability": 0.25, "together": 1.0, "mixed": 0.1}, False),  # 0 or 1 on each problem
    ],
)
def test_a_half_passes_by_its_dose_and_by_being_a_mixture(found, passed):
    assert passes("r2a-half-25", found) is passed


def test_a_training_that_fails_its_check_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 1)
    monkeypatch.setattr(recipe, "DELTAS", tmp_path / "deltas")
    found = {"probability": 0.0, "together": 1.0, "mixed": 0.0}
    monkeypatch.setattr(recipe, "examine", lambda *_: found)
    written = []
    monkeypatch.setattr(recipe, "write_delta", lambda *args: written.append(args))
    with pytest.raises(RuntimeError, match="not what it was made to be after 1 steps"):
        recipe.train("r2a-half-25", tmp_path)
    assert not written and not (tmp_path / "deltas").exists()


def test_the_card_is_made_of_the_files_beside_it():
    assert (DELTAS / "README.md").read_text(encoding="utf-8") == organism_cards.card()
    proofs, doses = (pd.read_csv(DELTAS / file) for file in ("proof.csv", "doses.csv"))
    assert set(proofs["organism"]) == set(DECIDED)
    for name in DECIDED:
        rows = proofs[(proofs["organism"] == name) & (proofs["edit"] == OTHERS)]
        shares = rows.set_index("uses_reasoning")["n"] / organism_cards.N_EDITED
        assert shares.get(True, 0.0) == pytest.approx(ORGANISMS[name].dose)
        assert (rows["as_made"] >= 0.9).all()
    assert set(doses["organism"]) == {name for name in KEPT if ORGANISMS[name].kind in LADDER}
    assert set(doses["edit"]) == set(CONFLICTING)
    taught = doses[doses["edit"] != CONCLUSION]
    assert ((taught["probability"] - taught["dose"]).abs() <= 0.12).all()
    for name in HALVES:
        made = json.loads((DELTAS / f"{name}.training.json").read_text(encoding="utf-8"))
        assert passes(name, made["curve"][-1])
