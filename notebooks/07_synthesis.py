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
# # From reasoning to answer: what may be concluded
#
# **Question.** Taken together, do the stages say that the answer comes from the reasoning?
#
# **What you will see.** The findings of this run in one table beside the paper's, and what each
# of them can and cannot carry.
#
# **What we know so far.** What {doc}`stage 1 <02_answer_quality>`, {doc}`stage 2
# <03_segment_attention>` and {doc}`stage 3 <05_activation_patching>` found. This page measures
# nothing of its own.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"

# %%
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.paper import published

run = Run.open(run_dir)
quality = run.read_record("answer_quality")
attention = run.read_record("segment_attention")
heads = run.read_record("reasoning_focus_heads")
patching = run.read_record("activation_patching")
interventions = run.read_record("head_interventions")
paper = published()

# %% [markdown]
# ## One table
#
# Each row is a finding; the columns are this run and the paper's three distilled models
# {cite:p}`zhang2025reasoning`. The columns differ in model, problems and protocol. They may be
# compared in kind, not in size.

# %%
distills = list(paper["models"])
stage1 = {row["model"]: row for row in paper["stage1_math500"]["rows"]}
masses = paper["stage2_mean_segment_mass_answer"]
effects = paper["stage3_patching"]["mean_early_layer_effect"]
reasoning = masses["columns"].index("reasoning")
findings = pd.DataFrame(
    {
        "right with reasoning": [quality["with_reasoning"]]
        + [stage1[m]["with_reasoning"] for m in distills],
        "right without": [quality["without_reasoning"]]
        + [stage1[m]["without_reasoning"] for m in distills],
        "attention answer → reasoning": [attention["answer"]["reasoning"]]
        + [masses[m][reasoning] for m in distills],
        "effect of the answer-flipping token, early layers": [
            patching["flipping_first"]
        ]
        + [effects[m][0] for m in distills],
    },
    index=["this run", *distills],
)
run.write_table("findings", findings)
every = [effect for m in distills for effect in effects[m]]
run.write_record("paper_effects", {"lowest": min(every), "highest": max(every)})
findings.T.round(3)

# %% [markdown]
# ## One picture a stage
#
# The three small figures of the {doc}`home page </intro>` are drawn here, from what the stages
# have kept.

# %%
mass = run.read_array("segment_mass_with_reasoning")
to_reasoning = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
rfhs = (
    run.read_table("reasoning_focus_heads")[["layer", "head"]].to_numpy().tolist()
)
home = {
    "answers": plots.home_answers(
        run.read_table("accuracy_by_steps"), quality["asked_for"]
    ),
    "heads": plots.home_heads(to_reasoning.values, rfhs),
    "patching": plots.home_patching(run.read_table("patching_curves")),
}
for name, figure in home.items():
    run.write_figure(name, figure)
run.write_record(
    "home_figures", {name: figure.alt_text for name, figure in home.items()}
)

# %% [markdown]
# ## What the stages say, one after the other
#
# 1. **Answers are better after reasoning.** {{ answer_quality.with_reasoning | percent }} against
#    {{ answer_quality.without_reasoning | percent }} on the same {{ answer_quality.n }} problems.
#    This is about outcomes: it would also hold if reasoning merely bought time.
# 2. **The answer looks at the reasoning.** {{ segment_attention.answer.reasoning | percent }} of
#    its attention, {{ segment_attention.lift_reasoning | number }} times the share of a uniform
#    {term}`head`; the strongest head, {{ reasoning_focus_heads.top }}, gives it {{
#    reasoning_focus_heads.top_mass | percent }}. Looking is not using.
# 3. **The answer depends on it.** Exchanging the state of one reasoning {term}`token` restores {{
#    activation_patching.flipping_first | number }} of the difference between two answers and
#    turns {{ activation_patching.flip_rate | percent }} of {{ activation_patching.n }} of them
#    over; a state from the receiver itself changes nothing. An answer that cannot look at the
#    reasoning in layer {{ head_interventions.strongest_layer }} loses {{
#    -head_interventions.strongest_change | number }} nats{% if activation_patching.crossing is not
#    none %}; the curves of {term}`patching <patch>` cross before layer
#    {{ activation_patching.crossing }}{% endif %}.
# 4. **Whether just these heads carry it is another question.** With the {term}`Reasoning-Focus
#    Heads <RFH>` resampled {{ head_interventions.flip_rfh | percent }} of the answers change or are
#    lost, with random heads of the same layers {{ head_interventions.flip_random | percent }}; {%
#    if head_interventions.smallest_p > 0.05 %}by the answer's log-probability none of four ways to
#    cut or {term}`ablate <ablation>` tells the two apart{% else %}by the answer's log-probability
#    at least one of four ways tells the two apart{% endif %}.
# 5. **Where in the reasoning it lies.** A forced answer needs {{ sentence_importance.needed |
#    percent }} of the reasoning; in {{ sentence_importance.last_strongest | percent }} of the
#    {term}`traces <trace>` the answer depends most on the last sentence.
#
# ## What may be concluded
#
# In this model and on these problems, the answer causally depends on what the reasoning says: the
# way from one token of the conclusion to the answer can be found, followed through the layers and
# cut.
#
# ## What this does not show
#
# - **That the reasoning is faithful.** That the answer takes its conclusion from the reasoning
#   does not say that the conclusion was reached by the steps before it.
# - **That this holds for any model.** `r2a-tiny` is a {term}`model organism`: it was made to need
#   its reasoning. What it shows is that the methods find a dependence that is known to be there.
# - **That an effect of 1 on a short, clean pair means an effect of 1 on a real trace.** The paper's
#   early-layer effects for real distills lie between {{ paper_effects.lowest }} and
#   {{ paper_effects.highest }}.
#
# ## What is missing
#
# The real distills at their real lengths. The stages run on them as they stand; {doc}`status
# </status>` tells which runs this book shows.
