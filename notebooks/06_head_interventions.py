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
# # Stage 3: do the heads matter, and is it more than copying?
#
# **Question.** What happens to the answer when it can no longer look at the reasoning, or when
# the heads that look most are switched off? And where in the reasoning is the answer decided?
#
# **What you will see.** Attention from the answer to the reasoning removed layer by layer and head
# by head, against equally long random spans; Reasoning-Focus Heads cut and ablated, against random
# heads of the same layers; how often the model then writes another answer; and one trace on one
# page, five measures over its sentences.
#
# **Before you start.** {doc}`Activation patching <05_activation_patching>` showed on which token
# and in which layers the answer depends. Here the ways between them are cut.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_traces = 24
n_spans = 4
n_random_sets = 50
n_resampled = 30
seed = 0

# %%
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from r2a_utils import plots
from r2a_utils.arms import area_over_curve
from r2a_utils.artifacts import Run
from r2a_utils.attention import attention_rows
from r2a_utils.baselines import random_head_sets, random_spans
from r2a_utils.completions import read_traces
from r2a_utils.generation import Sampling
from r2a_utils.interventions import (
    Ablation,
    Knockout,
    answer_z,
    knockout_heads,
    knockout_profile,
    measure,
    regenerate,
)
from r2a_utils.models import load_model
from r2a_utils.problems import problems_from_table
from r2a_utils.sentence_importance import (
    answer_lens,
    forced_answers,
    resampled_answers,
    sentence_knockouts,
    shortened,
)
from r2a_utils.statistics import bootstrap_interval, bootstrap_mean_intervals, wilson_interval
from r2a_utils.traces import sentences

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))
answers = run.read_table("answers").query("condition == 'with_reasoning' and correct")
rfhs = run.read_table("reasoning_focus_heads")[["layer", "head"]]
rfhs = tuple(rfhs.itertuples(index=False, name=None))
crossing = run.read_record("activation_patching")["crossing"]

# %% [markdown]
# We take traces with a right answer; others serve as the pool from which an ablated head's state
# is resampled. An answer that restates the solution carries the result in its own words and need
# not look back. So the answers are cut down to "The answer is" and the boxed result; the model
# wrote the reasoning, and not these few words.

# %%
right = set(answers.problem_id)
written = [
    trace
    for trace in read_traces(run.completions_path("with_reasoning"), model.tokenizer, problems)
    if trace.problem_id in right
]
short = [shortened(trace, model.tokenizer) for trace in written[: 2 * n_traces]]
traces, others = short[:n_traces], short[n_traces:]
len(traces)

# %% [markdown]
# ## Cutting the way, layer by layer
#
# {term}`Knockout <knockout>` sets the attention edges from the answer's tokens to the reasoning to
# nothing, in a window of layers. If information passes there, the right answer becomes less likely.
# Two controls cut elsewhere: equally long random spans of the text before the answer, several a
# trace, and the prompt. The vertical line is where the curves of patching crossed.


# %%
def profile(name, keys, width):
    """Mean over traces of the mean over the key slices that `keys(trace)` gives."""
    rows = [
        np.mean([knockout_profile(model, t, ("answer", k), width).change for k in keys(t)], axis=0)
        for t in traces
    ]
    low, high = bootstrap_mean_intervals(np.stack(rows), seed=seed)
    frame = {"edges": name, "layer": range(model.n_layers), "effect": np.mean(rows, axis=0)}
    return pd.DataFrame(frame | {"ci_low": low, "ci_high": high, "width": width})


def spans(trace):
    reasoning = trace.segments["reasoning"]
    return random_spans(trace, reasoning.stop - reasoning.start, n_spans, seed)


def profiles(width):
    parts = [
        profile("answer → reasoning", lambda t: [t.segments["reasoning"]], width),
        profile("answer → random spans of that length", spans, width),
        profile("answer → prompt", lambda t: [t.segments["prompt"]], width),
    ]
    return pd.concat(parts, ignore_index=True)


single = profiles(1)
plots.knockout_profile(single, crossing=crossing)

# %% [markdown]
# A random span as long as the reasoning overlaps it wherever the reasoning fills most of the trace,
# so that this control is a hard one. Windows of three layers, which leave less room for a detour:

# %%
wide = profiles(3)
run.write_table("knockout_profile", pd.concat([single, wide], ignore_index=True))
plots.knockout_profile(wide, crossing=crossing)

# %% [markdown]
# ## Head by head
#
# The same edges taken from one head at a time, mean over traces, with the Reasoning-Focus Heads
# marked. If looking were using, the marked heads would be the dark ones.

# %%
lost = -np.mean([knockout_heads(model, trace) for trace in traces], axis=0)
plots.head_maps(
    {"answer → reasoning cut in one head": lost},
    {"reasoning-focus head": rfhs},
    quantity="Log-probability lost (nats)",
)

# %% [markdown]
# ## Sets of heads
#
# All Reasoning-Focus Heads at once: their edges to the reasoning cut, or their output before the
# output projection set to zero, to its mean over other traces' answers, or to that of a random
# other answer token. Each stands against sets of random heads that sit in the same layers.

# %%
pool = answer_z(model, others)
sets = [rfhs, *random_head_sets(rfhs, model.n_heads, n_random_sets, seed)]
ways = {"knockout": [Knockout(heads=s) for s in sets]}
ways |= {m: [Ablation(s, m) for s in sets] for m in ("zero", "mean", "resample")}
changes = {}  # way → [set], the RFHs first
for way, interventions in ways.items():
    measured = [measure(model, t, interventions, pool=pool, seed=seed).change for t in traces]
    changes[way] = np.mean(measured, axis=0)
effects_of_sets = pd.DataFrame(
    {
        "reasoning-focus heads": {w: c[0] for w, c in changes.items()},
        "random sets, mean": {w: c[1:].mean() for w, c in changes.items()},
        "random sets, 5 %": {w: np.quantile(c[1:], 0.05) for w, c in changes.items()},
        "random sets, 95 %": {w: np.quantile(c[1:], 0.95) for w, c in changes.items()},
        "p": {w: (1 + (c[1:] <= c[0]).sum()) / len(c) for w, c in changes.items()},
    }
).rename_axis("change of log-probability (nats)")
run.write_table("head_sets", effects_of_sets.reset_index())
effects_of_sets.round(3)

# %% [markdown]
# ## Another answer?
#
# A log-probability can move and the answer stay. Here the model writes its answer again, freely,
# from behind `</think>`, with the heads resampled.

# %%
compared = sets[1:6]
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
reasoning_cut = single[single.edges == "answer → reasoning"]
strongest = reasoning_cut.loc[reasoning_cut.effect.idxmin()]
run.write_record(
    "head_interventions",
    {
        "n": len(traces),
        "strongest_layer": int(strongest.layer),
        "strongest_change": strongest.effect,
        "strongest_random": single.effect[single.edges.str.contains("random")].min(),
        "knockout": changes["knockout"][0],
        "knockout_random": changes["knockout"][1:].mean(),
        "knockout_p": effects_of_sets.p["knockout"],
        "zero": changes["zero"][0],
        "zero_random": changes["zero"][1:].mean(),
        "zero_p": effects_of_sets.p["zero"],
        "resample": changes["resample"][0],
        "resample_random": changes["resample"][1:].mean(),
        "resample_p": effects_of_sets.p["resample"],
        "smallest_p": effects_of_sets.p.min(),
        "flip_rfh": flips.rate[0],
        "flip_random": flips.rate[1],
        "n_random_sets": n_random_sets,
        "top_head_lost": float(lost.max()),
        "top_head": plots.head_name(*np.unravel_index(lost.argmax(), lost.shape)),
        "top_is_rfh": tuple(map(int, np.unravel_index(lost.argmax(), lost.shape))) in rfhs,
    },
)

# %% [markdown]
# Cutting the way to the reasoning in one layer hurts most in layer {{
# head_interventions.strongest_layer }}: the right answer's log-probability changes by {{
# head_interventions.strongest_change | number }} nats (random spans at most {{
# head_interventions.strongest_random | number }}). Of single heads {{ head_interventions.top_head
# }} costs most, {{ head_interventions.top_head_lost | number }} nats; it is {% if not
# head_interventions.top_is_rfh %}not {% endif %}a Reasoning-Focus Head. All Reasoning-Focus Heads
# cut change it by {{ head_interventions.knockout | number }} nats, {{
# head_interventions.n_random_sets }} random sets of the same layers on average by {{
# head_interventions.knockout_random | number }} ({{ head_interventions.knockout_p | p_value }});
# resampled by {{ head_interventions.resample | number }} against {{
# head_interventions.resample_random | number }} ({{ head_interventions.resample_p | p_value }}).
# {% if head_interventions.smallest_p > 0.05 %}None of the four ways tells these heads from random
# ones of their layers: a null result.{% endif %} Freely rewritten, {{ head_interventions.flip_rfh
# | percent }} of the answers change or are lost with the Reasoning-Focus Heads resampled, {{
# head_interventions.flip_random | percent }} with random heads.
#
# ## More than copying?
#
# A model may decide its answer step by step, or copy it from the last sentence. Five measures of
# one trace over its sentences bear on it, none alone:
#
# - **read**: attention of the answer, mean over the Reasoning-Focus Heads;
# - **lens**: the answer's log-probability when the residual stream at the sentence's end is
#   unembedded, by layer ({term}`logit lens`);
# - **forced**: the reasoning stops after the sentence and the answer is forced; a filled point is
#   an answer that greedy decoding writes;
# - **resampled**: the reasoning is written on by sampling; the share that ends in the same answer,
#   with Wilson's 95 % interval;
# - **knocked out**: the answer's tokens cannot look at the sentence; black: 5 to 95 % of equally
#   long random spans.
#
# The trace is the one whose count of sentences is closest to ten.


# %%
def read_by_sentence(trace):
    rows = attention_rows(model, trace, rfhs).mean(("head", "query")).values
    return [float(rows[span].sum()) for span in sentences(trace)]


example = min(traces, key=lambda t: abs(len(sentences(t)) - 10))
resampled = resampled_answers(
    model, example, sampling=Sampling(256, temperature=1.0, seed=seed), samples=n_resampled
)
forced, knocked = forced_answers(model, example), sentence_knockouts(model, example, seed=seed)
lens = answer_lens(model, example)["log_probability"].values[:, :-1]
plots.sentence_page(
    ["".join(example.tokens[span]) for span in sentences(example)],
    read_by_sentence(example),
    lens,
    forced,
    resampled,
    knocked,
    title=example.problem_id,
)

# %% [markdown]
# One trace is an anecdote. Over all traces: how much of the reasoning a forced answer needs (0: it
# comes at once, 1: only at the end), and whether the sentences that are read more are those whose
# knockout costs more.


# %%
def needed_share(trace):
    forced = forced_answers(model, trace)
    forced["fraction"] = forced["sentences"] / forced["sentences"].max()
    forced = forced.rename(columns={"written": "same_as_full"})
    return area_over_curve(forced.assign(problem_id=trace.problem_id)).item()


needed = np.array([needed_share(trace) for trace in traces])
agreement, last_strongest = [], []
for trace in traces:
    cost = -sentence_knockouts(model, trace, spans=1, seed=seed)["change"]
    agreement.append(spearmanr(read_by_sentence(trace), cost)[0])
    last_strongest.append(cost.argmax() == len(cost) - 1)
agreement = np.array(agreement)[np.isfinite(agreement)]
low, high = bootstrap_interval(agreement, seed=seed)
needed_low, needed_high = bootstrap_interval(needed, seed=seed)
hits = int(sum(last_strongest))
summary = pd.DataFrame(
    {
        "share of the reasoning that a forced answer needs": (
            needed.mean(),
            needed_low,
            needed_high,
        ),
        "rank correlation of read and knocked out": (agreement.mean(), low, high),
        "traces in which the last sentence costs most": (
            hits / len(traces),
            *wilson_interval(hits, len(traces)),
        ),
    },
    index=["mean", "95 % from", "to"],
).T
summary.round(2)

# %%
run.write_record(
    "sentence_importance",
    {
        "n": len(traces),
        "needed": needed.mean(),
        "agreement": agreement.mean(),
        "agreement_low": low,
        "agreement_high": high,
        "last_strongest": hits / len(traces),
        "first_share": resampled["share"].iloc[0],
        "last_share": resampled["share"].iloc[-1],
        "samples": n_resampled,
    },
)

# %% [markdown]
# A forced answer needs {{ sentence_importance.needed | percent }} of the reasoning, on average over
# {{ sentence_importance.n }} traces: {% if sentence_importance.needed > 0.5 %}forced
# earlier it is mostly another{% else %}it is often known early{% endif %}. In the trace above {{
# sentence_importance.first_share | percent }} of the continuations end in its answer before any
# sentence and {{ sentence_importance.last_share | percent }} after all. In {{
# sentence_importance.last_strongest | percent }} of the traces the answer depends most on the last
# sentence: to the answer itself, {% if sentence_importance.last_strongest > 0.5 %}copying from the
# end is the larger part{% else %}the end is not all that counts{% endif %}. What is read and what
# is needed correlate at {{ sentence_importance.agreement | number }} (interval {{
# sentence_importance.agreement_low | number }} to {{ sentence_importance.agreement_high | number
# }}){% if sentence_importance.agreement_low < 0 %}, which may be nothing{% endif %}.
#
# ## What this does not show
#
# - **That heads are the right unit.** A head set is a blunt cut, and other heads can step in.
# - **That random spans are a null for everything.** They say what cutting as much text does, not
#   what cutting as much *meaning* does.
# - **An independent sample.** The heads were ranked on traces of the same run; the ranking's
#   split-half reliability says how little that matters for the list, not for the effect.
# - **What a sentence causes.** A knocked-out sentence may live on in later ones, and a forced
#   answer is one that the model had not begun.
