"""Every family is exact or refused, and the book's table says which: `book/families.json`.

`python tests/write_families.py` writes the table anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from families.measures import TOLERANCE, measure_family
from families.reference import Reference
from families.zoo import FAMILIES, plain_model

TABLE = json.loads(
    (Path(__file__).parents[2] / "book" / "families.json").read_text(encoding="utf-8")
)["families"]
IDS = range(40, 61)


def without_numbers(entry: dict) -> dict:
    """What must not change: class, engine, which measures there are, what refusals say."""
    refused = {what: re.sub(r"[\d.e-]*\d", "#", said) for what, said in entry["refused"].items()}
    return entry | {"errors": [*entry["errors"]], "refused": refused}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_exact_or_refused_as_the_table_says(family, tokenizer, tmp_path):
    entry = measure_family(family, tokenizer, tmp_path)
    assert {what: error for what, error in entry["errors"].items() if error > TOLERANCE} == {}
    assert without_numbers(entry) == without_numbers(TABLE[family.name])


def test_the_table_has_every_family_in_its_order_and_no_error_beyond_the_tolerance():
    assert [*TABLE] == [family.name for family in FAMILIES]
    assert max(max(entry["errors"].values(), default=0) for entry in TABLE.values()) <= TOLERANCE
    assert sum(bool(entry["errors"]) for entry in TABLE.values()) >= 30


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_models_would_show_an_error(family):
    """Attention is far from uniform, differs from head to head, and the hooks do what they say."""
    reference = Reference(family, plain_model(family))
    for weights in reference.weights(IDS).values():
        last = weights[:, -1]
        assert last.max(-1).values.mean() > 2 / len(IDS)
        assert (last - last[:1]).abs()[1:].amax(-1).min() > 1e-2
    for component in ("resid", "mlp_out", "attn_out", "z") if reference.attending else ():
        values, logits = reference.activations(IDS, component)
        for layer, value in values.items():
            same = reference.patched(IDS, component, layer, 9, value[0, 9])
            other = reference.patched(IDS, component, layer, 9, value[0, 8])
            # Experts and chunks add in another order: rounding, and no more.
            torch.testing.assert_close(same, logits, rtol=0, atol=1e-4)
            torch.testing.assert_close(other[:9], logits[:9], rtol=0, atol=1e-4)
            assert (other[9:] - logits[9:]).abs().max() > 1e-3
