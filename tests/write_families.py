"""Measure every family and write the book's table: `python tests/write_families.py`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from families.measures import TOLERANCE, measure_family
from families.zoo import FAMILIES
from tqdm import tqdm
from transformers import AutoTokenizer

from r2a_utils.models.registry import BUNDLED

FILE = Path(__file__).parents[1] / "book" / "families.json"


def write() -> None:
    """Measure all families, and keep of each error its first digit."""
    tokenizer, families = AutoTokenizer.from_pretrained(BUNDLED), {}
    for family in tqdm(FAMILIES, unit="family"):
        with TemporaryDirectory() as folder:
            entry = measure_family(family, tokenizer, Path(folder))
        entry["errors"] = {what: float(f"{error:.0e}") for what, error in entry["errors"].items()}
        families[family.name] = entry
    table = {"tolerance": TOLERANCE, "families": families}
    FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
