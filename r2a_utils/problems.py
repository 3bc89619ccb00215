"""Problems: questions with, where there is one, their right answer.

This file knows where problems come from (the bundled family, MATH-500, WildBench, a user's own
table) and what each source calls its columns. It knows nothing of prompts or models.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One question.

    `answer` is None for an open question, which only a judge can score. `meta` holds what the
    source says beyond that, and what results may be sliced by: tiny: family, steps; math500:
    subject, level; wildbench: area, tag, checklist.
    """

    id: str
    question: str
    answer: str | None = None
    meta: dict = field(default_factory=dict)
