"""Which sections of a stage's page are for the notebook view alone.

The reader's view of a page (book/assets/reader.js) shows its finding, its figures and what may be
concluded, in at most 1,200 words; a section that goes into detail or checks a measure is named
there and one click away. Without JavaScript, and in print, all sections stand.
"""

from __future__ import annotations

import re

from nbformat import NotebookNode

# By stage, the headings of these sections.
DETAILS = {
    "01_collect_traces": ("Writing",),
    "02_answer_quality": (
        "Grading",
        "What a right answer costs",
        "No cues: what if the model may not turn on itself?",
        "Beside the paper: MATH-500",
        "The authors' traces, graded again",
        "Beside the paper: WildBench",
        "Open questions to the model of this run",
    ),
    "04_reasoning_focus_heads": (
        "Can the ranking be trusted?",
        "Where in the model?",
        "Are they heads that copy?",
        "Are they heads for reasoning?",
        "Does it take training?",
        "Where the printed heads sit",
    ),
    "05_activation_patching": (
        "Contrast pairs",
        "Through the states of the thought, or around them?",
        "Which pairs can be patched",
        "The other way round",
        "How much of it is copying?",
        "Controls",
        "Is the gradient enough?",
        "Beside the paper",
    ),
    "06_head_interventions": (
        "Three kinds of cut",
        "Head by head",
        "Another answer?",
        "Chosen where the answer is written",
    ),
    "06b_which_instruments": ("How the verdicts come about", "This run's own model"),
    "07_synthesis": ("What the stages say, one after the other",),
}


def mark_details(page: NotebookNode, stage: str) -> None:
    """Give the sections of a stage's page that the reader's view folds a class of their own.

    The last section stays: of a page that ended early it says why.
    """
    texts = [cell.source for cell in page.cells if cell.cell_type == "markdown"]
    last = re.findall(r"(?m)^## (.*)$", "\n".join(texts))[-1:]
    named = "|".join(re.escape(name) for name in DETAILS.get(stage, ()) if name not in last)
    if not named:
        return
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(rf"(?m)^(## (?:{named}))$", r"{.r2a-notebook}\n\1", cell.source)
