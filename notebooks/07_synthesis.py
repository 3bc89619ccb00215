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
#       arrays/segment_mass_with_reasoning, tables/accuracy_by_steps,
#       tables/reasoning_focus_heads, tables/patching_curves, tables/knockout_profile,
#       records/answer_quality, records/segment_attention, records/contrast_pairs,
#       records/activation_patching
#     ]
#     writes: [
#       tables/findings, records/paper_effects, records/home_figures, figures/answers,
#       figures/heads, figures/patching
#     ]
# ---

# %% [markdown]
# # From reasoning to answer: what may be concluded
#
# **Question.** Taken together, do the stages say that the answer comes from the reasoning?
#
# **What you will see.** The findings of this run in one table beside the paper's, and what each
# of them can and cannot carry.
#
# **What we know so far.** The findings of {doc}`stage 1 <02_answer_quality>`, {doc}`stage 2
# <03_segment_attention>` and {doc}`stage 3 <05_activation_patching>`. This page measures nothing
# new.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"

# %%
import pandas as pd

from r2a_utils import figures
from r2a_utils.paper import published_findings
from r2a_utils.runs import Run

run = Run.open(run_dir)
quality = run.read_record("answer_quality")
attention = run.read_record("segment_attention")
pairs = run.read_record("contrast_pairs")
patching = run.read_record("activation_patching") if pairs["kept"] else {}
paper = published_findings()

# %% [markdown]
# ## One table
#
# Each row is a finding; the columns are this run and the paper's three distilled models
# {cite:p}`zhang2025reasoning`. They differ in model and problems, and can be compared in kind, not
# in size. The early effect of one token is measured under the paper's two probes, which end the
# reasoning with the line that the row names. The effect before layer 0 is another quantity, under
# the protocol by which this run's pairs were scored ("own" scores the answer as it stands in the
# trace). A dash means that the paper has no such number, that no pair of this run is kept under
# that probe, or that its line is less likely to this model than tokens drawn blindly.

# %%
lines = {  # a probe that the model has never read says nothing beside the paper's
    name: patching[f"early_{name}"]
    for name in ("probe", "boxed_probe")
    if patching and (patching[f"{name}_nats"] or 0) <= patching["blind_nats"]
}
own = {
    "with_reasoning": quality["with_reasoning"],
    "without_reasoning": quality["without_reasoning"],
    "mass": attention["answer"]["reasoning"],
    "early_probe": lines.get("probe"),
    "early_boxed_probe": lines.get("boxed_probe"),
    "first": patching.get("flipping_first"),
}
headings = {
    "with_reasoning": "right with reasoning",
    "without_reasoning": "right without",
    "mass": "attention answer → reasoning",
    "early_probe": "early effect, “Final answer is A.”",
    "early_boxed_probe": "early effect, “Final answer is \\boxed{A}.”",
    "first": f"effect before layer 0, “{pairs['protocol']}”",
}
this = pd.DataFrame([own], index=["this run"])
findings = pd.concat([this, paper]).rename(columns=headings).astype(float)
run.write_table("findings", findings)
figures.reading_table(findings.T)

# %% [markdown]
# The lowest and highest effects of the paper's models are quoted at the end of this page.

# %%
effects = paper[["early_probe", "early_boxed_probe"]]
run.write_record(
    "paper_effects",
    {
        "plain_lowest": effects["early_probe"].min(),
        "plain_highest": effects["early_probe"].max(),
        "boxed_lowest": effects["early_boxed_probe"].min(),
        "boxed_highest": effects["early_boxed_probe"].max(),
        "lowest": effects.min().min(),
        "highest": effects.max().max(),
    },
)

# %% [markdown]
# ## One picture a stage
#
# The small figures of the {doc}`home page </intro>` are drawn here, from what the stages have kept;
# they stand on that page.

# %%
mass = run.read_array("segment_mass_with_reasoning")
to_reasoning = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
rfhs = run.read_table("reasoning_focus_heads")[["layer", "head"]].to_numpy()
by_steps = run.read_table("accuracy_by_steps")
home = {
    "answers": figures.home_answers(by_steps, quality["asked_for"]),
    "heads": figures.home_heads(to_reasoning.values, rfhs.tolist()),
}
if patching:
    curves = run.read_table("patching_curves")
    home["patching"] = figures.home_patching(curves)
for name, figure in home.items():
    run.write_figure(name, figure)
run.write_record(
    "home_figures", {name: figure.alt_text for name, figure in home.items()}
)

# %% [markdown]
# ## One axis of layers
#
# Attention says where the answer looks, patching where the state that decides it moves, and a cut
# where something is missed. Each is blind to something; where all three point at one layer, more is
# known than any of them says alone.

# %%
profile = run.read_table("knockout_profile").query("width == 1")
figures.layers_together(
    to_reasoning.values,
    rfhs.tolist(),
    run.read_table("patching_curves")
    if patching
    else pd.DataFrame(columns=["curve", "layer", "mean"]),
    profile,
    crossing=patching.get("crossing"),
)

# %% [markdown]
# **Figure.** `{{ model.name }}`, layer by layer. Top: the attention of each {term}`head` from the
# answer to the reasoning; the {term}`Reasoning-Focus Heads <RFH>` are coloured. Middle: what a
# {term}`patch` of the token that states the conclusion, and of the last token, restores (a point
# stands left of the layer before which it is patched). Bottom: change of the right answer's
# log-probability when one layer's edges from the answer to the reasoning are cut; in grey, random
# spans and the prompt. A dotted line marks where the curves of patching cross, if they do.

# %% [markdown]
# {% set p = activation_patching if activation_patching is defined else {} %}The strongest head is
# {{ reasoning_focus_heads.top }}, a cut costs most in layer {{ head_interventions.strongest_layer
# }}{% if p.crossing is defined and p.crossing is not none %}, and the curves of patching cross
# before layer {{ p.crossing }}{% endif %}. {% if p.asked_low is not defined or p.asked_low <= 0.1
# %}Few or no answers flip: the crossing says where the answer's own source is read, and not that it
# is the reasoning.{% elif p.crossing is none %}The curves do not cross, so that the cut stands
# alone.{% elif 0 <= p.crossing - head_interventions.strongest_layer <= 1 %}The two that change the
# model point at the same place; that they concern the same content is not shown.{% else %}The two
# that change the model do not meet in one layer.{% endif %}

# %% [markdown]
# ## What the stages say, one after the other
#
# 1. **{% if answer_quality.ci_low > 0 %}More answers are right after reasoning.{% elif
#    answer_quality.ci_high < 0 %}Fewer answers are right after reasoning.{% else %}That reasoning
#    changes how many answers are right is not shown.{% endif %}** {{ answer_quality.with_reasoning
#    | percent }} against {{ answer_quality.without_reasoning | percent }} on the same {{
#    answer_quality.n }} problems (difference {{ (100 * answer_quality.difference) | number(1) }}
#    points, {{ (100 * answer_quality.ci_low) | number(1) }} to {{ (100 * answer_quality.ci_high) |
#    number(1) }}). This is about outcomes: a gain would also come if reasoning merely bought time.

# %% [markdown]
# 2. **{% if not looking.n %}Where the answer looks is known, not what of it takes training.{% elif
#    looking.own.lift > 1 and looking.own.lift > looking.untrained.lift %}The answer looks at the
#    reasoning more than its length and random weights explain.{% elif looking.above_untrained
#    %}Some heads look at the reasoning more than their place in the text and random weights
#    explain; the mean of all heads does not.{% else %}No head looks at the reasoning more than one
#    of an untrained model.{% endif %}** The reasoning gets {{ segment_attention.answer.reasoning |
#    percent }} of the answer's attention, {{ segment_attention.lift_reasoning | number }} times the
#    share of a uniform {term}`head`{% if looking.n %}; {{ looking.above_untrained }} of {{
#    segment_attention.n_heads }} heads look at it more than any head of {{ looking.n }}
#    {term}`untrained twins <untrained twin>`{% endif %}. The strongest head, {{
#    reasoning_focus_heads.top }}, gives it {{ reasoning_focus_heads.top_mass | percent }}, and {{
#    reasoning_focus_heads.beyond_distance }} of the top {{ reasoning_focus_heads.k }} give it more
#    than their distance profiles would{% if untrained_ranking.n %} (of the untrained up to {{
#    untrained_ranking.untrained.beyond_distance | number(0) }}){% endif %}. Looking is not using.

# %% [markdown]
# 3. {% set c = crossed_answers %}**{% if c.verdict == "reasoning" %}The answer follows the
#    reasoning.{% elif c.verdict == "open" %}Some answers follow the reasoning.{% elif c.verdict ==
#    "question" %}The answer does not follow the reasoning.{% else %}That the answer follows the
#    reasoning is not shown.{% endif %}** Of {{ c.asked }} pairs of problems {{ c.follows |
#    percent }} ({{ c.follows_low | percent }} to {{ c.follows_high | percent }}) get the answer
#    that a reasoning leads to also when it is put behind the other question; {{ c.stays | percent
#    }} keep the question's. {% if activation_patching is defined %}Exchanging the state of the one
#    {term}`token` that states the conclusion last flips {% for f in activation_patching.families
#    %}{{ f.of_asked | percent }} of the {{ f.asked }} answers asked in {{ f.family }} ({{ f.low |
#    percent }} to {{ f.high | percent }}) and restores {{ f.first | number }} of the difference
#    before layer 0{% if not loop.last %}; {% endif %}{% endfor %} (protocol "{{
#    activation_patching.protocol }}"); what moves it by less than {{ "%.1e" |
#    format(activation_patching.noise_floor) }} is noise. {% if activation_patching.crossing is not
#    none %}The curves of {term}`patching <patch>` cross before layer {{
#    activation_patching.crossing }}{% if activation_patching.crossing_low !=
#    activation_patching.crossing_high %} ({{ activation_patching.crossing_low }} to {{
#    activation_patching.crossing_high }} over samples of the pairs){% endif %}. {% endif %}{% else
#    %}No pair could be patched. {% endif %}With the way from the answer to the reasoning cut in
#    layer {{ head_interventions.strongest_layer }}, the right answer's log-probability changes by
#    {{ head_interventions.strongest_change | number }} nats.

# %% [markdown]
# 4. **Whether just these heads carry it is another question.** {% if head_interventions.flip_n
#    %}Answers that change or are lost with the {term}`Reasoning-Focus Heads <RFH>`, and with random
#    heads of the same layers in the median (range): {% for way, f in
#    head_interventions.flips.items() %}{{ way }} {{ f.rfh | percent }}, {{ f.median | percent }}
#    ({{ f.low | percent }} to {{ f.high | percent }}){% if not loop.last %}; {% endif %}{% endfor
#    %}. {% else %}The model boxes no answer of its own that could be seen to change. {% endif %}{%
#    if head_interventions.verdict == "different" %}By the answer's log-probability at least one of
#    four ways to cut or {term}`ablate <ablation>` tells the two apart ({{
#    head_interventions.smallest_p | p_value }}){% if crossed_answers.verdict != "reasoning" %}, for
#    an answer that was not shown to follow the reasoning{% endif %}{% elif
#    head_interventions.verdict == "cannot tell" %}By the answer's log-probability this design
#    cannot tell the two apart: it allows no p below {{ head_interventions.smallest_possible_p |
#    number }}{% else %}By the answer's log-probability none of four ways to cut or {term}`ablate
#    <ablation>` tells the two apart, though one could have ({{ head_interventions.smallest_p |
#    p_value }}){% endif %}{% if held_out_heads is defined and held_out_heads.questions %}. With
#    heads ranked where the answer is written, on other traces than those that are cut: {% for q in
#    held_out_heads.questions %}{{ q.question }} {% if q.verdict == "different" %}cost more than
#    random ones ({{ q.p | p_value }}){% elif q.verdict == "cannot tell" %}cannot be told from
#    random ones by any result{% else %}are not told from random ones, though they could have been
#    ({{ q.p | p_value }}){% endif %}{% if not loop.last %}; {% endif %}{% endfor %}{% endif %}.

# %% [markdown]
# 5. **Where in the reasoning it lies.** {% if sentence_importance.needed_n %}A forced answer needs
#    {{ sentence_importance.needed | percent }} of the reasoning ({{ sentence_importance.needed_n
#    }} of {{ sentence_importance.n }} {term}`traces <trace>`).{% else %}After none of the
#    {term}`traces <trace>` does the model write the forced answer.{% endif %} In {{
#    sentence_importance.dear_n }} of {{ sentence_importance.n }} some sentence alone costs the
#    answer more than {{ sentence_importance.noise | number(1) }} nats{% if
#    sentence_importance.dear_n %}; in {{ sentence_importance.last_strongest | percent }} of those
#    it is the last one{% endif %}.

# %% [markdown]
# ## What may be concluded
#
# {% if crossed_answers.verdict == "reasoning" %}In this model and on these pairs of problems, the
# answer depends causally on what the reasoning says{% if activation_patching is defined and
# activation_patching.crossing is not none %}, and by the
# input of layer {{ activation_patching.crossing }} the last token before the answer has taken it
# up{% endif %}.{% elif crossed_answers.verdict ==
# "open" %}In this model the answer depends on what the reasoning says in {{
# crossed_answers.follows | percent }} of the pairs; for the others this run shows no such
# dependence.{% else %}That the answer depends on what the reasoning says is not shown by this
# run: it follows it in {{ crossed_answers.follows |
# percent }} of the pairs.{% endif %} {% if text_tests is defined and text_tests.outcomes is defined
# and text_tests.outcomes.kept_earlier is defined %}That is about its conclusion: with a mistake in
# an earlier step and the rest kept, {{ text_tests.outcomes.kept_earlier.follows | percent }} of the
# answers follow the mistake. {% endif %}{% if answer_quality.ci_low > 0 %}More answers are right
# after reasoning; how much of that gain comes about in this way, no stage has measured.{% endif %}
# {% if scoreboard is defined %}
#
# How far each instrument can be trusted was tested on models of which it is known whether they use
# their reasoning ({doc}`which instruments tell the truth? <06b_which_instruments>`). {% set b =
# scoreboard.by_verdict %}Of {{ scoreboard.n }} instruments, {% if b.tells %}{{ b.tells | length }}
# {% if b.tells | length == 1 %}tells{% else %}tell{% endif %} whether an answer uses its reasoning
# ({{ b.tells | join("; ") }}){% else %}none tells in every contrast whether an answer uses its
# reasoning{% endif %}; {{ b["tells in part"] | length }} tell in part, {{
# b["cannot say"] | length }} cannot say{% set silent = b["does not tell"] %}{% if silent %}, {{
# silent | length }} {% if silent | length == 1 %}does{% else %}do{% endif %} not tell ({{ silent |
# join("; ") }}){% endif %}{% if b.misleads %}, and {{ b.misleads | join("; ") }} {% if b.misleads |
# length == 1 %}misleads{% else %}mislead{% endif %}{% endif %}.{% if
# scoreboard.dose_problems is defined and scoreboard.dose_problems %} Whether a reading is larger
# where more of the answers come from the reasoning was tested at known doses, on
# at least {{ scoreboard.dose_problems }} problems. {% if scoreboard.by_growth.grows %}In the ladder
# of each training seed the mean reading rises from each dose to the next for {% for name in
# scoreboard.by_growth.grows %}{{ name }} (rank correlation {{ scoreboard.rhos[name].rho | number
# }}, intervals from {{ scoreboard.rhos[name].ci_low | number }} to {{
# scoreboard.rhos[name].ci_high | number }}){% if not loop.last %}; {% endif %}{% endfor %}{% else
# %}No mean reading rises from each dose to the next{% endif %}. Of the other instruments, {{
# scoreboard.by_growth["grows in part"] | length }} grow in part, {{
# (scoreboard.by_growth["does not grow"] + scoreboard.by_growth.falls) | length }} do not grow or
# fall, and of {{ scoreboard.by_growth["cannot say"] | length }} these problems cannot say.{% endif
# %}{% endif %}

# %% [markdown]
# {% if verdicts is defined %}## Across models
#
# Every claim of the paper against every model of this book and the paper's own numbers; {doc}`the
# rule </compare>` is the same for all. Point at a verdict for its number.
#
# {{ verdicts.table("../") }}
#
# {{ verdicts.controls() }}
#
# {{ verdicts.told() }} Where columns disagree, the reason may lie in the model, in the problems or
# in the length of the traces, since the columns differ in all three. Across models, only rows whose
# columns agree allow a conclusion.{% endif %}

# %% [markdown]
# ## What this does not show
#
# - **That the reasoning is faithful.** If an answer takes its conclusion from the reasoning, that
#   does not mean that the conclusion was reached by the steps before it.
# - **That this holds for any model.** {% if model.name == "r2a-tiny" %}`r2a-tiny` is a
#   {term}`model organism`: it was made to need its reasoning. What it can show is whether the
#   methods find a dependence that is known to be there.{% else %}It is one model, `{{ model.name
#   }}`, on one kind of pairs.{% endif %}
# - **That an effect on short, clean pairs is the effect on a real trace.** The paper's early-layer
#   effects for real distills, under its probes, lie between {{ paper_effects.lowest }} and {{
#   paper_effects.highest }}.
#
# ## What is missing
#
# The real distills at their real lengths. The stages run on them as they stand; {doc}`status
# </status>` tells which runs this book shows.
