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
# # Stage 3: do the heads matter?
#
# **Question.** What happens to the answer when it can no longer look at the reasoning, or when
# the heads that look most are switched off?
#
# **What you will see.** Attention from the answer to the reasoning removed layer by layer,
# against equally long random spans; Reasoning-Focus Heads ablated, against random heads of the
# same layers; and how often the model then writes another answer.
#
# **Before you start.** {doc}`Activation patching <05_activation_patching>` showed on which token
# and in which layers the answer depends. Here the ways between them are cut.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_traces = 40
window = 1
n_random_sets = 50
seed = 0

# %%
import numpy as np
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.baselines import random_head_sets, random_spans
from r2a_utils.completions import read_traces
from r2a_utils.interventions import Ablation, answer_z, knockout_profile, measure, regenerate
from r2a_utils.models import load_model
from r2a_utils.problems import problems_from_table
from r2a_utils.statistics import bootstrap_mean_intervals, wilson_interval

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))
answers = run.read_table("answers").query("condition == 'with_reasoning' and correct")
rfhs = run.read_table("reasoning_focus_heads")[["layer", "head"]]
rfhs = tuple(rfhs.itertuples(index=False, name=None))

# %% [markdown]
# We take traces with a right answer; others serve as the pool from which an ablated head's state
# is resampled.

# %%
right = set(answers.problem_id)
traces = [
    trace
    for trace in read_traces(run.completions_path("with_reasoning"), model.tokenizer, problems)
    if trace.problem_id in right
]
traces, others = traces[:n_traces], traces[n_traces : 2 * n_traces]
len(traces)

# %% [markdown]
# ## Cutting the way, layer by layer
#
# {term}`Knockout <knockout>` sets the attention edges from the answer's tokens to the reasoning to
# nothing, in a window of layers. If information passes there, the right answer becomes less likely. Two
# controls cut as much elsewhere: an equally long random span of the text before the answer, and
# the prompt.


# %%
def profiles(name, keys):
    rows = [
        knockout_profile(model, trace, ("answer", keys(trace)), width=window).change
        for trace in traces
    ]
    low, high = bootstrap_mean_intervals(np.stack(rows), seed=seed)
    frame = {"edges": name, "layer": range(model.n_layers), "effect": np.mean(rows, axis=0)}
    return pd.DataFrame(frame | {"ci_low": low, "ci_high": high})


def random_span(trace):
    reasoning = trace.segments["reasoning"]
    return random_spans(trace, reasoning.stop - reasoning.start, 1, seed)[0]


knocked = pd.concat(
    [
        profiles("answer → reasoning", lambda trace: trace.segments["reasoning"]),
        profiles("answer → random span of that length", random_span),
        profiles("answer → prompt", lambda trace: trace.segments["prompt"]),
    ],
    ignore_index=True,
)
run.write_table("knockout_profile", knocked)
plots.knockout_profile(knocked)

# %% [markdown]
# A random span as long as the reasoning overlaps it wherever the reasoning fills most of the
# trace, so that this control is a hard one: what remains between the first two lines is what the
# reasoning's own borders add.
#
# ## Switching heads off
#
# Three ways of ablation: the heads' output before the output projection is set to zero, to its
# mean over other traces' answers, or to that of a random other answer token. Each stands against
# sets of random heads that sit in the same layers.

# %%
pool = answer_z(model, others)
random_sets = random_head_sets(rfhs, model.n_heads, n_random_sets, seed)
changes = {}
for method in ("zero", "mean", "resample"):
    sets = [rfhs, *random_sets]
    measured = [
        measure(model, t, [Ablation(s, method) for s in sets], pool=pool, seed=seed).change
        for t in traces
    ]
    changes[method] = np.mean(measured, axis=0)  # [set]: the RFHs first
ablation = pd.DataFrame(
    {
        "reasoning-focus heads": {m: c[0] for m, c in changes.items()},
        "random sets, mean": {m: c[1:].mean() for m, c in changes.items()},
        "random sets, 5 %": {m: np.quantile(c[1:], 0.05) for m, c in changes.items()},
        "p": {m: (1 + (c[1:] <= c[0]).sum()) / len(c) for m, c in changes.items()},
    }
).rename_axis("change of log-probability (nats)")
ablation.round(3)

# %% [markdown]
# ## Another answer?
#
# A log-probability can move and the answer stay. Here the model writes its answer again, freely,
# from behind `</think>`, with the heads resampled.

# %%
compared = random_sets[:5]
rewritten = [
    regenerate(
        model,
        trace,
        [Ablation(s, "resample") for s in (rfhs, *compared)],
        max_new_tokens=96,
        pool=pool,
        seed=seed,
    )
    for trace in traces
]
turned = np.stack([(frame.flip | frame.lost).to_numpy() for frame in rewritten])  # [trace, set]
labels = [
    f"top {len(rfhs)} reasoning-focus heads",
    f"{len(compared)} random sets of the same layers",
]
hits = [(int(turned[:, 0].sum()), len(turned)), (int(turned[:, 1:].sum()), turned[:, 1:].size)]
flips = pd.DataFrame(
    [(label, k / n, *wilson_interval(k, n), n) for label, (k, n) in zip(labels, hits, strict=True)],
    columns=["label", "rate", "ci_low", "ci_high", "n"],
)
plots.flips(flips)

# %%
strongest = knocked.loc[knocked[knocked.edges == "answer → reasoning"].effect.idxmin()]
run.write_record(
    "head_interventions",
    {
        "n": len(traces),
        "strongest_layer": int(strongest.layer),
        "strongest_change": strongest.effect,
        "zero": changes["zero"][0],
        "zero_random": changes["zero"][1:].mean(),
        "zero_p": ablation.p["zero"],
        "resample": changes["resample"][0],
        "resample_random": changes["resample"][1:].mean(),
        "resample_p": ablation.p["resample"],
        "flip_rfh": flips.rate[0],
        "flip_random": flips.rate[1],
        "n_random_sets": n_random_sets,
    },
)

# %% [markdown]
# Cutting the way to the reasoning hurts most in layer {{ head_interventions.strongest_layer }}:
# the right answer's log-probability changes by {{ head_interventions.strongest_change | number }}
# nats. Resampling the Reasoning-Focus Heads changes it by {{ head_interventions.resample | number
# }} nats, {{ head_interventions.n_random_sets }} random sets of the same layers on average by {{
# head_interventions.resample_random | number }} ({{ head_interventions.resample_p | p_value }}).
# Freely rewritten, {{ head_interventions.flip_rfh | percent }} of the answers change or are lost
# with the Reasoning-Focus Heads resampled, {{ head_interventions.flip_random | percent }} with
# random heads.
#
# ## What this does not show
#
# - **That heads are the right unit.** A head set is a blunt cut, and other heads can step in.
# - **That random spans are a null for everything.** They say what cutting as much text does, not
#   what cutting as much *meaning* does.
# - **An independent sample.** The heads were ranked on traces of the same run; the ranking's
#   split-half reliability says how little that matters for the list, not for the effect.
