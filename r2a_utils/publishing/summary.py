"""What `r2a run` says at its end: a line a stage, with what it found, and where its page is.

The findings come from the run's records, as on the pages. This file prints nothing.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from r2a_utils.publishing.book import BUILD
from r2a_utils.publishing.book_runs import MAIN_PAGES, BookRun
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.running import StageResult

# What stands first on a stage's page. A stage without one has an empty place.
HEADLINES = {
    "00_anatomy_of_a_trace": "a trace of {{ anatomy.tokens }} tokens, {{ anatomy.sentences }} "
    "sentences, {{ anatomy.cues }} cues",
    "01_collect_traces": "{{ collection.n }} problems; {{ collection.well_formed.with_reasoning | "
    "percent }} of the traces finished and well-formed",
    "02_answer_quality": "right: {{ answer_quality.with_reasoning | percent }} with reasoning, "
    "{{ answer_quality.without_reasoning | percent }} without",
    "02b_edited_thoughts": "{% if text_tests.outcomes.swapped is defined %}a like problem's "
    "thought decides {{ text_tests.outcomes.swapped.follows | percent }} of the answers, the "
    "question {{ text_tests.outcomes.swapped.before | percent }}{% else %}no thoughts to swap"
    "{% endif %}",
    "03_segment_attention": "answer → reasoning: {{ segment_attention.answer.reasoning | percent }}"
    ", {{ segment_attention.lift_reasoning | number }} times a uniform head's",
    "04_reasoning_focus_heads": "strongest head {{ reasoning_focus_heads.top }}: "
    "{{ reasoning_focus_heads.top_mass | percent }} of its attention on the reasoning",
    "04b_what_the_heads_do": "{{ trajectory_tracking.best }} follows the reasoning best: mean "
    "correlation {{ trajectory_tracking.rho | number }}{% if untrained_following.n %}, untrained "
    "{{ untrained_following.untrained.rho | number }}{% endif %}",
    "04c_failed_traces": "{% if failed_traces.n %}the sentence read most holds the first error in "
    "{{ failed_traces.rfh_rate | percent }} of {{ failed_traces.n }} failed traces{% else %}"
    "no failed trace to look into{% endif %}",
    "05_activation_patching": "the answer follows a crossed reasoning in "
    "{{ crossed_answers.follows | percent }} of {{ crossed_answers.asked }} pairs; one token flips "
    "{{ activation_patching.flips_of_asked | percent }}",
    "06_head_interventions": "knockout strongest in layer {{ head_interventions.strongest_layer }};"
    " these heads against random ones: {{ head_interventions.smallest_p | p_value }}",
}


def summary(folder: Path, results: Sequence[StageResult], shown: Sequence[BookRun]) -> str:
    """The table of a run's stages, and where to read on; `shown` are the runs of the book."""
    records, entries = Run.open(folder).records(), read_manifest(folder)["stages"]
    lines = [f"{'stage':26} {'status':9} {'minutes':>7}  finding"]
    for result in results:
        status = "ran" if result.ran else "unchanged"
        minutes = f"{result.seconds / 60:7.1f}"
        ended = entries.get(result.stage, {}).get("ended")
        finding = ended or headline(result.stage, folder.name, records)
        lines.append(f"{result.stage:26} {status:9} {minutes}  {finding}".rstrip())
    return "\n".join([*lines, "", _where(folder, results, shown)])


def headline(stage: str, run_id: str, records: dict) -> str:
    """A stage's finding in a few words; where its records lack it, what they lack."""
    try:
        told = render(HEADLINES.get(stage, ""), stage, {"id": run_id, "records": records}, {})
        return html.unescape(told)  # a terminal is no page
    except ProseError as error:
        return f"({error})"


def _where(folder: Path, results: Sequence[StageResult], shown: Sequence[BookRun]) -> str:
    ids = [run.id for run in shown]
    if folder.name not in ids:
        return (
            f"executed notebooks: {folder / 'notebooks'}\n"
            f"To see them in the book, list {folder.name!r} in book/runs.yml and run `r2a book`."
        )
    pages = MAIN_PAGES if folder.name == ids[0] else folder.name
    page = BUILD / "html" / pages / f"{results[-1].stage}.html"
    return f"`r2a book` puts this on the page {page.as_uri()}"
