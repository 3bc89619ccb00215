"""All runs side by side: a row a model, a column a finding; beside them what the paper prints.

The book's comparison page asks for the tables and the figure. What is missing says why, and a run
that has not been made says the command that makes it. Which findings there are, `findings.py`
knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from r2a_utils.figures.comparison import dots_by_model
from r2a_utils.models.registry import shape_of
from r2a_utils.paper import published
from r2a_utils.publishing.findings import FINDINGS, Cell, Finding, middle_third, points
from r2a_utils.publishing.foreign_text import inert
from r2a_utils.publishing.quoted_numbers import ProseError, number, percent
from r2a_utils.runs.header import makers
from r2a_utils.runs.stage import NOTEBOOKS

# published.json tells the layers from which the last token takes over in a sentence; in numbers:
PAPER_CROSSING = {
    "R1-Llama-8B": "15 of 32",
    "R1-Qwen-7B": "18–20 of 28",
    "R1-Qwen-1.5B": "18–20 of 28",
}


@dataclass(frozen=True)
class Row:
    """One model: its name, where its numbers come from (Markdown), its cells by finding."""

    model: str
    source: str
    own: bool  # a run of this project, and not the paper's numbers
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """All rows, as the comparison page asks for them."""

    rows: Sequence[Row]

    def table(self, part: str) -> Markup:
        """One table as Markdown; what is missing carries a letter that the lines below explain.

        A published model of which the paper has nothing in this part is left out.
        """
        columns = [finding for finding in FINDINGS if finding.part == part]
        rows = [
            row
            for row in self.rows
            if row.own or any(not row.cells[column.key].missing for column in columns)
        ]
        lines = ["| model | run | " + " | ".join(column.heading for column in columns) + " |"]
        lines.append("|---|---|" + "---|" * len(columns))
        every = [row.cells[column.key].missing for row in rows for column in columns]
        reasons = list(dict.fromkeys(reason for reason in every if reason))
        for row in rows:
            cells = [row.cells[column.key] for column in columns]
            texts = [
                f"– [{_letter(reasons, c.missing)}]" if c.missing else inert(c.text) for c in cells
            ]
            lines.append(f"| {inert(row.model)} | {row.source} | " + " | ".join(texts) + " |")
        notes = [f"[{_letter(reasons, reason)}] {reason.removesuffix('.')}." for reason in reasons]
        return Markup("\n".join(lines) + "\n\n" + "\\\n".join(notes))

    def values(self, key: str) -> dict[str, float]:
        """The numbers of one finding by model, for the prose; models without one are left out."""
        found = {row.model: row.cells[key].value for row in self.rows}
        return {model: value for model, value in found.items() if value is not None}

    def figure(self) -> Markup:
        """The dot plot of a few findings, as HTML."""
        keys = ("with_reasoning", "without_reasoning", "mass", "early_probe", "early_boxed_probe")
        frame = pd.DataFrame(
            [{key: row.cells[key].value for key in keys} for row in self.rows],
            index=[row.model for row in self.rows],
            dtype=float,
        ).assign(own=[row.own for row in self.rows])
        # one line: a blank one would end the block of HTML within Markdown
        return Markup(" ".join(dots_by_model(frame)._repr_html_().split()))


def compare(shown: Sequence[Any], summaries: Mapping[str, Mapping[str, Any]]) -> Comparison:
    """A row for each declared run (`book.BookRun`), made or not, and for each model of the paper.

    `summaries` holds those of the runs that have been made. Raises ProseError where a record lacks
    what a finding is read from.
    """
    rows = [
        _own_row(summaries[run.id]) if run.id in summaries else _missing_row(run) for run in shown
    ]
    names = [row.model for row in rows]
    for index, run in enumerate(shown):
        if names.count(names[index]) > 1:
            rows[index] = replace(rows[index], model=f"{names[index]} ({run.id})")
    first = summaries.get(shown[0].id, {}).get("records", {})
    lifts = first.get("segment_attention_of_distills", {}).get("lift_reasoning", {})
    return Comparison([*rows, *_paper_rows(lifts)])


def _own_row(summary: Mapping[str, Any]) -> Row:
    records, stages = summary["records"], summary["stages"]
    sources = {entry["inputs"]["parameters"].get("source", "model") for entry in stages.values()}
    cells = {}
    for finding in FINDINGS:
        command = f"r2a run --run-id {summary['id']}"
        if finding.record in records:
            cells[finding.key] = _read(finding, summary)
        elif finding.part == "answers" and "written" in sources:
            cells[finding.key] = Cell(missing="teacher-forced: the model reads given texts")
        else:
            maker = makers(f"records/{finding.record}", NOTEBOOKS)[0]
            not_run = f"not run: `{command} --stages {maker.partition('_')[0]}`"
            if summary["archive"]:
                not_run = "not in its archive"
            cells[finding.key] = Cell(missing=summary["ended"].get(maker, not_run))
    loaded = records.get("model", {})
    model = loaded.get("name", summary["title"])
    weights = f", {inert(loaded['packed'])}" if "packed" in loaded else ""
    page = f"{summary['pages']}/{next(iter(stages))}.ipynb"
    asked = [entry["inputs"]["parameters"].get("dataset") for entry in stages.values()]
    on = "".join(f", {inert(name)}" for name in dict.fromkeys(filter(None, asked)))
    return Row(_short(model), f"[{summary['id']}]({page}){on}{weights}", True, cells)


def _read(finding: Finding, summary: Mapping[str, Any]) -> Cell:
    try:
        return finding.read(summary["records"])
    except KeyError as error:
        if summary["archive"]:
            return Cell(missing="its archive was made before this was measured")
        raise ProseError(
            f"run {summary['id']!r}: the record {finding.record!r} has no {error}, from which the "
            f"comparison reads {finding.heading!r}: run the stage anew, or teach findings.py its "
            "new name"
        ) from error


def _missing_row(run: Any) -> Row:
    reason = Cell(missing=f"not made yet: `r2a run --run-id {run.id}`")
    asked = run.parameters or {}
    model = asked.get("display_name") or asked.get("model_name", run.title)
    return Row(_short(model), run.id, True, {f.key: reason for f in FINDINGS})


def _paper_rows(lifts: Mapping[str, float]) -> list[Row]:
    """What the paper prints; `lifts` were computed by stage 03 from the authors' own masses."""
    paper = published()
    masses = paper["stage2_mean_segment_mass_answer"]
    heads = paper["stage2_reasoning_focus_heads_top10"]
    effects = paper["stage3_patching"]["mean_early_layer_effect"]
    reasoning = masses["columns"].index("reasoning")
    rows = []
    for entry in paper["stage1_math500"]["rows"]:
        model = entry["model"]
        cells = {f.key: Cell(missing=f.paper) for f in FINDINGS}
        for key in ("with_reasoning", "without_reasoning"):
            cells[key] = Cell(percent(entry[key]), entry[key])
        difference = entry["with_reasoning"] - entry["without_reasoning"]
        cells["problems"] = Cell(str(entry["n"]))
        cells["difference"] = Cell(points(difference), difference)
        if model in paper["models"]:
            mass = masses[model][reasoning]
            n_layers = shape_of(paper["models"][model])["num_hidden_layers"]
            cells["mass"] = Cell(percent(mass, 1), mass)
            cells["middle"] = middle_third(heads[model], n_layers)
            for key, effect in zip(
                ("early_probe", "early_boxed_probe"), effects[model], strict=True
            ):
                cells[key] = Cell(number(effect), effect)
            cells["crossing"] = Cell(f"about {PAPER_CROSSING[model]}")
            if model in lifts:
                cells["lift"] = Cell(number(lifts[model]), lifts[model])
        rows.append(Row(model, "paper", False, cells))
    return rows


def _letter(reasons: Sequence[str], reason: str) -> str:
    rounds, index = divmod(reasons.index(reason), 26)
    return chr(ord("a") + index) * (rounds + 1)


def _short(model: str) -> str:
    return model.rpartition("/")[2].removeprefix("DeepSeek-")
