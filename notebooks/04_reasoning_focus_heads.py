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
#     reads: [tables/problems, traces/with_reasoning, arrays/segment_mass_with_reasoning]
#     writes: [
#       tables/reasoning_focus_heads, records/reasoning_focus_heads, records/copying_heads,
#       records/other_texts, records/published_heads, records/head_lists,
#       records/untrained_ranking
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       remote: {choices: [local], or: [url]}
#       k: {least: 1, most: 1000000}
#       n_shuffles: {least: 1, most: 1000000}
#       n_long: {least: 1, most: 1000000}
#       n_generic: {least: 1, most: 1000000}
#       n_untrained: {least: 0, most: 100}
#       n_maps: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 2: Reasoning-Focus Heads
#
# **Question.** Which {term}`heads <head>` read the reasoning while the answer is written, and can
# their ranking be trusted?
#
# **What you will see.** The top heads with intervals and controls, where in the model they sit, and
# what remains of their ranking on texts that hold no reasoning.
#
# **What we know so far.** {doc}`Segment attention <03_segment_attention>` measured how much of
# the answer's attention goes to the reasoning, head by head. A mean over heads does not say which
# ones, nor whether another set of {term}`traces <trace>` would name the same.

# %% [markdown]
# ## Parameters
#
# The top `k` heads are listed; the controls use `n_shuffles` borders, the first `n_long` and
# `n_generic` traces, and `n_untrained` twins of the model with random weights. `remote`:
# whether {doc}`the weights stay on a host </rerun>`; of such a model no twin is made.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
remote: bool | str = False
tags: dict | None = None
k = 10
n_shuffles = 100
n_long = 60
n_generic = 24
n_untrained = 3
n_maps = 12
seed = 0

# %%
from dataclasses import asdict

import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import attention, figures, load_model
from r2a_utils.explorers import head_explorer
from r2a_utils.runs import Run
from r2a_utils.texts import problems_from_table, read_traces
from r2a_utils.tiny import opening

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
mass = run.read_array("segment_mass_with_reasoning")
problems = problems_from_table(run.read_table("problems"))
written = run.completions_path("with_reasoning")
traces = read_traces(written, model.tokenizer, problems, model.tags)

# %% [markdown]
# ## The ranking
#
# A {term}`Reasoning-Focus Head <RFH>` is a head among the top k by mean attention of the answer on
# the reasoning. Beside its mass stand a bootstrap interval over traces, the {term}`lift` over a
# head that looks at everything alike, and the share of resamples of the traces in which it is among
# the top k again.

# %%
ranking = attention.rank_heads(mass, k=k, seed=seed)
run.write_table("reasoning_focus_heads", ranking)
rfhs = attention.head_pairs(ranking)
figures.head_ranking(ranking, uniform=float(attention.uniform_mass(mass).mean()))

# %% [markdown]
# **Figure.** The {{ reasoning_focus_heads.k }} heads of `{{ model.name }}` whose attention goes
# most from the answer to the reasoning, with 95 % intervals over traces; at the right, lift over
# uniform attention and the share of resamples in which the head is among the top {{
# reasoning_focus_heads.k }} again.

# %% [markdown]
# The masses were {% if reasoning_focus_heads.engine == "fast" %}read while the model ran{% else
# %}summed from the weights that the model forms when it attends plainly{% endif %}. Where the
# intervals of neighbours overlap, their order is not known; where the last heads are in few of the
# resampled lists, other traces would have listed other heads. Giving the first k a name cuts
# through a continuous ranking; it does not make them a kind of head.
#
# ## Can the ranking be trusted?
#
# A ranking that two random halves of the traces do not share is noise. One that they share may
# still hold only for traces of their kind. So each kind of trace is compared with all others: by
# length (longer reasoning draws more attention from any head), by family and by the form of the
# answer. Last, the tokens that write the boxed answer are compared with the whole answer.

# %%
n = mass.sizes["trace"]
halved = n >= attention.FEWEST_IN_HALVES
reliability = attention.ranking_reliability(mass, seed=seed) if halved else None
kinds = attention.kinds_of_traces(traces[:n])
across = attention.ranking_across(mass, kinds, k=k)
at_box = attention.ranking_where_written(model, mass, traces[:n], k=k)
run.write_record("head_lists", attention.summarise_lists(across, at_box, k))
last = pd.DataFrame(
    [{"kind": "where the box is written", **at_box}] if at_box else []
)
figures.reading_table(pd.concat([across, last]).set_index("kind"))

# %% [markdown]
# {% set l = head_lists %}{% if l.least_shared is not none %}The kind that shares fewest of the top
# {{ l.k }} with all other traces is "{{ l.least_kind }}": it shares {{ l.least_shared }}, with a
# correlation of {{ l.least_spearman | number }} over all heads. {% endif %}{% if l.written_shared
# is not none %}Ranked by the tokens that write the boxed answer alone, {{ l.written_shared }} of
# the top {{ l.k }} {% if l.written_shared == 1 %}is{% else %}are{% endif %} the same (correlation
# {{ l.written_spearman | number }}). {% endif %}A list of heads belongs to its traces and to its
# question.

# %% [markdown]
# The permutation null turns the borders of the reasoning along the text before the answer and keeps
# its length. It rules out a head that reads all of that text alike, whatever the reasoning's
# length. It does not rule out recency: the reasoning stands right before the answer, and a head
# that always looks twenty tokens back passes. *p, best of all heads* allows for having picked the
# best of many; *at equal length* compares the reasoning with the prompt token by token (log2; above
# 0 the reasoning is preferred), and *sink-free* leaves the {term}`attention sink` out where
# {doc}`03_segment_attention` found one.

# %%
measured = traces[: mass.sizes["trace"]]
turned = [
    attention.turned_reasonings(trace.segments, n_shuffles, seed + i)
    for i, trace in enumerate(measured)
]
null = attention.border_test(
    mass, attention.token_set_mass(model, measured, turned)
)
columns = ["layer", "head", "lift", "sink_free", "length_matched"]
scores = attention.head_scores(mass)[columns]
figures.reading_table(null[:k].merge(scores, on=["layer", "head"]))

# %% [markdown]
# The null turns the reasoning into the prompt and back, so that it still overlaps much of it: a
# mass of the null near that of the head is no sign that the prompt is read as much.
#
# Recency has a control of its own. A head's weights by distance from the query, measured on all
# other traces and applied to this one, give what it would read of the reasoning if it looked by
# distance only (*by distance*; the sink that stage 03 found, if any, is left out of both). What it
# reads beyond that follows the reasoning's borders. Lengths that vary little from trace to trace
# hide borders behind distances, so that a head which follows the borders shows only a part of it as
# *excess*.

# %%
watched = measured[:n_long]
rows_of = [attention.attention_rows(model, trace, rfhs).values for trace in watched]
sink = attention.find_sink(model).position
recency = attention.distance_test(
    rows_of, [trace.segments for trace in watched], sink, seed=seed
)
figures.reading_table(pd.concat([ranking[["layer", "head"]], recency], axis=1))

# %% [markdown]
# ## Where in the model?
#
# The paper finds its heads in the middle layers. The figure compares the top heads of this model
# with an even spread over all layers.

# %%
size = (model.n_layers, model.n_heads, model.n_kv_heads)
there = attention.attending_layers(mass)
depth = attention.depth_test(rfhs, *size, attending=there, seed=seed)
figures.depth_distribution(rfhs, model.n_layers, depth.p_central, there)

# %% [markdown]
# **Figure.** Layers of the top {{ reasoning_focus_heads.k }} heads of `{{ model.name }}`. The
# dotted line is an even spread over the layers that attend.

# %% [markdown]
# Bars above the line are layers with more of the top heads than an even spread would put there.
# With few layers, "middle" is coarse: the test has little power, and no p-value here speaks about
# deeper models.
#
# ## Are they heads that copy?
#
# Two scores from the literature. *Induction* {cite:p}`olsson2022induction`: on random {term}`tokens
# <token>` repeated once, the attention on what followed the present token the first time.
# *Retrieval* {cite:p}`wu2024retrieval`: the share of a needle's tokens that a head looks up while
# they are recited from between other texts, here the run's own questions. A list holds at most k
# heads, and only heads with a score of at least 0.1: below that, nobody would say that a head
# copies.

# %%
cases = attention.needle_cases(
    [problem.question for problem in problems], model.tokenizer, seed=seed
)
copy_scores = {
    "induction": attention.induction_scores(model, seed=seed),
    "retrieval": attention.retrieval_scores(model, cases),
}
copying = {
    f"{kind} head": attention.top_copying_heads(found, k)
    for kind, found in copy_scores.items()
}
run.write_record("copying_heads", attention.copying_summary(copy_scores, k))
marks = {"reasoning-focus head": rfhs, **copying}
overlap = attention.head_overlap(marks, *size, attending=there, seed=seed)
figures.reading_table(overlap.assign(heads=overlap["heads"].map(figures.head_list)))

# %%
to_reasoning = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
figures.head_maps({"answer → reasoning": to_reasoning.values}, marks)

# %% [markdown]
# **Figure.** Attention of the answer on the reasoning in `{{ model.name }}` by layer and head,
# mean over traces. Marks tell kinds of heads: squares the Reasoning-Focus Heads, crosses
# induction heads, circles retrieval heads.

# %% [markdown]
# {% set c = copying_heads %}The highest induction score is {{ c.induction_largest | number }} and
# the highest retrieval score {{ c.retrieval_largest | number }}; {% if c.induction_n +
# c.retrieval_n == 0 %}no head reaches the bound on either. By these scores no head of this model
# copies arbitrary tokens, so the Reasoning-Focus Heads are not such heads: what they look up, they
# look up in texts of their own kind only.{% else %}{{ c.induction_n }} and {{ c.retrieval_n }}
# heads reach the bound. In the table, *p* is the chance that a blind choice of as many heads shares
# as many; *p, groups* keeps heads together that share keys and values and so read alike.{% endif %}
#
# Both scores are measured on artificial texts. A head can copy on a real trace and score nothing
# on these, and the other way round.

# %% [markdown]
# ## Head by head
#
# Point at a head, or go to it with the arrow keys: its map on one trace appears below.

# %%
shown = sorted(traces, key=lambda t: not attention.corrects_itself(t))
shown = opening.opening_first(shown)[:n_maps]
by_mass = (
    to_reasoning.to_series().dropna().sort_values(ascending=False).index.tolist()
)
head_explorer(model, shown, mass, by_mass, marks=marks)

# %% [markdown]
# **Figure.** To explore: attention of the answer on the reasoning in `{{ model.name }}` by layer
# and head, and the chosen head's attention on one of several traces, a row for each token of the
# answer.

# %% tags=["hide-input"]
Markdown(f"The first trace is of {opening.SAID}.") if opening.opens(
    shown[0]
) else None

# %% [markdown]
# Heads of the same colour can read in different ways: some walk along, some rest in one place, some
# spread out. {doc}`The next page <04b_what_the_heads_do>` shows one trace as text, with what was
# read to write each token of its answer.

# %% [markdown]
# ## Are they heads for reasoning?
#
# The same borders laid over other texts: a passage of plain prose, and the run's questions strung
# together, which hold no reasoning either. What remains of the ranking there is due to places
# alone.

# %%
texts = {
    "prose": attention.PROSE,
    "questions": " ".join(problem.question for problem in problems),
}
elsewhere = {
    name: attention.on_other_text(
        model, mass, measured[:n_generic], text, rfhs, seed=seed
    )
    for name, text in texts.items()
}
run.write_record("other_texts", {n: asdict(e) for n, e in elsewhere.items()})
figures.reading_table(
    pd.DataFrame([asdict(e) for e in elsewhere.values()], index=list(texts))
)


# %% [markdown]
# {% set r = reasoning_focus_heads %}{% set o = other_texts %}On plain prose, the ranking of all
# heads has a correlation of {{ o.prose.spearman | number }} with that on the traces, and the two
# share {{ o.prose.shared }} of the top {{ r.k }} ({{ r.expected_shared | number(1) }} expected by
# chance); on questions these are {{ o.questions.spearman | number }} and {{ o.questions.shared }}.
# What exceeds chance is due to the place of the reasoning and not to what it says. What the
# Reasoning-Focus Heads give to the reasoning of a trace, minus what they give to the same stretch
# of prose, is {{ (100 * o.prose.excess) | number(1) }} points ({{ (100 * o.prose.low) | number(1)
# }} to {{ (100 * o.prose.high) | number(1) }}); minus the same stretch of questions, {{ (100 *
# o.questions.excess) | number(1) }} ({{ (100 * o.questions.low) | number(1) }} to {{ (100 *
# o.questions.high) | number(1) }}; n = {{ o.prose.n | counted("trace") }}{{ o.prose.n | few }},
# intervals over traces). Choosing the heads on the traces favours the traces a little.
#
# To a model of a closed world, like the bundled one, plain prose is noise, so there the first row
# bounds the question from one side only.
#
# ## Does it take training?
#
# A model with random weights has a strongest head too, and its ranking may be stable by places
# alone. So {term}`untrained twins <untrained twin>` read the same traces, and the top heads of each
# are put to the same tests.

# %%
summary = attention.summarise_ranking(
    ranking, reliability, null, recency, depth, len(watched)
)
run.write_record("reasoning_focus_heads", summary)
beside = attention.beside_untrained(
    model,
    attention.own_ranking(summary),
    attention.ranking_of(measured, k, n_shuffles, n_long, seed=seed),
    n_untrained,
)
run.write_record("untrained_ranking", beside)
figures.reading_table(beside.table(model.name))

# %% [markdown]
# ## What the ranking comes to
#
# {% set r = reasoning_focus_heads %}{% set u = untrained_ranking %}The strongest head, {{ r.top }},
# gives {{ r.top_mass | percent }} of its attention to the reasoning, {{ r.top_lift | number }}
# times what a uniform head would. {% if r.reliability is not none %}Two random halves of the traces
# rank all heads with a correlation of {{ r.reliability | number }}{% if head_lists.least_spearman
# is not none %}, the least similar kinds of traces with {{ head_lists.least_spearman | number }}{%
# endif %}.{% else %}There are too few traces to say whether another half of them would rank the
# heads alike.{% endif %}
#
# Of the top {{ r.k }} of {{ r.n_heads }} heads, {{ r.above_null }} {% if r.above_null == 1
# %}reads{% else %}read{% endif %} the reasoning more than equally long spans elsewhere, for which a
# preference for recent text is enough. {% if r.by_distance is not none %}By distance alone, the top
# {{ r.k }} would give the reasoning {{ r.by_distance | percent }} of the attention that rests on no
# sink; they give it {{ r.distance_share | percent }} (n = {{ r.distance_n | counted("trace") }}{{
# r.distance_n | few }}), and {{ r.beyond_distance }} of them {% if r.beyond_distance == 1 %}exceeds
# its{% else %}exceed their{% endif %} own distance profile by a 95 % interval.{% endif %} In the
# middle third of the layers there {% if r.in_middle == 1 %}is{% else %}are{% endif %} {{
# r.in_middle }}, with {{ r.expected_in_middle | number(1) }} expected by chance (test of nearness
# to the middle: {{ r.p_central | p_value }}).
#
# {% if u.n %}For comparison, {{ u.n | counted("untrained twin reaches", "untrained twins reach") }}
# up to {{ u.untrained.top_mass | percent }} for a head, {% if u.untrained.reliability is defined
# %}a correlation of {{ u.untrained.reliability | number }} between halves, {% endif %}and, of their
# own top {{ r.k }}, {{ u.untrained.above_null | number(0) }} above equally long spans, {{
# u.untrained.beyond_distance | number(0) }} beyond their distance profiles and {{
# u.untrained.in_middle | number(0) }} in the middle third. {% if r.top_mass > u.untrained.top_mass
# %}The strongest head reads the reasoning more than any of theirs.{% else %}The strongest head does
# not read the reasoning more than theirs: this ranking shows nothing that takes training.{% endif
# %} A stable ranking, and heads that pass the turned borders, are no sign of training.{% elif
# model.remote is defined %}Which of this takes training is not known: of a model on a host no
# untrained twin is made here.{% endif %}

# %% [markdown]
# ## The heads of the real distills
#
# The paper lists ten Reasoning-Focus Heads of each of its distills by their mass
# {cite:p}`zhang2025reasoning`. For two of the models the authors kept the masses of every head on
# 100 MATH-500 cases, and from these the code of this page computes what the lists leave out: lift,
# sink-free mass, and the comparison with the prompt at equal length. {doc}`/data` says where these
# numbers lie and how they are made anew.

# %%
distills = attention.read_distills()
run.write_record("published_heads", attention.summarise_published(distills))
ranked = attention.ranked_heads(distills)
printed = ranked[ranked["printed"]].reset_index(drop=True)
figures.reading_table(printed.drop(columns=["printed", "cut"]))

# %% [markdown]
# The printed heads in the order of their mass, with 95 % intervals over cases. *Rank* is the place
# among all heads of the model; *retrieval* says whether the paper lists the head as a retrieval
# head too.
#
# {% set p = published_heads %}{% for who, m in p.models.items() %}In {{ who }} a head gives the
# reasoning {{ m.mass | percent }} of the answer's attention on average, and {{ m.sink_free |
# percent }} of what it does not leave on BOS; a uniform head would give {{ m.uniform | percent }}.
# The mean lift is {{ m.lift | number }}, and {{ m.above }} of {{ m.heads }} heads {% if m.above ==
# 1 %}looks{% else %}look{% endif %} at the reasoning more than a uniform head ({{ m.above_sink_free
# }} with BOS left out). The printed heads have lifts of {{ m.printed_low | number }} to {{
# m.printed_high | number }}, where no head could have more than {{ m.ceiling | number }}. {% endfor
# %}At equal length {{ p.prefer_prompt }} of the {{ p.printed }} printed heads prefer the prompt to
# the reasoning.
#
# So the heads of the lists do not favour the reasoning beyond its length. They look at it about as
# much as its length alone would suggest, in models in which most heads look elsewhere. Before
# making more of this:
#
# - **Length.** The reasoning is nearly all that a uniform head would see (a median of {% for who, m
#   in p.models.items() %}{{ m.reasoning_tokens | number(0) }} tokens in {{ who }}{% if not
#   loop.last %}, {% endif %}{% endfor %}). A lift of 0.9 is close to the largest possible, and one
#   of 0.3 mostly says that attention goes to a few tokens elsewhere.
# - **Sink.** {% for who, m in p.models.items() %}In {{ who }} BOS takes {{ m.on_sink | percent }}.
#   {% endfor %}The sink-free shares leave it out and change little. Other sinks, such as the first
#   words of the prompt, cannot be left out, for the masses do not tell them from the rest of the
#   prompt; the preference for the prompt may consist of them.
# - **Recency.** {% for who, m in p.models.items() %}In {{ who }} the answer's own tokens, which
#   stand nearest, take {{ m.on_answer | percent }}, and would take {{ m.uniform_answer | percent }}
#   under uniform attention. {% endfor %}A head that looks a few tokens back has a low lift whatever
#   is written there. Masses alone cannot tell distance from content.
# - **Use.** A low lift does not show that the reasoning is not used: one token of it may carry all
#   that counts. {doc}`Stage 3 <05_activation_patching>` asks that.

# %%
first, second = distills


def distill_map(who):
    panel = {f"{who}: lift of the reasoning": distills[who].by_head("lift")}
    return figures.head_maps(
        panel, attention.printed_heads()[who], "Lift (1: a uniform head)"
    )


distill_map(first)

# %% [markdown]
# **Figure.** Lift of the reasoning in {{ (published_heads.models | list)[0] }} by layer and head,
# mean over the authors' 100 MATH-500 cases; marks are the paper's printed top 10 of each kind of
# head.

# %%
distill_map(second)

# %% [markdown]
# **Figure.** Lift of the reasoning in {{ (published_heads.models | list)[1] }} by layer and head,
# mean over the authors' 100 MATH-500 cases; marks are the paper's printed top 10 of each kind of
# head.

# %% [markdown]
# ## Where the printed heads sit
#
# In which layers they sit, and how many of them are printed as retrieval heads too. This needs only
# the lists, so all three distills have it. *p, groups* moves the heads of one key/value group
# together.

# %%
figures.reading_table(attention.printed_places(seed=seed))

# %% [markdown]
# {% set p = published_heads %}{% for who, m in p.models.items() %}In {{ who }}, {{ m.shared }} of
# the printed top 10 are in ours. {% endfor %}These stand in both in the same order but for a few
# places, so the masses are the same quantity. Of the {{ p.lost }} printed heads that our ranking
# lacks, {{ p.lost_below_cut }} lie below the cut by more than their interval over the 100 cases, so
# the choice of cases hardly explains them; and {{ p.lost_retrieval }} of the {{ p.lost }} are on
# the printed list of retrieval heads. That fits a list that was partly drawn up on other traces or
# by another rule; the printed material does not say which.

# %% [markdown]
# ## Exercises
#
# Write the function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercise needs
# the parameters and the cell after them, nothing else.

# %%
from r2a_utils.teaching.checks import attention as workshop

to_read = mass.sel(from_segment="answer", to_segment="reasoning")
head_mass = to_read.stack(place=("layer", "head")).values
drawn = np.random.default_rng(seed).integers(
    len(head_mass), size=(200, len(head_mass))
)

# %% [markdown]
# ### Exercise 4.1: Would other traces have named the same heads?
#
# Difficulty ●●○○○, importance ●●●●○, 10 minutes
#
# A list of ten heads says nothing of how sure it is. `masses[i, j]` is how much head `j` reads of
# the reasoning on trace `i`; each row of `draws` is a resample, as many indices of traces as there
# are, some more than once. For each resample rank the heads by their mean over its traces; return
# for each head the share of the resamples in which it is among the top `k`.


# %% tags=["stub"]
def share_in_top(masses, draws, k):
    """Share of resamples with each head among the top k: [head]."""
    raise NotImplementedError("means of the resamples, then the k largest of each.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `masses[draws]` has the dimensions resample, trace, head: take its mean over the traces.
# `np.argsort(-means, axis=1)[:, :k]` are the k largest of each row.
# ```


# %% tags=["solution"]
def share_in_top(masses, draws, k):
    """Share of resamples with each head among the top k: [head]."""
    means = masses[draws].mean(axis=1)
    top = np.argsort(-means, axis=1)[:, :k]
    return np.bincount(top.ravel(), minlength=masses.shape[1]) / len(draws)


# %% tags=["check"]
workshop.check_share_in_top(share_in_top)

# %%
shares = share_in_top(head_mass, drawn, k)
order = np.argsort(-head_mass.mean(axis=0))[: k + 4]
{
    figures.head_name(*divmod(int(place), model.n_heads)): round(
        float(shares[place]), 3
    )
    for place in order
}

# %% [markdown]
# **What you should see.** The heads from the strongest down, to a few beyond the list. The first
# are in the top of every resample; around the cut the share falls, and it need not fall evenly: a
# head whose mass varies much from trace to trace is sometimes in, sometimes out.
#
# **Comprehension.** All ten heads of a list have a share of 1. Is the list right?
#
# ```{admonition} Answer
# :class: dropdown
#
# It is stable among traces like these. Traces of another kind, another length or another way of
# asking may name other heads; that is a question for new traces, not for resamples of the old.
# ```

# %% [markdown]
# ## What this does not show
#
# - **What these heads do.** They read the reasoning; which of its tokens, and when, is
#   {doc}`the next page <04b_what_the_heads_do>`.
# - **That the model needs them.** Whether the answer depends on them is tested by switching them
#   off, in {doc}`stage 3 <06_head_interventions>`.
# - **That a head does one thing.** The same head may read any earlier text; a list of ten heads is
#   a cut through a continuous ranking.

# %% [markdown]
# ## What is missing
#
# What the heads do with the reasoning: whether they walk along it, turn where it turns, and read
# the value that counts. {doc}`The next page <04b_what_the_heads_do>` asks that.
