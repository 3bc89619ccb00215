"""What of a run can be shown in the book, and what stands in the place of the rest.

A stage that failed, was not wanted or is older than what it reads takes nothing with it but its own
page and the sentences that quote it: in their place stands what is missing and the command that
makes it. A stage that ended itself, because there was nothing to measure, has its page as far as it
goes; what quotes the rest of it says why. This file knows manifests and headers, and no page of the
book.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from r2a_utils.publishing.foreign_text import inert
from r2a_utils.runs.manifest import read_manifest, stale_stages
from r2a_utils.runs.stage import Stage

_HEADING = re.compile(r"#{1,3} [^{\n]+$", re.MULTILINE)
_OPTION = re.compile(r"--\w[\w-]*(?: [\w.]+=[\w…]+)?")  # as code: two hyphens are a dash in prose
_LABEL = re.compile(r"^\([\w:.-]+\)=$", re.MULTILINE)


def missing_stages(run: Path, stages: Mapping[str, Stage]) -> dict[str, str]:
    """The stages of those asked for that a run cannot show, each with a sentence and a command.

    run: the run's folder, whose name is its id.
    """
    manifest = read_manifest(run)
    reasons = {name: "it has not been run" for name in stages if name not in manifest["stages"]}
    reasons |= stale_stages(manifest)
    for name in manifest["stages"]:
        if not (run / "notebooks" / f"{name}.ipynb").exists():
            reasons.setdefault(name, "its page is gone")
    return {
        name: f"Stage {name} of run `{run.name}` is not shown, as {reasons[name]}: "
        f"`r2a run --run-id {run.name} --stages {name.partition('_')[0]}` makes it."
        for name in stages
        if name in reasons
    }


def ended_stages(run: Path, stages: Iterable[str]) -> dict[str, str]:
    """The stages of those asked for that ended before their results, each with a sentence why."""
    made = read_manifest(run)["stages"]
    return {
        name: f"Stage {name} of run `{run.name}` ended before it had results. "
        + _OPTION.sub(r"`\g<0>`", inert(ended))
        for name in stages
        if (ended := made.get(name, {}).get("ended"))
    }


def quotable(
    records: Mapping[str, Any], missing: Mapping[str, str], stages: Mapping[str, Stage]
) -> dict[str, Any]:
    """The records without those that only a missing stage writes: they may be of another run."""
    writers: dict[str, set[str]] = {}
    for stage in stages.values():
        for artifact in stage.header.writes:
            writers.setdefault(artifact, set()).add(stage.name)
    shown = {}
    for name, record in records.items():
        by = writers.get(f"records/{name}")
        if by is None or by - missing.keys():
            shown[name] = record
    return shown


def placeholder(stage: Stage, sentence: str, with_labels: bool) -> str:
    """The page of a stage that cannot be shown, as Markdown: its title and why.

    `with_labels` keeps the names by which other pages refer to places on it.
    """
    cells = [cell.source for cell in stage.notebook.cells if cell.cell_type == "markdown"]
    text = "\n".join(cells)
    labels = _LABEL.findall(text) if with_labels else []
    title = _HEADING.search(text)
    return "\n".join([*labels, title[0] if title else f"# {stage.name}", "", sentence, ""])


def in_place_of(text: str, why: Iterable[str]) -> str:
    """What stands in the place of prose that quotes what is missing: its heading, and why."""
    heading = _HEADING.match(text.lstrip())
    sentences = " ".join(why)
    return f"{heading[0] + chr(10) * 2 if heading else ''}*Nothing is quoted here.* {sentences}\n"
