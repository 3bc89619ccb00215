"""The real distills: what the attention masses that the paper's authors kept come to.

The masses themselves are the authors' (`paper.load_segment_mass`) and stay with them. What the
measures of this room make of them is kept in `book/data/distills.json`, with a digest of each file
that it was made from, so that every copy of the book shows it:

    R2A_PAPER_DATA=FOLDER .venv/bin/python -m r2a_utils.attention.distills

This file makes these numbers and reads them. It runs no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from r2a_utils.attention.heads import head_scores, rank_heads, uniform_mass
from r2a_utils.attention.segment_attention import answer_by_segment, segment_controls
from r2a_utils.folders import source_folder
from r2a_utils.paper import data_folder, load_segment_mass, mass_files, published
from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.trace import CONDITIONS, SEGMENTS

FILE = source_folder() / "book" / "data" / "distills.json"
COMMAND = "R2A_PAPER_DATA=FOLDER .venv/bin/python -m r2a_utils.attention.distills"
# Of each head, in the order of `rank_heads`.
COLUMNS = ("mass", "ci_low", "ci_high", "lift", "sink_free", "length_matched")
DIGITS = 5


@dataclass(frozen=True, eq=False)
class Distill:
    """What one distill's answers read, over the authors' cases.

    scores: a row a head, best first, with layer, head and `COLUMNS` (as in `rank_heads` and
    `head_scores`). answer: condition → the answer's mass on each segment, mean over layers and
    heads. controls: `segment_controls` with reasoning. tokens: median length of each segment.
    ceiling: the lift of a head that looks at nothing but the reasoning.
    """

    scores: pd.DataFrame
    answer: dict[str, Float[np.ndarray, "case segment"]]
    controls: pd.DataFrame
    tokens: dict[str, float]
    ceiling: float

    @property
    def uniform(self) -> float:
        """What a head that looks at everything alike gives the reasoning, mean over cases."""
        return float(self.controls["uniform null"]["reasoning"])

    def by_head(self, column: str) -> Float[np.ndarray, "layer head"]:
        """One column of the scores as a map."""
        return self.scores.pivot(index="layer", columns="head", values=column).to_numpy()


@dataclass(frozen=True)
class LiftsOfDistills:
    """By model: the lift of the reasoning, and how many of its heads give it more than uniform."""

    lift_reasoning: dict[str, float]
    heads: dict[str, int]
    above: dict[str, int]


def read_distills() -> dict[str, Distill]:
    """The distills whose masses the authors kept, by name, as the file of this book has them.

    Stages 03 and 04 show them.
    """
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        who: Distill(
            scores=pd.DataFrame(found["heads"], columns=["layer", "head", *COLUMNS]),
            answer={name: np.array(cases) for name, cases in found["answer"].items()},
            controls=pd.DataFrame(found["controls"], index=list(SEGMENTS)),
            tokens=dict(zip(SEGMENTS, found["tokens"], strict=True)),
            ceiling=found["ceiling"],
        )
        for who, found in kept["models"].items()
    }


def lifts_of_distills(distills: Mapping[str, Distill]) -> LiftsOfDistills:
    """The reasoning's lift in each distill: mean mass over the mean uniform null. Stage 03."""
    return LiftsOfDistills(
        lift_reasoning={who: float(d.controls["lift"]["reasoning"]) for who, d in distills.items()},
        heads={who: len(d.scores) for who, d in distills.items()},
        above={who: int((d.scores["mass"] > d.uniform).sum()) for who, d in distills.items()},
    )


def measure_distills(folder: str | Path | None = None) -> dict:
    """What the file holds, measured from the authors' masses in a folder (or R2A_PAPER_DATA).

    Raises FileNotFoundError where the folder, or any masses in it, are not there.
    """
    models: dict[str, dict] = {}
    files = mass_files(folder)
    for alias, paths in files.items():
        masses = {name: load_segment_mass(folder, alias, name) for name in CONDITIONS}
        mass = masses["with_reasoning"]
        n = mass.sizes["layer"] * mass.sizes["head"]
        scores = head_scores(mass)[["layer", "head", "sink_free", "length_matched"]]
        heads = rank_heads(mass, k=n).merge(scores, on=["layer", "head"])
        lengths = mass.coords["segment_stop"] - mass.coords["segment_start"]
        models[mass.attrs["model"]] = {
            "files": {path.name: _sha256(path) for path in paths},
            "ceiling": round(float((1 / uniform_mass(mass)).mean()), DIGITS),
            "tokens": lengths.median("trace").values.tolist(),
            "controls": _rounded(segment_controls(mass)).to_dict("list"),
            "heads": _rounded(heads[["layer", "head", *COLUMNS]]).to_dict("split")["data"],
            "answer": {
                name: _rounded(answer_by_segment(found).to_pandas()).to_dict("split")["data"]
                for name, found in masses.items()
            },
        }
    return {"source": published()["paper"]["code"], "made_by": COMMAND, "models": models}


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """As JSON can hold it; None for a head that gives the prompt nothing to compare with."""
    exact = table.astype(dict.fromkeys(table.columns[table.dtypes == np.float32], float))
    return exact.round(DIGITS).astype(object).where(np.isfinite(exact), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Write the file anew."""
    text = json.dumps(measure_distills(data_folder()), ensure_ascii=False, allow_nan=False)
    lines = text.replace("], [", "],\n[")
    write_aside(FILE, lambda part: part.write_text(lines + "\n", encoding="utf-8"))


if __name__ == "__main__":
    main()
