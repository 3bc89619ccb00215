"""Collect completions: prompts in, what a model writes after them out, nothing lost on the way.

A back end turns prompts into token ids: `decoding.py` on the model's own device, `server.py` on an
OpenAI-compatible server. `collect_completions` keeps each completion in a file as soon as it ends,
and goes on from there after a kill.

This file knows how text is asked for and kept. It knows nothing of right answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from tqdm.auto import tqdm

from r2a_utils.collecting.decoding import Backend, Prompt, Sampling, Written, decode
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.weights import weights_digest
from r2a_utils.texts.completions import (
    Completion,
    append_completion,
    held,
    keep_only,
    reusable,
)
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import PromptStyle, Rendered, read_style, rendered
from r2a_utils.texts.trace import Trace

FIXED_QUESTION = "What is 2 + 2?"  # its prompt tells in what way a question is put


def collect_completions(
    model: ReasoningModel,
    problems: list[Problem],
    condition: str = "with_reasoning",
    *,
    path: str | Path | None = None,
    sampling: Sampling = Sampling(),
    samples: int = 1,
    prompt_style: str | PromptStyle = "chat",
    system: str = "",
    without: str = "finished",
    batch_size: int = 64,
    backend: Backend | None = None,
) -> list[Completion]:
    """Complete each problem `samples` times; in the order of the problems, samples together.

    `backend` defaults to `decode` on `model`, `batch_size` prompts at a time. With a `path`, each
    completion is kept there as one line of JSON when it ends, and the file holds what this call
    asks for and nothing else. A later call takes from there what was asked in exactly this way
    (the same prompt tokens, weights, source of texts and sampling) and makes the rest; what is not
    wanted any more stands beside it (`texts/completions.py`). Raises ValueError when two problems
    share an id, and RuntimeError when another process writes the file. Stages 00 to 05 ask so.
    """
    style = read_style(prompt_style, system)
    asked = _prompts(model, problems, condition, samples, style, without)
    first = _rendered(model, FIXED_QUESTION, condition, style, without)
    settings = _settings(model, backend, condition, sampling, first)
    return _collected(model, asked, settings, path, sampling, batch_size, backend)


def complete_prompts(
    model: ReasoningModel,
    prompts: list[Prompt],
    *,
    path: str | Path | None = None,
    sampling: Sampling = Sampling(),
    batch_size: int = 64,
    backend: Backend | None = None,
) -> list[Completion]:
    """Complete prompts of one condition, whatever they hold; in their order.

    They are kept and taken up again as `collect_completions` says, by the id of their problem and
    their sample. Raises ValueError where two prompts share both, and RuntimeError when another
    process writes the file. The tests on the text of stage 02b ask so.
    """
    asked = {(prompt.problem.id, prompt.sample): prompt for prompt in prompts}
    if len(asked) != len(prompts):
        raise ValueError("two problems have the same id; give each its own.")
    condition = prompts[0].condition if prompts else ""
    settings = _settings(model, backend, condition, sampling, Rendered([], 0))
    return _collected(model, asked, settings, path, sampling, batch_size, backend)


def _collected(
    model: ReasoningModel,
    asked: dict[tuple[str, int], Prompt],
    settings: str,
    path: str | Path | None,
    sampling: Sampling,
    batch_size: int,
    backend: Backend | None,
) -> list[Completion]:
    """What has been kept of the prompts that are asked, and the rest made and kept."""
    with held(Path(path)) if path is not None else nullcontext():
        done: dict[tuple[str, int], Completion] = {}
        if path is not None:
            path = Path(path)
            done = reusable(path, settings, {key: prompt.ids for key, prompt in asked.items()})
            # the same weights may have been called otherwise
            done = {key: replace(kept, model=model.name) for key, kept in done.items()}
            keep_only(path, done.values())
        missing = {key: prompt for key, prompt in asked.items() if key not in done}
        if backend is None:

            def backend(prompts: list[Prompt], sampling: Sampling):
                return decode(model, prompts, sampling, batch_size)

        made = _complete(model, list(missing.values()), settings, sampling, backend, len(done))
        for completion in made:
            if path is not None:
                append_completion(path, completion)
            done[completion.problem_id, completion.sample] = completion
    return [done[key] for key in asked]


def kept_completions(
    model: ReasoningModel,
    problems: list[Problem],
    condition: str = "with_reasoning",
    *,
    path: str | Path,
    sampling: Sampling = Sampling(),
    samples: int = 1,
    prompt_style: str | PromptStyle = "chat",
    system: str = "",
    without: str = "finished",
    backend: Backend | None = None,
) -> list[Completion]:
    """What `collect_completions` has kept at `path` for these problems, in its order.

    Makes nothing and changes nothing. Raises ValueError where a completion is not there, or was
    asked in another way than this. Stage 02 takes its plain arm from stage 01 so.
    """
    style = read_style(prompt_style, system)
    asked = _prompts(model, problems, condition, samples, style, without)
    first = _rendered(model, FIXED_QUESTION, condition, style, without)
    settings = _settings(model, backend, condition, sampling, first)
    ids = {key: prompt.ids for key, prompt in asked.items()}
    found = reusable(Path(path), settings, ids)
    missing = [key for key in asked if key not in found]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(asked)} completions, as that of problem "
            f"{missing[0][0]!r}, or holds them asked in another way: give this stage the model, "
            "source, prompt and sampling that stage 01 had"
        )
    return [found[key] for key in asked]


def _prompts(
    model: ReasoningModel,
    problems: list[Problem],
    condition: str,
    samples: int,
    style: PromptStyle,
    without: str,
) -> dict[tuple[str, int], Prompt]:
    """What is asked, by (problem id, sample)."""
    prompts = {}
    for problem in problems:
        ids, examples = _rendered(model, problem.question, condition, style, without)
        for sample in range(samples):
            prompts[problem.id, sample] = Prompt(tuple(ids), problem, condition, sample, examples)
    if len(prompts) != len(problems) * samples:
        raise ValueError("two problems have the same id; give each its own.")
    return prompts


def _complete(
    model: ReasoningModel,
    prompts: list[Prompt],
    settings: str,
    sampling: Sampling,
    backend: Backend,
    n_done: int,
) -> Iterator[Completion]:
    """Let a back end complete the prompts; a bar counts them and the tokens in each second."""
    written, total = 0, n_done + len(prompts)
    condition = prompts[0].condition if prompts else ""
    with tqdm(total=total, initial=n_done, desc=condition, unit="trace", disable=None) as bar:
        for ended in backend(prompts, sampling) if prompts else ():
            index, ids, finished, closed_by_us = Written(*ended)
            prompt = prompts[index]
            completion = Completion(
                problem_id=prompt.problem.id,
                condition=prompt.condition,
                sample=prompt.sample,
                model=model.name,
                settings=settings,
                prompt_ids=prompt.ids,
                completion_ids=tuple(ids),
                text=model.tokenizer.decode(ids, skip_special_tokens=False),
                finished=finished,
                closed_by_us=closed_by_us,
                examples=prompt.examples,
            )
            yield completion
            written += completion.n_tokens
            bar.update()
            bar.set_postfix_str(f"{written / max(bar.format_dict['elapsed'], 1e-9):.0f} tokens/s")


def collect_traces(
    model: ReasoningModel,
    problems: list[Problem],
    condition: str = "with_reasoning",
    *,
    on_unfinished: str = "raise",
    **options,
) -> list[Trace]:
    """Complete each problem and segment the result; `options` are those of `collect_completions`.

    A completion that is cut off or malformed raises ValueError, or is left out with
    `on_unfinished="drop"`.
    """
    if on_unfinished not in ("raise", "drop"):
        raise ValueError(f'on_unfinished is {on_unfinished!r}; choose "raise" or "drop".')
    completions = collect_completions(model, problems, condition, **options)
    meta = {p.id: p.meta for p in problems}
    traces = []
    for completion in completions:
        try:
            traces.append(
                completion.to_trace(model.tokenizer, meta[completion.problem_id], model.tags)
            )
        except ValueError:
            if on_unfinished == "raise":
                raise
    return traces


def _rendered(
    model: ReasoningModel,
    question: str,
    condition: str,
    style: PromptStyle,
    without: str,
) -> Rendered:
    return rendered(model.tokenizer, question, condition, style, without, model.tags)


def _settings(
    model: ReasoningModel,
    backend: Backend | None,
    condition: str,
    sampling: Sampling,
    first: Rendered,
) -> str:
    """A short digest of all that decides what is written, the question apart.

    `first` is the prompt of a fixed question: another template, system message or style gives
    another.

    Of the model its weights count, its configuration, which says how they are used, and the type
    in which they calculate, and not its name: a copy in another folder writes the same, and other
    weights in the same folder do not.
    """
    source = model.hf.config.name_or_path
    weights = weights_digest(source, model.revision) or model.weights_sha256
    writer = getattr(backend, "__name__", "decode")
    parts = [weights, str(model.dtype), sorted(model.end_ids), writer, condition, asdict(sampling)]
    config = model.hf.config.to_dict()
    told_otherwise = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
    parts += [first.ids, {name: config[name] for name in config.keys() - told_otherwise}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
