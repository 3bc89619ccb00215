# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   r2a:
#     reads: []
#     writes: [
#       traces/contrast_clean, traces/contrast_corrupted, tables/patching_curves,
#       records/activation_patching, records/attribution_patching
#     ]
# ---

# %% [markdown]
# # Stage 3: does the answer depend on the reasoning?
#
# **Question.** If one reasoning {term}`token`'s state is exchanged for that of another
# {term}`trace`, does the answer follow?
#
# **What you will see.** A {term}`patch grid` for one pair of traces, tokens × layers; the mean
# over many pairs of the two curves that the paper draws, under two protocols and in both
# directions; how often the answer flips; controls; and how well gradients foretell the grid.
#
# **What we know so far.** {doc}`Reasoning-Focus Heads <04_reasoning_focus_heads>` showed where
# the answer looks. Looking is not using.

# %% [markdown]
# ## Parameters
#
# - `pairs`: "tiny" are minimal pairs of the bundled world, "questions" comparisons in plain
#   language ("Considering weight, which is heavier: …") for pretrained models, "paper" the
#   authors' own, from their data.
# - `source`: "model" lets the model write the traces, "written" puts texts of ours before it
#   ({term}`teacher forcing`).
# - `protocol`: "own" scores the answer as it stands in the trace. "probe" and "boxed_probe" are the
#   paper's way: the reasoning is closed by the line "Final answer is A." or "Final answer is
#   \boxed{A}.", and the same words follow as the answer.
# - `prompt_style`: "chat" puts the question in the model's own template, "raw" as the paper does,
#   followed by the instruction to reason, without a template; `smollm2-135m` tells more pairs apart
#   with it.
# - `paper_data` names a folder with the authors' data; `None` stands for what the environment
#   variable `R2A_PAPER_DATA` names, if it is set.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
pairs = "tiny"
source = "model"
protocol = "own"
prompt_style = "chat"
n_pairs = 60
n_attributed = 4
seed = 0
paper_data: str | None = None

# %%
import os
from contextlib import suppress
from functools import partial

import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import figures
from r2a_utils.causal.attribution import (
    attribution_grid,
    rank_correlation,
    recall_at,
)
from r2a_utils.causal.pairs import PROBES, probed
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.causal.patching_controls import CONTROLS, control_metrics
from r2a_utils.causal.recorded_pairs import check_kept, sift
from r2a_utils.collecting.generation import Sampling, collect_traces, teacher_forced
from r2a_utils.collecting.question_pairs import (
    paper_question_problems,
    question_problems,
    write_comparison,
)
from r2a_utils.explorers import patch_explorer
from r2a_utils.models.loading import load_model
from r2a_utils.paper import artefacts
from r2a_utils.runs.folder import Run
from r2a_utils.stats import bootstrap_mean_intervals, wilson_interval
from r2a_utils.tiny.world import contrast_problems, write_text

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)

# %% [markdown]
# ## Contrast pairs
#
# A {term}`contrast pair` is a clean and a corrupted trace that differ in a few words of the
# question ("heaviest" and "lightest", or "weight" and "speed") and in what follows from it.

# %%
draw, write = {
    "tiny": (contrast_problems, write_text),
    "questions": (question_problems, write_comparison),
    "paper": (
        partial(paper_question_problems, folder=paper_data),
        write_comparison,
    ),
}[pairs]
problems = draw(n_pairs, seed)
sides = [
    collect_traces(
        model,
        [pair[side] for pair in problems],
        path=run.completions_path(f"contrast_{name}"),
        sampling=Sampling(512),
        prompt_style=prompt_style,
        backend=teacher_forced(model, write) if source == "written" else None,
        on_unfinished="drop",
    )
    for side, name in enumerate(("clean", "corrupted"))
]
by_id = {trace.problem_id: trace for traces in sides for trace in traces}

# %% [markdown]
# Under the protocol "own" a pair is what was written. With a probe the reasoning gets one more
# line, which states the answer in a fixed place, and the answer repeats that line. The token that
# states the conclusion is then the one in that line; what the reasoning said before stays as it is.

# %%
PROTOCOLS = {
    "own": None,
    "probe": (PROBES[0], "\n\nFinal answer is", "."),
    "boxed_probe": (PROBES[1], "\n\nFinal answer is \\boxed{", "}."),
}


def under(protocol, problem):
    trace, forms = by_id[problem.id], PROTOCOLS[protocol]
    if forms is None:
        return trace
    (probe, stem, end), answer = forms, problem.answer
    if not stem.endswith("{"):
        # The answer is a word of its own, behind its article if it has one.
        article, answer = problem.meta.get("article", ""), " " + answer
        probe, stem = probe.format(article + "{}"), f"{stem} {article}".rstrip()
    return probed(trace, model.tokenizer, answer, probe, stem, end)


# %% [markdown]
# Nothing is padded: a pair whose traces cannot be aligned token by token is refused and counted. A
# pair is kept if the model tells its two sides apart (the logit differences of the clean and the
# corrupted trace are at least one nat apart) and by itself writes either answer, and if its
# conclusion is a single differing token in the reasoning.

# %%
ended = [pair for pair in problems if all(problem.id in by_id for problem in pair)]
read_as = {
    name: [tuple(under(name, side) for side in pair) for pair in ended]
    for name in PROTOCOLS
}
sifted = {name: sift(model, sides) for name, sides in read_as.items()}
kept = {name: found.kept for name, found in sifted.items()}
asked = {
    "pairs asked": len(problems),
    "left out: not ended": len(problems) - len(ended),
}
counts = {name: asked | found.counts for name, found in sifted.items()}
check_kept(counts, protocol)
pd.DataFrame(counts).rename_axis("protocol", axis=1)

# %% [markdown]
# ## One pair, every cell
#
# {term}`Patching <patch>` {cite:p}`zhang2024patching,heimersheim2024patching` the first pair that
# was kept. A cell says how much of the difference between the two answers
# comes back when the state of one token, before one layer, is taken from the clean trace: 0 is
# nothing, 1 is all.

# %%
recorded = kept[protocol][0]
pair = recorded.pair
tail = range(pair.flipping_position - 6, len(pair))
positions = sorted({*pair.differing_positions, *tail} & set(pair.alignment))
cells = patch_metrics(model, recorded, positions=positions)
figures.patch_grid(
    cells["effect"].values,
    cells["token"].values,
    cells["corrupted_token"].values,
    positions,
)

# %% [markdown]
# **Figure.** What patching one token's state before one layer restores in one pair of traces of
# `{{ model.name }}` (normalised logit difference; 0 nothing, 1 all). Where clean and corrupted
# token differ, the axis shows both in bold; hatched: tokens left out.

# %% [markdown]
# Every cell can be opened: click it, or go to it by the arrow keys, and it says what was patched
# and how probable both answers were before and after.

# %%
ids = {p.pair.problem_id for p in kept[protocol]}
told = [sides for sides in read_as[protocol] if sides[0].problem_id in ids]
patch_explorer(model, *zip(*told, strict=True))

# %% [markdown]
# **Figure.** To explore: the patch grid of the same pair in `{{ model.name }}`. For the chosen
# cell, what was patched, and both answers' probabilities before and after.

# %% [markdown]
# Look for the layer in which the weight passes from the token of the conclusion to the last one:
# there the answer has been read. Where a probability moves and the answer does not flip, the patch
# was felt and not enough.
#
# The effect divides a difference by another, so here is what lies beneath it for the token that
# states the conclusion: the clean answer's log-probability and rank (0: greedy decoding writes it)
# after the patch, and whether the answer has flipped.

# %%
stating = cells.sel(position=pair.flipping_position)
of_clean = stating.sel(answer="clean")
pd.DataFrame(
    {
        "effect": stating["effect"].values,
        "log-probability (nats)": of_clean["log_probability"].values,
        "rank": of_clean["rank"].values,
        "flip": stating["flip"].values,
    },
    index=pd.Index(cells["layer"].values, name="patched before layer"),
).round(3)

# %% [markdown]
# ## Many pairs, two curves
#
# The paper's two positions: the reasoning token whose change flips the answer, and the last token
# before the answer. The first matters as long as its content has not been read; the last from the
# layer on where it has been.

# %%
names = list(figures.CURVE_COLOURS)


def places(recorded):
    pair = recorded.pair
    return [pair.flipping_position, len(pair) - 1]


def curve(name, effects):
    """Mean and interval over pairs of effects [pair, layer]."""
    low, high = bootstrap_mean_intervals(effects, seed=seed)
    frame = {"curve": name, "layer": range(model.n_layers), "mean": effects.mean(0)}
    return pd.DataFrame(frame | {"ci_low": low, "ci_high": high})


def effects_of(measured):
    """[pair, layer, position]"""
    return np.stack([cells["effect"].values for cells in measured])


# %%
metrics = [patch_metrics(model, p, places(p)) for p in kept[protocol]]
effects = effects_of(metrics)
curves = pd.concat([curve(name, effects[..., i]) for i, name in enumerate(names)])
run.write_table("patching_curves", curves)
figures.layer_curves(curves)

# %% [markdown]
# **Figure.** Effect of patching before each layer in `{{ model.name }}`, mean over {{
# activation_patching.n }} pairs with 95 % intervals, for the reasoning token that states the
# conclusion and for the last token before the answer.

# %% [markdown]
# ## The other way round
#
# Denoising, above, asks what is enough to bring the clean answer back. Noising asks what the clean
# run cannot do without: the state of the corrupted trace is written into the clean one. A part
# that is enough but not needed, since something else stands in for it, shows only above.

# %%
noised = effects_of(
    [
        patch_metrics(model, p, places(p), direction="noising")
        for p in kept[protocol]
    ]
)
noising = pd.concat([curve(name, noised[..., i]) for i, name in enumerate(names)])
figures.layer_curves(noising, ylabel="Normalised logit difference lost")

# %% [markdown]
# **Figure.** What noising takes away before each layer in `{{ model.name }}`: the corrupted
# trace's state in the clean run, mean over the same pairs with 95 % intervals.

# %% [markdown]
# ## How often does the answer flip?
#
# The share of pairs in which greedy decoding now writes the other answer, at the layer where that
# happens most.

# %%
flips = np.stack([cells["flip"].values for cells in metrics])
rows = []
for i, name in enumerate(names):
    layer = int(flips[..., i].mean(0).argmax())
    hits, n = int(flips[:, layer, i].sum()), len(flips)
    rows.append(
        (f"{name}, before layer {layer}", hits / n, *wilson_interval(hits, n), n)
    )
flip_table = pd.DataFrame(rows, columns=["label", "rate", "ci_low", "ci_high", "n"])
figures.flips(flip_table)

# %% [markdown]
# **Figure.** Share of pairs in which `{{ model.name }}` writes the other answer after one token's
# state was patched, at the layer where that happens most, with Wilson's 95 % intervals.

# %% [markdown]
# ## How much of it is copying?
#
# With the paper's probe the answer repeats, word by word, a line that stands right before it. A
# model that only continues a repeated line shows the two curves as well. So here are the same
# problems under every protocol, with the mean effect before the first and before the last layer.
# What the protocols share does not hang on the probe; what only a probe shows may be copying. A
# probe whose token restores nothing was not read: the answer came from the reasoning before it,
# which states the same.

# %%
again = {protocol: effects}
for name, found in kept.items():
    if found and name != protocol:
        again[name] = effects_of(
            [patch_metrics(model, p, places(p)) for p in found]
        )
ends = {
    name: (
        len(e),
        e[:, 0, 0].mean(),
        e[:, -1, 0].mean(),
        e[:, 0, 1].mean(),
        e[:, -1, 1].mean(),
    )
    for name, e in again.items()
}
columns = pd.MultiIndex.from_tuples(
    [
        ("", "n"),
        *((name, end) for name in names for end in ("first layer", "last layer")),
    ]
)
by_protocol = pd.DataFrame(ends, index=columns).T.round(3)
by_protocol.rename_axis("protocol").astype({("", "n"): int})

# %%
others = [name for name in again if name != protocol]
compared = [
    curve(f"{name}, “{other}”", again[other][..., i])
    for other in others[:1]
    for i, name in enumerate(names)
]
figures.layer_curves(pd.concat([curves, *compared]))

# %% [markdown]
# **Figure.** The two curves of `{{ model.name }}` under this run's protocol (coloured) and under
# another one (grey), mean over pairs with 95 % intervals.

# %% [markdown]
# ## Controls
#
# The same two positions with something else in the donor's place:
#
# - **same_prompt**: the receiver's own state from a second run. Where it is the same bit for bit no
#   patch is run, so that its 0 is one by construction: it says that the run repeats itself. What a
#   patch that changes nothing does when it is run stands below the table, as the noise floor.
# - **wrong_position**: the clean token's state at a wrong place of the corrupted trace. It still
#   carries the clean name to whoever looks for a name.
# - **random_donor**: another pair's trace that concludes neither name, aligned from its end.
# - **same_answer**: likewise, but it concludes the receiver's own name: another trace's state that
#   carries no news of the answer.
# - **matched_noise**: noise as large as the real change.
#
# What erases the receiver's name without writing the clean one leaves neither preferred, an effect
# of about one half. Only beyond that does something write the clean answer.


# %%
def concluding(pair):
    """(ids, answer, tokens from the conclusion to the end), for both sides."""
    at, other = pair.flipping_position, pair.alignment[pair.flipping_position]
    clean = (pair.clean_ids, pair.answers[0], len(pair.clean_ids) - at)
    return [
        clean,
        (pair.corrupted_ids, pair.answers[1], len(pair.corrupted_ids) - other),
    ]


everything = [side for p in kept[protocol] for side in concluding(p.pair)]


def donors(pair, control):
    """Other pairs' ids whose conclusion stands as far from the end as the receiver's."""
    _, (ids, answer, reach) = concluding(pair)
    same = control == "same_answer"
    return [
        donor
        for donor, concluded, at in everything
        if at == reach
        and (concluded == answer if same else concluded not in pair.answers)
        and donor not in (pair.clean_ids, ids)
    ]


# %%
rng = np.random.default_rng(seed)


def controlled(recorded, seed):
    """The grid of each control that has a donor."""
    grids = {}
    for control in CONTROLS:
        options = {"seed": seed}
        if control in ("random_donor", "same_answer"):
            found = donors(recorded.pair, control)
            if not found:
                continue
            options["donor_ids"] = found[rng.integers(len(found))]
        # A donor that does not lead to the receiver's answer is refused.
        with suppress(ValueError):
            grids[control] = control_metrics(
                model, recorded, control, places(recorded), **options
            )
    return grids


# Each pair has noise of its own.
grids = [controlled(p, seed + i) for i, p in enumerate(kept[protocol])]
nulls = {}
for control in CONTROLS:
    found = [mine[control] for mine in grids if control in mine]
    nulls[control] = (
        effects_of(found) if found else np.empty((0, model.n_layers, 2))
    )

# %%
table = {}
for control, found in nulls.items():
    for i, name in enumerate(names if len(found) else ()):
        mean = found[..., i].mean(0)
        worst = int(np.abs(mean).argmax())
        table[control, name] = (
            len(found),
            worst,
            mean[worst],
            np.abs(found[..., i]).max(),
        )
columns = ["n", "layer of largest mean", "mean effect there", "largest in any pair"]
controls = pd.DataFrame(table, index=columns).T.astype({"n": int, columns[1]: int})
controls.rename_axis(["control", "position"]).round(3)

# %% [markdown]
# The noise floor: with every grid one patch is run that writes the receiver's own state into it.
# The largest effect of such a patch over the pairs, under this run's protocol:

# %%
noise_floor = max(float(cells.attrs["noise_floor"]) for cells in metrics)
f"{noise_floor:.1e} in {str(model.dtype).removeprefix('torch.')}"

# %% [markdown]
# Over the layers, at the token that states the conclusion:

# %%
shown = [
    c for c in ("random_donor", "same_answer", "matched_noise") if len(nulls[c])
]
at_conclusion = [
    curve(name.replace("_", " "), nulls[name][..., 0]) for name in shown
]
figures.layer_curves(pd.concat([curves[curves.curve == names[0]], *at_conclusion]))

# %% [markdown]
# **Figure.** The effect of the conclusion's token (coloured) beside that of other donors in its
# place (grey), by layer, mean over pairs with 95 % intervals.

# %% tags=["hide-input"]
third = slice(0, -(-model.n_layers // 3))
early = {
    name: again[name][:, third, 0].mean() if name in again else None
    for name in ("probe", "boxed_probe")
}
flipping, last = effects[..., 0].mean(0), effects[..., 1].mean(0)
crossing = int(np.argmax(last > flipping)) if (last > flipping).any() else None
run.write_record(
    "activation_patching",
    {
        "asked": len(problems),
        "refused": counts[protocol]["refused: cannot be aligned"],
        "n": len(kept[protocol]),
        "protocol": protocol,
        "flipping_first": flipping[0],
        "flipping_last": flipping[-1],
        "last_first": last[0],
        "last_last": last[-1],
        "noised_first": noised[..., 0].mean(0)[0],
        "others": [
            {
                "protocol": name,
                "n": len(again[name]),
                "first": again[name][:, 0, 0].mean(),
            }
            for name in others
        ],
        "crossing": crossing,
        "n_layers": model.n_layers,
        "flip_rate": flip_table.rate[0],
        "flip_low": flip_table.ci_low[0],
        "flip_high": flip_table.ci_high[0],
        "early_probe": early["probe"],
        "early_probe_n": len(kept["probe"]),
        "early_boxed_probe": early["boxed_probe"],
        "early_boxed_probe_n": len(kept["boxed_probe"]),
        "noise_floor": noise_floor,
        "dtype": str(model.dtype).removeprefix("torch."),
        "largest_control": controls[columns[2]].abs().max(),
        "same_answer_n": len(nulls["same_answer"]),
        "same_answer": np.abs(nulls["same_answer"].mean(0)).max()
        if len(nulls["same_answer"])
        else None,
    },
)

# %% [markdown]
# Over {{ activation_patching.n }} pairs, exchanging the one token that states the conclusion
# restores {{ activation_patching.flipping_first | number }} of the difference before layer 0 and
# {{ activation_patching.flipping_last | number }} before the last layer; the last token before
# the answer goes from {{ activation_patching.last_first | number }} to {{
# activation_patching.last_last | number }}.
# {% if activation_patching.crossing is not none %}The curves cross before layer
# {{ activation_patching.crossing }} of 0 to {{ activation_patching.n_layers - 1 }}.{% else %}The
# curves do not cross.{% endif %} Noising takes away {{ activation_patching.noised_first | number
# }} before layer 0. The answer flips in {{ activation_patching.flip_rate | percent
# }} of the pairs (interval {{ activation_patching.flip_low | percent }} to {{
# activation_patching.flip_high | percent }}). {% if activation_patching.others
# %}{% for other in activation_patching.others %}Under the protocol "{{ other.protocol }}"
# {{ other.n }} pairs are kept, and the same token restores {{ other.first | number }} before
# layer 0. {% endfor %}{% else %}Under no other protocol is a pair kept, so that copying cannot be
# told apart here.{% endif %}
#
# The largest mean effect of a control is {{ activation_patching.largest_control | number }}. A
# patch that changes nothing moves the answer by up to {{ "%.1e" |
# format(activation_patching.noise_floor) }} in {{ activation_patching.dtype }}{% if
# activation_patching.same_answer_n %}, and a state that concludes the receiver's own name moves
# the answer by at most {{ activation_patching.same_answer | number }} on average over {{
# activation_patching.same_answer_n }} pairs{% else %}; no pair has a donor that concludes its
# receiver's name{% endif %}.
#
# ## Is the gradient enough?
#
# {term}`Attribution patching <attribution patching>`
# {cite:p}`nanda2023attribution,syed2023attribution` estimates all cells at once from a gradient;
# `atp*` {cite:p}`kramar2024atp` drops each layer's gradient in turn, so that direct and indirect
# effects do not cancel. It is worth its price if the strongest cells of the exact grid are among
# its own strongest.

# %%
budgets = (10, 20)
points, scores = [], []
for recorded in kept[protocol][:n_attributed]:
    p = recorded.pair
    behind = sorted(
        {*p.differing_positions, *range(len(p) - 30, len(p))} & set(p.alignment)
    )
    exact = patch_metrics(model, recorded, behind)["effect"]
    for method in ("atp", "atp*"):
        guess = attribution_grid(model, recorded, behind, method=method)
        rho, recall = (
            rank_correlation(exact, guess),
            recall_at(exact, guess, budgets),
        )
        scores.append({"method": method, "Spearman": rho, **recall})
        if method == "atp":
            points.append(np.stack([exact.values.ravel(), guess.values.ravel()]))
quality = pd.DataFrame(scores).groupby("method").mean()
quality.rename(columns={k: f"recall of the top {k}" for k in budgets}).round(2)

# %% [markdown]
# Every cell of these pairs at the differing tokens and the last thirty, with the sign of the
# effect; the recalls are means over pairs. Cells far below the line are where the answer is already
# certain: a gradient sees the slope at one end, and the patch crosses the whole way.

# %%
exact, guess = np.concatenate(points, axis=1)
figures.approximate_against_exact(
    exact, guess, {k: quality.loc["atp", k] for k in budgets}
)

# %% [markdown]
# **Figure.** Attribution patching against exact patching in `{{ model.name }}`, a point a cell of
# the grids of {{ attribution_patching.n }} pairs; on the dotted line the estimate is exact.

# %% tags=["hide-input"]
run.write_record(
    "attribution_patching",
    {
        "n": len(points),
        "spearman": quality.loc["atp", "Spearman"],
        "recall": quality.loc["atp", 10],
        "spearman_star": quality.loc["atp*", "Spearman"],
        "recall_star": quality.loc["atp*", 10],
    },
)

# %% [markdown]
# Of the ten strongest cells of the exact grid the gradient finds {{
# attribution_patching.recall | percent }} (`atp*`: {{ attribution_patching.recall_star | percent
# }}); its ranks correlate with the exact ones at {{ attribution_patching.spearman | number }}
# (`atp*`: {{ attribution_patching.spearman_star | number }}).
#
# ## Beside the paper
#
# The mean effect of the answer-flipping token in the early layers of the real distills, for the
# paper's two probe sentences {cite:p}`zhang2025reasoning`, and in the first third of this run's
# layers. The rows differ in model, questions, and texts.

# %%
published = artefacts.published()
theirs = published["stage3_patching"]["mean_early_layer_effect"]
both = pd.DataFrame(
    {m: theirs[m] for m in published["models"]}, index=theirs["columns"]
).T
both.loc[f"{model.name} (this run)"] = list(early.values())
both.astype(float).round(2)

# %% [markdown]
# And the authors' own grid of their case 24, from their data.

# %%
folder = paper_data or os.environ.get(artefacts.DATA_VARIABLE)


def case_24(alias):
    case = artefacts.load_patching_case(folder, alias)
    tokens = case["clean_token"].values, case["corrupted_token"].values
    title = f"{case.attrs['model']}, the authors' case 24"
    return figures.patch_grid(
        case.values, *tokens, case["position"].values, title=title
    )


absent = "The folder is not given: here would stand case 24 of R1-Qwen-1.5B."
case_24("qwen-1p5B") if folder else Markdown(absent)

# %% [markdown]
# **Figure.** The authors' own patch grid of their case 24: what patching one token's state before
# one layer restores in R1-Qwen-1.5B.

# %% [markdown]
# The paper's two curves of that case beside ours. The authors end the reasoning with the line
# "Final answer is A.", and what they patch stands in it.


# %%
def by_depth(frame, n_layers):
    return frame.assign(layer=frame["layer"] / n_layers)


def curves_24(alias):
    case = artefacts.load_patching_case(folder, alias)
    differ = case["position"][case["clean_token"] != case["corrupted_token"]]
    n = case.sizes["layer"]
    lines = [
        pd.DataFrame({"curve": f"{case.attrs['model']}, {name}", "layer": range(n)})
        .assign(mean=case.sel(position=at).values, ci_low=np.nan, ci_high=np.nan)
        for name, at in zip(names, (differ[-1], case["position"][-1]), strict=True)
    ]  # fmt: skip
    both = [by_depth(curves, model.n_layers), by_depth(pd.concat(lines), n)]
    xlabel = "Patched at this share of the layers"
    return figures.layer_curves(pd.concat(both), xlabel=xlabel)


absent = (
    "The folder is not given: here would stand the curves of case 24 beside ours."
)
curves_24("qwen-1p5B") if folder else Markdown(absent)

# %% [markdown]
# **Figure.** The two curves of `{{ model.name }}` (coloured, means over pairs with 95 % intervals)
# beside those of the authors' case 24 in R1-Qwen-1.5B (grey, one case).

# %%
curves_24("qwen-7B") if folder else Markdown("")

# %% [markdown]
# **Figure.** The two curves of `{{ model.name }}` (coloured) beside those of the authors' case 24
# in R1-Qwen-7B (grey, one case).

# %% [markdown]
# A curve is high where the answer hangs on that token alone, and the place where the two cross is
# where its content has been read. A lower start says that other tokens carry the answer as well,
# in long reasonings most of all, which state it more than once. One case has no interval, and its
# texts are not ours.

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else. They use the bundled model, whatever model
# the run has.

# %%
from r2a_utils.models.hooks import architecture
from r2a_utils.teaching.checks import patching as workshop

toy_model, toy_pair = workshop.example_model(), workshop.example_pair()
print("clean:    ", "".join(toy_pair.tokens[-60:]))
print("corrupted:", "".join(toy_pair.corrupted_tokens[-60:]))

# %% [markdown]
# ### Exercise 5.1: The normalised logit difference
#
# Difficulty ●○○○○, importance ●●●●●, 10 minutes
#
# LD is the logit of the clean answer less that of the corrupted one. Given the logits [vocabulary]
# of the patched, the clean and the corrupted run and the ids of the two answers, return the
# {term}`normalised logit difference`: 0 where the patch changed nothing, 1 where it restored all.


# %% tags=["stub"]
def effect_of_patch(patched, clean, corrupted, clean_answer, corrupted_answer):
    """The normalised logit difference of three runs, from logits [vocabulary]."""
    raise NotImplementedError("three logit differences make one ratio.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Write LD as a function of one run's logits and call it three times.
# ```


# %% tags=["solution"]
def effect_of_patch(patched, clean, corrupted, clean_answer, corrupted_answer):
    """The normalised logit difference of three runs, from logits [vocabulary]."""

    def difference(logits):
        return logits[clean_answer] - logits[corrupted_answer]

    restored = difference(patched) - difference(corrupted)
    return restored / (difference(clean) - difference(corrupted))


# %% tags=["check"]
workshop.check_effect_of_patch(effect_of_patch)

# %% [markdown]
# **What you should see.** The check says that it is right; the next exercise puts it to use.
#
# **Comprehension.** Can the effect be larger than 1, or below 0? What if the gap in the
# denominator is small?
#
# ```{admonition} Answer
# :class: dropdown
#
# Yes to both: a patch can push the answer further than the clean run, or away from it. And where
# the model hardly tells the two sides of a pair apart, the ratio divides noise by nearly nothing.
# That is why this page screens pairs by their gap before it patches anything.
# ```

# %% [markdown]
# ### Exercise 5.2: A patch of your own
#
# Difficulty ●●●●○, importance ●●●●●, 25 minutes
#
# Run the model on `donor_ids` and take the residual stream at the *input* of one layer, at one
# position. Then run it on `receiver_ids` with that vector in the same place, and return the logits
# [vocabulary] after the last token.
#
# With nnsight a forward pass is a `with` block. What you read in it you keep with `.save()`; what
# you assign to replaces the model's own:
#
#     block = architecture(model).layers[layer]
#     with model.lm.trace(list(ids)):
#         vector = block.input[0, position].save()     # [hidden]
#         logits = model.lm.lm_head.output[0, -1].save()


# %% tags=["stub"]
def patched_logits(model, donor_ids, receiver_ids, layer, position):
    """The receiver's last logits, with the donor's state at (layer, position)."""
    raise NotImplementedError("one trace reads the donor, one writes the receiver.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Two `with` blocks. In the second, `block.input[0, position] = vector` overwrites that one
# position in place; read the logits after it, in the same block, as things come in the order in
# which the model computes them.
# ```


# %% tags=["solution"]
def patched_logits(model, donor_ids, receiver_ids, layer, position):
    """The receiver's last logits, with the donor's state at (layer, position)."""
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor_ids)):
        vector = block.input[0, position].save()
    with model.lm.trace(list(receiver_ids)):
        block.input[0, position] = vector
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


# %% tags=["check"]
workshop.check_patched_logits(patched_logits)

# %%
ids_of_pair = toy_pair.clean_ids, toy_pair.corrupted_ids
answers_of_pair = [answer[0] for answer in toy_pair.answers]
conclusion, last_token = toy_pair.flipping_position, len(toy_pair) - 1
own_runs = [  # a run that is patched with itself is a plain run
    patched_logits(toy_model, ids, ids, 0, last_token) for ids in ids_of_pair
]


def own_effect(layer, position):
    patched = patched_logits(toy_model, *ids_of_pair, layer, position)
    return float(effect_of_patch(patched, *own_runs, *answers_of_pair))


own_curves = {
    place: [own_effect(layer, at) for layer in range(toy_model.n_layers)]
    for place, at in (("conclusion", conclusion), ("last token", last_token))
}
pd.DataFrame(own_curves).rename_axis("patched before layer").round(2)

# %% [markdown]
# **What you should see.** The page's two curves, for one pair: the token that states the
# conclusion matters before the early layers and no longer before the late ones, and the last token
# the other way round. What the one loses the other gains: between those layers the conclusion is
# read.
#
# **Comprehension.** The conclusion's token restores nothing before the last layer. Has its
# information been deleted there?
#
# ```{admonition} Answer
# :class: dropdown
#
# No. It has been read. In the last layers the answer's position holds what it needs, so that
# exchanging the source changes nothing any more. A patch shows where information is *still
# needed*, not where it is.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That reasoning is more than a place to copy from.** A model that only copies the name in the
#   last sentence shows the same two curves. The next page asks further.
# - **That other tokens do not matter.** An effect below 1 means that the answer also hangs on
#   others, the question's word among them, which stays corrupted.
# - **That real distills behave so.** The pairs here are short and clean.
#
# ## What is missing
#
# By which way the content goes from the reasoning to the answer, whether the {term}`heads <head>`
# of stage 2 carry it, and whether it is more than copying: {doc}`the next page
# <06_head_interventions>` cuts.
