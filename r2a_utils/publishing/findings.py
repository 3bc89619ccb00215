"""The findings that models are compared by, and how each is read from a run's records.

What a stage found is quoted and never computed here. A new column of the comparison page is a new
`Finding` in the list below. This file knows the records' entries; the tables' layout is in
`comparison_page.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2a_utils.publishing.quoted_numbers import number, p_value, percent

Records = Mapping[str, Mapping[str, Any]]
PARTS = ("answers", "attention", "interventions")
NOT_IN_PAPER = "not in the paper"


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a text and, where it is one number, that number; or why nothing."""

    text: str = ""
    value: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class Finding:
    """One column: the record that holds it and how it is read from a run's records."""

    key: str
    heading: str
    part: str  # of PARTS: the table that it stands in
    record: str
    read: Callable[[Records], Cell]
    paper: str = NOT_IN_PAPER  # why the paper has no such number, where it has none


def _percent(record: str, *path: str, digits: int = 0) -> Callable[[Records], Cell]:
    def read(records: Records) -> Cell:
        value = _at(records[record], path)
        return Cell(percent(value, digits), value)

    return read


def _number(record: str, *path: str) -> Callable[[Records], Cell]:
    def read(records: Records) -> Cell:
        value = _at(records[record], path)
        return Cell(number(value), value)

    return read


def _probed(name: str) -> Callable[[Records], Cell]:
    def read(records: Records) -> Cell:
        patching = records["activation_patching"]
        value = patching[f"early_{name}"]
        if value is None:
            return Cell(missing="no pair is kept under this probe")
        if patching[f"{name}_nats"] > patching["blind_nats"]:
            return Cell(missing="its line is less likely to this model than tokens drawn blindly")
        return Cell(number(value), value)

    return read


def _layer(record: str, name: str, nothing: str = "") -> Callable[[Records], Cell]:
    def read(records: Records) -> Cell:
        layer = records[record][name]
        if layer is None:
            return Cell(missing=nothing)
        return Cell(f"{layer} of {records['model']['layers']}", layer)

    return read


def _difference(records: Records) -> Cell:
    quality = records["answer_quality"]
    interval = [100 * quality[end] for end in ("ci_low", "ci_high")]
    low, high = (f"{end:+.0f}".replace("-", "−") for end in interval)
    value = quality["difference"]
    return Cell(f"{points(value)} ({low} to {high})", value)


def _swapped(records: Records) -> Cell:
    swapped = records["text_tests"]["outcomes"].get("swapped")
    if swapped is None:
        return Cell(missing="no two similar problems with different answers")
    low, high = percent(swapped["follows_low"]), percent(swapped["follows_high"])
    return Cell(f"{percent(swapped['follows'])} ({low} to {high})", swapped["follows"])


def _effect(records: Records) -> Cell:
    patching = records["activation_patching"]
    value = patching["flipping_first"]
    return Cell(f"{number(value)} ({patching['protocol'].replace('_', ' ')})", value)


def _mediation(records: Records) -> Cell:
    found = records["mediation"]
    if found["low"] is None:
        return Cell(missing="fewer than two pairs whose thoughts could be exchanged")
    if found.get("verdict") == "little to gain":  # older archives have none
        return Cell(missing="the other side's answer had little to gain")
    low, high = (number(found[end]) for end in ("low", "high"))
    return Cell(f"{number(found['index'])} ({low} to {high})", found["index"])


def _strongest(records: Records) -> Cell:
    heads = records["reasoning_focus_heads"]
    return Cell(f"{heads['top']}, {percent(heads['top_mass'])}", heads["top_mass"])


def _depth(records: Records) -> Cell:
    layer = int(records["reasoning_focus_heads"]["top"].partition(".")[0].removeprefix("L"))
    depth = layer / max(records["model"]["layers"] - 1, 1)
    return Cell(number(depth), depth)


def _middle(records: Records) -> Cell:
    heads = records["reasoning_focus_heads"]
    chance = number(heads["expected_in_middle"], 1)
    return Cell(f"{heads['in_middle']} of {heads['k']} ({chance})", heads["in_middle"])


def _against_random(records: Records) -> Cell:
    """The stage's verdict; a p says nothing where the design could not have told."""
    heads = records["head_interventions"]
    if heads["verdict"] == "cannot tell":
        return Cell(missing="the design cannot tell them apart")
    told = "differ" if heads["verdict"] == "different" else "do not differ"
    return Cell(f"{told} ({p_value(heads['smallest_p'])})", heads["smallest_p"])


FINDINGS = (
    Finding(
        "problems",
        "problems",
        "answers",
        "answer_quality",
        lambda records: Cell(str(records["answer_quality"]["n"])),
    ),
    Finding(
        "with_reasoning",
        "right with reasoning",
        "answers",
        "answer_quality",
        _percent("answer_quality", "with_reasoning"),
    ),
    Finding(
        "without_reasoning",
        "right without",
        "answers",
        "answer_quality",
        _percent("answer_quality", "without_reasoning"),
    ),
    Finding(
        "difference",
        "difference in points",
        "answers",
        "answer_quality",
        _difference,
    ),
    Finding(
        "swapped",
        "answer follows a swapped thought",
        "answers",
        "text_tests",
        _swapped,
    ),
    Finding(
        "mass",
        "answer → reasoning",
        "attention",
        "segment_attention",
        _percent("segment_attention", "answer", "reasoning", digits=1),
    ),
    Finding(
        "lift",
        "lift",
        "attention",
        "segment_attention",
        _number("segment_attention", "lift_reasoning"),
        "the paper prints none; stage 03 computes it where the authors' data are given "
        "(`R2A_PAPER_DATA`)",
    ),
    Finding(
        "strongest",
        "strongest RFH",
        "attention",
        "reasoning_focus_heads",
        _strongest,
        "the paper lists its heads without masses",
    ),
    Finding(
        "depth",
        "its depth",
        "attention",
        "reasoning_focus_heads",
        _depth,
        "the paper lists its heads without masses",
    ),
    Finding(
        "middle",
        "RFHs in middle third",
        "attention",
        "reasoning_focus_heads",
        _middle,
    ),
    Finding(
        "early_probe",
        "early effect, “Final answer is A.”",
        "interventions",
        "activation_patching",
        _probed("probe"),
    ),
    Finding(
        "early_boxed_probe",
        "early effect, “Final answer is \\boxed{A}.”",
        "interventions",
        "activation_patching",
        _probed("boxed_probe"),
    ),
    Finding(
        "effect",
        "effect before layer 0 (protocol)",
        "interventions",
        "activation_patching",
        _effect,
        "the paper prints the effect in the early layers under its probes only",
    ),
    Finding(
        "flips",
        "answers flipped, of pairs asked",
        "interventions",
        "activation_patching",
        _percent("activation_patching", "flips_of_asked"),
    ),
    Finding(
        "mediation",
        "mediation index",
        "interventions",
        "mediation",
        _mediation,
    ),
    Finding(
        "crossing",
        "curves cross at layer",
        "interventions",
        "activation_patching",
        _layer("activation_patching", "crossing", "the two curves do not cross"),
    ),
    Finding(
        "knockout",
        "strongest knockout in layer",
        "interventions",
        "head_interventions",
        _layer("head_interventions", "strongest_layer"),
    ),
    Finding(
        "random",
        "RFHs against random heads",
        "interventions",
        "head_interventions",
        _against_random,
    ),
)


def middle_third(heads: Sequence[Sequence[int]], n_layers: int) -> Cell:
    """How many of a list of (layer, head) sit in the middle third, and how many would by chance.

    A layer is placed by its middle, as in `head_tests.depth_test`.
    """
    middle = {i for i in range(n_layers) if 1 / 3 < (i + 0.5) / n_layers < 2 / 3}
    inside = sum(layer in middle for layer, _ in heads)
    chance = len(heads) * len(middle) / n_layers
    return Cell(f"{inside} of {len(heads)} ({number(chance, 1)})", inside)


def _at(record: Mapping[str, Any], path: Sequence[str]) -> float:
    for name in path:
        record = record[name]
    return record


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")
