"""Collect completions: prompts in, what a model writes after them out, nothing lost on the way.

A back end turns prompts into token ids. The one here decodes on the model's own device, in batches
of like length; finished rows leave the batch, and each row draws from its own random stream, so
that in float32 neither the padding nor the neighbours of a row change what it writes; in bfloat16
rounding may, since a batch of another size adds in another order. `server.py` has the other, for
OpenAI-compatible servers. `collect_completions` keeps each completion in a file as soon as it
ends, and goes on from there after a kill.

This file knows how text is generated and kept. It knows nothing of right answers.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm.auto import tqdm
from transformers import (
    DynamicCache,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from r2a_utils.collecting.open_thought import OpenThought
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
from r2a_utils.texts.tokens import bos_id, common_prefix
from r2a_utils.texts.trace import Trace

FIXED_QUESTION = "What is 2 + 2?"  # its prompt tells in what way a question is put
LEAVE_EVERY = 16  # decoding steps between two departures of finished rows from a batch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy decoding.

    `banned_ids` are never written (the no-cue arm). `close_after` tokens of thought are enough: a
    thought that is not closed by then, or that the model ends without closing it, is closed for it,
    and it goes on to its answer (budget forcing); None lets every model close its own. The paper:
    temperature 0.6, one sample, 10,000 tokens, nothing closed.
    """

    max_new_tokens: int = 10_000
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    banned_ids: tuple[int, ...] = ()
    close_after: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; 0 is greedy, more is random.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.close_after is not None and not 1 <= self.close_after < self.max_new_tokens:
            raise ValueError(
                f"close_after is {self.close_after}; it must be at least 1 and below "
                f"max_new_tokens, {self.max_new_tokens}, so that an answer has room behind it."
            )


@dataclass(frozen=True)
class Prompt:
    """One prompt to complete: the `sample`-th of a problem in a condition.

    The first `examples` of its tokens are a system message and worked examples.
    """

    ids: tuple[int, ...]
    problem: Problem
    condition: str
    sample: int
    examples: int = 0

    def stream(self, seed: int) -> random.Random:
        """The random stream that its tokens are drawn from."""
        return random.Random(f"{seed} {self.condition} {self.problem.id} {self.sample}")


class Written(NamedTuple):
    """What was written after the `index`-th prompt, without the end token.

    `finished`: it ended before the limit. `closed_by_us`: its closing tag was put there
    (`Sampling.close_after`).
    """

    index: int
    ids: list[int]
    finished: bool
    closed_by_us: bool = False


# Takes prompts and a sampling; yields what is written as each ends. Its function's name is part of
# the settings that a file of completions is made with.
Backend = Callable[[list[Prompt], Sampling], Iterator[Written]]


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


@torch.no_grad()
def decode(
    model: ReasoningModel, prompts: list[Prompt], sampling: Sampling, batch_size: int = 64
) -> Iterator[Written]:
    """Decode on the model's own device, longest prompts first, `batch_size` rows at a time.

    Yields rows as they end; any of the model's end tokens ends one, unless its thought is to be
    closed first (`Sampling.close_after`). Rows are padded on the left; the padding is masked and
    positions count from the first real token. Raises ValueError for a `batch_size` below 1 and for
    a model with a cache of its own kind. Stage 01 writes so.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    model.check_here(
        "writing texts needs",
        'take given texts (source="written") or a server that writes (source=its address)',
    )
    if not model.hf._supports_default_dynamic_cache():
        raise ValueError(
            f"{model.name} keeps what it has read in a cache of its own kind and cannot write "
            "here; let a server write its texts (source=URL), or read given ones"
        )
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids))
    for start in range(0, len(order), batch_size):
        yield from _decode_batch(model, prompts, order[start : start + batch_size], sampling)


def _decode_batch(
    model: ReasoningModel, prompts: list[Prompt], rows: list[int], sampling: Sampling
) -> Iterator[Written]:
    device, ends = model.device, model.end_ids
    streams = {i: prompts[i].stream(sampling.seed) for i in rows}
    thoughts = {i: OpenThought(model, prompts[i].condition, sampling.close_after) for i in rows}
    cache, n_read = _shared_start(model, [prompts[i].ids for i in rows])
    width = max(len(prompts[i].ids) for i in rows) - n_read
    inputs = torch.full((len(rows), width), bos_id(model.tokenizer))
    mask = torch.ones((len(rows), n_read + width), dtype=torch.long)
    for row, i in enumerate(rows):
        own = prompts[i].ids[n_read:]
        inputs[row, width - len(own) :] = torch.tensor(own)
        mask[row, n_read : n_read + width - len(own)] = 0
    inputs, mask = inputs.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, n_read:]
    written: dict[int, list[int]] = {i: [] for i in rows}
    ended: set[int] = set()
    for step in range(sampling.max_new_tokens):
        logits = model.hf(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = _choose(logits.float(), sampling, [streams[i] for i in rows]).tolist()
        for row, i in enumerate(rows):
            if i in ended:
                continue
            chosen[row] = thoughts[i].next_token(written[i], chosen[row])
            if chosen[row] in ends:
                ended.add(i)
                yield Written(i, written[i], True, thoughts[i].closed_by_us)
            else:
                written[i].append(chosen[row])
        if len(ended) == len(written):
            return
        positions, inputs = positions[:, -1:] + 1, torch.tensor(chosen, device=device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        if step % LEAVE_EVERY == LEAVE_EVERY - 1 and any(i in ended for i in rows):
            keep = [row for row, i in enumerate(rows) if i not in ended]
            index = torch.tensor(keep, device=device)
            cache.reorder_cache(index)  # states of other mixers too, unlike a selection
            inputs, mask, positions = inputs[index], mask[index], positions[index]
            rows = [rows[row] for row in keep]
    for i in rows:
        if i not in ended:
            yield Written(i, written[i], False, thoughts[i].closed_by_us)


def _shared_start(
    model: ReasoningModel, prompts: Sequence[Sequence[int]]
) -> tuple[DynamicCache, int]:
    """A cache of what all prompts begin with, read once for all rows, and its length.

    Worked examples are most of a prompt. At least one token of each prompt is left to be read. A
    layer that keeps more than keys and values, or only the last of them, reads each row whole.
    """
    cache = DynamicCache(config=model.hf.config)
    shared = min(common_prefix(*prompts), min(map(len, prompts)) - 1)
    if len(prompts) == 1 or shared == 0 or any(type(c) is not DynamicLayer for c in cache.layers):
        return cache, 0
    start = torch.tensor([prompts[0][:shared]], device=model.device)
    model.hf(input_ids=start, past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(len(prompts))
    return cache, shared


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
