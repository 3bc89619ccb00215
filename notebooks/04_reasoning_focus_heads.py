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
#       tables/reasoning_focus_heads, tables/trajectory_tracking, tables/first_error_hits,
#       traces/sampled_again, records/reasoning_focus_heads, records/copying_heads,
#       records/trajectory_tracking, records/corrected_values, records/cue_lift,
#       records/failed_traces, records/published_lists
#     ]
# ---

# %% [markdown]
# # Stage 2: Reasoning-Focus Heads
#
# **Question.** Which {term}`heads <head>` read the reasoning while the answer is written, can their
# ranking be trusted, and what do they do there?
#
# **What you will see.** The top heads with intervals and controls, and where in the model they sit;
# how they walk along the reasoning, what they do at {term}`cues <cue>` and after a correction; maps
# of the strongest ones; and what they read where an answer went wrong.
#
# **What we know so far.** {doc}`Segment attention <03_segment_attention>` measured how much of
# the answer's attention goes to the reasoning, head by head. A mean over heads does not say which
# ones, nor what they do there.

# %% [markdown]
# ## Parameters
#
# `source`, `prompt_style`, `temperature` and `max_new_tokens` are what {doc}`stage 1
# <01_collect_traces>` had: where too few {term}`traces <trace>` failed, a model that wrote its
# traces itself is asked again in the same way, at `sampling_temperature`.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
source = "model"
prompt_style = "chat"
temperature = 0.0
max_new_tokens = 512
k = 10
n_maps = 3
n_shuffles = 100
n_long = 60
n_cued = 100
n_generic = 24
fewest_failed = 30
n_asked_again = 400
sampling_temperature = 1.0
seed = 0
paper_data: str | None = None

# %%
import os

import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import figures
from r2a_utils.answers.graded import grade_completions
from r2a_utils.attention import copying_heads, error_reading, heads, trajectories
from r2a_utils.attention.logit_attribution import head_contributions
from r2a_utils.attention.mass import (
    attention_profile,
    attention_rows,
    segment_mass,
    token_set_mass,
)
from r2a_utils.attention.recency import distance_test
from r2a_utils.collecting.generation import Sampling, collect_completions
from r2a_utils.explorers import head_explorer, trace_explorer
from r2a_utils.models.loading import load_model
from r2a_utils.paper import artefacts
from r2a_utils.runs.folder import Run
from r2a_utils.stats import bootstrap_mean_intervals
from r2a_utils.texts.completions import read_completions, read_traces
from r2a_utils.texts.problem import problems_from_table
from r2a_utils.texts.trace import answer_span, cues, sentences
from r2a_utils.tiny import review

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
mass = run.read_array("segment_mass_with_reasoning")
problems = problems_from_table(run.read_table("problems"))
written = run.completions_path("with_reasoning")
traces = read_traces(written, model.tokenizer, problems)
every_head = list(np.ndindex(model.n_layers, model.n_heads))

# %% [markdown]
# ## The ranking
#
# A {term}`Reasoning-Focus Head <RFH>` is a head among the top k by mean attention of the answer
# on the reasoning. Beside the mass stand its bootstrap interval over traces, its {term}`lift`
# over a head that looks at everything alike, and in how many resamples of the traces it is among
# the top k again.

# %%
ranking = heads.rank_heads(mass, k=k, seed=seed)
run.write_table("reasoning_focus_heads", ranking)
rfhs = list(ranking[["layer", "head"]].itertuples(index=False, name=None))
figures.head_ranking(ranking, uniform=float(heads.uniform_mass(mass).mean()))

# %% [markdown]
# **Figure.** The {{ reasoning_focus_heads.k }} heads of `{{ model.name }}` whose attention goes
# most from the answer to the reasoning, with 95 % intervals over traces; at the right, lift over
# uniform attention and the share of resamples in which the head is among the top {{
# reasoning_focus_heads.k }} again.

# %% [markdown]
# Where the intervals of neighbours overlap, their order is not known; where the last heads are
# stable in few resamples, another set of traces would have listed others. That the first k are
# called by a name is a cut through a continuous ranking, not a kind of head.
#
# ## May the ranking be trusted?
#
# A ranking that two random halves of the traces do not share is noise. And since longer reasoning
# attracts more attention from any head, the ranking should hold among traces of like length: a
# third of the traces against all others.

# %%
reliability = heads.ranking_reliability(mass, seed=seed)
heads.ranking_across_lengths(mass, k=k).round(3)

# %% [markdown]
# The permutation null turns the borders of the reasoning along the text before the answer and
# keeps its length. It excludes a head that reads all of that text alike, whatever the reasoning's
# length, and it does not exclude recency: the reasoning stands right before the answer, and a head
# that always looks twenty tokens back passes. `p_familywise` pays for having picked the best of
# many heads; `length_matched` compares the reasoning with the
# prompt at equal length (log2; above 0 the reasoning is preferred), and `sink_free` leaves the
# {term}`attention sink` out.


# %%
def turned_reasonings(trace, seed):
    """Token sets as long as the reasoning, at random places before the answer."""
    spans = heads.shuffled_borders(trace.segments, n_shuffles, seed=seed)
    return {str(draw): np.flatnonzero(span) for draw, span in enumerate(spans)}


measured = traces[: mass.sizes["trace"]]
turned = [turned_reasonings(trace, seed + i) for i, trace in enumerate(measured)]
null = heads.border_test(mass, token_set_mass(model, measured, turned))
columns = ["layer", "head", "lift", "sink_free", "length_matched"]
scores = heads.head_scores(mass)[columns]
null[:k].merge(scores, on=["layer", "head"]).round(3)

# %% [markdown]
# The null turns the reasoning into the prompt and back, so that it still overlaps much of it: a
# mass of the null near that of the head is no sign that the prompt is read as much.
#
# For recency there is another control. A head's mean attention by distance from the query, laid on
# each trace, gives what it would read of the reasoning if it looked by distance only
# (`by_distance`; BOS is left out of both). What it reads beyond that follows the reasoning's
# borders. The profile is taken from the same answers, so that a head which follows the borders
# shows only a part of it as `excess`.

# %%
watched = measured[:n_long]
rows_of = [attention_rows(model, trace, rfhs).values for trace in watched]
recency = distance_test(rows_of, [trace.segments for trace in watched], seed=seed)
pd.concat([ranking[["layer", "head"]], recency], axis=1).round(3)

# %% [markdown]
# ## Where in the model?
#
# The paper finds its heads in the middle layers. Below, the top heads of this model against an
# even spread over all layers.

# %%
depth = heads.depth_test(rfhs, model.n_layers, model.n_heads, seed=seed)
figures.depth_distribution(rfhs, model.n_layers, depth.p_central)

# %% [markdown]
# **Figure.** Layers of the top {{ reasoning_focus_heads.k }} heads of `{{ model.name }}`. The
# dotted line is an even spread over all layers.

# %% [markdown]
# Bars above the line are layers with more of the top heads than an even spread would put there.
# With few layers, "middle" is coarse: the test has little power, and no p-value here speaks about
# deeper models.
#
# ## Are they heads that copy?
#
# Two scores from elsewhere. *Induction* {cite:p}`olsson2022induction`: on random {term}`tokens
# <token>` said twice, the attention on what followed the present token the first time. *Retrieval*
# {cite:p}`wu2024retrieval`: the share of a needle's tokens that a head looks up while they are
# recited from between other texts, here the run's own questions. A list holds at most k heads, and
# only such with a score of at least 0.1, below which nobody would say that a head copies.

# %%
questions = [problem.question for problem in problems]
cases = copying_heads.needle_cases(questions, model.tokenizer, seed=seed)
copy_scores = {
    "induction head": copying_heads.induction_scores(model, seed=seed),
    "retrieval head": copying_heads.retrieval_scores(model, cases),
}
copying_heads = {
    kind: copying_heads.top_copying_heads(found, k)
    for kind, found in copy_scores.items()
}
marks = {"reasoning-focus head": rfhs, **copying_heads}
overlap = heads.head_overlap(marks, len(every_head))
overlap.assign(
    heads=[
        ", ".join(figures.head_name(*h) for h in row) for row in overlap["heads"]
    ]
)

# %%
to_reasoning = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
figures.head_maps({"answer → reasoning": to_reasoning.values}, marks)

# %% [markdown]
# **Figure.** Attention of the answer on the reasoning in `{{ model.name }}` by layer and head,
# mean over traces. Marks tell kinds of heads: squares the Reasoning-Focus Heads, crosses
# induction heads, circles retrieval heads.

# %% [markdown]
# {% set c = copying_heads %}The highest induction score is {{ c.induction_largest | number }} and
# the highest retrieval score {{ c.retrieval_largest | number }}; {{ c.induction_n }} and {{
# c.retrieval_n }} heads pass the bound. {% if c.induction_n + c.retrieval_n == 0 %}This model has
# no head that copies arbitrary tokens, so that the Reasoning-Focus Heads cannot be the same ones:
# what they look up, below, they look up in texts of their own kind only.{% else %}The table gives
# the chance that a blind choice of as many heads shares as many.{% endif %}
#
# Both scores are measured on artificial texts. A head can copy on a real trace and score nothing
# on these, and the other way round.
#
# ## Do they walk along the reasoning?
#
# {term}`Trajectory tracking` is the rank correlation between how far the answer is written and
# the place in the reasoning that a head reads (its mean attended position), on the long answers.
# The null reads each path forwards or backwards with equal chance.

# %%
answer_length = {
    id(t): t.segments["answer"].stop - t.segments["answer"].start for t in traces
}
long = [trace for trace in traces if answer_length[id(trace)] >= 30][:n_long]
profiles = [attention_profile(model, trace) for trace in long or traces[:n_long]]
tracking = trajectories.tracking(profiles, seed=seed)
pairs = zip(tracking["layer"], tracking["head"], strict=True)
tracking.insert(2, "RFH", [pair in rfhs for pair in pairs])
run.write_table("trajectory_tracking", tracking)
tracking.head(8).round(3)


# %%
def path(profile, reasoning, head):
    """Share of the answer written, and where in the reasoning is then read (0 to 1)."""
    place = profile["mean_position"].sel(layer=head[0], head=head[1]).values
    length = max(reasoning.stop - reasoning.start - 1, 1)
    return np.linspace(0, 1, len(place)), (place - reasoning.start) / length


best = list(tracking[["layer", "head"]].head(3).itertuples(index=False, name=None))
followed = list(zip(profiles, long or traces, strict=False))[:12]
paths = {
    figures.head_name(*head): np.concatenate(
        [
            path(profile, trace.segments["reasoning"], head)
            for profile, trace in followed
        ],
        axis=1,
    )
    for head in best
}
figures.trajectories(paths)

# %% [markdown]
# **Figure.** Where three heads of `{{ model.name }}` read in the reasoning (0 to 100 % of it)
# while the answer is written (0 to 100 %), a point a token of twelve answers. The dotted line is
# a reader that keeps pace.

# %% [markdown]
# {% set t = trajectory_tracking %}Head {{ t.best }} follows best: a mean correlation of {{ t.rho |
# number }} ({{ t.low | number }} to {{ t.high | number }}; against the best of all heads under the
# null {{ t.p_familywise | p_value }}; {{ t.n }} answers). {{ t.tracking_rfhs }} of the {{ t.k }}
# Reasoning-Focus Heads follow forwards by the same test. Points along the dotted line would be a
# head that reads the reasoning once, from start to end, at the answer's pace.
#
# The correlation is over all tokens of the answer, those that need nothing from the reasoning
# included: a head that jumps to the right step for each digit and rests elsewhere in between has
# a low one. And where a head looks is not what it takes from there.
#
# ## Do they read what follows a cue?
#
# {term}`Cue lift` is the attention on the text from a {term}`cue` to the end of its sentence, over
# that on text of the same length at matched places of the same reasoning, read by the answer
# through the Reasoning-Focus Heads.

# %%
cued = [trace for trace in traces if cues(trace)][:n_cued]
read_of = [
    attention_rows(model, t, rfhs).mean(["head", "query"]).values for t in cued
]
lifts = trajectories.cue_lift(cued, read_of, seed=seed) if cued else None
figures.cue_lift(lifts) if cued else Markdown("No trace of this run has a cue.")

# %% [markdown]
# **Figure.** Attention of the answer on the text that follows a cue, over that on other text at
# matched places of the same reasoning, by cue, in `{{ model.name }}`; 95 % intervals over traces.
# Right of the line at 1 it is read more.

# %% [markdown]
# {% if cue_lift.n %}Over all words the lift is {{ cue_lift.lift | number }} ({{ cue_lift.low |
# number }} to {{ cue_lift.high | number }}, n = {{ cue_lift.n }}). Right of the dotted line, what
# follows a cue is read more than its surroundings, left of it, less.{% endif %}
#
# A lift is about a whole sentence. The one token in it that carries the corrected value can be
# read much while the rest is passed over; that is the next question.
#
# ## After a correction, which value is read?
#
# Where a step went wrong and was corrected, a long answer states the step again ("Step 2 gives
# 6"). The token that writes the digit can look at the corrected value, or at the wrong one. What
# is right is known only for the bundled world. The share is attention on the corrected digit over
# that on both; ½ is no preference. The corrected digit stands later, so a second pair is compared:
# the corrected one against the wrong one *said again after it* ("so 6, not 4").

# %%
restated = [
    r for t in traces if review.reviewable(t) for r in review.restatements(t)
]


def digit_mass(restated):
    """What each restated digit's query reads of the three digits, by trace."""
    sets = [
        {n: [getattr(r, n)] for n in ("corrected", "wrong", "denied")}
        for r in restated
    ]
    trace_of, queries = [r.trace for r in restated], [[r.query] for r in restated]
    found = token_set_mass(model, trace_of, sets, queries=queries)
    return found.assign_coords(trace=[trace.problem_id for trace in trace_of])


def which_value(found):
    """Each head's share on the corrected value against either wrong one."""
    table = trajectories.preference(found, "corrected", "wrong", seed=seed)
    later = trajectories.preference(found, "corrected", "denied", seed=seed)
    means = found.mean("trace").to_series().unstack("token_set").reset_index()
    both = table.merge(later[["layer", "head", "share"]], on=["layer", "head"],
                       suffixes=("", "_against_later"))  # fmt: skip
    return both.merge(means, on=["layer", "head"])


digits = digit_mass(restated) if restated else None
values = which_value(digits) if restated else None
ranks = ranking[["layer", "head"]]
absent = "No corrected step is stated again in this run's answers."
ranks.merge(values, how="left").round(3) if restated else Markdown(absent)

# %% tags=["hide-input"]
corrected = {
    "n": len(restated),
    "traces": len({r.trace.problem_id for r in restated}),
}
if corrected["traces"] >= 8:
    # the head is picked on one half of the traces and reported on the other
    own_half = np.isin(digits["trace"], np.unique(digits["trace"])[::2])
    picked = which_value(digits[own_half]).sort_values("corrected").iloc[-1]
    other = which_value(digits[~own_half])
    same = (other["layer"] == picked["layer"]) & (other["head"] == picked["head"])
    top = other[same].iloc[0]
    weighted = values[["corrected", "wrong", "denied"]].sum()
    corrected |= {
        "head": figures.head_name(int(top.layer), int(top["head"])),
        "mass": top.corrected,
        "share": top.share,
        "low": top.ci_low,
        "high": top.ci_high,
        "reported_on": int(top.n),
        "share_against_later": top.share_against_later,
        "rfhs_share": ranks.merge(values)["share"].mean(),
        "all_share": values["share"].mean(),
        "all_weighted": weighted.corrected / (weighted.corrected + weighted.wrong),
    }
run.write_record("corrected_values", corrected)

# %% [markdown]
# {% set v = corrected_values %}{% if 0 < v.traces < 8 %}Too few corrected steps are stated again in
# this run's answers to say anything of them: {{ v.n }} in {{ v.traces }} traces.{% elif v.n %}{{
# v.n }} steps are restated, in {{ v.traces }} traces. The head that reads the corrected digit most
# in one half of these traces is {{ v.head }}; in the other half ({{ v.reported_on }} traces) it
# gives it {{ v.mass | percent }} of all its attention. Of what it gives there to either value, {{
# v.share | percent(1) }} goes to the corrected one ({{ v.low | percent(1) }} to {{ v.high |
# percent(1) }}, over traces), and {{ v.share_against_later | percent(1) }} where the wrong one
# stands later. Over all traces, the mean share of the Reasoning-Focus Heads is {{
# v.rfhs_share | percent }}, of all heads {{ v.all_share | percent }}; weighted by how much is read
# at all it is {{ v.all_weighted | percent }}.{% endif %}
#
# Shares of heads that give neither digit any attention to speak of are ratios of small numbers:
# read them with the masses beside them. And a head that reads the right value need not be the
# reason why it is written.
#
# ## What the strongest heads look at
#
# The three strongest heads on three traces: the first ones with a long answer, a correction and
# at least four steps where there are such. A diagonal inside the green box means that the head
# walks along the reasoning as the answer is written.


# %%
def corrects_itself(trace):
    return (
        answer_length[id(trace)] >= 30
        and trace.meta.get("steps", 4) >= 4
        and any(cue.word in ("wait", "let me check") for cue in cues(trace))
    )


shown = sorted(traces, key=lambda trace: not corrects_itself(trace))[:n_maps]
rows = [
    attention_rows(model, trace, rfhs[:3], slice(0, len(trace))) for trace in shown
]
panels = [
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
    for i in range(3)
]
figures.attention_maps(panels, [figures.head_name(*head) for head in rfhs[:3]])

# %% [markdown]
# **Figure.** Attention maps of the three strongest heads of `{{ model.name }}` (rows) on a few
# traces (columns): queries downwards, keys to the right, darker is more. The bands colour the
# segments, the green box is answer on reasoning, dashed lines are cues.

# %% [markdown]
# Single dark dots in the green box are look-ups of one token; stripes down the page are tokens
# that every later one reads, the sink among them. Three traces are examples: what holds on average
# stands in the tables above.
#
# The same for any other head: click it, or go to it by the arrow keys, and its maps on two of these
# traces stand below.

# %%
by_mass = to_reasoning.to_series().sort_values(ascending=False).index.tolist()
head_explorer(model, shown, mass, by_mass, marks=marks)

# %% [markdown]
# **Figure.** To explore: attention of the answer on the reasoning in `{{ model.name }}` by layer
# and head, and the chosen head's attention on two traces, a row for each token of the answer.

# %% [markdown]
# Heads of one brightness can look alike on the map and read in different ways: some walk, some
# rest on one place, some spread. The map holds means, the traces below it single cases.
#
# And one trace as text. It lights up by what the answer reads, on average over the top heads; point
# at a token of the answer to see what that one reads, or at a token of the reasoning to see who
# reads it.

# %%
trace_explorer(model, shown, rfhs)

# %% [markdown]
# **Figure.** To explore: one trace of `{{ model.name }}`, shaded by what its answer reads through
# the Reasoning-Focus Heads, one of them, or by what these heads give to each written token. Below
# the text, the same as a map of answer tokens by all tokens.

# %% [markdown]
# Compare what a digit of the answer reads with what the words around it read. The shade at first is
# a mean over the whole answer: what is read for one digit only, however strongly, is pale there.
#
# ## Are they heads for reasoning?
#
# The same borders laid over other texts: a passage of plain prose, and the run's questions strung
# together, which this model knows well but which hold no reasoning. What remains of the ranking
# is owed to places alone.

# %%
PASSAGE = """The ferry leaves the old harbour at half past six, when the nets are
still wet and the gulls have not yet found the fish. On deck, a woman with a green
umbrella counts the crates of apples that go to the island; there are never as
many as the list says. The captain has stopped asking why. Behind the lighthouse
the sea turns rough, and the dog, who has made this trip more often than anyone,
lies down beside the stove. Nobody speaks until the pier comes into sight. Then
the school teacher folds her newspaper, the baker's son ties his shoes, and two
tourists look for a map that the wind took from them near the second buoy. On the
island the road climbs between stone walls to a village of forty houses. In most
of them someone is cooking. The shop sells rope, salt, postcards and a cheese that
is famous as far as the capital, or so the owner claims. Her grandfather built the
oven behind the house from bricks of a ship's kitchen. In winter, when the ferry
stays away for a week or more, she bakes for everybody and writes the debts on the
wall with chalk. By spring the wall is white. Children learn to count on it, and
when the first warm rain washes it clean the old men say that the year may now
begin. """


def ranking_on(text):
    """The borders of some traces on a text that starts elsewhere for each of them."""
    pieces, found = text.split(". "), []
    for i, trace in enumerate(measured[:n_generic]):
        turned = ". ".join(np.roll(pieces, -i)) + ". "
        # no tokenizer averages 16 characters a token
        enough = (turned * 40)[: 16 * len(trace)]
        found.append(trajectories.as_generic_text(trace, enough, model.tokenizer))
    return segment_mass(model, found)


def paired_excess(generic):
    """How much more the RFHs read on each trace than under its borders: [trace]."""
    both = [
        masses[: generic.sizes["trace"]]
        .sel(from_segment="answer", to_segment="reasoning")
        .values
        for masses in (mass, generic)
    ]
    layers, places = np.transpose(rfhs)
    return (both[0] - both[1])[:, layers, places].mean(axis=1)


def compared(generic):
    """A ranking on other texts beside that on the traces."""
    other = generic.sel(from_segment="answer", to_segment="reasoning").mean("trace")
    again = heads.rank_heads(generic, k=k, seed=seed)[["layer", "head"]]
    fewer = paired_excess(generic)
    low, high = bootstrap_mean_intervals(fewer, seed=seed)
    here, there = to_reasoning.to_series(), other.to_series()
    return {
        "spearman": here.corr(there, method="spearman"),
        "top heads shared": len(ranks.merge(again)),
        "mean mass of the RFHs": np.mean([other[head] for head in rfhs]),
        "more on traces": fewer.mean(),
        "low": float(low),
        "high": float(high),
        "largest mass": float(other.max()),
    }


texts = {
    "plain prose": PASSAGE.replace("\n", " "),
    "questions": " ".join(questions),
}
generic = pd.DataFrame(
    {name: compared(ranking_on(text)) for name, text in texts.items()}
).T
generic.loc["the run's traces"] = {
    "spearman": 1,
    "top heads shared": k,
    "mean mass of the RFHs": ranking["mass"].mean(),
    "largest mass": ranking["mass"].max(),
}
generic.round(3)

# %% tags=["hide-input"]
on_prose = generic.loc["plain prose"]
run.write_record(
    "reasoning_focus_heads",
    {
        "k": k,
        "n_heads": len(every_head),
        "top": figures.head_name(*rfhs[0]),
        "top_mass": ranking.mass[0],
        "top_lift": ranking.lift[0],
        "reliability": reliability.spearman,
        "reliability_low": reliability.low,
        "above_null": int((null[:k]["p_familywise"] <= 0.05).sum()),
        "beyond_distance": int((recency["ci_low"] > 0).sum()),
        "distance_n": len(watched),
        "distance_share": recency["share"].mean(),
        "by_distance": recency["by_distance"].mean(),
        "mean_depth": depth.mean_depth,
        "in_middle": depth.in_middle,
        "expected_in_middle": depth.expected_in_middle,
        "p_central": depth.p_central,
        "prose_spearman": on_prose["spearman"],
        "prose_shared": int(on_prose["top heads shared"]),
        "prose_excess": on_prose["more on traces"],
        "prose_low": on_prose["low"],
        "prose_high": on_prose["high"],
        "generic_n": min(n_generic, len(measured)),
        "expected_shared": k * k / len(every_head),
        "questions_spearman": generic.loc["questions", "spearman"],
        "questions_shared": int(generic.loc["questions", "top heads shared"]),
        "questions_excess": generic.loc["questions", "more on traces"],
        "questions_low": generic.loc["questions", "low"],
        "questions_high": generic.loc["questions", "high"],
    },
)
run.write_record(
    "copying_heads",
    {
        f"{kind.split()[0]}_{name}": value
        for kind, found in copy_scores.items()
        for name, value in (
            ("largest", float(found.max())),
            ("n", len(copying_heads[kind])),
        )
    },
)
first = tracking.iloc[0]
forwards = tracking[
    tracking["RFH"] & (tracking["rho"] > 0) & (tracking["p_familywise"] <= 0.05)
]
run.write_record(
    "trajectory_tracking",
    {
        "best": figures.head_name(*best[0]),
        "rho": first.rho,
        "low": first.ci_low,
        "high": first.ci_high,
        "p_familywise": first.p_familywise,
        "n": int(first.n),
        "tracking_rfhs": len(forwards),
        "k": k,
    },
)
overall = lifts.iloc[0] if cued else None
shown_lift = {"n": 0} if overall is None else {
    "n": int(overall.n), "lift": overall.lift, "low": overall.ci_low, "high": overall.ci_high
}  # fmt: skip
run.write_record("cue_lift", shown_lift)

# %% [markdown]
# {% set r = reasoning_focus_heads %}On plain prose all heads rank with a correlation of {{
# r.prose_spearman | number }} to their ranking on the traces, and {{ r.prose_shared }} of the top
# {{ r.k }} are the same ({{ r.expected_shared | number(1) }} would be by chance); on questions it
# is {{ r.questions_spearman | number }} and {{ r.questions_shared }}. Whatever of it is above
# chance belongs to the place of the reasoning and not to what it says. Under the same borders the
# Reasoning-Focus Heads give the reasoning of a trace {{ (100 * r.prose_excess) | number(1) }}
# points more than that stretch of prose ({{ (100 * r.prose_low) | number(1) }} to {{ (100 *
# r.prose_high) | number(1) }}), and {{ (100 * r.questions_excess) | number(1) }} more than that
# stretch of questions ({{ (100 * r.questions_low) | number(1) }} to {{ (100 * r.questions_high) |
# number(1) }}; {{ r.generic_n }} traces, intervals over traces). That the heads were picked on the
# traces favours these a little.
#
# To a model of a closed world, like the bundled one, plain prose is noise, so that there the first
# row bounds the question from one side only.
#
# ## What the ranking comes to
#
# The strongest head, {{ r.top }}, gives {{ r.top_mass | percent }} of its attention to the
# reasoning, {{ r.top_lift | number }} times what a uniform head would. Two random halves of the
# traces rank all heads with a correlation of {{ r.reliability | number }}. {{ r.above_null }} of
# the top {{ r.k }} of {{ r.n_heads }} heads read the reasoning more than equally long spans
# elsewhere, which a taste for recent text is enough for. By their distance profiles alone the top
# {{ r.k }} would give the reasoning {{ r.by_distance | percent }} of what they do not leave on BOS;
# they give it {{ r.distance_share | percent }} (means over {{ r.distance_n }} traces); {{
# r.beyond_distance }} of them exceed their own profile, each by its own 95 % interval. {{
# r.in_middle }} sit in the middle third of the layers, where {{ r.expected_in_middle | number(1) }}
# would by chance; nearness to the middle against an even spread: {{ r.p_central | p_value }}.
#
# ## Debugging a failed trace
#
# A wrong answer with right-looking steps before it: what was read when it was written? Failed
# traces are those with a boxed answer that is wrong. If the run has fewer than `fewest_failed`,
# and what is wrong in them can be known (in the bundled world), the model is asked again, drawing
# its tokens at `sampling_temperature`.


# %%
def graded(completions):
    """Traces by whether their boxed answer is right; without one, left out."""
    table = grade_completions(completions, problems)
    metas = {problem.id: problem.meta for problem in problems}
    found = {True: [], False: []}
    for completion, row in zip(completions, table.itertuples(), strict=True):
        if row.well_formed and pd.notna(row.answer):
            trace = completion.to_trace(model.tokenizer, metas[row.problem_id])
            found[row.correct].append(trace)
    return found


by_grade = graded(read_completions(written))
failed_at_first = len(by_grade[False])
reviewed = all(review.reviewable(trace) for trace in traces)
asked_again = failed_at_first < fewest_failed and source == "model" and reviewed
if asked_again:
    sampling = Sampling(max_new_tokens, sampling_temperature, seed=seed)
    by_grade = graded(
        collect_completions(
            model,
            problems[:n_asked_again],
            path=run.completions_path("sampled_again"),
            sampling=sampling,
            prompt_style=prompt_style,
        )
    )
failed, right = by_grade[False], by_grade[True]
errors = {id(t): review.first_error(t) for t in failed if review.reviewable(t)}
known = [t for t in failed if errors.get(id(t)) is not None]
pd.Series(
    {
        "right": len(right),
        "wrong": len(failed),
        "with a known first error": len(known),
    }
)

# %% [markdown]
# The wrong trace shown is the first with a known error and more than one step, beside the right
# trace of the same kind that is nearest in length. Tokens are shaded by what the query that wrote
# the boxed answer read through the Reasoning-Focus Heads.

# %%
examples = [t for t in known if t.meta["steps"] > 1] or failed
nothing = "No trace of this run has a wrong answer: here would one stand."


def shaded(trace, title):
    read = error_reading.answer_read(model, trace, rfhs)
    return figures.coloured_tokens(
        trace.tokens, read, trace.segments, cues(trace), title
    )


shaded(examples[0], "A wrong answer") if examples else Markdown(nothing)

# %% [markdown]
# **Figure.** A trace of `{{ model.name }}` that ends in a wrong answer, each token shaded by the
# attention of the Reasoning-Focus Heads where the boxed answer was written; cues underlined.

# %%
beside = error_reading.nearest_right(examples[0], right) if examples else None
shaded(beside, "A right answer") if examples else Markdown(nothing)

# %% [markdown]
# **Figure.** A trace of `{{ model.name }}` that ends in a right answer to a problem of that kind,
# each token shaded by what the Reasoning-Focus Heads read where the boxed answer was written.

# %% [markdown]
# The darkest tokens are what was read most when the answer was written. Whether the two texts
# differ in the place that is read or only in what stands there is what the comparison is for; it is
# one pair.
#
# The same by sentence, and beside it the {term}`direct contribution` of the heads to the token
# {cite:p}`elhage2021circuits`:
# attention-weighted value vectors through the output weights and the unembedding, with the final
# norm's scale held fixed, in nats over the vocabulary's mean.


# %%
def contribution(trace, wanted):
    """What the heads give to the boxed answer's first logit, by token read."""
    writes = [answer_span(trace).start]
    return (
        head_contributions(model, trace, wanted, writes=writes)
        .sum(["head", "query"])
        .values
    )


def by_sentence(trace):
    """Reading and direct contribution of the RFHs, sentence by sentence."""
    table = error_reading.sentence_reading(
        trace, error_reading.answer_read(model, trace, rfhs)
    )
    given = error_reading.sentence_reading(trace, contribution(trace, rfhs))["mass"]
    error = errors.get(id(trace))
    marked = [
        "first error" if error and start == error.start else ""
        for start in table["start"]
    ]
    return (
        table[["text", "mass", "share"]]
        .assign(contribution=given, note=marked)
        .round(3)
    )


by_sentence(examples[0]) if examples else Markdown(nothing)

# %% [markdown]
# A sentence can be read much and give little, where what it holds does not point at the written
# token, and the other way round. The contribution is direct: what later layers make of a head's
# result is not in it.
#
# So a wrong answer is debugged in four steps: choose the token of the answer that is wrong, see
# what it reads, see what that gives to it, and go to the sentence where the value that it took
# first went wrong. In the view that is: choose the opening brace of the box, then another reader,
# then "whole sentences".


# %%
def facts(trace):
    """What is known of a failed trace, for the top of its page."""
    answers = {problem.id: problem.answer for problem in problems}
    error = errors.get(id(trace))
    wrong = {"First error": "".join(trace.tokens[error]).strip()} if error else {}
    return {"Right answer": answers[trace.problem_id]} | wrong


trace_explorer(model, examples[:20], rfhs, facts) if examples else Markdown(nothing)

# %% [markdown]
# **Figure.** To explore: the wrong answer from above on one page. Shaded is what its answer reads
# through the Reasoning-Focus Heads; the right answer and the sentence with the first error stand at
# the top.

# %% [markdown]
# ## Does the sentence that is read most hold the first error?
#
# Over all failed traces whose first error is known: how often the top sentence is that one,
# against blind choice, for the Reasoning-Focus Heads and for the mean of all heads, by attention
# and by direct contribution.

# %%
wanted = {"RFHs": rfhs, "all heads": every_head}
readers = {
    f"{name}, {way}": [read(trace, which) for trace in known]
    for name, which in wanted.items()
    for way, read in (
        ("attention", lambda t, which: error_reading.answer_read(model, t, which)),
        ("contribution", contribution),
    )
}
hits = (
    error_reading.error_hits(known, [errors[id(t)] for t in known], readers)
    if known
    else None
)
absent = "No failed trace has a known first error: nothing to count."
hits.round(3) if known else Markdown(absent)


# %% tags=["hide-input"]
def top_sentence(trace, read):
    """Whether the sentence read most is one of the last two, and whether it is wrong."""
    spans = sentences(trace)
    best = int(np.argmax([read[span].sum() for span in spans]))
    wrong = [not statement.right for statement in review.review(trace)]
    return best >= len(spans) - 2, wrong[best], np.mean(wrong)


debugged = {"n": len(known), "asked_again": asked_again, "failed": len(failed)}
debugged |= {"failed_at_first": failed_at_first, "first_temperature": temperature}
if known:
    kinds = pd.Series([trace.meta["family"] for trace in known]).value_counts()
    debugged |= {"kind": kinds.index[0], "of_kind": kinds.iloc[0] / len(known)}
    tops = [
        top_sentence(t, r)
        for t, r in zip(known, readers["RFHs, attention"], strict=True)
    ]
    table = hits.set_index("reader")
    names = ("at_end", "top_wrong", "wrong_by_chance")
    debugged |= dict(zip(names, np.mean(tops, axis=0), strict=True))
    debugged |= {
        f"{short}_{column}": table.loc[name, column]
        for short, name in (("rfh", "RFHs, attention"), ("all", "all heads, attention"),
                            ("given", "RFHs, contribution"))
        for column in ("hits", "rate", "ci_low", "ci_high", "p", "chance")
    }  # fmt: skip
    run.write_table("first_error_hits", hits)
run.write_record("failed_traces", debugged | {"temperature": sampling_temperature})

# %% [markdown]
# {% set d = failed_traces %}{% if d.asked_again %}{% if d.first_temperature == 0 %}Greedy decoding
# {% else %}Sampling at temperature {{ d.first_temperature }} {% endif %}left too few wrong answers
# ({{ d.failed_at_first }}), so these were drawn at temperature {{ d.temperature }}: {{ d.failed }}
# wrong ones. {% endif %}{% if
# d.n %}In {{ d.rfh_hits | int }} of {{ d.n }} failed traces ({{ d.rfh_rate | percent }}, interval
# {{ d.rfh_ci_low | percent }} to {{ d.rfh_ci_high | percent }}) the sentence that the
# Reasoning-Focus Heads read most holds the first error; a blind choice would hit {{ d.rfh_chance |
# percent }} (as many or more: {{ d.rfh_p | p_value }}), the mean of all heads hits {{ d.all_rate |
# percent }}, direct contribution {{ d.given_rate | percent }}. In {{ d.at_end | percent }} the
# sentence read most is one of the last two of the reasoning; in {{ d.top_wrong | percent }} it is
# itself wrong, where {{ d.wrong_by_chance | percent }} of all sentences are.
#
# {% if d.rfh_p <= 0.05 %}So the sentence read most points at the first error more often than chance
# would.{% elif d.n >= 20 and d.at_end > 0.5 %}So reading back from a wrong answer leads mostly to
# the end of the reasoning; that it leads to the first error more often than chance is not shown,
# and the interval says how often it may. To find where the reasoning went wrong, sentences must be
# changed and the answer watched: {doc}`stage 3 <05_activation_patching>`.{% else %}That the
# sentence read most holds the first error more often than chance is not shown by {{ d.n }}
# traces.{% endif %} {{ d.of_kind | percent }} of the traces counted are of one kind of problem ({{
# d.kind }}){% if d.asked_again %}, and all were drawn at a temperature at which the run's other
# answers were not written{% endif %}.{% endif %}
#
# ## On the authors' masses
#
# Where the folder of the authors' data is given: the same ranking on R1-Qwen-1.5B and R1-Qwen-7B,
# with the published lists of the three kinds of heads marked.

# %%
folder = paper_data or os.environ.get(artefacts.DATA_VARIABLE)
lists = {
    "reasoning-focus head": "stage2_reasoning_focus_heads_top10",
    "induction head": "stage2_induction_heads_top10",
    "retrieval head": "stage2_retrieval_heads_top10",
}
printed = {
    who: {
        kind: [tuple(h) for h in artefacts.published()[key][who]]
        for kind, key in lists.items()
    }
    for who in artefacts.published()["models"]
}
aliases = ("qwen-1p5B", "qwen-7B") if folder else ()
theirs = {
    artefacts.MODEL_NAMES[a]: artefacts.load_segment_mass(folder, a)
    for a in aliases
}


def distill_map(who):
    answer = (
        theirs[who].sel(from_segment="answer", to_segment="reasoning").mean("trace")
    )
    return figures.head_maps(
        {f"{who}: answer → reasoning": answer.values}, printed[who]
    )


absent = "The folder is not given: here would stand the maps of both models."
distill_map("R1-Qwen-1.5B") if theirs else Markdown(absent)

# %% [markdown]
# **Figure.** Attention of the answer on the reasoning in R1-Qwen-1.5B by layer and head, mean
# over the authors' 100 MATH-500 cases; marks are the paper's printed top 10 of each kind of head.

# %%
distill_map("R1-Qwen-7B") if theirs else Markdown(absent)

# %% [markdown]
# **Figure.** Attention of the answer on the reasoning in R1-Qwen-7B by layer and head, mean over
# the authors' 100 MATH-500 cases; marks are the paper's printed top 10 of each kind of head.


# %%
def differing(who):
    """The heads in one of the two top 10 only: ours by mean mass, and the printed one."""
    masses = theirs[who]
    full = heads.rank_heads(masses, k=masses[0, ..., 0, 0].size, seed=seed)
    pairs = list(full[["layer", "head"]].itertuples(index=False, name=None))
    ours, listed = set(pairs[:10]), set(printed[who]["reasoning-focus head"])
    table = full.assign(
        model=who,
        name=[figures.head_name(*pair) for pair in pairs],
        rank=range(1, len(full) + 1),
        printed=[pair in listed for pair in pairs],
        retrieval=[pair in printed[who]["retrieval head"] for pair in pairs],
        cut=full["mass"][9],
    )
    table = table.drop(columns=["layer", "head", "lift", "rank_stability"])
    return table[[pair in ours ^ listed for pair in pairs]]


differ = pd.concat([differing(who) for who in theirs]) if theirs else pd.DataFrame()
shared = {
    who: 10 - int(differ[differ["model"] == who]["printed"].sum()) for who in theirs
}
lost = differ[differ["printed"]] if theirs else differ
run.write_record(
    "published_lists",
    {
        "shared": shared,
        "lost": len(lost),
        "lost_retrieval": int(lost["retrieval"].sum()) if theirs else 0,
        "lost_below_cut": int((lost["ci_high"] < lost["cut"]).sum())
        if theirs
        else 0,
    },
)
absent = "Nor the heads that are in one of the two top 10 only."
differ.round(3) if theirs else Markdown(absent)

# %% [markdown]
# {% set p = published_lists %}{% if p.shared %}{% for who, n in p.shared.items() %}In {{ who }} {{
# n }} of the printed top 10 are in ours. {% endfor %}Why not all? The others stand in both in the
# same order but for a few places, so the masses are the same quantity. Of the {{ p.lost }} printed
# heads that our ranking lacks, {{ p.lost_below_cut }} lie below the cut by more than their interval
# over the 100 cases, so that the draw of cases alone hardly explains them; and {{ p.lost_retrieval
# }} of the {{ p.lost }} are on the printed list of retrieval heads. That fits a list that was in
# part drawn up on other traces or by another rule; which, the printed material does not say.{%
# endif %}
#
# The printed lists of all three distills, for comparison of depth only: heads of different models
# have nothing to do with each other.

# %%
pd.DataFrame(
    {
        who: [figures.head_name(*head) for head in kinds["reasoning-focus head"]]
        for who, kinds in printed.items()
    }
)

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else.

# %%
import torch
from scipy import stats

from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.hooks import head_outputs, logit_directions
from r2a_utils.teaching.checks import attention as workshop

top_rows = heads.rank_heads(mass, k=k, seed=seed)[["layer", "head"]]
top_heads = list(top_rows.itertuples(index=False, name=None))
strongest = top_heads[0]
boxed_traces = [t for t in traces if "\\boxed{" in t.answer_text]

# %% [markdown]
# ### Exercise 4.1: Does a head walk along?
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
def answer_tokens(trace):
    return trace.segments["answer"].stop - trace.segments["answer"].start


long_answer = max(traces[:50], key=answer_tokens)
thought = long_answer.segments["reasoning"]
answer_rows = attention_rows(model, long_answer, top_heads).values
{
    figures.head_name(*one_head): round(
        float(tracking_of_head(head_rows, thought)), 3
    )
    for one_head, head_rows in zip(top_heads, answer_rows, strict=True)
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
# ### Exercise 4.2: What a head gives to a token
#
# Difficulty ●●●○○, importance ●●●●○, 15 minutes
#
# Reading is not giving. At one position a head adds to the residual stream the sum over tokens $j$
# of $A_j\, v_j W_O$; the logit of a token is the product with a direction. So each token that is
# read has its own share in the logit. Return these shares, one for each token, from `weights`
# [token], `values` [token, head_dim], `into` [head_dim, hidden] (the head's part of $W_O$) and
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
told = boxed_traces[0]
writes = answer_span(told).start  # the token in the box; the one before writes it
layer, head = strongest
group = head // (model.n_heads // model.n_kv_heads)
recorded = run_with_cache(model, told.token_ids)
residual = recorded.activations["resid"][-1][[writes - 1]]
wanted_id = torch.tensor([told.token_ids[writes]], device=residual.device)
query_row = attention_rows(model, told, [strongest], slice(writes - 1, writes))
shares = contribution_of_head(
    query_row.values[0, 0],
    recorded.values[layer][group].float().cpu().numpy(),
    head_outputs(model, layer)[head].float().cpu().numpy(),
    logit_directions(model, residual, wanted_id)[0].cpu().numpy(),
)
largest = np.argsort(-shares)[:3]
in_nats = {f"{told.tokens[j]!r} at {j}": float(shares[j]) for j in largest}
exact_shares = head_contributions(model, told, [strongest], writes=[writes])
in_nats["all tokens"] = float(shares.sum())
in_nats["all tokens, by the page's function"] = float(exact_shares.sum())
in_nats

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
# What the head takes from the token, $v_j W_O$, may point nowhere along the direction of this
# logit. It may still matter: later layers can read it and turn it into something else. Direct
# contribution sees the straight way only.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That the model needs these heads.** They read the reasoning; whether the answer depends on
#   them is tested by switching them off, in {doc}`stage 3 <06_head_interventions>`.
# - **That a head does one thing.** The same head may read any text behind it; a list of ten heads
#   is a cut through a continuous ranking.
# - **That reading explains an error.** The sentence that is read most is where an answer was
#   picked up, which is seldom where it became wrong.
#
# ## What is missing
#
# Whether the answer depends on what these heads read. Reading is seen by looking; using shows
# only when something is changed: {doc}`stage 3 <05_activation_patching>`.
