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
#     reads: [tables/problems, traces/with_reasoning, traces/without_reasoning]
#     writes: [
#       arrays/segment_mass_with_reasoning, records/segment_attention,
#       records/segment_attention_of_distills, records/looking, records/sink
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       remote: {choices: [local], or: [url]}
#       n_traces: {least: 1, most: 1000000}
#       batch_size: {least: 1, most: 1000000}
#       n_untrained: {least: 0, most: 100}
#       source: {choices: [model, written], or: [url]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       without: {choices: [finished, empty, direct, native]}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 2: where do the answer's tokens look?
#
# **Question.** While the model writes its answer, how much of its attention goes to the
# reasoning?
#
# **What you will see.** The attention of answer {term}`tokens <token>` on each of the six
# {term}`segments <segment>`, with and without reasoning, and its controls; where in the model
# (layer × {term}`head`) the attention on the reasoning lies; and the same figures from the authors'
# own data on the real {term}`distills <distill>`.
#
# **What we know so far.** {doc}`Stage 1 <02_answer_quality>` compared answers with and without
# reasoning. It cannot say whether an answer reads the reasoning that stands before it.

# %% [markdown]
# ## Parameters
#
# - `source`, `prompt_style`, `without`, `max_new_tokens`, `close_after`: how {doc}`the traces were
#   written <01_collect_traces>`; the problem at the end of this page is asked in the same way.
# - `n_untrained` twins of the model, of the same shape but with random weights, read the same
#   traces.
# - `remote`: whether {doc}`the weights stay on a host </rerun>`. Of such a model no twin is made,
#   and it writes nothing here.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
remote: bool | str = False
tags: dict | None = None
n_traces = 120
batch_size = 16
n_untrained = 3
source = "model"
prompt_style = "chat"
system = ""
without = "finished"
max_new_tokens = 512
close_after: int | None = None
seed = 0

# %%
from dataclasses import asdict

import pandas as pd
from IPython.display import Markdown

from r2a_utils import Run, attention, figures, load_model, paper
from r2a_utils.collecting import Sampling
from r2a_utils.explorers import ask_explorer
from r2a_utils.texts import CONDITIONS, SEGMENTS, problems_from_table, read_traces

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
problems = problems_from_table(run.read_table("problems"))
traces = {}
for name in CONDITIONS:
    path = run.completions_path(name)
    found = read_traces(path, model.tokenizer, problems, model.tags)
    traces[name] = found[:n_traces]
pd.Series({name: len(found) for name, found in traces.items()}, name="traces")

# %% [markdown]
# ## Segment mass
#
# The {term}`segment mass` $m(S \to T) = \frac{1}{|S|} \sum_{i \in S} \sum_{j \in T} A_{ij}$ is
# the mean attention that the tokens of segment $S$ pay to segment $T$. The masses of a head from
# one segment add up to 1. They are computed exactly, without ever holding a token × token matrix:
# attention is run once more with the values replaced by the indicator of each segment.

# %%
mass = {
    name: attention.segment_mass(model, found, batch_size=batch_size)
    for name, found in traces.items()
}
run.write_array("segment_mass_with_reasoning", mass["with_reasoning"])

# %% [markdown]
# ## The six boxes
#
# Each {term}`trace` gives one value for each segment: the mean over all layers and heads.

# %%
boxes = {
    figures.CONDITION_LABELS[name]: attention.answer_by_segment(masses).values
    for name, masses in mass.items()
}
figures.six_boxes(boxes)

# %% [markdown]
# **Figure.** Attention of the answer's tokens on each of the six segments in `{{ model.name }}`,
# with and without reasoning. A box holds the middle half of the traces, its line is the median, and
# single points are traces far outside; the number beside it is the mean.

# %% [markdown]
# Compare the two panels box by box. With reasoning, the box of the reasoning shows how much
# attention a long text at that place draws. Without, a short prefilled thought stands there, and
# its box shows what any text at that place draws.
#
# The boxes do not say that the reasoning is *preferred*. Where it is the longest segment, a head
# that looks at everything alike gives it most as well.
#
# ## Is it more than length and sink?
#
# Two corrections. The {term}`uniform null` is the mass of a head that looks at everything alike,
# trace by trace; {term}`lift` is mass divided by this null. And where much attention rests on one
# token, the {term}`attention sink` {cite:p}`xiao2024sinks`, the sink-free mass is the share of what
# is left. The sink is looked for in a short text of plain prose, without reasoning.

# %%
sink = attention.find_sink(model)
run.write_record("sink", asdict(sink))

# %% [markdown]
# {% if sink.position is none %}No sink is found in `{{ model.name }}`: the token with most
# attention draws {{ sink.times_uniform | number(1) }} times what a head that looks at everything
# alike would give it, and a sink would draw {{ sink.least | number(0) }} times or more. So nothing
# is left out below, and the sink-free mass is the mass itself.{% elif sink.position == 0 %}The sink
# of `{{ model.name }}` is its first token, `{{ sink.token }}`{% if not sink.is_bos %}, which is not
# a BOS: the model has none of its own, and what is called BOS here is the first token that it
# reads{% endif %}. It draws {{ sink.share | percent }} of the attention, {{ sink.times_uniform |
# number(1) }} times what a head that looks at everything alike would give it.{% else %}The sink of
# `{{ model.name }}` is not its first token but token {{ sink.position + 1 }} of what it reads,
# whatever stands there. It draws {{ sink.share | percent }} of the attention, {{ sink.times_uniform
# | number(1) }} times what a head that looks at everything alike would give it.{% endif %}

# %%
with_reasoning = mass["with_reasoning"]
controls = attention.segment_controls(with_reasoning)
figures.reading_table(controls)

# %%
measured = ["mass", "sink-free", "uniform null"]
figures.segment_shares({name: controls[name].values for name in measured})

# %% [markdown]
# **Figure.** The answer's attention by segment in `{{ model.name }}` with reasoning, three ways: as
# measured, with the share on the sink left out, and as it would be for a head that looks at
# everything alike.

# %% [markdown]
# Compare the first bar with the last: a segment that is longer in the first draws more attention
# than its length explains. One that is longer in the second bar than in the first had been hidden
# by the sink.
#
# The null knows lengths and order only. A head that always looks a fixed distance back differs from
# it without knowing what reasoning is; {doc}`the next page <04_reasoning_focus_heads>` compares the
# heads with ones that know nothing but distance.
#
# ## Does it take training?
#
# Heads that were never trained look somewhere too, and some of that falls on the reasoning. So
# {term}`untrained twins <untrained twin>`, models of the same shape with random weights, read the
# same traces. Lifts are averaged over traces here.

# %%
beside = attention.beside_untrained(
    model,
    attention.looking(with_reasoning),
    attention.looking_of(traces["with_reasoning"], batch_size),
    n_untrained,
)
most = beside.untrained.get("largest_lift")
above = most and attention.heads_beyond(with_reasoning, most)
run.write_record("looking", {**asdict(beside), "above_untrained": above})
figures.reading_table(beside.table(model.name))

# %% [markdown]
# {% set l = looking %}{% if l.n %}The largest lift of any head of {{ l.n | counted("untrained
# twin") }} is {{ l.untrained.largest_lift | number }}; at most {{ l.untrained.above_uniform |
# number(0) | int | counted("head") }} of a twin {% if l.untrained.above_uniform == 1 %}lies{% else
# %}lie{% endif %} above a uniform head, and the mean lift is {{ l.untrained.lift | number }} at
# most. {% if l.above_untrained %}Of `{{ model.name }}`, {{ l.above_untrained | counted("head
# exceeds", "heads exceed") }} the largest of theirs.{% else %}No head of `{{ model.name }}` exceeds
# it: by this measure nothing tells the model from one that was never trained.{% endif %}{% else
# %}No untrained twin was measured in this run (`n_untrained`), so it is not known which of these
# numbers take training{% if model.remote is defined %}: of a model on a host none is made here{%
# endif %}.{% endif %}
#
# ## Layer by layer, head by head

# %%
targets = ("bos", "prompt", "reasoning", "answer")
from_answer = with_reasoning.sel(from_segment="answer").mean("trace")
figures.head_maps(
    {
        f"answer → {figures.SEGMENT_LABELS[t]}": from_answer.sel(
            to_segment=t
        ).values
        for t in targets
    }
)

# %% [markdown]
# **Figure.** Attention of the answer on four segments in `{{ model.name }}`, layer by layer (bottom
# to top) and head by head, mean over {{ segment_attention.n | counted("trace") }}{{
# segment_attention.n | few }}, all maps on one scale.

# %%
summary = attention.summarise_segments(with_reasoning, mass["without_reasoning"])
run.write_record("segment_attention", summary)

# %% [markdown]
# Answer tokens give {{ segment_attention.answer.reasoning | percent(1) }} of their attention to the
# reasoning, {{ segment_attention.lift_reasoning | number }} times what a uniform head would ({{
# segment_attention.uniform_reasoning | percent(1) }}){% if sink.position is not none %}; of what
# does not rest on the sink it is {{ segment_attention.sink_free_reasoning | percent(1) }}{% endif
# %}. Without reasoning, they give the prefilled thought {{ segment_attention.prefilled | percent(1)
# }}. The head that reads the reasoning most gives it {{ segment_attention.largest_head | percent
# }}; {{ segment_attention.heads_above_uniform }} of {{ segment_attention.n_heads | counted("head")
# }} {% if segment_attention.heads_above_uniform == 1 %}gives{% else %}give{% endif %} it more than
# a uniform head would. On average over its heads, layer {{ segment_attention.top_layer }} reads it
# most, of layers 0 to {{ segment_attention.n_layers - 1 }}.{% if segment_attention.attending <
# segment_attention.n_layers %} Only {{ segment_attention.attending }} of {{
# segment_attention.n_layers }} layers have attention; the others are missing, not zero.{% endif %}
# The masses were {% if segment_attention.engine == "fast" %}read while the model ran{% else
# %}summed from the weights that the model forms when it attends plainly, which is slow{% endif %}.
#
# A mean lift below 1, where there is one, does not say that the reasoning is shunned: the mean runs
# over all heads, and heads that look at their own neighbourhood, which here is the answer, pull it
# down. A layer whose heads look at everything alike reads the longest segment most.
#
# A map of means cannot show whether a bright head is bright on every trace or on a few; the
# intervals are on {doc}`the next page <04_reasoning_focus_heads>`.
#
# ## The same from the real distills
#
# The authors kept the masses of 100 MATH-500 cases for two of their models
# {cite:p}`zhang2025reasoning`. The six boxes and the controls are made from those numbers by the
# same code ({doc}`/data`).

# %%
distills = attention.read_distills()
boxes = {
    f"{who}, {figures.CONDITION_LABELS[name]}": distill.answer[name]
    for who, distill in distills.items()
    for name in CONDITIONS
}
figures.six_boxes(boxes)

# %% [markdown]
# **Figure.** Attention of the answer's tokens on each segment in the authors' data: two distilled
# R1 models on 100 MATH-500 cases, with and without reasoning.

# %%
shares = {
    f"{who}, {column}": values.values
    for who, distill in distills.items()
    for column, values in distill.controls[measured].items()
}
figures.segment_shares(shares)

# %% [markdown]
# **Figure.** The answer's attention by segment in the authors' data with reasoning: as measured,
# with the share on BOS left out, and under uniform attention.

# %%
run.write_record(
    "segment_attention_of_distills", attention.lifts_of_distills(distills)
)

# %% [markdown]
# {% for name, lift in segment_attention_of_distills.lift_reasoning.items() %} In {{ name }} the
# answer gives the reasoning {{ lift | number }} times what a uniform head would; {{
# segment_attention_of_distills.above[name] }} of its {{ segment_attention_of_distills.heads[name]
# }} heads {% if segment_attention_of_distills.above[name] == 1 %}gives{% else %}give{% endif %} it
# more.{% endfor %} Their reasoning is far longer than the bundled model's and is nearly all that a
# uniform head would see: such a head would spend most of its attention there, and hardly any head
# of theirs does.
#
# {% set theirs = segment_attention_of_distills.lift_reasoning.get(collection.dataset) %}{% if
# collection.given and theirs %}The texts of this run are traces of {{ collection.dataset }}, and
# `{{ model.name }}`, which only reads them, gives their reasoning {{
# segment_attention.lift_reasoning | number }} times a uniform head's share, against {{ theirs |
# number }}. {% if (segment_attention.lift_reasoning - theirs) | abs < 0.1 %}So the mean lift does
# not tell a model that writes such texts from one that was not trained to.{% endif %}{% endif %}
#
# The masses come from sampled traces of one benchmark, on raw prompts without a chat template.
# {doc}`The next page <04_reasoning_focus_heads>` says what a low lift does not show.
#
# ## Beside the paper
#
# The paper's means over 100 MATH-500 cases for the real distills, and this run's model in the last
# row. The rows differ in model, problems and lengths, so a row's order says more than its numbers.

# %%
means = paper.published()["stage2_mean_segment_mass_answer"]
rows = {name: means[name] for name in paper.published()["models"]}
compared = pd.DataFrame(rows, index=means["columns"]).T[list(SEGMENTS)]
compared.loc[f"{model.name} (this run)"] = controls["mass"]
figures.reading_table(compared, digits=4)

# %% [markdown]
# ## Try it yourself
#
# A problem of your own, answered in both {term}`conditions <condition>`: the shares of the six
# segments, and both traces as text, as read by the three heads that look at the reasoning most. In
# JupyterLab (`make lab`) the box takes any problem; the book shows the one on which it opens or,
# where the run does not have it, the run's first.

# %%
from r2a_utils.tiny import opening

to_reasoning = from_answer.sel(to_segment="reasoning")
looking = to_reasoning.to_series().nlargest(3).index.tolist()
sampling = Sampling(max_new_tokens, close_after=close_after)
asked = {"sampling": sampling, "prompt_style": prompt_style, "without": without}
asked["system"] = system
absent = "The model did not write the traces of this run, so it is not asked here."
[first, *_] = opening.opening_first(problems)
ask_explorer(
    model, looking, first.question, **asked
) if source == "model" else Markdown(absent)

# %% [markdown]
# **Figure.** To explore: one problem put to `{{ model.name }}` with and without reasoning. Bars:
# the answer's attention by segment, mean over all heads. Below, both traces; point at a token of
# an answer to see what it reads.

# %% tags=["hide-input"]
Markdown(f"This is {opening.SAID}.") if source == "model" and opening.opens(
    first
) else None

# %% [markdown]
# {% if not collection.given %}The two bars are one problem: an example beside the boxes above,
# which hold the whole run. Where they differ most, the texts show what there was to read.{% endif
# %}

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else.

# %%
import numpy as np
import torch

from r2a_utils.models import read_attention
from r2a_utils.teaching.checks import attention as workshop

first_trace = traces["with_reasoning"][0]
from_part = first_trace.segments["answer"]
to_part = first_trace.segments["reasoning"]
first_mass = attention.segment_mass(model, [first_trace])[0]
exact_mass = first_mass.sel(from_segment="answer", to_segment="reasoning")

# %% [markdown]
# ### Exercise 3.1: The mass of one head
#
# Difficulty ●○○○○, importance ●●●●●, 10 minutes
#
# Write the formula at the top of this page for one head. `weights[i, j]` is how much token `i`
# looks at token `j`; each row sums to 1. Return the {term}`segment mass` from the slice `source`
# to the slice `target`.


# %% tags=["stub"]
def mass_of_head(weights, source, target):
    """m(source → target) of one head from its attention weights [token, token]."""
    raise NotImplementedError("add over target columns, average over source rows.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Rows are queries, the tokens that look. The sum over one row's target columns is a share between
# 0 and 1, and so is the mean of such shares.
# ```


# %% tags=["solution"]
def mass_of_head(weights, source, target):
    """m(source → target) of one head from its attention weights [token, token]."""
    return weights[source, target].sum(axis=1).mean()


# %% tags=["check"]
workshop.check_mass_of_head(mass_of_head)

# %%
place = np.unravel_index(np.nanargmax(exact_mass), exact_mass.shape)
top_layer, top_head = map(int, place)
whole = attention.attention_rows(
    model, first_trace, [(top_layer, top_head)], slice(0, len(first_trace))
).values[0]
{
    "yours": float(mass_of_head(whole, from_part, to_part)),
    "the page's": float(exact_mass[top_layer, top_head]),
}

# %% [markdown]
# **What you should see.** The same number twice, up to rounding, for the head that reads the
# reasoning of the first trace most.
#
# **Comprehension.** A head has mass 0.9 on a reasoning of 900 tokens in a trace of 1000. Does it
# focus on the reasoning?
#
# ```{admonition} Answer
# :class: dropdown
#
# The number alone cannot say. A head that looks at everything alike has about as much there. It is
# the {term}`lift`, the mass over that of such a head, that tells a taste from a length.
# ```

# %% [markdown]
# ### Exercise 3.2: The mass without the weights
#
# Difficulty ●●●○○, importance ●●●●○, 20 minutes
#
# The weights of a long trace are a large matrix for every head. What a head has are its queries
# and keys. Return the same mass from `q` and `k` [token, width]: the scores are their products
# times `scale`; no token sees a later one; the softmax makes each row sum to 1.
#
# It is enough to compute the rows of the source. Can you do it without the others?


# %% tags=["stub"]
def mass_from_q_k(q, k, scale, source, target):
    """m(source → target) of one head from its queries and keys [token, width]."""
    raise NotImplementedError("scores, causal mask, softmax, then as before.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# The query at position `i` may look at the keys `0 … i`: with `positions = np.arange(len(k))`, the
# forbidden places of the source's rows are `positions > positions[source][:, None]`. Setting a
# score to `-np.inf` before the softmax gives it no weight.
# ```


# %% tags=["solution"]
def mass_from_q_k(q, k, scale, source, target):
    """m(source → target) of one head from its queries and keys [token, width]."""
    positions = np.arange(len(k))
    scores = q[source] @ k.T * scale
    scores[positions > positions[source][:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights[:, target].sum(axis=1).mean()


# %% tags=["check"]
workshop.check_mass_from_q_k(mass_from_q_k)


# %%
group = top_head // (model.n_heads // model.n_kv_heads)


def keep_head(layer, query, key, value, mask, scaling, z):
    """Queries and keys of the top head, read inside the running model."""
    both = torch.stack([query[0, top_head], key[0, group]])
    return both.float().cpu() * scaling**0.5


token_ids = torch.tensor([first_trace.token_ids], device=model.device)
q_and_k = read_attention(model, token_ids, keep_head, [int(top_layer)])[0].numpy()
{
    "yours": float(mass_from_q_k(*q_and_k, 1.0, from_part, to_part)),
    "the page's": float(exact_mass[top_layer, top_head]),
}

# %% [markdown]
# **What you should see.** The same number as before. (The cell above hides half of the scale in
# the queries and half in the keys, and hands over 1.)
#
# **Comprehension.** This page never forms the weights of any head. How can it still be exact?
#
# ```{admonition} Answer
# :class: dropdown
#
# Attention multiplies the weights by the values. If the value of a token is 1 inside the target
# and 0 outside, what comes out for a query is the sum of its weights on the target. So the masses
# ride along as further columns of the values, and any fast kernel that never forms the matrix
# computes them.
# ```

# %% [markdown]
# ### Exercise 3.3: What length alone explains
#
# Difficulty ●●○○○, importance ●●●●●, 10 minutes
#
# A head that looks at everything alike gives each token that it can see the same weight. Return
# its mass from `source` to `target`, exactly, from the two slices alone. It is the {term}`uniform
# null`; mass over null is the {term}`lift`.


# %% tags=["stub"]
def uniform_null(source, target):
    """m(source → target) of a head that looks at all tokens up to its own alike."""
    raise NotImplementedError("a share for each source token, then their mean.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# The token at position `i` sees `i + 1` tokens, itself among them. Of the target it sees those
# from `target.start` up to `i`, and never more than there are: `np.clip` does both ends.
# ```


# %% tags=["solution"]
def uniform_null(source, target):
    """m(source → target) of a head that looks at all tokens up to its own alike."""
    position = np.arange(source.start, source.stop)
    visible = np.clip(position + 1, target.start, target.stop) - target.start
    return (visible / (position + 1)).mean()


# %% tags=["check"]
workshop.check_uniform_null(uniform_null)

# %%
null_mass = uniform_null(from_part, to_part)
{
    "uniform head": float(null_mass),
    "lift of the top head": float(exact_mass.max() / null_mass),
    "median lift of all heads": float((exact_mass / null_mass).median()),
}

# %% [markdown]
# **What you should see.** On this trace the top head reads the reasoning more than its length
# explains. Compare the median: it says whether most heads do.
#
# **Comprehension.** Why is the null of a segment to itself not simply its share of the trace?
#
# ```{admonition} Answer
# :class: dropdown
#
# The first token of the segment sees only itself in it, the second two, and so on; and each sees
# another number of tokens in all. The share of the trace would count tokens that were not yet
# written.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That what is read is used.** Attention is where information can come from, not what is done
#   with it. {doc}`Stage 3 <05_activation_patching>` intervenes.
# - **That the mean tells the story.** A mean over all heads hides the few that specialise;
#   {doc}`the next page <04_reasoning_focus_heads>` looks for them.
# - **That masses compare across models.** A long answer looks back at itself, a short one cannot;
#   sinks differ by family. Lift and sink-free mass lessen this, and do not remove it.
#
# ## What is missing
#
# Which heads read the reasoning: {doc}`the next page <04_reasoning_focus_heads>` ranks them.
