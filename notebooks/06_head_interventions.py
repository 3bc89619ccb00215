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
# **Question.** What happens to the answer when it can no longer look at the reasoning, or when the
# {term}`heads <head>` that look most are switched off? And where in the reasoning is the answer
# decided?
#
# **What you will see.** Attention from the answer to the reasoning removed layer by layer and head
# by head, against equally long random spans; {term}`Reasoning-Focus Heads <RFH>` cut and
# {term}`ablated <ablation>`, against random heads of the same layers; how often the model then
# writes another answer; and one {term}`trace` on one page, five measures over its sentences.
#
# **What we know so far.** {doc}`Activation patching <05_activation_patching>` showed on which
# {term}`token` and in which layers the answer depends. Here the ways between them are cut.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_traces = 24
n_spans = 4
n_random_sets = 50
n_resampled = 30
resampled_tokens = 256
seed = 0

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import spearmanr

from r2a_utils import plots
from r2a_utils.arms import area_over_curve
from r2a_utils.artifacts import Run
from r2a_utils.attention import attention_rows
from r2a_utils.baselines import random_head_sets, random_spans
from r2a_utils.completions import read_completions, read_traces
from r2a_utils.explorers import trace_explorer
from r2a_utils.generation import Sampling
from r2a_utils.grading import grade_completions
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
from r2a_utils.statistics import (
    bootstrap_interval,
    bootstrap_mean_intervals,
    holm,
    wilson_interval,
)
from r2a_utils.traces import sentences

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))
rfhs = run.read_table("reasoning_focus_heads")[["layer", "head"]]
rfhs = tuple(rfhs.itertuples(index=False, name=None))
crossing = run.read_record("activation_patching")["crossing"]

# %% [markdown]
# We take traces with a right answer; others serve as the pool from which an ablated head's state
# is resampled. An answer that restates the solution carries the result in its own words and need
# not look back. So the answers are cut down to "The answer is" and the boxed result; these few
# words are ours, whoever wrote the reasoning.

# %%
path = run.completions_path("with_reasoning")
answers = grade_completions(read_completions(path), problems)
right = set(answers.problem_id[answers.correct])
written = [
    trace
    for trace in read_traces(path, model.tokenizer, problems)
    if trace.problem_id in right
]
short = [shortened(trace, model.tokenizer) for trace in written[: 2 * n_traces]]
traces, others = short[:n_traces], short[n_traces:]
len(traces)

# %% [markdown]
# ## Cutting the way, layer by layer
#
# {term}`Knockout <knockout>` {cite:p}`geva2023recall` sets the attention edges from the answer's
# tokens to the reasoning to nothing, in a window of layers. If information passes there, the right
# answer becomes less likely. Two controls cut elsewhere: equally long random spans of the text
# before the answer, several a trace, and the prompt. The vertical line is where the curves of
# {term}`patching <patch>` crossed.


# %%
WAYS = (
    "answer → reasoning",
    "answer → random spans of that length",
    "answer → prompt",
)


def cut(trace, width):
    """Change of the answer's log-probability [way, layer], the random spans' mean."""
    reasoning, prompt = trace.segments["reasoning"], trace.segments["prompt"]
    spans = random_spans(trace, reasoning.stop - reasoning.start, n_spans, seed)
    edges = [("answer", keys) for keys in (reasoning, prompt, *spans)]
    change = knockout_profile(model, trace, edges, width)["change"].to_numpy()
    change = change.reshape(len(edges), model.n_layers)
    return change[0], change[2:].mean(axis=0), change[1]


def profiles(width):
    """Means over traces with their intervals."""
    changes, parts = np.array([cut(trace, width) for trace in traces]), []
    for i, way in enumerate(WAYS):
        low, high = bootstrap_mean_intervals(changes[:, i], seed=seed)
        frame = {"layer": range(model.n_layers), "effect": changes[:, i].mean(0)}
        parts.append(
            pd.DataFrame({"edges": way} | frame | {"ci_low": low, "ci_high": high})
        )
    return pd.concat(parts, ignore_index=True).assign(width=width)


single = profiles(1)
plots.knockout_profile(single, crossing=crossing)

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when the answer's
# tokens cannot look at the reasoning (coloured), at random spans of that length or at the prompt
# (grey), one layer at a time; mean over {{ head_interventions.n }} traces with 95 % intervals.

# %% [markdown]
# A random span as long as the reasoning overlaps it wherever the reasoning fills most of the trace,
# so that this control is a hard one. Windows of three layers, which leave less room for a detour:

# %%
wide = profiles(3)
run.write_table("knockout_profile", pd.concat([single, wide], ignore_index=True))
plots.knockout_profile(wide, crossing=crossing)

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when attention from
# the answer to the reasoning (coloured), to random spans or to the prompt (grey) is cut in three
# neighbouring layers at once; a point stands at the middle one.

# %% [markdown]
# ## Head by head
#
# The same edges taken from one head at a time, mean over traces, with the Reasoning-Focus Heads
# marked. If looking were using, the marked heads would be the bright ones.

# %%
lost = -np.mean([knockout_heads(model, trace) for trace in traces], axis=0)
plots.head_maps(
    {"answer → reasoning cut in one head": lost},
    {"reasoning-focus head": rfhs},
    quantity="Log-probability lost (nats)",
)

# %% [markdown]
# **Figure.** Log-probability that the right answer of `{{ model.name }}` loses when one head
# alone cannot look from the answer to the reasoning, by layer and head, mean over traces; squares
# mark the Reasoning-Focus Heads.

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
every = [
    intervention
    for interventions in ways.values()
    for intervention in interventions
]
measured = [measure(model, t, every, pool=pool, seed=seed).change for t in traces]
# way → [set], the RFHs first
changes = dict(
    zip(ways, np.mean(measured, axis=0).reshape(len(ways), -1), strict=True)
)
effects_of_sets = pd.DataFrame(
    {
        "reasoning-focus heads": {w: c[0] for w, c in changes.items()},
        "random sets, mean": {w: c[1:].mean() for w, c in changes.items()},
        "random sets, 5 %": {
            w: np.quantile(c[1:], 0.05) for w, c in changes.items()
        },
        "random sets, 95 %": {
            w: np.quantile(c[1:], 0.95) for w, c in changes.items()
        },
        "p": {w: (1 + (c[1:] <= c[0]).sum()) / len(c) for w, c in changes.items()},
    }
).rename_axis("change of log-probability (nats)")
run.write_table("head_sets", effects_of_sets.reset_index())
effects_of_sets.round(3)

# %% [markdown]
# ## Another answer?
#
# A log-probability can move and the answer stay. Here the model writes its answer again, freely,
# from behind `</think>`, with the heads resampled. Counted are the traces to which it writes an
# answer in a box when nothing is resampled.

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
boxed = [frame for frame in rewritten if frame.unaltered.notna().all()]
turned = np.array([frame.flip | frame.lost for frame in boxed])  # [trace, set]
turned = turned.reshape(len(boxed), 1 + len(compared))
labels = [
    f"top {len(rfhs)} reasoning-focus heads",
    f"{len(compared)} random sets of the same layers",
]
hits = [
    (int(turned[:, 0].sum()), len(turned)),
    (int(turned[:, 1:].sum()), turned[:, 1:].size),
]
flips = pd.DataFrame(
    [
        (label, k / n, *wilson_interval(k, n), n)
        for label, (k, n) in zip(labels, hits, strict=True)
        if n
    ],
    columns=["label", "rate", "ci_low", "ci_high", "n"],
)
absent = (
    "The model boxes no answer of its own: here would stand how often it changes."
)
plots.flips(flips) if boxed else Markdown(absent)

# %% [markdown]
# **Figure.** Share of answers that change or are lost when `{{ model.name }}` writes them again
# with the Reasoning-Focus Heads' outputs resampled, and with those of random heads of the same
# layers, with Wilson's 95 % intervals.

# %% tags=["hide-input"]
reasoning_cut = single[single.edges == "answer → reasoning"]
strongest = reasoning_cut.loc[reasoning_cut.effect.idxmin()]
run.write_record(
    "head_interventions",
    {
        "n": len(traces),
        "strongest_layer": int(strongest.layer),
        "strongest_change": strongest.effect,
        "strongest_random": single.effect[
            single.edges.str.contains("random")
        ].min(),
        "knockout": changes["knockout"][0],
        "knockout_random": changes["knockout"][1:].mean(),
        "knockout_p": effects_of_sets.p["knockout"],
        "zero": changes["zero"][0],
        "zero_random": changes["zero"][1:].mean(),
        "zero_p": effects_of_sets.p["zero"],
        "resample": changes["resample"][0],
        "resample_random": changes["resample"][1:].mean(),
        "resample_p": effects_of_sets.p["resample"],
        "smallest_p": holm(effects_of_sets.p).min(),
        "flip_n": len(boxed),
        "flip_rfh": flips.rate[0] if boxed else None,
        "flip_random": flips.rate[1] if boxed else None,
        "n_random_sets": n_random_sets,
        "top_head_lost": float(lost.max()),
        "top_head": plots.head_name(*np.unravel_index(lost.argmax(), lost.shape)),
        "top_is_rfh": tuple(map(int, np.unravel_index(lost.argmax(), lost.shape)))
        in rfhs,
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
# {% if head_interventions.smallest_p > 0.05 %}With Holm's correction for four ways, none of them
# tells these heads from random ones of their layers: a null result.{% endif %} {% if
# head_interventions.flip_n %}Freely rewritten, {{ head_interventions.flip_rfh | percent }} of {{
# head_interventions.flip_n }} answers change or are lost with the Reasoning-Focus Heads resampled,
# {{ head_interventions.flip_random | percent }} with random heads.{% else %}Left to itself the
# model writes no answer in a box after these traces, so that there is none to change.{% endif %}
#
# ## More than copying?
#
# A model may decide its answer step by step, or copy it from the last sentence. Five measures of
# one trace over its sentences bear on it, none alone:
#
# - **read**: attention of the answer, mean over the Reasoning-Focus Heads;
# - **lens**: the answer's log-probability when the residual stream at the sentence's end is
#   unembedded, by layer ({term}`logit lens`, {cite:p}`nostalgebraist2020lens`);
# - **forced**: the reasoning stops after the sentence and the answer is forced
#   {cite:p}`lanham2023faithfulness`; a filled point is an answer that greedy decoding writes;
# - **resampled** {cite:p}`bogdan2025anchors`: the reasoning is written on by sampling; the share
#   that ends in the same answer, with Wilson's 95 % interval;
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
    model,
    example,
    sampling=Sampling(resampled_tokens, temperature=1.0, seed=seed),
    samples=n_resampled,
)
forced, knocked = (
    forced_answers(model, example),
    sentence_knockouts(model, example, seed=seed),
)
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
# **Figure.** One trace of `{{ model.name }}`, five measures over its sentences: what the answer
# reads, when the answer can be read off the states, when it is written if forced, when resampled
# continuations end in it, and what it loses when a sentence is knocked out.

# %% [markdown]
# And the same trace to explore: what each token of its short answer reads.

# %%
trace_explorer(model, [example, *(t for t in traces if t is not example)], rfhs)

# %% [markdown]
# **Figure.** To explore: the trace from above in `{{ model.name }}`, shaded by what its answer
# reads through the Reasoning-Focus Heads, one of them, or by what they give to each written token.

# %% [markdown]
# One trace is an anecdote. Over all traces: how much of the reasoning a forced answer needs (0: it
# comes at once, 1: only at the end) where the whole of it leads to the answer, and whether the
# sentences that are read more are those whose knockout costs more.


# %%
def needed_share(trace):
    """Of the reasoning; NaN where the answer is not written even after all of it."""
    forced = forced_answers(model, trace)
    if not forced["written"].iloc[-1]:
        return np.nan
    forced["fraction"] = forced["sentences"] / forced["sentences"].max()
    forced = forced.rename(columns={"written": "same_as_full"})
    return area_over_curve(forced.assign(problem_id=trace.problem_id)).item()


needed = np.array([needed_share(trace) for trace in traces])
needed = needed[np.isfinite(needed)]
agreement, last_strongest = [], []
for trace in traces:
    cost = -sentence_knockouts(model, trace, spans=1, seed=seed)["change"]
    agreement.append(spearmanr(read_by_sentence(trace), cost)[0])
    last_strongest.append(cost.argmax() == len(cost) - 1)
agreement = np.array(agreement)[np.isfinite(agreement)]
low, high = bootstrap_interval(agreement, seed=seed)
needed_low, needed_high = (
    bootstrap_interval(needed, seed=seed) if len(needed) else (np.nan, np.nan)
)
hits = int(sum(last_strongest))
summary = pd.DataFrame(
    {
        "share of the reasoning that a forced answer needs": (
            needed.mean() if len(needed) else np.nan,
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

# %% tags=["hide-input"]
run.write_record(
    "sentence_importance",
    {
        "n": len(traces),
        "needed_n": len(needed),
        "needed": needed.mean() if len(needed) else None,
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
# {% if sentence_importance.needed_n %}A forced answer needs {{ sentence_importance.needed | percent
# }} of the reasoning, on average over the {{ sentence_importance.needed_n }} of {{
# sentence_importance.n }} traces after which it is written at all: {% if
# sentence_importance.needed > 0.5 %}forced earlier it is mostly another{% else %}it is often known
# early{% endif %}.{% else %}After none of the traces does the model write the forced answer, though
# it has read all of the reasoning.{% endif %} In the trace above {{
# sentence_importance.first_share | percent }} of the continuations end in its answer before any
# sentence and {{ sentence_importance.last_share | percent }} after all. In {{
# sentence_importance.last_strongest | percent }} of the traces the answer depends most on the last
# sentence: to the answer itself, {% if sentence_importance.last_strongest > 0.5 %}copying from the
# end is the larger part{% else %}the end is not all that counts{% endif %}. What is read and what
# is needed correlate at {{ sentence_importance.agreement | number }} (interval {{
# sentence_importance.agreement_low | number }} to {{ sentence_importance.agreement_high | number
# }}){% if sentence_importance.agreement_low < 0 %}, which may be nothing{% endif %}.

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else. They use the bundled model, whatever model
# the run has.

# %%
import torch

from r2a_utils import workshop_patching as workshop
from r2a_utils.interventions import knockout
from r2a_utils.pairs import answer_span
from r2a_utils.tracing import architecture

toy_model, toy_trace = workshop.example_model(), workshop.example_trace()
boxed_at = answer_span(toy_trace).start  # the token of the answer that counts
toy_ids = toy_trace.token_ids[:boxed_at]
print(toy_trace.text[-150:])

# %% [markdown]
# ### Exercise 6.1: A knockout of your own
#
# Difficulty ●●○○○, importance ●●●●●, 15 minutes
#
# A {term}`knockout` takes attention edges away before the softmax, so that what is left still sums
# to 1. For the whole model at once a mask is enough: return a boolean array [token, token] with
# True where a token may look, causal as ever, and False from the tokens `queries` to the tokens
# `keys` (two slices).


# %% tags=["stub"]
def knockout_mask(n_tokens, queries, keys):
    """Who may look at whom [token, token]: causal, without queries → keys."""
    raise NotImplementedError("start from the lower triangle; cut one block out.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `np.tril(np.ones((n, n), dtype=bool))` is the plain causal mask: row `i` says what token `i`
# sees.
# ```


# %% tags=["solution"]
def knockout_mask(n_tokens, queries, keys):
    """Who may look at whom [token, token]: causal, without queries → keys."""
    mask = np.tril(np.ones((n_tokens, n_tokens), dtype=bool))
    mask[queries, keys] = False
    return mask


# %% tags=["check"]
workshop.check_knockout_mask(knockout_mask)


# %%
def log_probability_with(mask):
    """Of the token in the box, when every head of every layer obeys the mask."""
    with torch.no_grad():
        mask = torch.from_numpy(mask)[None, None]
        logits = toy_model.hf(torch.tensor([toy_ids]), attention_mask=mask).logits
    return float(logits[0, -1].log_softmax(-1)[toy_trace.token_ids[boxed_at]])


answer_part = slice(toy_trace.segments["answer"].start, len(toy_ids))
cut_from = {
    name: knockout_mask(len(toy_ids), answer_part, toy_trace.segments[name])
    for name in ("reasoning", "prompt")
}
uncut = log_probability_with(np.tril(np.ones((len(toy_ids),) * 2, dtype=bool)))
one_token = slice(boxed_at, boxed_at + 1)
by_engine = {
    name: knockout(toy_model, toy_trace, ("answer", name), scored=one_token).change
    for name in cut_from
}
yours = {name: log_probability_with(cut) - uncut for name, cut in cut_from.items()}
pd.DataFrame({"yours": yours, "the page's engine": by_engine}).round(4)

# %% [markdown]
# **What you should see.** Two equal columns, in nats. Cut off from the reasoning, the right token
# becomes much less likely; cut off from the prompt, hardly.
#
# **Comprehension.** The answer survives when one layer is cut and fails when all are. What does
# that say?
#
# ```{admonition} Answer
# :class: dropdown
#
# That there are several ways: what cannot be read in one layer is read in another. A knockout in
# one layer that changes nothing is therefore no proof that nothing passes there, and the page uses
# windows of layers for that reason.
# ```

# %% [markdown]
# ### Exercise 6.2: Ablate a head
#
# Difficulty ●●●●○, importance ●●●●○, 20 minutes
#
# Replace what one head reports, at the positions of a slice, by the vector `mean` [head_dim], and
# return the logits [vocabulary] after the last token. What the heads report stands side by side in
# the input of the layer's output projection:
#
#     projection = architecture(model).out_projections[layer]
#     with model.lm.trace(list(token_ids)):
#         z = projection.input[0]          # [token, n_heads · head_dim]


# %% tags=["stub"]
def mean_ablated_logits(model, token_ids, layer, head, positions, mean):
    """The last token's logits, with one head's z replaced at `positions`."""
    raise NotImplementedError("write into the columns of the projection's input.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Head `h` has the columns `h * model.head_dim` to `(h + 1) * model.head_dim`. An assignment inside
# the `with` block, as in `projection.input[0, positions, columns] = mean`, changes the run; then
# save the logits as in exercise 5.2.
# ```


# %% tags=["solution"]
def mean_ablated_logits(model, token_ids, layer, head, positions, mean):
    """The last token's logits, with one head's z replaced at `positions`."""
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)
    projection = architecture(model).out_projections[layer]
    with model.lm.trace(list(token_ids)):
        projection.input[0, positions, columns] = mean
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


# %% tags=["check"]
workshop.check_mean_ablated_logits(mean_ablated_logits)

# %%
toy_pool = answer_z(toy_model, [workshop.example_trace(i) for i in range(1, 7)])
own_costs = {}
for one_layer in range(toy_model.n_layers):
    for one_head in range(toy_model.n_heads):
        by_head = toy_pool[one_layer].mean(0).reshape(toy_model.n_heads, -1)
        ablated_logits = mean_ablated_logits(
            toy_model, toy_ids, one_layer, one_head, answer_part, by_head[one_head]
        )
        after = float(ablated_logits.log_softmax(-1)[toy_trace.token_ids[boxed_at]])
        own_costs[plots.head_name(one_layer, one_head)] = uncut - after
pd.Series(own_costs, name="log-probability lost (nats)").nlargest(5).round(4)

# %% [markdown]
# **What you should see.** Five heads with what their ablation costs on one trace. Most heads cost
# next to nothing: what one head gives, others give as well, or the answer did not need it.
#
# **Comprehension.** Setting a head to zero costs much more than setting it to its mean. Which of
# the two says what the head knows?
#
# ```{admonition} Answer
# :class: dropdown
#
# The mean. A head's output has a constant part that later layers count on, whatever the text; zero
# takes that away too and brings the model into a state that it has never seen. What is lost on top
# of the mean is what the head says about *this* text.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That heads are the right unit.** A head set is a blunt cut, and other heads can step in.
# - **That random spans are a null for everything.** They say what cutting as much text does, not
#   what cutting as much *meaning* does.
# - **An independent sample.** The heads were ranked on traces of the same run; the ranking's
#   split-half reliability says how little that matters for the list, not for the effect.
# - **What a sentence causes.** A knocked-out sentence may live on in later ones, and a forced
#   answer is one that the model had not begun.
#
# ## What is missing
#
# The findings side by side, and what they come to: {doc}`the last page <07_synthesis>`.
