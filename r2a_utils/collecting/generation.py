"""Collect completions: prompts in, what a model writes after them out, nothing lost on the way.

A back end turns prompts into token ids. The one here decodes on the model's own device, in batches
of like length; finished rows leave the batch, and each row draws from its own random stream, so
that in float32 neither the padding nor the neighbours of a row change what it writes; in bfloat16
rounding may, since a batch of another size adds in another order. `server_backend` has the other,
for OpenAI-compatible servers. `collect_completions` keeps each completion in a file as soon as it
ends, and goes on from there after a kill.

This file knows how text is generated and kept. It knows nothing of right answers.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import (
    DynamicCache,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.completions import Completion, append_completion, resume_completions
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, render_prompt

LEAVE_EVERY = 16  # decoding steps between two departures of finished rows from a batch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy decoding.

    `banned_ids` are never written (the no-cue arm). The paper: temperature 0.6, one sample,
    10,000 tokens.
    """

    max_new_tokens: int = 10_000
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    banned_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; 0 is greedy, more is random.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")


@dataclass(frozen=True)
class Prompt:
    """One prompt to complete: the `sample`-th of a problem in a condition."""

    ids: tuple[int, ...]
    problem: Problem
    condition: str
    sample: int

    def stream(self, seed: int) -> random.Random:
        """The random stream that its tokens are drawn from."""
        return random.Random(f"{seed} {self.condition} {self.problem.id} {self.sample}")


# Takes prompts and a sampling; yields (index of the prompt, ids, finished) as each ends. Its
# function's name is part of the settings that a file of completions is made with.
Backend = Callable[[list[Prompt], Sampling], Iterator[tuple[int, list[int], bool]]]


def collect_completions(
    model: ReasoningModel,
    problems: list[Problem],
    condition: str = "with_reasoning",
    *,
    path: str | Path | None = None,
    sampling: Sampling = Sampling(),
    samples: int = 1,
    prompt_style: str = "chat",
    without: str = "finished",
    batch_size: int = 64,
    backend: Backend | None = None,
) -> list[Completion]:
    """Complete each problem `samples` times; in the order of the problems, samples together.

    With a `path`, each completion is kept there as one line of JSON when it ends. A later call with
    the same settings reads what is there, drops a torn last line, and makes what is missing.
    `backend` defaults to `decode` on `model`. Raises ValueError when the file was made with other
    settings, or two problems share an id.
    """
    tokenizer = model.tokenizer
    writer = getattr(backend, "__name__", "decode")
    settings = _fingerprint(model, writer, condition, sampling, prompt_style, without)
    wanted = {(p.id, s): p for p in problems for s in range(samples)}
    if len(wanted) != len(problems) * samples:
        raise ValueError("two problems have the same id; give each its own.")
    done: dict[tuple[str, int], Completion] = {}
    if path is not None:
        path = Path(path)
        done = {k: c for k, c in resume_completions(path, settings).items() if k in wanted}
    missing = [key for key in wanted if key not in done]
    prompts = []
    for problem_id, sample in missing:
        problem = wanted[problem_id, sample]
        ids = render_prompt(
            tokenizer, problem.question, condition, prompt_style, without, model.tags
        )
        prompts.append(Prompt(tuple(ids), problem, condition, sample))
    if backend is None:

        def backend(prompts: list[Prompt], sampling: Sampling):
            return decode(model, prompts, sampling, batch_size)

    written = 0
    bar = tqdm(total=len(wanted), initial=len(done), desc=condition, unit="trace", disable=None)
    with bar:
        for index, ids, finished in backend(prompts, sampling) if prompts else ():
            problem_id, sample = missing[index]
            completion = Completion(
                problem_id=problem_id,
                condition=condition,
                sample=sample,
                model=model.name,
                settings=settings,
                prompt_ids=prompts[index].ids,
                completion_ids=tuple(ids),
                text=tokenizer.decode(ids, skip_special_tokens=False),
                finished=finished,
            )
            if path is not None:
                append_completion(path, completion)
            done[missing[index]] = completion
            written += completion.n_tokens
            bar.update()
            bar.set_postfix_str(f"{written / max(bar.format_dict['elapsed'], 1e-9):.0f} tokens/s")
    return [done[key] for key in wanted]


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
            traces.append(completion.to_trace(model.tokenizer, meta[completion.problem_id]))
        except ValueError:
            if on_unfinished == "raise":
                raise
    return traces


@torch.no_grad()
def decode(
    model: ReasoningModel, prompts: list[Prompt], sampling: Sampling, batch_size: int = 64
) -> Iterator[tuple[int, list[int], bool]]:
    """Decode on the model's own device, longest prompts first, `batch_size` rows at a time.

    Yields (index of the prompt, ids without the end token, finished) as rows end. Rows are padded
    on the left; the padding is masked and positions count from the first real token.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids))
    for start in range(0, len(order), batch_size):
        yield from _decode_batch(model, prompts, order[start : start + batch_size], sampling)


def _decode_batch(
    model: ReasoningModel, prompts: list[Prompt], rows: list[int], sampling: Sampling
) -> Iterator[tuple[int, list[int], bool]]:
    tokenizer, device = model.tokenizer, model.device
    eos = tokenizer.eos_token_id
    streams = {i: prompts[i].stream(sampling.seed) for i in rows}
    width = max(len(prompts[i].ids) for i in rows)
    inputs = torch.full((len(rows), width), eos)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for row, i in enumerate(rows):
        inputs[row, width - len(prompts[i].ids) :] = torch.tensor(prompts[i].ids)
        mask[row, width - len(prompts[i].ids) :] = 1
    inputs, mask = inputs.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, written = DynamicCache(config=model.hf.config), {i: [] for i in rows}
    ended: set[int] = set()
    for step in range(sampling.max_new_tokens):
        logits = model.hf(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = _choose(logits.float(), sampling, [streams[i] for i in rows])
        for i, token in zip(rows, chosen.tolist(), strict=True):
            if i not in ended and token == eos:
                ended.add(i)
                yield i, written[i], True
            elif i not in ended:
                written[i].append(token)
        if len(ended) == len(written):
            return
        positions, inputs = positions[:, -1:] + 1, chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        if step % LEAVE_EVERY == LEAVE_EVERY - 1 and any(i in ended for i in rows):
            keep = [row for row, i in enumerate(rows) if i not in ended]
            index = torch.tensor(keep, device=device)
            cache.batch_select_indices(index)
            inputs, mask, positions = inputs[index], mask[index], positions[index]
            rows = [rows[row] for row in keep]
    for i in rows:
        if i not in ended:
            yield i, written[i], False


def _choose(logits: torch.Tensor, sampling: Sampling, streams: list[random.Random]) -> torch.Tensor:
    """One token a row from logits `[row, vocabulary]`; each row uses its own stream."""
    if sampling.banned_ids:
        logits[:, list(sampling.banned_ids)] = -torch.inf
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(None, logits)
    cumulative = logits.softmax(-1).double().cumsum(-1)
    uniform = torch.tensor(
        [[s.random()] for s in streams], dtype=torch.double, device=logits.device
    )
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[1] - 1)


def _fingerprint(
    model: ReasoningModel,
    writer: str,
    condition: str,
    sampling: Sampling,
    prompt_style: str,
    without: str,
) -> str:
    """A short digest of all that decides what is written after a question."""
    parts = [model.name, model.revision, writer, condition, prompt_style, asdict(sampling)]
    if condition == "without_reasoning":
        parts.append(without)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
