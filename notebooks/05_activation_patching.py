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
# ---

# %% [markdown]
# # Stage 3: does the answer depend on the reasoning?
#
# **Question.** If one reasoning token's state is exchanged for that of another trace, does the
# answer follow?
#
# **What you will see.** A {term}`patch grid` for one pair of traces, tokens × layers; the mean
# over many pairs of the two curves that the paper draws; how often the answer flips; and controls
# that must show nothing.
#
# **Before you start.** {doc}`Reasoning-Focus Heads <04_reasoning_focus_heads>` showed where the
# answer looks. Looking is not using.

# %% [markdown]
# ## Parameters
#
# `source` says where the traces of a pair come from: "model" lets the model write them, "written"
# puts the bundled world's texts before it (teacher forcing).

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_pairs = 100
source = "model"
seed = 0

# %%
import numpy as np
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.controls import control_metrics
from r2a_utils.generation import Sampling, collect_traces, teacher_forced
from r2a_utils.models import load_model
from r2a_utils.paper import published
from r2a_utils.patching import ContrastPair, patch_grid, patch_metrics, screen_pairs
from r2a_utils.statistics import bootstrap_mean_intervals, wilson_interval
from r2a_utils.tiny.world import contrast_problems, write_text

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)

# %% [markdown]
# ## Contrast pairs
#
# A {term}`contrast pair` is a clean and a corrupted trace that differ in one word of the question
# ("heaviest", "lightest") and in what follows from it. Nothing is padded: a pair whose traces
# cannot be aligned token by token is refused and counted.

# %%
problems = contrast_problems(n_pairs, seed)
backend = teacher_forced(model, write_text) if source == "written" else None
sides = [
    collect_traces(
        model,
        [pair[side] for pair in problems],
        path=run.completions_path(f"contrast_{name}"),
        sampling=Sampling(512),
        backend=backend,
        on_unfinished="drop",
    )
    for side, name in enumerate(("clean", "corrupted"))
]
by_id = {trace.problem_id: trace for traces in sides for trace in traces}

pairs, refused = [], []
for clean, corrupted in problems:
    try:
        pairs.append(ContrastPair.from_traces(by_id[clean.id], by_id[corrupted.id]))
    except (KeyError, ValueError) as reason:
        refused.append(str(reason))

# %% [markdown]
# A pair is kept if the model tells its two sides apart, by a stated rule on the logit
# differences, and if its conclusion is a single differing token in the reasoning.

# %%
screened = screen_pairs(model, pairs)
right = (screened.clean_rank == 0) & (screened.corrupted_rank == 0)
kept = [
    pair
    for pair, good in zip(pairs, screened.kept & right, strict=True)
    if good and pair.flipping_position is not None
]
pd.Series(
    {
        "pairs asked": len(problems),
        "refused: cannot be aligned": len(refused),
        "left out: too small a gap, or a wrong answer": len(pairs)
        - int((screened.kept & right).sum()),
        "kept": len(kept),
    },
    name="pairs",
)

# %% [markdown]
# ## One pair, every cell
#
# The first pair that was kept. A cell says how much of the difference between the two answers
# comes back when the state of one token, before one layer, is taken from the clean trace: 0 is
# nothing, 1 is all.

# %%
pair = kept[0]
first = pair.segments["reasoning"].start
positions = sorted({*pair.differing_positions, *range(pair.flipping_position - 6, len(pair))})
grid = patch_grid(model, pair, positions=positions)
plots.patch_grid(
    grid.values,
    [pair.tokens[p] for p in positions],
    [pair.corrupted_tokens[pair.alignment[p]] for p in positions],
    positions,
)

# %% [markdown]
# ## Many pairs, two curves
#
# The paper's two positions: the reasoning token whose change flips the answer, and the last token
# before the answer. The first matters as long as its content has not been read; the last from the
# layer on where it has been.

# %%
names = list(plots.CURVE_COLOURS)
metrics = [patch_metrics(model, p, positions=[p.flipping_position, len(p) - 1]) for p in kept]
effects = np.stack([m["effect"].values for m in metrics])  # [pair, layer, position]
flips = np.stack([m["flip"].values for m in metrics])
low, high = bootstrap_mean_intervals(effects, seed=seed)
curves = pd.concat(
    [
        pd.DataFrame(
            {
                "curve": name,
                "layer": range(model.n_layers),
                "mean": effects[:, :, i].mean(0),
                "ci_low": low[:, i],
                "ci_high": high[:, i],
            }
        )
        for i, name in enumerate(names)
    ]
)
run.write_table("patching_curves", curves)
plots.layer_curves(curves)

# %% [markdown]
# ## How often does the answer flip?
#
# The share of pairs in which greedy decoding now writes the other answer, at the layer where that
# happens most.

# %%
rows = []
for i, name in enumerate(names):
    layer = int(flips[:, :, i].mean(0).argmax())
    hits = int(flips[:, layer, i].sum())
    low_flip, high_flip = wilson_interval(hits, len(kept))
    rows.append((f"{name}, before layer {layer}", hits / len(kept), low_flip, high_flip, len(kept)))
flip_table = pd.DataFrame(rows, columns=["label", "rate", "ci_low", "ci_high", "n"])
plots.flips(flip_table)

# %% [markdown]
# ## Controls
#
# The same two positions with something else in the donor's place. The receiver's own state from a
# second run must change nothing at all. Noise as large as the real change can erase what the
# receiver's token says: then neither answer is preferred, which is an effect of about one half;
# only beyond that does something write the other answer. And the clean token's state at a wrong place of
# the corrupted trace still carries the clean name to whoever looks for a name.

# %%
controls = []
for control in ("same_prompt", "wrong_position", "matched_noise"):
    grids = [
        control_metrics(model, p, control, [p.flipping_position, len(p) - 1], seed=seed)["effect"]
        for p in kept
    ]
    stacked = np.stack([g.values for g in grids])
    for i, name in enumerate(names):
        mean = stacked[:, :, i].mean(0)
        worst = int(np.abs(mean).argmax())
        controls.append((control, name, worst, mean[worst], np.abs(stacked[:, :, i]).max()))
pd.DataFrame(
    controls,
    columns=[
        "control",
        "position",
        "layer of largest mean",
        "mean effect there",
        "largest in any pair",
    ],
).round(3)

# %%
flipping, last = effects[:, :, 0].mean(0), effects[:, :, 1].mean(0)
crossing = int(np.argmax(last > flipping)) if (last > flipping).any() else None
run.write_record(
    "activation_patching",
    {
        "asked": len(problems),
        "refused": len(refused),
        "n": len(kept),
        "flipping_first": flipping[0],
        "flipping_last": flipping[-1],
        "last_first": last[0],
        "last_last": last[-1],
        "crossing": crossing,
        "n_layers": model.n_layers,
        "flip_rate": flip_table.rate[0],
        "flip_low": flip_table.ci_low[0],
        "flip_high": flip_table.ci_high[0],
        "same_prompt": max(row[4] for row in controls if row[0] == "same_prompt"),
        "largest_control": max(abs(row[3]) for row in controls),
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
# curves do not cross.{% endif %} The answer flips in {{ activation_patching.flip_rate | percent
# }} of the pairs (interval {{ activation_patching.flip_low | percent }} to {{
# activation_patching.flip_high | percent }}). The largest mean effect of a control is {{
# activation_patching.largest_control | number }}; the receiver's own state changes exactly {{
# activation_patching.same_prompt | number(1) }}.
#
# ## Beside the paper
#
# The mean effect of the answer-flipping token in the early layers of the real distills, for the
# paper's two probe sentences {cite:p}`zhang2025reasoning`:

# %%
theirs = published()["stage3_patching"]["mean_early_layer_effect"]
pd.DataFrame({m: theirs[m] for m in published()["models"]}, index=theirs["columns"]).T

# %% [markdown]
# ## What this does not show
#
# - **That reasoning is more than a place to copy from.** A model that only copies the name in the
#   last sentence shows the same two curves. The next page asks further.
# - **That other tokens do not matter.** An effect below 1 means that the answer also hangs on
#   others, the question's word among them, which stays corrupted.
# - **That real distills behave so.** Pairs of the bundled world are short and clean.
