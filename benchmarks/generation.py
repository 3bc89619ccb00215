"""Speed of collecting traces: batches that rows leave as they finish, against one prompt at a time.

    python benchmarks/generation.py                                # 64 prompts, both small models
    python benchmarks/generation.py --models r2a-tiny --prompts 256 --batch-size 256

"One at a time" is the paper's way: transformers' `generate` on each prompt alone. Both decode
greedily, in float32 on a CPU and bfloat16 on a GPU, and write the same number of tokens (r2a-tiny
until it ends by itself; a model that does not reason, up to the limit; the time of one prompt at a
time is scaled up from `--sample` of them). Prints a table and asserts nothing.

"Floor" is the time of the forwards that no batch of this size can avoid: one for the prompts and
one for each token of the longest text, each with as many rows as have not ended, over the keys that
stand before it. What lies between is what choosing tokens, leaving and bookkeeping cost.

Each is told twice: by the clock on the wall, and by the CPU's seconds, which say the same with one
thread (OMP_NUM_THREADS=1) on an idle machine and still mean something on a busy one.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from transformers import DynamicCache

from r2a_utils.collecting.decoding import Prompt, Sampling, decode
from r2a_utils.collecting.loading import load_problems
from r2a_utils.models.loading import ReasoningModel, load_model
from r2a_utils.texts.prompts import render_prompt


def main() -> None:
    arguments = parse()
    for name in arguments.models:
        model = load_model(name, device=arguments.device)
        limit = arguments.max_new_tokens if name == "r2a-tiny" else arguments.other_tokens
        prompts = make_prompts(model, arguments.prompts)
        in_batches(model, prompts[:2], Sampling(4), 2)  # the first calls load kernels

        texts, batched = in_batches(model, prompts, Sampling(limit), arguments.batch_size)
        tokens = sum(map(len, texts))
        step = max(1, len(prompts) // arguments.sample)
        chosen = range(0, len(prompts), step)
        alone_tokens, alone = one_at_a_time(model, [prompts[i] for i in chosen], limit)
        floor = least(model, prompts, texts, arguments.batch_size)

        alone_speed = alone_tokens / alone
        speeds = {
            f"decode, batches of {arguments.batch_size}": tokens / batched,
            f"generate, one at a time ({len(chosen)} prompts)": alone_speed,
            "floor of such batches": tokens / floor,
        }
        place = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU"
        print(
            f"{name}: {len(prompts)} prompts, {tokens} tokens (longest {max(map(len, texts))}), "
            f"{model.dtype}, {place}, {torch.get_num_threads()} threads"
        )
        print(f"  {'':42} {'wall':>20} {'':>8} {'CPU':>20}")
        for what, speed in speeds.items():
            columns = [
                f"{v:11.1f} tokens/s {r:7.2f} x"
                for v, r in zip(speed, speed / alone_speed, strict=True)
            ]
            print(f"  {what:42}", *columns)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["r2a-tiny", "smollm2-135m"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=512, help="for r2a-tiny")
    parser.add_argument("--other-tokens", type=int, default=64, help="for any other model")
    parser.add_argument("--sample", type=int, default=64, help="prompts decoded one at a time")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def make_prompts(model: ReasoningModel, n: int) -> list[Prompt]:
    """Questions of the bundled world as the model's chat template puts them."""
    return [
        Prompt(tuple(render_prompt(model.tokenizer, p.question)), p, "with_reasoning", 0)
        for p in load_problems("tiny", n=n)
    ]


def clock() -> np.ndarray:
    """Seconds by the clock on the wall and by this process's CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def in_batches(
    model: ReasoningModel, prompts: list[Prompt], sampling: Sampling, batch_size: int
) -> tuple[list[list[int]], np.ndarray]:
    """What is written after each prompt, with the end token, and the seconds it took."""
    texts: list[list[int]] = [[] for _ in prompts]
    start = clock()
    for index, ids, finished, _ in decode(model, prompts, sampling, batch_size):
        texts[index] = [*ids, model.tokenizer.eos_token_id] if finished else ids
    return texts, clock() - start


@torch.no_grad()
def one_at_a_time(
    model: ReasoningModel, prompts: list[Prompt], limit: int
) -> tuple[int, np.ndarray]:
    """Tokens written by `generate`, a call for each prompt, and the seconds it took."""
    written, start = 0, clock()
    for prompt in prompts:
        ids = torch.tensor([prompt.ids], device=model.device)
        out = model.hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=model.tokenizer.eos_token_id,
            pad_token_id=model.tokenizer.eos_token_id,
        )
        written += out.shape[1] - ids.shape[1]
    return written, clock() - start


@torch.no_grad()
def least(
    model: ReasoningModel, prompts: list[Prompt], texts: list[list[int]], batch_size: int
) -> np.ndarray:
    """Seconds of the forwards alone, rows leaving in the very step in which they end."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids))
    total = np.zeros(2)
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        width = max(len(prompts[i].ids) for i in rows)
        inputs = torch.ones((len(rows), width), dtype=torch.long, device=model.device)
        cache, left = DynamicCache(config=model.hf.config), [len(texts[i]) for i in rows]
        start = clock()
        for step in range(max(left)):
            model.hf(input_ids=inputs, past_key_values=cache, logits_to_keep=1)
            stay = [row for row, length in enumerate(left) if length > step + 1]
            if len(stay) < len(left):
                left = [left[row] for row in stay]
                if stay:
                    cache.batch_select_indices(torch.tensor(stay, device=model.device))
            inputs = inputs[: len(left), :1]
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        total += clock() - start
    return total


if __name__ == "__main__":
    main()
