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
#     reads: [tables/problems, traces/with_reasoning, tables/reasoning_focus_heads]
#     writes: [traces/sampled_again, tables/first_error_hits, records/failed_traces]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       source: {choices: [model, written], or: [url]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       temperature: {least: 0, most: 10}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
#       fewest_failed: {least: 1, most: 1000000}
#       n_asked_again: {least: 1, most: 1000000}
#       sampling_temperature: {above: 0, most: 10}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 2: debugging a failed trace
#
# **Question.** A wrong answer with right-looking steps before it: what was read when it was
# written, and does that lead to the error?
#
# **What you will see.** A failed {term}`trace` beside a right one, shaded by what the
# {term}`Reasoning-Focus Heads <RFH>` read; what each sentence gave to the answer; and, over all
# failed traces, how often the sentence that is read most holds the first error.
#
# **What we know so far.** {doc}`The heads <04_reasoning_focus_heads>` that read the reasoning most
# are known, and {doc}`where they look <04b_what_the_heads_do>` while the answer is written. Whether
# that says anything about a wrong answer is not.{% if collection is defined and collection.given
# %} The texts of this run were given to the model: it answered nothing, so that no trace can have
# failed, and none is wrong or right.{% endif %}

# %% [markdown]
# ## Parameters
#
# `source`, `prompt_style`, `temperature`, `max_new_tokens` and `close_after` are what {doc}`stage 1
# <01_collect_traces>` had: where fewer than `fewest_failed` traces failed, a model that wrote its
# traces itself is asked again in the same way, `n_asked_again` problems at `sampling_temperature`.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
source = "model"
prompt_style = "chat"
system = ""
temperature = 0.0
max_new_tokens = 512
close_after: int | None = None
fewest_failed = 30
n_asked_again = 400
sampling_temperature = 1.0
seed = 0

# %%
from dataclasses import asdict

import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import Run, answers, attention, collecting, figures, load_model
from r2a_utils.explorers import trace_explorer
from r2a_utils.models import every_head
from r2a_utils.texts import answer_span, cues, problems_from_table, read_completions
from r2a_utils.tiny import review

run = Run.open(run_dir)
model = load_model(
    model_name,
    dtype=dtype,
    device=device,
    revision=revision,
    display_name=display_name,
    tags=tags,
)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))
completions = read_completions(run.completions_path("with_reasoning"), problems)
ranking = run.read_table("reasoning_focus_heads")
rfhs = attention.head_pairs(ranking)

# %% [markdown]
# ## The failed traces
#
# A failed trace is one whose boxed answer is wrong. If the run has fewer than `fewest_failed` of
# them, and it can be known what is wrong in them (as in the bundled world), the model is asked
# again, and its tokens are drawn at `sampling_temperature`.

# %%
written_by = model.tokenizer, model.tags
by_grade = answers.traces_by_grade(completions, problems, *written_by)
failed_at_first = len(by_grade[False])
reviewed = all(map(review.reviewable, by_grade[True] + by_grade[False]))
asked_again = failed_at_first < fewest_failed and source == "model" and reviewed
if asked_again:
    drawn = collecting.collect_completions(
        model,
        problems[:n_asked_again],
        path=run.completions_path("sampled_again"),
        sampling=collecting.Sampling(
            max_new_tokens,
            sampling_temperature,
            seed=seed,
            close_after=close_after,
        ),
        prompt_style=prompt_style,
        system=system,
    )
    by_grade = answers.traces_by_grade(drawn, problems, *written_by)
failed, right = by_grade[False], by_grade[True]
errors = {id(t): review.first_error(t) for t in failed if review.reviewable(t)}
known = [t for t in failed if errors.get(id(t)) is not None]

# %%
counts = {"right": len(right), "wrong": len(failed)}
counts |= {"wrong, with a known first error": len(known)}
pd.DataFrame({"traces": counts}).rename_axis("answer")

# %% [markdown]
# Shown is the first wrong trace with a known error and more than one step, beside the right trace
# of the same kind that is nearest to it in length. Each token is shaded by how much of it was read
# through the Reasoning-Focus Heads to write the boxed answer.

# %%
examples = [t for t in known if t.meta["steps"] > 1] or failed
nothing = Markdown("No trace of this run has a wrong answer: nothing to show.")


def shaded(trace, title):
    read = attention.answer_read(model, trace, rfhs)
    return figures.coloured_tokens(
        trace.tokens, read, trace.segments, cues(trace), title
    )


shaded(examples[0], "A wrong answer") if examples else nothing

# %% [markdown]
# **Figure.** A trace of `{{ model.name }}` that ends in a wrong answer, each token shaded by the
# attention of the Reasoning-Focus Heads where the boxed answer was written; cues underlined.

# %%
beside = attention.nearest_right(examples[0], right) if examples and right else None
shaded(beside, "A right answer") if beside else nothing

# %% [markdown]
# **Figure.** A trace of `{{ model.name }}` that ends in a right answer to a problem of that kind,
# each token shaded by what the Reasoning-Focus Heads read where the boxed answer was written.

# %% [markdown]
# The tokens with the strongest shade are those that were read most when the answer was written. The
# comparison is there to see whether the two texts differ in the place that is read, or only in what
# stands there. It is a single pair.
#
# The same for each sentence of the wrong trace, and beside it the {term}`direct contribution` of
# the heads to the token {cite:p}`elhage2021circuits`: attention-weighted value vectors through the
# output weights and the unembedding, with the final norm's scale held fixed, in nats above the
# vocabulary's mean.


# %%
ways = {"attention": attention.answer_read}
if examples and attention.has_contributions(model, examples[0]):
    ways["contribution"] = attention.answer_contribution


def by_sentence(trace):
    """Reading and direct contribution of the RFHs, sentence by sentence."""
    found = {way: read(model, trace, rfhs) for way, read in ways.items()}
    error = errors.get(id(trace))
    given = found.get("contribution")
    return attention.debugging_table(trace, found["attention"], given, error)


figures.reading_table(by_sentence(examples[0])) if examples else nothing

# %% [markdown]
# A sentence can be read much and give little, if what it holds does not point towards the written
# token, and the other way round. The contribution is direct: it leaves out what later layers make
# of a head's result. In a model family that scales or normalises what its layers add, single heads
# have no such contribution, and the column is missing.
#
# So a wrong answer is debugged in four steps: choose the token of the answer that is wrong; see
# what was read to write it; see what that contributed; and go to the sentence in which that value
# first went wrong. The view opens on what stands in the box. Choose another reader, then "whole
# sentences".


# %%
def facts(trace):
    """What is known of a failed trace, for the top of its page."""
    right_answers = {problem.id: problem.answer for problem in problems}
    error = errors.get(id(trace))
    wrong = {"First error": "".join(trace.tokens[error]).strip()} if error else {}
    return {"Right answer": right_answers[trace.problem_id]} | wrong


trace_explorer(model, examples[:20], rfhs, facts) if examples else nothing

# %% [markdown]
# **Figure.** To explore: the wrong answer from above on one page, and others to choose. Shaded is
# what its answer reads through the Reasoning-Focus Heads; the right answer and the sentence with
# the first error stand at the top.

# %% [markdown]
# ## Does the sentence that is read most hold the first error?
#
# Over all failed traces whose first error is known: how often the sentence that is read most (or
# contributes most) is the one with the error, against a blind choice, for the Reasoning-Focus Heads
# and for the mean of all heads.

# %%
all_heads = every_head(model)
wanted = {"RFHs": rfhs, "all heads": all_heads}
readers = {
    f"{name}, {way}": [read(model, trace, which) for trace in known]
    for name, which in wanted.items()
    for way, read in ways.items()
}
places = [errors[id(trace)] for trace in known]
hits = attention.error_hits(known, places, readers) if known else None
absent = "No failed trace has a known first error: nothing to count."
figures.reading_table(hits.set_index("reader")) if known else Markdown(absent)

# %% tags=["hide-input"]
debugged = {"n": len(known), "asked_again": asked_again, "failed": len(failed)}
debugged |= {"failed_at_first": failed_at_first, "first_temperature": temperature}
if known:
    kinds = pd.Series([trace.meta["family"] for trace in known]).value_counts()
    debugged |= {"kind": kinds.index[0], "of_kind": kinds.iloc[0] / len(known)}
    debugged |= asdict(attention.top_sentences(known, readers["RFHs, attention"]))
    rates = hits.set_index("reader").drop(columns="n")
    for short, reader in (("rfh", "RFHs, attention"), ("all", "all heads, attention"),
                          ("given", "RFHs, contribution")):  # fmt: skip
        if reader in rates.index:
            debugged |= rates.loc[reader].add_prefix(f"{short}_").to_dict()
    run.write_table("first_error_hits", hits)
run.write_record("failed_traces", debugged | {"temperature": sampling_temperature})

# %% [markdown]
# {% set d = failed_traces %}{% if d.asked_again %}{% if d.first_temperature == 0 %}Greedy decoding
# {% else %}Sampling at temperature {{ d.first_temperature }} {% endif %}left too few wrong answers
# ({{ d.failed_at_first }}), so the model was asked again at temperature {{ d.temperature }}, which
# gave {{ d.failed }}. {% endif %}{% if d.n %}In {{ d.rfh_hits | int }} of {{ d.n }} failed traces
# ({{ d.rfh_rate | percent }}, interval {{ d.rfh_ci_low | percent }} to {{ d.rfh_ci_high | percent
# }}) the sentence that the Reasoning-Focus Heads read most holds the first error; a blind choice
# would hit it in {{ d.rfh_chance | percent }} (as many hits or more by chance: {{ d.rfh_p | p_value
# }}), the mean of all heads hits it in {{ d.all_rate | percent }}{% if d.given_rate is defined %},
# and the direct contribution of the Reasoning-Focus Heads in {{ d.given_rate | percent }}{% endif
# %}. In {{ d.at_end | percent }} of the traces the sentence read most is one of the last two of the
# reasoning, where a wrong answer is stated anyway.{% if d.earlier_n == 1 %} In the one trace in
# which it stands earlier, it is {% if d.earlier_wrong < 0.5 %}not {% endif %}wrong; of all earlier
# sentences of that trace, {{ d.earlier_by_chance | percent }} are wrong.{% elif d.earlier_n %} In
# {{ d.earlier_wrong | percent }} of the {{ d.earlier_n }} traces in which it stands earlier, it is
# wrong; of all earlier sentences there, {{ d.earlier_by_chance | percent }} are.{% endif %}
#
# {% if d.rfh_p <= 0.05 %}So the sentence read most points at the first error more often than chance
# would.{% elif d.n >= 20 and d.at_end > 0.5 %}So reading back from a wrong answer leads mostly to
# the end of the reasoning. That it leads to the first error more often than chance is not shown;
# the interval says how often it may. To find where the reasoning went wrong, sentences must be
# changed and the answer watched: {doc}`stage 3 <05_activation_patching>`.{% else %}That the
# sentence read most holds the first error more often than chance, {{ d.n }} {% if d.n == 1 %}trace
# does{% else %}traces do{% endif %} not show.{% endif %} {% if d.of_kind == 1 %}All traces
# counted{% else %}Of the traces counted, {{ d.of_kind | percent }}{% endif %} are of one kind of
# problem ({{ d.kind }}){% if d.asked_again %}, and all were drawn at another temperature than the
# run's other answers{% endif %}.{% endif %}

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else.

# %%
import torch

from r2a_utils import engine, models
from r2a_utils.teaching.checks import attention as workshop

(layer, head) = rfhs[0]
boxed = next(c for c in completions if "\\boxed{" in c.text)
told = boxed.to_trace(model.tokenizer, tags=model.tags)
writes = answer_span(told).start  # the token in the box; the one before writes it

# %% [markdown]
# ### Exercise 4.3: What a head gives to a token
#
# Difficulty ●●●○○, importance ●●●●○, 15 minutes
#
# Reading is not giving. At one position a head adds to the residual stream a sum over the tokens
# that it reads: the value vector of each, through the head's output weights, times the attention
# weight. The logit of a token is the product with a direction. So each token that is read has its
# own share in the logit. Return these shares, one for each token, from `weights` [token], `values`
# [token, head_dim], `into` [head_dim, hidden] (the head's part of the output weights) and
# `direction` [hidden]. It is the {term}`direct contribution`.


# %% tags=["stub"]
def contribution_of_head(weights, values, into, direction):
    """What each token read gives, through this head, to the logit: [token]."""
    raise NotImplementedError("values through W_O onto the direction, weighted.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `values @ into` are vectors in the residual stream, one for each token; `@ direction` makes
# numbers of them. Multiplying `into @ direction` first is the same and cheaper.
# ```


# %% tags=["solution"]
def contribution_of_head(weights, values, into, direction):
    """What each token read gives, through this head, to the logit: [token]."""
    return weights * (values @ (into @ direction))


# %% tags=["check"]
workshop.check_contribution_of_head(contribution_of_head)

# %%
in_nats = {}
if attention.has_contributions(model, told):
    group = head // (model.n_heads // model.n_kv_heads)
    recorded = engine.run_with_cache(model, told.token_ids)
    residual = recorded.activations["resid"][-1][[writes - 1]]
    wanted_id = torch.tensor([told.token_ids[writes]], device=residual.device)
    query = slice(writes - 1, writes)
    shares = contribution_of_head(
        attention.attention_rows(model, told, [(layer, head)], query).values[0, 0],
        recorded.values[layer][group].float().cpu().numpy(),
        models.head_outputs(model, layer)[head].float().cpu().numpy(),
        models.logit_directions(model, residual, wanted_id)[0].cpu().numpy(),
    )
    exact = attention.answer_contribution(model, told, [(layer, head)])
    largest = np.argsort(-shares)[:3]
    in_nats = {f"{told.tokens[j]!r} at {j}": float(shares[j]) for j in largest}
    in_nats["all tokens"] = float(shares.sum())
    in_nats["all tokens, by the page's function"] = float(exact.sum())
in_nats or "single heads of this model have no share in its logits"

# %% [markdown]
# **What you should see.** The three tokens that give the boxed token most through the strongest
# head, in nats, and two equal sums. The sum may well be negative: the head that reads the
# reasoning most need not be one that writes the answer.
#
# **Comprehension.** A head reads a token with weight 0.8 and the contribution of that token is 0.
# How can that be?
#
# ```{admonition} Answer
# :class: dropdown
#
# What the head takes from the token may point nowhere along the direction of this
# logit. It may still matter: later layers can read it and turn it into something else. Direct
# contribution sees the straight way only.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That reading explains an error.** The sentence that is read most need be neither where
#   the answer came from nor where it became wrong.
# - **That the heads caused the answer.** A direct contribution is one way of many by which a head
#   may matter, and it is measured without changing anything.
#
# ## What is missing
#
# Whether the answer depends on what these heads read. Reading is seen by looking; using shows
# only when something is changed: {doc}`stage 3 <05_activation_patching>`.
