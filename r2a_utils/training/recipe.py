"""How `r2a-tiny` is made: texts of the world, a small Qwen2 model, one training run.

`python -m r2a_utils.training.recipe` (`make tiny`) trains from fixed seeds and writes the
tokenizer, the weights and the training curve into `r2a_utils/tiny/`. A killed run continues from
its last checkpoint under `build/tiny/`. It needs a C++ compiler (torch.compile).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from r2a_utils.models.registry import BUNDLED
from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.prompts import INSTRUCTION, PREFILLED, render_prompt
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.trace import encode
from r2a_utils.tiny import world
from r2a_utils.training.vocabulary import train_tokenizer

SEED = 2025
STEPS, COOL_DOWN, HORIZON = 8000, 6000, 11_000
TOKENS_PER_STEP = 4096
LENGTHS = (64, 96, 128, 192, 256, 320, 448)  # texts are padded to one of these
PEAK_RATE, WARM_UP, WEIGHT_DECAY = 2.5e-3, 400, 0.05
# (until this step, longest arithmetic problem): short problems first.
CURRICULUM = ((1100, 3), (2200, 5), (STEPS, world.MAX_STEPS))
RAW_PROMPT_SHARE = 0.3
EXAMINE_EVERY = 1000
IGNORED = -100


def build_tokenizer() -> PreTrainedTokenizerBase:
    """Train the tokenizer on 8,000 training texts and the objects as they stand in a box."""
    rng = random.Random(SEED)
    problems = world.draw_problems(rng, held_out=False)
    texts = [f"{{{name}}}" for name in world.OBJECTS for _ in range(200)]
    for _ in range(8000):
        problem = next(problems)
        long = world.prefers_long_answer(problem, rng)
        texts += [
            problem.question + INSTRUCTION,
            PREFILLED["finished"],
            world.write_reasoning(problem, rng),
            world.write_answer(problem, rng, long),
        ]
    return train_tokenizer(texts)


def build_model(vocabulary_size: int, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A `Qwen2ForCausalLM` of 2.6 M parameters: 6 layers, 8 heads of 24, 2 key/value heads."""
    config = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def write_example(
    rng: random.Random, problem: world.Problem, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], int]:
    """One training text: its token ids, and how many of them are the prompt (not learnt).

    With and without reasoning are equally likely. Without, the answer is short: a long one would
    be reasoning after the tag that ended it.
    """
    style = "raw" if rng.random() < RAW_PROMPT_SHARE else "chat"
    if rng.random() < 0.5:
        prompt = render_prompt(tokenizer, problem.question, "with_reasoning", style)
        answer = world.write_answer(problem, rng, world.prefers_long_answer(problem, rng))
        pieces = [
            world.write_reasoning(problem, rng),
            R1_TAGS.close,
            R1_TAGS.after_close + answer,
        ]
    else:
        without = rng.choice(list(PREFILLED))
        prompt = render_prompt(tokenizer, problem.question, "without_reasoning", style, without)
        pieces = [world.write_answer(problem, rng, long=False)]
    ids = prompt + [i for piece in pieces for i in encode(tokenizer, piece)]
    return [*ids, tokenizer.eos_token_id], len(prompt)


def batches(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of (token ids, targets), each `[rows, length]` of one of `LENGTHS`, one per step.

    Texts are padded on the right; a causal model never sees the padding, and no loss is taken there
    or on the prompt. The few texts longer than the longest are left out. Step by step the stream is
    the same for the same seed.
    """
    rng = random.Random(seed)
    waiting: dict[int, list] = {length: [] for length in LENGTHS}
    for step in range(STEPS):
        max_steps = next(longest for until, longest in CURRICULUM if step < until)
        problems = world.draw_problems(rng, held_out=False, max_steps=max_steps)
        full = None
        while full is None:
            ids, prompt = write_example(rng, next(problems), tokenizer)
            if len(ids) > LENGTHS[-1]:
                continue
            length = next(n for n in LENGTHS if n >= len(ids))
            waiting[length].append((ids, prompt))
            if len(waiting[length]) == TOKENS_PER_STEP // length:
                full = length
        rows, waiting[full] = waiting[full], []
        inputs = torch.full((len(rows), full), tokenizer.pad_token_id)
        targets = torch.full((len(rows), full), IGNORED)
        for i, (ids, prompt) in enumerate(rows):
            row = torch.tensor(ids)
            inputs[i, : len(ids)] = row
            targets[i, prompt - 1 : len(ids) - 1] = row[prompt:]
        yield inputs, targets


def rate(step: int) -> float:
    """Learning rate at a step: warm-up, cosine over `HORIZON`, linear end from `COOL_DOWN`."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    progress = (min(step, COOL_DOWN) - WARM_UP) / (HORIZON - WARM_UP)
    cosine = PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
    left = min(1.0, (STEPS - step) / (STEPS - COOL_DOWN))
    return cosine * max(left, 0.01)


@torch.no_grad()
def examine(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, problems: list[world.Problem]
) -> dict[str, float]:
    """Share of problems answered right in greedy decoding, by condition."""
    model.eval()
    scores = {}
    for condition, limit in (("with_reasoning", 448), ("without_reasoning", 24)):
        prompts = [{"input_ids": render_prompt(tokenizer, p.question, condition)} for p in problems]
        batch = tokenizer.pad(prompts, padding_side="left", return_tensors="pt").to(model.device)
        written = model.generate(**batch, max_new_tokens=limit, do_sample=False)
        texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :])
        right = [
            f"\\boxed{{{p.answer}}}" in t.split(R1_TAGS.close)[-1]
            for p, t in zip(problems, texts, strict=True)
        ]
        scores[condition] = sum(right) / len(right)
    model.train()
    return scores


def train(folder: Path, scratch: Path, device: str) -> None:
    """Train from the seeds, or go on from the checkpoint in `scratch`; write to `folder`."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    model = build_model(len(tokenizer), tokenizer).to(device)
    # Half of a step on a CPU went into the backward pass of torch's fused attention.
    model.set_attn_implementation("eager")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=True,
    )

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            hidden = model.model(inputs, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    compiled = torch.compile(loss_of, dynamic=False)
    torch._dynamo.config.recompile_limit = 2 * len(LENGTHS)
    scratch.mkdir(parents=True, exist_ok=True)
    checkpoint, first, curve, seconds = scratch / "checkpoint.pt", 0, [], 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, curve, seconds = state["step"], state["curve"], state["seconds"]
    examination = world.held_out_problems(128, seed=1)
    started, losses = time.monotonic() - seconds, []
    for step, (inputs, targets) in enumerate(tqdm(batches(tokenizer, SEED), total=STEPS)):
        if step < first:
            continue
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = compiled(inputs.to(device), targets.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if (step + 1) % EXAMINE_EVERY == 0 or step + 1 == STEPS:
            point = {"step": step + 1, "tokens": (step + 1) * TOKENS_PER_STEP}
            point["loss"] = round(torch.stack(losses).mean().item(), 4)
            point |= examine(model, tokenizer, examination)
            curve.append(point)
            losses, seconds = [], time.monotonic() - started
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "curve": curve, "seconds": seconds}
            write_aside(checkpoint, partial(torch.save, state))
            tqdm.write(json.dumps(point))
    model.save_pretrained(folder)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    record = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds),
        "hardware": f"{hardware} ({platform.machine()})",
        "torch": torch.__version__,
        "curve": curve,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=BUNDLED)
    parser.add_argument("--scratch", type=Path, default=Path("build/tiny"))
    arguments = parser.parse_args()
    train(arguments.folder, arguments.scratch, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
