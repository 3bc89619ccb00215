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
#     reads: [
#       tables/problems, traces/with_reasoning, arrays/segment_mass_with_reasoning,
#       tables/reasoning_focus_heads, records/contrast_pairs, records/activation_patching
#     ]
#     writes: [
#       tables/knockout_profile, tables/head_sets, records/head_interventions,
#       records/held_out_heads, records/knockout_kinds, records/sentence_importance
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       remote: {choices: [local], or: [url]}
#       n_traces: {least: 1, most: 1000000}
#       knockout_kind: {choices: [renormalised, zeroed, mean]}
#       n_spans: {least: 1, most: 1000000}
#       n_random_sets: {least: 1, most: 1000000}
#       n_draws: {least: 1, most: 1000000}
#       n_flip_sets: {least: 1, most: 1000000}
#       n_resampled: {least: 1, most: 1000000}
#       resampled_tokens: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
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
# **What we know so far.** {% if crossed_answers.verdict == "reasoning" %}{doc}`Activation patching
# <05_activation_patching>` showed on which {term}`token` and in which layers the answer depends.
# Here the ways between them are cut.{% else %}{doc}`The page before <05_activation_patching>` did
# not show that the answer follows the reasoning. What costs something below need not be a way from
# the one to the other.{% endif %}

# %% [markdown]
# ## Parameters
#
# `remote`: whether {doc}`the weights stay on a host </rerun>`. What needs them here is left out:
# one trace with its lens and its continuations.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
remote: bool | str = False
tags: dict | None = None
n_traces = 24
knockout_kind = "renormalised"
n_spans = 4
n_random_sets = 100
n_draws = 4
n_flip_sets = 20
n_resampled = 30
resampled_tokens = 256
seed = 0

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import attention, causal, figures, texts
from r2a_utils.answers import grade_completions
from r2a_utils.collecting import Sampling
from r2a_utils.explorers import trace_explorer
from r2a_utils.models import architecture, load_model
from r2a_utils.runs import Run

run = Run.open(run_dir)
model = load_model(
    model_name,
    dtype=dtype,
    device=device,
    revision=revision,
    display_name=display_name,
    tags=tags,
    remote=remote,
)
run.record_model(model)
problems = texts.problems_from_table(run.read_table("problems"))
rfhs = tuple(attention.head_pairs(run.read_table("reasoning_focus_heads")))
crossing = None  # where no pair was kept, nothing was patched
if run.read_record("contrast_pairs")["kept"]:
    crossing = run.read_record("activation_patching")["crossing"]

# %% [markdown]
# We take traces with a right answer, one a problem, and first those that had no part in ranking the
# heads: what is tested on the traces that chose it looks better than it is. As many more serve as
# the pool from which an ablated head's state is resampled. An answer that restates the solution
# carries the result in its own words and need not look back. So the answers are cut down to "The
# answer is" and the boxed result; these few words are ours, whoever wrote the reasoning.

# %%
path = run.completions_path("with_reasoning")
completions = texts.read_completions(path, problems)
answers = grade_completions(completions, problems, model.tags)
written = texts.read_traces(path, model.tokenizer, problems, model.tags)
ranked = set(run.read_array("segment_mass_with_reasoning").trace.values)
chosen = causal.choose_traces(model, written, answers, ranked, n_traces)
traces = chosen.traces
print(f"{len(traces)} traces, {chosen.n_fresh} of which ranked no head")

# %% [markdown]
# ## Cutting the way, layer by layer
#
# A {term}`knockout` {cite:p}`geva2023recall` removes the attention edges from the answer's tokens
# to the reasoning in a window of layers. If information passes there, the right answer becomes less
# likely. Two controls cut elsewhere: random spans of the text before the answer, as long as the
# reasoning and drawn anew, several times, for each trace; and the prompt. A vertical line, if there
# is one, marks where the curves of {term}`patching <patch>` crossed. The knockouts of this page are
# of the kind `{{ knockout_kinds.used }}`; the section "Three kinds of cut" says what that means.

# %%
single = causal.knockout_curves(model, traces, 1, n_spans, seed, kind=knockout_kind)
figures.knockout_profile(single, crossing=crossing)

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when the answer's
# tokens cannot look at the reasoning (coloured), at random spans of that length or at the prompt
# (grey), one layer at a time, with 95 % intervals; mean over {{ head_interventions.n }} traces{{
# head_interventions.n | few }}.

# %% [markdown]
# Where the reasoning fills most of the trace, a random span of its length overlaps it, so that this
# control is a hard one. What single layers cost need not add up. With windows of three layers:

# %%
wide = causal.knockout_curves(model, traces, 3, n_spans, seed, kind=knockout_kind)
run.write_table("knockout_profile", pd.concat([single, wide], ignore_index=True))
figures.knockout_profile(wide, crossing=crossing)

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when attention from
# the answer to the reasoning (coloured), to random spans or to the prompt (grey) is cut in three
# neighbouring layers at once; a point stands at the middle one.

# %% [markdown]
# ## Three kinds of cut
#
# A cut leaves a hole, and the model does something with it. The attention that went to the
# reasoning can be handed to what is left to look at (*renormalised*: the scores are minus infinity
# before the softmax, and the rest still sums to one), be dropped (*zeroed*, the weights set to zero
# behind the softmax {cite:p}`mohebbi2023quantifying`), or be spread evenly over the cut tokens
# (*mean*: the head reads the mean of their values, and no longer chooses one
# {cite:p}`hassid2022much`). The same edges, each layer alone; beside them the answer to a prompt
# whose thought is empty.

# %%
kinds = causal.knockout_kinds(model, traces, seed)
told_kinds = causal.summarised_kinds(kinds, knockout_kind)
run.write_record("knockout_kinds", told_kinds)
all_layers = told_kinds.kinds[knockout_kind].together
figures.knockout_profile(kinds.curves(), absent=told_kinds.absent)

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when its tokens are
# cut off from the reasoning in one layer, by what becomes of the weight that is taken away; mean
# with 95 % intervals over {{ knockout_kinds.n }} traces{{ knockout_kinds.n | few }}. Line: the
# reasoning left out of the prompt.

# %%
figures.reading_table(kinds.table())

# %% [markdown]
# In all layers at once the answer changes by {% for kind, k in knockout_kinds.kinds.items() %}{{
# k.together | number }} {term}`nats <nat>` ({{ kind }}; layer {{ k.layer }} alone {{ k.alone |
# number }}){% if not loop.last %}, {% endif %}{% endfor %}; without any reasoning by {{
# knockout_kinds.absent | number }} ({{ knockout_kinds.absent_low | number }} to {{
# knockout_kinds.absent_high | number }}). {% if knockout_kinds.only_renormalised %}One layer alone
# costs more than all of them only where the weight goes elsewhere. So that excess is no property of
# the layers: it comes of what the model is made to read in place of the reasoning, and not of what
# it misses.{% elif not knockout_kinds.exceeding %}In no kind is it shown that one layer alone costs
# more than all of them.{% else %}One layer alone costs more than all of them in these kinds: {{
# knockout_kinds.exceeding | join(", ") }}.{% endif %} A cut that costs more than having no
# reasoning does more than take the reasoning away.

# %% [markdown]
# ## Head by head
#
# The same edges taken from one head at a time, mean over traces, with the Reasoning-Focus Heads
# marked. If looking were using, the marked heads would stand out. From 0.01 nats on the scale is
# logarithmic.

# %%
by_head = [
    causal.knockout_heads(model, trace, kind=knockout_kind) for trace in traces
]
by_head_lost = [-np.asarray(change) for change in by_head]
lost = np.mean(by_head_lost, axis=0)
figures.head_maps(
    {"answer → reasoning cut in one head": lost},
    {"reasoning-focus head": rfhs},
    quantity="Log-probability lost (nats)",
    linear_below=0.01,
)

# %% [markdown]
# **Figure.** Log-probability that the right answer of `{{ model.name }}` loses when one head
# alone cannot look from the answer to the reasoning, by layer and head, mean over traces; squares
# mark the Reasoning-Focus Heads.

# %% [markdown]
# ## Sets of heads
#
# All Reasoning-Focus Heads at once: either their edges to the reasoning are cut (*knockout*), or
# their output, before the output projection, is set to *zero*, to its *mean* over the answers of
# other traces, or to that of a random token of another answer (*resample*). That token is drawn
# anew, several times, for each trace, and the same draws are used for every set. Each way is
# compared with random sets of as many heads of the same layers. These are drawn from all heads
# there, so that, if it did not matter which heads are chosen, the Reasoning-Focus Heads would be
# one more such set, and their rank gives an exact p.

# %%
pool = causal.answer_z(model, chosen.others)
drawn = causal.random_head_sets(rfhs, model.n_heads, n_random_sets, seed)
sets = [rfhs, *drawn]
by_draw = causal.set_changes(
    model, traces, sets, pool, n_draws, seed, knockout_kind
)
effects_of_sets = causal.set_table(by_draw)
run.write_table("head_sets", effects_of_sets.reset_index())
figures.reading_table(effects_of_sets)

# %%
changes = {way: change.mean(0) for way, change in by_draw.items()}
figures.head_sets(changes, "Change of the answer's log-probability (nats)")

# %% [markdown]
# **Figure.** Change of the right answer's log-probability in `{{ model.name }}` when all
# Reasoning-Focus Heads (diamond) are cut off from the reasoning or ablated, and when random sets of
# as many heads of the same layers are (points; line: their median). Mean over traces.

# %% [markdown]
# ## Another answer?
#
# A log-probability can move and the answer stay. Here the model writes its answer again, freely,
# from behind its closing tag, under each of the four ways (of resampling one draw a trace), with
# fewer random sets, since writing takes longer than scoring. Counted are the traces to which it
# writes an answer in a box when nothing is changed. Each trace is its own control: whether it turns
# over with the Reasoning-Focus Heads, against the share of random sets that turn it over.

# %%
rewritten_sets = sets[: 1 + n_flip_sets]
turned = causal.turned_over(
    model, traces, rewritten_sets, pool, seed, knockout_kind
)
absent = "Too few boxed answers of its own: here would stand how often they change."
figures.reading_table(turned.table) if turned.shares else Markdown(absent)

# %%
shares = turned.shares
figures.head_sets(shares, "Answers turned over", share=True) if shares else None

# %% [markdown]
# **Figure.** Share of answers that change or are lost when `{{ model.name }}` writes them again
# with the Reasoning-Focus Heads cut or ablated (diamond), and with each random set of as many heads
# of the same layers (points; line: their median).

# %% tags=["hide-input"]
found = causal.summarised_interventions(
    model, chosen, sets, single, all_layers, lost, by_draw, turned
)
run.write_record("head_interventions", found)

# %% [markdown]
# Cutting the way to the reasoning in one layer hurts most in layer {{
# head_interventions.strongest_layer }}: the right answer's log-probability changes by {{
# head_interventions.strongest_change | number }} nats (random spans at most {{
# head_interventions.strongest_random | number }}). Cut in all layers at once it changes by {{
# head_interventions.all_layers | number }}{% if head_interventions.all_layers >
# head_interventions.strongest_change %}, less than in that layer alone: what a layer costs is not
# its share of a whole{% endif %}. Of single heads {{ head_interventions.top_head }} costs most, {{
# head_interventions.top_head_lost | number }} nats; it is {% if not head_interventions.top_is_rfh
# %}not {% endif %}a Reasoning-Focus Head. {{ head_interventions.n_fresh }} of the {{
# head_interventions.n }} traces had no part in ranking the heads. Cuts and ablations were run by
# the {{ head_interventions.engine }} engine: {% if head_interventions.engine == "fast" %}only what
# they can reach was computed again{% else %}each is a whole forward pass of the model{% endif %}.
#
# The {{ head_interventions.n_heads }} Reasoning-Focus Heads together, and {{
# head_interventions.n_random_sets }} random sets of the same layers in the median and from the
# strongest to the weakest change, in nats: {% for way, s in head_interventions.sets.items() %}{{
# way }} {{ s.rfh | number(3) }}, random sets {{ s.median | number(3) }} ({{ s.low | number(3) }} to
# {{ s.high | number(3) }}), {{ s.p | p_value }}{% if not loop.last %}; {% endif %}{% endfor %}.
# Single draws of resampling give {{ head_interventions.resample_low | number }} to {{
# head_interventions.resample_high | number }} for the Reasoning-Focus Heads. {% if
# head_interventions.verdict == "different" %}With Holm's correction for four ways, at least one of
# them tells these heads from random ones of their layers (smallest {{ head_interventions.smallest_p
# | p_value }}){% if crossed_answers.verdict != "reasoning" %}. They matter for an answer that was
# not shown to follow the reasoning: that is no sign that they carry it there{% endif %}{% elif
# head_interventions.verdict == "cannot tell" %}**This design cannot tell** these heads from random
# ones of their layers: after Holm's correction for four ways the smallest p is {{
# head_interventions.smallest_p | number(3) }}, and with these sets it could not have been below {{
# head_interventions.smallest_possible_p | number(3) }}, however many traces were measured{% else
# %}With Holm's correction for four ways, none of them tells these heads from random ones of their
# layers, though one could have: a null result (smallest {{ head_interventions.smallest_p | p_value
# }}, at best {{ head_interventions.smallest_possible_p | number(3) }}){% endif %}. A random set
# shares {{ head_interventions.shared | number(1) }} of the {{ head_interventions.n_heads }} heads
# with them on average{% if head_interventions.n_possible_sets < head_interventions.n_random_sets
# %}; there are only {{ head_interventions.n_possible_sets }} different sets{% endif %}. {% if
# head_interventions.dominated and not head_interventions.top_is_rfh %}One head makes the strongest
# sets: the {{ head_interventions.dominated }} that hold {{ head_interventions.top_head }} change
# the answer by {{ head_interventions.dominated_low | number }} to {{
# head_interventions.dominated_high | number }} nats when cut, more than any other set{% if
# head_interventions.sets.knockout.rfh > head_interventions.dominated_high %}; beside them the p of
# cutting the Reasoning-Focus Heads cannot fall below {{ ((1 + head_interventions.dominated) / (1 +
# head_interventions.n_random_sets)) | number }}{% endif %}. Of the {{ head_interventions.others }}
# sets without it {{ head_interventions.others_beyond }} cost as much as they do or more (strongest
# {{ head_interventions.others_low | number(3) }}); this was looked at afterwards and is no test.{%
# endif %}
#
# {% if head_interventions.flip_n >= head_interventions.fewest_flip_n %}When the model writes anew,
# these shares of {{ head_interventions.flip_n }} answers change or are lost with the
# Reasoning-Focus Heads, and with {{ head_interventions.n_flip_sets }} random sets in the median
# (range): {% for way, f in head_interventions.flips.items() %}{{ way }} {{ f.rfh | percent }},
# random {{ f.median | percent }} ({{ f.low | percent }} to {{ f.high | percent }}), by trace {{
# (100 * f.difference) | number(0) }} points ({{ (100 * f.ci_low) | number(0) }} to {{ (100 *
# f.ci_high) | number(0) }}){% if not loop.last %}; {% endif %}{% endfor %}. The intervals are over
# traces, for these sets, and say nothing about other random sets. The p of the table, a rank among
# the sets, does; with so few sets it cannot fall below {{ (1 / (1 +
# head_interventions.n_flip_sets)) | number }}.{% else %}Left to itself the model writes an answer
# in a box after {{ head_interventions.flip_n }} of these traces: too few to say how often it
# changes.{% endif %}
#
# ## Chosen where the answer is written
#
# Ranked by all of the answer's tokens on some traces and cut on others, heads may miss what writes
# the answer; and random sets that hold the one head that matters leave no room for a small p. So a
# second design, laid down before its results: every second trace ranks the heads by what the tokens
# that *write* the boxed answer read, and the other traces are the test. Two questions: all of these
# heads; and, against random sets that lack it too, these heads without the *dominating* one, whose
# cut alone costs most on the first half. Beside the mean over traces stands the median, which a few
# costly traces do not make.

# %%
held_out = causal.held_out_heads(
    model, traces, by_head_lost, rfhs, n_random_sets, seed, knockout_kind
)
run.write_record("held_out_heads", held_out)

# %% [markdown]
# {% if held_out_heads is defined %}{% set h = held_out_heads %}{{ h.k }} heads were chosen on {{
# h.n_ranked }} traces, {{ h.shared }} of them Reasoning-Focus Heads, and cut on {{ h.n_cut }}
# others{{ h.n_cut | few }}. The dominating head, {{ h.dominating }}, is {% if not h.holds %}not {%
# endif %}among them. {% for q in h.questions %}Asked of {{ q.question }}: {{ q.mean.rfh | number(3)
# }} nats in the mean over traces, random sets {{ q.mean.median | number(3) }} ({{ q.mean.low |
# number(3) }} to {{ q.mean.high | number(3) }}), {{ q.p | p_value }} with Holm's correction for the
# questions; in the median over traces {{ q.median.rfh | number(3) }}, random sets {{
# q.median.median | number(3) }}. {% if q.verdict == "different" %}They cost more than random heads
# of their layers.{% elif q.verdict == "cannot tell" %}This cannot tell: the smallest p that these
# sets could have given is {{ q.floor | number(3) }}.{% else %}They are not told from random heads
# of their layers, though they could have been (at best {{ q.floor | number(3) }}): a null result.{%
# endif %} {% endfor %}{% endif %}
#
# ## More than copying?
#
# A model may decide its answer step by step, or copy it from the last sentence. Five measures,
# taken at each sentence of one trace, bear on this; none settles it alone:
#
# - **read**: attention of the answer, mean over the Reasoning-Focus Heads;
# - **lens**: the answer's log-probability when the residual stream at the sentence's end is
#   unembedded, by layer ({term}`logit lens`, {cite:p}`nostalgebraist2020lens`);
# - **forced**: the reasoning stops after the sentence and the answer is forced
#   {cite:p}`lanham2023faithfulness`; a filled point is an answer that greedy decoding writes;
# - **resampled** {cite:p}`bogdan2025anchors`: the reasoning is written on by sampling; the share
#   that ends in the same answer, with Wilson's 95 % interval;
# - **knocked out**: the answer's tokens cannot look at the sentence; the black line is the range
#   from 5 to 95 % of random spans of that length.
#
# The trace shown is the one whose number of sentences is closest to {{
# sentence_importance.shown_sentences }}.

# %%
example, resampled = causal.example_of(traces), None
if not remote:
    sampling = Sampling(resampled_tokens, temperature=1.0, seed=seed)
    resampled = causal.resampled_answers(
        model, example, sampling=sampling, samples=n_resampled
    )
    lens = causal.answer_lens(model, example)["log_probability"]
forced = causal.forced_answers(model, example)
knocked = causal.sentence_knockouts(model, example, seed=seed, kind=knockout_kind)

# %%
figures.sentence_page(
    ["".join(example.tokens[span]) for span in texts.sentences(example)],
    causal.read_by_sentence(model, example, rfhs),
    lens.values[:, :-1],
    forced,
    resampled,
    knocked,
    title=example.problem_id,
) if not remote else Markdown(
    "Lens and continuations need the weights here, and they are on a host: "
    "this figure is left out."
)

# %% [markdown]
# **Figure.** One trace of `{{ model.name }}`, five measures over its sentences: what the answer
# reads, when the answer can be read off the states, when it is written if forced, when resampled
# continuations end in it, and what it loses when a sentence is knocked out.

# %% [markdown]
# And the same trace to explore: what was read to write each token of its short answer.

# %%
trace_explorer(model, [example, *(t for t in traces if t is not example)], rfhs)

# %% [markdown]
# **Figure.** To explore: the trace from above and others in `{{ model.name }}`, shaded by what its
# answer reads through the Reasoning-Focus Heads, one of them, or by what they give to each written
# token.

# %% [markdown]
# One trace is an anecdote. Over all traces, two questions: how much of the reasoning a forced
# answer needs (0: it comes at once, 1: only at the end), in traces whose whole reasoning leads to
# the answer; and whether the sentences that are read more are those whose knockout costs more. The
# second is asked only of traces in which some sentence costs more than {{ sentence_importance.noise
# | number(1) }} nats: where none does, the order of the costs is rounding. A row with `~` is a rank
# correlation of the costs with what the Reasoning-Focus Heads read, with what all heads read, or
# with the mere place of the sentence; the last two of these rows take out its place and its length.

# %%
many = causal.over_many_traces(
    model, traces, rfhs, spans=n_spans, seed=seed, kind=knockout_kind
)
figures.reading_table(many.table(), digits=2)

# %% tags=["hide-input"]
told = causal.summarised_sentences(many, resampled, resampled_tokens)
run.write_record("sentence_importance", told)

# %% [markdown]
# {% if sentence_importance.needed_n %}In {{ sentence_importance.needed_n }} of {{
# sentence_importance.n }} traces{{ sentence_importance.needed_n | few }} the right answer is
# written when it is forced behind the whole reasoning; there it is written, and stays, from {{
# sentence_importance.needed | percent }} of the reasoning on, on average.{% else %}After none of
# the traces does the model write the forced answer, though it has read all of the reasoning.{%
# endif %}{% if sentence_importance.samples %} In the trace above, {{
# sentence_importance.first_share | percent }} of the continuations end in its answer when the
# reasoning is written from the start, and {{ sentence_importance.last_share | percent }} when all
# of it is kept{% if sentence_importance.unfinished %}; {{ sentence_importance.unfinished | percent
# }} of all continuations were cut off after {{ sentence_importance.resampled_tokens }} tokens and
# count as another answer, so that the shares are lower bounds{% else %}; none was cut off{% endif
# %}.{% endif %}
#
# In {{ sentence_importance.dear_n }} of {{ sentence_importance.n }} traces some sentence costs the
# answer more than {{ sentence_importance.noise | number(1) }} nats.{% if sentence_importance.dear_n
# < sentence_importance.n %} The others say nothing about which sentence the answer depends on.{%
# endif %}{% if sentence_importance.dear_n %} Where some sentence does, the last one costs most in
# {{ sentence_importance.last_strongest | percent }} of the traces (interval {{
# sentence_importance.last_low | percent }} to {{ sentence_importance.last_high | percent }}). That
# a last sentence is needed does not say what it holds.{% endif %} {% if
# sentence_importance.agreement_n > 1 %}{% set a = sentence_importance.agreement %}What a sentence
# costs and what the Reasoning-Focus Heads read of it correlate at {{ a.read.mean | number }}
# (interval {{ a.read.low | number }} to {{ a.read.high | number }}; {{
# sentence_importance.agreement_n }} traces of {{ sentence_importance.fewest_sentences }} sentences
# or more{{ sentence_importance.agreement_n | few }}); with what all heads read the correlation is
# {{ a.all_heads.mean | number }}, and with the mere place of the sentence {{ a.place.mean | number
# }}. With the place taken out, {{ a.place_taken_away.mean | number }} is left ({{
# a.place_taken_away.low | number }} to {{ a.place_taken_away.high | number }}){% if
# a.place_taken_away.low <= 0 <= a.place_taken_away.high %}, which may be nothing{% endif %}. A long
# sentence is read more and costs more for its length alone: per token, and beyond what random spans
# of the same length cost, {% if a.length_taken_away.low is not none %}{{ a.length_taken_away.mean |
# number }} is left ({{ a.length_taken_away.low | number }} to {{ a.length_taken_away.high | number
# }}; {{ a.length_taken_away.n }} traces{{ a.length_taken_away.n | few }}){% if
# a.length_taken_away.low <= 0 <= a.length_taken_away.high %}, which may be nothing{% endif %}.{%
# else %}too few traces can be asked.{% endif %}{% endif %}

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else. They use the bundled model, whatever model
# the run has.

# %%
import torch

from r2a_utils.teaching.checks import patching as workshop

toy_model, toy_trace = workshop.example_model(), workshop.example_trace()
boxed_at = texts.answer_span(toy_trace).start  # the token of the answer that counts
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
    name: causal.knockout(
        toy_model, toy_trace, ("answer", name), scored=one_token
    ).change
    for name in cut_from
}
yours = {name: log_probability_with(cut) - uncut for name, cut in cut_from.items()}
pd.DataFrame({"yours": yours, "the page's engine": by_engine}).round(4)

# %% [markdown]
# **What you should see.** Two equal columns, in nats. Cut off from the reasoning, the right token
# becomes much less likely; cut off from the prompt, hardly.
#
# The engine can also cut the reasoning off in one layer alone; your mask goes to all of them.

# %%
one_by_one = {
    f"layer {layer}": causal.knockout(
        toy_model, toy_trace, layers=[layer], scored=one_token
    ).change
    for layer in range(toy_model.n_layers)
}
pd.Series(
    one_by_one | {"all layers": by_engine["reasoning"]}, name="change (nats)"
).round(4)

# %% [markdown]
# **Comprehension.** In two layers the cut costs more than the cut in all layers does. How can
# cutting less cost more, and what does a cut in one layer not say?
#
# ```{admonition} Answer
# :class: dropdown
#
# Layers work on what earlier layers leave behind. With one layer cut, the others still read, and
# what they make of half a message may lead further astray than no message does; with all layers
# cut, the answer comes from the rest of the text. That is one explanation, which this table does
# not test. What it does show is that costs of layers do not add up: a layer's cost is not its
# share of the whole. Nor does a layer that costs nothing alone have to be without a part: what
# cannot be read there may be read in another.
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
toy_pool = causal.answer_z(
    toy_model, [workshop.example_trace(i) for i in range(1, 7)]
)


def lost_without(one_layer, one_head, value):
    """Nats lost when the head's z is `value` at the answer's tokens."""
    ablated_logits = mean_ablated_logits(
        toy_model, toy_ids, one_layer, one_head, answer_part, value
    )
    return uncut - float(
        ablated_logits.log_softmax(-1)[toy_trace.token_ids[boxed_at]]
    )


own_costs = {}
for one_layer in range(toy_model.n_layers):
    means = toy_pool[one_layer].mean(0).reshape(toy_model.n_heads, -1)
    for one_head, mean in enumerate(means):
        own_costs[figures.head_name(one_layer, one_head)] = {
            "set to its mean": lost_without(one_layer, one_head, mean),
            "set to zero": lost_without(one_layer, one_head, 0 * mean),
        }
own_costs = pd.DataFrame(own_costs).T.rename_axis("log-probability lost (nats)")
own_costs.nlargest(5, "set to its mean").round(4)

# %% [markdown]
# **What you should see.** The five heads whose mean ablation costs most on one trace. One stands
# far ahead. The others, and all that are not shown, cost next to nothing: what one head gives,
# others give as well, or the answer did not need it.
#
# **Comprehension.** The first head of the table costs more when it is set to zero than when it is
# set to its mean. Which of the two numbers is nearer to what the head says about this text?
#
# ```{admonition} Answer
# :class: dropdown
#
# The one for the mean. A head's output has a part that is the same whatever the text, and later
# layers may count on it; zero takes that away too, and may bring the model into a state that it has
# never seen. The mean leaves that part and takes what differs from text to text. That zero costs
# more is no law: for a head that hardly matters either number may be the larger.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That heads are the right unit.** A head set is a blunt cut, and other heads can step in.
# - **That random spans are a null for everything.** They say what cutting as much text does, not
#   what cutting as much *meaning* does.
# - **Heads alone or in other company.** Sets of other sizes may come out otherwise, and a random
#   set may hold a head that matters for a reason of its own.
# - **What a sentence causes.** A knocked-out sentence may live on in later ones, and a forced
#   answer is one that the model had not begun.
#
# ## What is missing
#
# Whether any of these instruments would have shown an answer that ignores its reasoning:
# {doc}`the next page <06b_which_instruments>`.
