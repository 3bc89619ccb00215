"""What each model of the book and the paper's own numbers say of each claim: one table.

The claims and their numbers are `claims.py`'s, the rule is `evidence.py`'s.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from r2a_utils.paper import published
from r2a_utils.publishing.book_runs import MAIN_PAGES
from r2a_utils.publishing.claims import CLAIMS, Claim
from r2a_utils.publishing.evidence import HOLDS, NOT_TESTED, OPPOSITE, WEAK, Evidence, verdict
from r2a_utils.publishing.foreign_text import inert

# Models of the book that do not use their reasoning, and how that is known.
CONTROLS = {
    "r2a-ignorer": "was made to answer from a note in the question, whatever its reasoning says",
    "r2a-untrained": "has random weights",
}


@dataclass(frozen=True)
class Column:
    """One model: its name, the evidence by claim, and the pages of its run by stage."""

    model: str
    evidence: Sequence[Evidence | None]
    pages: Mapping[str, str]


@dataclass(frozen=True)
class Verdicts:
    """The table of claims by models, as a page asks for it."""

    columns: Sequence[Column]

    def of(self, model: str) -> dict[str, str]:
        """The verdicts of one model by claim, for the prose and the tests."""
        [column] = [column for column in self.columns if column.model == model]
        return {c.claim: verdict(e) for c, e in zip(CLAIMS, column.evidence, strict=True)}

    def counts(self, claim: str) -> dict[str, int]:
        """How many models have each verdict of a claim."""
        found = [self.of(column.model)[claim] for column in self.columns]
        return {name: found.count(name) for name in dict.fromkeys(found)}

    def told(self) -> Markup:
        """Which claims all models agree on that tell anything, and on which they differ, in words.

        A model tells something where a claim holds, holds weakly or is contradicted.
        """
        sides: dict[str, list[str]] = {"agree": [], "differ": [], "untold": []}
        for claim in CLAIMS:
            counts = self.counts(claim.claim)
            speak = counts.get(HOLDS, 0) + counts.get(WEAK, 0), counts.get(OPPOSITE, 0)
            side = "untold" if sum(speak) < 2 else "differ" if all(speak) else "agree"
            told = ", ".join(f"{n} {name}" for name, n in counts.items() if name != NOT_TESTED)
            sides[side].append(f"{claim.claim[0].lower()}{claim.claim[1:]} ({told or NOT_TESTED})")
        leads = {
            "agree": "All models that tell anything agree on these claims",
            "differ": "They contradict each other on these",
            "untold": "Fewer than two models tell anything of these",
        }
        return Markup(
            " ".join(f"{leads[s]}: {inert('; '.join(c))}." for s, c in sides.items() if c)
        )

    def controls(self) -> Markup:
        """Which claims hold, if weakly, of models known not to use their reasoning, in words.

        What holds of one of them is no sign that an answer uses its reasoning. Empty where the book
        shows no such model.
        """
        said = []
        for model, known in CONTROLS.items():
            if model in {column.model for column in self.columns}:
                found = self.of(model)
                claims = [claim for claim, verdict in found.items() if verdict in (HOLDS, WEAK)]
                listed = ", ".join(f"“{inert(claim)}”" for claim in claims)
                told = f"These hold for it, or weakly: {listed}" if claims else "None holds for it"
                said.append(f"`{model}` {known}. {told}.")
        if not said:
            return Markup()
        said.append("What holds for them is no sign that an answer uses its reasoning.")
        return Markup(" ".join(said))

    def table(self, up: str = "") -> Markup:
        """The table as HTML; `up` leads from the page to the book's root, as in "../".

        The number behind a verdict stands in its title and is read out with it.
        """
        head = "".join(f'<th scope="col">{_text(column.model)}</th>' for column in self.columns)
        rows = []
        for index, claim in enumerate(CLAIMS):
            cells = "".join(_cell(column, index, up) for column in self.columns)
            name = f'<span title="{_text(claim.measure)}">{_text(claim.claim)}</span>'
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
        return Markup(
            '<div class="r2a-verdicts" role="region" tabindex="0" '
            'aria-label="The claims of the paper by models"><table>'
            f'<thead><tr><th scope="col">claim</th>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def rule(self) -> Markup:
        """What each claim is judged by, as a list in Markdown."""
        return Markup("\n".join(f"- *{inert(c.claim)}*: {inert(c.measure)}." for c in CLAIMS))


def judge(summaries: Mapping[str, Mapping[str, Any]]) -> Verdicts:
    """Verdicts on every claim, for each run of the book and each model of the paper.

    `summaries` are of `book.assemble`, the main run's first.
    """
    columns = []
    names = [_name(summary) for summary in summaries.values()]
    for name, (run_id, summary) in zip(names, summaries.items(), strict=True):
        pages = {stage: f"{summary['pages']}/{stage}.html" for stage in summary["stages"]}
        told = name if names.count(name) == 1 else f"{name} ({run_id})"
        columns.append(Column(told, [_own(claim, summary) for claim in CLAIMS], pages))
    first = next(iter(summaries.values()))
    main = {claim.stage: f"{MAIN_PAGES}/{claim.stage}.html" for claim in CLAIMS}
    pages = {stage: page for stage, page in main.items() if stage in first["stages"]}
    printed = [claim.paper(first["records"]) for claim in CLAIMS]
    for row in published()["stage1_math500"]["rows"]:
        found = [of_model.get(row["model"]) for of_model in printed]
        columns.append(Column(f"{row['model']} (paper)", found, pages))
    return Verdicts(columns)


def _own(claim: Claim, summary: Mapping[str, Any]) -> Evidence | None:
    """A run's evidence; an archive may be older than the number that a claim is judged by."""
    try:
        return claim.own(summary["records"])
    except KeyError:
        if summary["archive"]:
            return None
        raise


def _name(summary: Mapping[str, Any]) -> str:
    name = summary["records"].get("model", {}).get("name", summary["title"])
    return name.rpartition("/")[2].removeprefix("DeepSeek-")


def _cell(column: Column, index: int, up: str) -> str:
    evidence, claim = column.evidence[index], CLAIMS[index]
    said = verdict(evidence)
    told = evidence.told if evidence else "no number of this model"
    kind = said.replace(" ", "-")
    label = f'title="{_text(told)}" aria-label="{_text(f"{said}: {told}")}"'
    page = column.pages.get(claim.stage)
    if evidence and page:
        return f'<td class="{kind}"><a href="{up}{page}" {label}>{said}</a></td>'
    return f'<td class="{kind}"><span tabindex="0" {label}>{said}</span></td>'


def _text(text: str) -> str:
    """Any text within HTML within Markdown, where no sign may mean anything."""
    return "".join(f"&#{ord(c)};" if c in "{}|`*_$\\<>&\"'[]" else c for c in html.unescape(text))
