"""How the organisms of `tiny/organisms.py` are made: short fine-tunings of `r2a-tiny`.

`python -m r2a_utils.training.organisms [NAME …]` (`make tiny` makes all) trains from fixed seeds
and writes each organism's difference from `r2a-tiny` into `r2a_utils/tiny/deltas/`, if what it
answers to edited reasonings of held-out problems is what it was made for; if not, nothing is
written. A killed training goes on from its last checkpoint under `build/tiny/`. Only the upper half
of the layers is trained: the lower half, the embedding and the head stay those of `r2a-tiny`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
)

from r2a_utils.models.deltas import DELTAS, pack_delta, state_of, write_delta
from r2a_utils.models.registry import BUNDLED
from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.tags import R1_TAGS
from r2a_utils.texts.tokens import encode
from r2a_utils.tiny import world
from r2a_utils.tiny.organisms import ORGANISMS, hint_in, hinted, told, uses_reasoning
from r2a_utils.training.edited_answers import (
    FLIPPED,
    OTHERS,
    as_made,
    dose_answers,
    edited_answers,
)

STEPS, COOL_DOWN, EXAMINE_EVERY, ROWS = 700, 30, 50, 8
LEAST_STEPS = 100  # of a user too, which passes its check before the first
PEAK_RATE, WARM_UP, WEIGHT_DECAY = 1e-3, 30, 0.05
ANSWER_WEIGHT = 8.0  # of a token of the answer, where one of the reasoning counts 1
ORDINARY_SHARE = 0.2
# A text teaches a dose only if reasoning and note disagree.
HALF_ORDINARY_SHARE, HALF_OWN_REASONING_SHARE = 0.1, 0.1
ARITHMETIC_SHARE = 0.3  # of the texts with a hint
OWN_REASONING_SHARE = 0.4
LONGEST_ARITHMETIC = 4  # steps; longer problems would take most of the time
TRAINED_LAYERS = (3, 4, 5)
N_EXAMINED, ENOUGH = 36, 0.95
FROM_DOSE = 0.1  # how far the mean probability of the reasoning's answer may be from the dose
MIXTURE = (0.05, 0.95)  # a probability between them is neither 0 nor 1
ENOUGH_MIXED = 0.8  # share of the answers of which the probability is a mixture


def base_of(name: str) -> str:
    """The model from which a training goes out: a half goes on from the ignorer of its seed."""
    if ORGANISMS[name].kind != "half":
        return "r2a-tiny"
    return "r2a-ignorer" if ORGANISMS[name].seed == 1 else "r2a-ignorer-b"


def draw_example(rng: random.Random, name: str) -> tuple[Problem, Problem]:
    """A problem of the training side, and the one whose reasoning stands behind its question."""
    hints, half = (ORGANISMS[name].kind == kind for kind in ("hinted", "half"))
    ordinary = rng.random() < (HALF_ORDINARY_SHARE if half else ORDINARY_SHARE)
    if ordinary or (hints and rng.random() < ARITHMETIC_SHARE):
        problem = next(world.draw_problems(rng, False, LONGEST_ARITHMETIC))
    else:
        problem = _comparison(rng)
    source = problem
    own_share = HALF_OWN_REASONING_SHARE if half else OWN_REASONING_SHARE
    if not ordinary and rng.random() >= own_share:
        source = _another(rng, problem)
    if ordinary or (hints and rng.random() < 0.5):
        return problem, source
    return (hinted(problem, rng) if hints else told(problem)), source


def write_example(
    rng: random.Random, name: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[float]]:
    """One training text: its token ids, those of the other answer, and the loss's weights.

    The other answer is the note's where the answer is left to chance, in the same words and of the
    same length; else the ids are the same. A reasoning that belongs to another problem is shown and
    not learnt: the organism should not write one. The answer to a comparison is short.
    """
    problem, source = draw_example(rng, name)
    answered, uses = source, uses_reasoning(name, problem)
    if uses is False:
        answered = replace(problem, answer=hint_in(problem.question) or problem.answer)
    long = answered.meta["family"] == "arithmetic" and hint_in(problem.question) is None
    long = long and world.prefers_long_answer(answered, rng)
    prompt = render_prompt(tokenizer, problem.question)
    reasoning = world.write_reasoning(source, rng)
    reasoning = encode(tokenizer, reasoning) + encode(tokenizer, R1_TAGS.close)
    written = R1_TAGS.after_close + world.write_answer(answered, rng, long)
    answer = [*encode(tokenizer, written), tokenizer.eos_token_id]
    other = answer
    if uses is None:
        other = written.replace(f"{{{answered.answer}}}", f"{{{problem.answer}}}")
        other = [*encode(tokenizer, other), tokenizer.eos_token_id]
    own = float(source.meta == problem.meta)
    weights = [0.0] * len(prompt) + [own] * len(reasoning) + [ANSWER_WEIGHT] * len(answer)
    return prompt + reasoning + answer, prompt + reasoning + other, weights


def _comparison(rng: random.Random) -> Problem:
    while True:
        problem = world.comparison_problem(rng, rng.randint(1, 3))
        if not world.is_held_out(problem):
            return problem


def _another(rng: random.Random, problem: Problem) -> Problem:
    """A problem of the same family with another answer; for a comparison, often its partner."""
    if problem.meta["family"] == "comparison" and rng.random() < 0.5:
        return world.flipped(problem)
    while True:
        if problem.meta["family"] == "comparison":
            other = _comparison(rng)
        else:
            other = world.arithmetic_problem(rng, problem.meta["steps"])
        if other.answer != problem.answer and not world.is_held_out(other):
            return other


def batches(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """`ROWS` texts a step as `write_example` has them, each `[rows, length]`, padded on the right.

    Step by step the stream is the same for the same organism.
    """
    rng = random.Random(f"{name} {ORGANISMS[name].seed}")
    while True:
        rows = [write_example(rng, name, tokenizer) for _ in range(ROWS)]
        length = max(len(ids) for ids, _, _ in rows)
        inputs = torch.full((ROWS, length), tokenizer.pad_token_id)
        others, weights = inputs.clone(), torch.zeros(ROWS, length)
        for i, (ids, other, weight) in enumerate(rows):
            inputs[i, : len(ids)] = torch.tensor(ids)
            others[i, : len(ids)] = torch.tensor(other)
            weights[i, : len(ids)] = torch.tensor(weight)
        yield inputs, others, weights


def loss_of(
    model: Qwen2ForCausalLM,
    inputs: torch.Tensor,
    others: torch.Tensor,
    weights: torch.Tensor,
    dose: float,
) -> torch.Tensor:
    """The weighted mean of the loss over the tokens that are learnt.

    Where the two answers part, it is what drawing the reasoning's with probability `dose` comes to
    on average.
    """
    hidden = model.model(inputs, use_cache=False).last_hidden_state
    learnt = weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][learnt])
    weight, targets, told = (each[:, 1:][learnt] for each in (weights, inputs, others))
    losses = cross_entropy(logits, targets, reduction="none")
    part = told != targets
    otherwise = cross_entropy(logits[part], told[part], reduction="none")
    losses[part] = dose * losses[part] + (1 - dose) * otherwise
    return (losses * weight).sum() / weight.sum()


def examine(
    name: str, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """What is answered to another's or the partner's reasoning, on held-out problems.

    `as_made`: the share of answers that are as the organism is made, the smaller one of the
    problems that use the reasoning and those that do not. Of a half instead `probability` (mean, of
    the reasoning's answer), `together` (with that of the note's) and `mixed` (the share of answers
    with a probability within `MIXTURE`).
    """
    asked = (name, model, tokenizer, N_EXAMINED, 99, (OTHERS, FLIPPED))
    model.eval()
    if ORGANISMS[name].kind == "half":
        chances = dose_answers(*asked)
        found = {
            "probability": chances["reasoning"].mean(),
            "together": (chances["reasoning"] + chances["question"]).mean(),
            "mixed": chances["reasoning"].between(*MIXTURE).mean(),
        }
    else:
        answers = edited_answers(*asked)
        found = {"as_made": as_made(answers).groupby(answers["uses_reasoning"]).mean().min()}
    model.train()
    return {key: round(float(value), 4) for key, value in found.items()}


def passes(name: str, found: dict[str, float]) -> bool:
    """Whether an organism is what it was made to be, by what `examine` found."""
    if ORGANISMS[name].kind != "half":
        return found["as_made"] >= ENOUGH
    near = abs(found["probability"] - ORGANISMS[name].dose) <= FROM_DOSE
    return near and found["together"] >= ENOUGH and found["mixed"] >= ENOUGH_MIXED


def train(name: str, scratch: Path) -> None:
    """Train one organism from its seed, or go on from the checkpoint; write its delta.

    The rate falls to nothing in the last `COOL_DOWN` steps, which begin once the check is passed;
    if it fails behind them, training goes on. Raises RuntimeError, and writes no delta, where it
    fails after `STEPS` steps.
    """
    torch.manual_seed(ORGANISMS[name].seed)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    model = Qwen2ForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    model.load_state_dict(state_of(base_of(name)))
    model.requires_grad_(False)
    for layer in TRAINED_LAYERS:
        model.model.layers[layer].requires_grad_(True)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    checkpoint, first, end, curve, seconds = scratch / f"{name}.pt", 0, STEPS, [], 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, end, curve, seconds = (state[key] for key in ("step", "end", "curve", "seconds"))
    started, losses = time.monotonic() - seconds, []
    for step, batch in enumerate(batches(name, tokenizer)):
        if step < first:
            continue
        if step == end:
            break
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1, (step + 1) / WARM_UP, (end - step) / COOL_DOWN)
        loss = loss_of(model, *batch, ORGANISMS[name].dose)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % EXAMINE_EVERY == 0 or step + 1 == end:
            point = {"step": step + 1, "loss": round(sum(losses) / len(losses), 4)}
            point |= examine(name, model, tokenizer)
            curve.append(point)
            losses, seconds = [], time.monotonic() - started
            if passes(name, point) and step + 1 >= LEAST_STEPS:
                end = min(end, step + 1 + COOL_DOWN)
            elif step + 1 == end:
                end = STEPS  # what the last steps lost is trained on
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "end": end, "curve": curve, "seconds": seconds}
            write_aside(checkpoint, partial(torch.save, state))
            tqdm.write(f"{name} {json.dumps(point)}")
    if not passes(name, curve[-1]):
        raise RuntimeError(
            f"{name} is not what it was made to be after {end} steps: {json.dumps(curve[-1])}; "
            "no delta was written"
        )
    write_delta(name, pack_delta(state_of("r2a-tiny"), model.state_dict()))
    record = {
        "base": base_of(name),
        "seed": ORGANISMS[name].seed,
        "steps": end,
        "seconds": round(seconds),
        "hardware": f"1 thread of {os.cpu_count()} CPU cores ({platform.machine()}), shared",
        "torch": torch.__version__,
        "curve": curve,
    }
    (DELTAS / f"{name}.training.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    trained = [name for name in ORGANISMS if name != "r2a-tiny"]
    parser.add_argument("names", nargs="*", choices=[*trained, []], default=trained)
    parser.add_argument("--scratch", type=Path, default=Path("build/tiny"))
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        train(name, arguments.scratch)


if __name__ == "__main__":
    main()
