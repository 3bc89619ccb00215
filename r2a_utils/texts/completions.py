"""Completions: what a model wrote after a prompt, and the file that keeps it.

A file holds one completion a line, as JSON, written when the completion ends. A kill can tear the
last line only; it is cut off when the file is next opened. This file knows no model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from r2a_utils.runs.folder import cut_torn_line, kept_lines
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import Trace


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    `completion_ids` leave out the end-of-sentence token; `finished` says whether it was written
    before the token limit. `text` is the completion's alone. `settings` is a digest of all that
    decided it.
    """

    problem_id: str
    condition: str
    sample: int
    model: str
    settings: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    text: str
    finished: bool

    @property
    def n_tokens(self) -> int:
        """Tokens written, the end-of-sentence token included."""
        return len(self.completion_ids) + self.finished

    def to_trace(
        self, tokenizer: PreTrainedTokenizerBase, meta: dict | None = None, tags: Tags = R1_TAGS
    ) -> Trace:
        """The trace of a finished completion, cut at the tags behind its prompt's end.

        Raises ValueError where it was cut off, and as `Trace.from_ids` does.
        """
        if not self.finished:
            raise ValueError(
                f"trace {self.problem_id!r} was cut at {len(self.completion_ids)} tokens; raise "
                'max_new_tokens, or pass on_unfinished="drop" to leave such traces out.'
            )
        return Trace.from_ids(
            [*self.prompt_ids, *self.completion_ids],
            tokenizer,
            tags,
            len(self.prompt_ids),
            problem_id=self.problem_id,
            condition=self.condition,
            model=self.model,
            sample=self.sample,
            meta=meta or {},
        )


def append_completion(path: Path, completion: Completion) -> None:
    """Add one line to the file, which is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(completion), ensure_ascii=False) + "\n")


def resume_completions(path: Path, settings: str) -> dict[tuple[str, int], Completion]:
    """What a file holds, by (problem id, sample). A torn last line is cut off the file.

    Raises ValueError when a completion was made with other settings than `settings`.
    """
    if not path.exists():
        return {}
    cut_torn_line(path)
    found = {}
    for completion in read_completions(path):
        if completion.settings != settings:
            raise ValueError(
                f"{path} was made with other settings ({completion.settings}, now {settings}); "
                "take another run, give this collection another path, or remove the file."
            )
        found[completion.problem_id, completion.sample] = completion
    return found


def read_completions(path: str | Path) -> list[Completion]:
    """The completions of a JSON Lines file, in the order in which they ended.

    Raises ValueError naming the line that is damaged. Stages 02 to 06 read them.
    """
    completions = []
    for row in kept_lines(Path(path)):
        ids = {field: tuple(row.pop(field)) for field in ("prompt_ids", "completion_ids")}
        completions.append(Completion(**row, **ids))
    return completions


def read_traces(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    tags: Tags = R1_TAGS,
) -> list[Trace]:
    """The finished, well-formed traces of a JSON Lines file, in the order of `problems`.

    A trace's `meta` is that of its problem. Completions of other problems are left out.
    """
    place = {problem.id: i for i, problem in enumerate(problems)}
    completions = [c for c in read_completions(path) if c.problem_id in place]
    traces = []
    for completion in sorted(completions, key=lambda c: (place[c.problem_id], c.sample)):
        try:
            meta = problems[place[completion.problem_id]].meta
            traces.append(completion.to_trace(tokenizer, meta, tags))
        except ValueError:
            continue  # unfinished or malformed: the funnel of stage 1 counts it
    return traces
