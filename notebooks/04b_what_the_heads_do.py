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
#     writes: [
#       tables/trajectory_tracking, records/trajectory_tracking, records/cue_lift,
#       records/corrected_values, records/untrained_following
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       n_maps: {least: 1, most: 1000000}
#       n_long: {least: 1, most: 1000000}
#       n_cued: {least: 1, most: 1000000}
#       n_untrained: {least: 0, most: 100}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 2: what the heads do
#
# **Question.** The {term}`Reasoning-Focus Heads <RFH>` read the reasoning while the answer is
# written. Do they follow it, turn where it turns, and take the value that counts?
#
# **What you will see.** How {term}`heads <head>` walk along the reasoning, what they read at
# {term}`cues <cue>` and after a correction, and maps of the strongest ones.
#
# **What we know so far.** {doc}`The ranking <04_reasoning_focus_heads>` says how much of their
# attention the top heads give to the reasoning, and how far that can be trusted. It does not say
# what they read there.

# %% [markdown]
# ## Parameters
#
# The first `n_long` {term}`traces <trace>` with a long answer and the first `n_cued` with a cue are
# measured in the model and in `n_untrained` twins of it with random weights; `n_maps` traces are
# drawn as maps.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
n_maps = 3
n_long = 60
n_cued = 100
n_untrained = 3
seed = 0

# %%
import numpy as np
from IPython.display import Markdown

from r2a_utils import attention, figures, load_model
from r2a_utils.explorers import trace_explorer
from r2a_utils.runs import Run
from r2a_utils.texts import cues, problems_from_table, read_traces
from r2a_utils.tiny import opening

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
written = run.completions_path("with_reasoning")
traces = read_traces(written, model.tokenizer, problems, model.tags)
ranking = run.read_table("reasoning_focus_heads")
rfhs = attention.head_pairs(ranking)

# %% [markdown]
# ## Do they walk along the reasoning?
#
# {term}`Trajectory tracking` is the rank correlation between how far the answer is written and
# the place in the reasoning that a head reads (its mean attended position), on the long answers
# (30 tokens or more; on all, if there are none).
# Under the null, each path is read forwards or backwards with equal chance. This tests the
# direction and not what is read: a head that always looks twenty tokens back walks along, too. So
# the same is asked of what is left (*beyond*) when the place that the head would read by distance
# alone, by its weights in the other traces, is taken away.

# %%
long = [trace for trace in traces if attention.has_long_answer(trace)]
followed = (long or traces)[:n_long]
sink = attention.find_sink(model).position
profiles = [
    attention.attention_profile(model, trace, sink=sink) for trace in followed
]
tracking = attention.tracking_and_beyond(profiles, rfhs, seed=seed)
run.write_table("trajectory_tracking", tracking)
walk = attention.best_tracking(tracking)
run.write_record("trajectory_tracking", walk)
figures.reading_table(tracking.head(8).drop(columns=["n", "p"]))

# %%
best = attention.head_pairs(tracking.head(3))
paths = {
    figures.head_name(*head): attention.reading_path(
        profiles[:12], followed[:12], head
    )
    for head in best
}
figures.trajectories(paths)

# %% [markdown]
# **Figure.** Where three heads of `{{ model.name }}` read in the reasoning (0 to 100 % of it)
# while the answer is written (0 to 100 %); each point is a token of one of at most twelve answers.
# The dotted line is a head that reads at the answer's pace.

# %% [markdown]
# {% set t = trajectory_tracking %}Head {{ t.best }} follows most closely: its mean correlation is
# {{ t.rho | number }} ({{ t.low | number }} to {{ t.high | number }}; against the best of all heads
# under the null {{ t.p_familywise | p_value }}; {{ t.n }} answers{{ t.n | few }}). {% if t.beyond
# is not none %}With what distance explains taken away, the most that a head keeps is {{ t.beyond |
# number }} ({{ t.beyond_best }}; {{ t.beyond_low | number }} to {{ t.beyond_high | number }} for
# this head alone; {{ t.beyond_p | p_value }} over all heads){% if t.rfh is defined and t.rfh is not
# none and t.rfh != t.beyond_best %}, and a Reasoning-Focus Head at most {{ t.rfh_beyond | number }}
# ({{ t.rfh }}; {{ t.rfh_p | p_value }}){% endif %}. {% endif %}By the same test {{ t.tracking_rfhs
# }} of the {{ t.k }} Reasoning-Focus Heads follow forwards, and {{ t.beyond_rfhs }} of these also
# beyond distance.
#
# The correlation is over all tokens of the answer, including those that need nothing from the
# reasoning: it is low for a head that jumps to the right step for each digit and rests elsewhere in
# between. And where a head looks is not what it takes from there.
#
# ## Do they read what follows a cue?
#
# {term}`Cue lift` is the attention on the text from a {term}`cue` to the end of its sentence, over
# that on text of the same length at matched places of the same reasoning, read by the answer
# through the Reasoning-Focus Heads.

# %%
cued = [trace for trace in traces if cues(trace)][:n_cued]
read_of = [
    attention.attention_rows(model, t, rfhs).mean(["head", "query"]).values
    for t in cued
]
lifts = attention.cue_lift(cued, read_of, seed=seed) if cued else None
lift = attention.overall_cue_lift(lifts)
run.write_record("cue_lift", lift)
figures.cue_lift(lifts) if cued else Markdown("No trace of this run has a cue.")

# %% [markdown]
# **Figure.** Attention of the answer on the text that follows a cue, over that on other text at
# matched places of the same reasoning, by cue, in `{{ model.name }}`; 95 % intervals over traces.
# Right of the line at 1 it is read more.

# %% [markdown]
# {% for w in cue_lift.words if w.lift is not none %}After "{{ w.word }}" the lift is {{ w.lift |
# number }} (n = {{ w.n }}{{ w.n | few }}{% if w.low is not none %}, {{ w.low | number }} to {{
# w.high | number }}{% if w.low <= 1 <= w.high %}, which includes 1, no difference{% endif %}{% else
# %}, too few traces for an interval{% endif %}). {% endfor %}{% if cue_lift.words | length > 1
# %}Words open different things, so that the lift over all of them describes none of them. {% endif
# %}A lift above 1 says that what follows a cue is read more than other text of the same reasoning,
# one below 1 that it is read less.
#
# A lift is about all that follows the cue in its sentence. The one token there that carries a
# corrected value may be read while the rest is passed over; that is the next question.
#
# ## After a correction, which value is read?
#
# Where a step went wrong and was corrected, a long answer states the step again ("Step 2 gives
# 6"). The token that writes the digit can look at the corrected value, or at the wrong one. What
# is right is known only for the bundled world. The share is attention on the corrected digit over
# that on both; ½ is no preference. The corrected digit stands later, so a second pair is compared:
# the corrected one against the wrong one *said again after it* ("so 6, not 4"). The table has the
# ten heads that read the corrected digit most; its last three columns are shares of all that a head
# reads there.

# %%
digits = attention.restated_digits(model, traces)
absent = "No corrected step is stated again in this run's answers."
corrected = attention.corrected_values(digits, rfhs, seed=seed)
run.write_record("corrected_values", corrected)
if digits is not None:
    values = attention.value_shares(digits, seed=seed)
    read_most = values.sort_values("corrected", ascending=False).head(10)
    of_head = zip(read_most["layer"], read_most["head"], strict=True)
    read_most.insert(2, "RFH", [pair in rfhs for pair in of_head])
Markdown(absent) if digits is None else figures.reading_table(
    read_most.rename(columns={"denied": "wrong, said again"}).reset_index(drop=True)
)

# %%
figures.corrected_digits(values, corrected.head) if corrected.head else None

# %% [markdown]
# **Figure.** What each head of `{{ model.name }}` reads when the answer writes the digit of a
# corrected step: mean attention on the wrong digit and on the corrected one, a point a head, over
# {{ corrected_values.n }} restated steps. Above the dotted line the corrected one is read more.
# Named is the head that reads the corrected one most in one half of the traces.

# %% [markdown]
# {% set v = corrected_values %}{% if 0 < v.traces < v.fewest %}Too few corrected steps are stated
# again in this run's answers to say anything of them: {{ v.n }} in {{ v.traces }} traces.{% elif
# v.n %}{{ v.n }} steps are restated, in {{ v.traces }} traces. {% if v.readers is defined %}{% if
# v.readers %}Of the {{ v.n_heads }} heads, {{ v.readers | length }} {% if v.readers | length == 1
# %}gives{% else %}give{% endif %} the corrected digit more than {{ v.most | percent }} of all
# attention there: {{ v.readers | join(", ") }}{% if v.readers | length == 1 %} ({{ v.readers_low |
# percent }}){% else %} ({{ v.readers_low | percent }} to {{ v.readers_high | percent }}){% endif
# %}.{% else %}None of the {{ v.n_heads }} heads gives the corrected digit more than {{ v.most |
# percent }} of its attention.{% endif %} {% endif %}One head can be named without flattering it:
# {{ v.head }} reads the corrected digit most in one half of the traces, and in the other half ({{
# v.reported_on }} traces) that digit gets {{ v.mass | percent }} of its attention. Of what this
# head gives there to the two values, {{ v.share | percent(1) }} goes to the corrected one ({{ v.low
# | percent(1) }} to {{ v.high | percent(1) }}, over traces), and {{ v.share_against_later |
# percent(1) }} when the wrong one is taken where it stands later. Over all traces, the mean share
# of the Reasoning-Focus Heads is {{ v.rfhs_share | percent }} and that of all heads {{ v.all_share
# | percent }}; weighted by how much of the two a head reads at all, it is {{ v.all_weighted |
# percent }}.{% endif %}
#
# The share of a head that gives neither digit much attention is a ratio of two small numbers: read
# it with the masses beside it. And a head that reads the right value need not be the reason why it
# is written.
#
# ## Does it take training?
#
# A head with random weights can walk along the reasoning, too. Below, for {term}`untrained twins
# <untrained twin>` of the model on the same traces: the largest correlation of any of their heads,
# how much of it lies beyond distance, and what their own top heads read at cues and corrections.

# %%
beside = attention.beside_untrained(
    model,
    attention.own_following(walk, lift, corrected),
    attention.following_of(traces, followed, cued, len(rfhs), seed=seed),
    n_untrained,
)
run.write_record("untrained_following", beside)
figures.reading_table(beside.table(model.name))

# %% [markdown]
# {% set t = trajectory_tracking %}{% set f = untrained_following %}{% set u = f.untrained %}{% if
# f.n %}The heads of {{ f.n }} untrained {% if f.n == 1 %}twin{% else %}twins{% endif %} that walk
# along the reasoning best do so with correlations of up to {{ u.rho | number }}{% if u.beyond is
# defined %}, and of up to {{ u.beyond | number }} beyond distance{% endif %}. {% if u.beyond is
# defined and t.beyond is not none and t.beyond > u.beyond and t.beyond_p <= 0.05 %}Beyond distance,
# {{ t.beyond_best }} follows the reasoning more than any of these heads{% if t.rfh is defined and
# t.rfh != t.beyond_best %}; it is no Reasoning-Focus Head{% if t.rfh is not none and t.rfh_beyond
# <= u.beyond %}, and none of those does{% endif %}{% endif %}.{% else %}So this run does
# not show a head that follows the reasoning more than an untrained one does.{% endif %} {% if
# u.corrected is defined and f.own.corrected is not none %}The head that reads corrected digits most
# is chosen in each of them in the same way; of what it gives to the two values, up to {{
# u.corrected | percent }} goes to the corrected one, {% if f.own.corrected > u.corrected %}less
# than{% else %}no less than{% endif %} the {{ f.own.corrected | percent }} of `{{ model.name }}`.
# {% endif %}{% if u.cue_lift is defined %}Their largest cue lift is {{ u.cue_lift | number }}.{%
# endif %}{% else %}No untrained twin was measured in this run (`n_untrained`).{% endif %}
#
# ## What the strongest heads look at
#
# The three strongest heads on a few traces: where there are such, the first ones with a long
# answer, a correction and at least four steps. A diagonal inside the green box means that the head
# walks along the reasoning as the answer is written. The problem on which the book opens goes
# before them, where the run has it.

# %%
in_order = sorted(traces, key=lambda t: not attention.corrects_itself(t))
in_order = opening.opening_first(in_order)
shown = in_order[:n_maps]
rows = [
    attention.attention_rows(model, trace, rfhs[:3], slice(0, len(trace)))
    for trace in shown
]
figures.attention_maps(
    [
        [
            figures.AttentionPanel(
                row[i].values,
                0,
                trace.segments,
                cues(trace),
                f"trace {j + 1}, {len(trace)} tokens",
            )
            for j, (trace, row) in enumerate(zip(shown, rows, strict=True))
        ]
        for i in range(len(rfhs[:3]))
    ],
    [figures.head_name(*head) for head in rfhs[:3]],
)

# %% [markdown]
# **Figure.** Attention maps of the three strongest heads of `{{ model.name }}` (rows) on a few
# traces (columns): queries run downwards, keys to the right, and darker means more attention. The
# bands colour the segments, the green box frames what the answer reads of the reasoning, and dashed
# lines mark cues.

# %% [markdown]
# A single dark dot in the green box is one token looked up; a stripe down the map is a token that
# all later ones read, such as a sink. These traces are examples: what holds on average stands in
# the tables above.

# %% [markdown]
# One trace as text; choose another by its problem. It lights up by what the strongest head read to
# write the boxed answer; point at another token of the answer to see what was read to write that
# one, or at a token of the reasoning to see what it was read for. Escape shows the mean over the
# whole answer.

# %%
trace_explorer(model, in_order, rfhs)

# %% [markdown]
# **Figure.** To explore: one trace of `{{ model.name }}`, shaded by what its answer reads through
# the Reasoning-Focus Heads, one of them, or by what these heads give to each written token. Below
# the text, the same as a map of answer tokens by all tokens.

# %% tags=["hide-input"]
Markdown(f"The first trace is of {opening.SAID}.") if opening.opens(
    in_order[0]
) else None

# %% [markdown]
# Compare what is read to write one word or digit of the answer with what is read for the words
# around it. The mean over the whole answer hides this: what is read for one token only, however
# strongly, is faint there.

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else.

# %%
from scipy import stats

from r2a_utils.teaching.checks import attention as workshop

# %% [markdown]
# ### Exercise 4.2: Does a head walk along?
#
# Difficulty ●●●○○, importance ●●●○○, 15 minutes
#
# While the answer is written, does the place that a head reads move through the reasoning?
# `rows[i, j]` is how much the `i`-th token of the answer looks at token `j` of the whole trace.
# For each answer token take the mean position inside the slice `reasoning`, weighted by what is
# read there and nothing else; return the rank correlation (Spearman) of these places with the
# order of the answer's tokens.


# %% tags=["stub"]
def tracking_of_head(rows, reasoning):
    """Spearman correlation of token and place read; rows [answer token, token]."""
    raise NotImplementedError("a mean place for each row, then spearmanr.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Cut the columns of the reasoning out, divide each row by its sum, and multiply by the positions.
# `stats.spearmanr(a, b).statistic` is the rank correlation.
# ```


# %% tags=["solution"]
def tracking_of_head(rows, reasoning):
    """Spearman correlation of token and place read; rows [answer token, token]."""
    inside = rows[:, reasoning]
    inside = inside / inside.sum(axis=1, keepdims=True)
    places = inside @ np.arange(inside.shape[1])
    return stats.spearmanr(np.arange(len(rows)), places).statistic


# %% tags=["check"]
workshop.check_tracking_of_head(tracking_of_head)

# %%
longest = max(traces[:50], key=lambda t: len(t.tokens[t.segments["answer"]]))
thought = longest.segments["reasoning"]
answer_rows = attention.attention_rows(model, longest, rfhs).values
{
    figures.head_name(*head): round(float(tracking_of_head(rows, thought)), 3)
    for head, rows in zip(rfhs, answer_rows, strict=True)
}

# %% [markdown]
# **What you should see.** Correlations of the top heads on the longest of fifty answers, the
# strongest head first. The head that reads the reasoning most need not be one that walks along it.
# And the best of several heads on one trace is a lucky one: that is why the page averages over
# traces and compares with the best of all heads under a null.
#
# **Comprehension.** A head always looks forty tokens back. What is its correlation, and what does
# it know of the reasoning?
#
# ```{admonition} Answer
# :class: dropdown
#
# Close to 1, as long as forty tokens back lies in the reasoning: the place moves by one with each
# token. It knows nothing of the reasoning. The page keeps the slope beside the correlation for
# that reason: such a head has a slope of 1.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That the answer needs what is read.** Reading is seen by looking; using shows only when
#   something is changed: {doc}`stage 3 <05_activation_patching>`.
# - **What a head takes.** Where a head looks is not what it takes from there;
#   {doc}`the next page <04c_failed_traces>` looks at what it gives to one token.
#
# ## What is missing
#
# Whether any of this helps when an answer is wrong: {doc}`the next page <04c_failed_traces>`.
