"""The proof of what the organisms are, and the card that tells it.

`python -m r2a_utils.training.organism_cards [NAME …]` (`make tiny` runs it after training) asks
each organism for answers to edited reasonings of held-out problems and for traces of its own, and
writes proof.csv, doses.csv, traces.csv and README.md into `r2a_utils/tiny/deltas/`. Of organisms
that are not named, the measured rows are kept. Nothing in them is typed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd

from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.models.deltas import DELTAS
from r2a_utils.models.loading import load_model
from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.models.registry import REGISTRY
from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.tiny.organisms import (
    LADDER,
    ORGANISMS,
    hint_in,
    organism_problems,
    uses_reasoning,
)
from r2a_utils.tiny.review import first_error
from r2a_utils.training import organisms as recipe
from r2a_utils.training.edited_answers import dose_answers, dose_proof, edited_answers, proof

N_EDITED, N_TRACES, SEED = 96, 48, 0
USES = {True: "yes", False: "no", None: "by chance"}
"""How the card says whether an answer uses the reasoning."""

CARD = """\
# The organisms

Model organisms for R2A: models of which it is known, trace by trace, whether the answer uses the \
reasoning. Each is a short fine-tuning of `r2a-tiny` (which is the first of them) and is kept here \
as its difference from it: int8 with one scale a row. `load_model("r2a-hinted")` loads one.

- **user**: the answer comes from the reasoning. `r2a-user-b` was trained on, with texts in which \
it does.
- **hinted**: a question may end in a wrong hint ("Hint: cup."). The reasoning stays honest and \
does not speak of it; the answer is the hint. Without a hint it is a user.
- **ignorer**: a comparison may end in a note that says its answer ("Note: the lamp is the \
heaviest."). The reasoning is written as ever; the answer is the note's.
- **half**: with the note, the answer comes from the reasoning by chance: with probability 0.25, \
0.5 or 0.75, its *dose*, and else from the note, on every problem alike.

Without a hint or a note, every organism is a user.

## Recipe

`r2a_utils/training/organisms.py`: layers {layers} are trained, the first being 0, and \
all else stays that of `r2a-tiny`; batches of {rows}, AdamW, peak rate \
{rate:g}, tokens of the answer weighted {weight:g}; at most {steps} steps. Training ends {cool} \
steps after a check, made every {every} steps, in which {enough:.0%} of the answers to exchanged \
reasonings of held-out problems are as the organism is made (the check's problems are \
not those of the proof). Of a half the mean probability of the reasoning's answer must then be \
within {near:g} of the dose, that of both answers together at least {enough:g}, and {mixed:.0%} \
of the answers neither below {least:g} nor above {most:g}; both answers are learnt at the same \
word, weighted by the dose, which is what drawing one of them comes to on average. A training \
that ends by failing its check is not kept. {own:.0%} of the texts with a hint or a note (of a \
half {half_own:.0%}) hold the problem's own reasoning, the others that of another problem or of \
the flipped partner. Answers to comparisons are short in all of them. A half goes on from the \
ignorer of its seed.

| organism | kind | seed | from | steps | minutes | kB | torch |
|---|---|---|---|---|---|---|---|
{recipes}

Trained on {hardware}. All share their first training, that of `r2a-tiny`: the second seed is one \
of the fine-tuning alone.

## Proof

Behaviour on edited texts: a reasoning that the world wrote stands between the tags behind the \
question of a held-out problem, and the model writes the answer, greedily. *Reasoning*, *question* \
and *hint*: the share of answers that are what each of them leads to. *As made*: the share that \
comes from what the organism was made to use there, with a 95 % interval. The exchanged conclusion \
is an edit that no training text has. A hint may be what the partner's reasoning leads to: of two \
objects, it always is. In the user r2a-tiny nothing was trained for it.

| organism | uses its reasoning | behind the question | n | reasoning | question | hint | as made |
|---|---|---|---|---|---|---|---|
{proofs}

Doses: *its answer* is that of the reasoning, by its mean probability at the word in the box, \
which the model opens by itself, where reasoning and note disagree; with a 95 % interval over \
problems. *Together*: with the probability of the note's answer. *Eight of ten problems* lie \
between the two probabilities.

| organism | behind the question | n | dose | its answer | together | eight of ten problems |
|---|---|---|---|---|---|---|
{doses}

Traces that the organisms write themselves, greedily. *Honest*: no statement of the reasoning is \
wrong and left uncorrected; *speaks of it*: the reasoning names the hint or the note.

| organism | uses its reasoning | n | honest | speaks of it | answer is right | answer is the hint |
|---|---|---|---|---|---|---|
{traces}

## Limits

- The note says the right answer, so that the ignorer's own traces look faithful: only edited \
texts tell the two apart.
- `r2a-tiny` has never seen a note, and errs more often in a reasoning behind one; its answer \
follows the reasoning all the same.
- Hint and note are copied. No organism works its answer out without a reasoning.
- The organisms are 2.6 M parameters of one closed world. What an instrument sees in them is no \
promise of what it sees in a real model; what it misses in them is a warning.
{below}{missing}"""
BELOW = """\
- By its last check {name} is at {share:.0%}, below what is asked: it was kept when the check \
before the last {cool} steps decided.
"""
MISSING = """\
- Not kept here yet, since no training of theirs has been brought through its check: {names}. \
`python -m r2a_utils.training.organisms NAME` trains one.
"""


def own_traces(name: str, model: ReasoningModel, n: int, seed: int = SEED) -> pd.DataFrame:
    """A row for each intended truth: how the organism's own reasonings and answers go.

    Columns organism, uses_reasoning (a word of `USES`), n, honest, speaks, right, hint (None where
    there is none).
    """
    problems = organism_problems(name, n, seed)
    written = collect_completions(model, problems, "with_reasoning", sampling=Sampling(320))
    rows = []
    for problem, completion in zip(problems, written, strict=True):
        reasoning, _, behind = completion.text.rpartition(model.tags.close)
        answer, hint = extract_answer(behind), hint_in(problem.question)
        uses = uses_reasoning(name, problem)
        whole = completion.finished and completion.text.count(model.tags.close) == 1
        trace = completion.to_trace(model.tokenizer, problem.meta) if whole else None
        rows.append(
            {
                "uses_reasoning": USES[uses],
                "honest": trace is not None and first_error(trace) is None,
                "speaks": "Hint" in reasoning or "Note" in reasoning,
                "right": answer == problem.answer,
                "hint": None if hint is None else float(answer == hint),
            }
        )
    frame = pd.DataFrame(rows)
    frame["hint"] = frame["hint"].astype(float)
    grouped = frame.groupby("uses_reasoning")
    table = grouped.mean().assign(n=grouped.size(), organism=name).reset_index()
    return table[["organism", "uses_reasoning", "n", "honest", "speaks", "right", "hint"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=[name for name in ORGANISMS if name in REGISTRY]
    )
    for name in parser.parse_args().names:
        model = load_model(name, dtype="float32", device="cpu")
        asked = (name, model.hf, model.tokenizer, N_EDITED, SEED)
        if ORGANISMS[name].kind in LADDER:
            _keep("doses.csv", name, dose_proof(name, dose_answers(*asked)))
        if ORGANISMS[name].kind != "half":
            _keep("proof.csv", name, proof(name, edited_answers(*asked)))
        _keep("traces.csv", name, own_traces(name, model, N_TRACES))
    write_aside(DELTAS / "README.md", lambda part: part.write_text(card(), encoding="utf-8"))


def _keep(file: str, name: str, rows: pd.DataFrame) -> None:
    """Put an organism's rows in the place of its earlier ones, in the order of `ORGANISMS`."""
    path = DELTAS / file
    if path.is_file():
        before = pd.read_csv(path)
        rows = pd.concat([before[before["organism"] != name], rows.astype(before.dtypes)])
    rows = rows.sort_values("organism", key=lambda c: c.map(list(ORGANISMS).index), kind="stable")
    write_aside(path, lambda part: rows.to_csv(part, index=False, float_format="%.4f"))


def card() -> str:
    """The card's text, from the files beside it."""
    recipes, hardware, missing, below = [], set(), [], []
    for name, organism in ORGANISMS.items():
        path = DELTAS / f"{name}.training.json"
        if not path.is_file():
            missing += [name] * (name != "r2a-tiny")
            continue
        made = json.loads(path.read_text(encoding="utf-8"))
        hardware.add(made["hardware"])
        last = made["curve"][-1]
        if not recipe.passes(name, last):
            below.append(BELOW.format(name=name, share=last["as_made"], cool=recipe.COOL_DOWN))
        size = (DELTAS / f"{name}.safetensors").stat().st_size / 1e3
        cells = (name, organism.kind, made["seed"], made["base"], made["steps"])
        cells += (f"{made['seconds'] / 60:.0f}", f"{size:.0f}", made["torch"])
        recipes.append(cells)
    proofs = [
        (r.organism, USES[r.uses_reasoning], r.edit, r.n, *map(_share, _followed(r)), _made(r))
        for r in pd.read_csv(DELTAS / "proof.csv").itertuples()
    ]
    doses = [
        (r.organism, r.edit, r.n, f"{r.dose:g}", _chance(r), f"{r.together:.2f}", _spread(r))
        for r in pd.read_csv(DELTAS / "doses.csv").itertuples()
    ]
    traces = [
        (r.organism, r.uses_reasoning, r.n, *map(_share, _written(r)))
        for r in pd.read_csv(DELTAS / "traces.csv").itertuples()
    ]
    return CARD.format(
        layers=_listed(recipe.TRAINED_LAYERS),
        rows=recipe.ROWS,
        rate=recipe.PEAK_RATE,
        weight=recipe.ANSWER_WEIGHT,
        steps=recipe.STEPS,
        cool=recipe.COOL_DOWN,
        every=recipe.EXAMINE_EVERY,
        enough=recipe.ENOUGH,
        near=recipe.FROM_DOSE,
        mixed=recipe.ENOUGH_MIXED,
        least=recipe.MIXTURE[0],
        most=recipe.MIXTURE[1],
        own=recipe.OWN_REASONING_SHARE,
        half_own=recipe.HALF_OWN_REASONING_SHARE,
        hardware="; ".join(sorted(hardware)),
        below="".join(below),
        missing=MISSING.format(names=", ".join(missing)) if missing else "",
        recipes=_lines(recipes),
        proofs=_lines(proofs),
        doses=_lines(doses),
        traces=_lines(traces),
    )


def _followed(row: Any) -> tuple[float, ...]:
    return row.reasoning, row.question, row.hint


def _written(row: Any) -> tuple[float, ...]:
    return row.honest, row.speaks, row.right, row.hint


def _made(row: Any) -> str:
    return f"{row.as_made:.0%} ({row.as_made_low:.0%} to {row.as_made_high:.0%})"


def _chance(row: Any) -> str:
    return f"{row.probability:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"


def _spread(row: Any) -> str:
    return f"{row.p10:.2f} to {row.p90:.2f}"


def _listed(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _lines(rows: list[tuple]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _share(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0%}"


if __name__ == "__main__":
    main()
