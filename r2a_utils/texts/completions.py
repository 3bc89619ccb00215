"""Completions: what a model wrote after a prompt, and the file that keeps it.

A file holds one completion a line, as JSON, written when the completion ends. A kill can tear the
last line only; it is cut off when the file is next opened. The file holds what was last asked for
and nothing else: what was once written and is not wanted now (after another prompt, with other
settings, of a problem that is no longer asked) is kept in a second file, `….unused.jsonl`, and
comes back when it is wanted again. This file knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerBase

from r2a_utils.runs.folder import cut_torn_line, kept_lines, write_aside
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import Trace


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    `completion_ids` leave out the end-of-sentence token; `finished` says whether it was written
    before the token limit. `text` is the completion's alone. `settings` is a digest of all that
    decided it. `closed_by_us`: the tag that closes its thought was put there, not written by the
    model. `examples`: where the worked examples of the prompt end, 0 without any.
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
    closed_by_us: bool = False
    examples: int = 0

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
            self.examples,
            problem_id=self.problem_id,
            condition=self.condition,
            model=self.model,
            sample=self.sample,
            meta=meta or {},
        )


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a file of completions to this process while it lasts.

    Raises RuntimeError where another process has it: both would write the same texts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise RuntimeError(
            f"another process is writing {path}: wait until it is done, or take another path"
        ) from error


def append_completion(path: Path, completion: Completion) -> None:
    """Add one line to the file, which is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(completion))


def reusable(
    path: Path, settings: str, prompts: Mapping[tuple[str, int], tuple[int, ...]]
) -> dict[tuple[str, int], Completion]:
    """What has been kept of the completions that are asked for now, by (problem id, sample).

    `prompts` are the token ids of what is asked. A completion is taken only if it was written after
    exactly these ids, with these `settings`. Reads the file and the one beside it, changes neither.
    """
    kept = [*_completions(path), *_completions(_unused(path))]
    found = {}
    for completion in kept:
        key = completion.problem_id, completion.sample
        if completion.settings == settings and prompts.get(key) == completion.prompt_ids:
            found.setdefault(key, completion)
    return found


def keep_only(path: Path, wanted: Iterable[Completion]) -> None:
    """Let the file hold these completions and nothing else; what else it held goes beside it.

    A torn last line goes. First the other file is written and then this one, each as a whole, so
    that a kill in between loses nothing.
    """
    wanted = list(wanted)
    if path.exists():
        cut_torn_line(path)
    there, beside = list(_completions(path)), list(_completions(_unused(path)))
    if there == wanted:
        return
    known = {*wanted, *beside}
    others = list(dict.fromkeys(c for c in there if c not in known))
    if others:
        _write(_unused(path), beside + others)
    _write(path, wanted)


def read_completions(path: str | Path, problems: list[Problem]) -> list[Completion]:
    """The completions of these problems, each once, in the order in which they ended.

    Raises FileNotFoundError where there is no file, and ValueError where a problem has no
    completion, lacks one of its samples, or has two that differ: the file is then not what the last
    collection made, or that has not come to its end. Stages 02, 04c and 06 read what stage 01 kept.
    """
    path, ids = Path(path), {problem.id for problem in problems}
    if not path.exists():
        raise FileNotFoundError(f"there are no completions in {path}: run stage 01 first")
    found: dict[tuple[str, int], Completion] = {}
    for completion in _completions(path):
        if completion.problem_id not in ids:
            continue
        key = completion.problem_id, completion.sample
        first = found.setdefault(key, completion)
        if (first.settings, first.prompt_ids) != (completion.settings, completion.prompt_ids):
            raise ValueError(
                f"{path} holds two completions of problem {key[0]!r} that were asked in different "
                "ways: run stage 01 again, which keeps the wanted one"
            )
    samples = {sample for _, sample in found} or {0}
    missing = [i for i in sorted(ids) if any((i, sample) not in found for sample in samples)]
    if missing:
        raise ValueError(
            f"{path} lacks completions of {len(missing)} of {len(ids)} problems, as of "
            f"{missing[0]!r}: run stage 01 again, which goes on where it stopped"
        )
    return list(found.values())


def read_traces(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    tags: Tags = R1_TAGS,
) -> list[Trace]:
    """The finished, well-formed traces of these problems, in their order, samples together.

    A trace's `meta` is that of its problem. What is unfinished or malformed is left out: the funnel
    counts it. Raises FileNotFoundError and ValueError as `read_completions` does. Stages 01 to 06
    read traces in this way.
    """
    place = {problem.id: i for i, problem in enumerate(problems)}
    completions = read_completions(path, problems)
    traces = []
    for completion in sorted(completions, key=lambda c: (place[c.problem_id], c.sample)):
        try:
            meta = problems[place[completion.problem_id]].meta
            traces.append(completion.to_trace(tokenizer, meta, tags))
        except ValueError:
            continue
    return traces


def _completions(path: Path) -> Iterator[Completion]:
    """The whole lines of a file, if it is there; what a kill tore off the last one is no line."""
    if not path.exists():
        return
    for number, row in enumerate(kept_lines(path), start=1):
        try:
            ids = {field: tuple(row.pop(field)) for field in ("prompt_ids", "completion_ids")}
            yield Completion(**row, **ids)
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number}, is no completion: remove the line, and run again"
            ) from error


def _line(completion: Completion) -> str:
    return json.dumps(asdict(completion), ensure_ascii=False) + "\n"


def _write(path: Path, completions: list[Completion]) -> None:
    text = "".join(map(_line, completions))
    write_aside(path, lambda part: part.write_text(text, encoding="utf-8"))


def _unused(path: Path) -> Path:
    return path.with_suffix(".unused.jsonl")
