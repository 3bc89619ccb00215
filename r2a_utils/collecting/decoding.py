"""Decoding: prompts in, what the model writes after them out, on the model's own device.

In batches of like length; finished rows leave the batch, and each row draws from its own random
stream, so that in float32 neither the padding nor the neighbours of a row change what it writes; in
bfloat16 rounding may, since a batch of another size adds in another order. This file knows tokens.
It knows nothing of files and of right answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import (
    DynamicCache,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from r2a_utils.collecting.open_thought import OpenThought
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tokens import bos_id, common_prefix

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
