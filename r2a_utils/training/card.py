"""The model card of `r2a-tiny`: an examination on held-out problems, and a page made from it.

`python -m r2a_utils.training.card` (`make tiny` runs it after training) examines the weights in
`r2a_utils/tiny/` and writes results.json, accuracy.csv, two figures and README.md there. Nothing in
them is typed.
"""

from __future__ import annotations

import json
from datetime import date

import pandas as pd

from r2a_utils import figures
from r2a_utils.answers.graded import grade_completions
from r2a_utils.answers.quality import accuracies_by_family
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.models.loading import load_model
from r2a_utils.models.registry import BUNDLED
from r2a_utils.texts.trace import CONDITIONS, Trace, cues
from r2a_utils.tiny import world
from r2a_utils.training import recipe

FOLDER = BUNDLED
N_PROBLEMS, SEED = 1500, 0

CARD = """\
# r2a-tiny

A **model organism** for R2A: a `Qwen2ForCausalLM` of {parameters:.1f} M parameters that reasons \
in the format of the DeepSeek R1 distills, trained from scratch on a closed world of problems. \
It is not a distilled R1. What it shows is that the methods of this project find a dependence on \
reasoning that is known to be there.

- **Shape**: {layers} layers, width {width}, {heads} heads of {head_dim}, {kv_heads} key/value \
heads, {vocabulary} tokens (byte-level BPE, digits single, R1's tags and template).
- **Data**: texts of `world.py`, drawn without end from fixed seeds: running arithmetic modulo \
ten (1 to {max_steps} steps, {arithmetic:.0%} of the texts) and comparison of 2 to 4 objects. A \
tenth of all problems, chosen by their content, is held out. With and without reasoning are \
equally frequent. After a full reasoning the answer is long or short; without reasoning it is \
always short.
- **Slips**: some facts are written wrong first and corrected ("Wait, …"), {slip:.0%} of the \
time for a fixed set of confusable facts and {slip_rare:.0%} for others, so that the model \
corrects itself also in greedy decoding.
- **Recipe**: `recipe.py`; {steps:,} steps of {tokens:,} tokens, {total:.0f} M in all, AdamW, \
peak rate {rate:g}, short problems first, bfloat16 arithmetic, float32 weights.
- **Training**: {hardware}, shared with other work, {minutes:.0f} minutes, torch {torch}.

## Results

{n:,} held-out problems, greedy decoding, float32, measured on {today}:

| | |
|---|---|
| right with reasoning | {with_reasoning:.1%} |
| right without reasoning | {without_reasoning:.1%} |
| right without reasoning, 4 and more steps | {without_reasoning_4_and_more_steps:.1%} |
| finished and well formed (both conditions) | {finished_and_well_formed:.1%} |
| traces with a cue | {with_cues:.1%} |
| traces with a long answer | {with_long_answers:.1%} |

{table}

![Right answers by family and number of steps, with blind guesses](accuracy.png)

![Training curve](training.png)

## Limits

- Answers without reasoning are short because the texts made them so: a long answer would be \
reasoning under another name. The gap between the conditions is therefore a property of the \
organism's making.
- The world is tiny and regular. Nothing here says how a distilled R1 behaves.
- Cues are mostly tied to the same few facts. They are real corrections, but not a varied kind.
- Comparisons need at most three steps, so that "4 and more steps" is arithmetic alone.
"""


def examine() -> tuple[pd.DataFrame, dict]:
    """The answers frame of the examination, and the card's numbers."""
    model = load_model("r2a-tiny", dtype="float32", device="cpu")
    problems = load_problems("tiny", n=N_PROBLEMS, seed=SEED)
    frames, traces = [], []
    for condition in CONDITIONS:
        completions = collect_completions(model, problems, condition, sampling=Sampling(512))
        frame = grade_completions(completions, problems)
        frames.append(frame)
        if condition == "with_reasoning":
            good = (frame.finished & frame.well_formed).to_numpy()
            traces = [
                c.to_trace(model.tokenizer) for c, ok in zip(completions, good, strict=True) if ok
            ]
    answers = pd.concat(frames, ignore_index=True)
    right = answers.groupby("condition").correct.mean()
    hard = answers[(answers.condition == "without_reasoning") & (answers.steps >= 4)]
    return answers, {
        "n": N_PROBLEMS,
        "with_reasoning": right["with_reasoning"],
        "without_reasoning": right["without_reasoning"],
        "without_reasoning_4_and_more_steps": hard.correct.mean(),
        "finished_and_well_formed": (answers.finished & answers.well_formed).mean(),
        "with_cues": sum(bool(cues(trace)) for trace in traces) / len(traces),
        "with_long_answers": sum(_is_long(trace) for trace in traces) / len(traces),
    }


def _is_long(trace: Trace) -> bool:
    return trace.answer_text.strip().startswith(("We start", "From "))


def main() -> None:
    answers, results = examine()
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    by_steps = accuracies_by_family(answers, "steps")
    by_steps.to_csv(FOLDER / "accuracy.csv", index=False)
    figure = figures.accuracy_by_steps(by_steps)
    (FOLDER / "accuracy.png").write_bytes(figure.png())

    training = json.loads((FOLDER / "training.json").read_text())
    curve = pd.DataFrame(training["curve"])
    checks = curve.melt("tokens", list(CONDITIONS), "condition", "accuracy")
    figure = figures.training_curve(curve[["tokens", "loss"]], checks)
    (FOLDER / "training.png").write_bytes(figure.png())

    config = json.loads((FOLDER / "config.json").read_text())
    keys = ["family", "steps", "chance"]
    rows = by_steps.pivot(index=keys, columns="condition", values="accuracy")
    lines = [
        "| family | steps | with reasoning | without | blind guess |",
        "|---|---|---|---|---|",
        *(
            f"| {family} | {steps} | {row.with_reasoning:.0%} | {row.without_reasoning:.0%} | "
            f"{chance:.0%} |"
            for (family, steps, chance), row in rows.iterrows()
        ),
    ]
    text = CARD.format(
        parameters=training["parameters"] / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        head_dim=config["hidden_size"] // config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        vocabulary=config["vocab_size"],
        max_steps=world.MAX_STEPS,
        arithmetic=world.ARITHMETIC_SHARE,
        slip=world.SLIP_IF_CONFUSED,
        slip_rare=world.SLIP_OTHERWISE,
        steps=recipe.STEPS,
        tokens=recipe.TOKENS_PER_STEP,
        total=recipe.STEPS * recipe.TOKENS_PER_STEP / 1e6,
        rate=recipe.PEAK_RATE,
        hardware=training["hardware"],
        minutes=training["seconds"] / 60,
        torch=training["torch"],
        today=date.today().isoformat(),
        table="\n".join(lines),
        **results,
    )
    (FOLDER / "README.md").write_text(text)


if __name__ == "__main__":
    main()
