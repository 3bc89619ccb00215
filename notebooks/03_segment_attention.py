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
# # Stage 2: where do the answer's tokens look?
#
# **Question.** While the model writes its answer, how much of its attention goes to the
# reasoning?
#
# **What you will see.** The attention of answer tokens on each of the six segments, with and
# without reasoning, and where in the model (layer × head) the attention on the reasoning lies.
#
# **Before you start.** {doc}`Stage 1 <02_answer_quality>` found better answers after reasoning.
# It cannot say whether the answer reads the reasoning.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_traces = 120
batch_size = 16
seed = 0

# %%
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.attention import segment_mass
from r2a_utils.completions import read_traces
from r2a_utils.heads import uniform_mass
from r2a_utils.models import load_model
from r2a_utils.paper import published
from r2a_utils.problems import problems_from_table
from r2a_utils.traces import CONDITIONS, SEGMENTS

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))
traces = {
    name: read_traces(run.completions_path(name), model.tokenizer, problems)[:n_traces]
    for name in CONDITIONS
}
pd.Series({name: len(found) for name, found in traces.items()}, name="traces")

# %% [markdown]
# ## Segment mass
#
# The {term}`segment mass` $m(S \to T) = \frac{1}{|S|} \sum_{i \in S} \sum_{j \in T} A_{ij}$ is
# the mean attention that the tokens of segment $S$ pay to segment $T$. The masses of a head from
# one segment add up to 1. They are computed exactly, without ever holding a token × token matrix:
# attention is run once more with the values replaced by the indicator of each segment.

# %%
mass = {name: segment_mass(model, found, batch_size=batch_size) for name, found in traces.items()}
for name in CONDITIONS:
    run.write_array(f"segment_mass_{name}", mass[name])
mass["with_reasoning"].sizes

# %% [markdown]
# ## The six boxes
#
# One point is one trace, averaged over all layers and heads.

# %%
answer = {
    name: m.sel(from_segment="answer").mean(["layer", "head"]).sel(to_segment=list(SEGMENTS))
    for name, m in mass.items()
}
plots.six_boxes({plots.CONDITION_LABELS[name]: a.values for name, a in answer.items()})

# %% [markdown]
# A raw mass is not yet a preference: a longer segment gets more attention even from a head that
# looks at everything alike. The {term}`uniform null` is the mass that such a head would have,
# trace by trace; {term}`lift` is mass over null. And much attention rests on BOS, the
# {term}`attention sink`; the sink-free mass is the share of what is left.

# %%
with_reasoning = mass["with_reasoning"]
null = {s: float(uniform_mass(with_reasoning, "answer", s).mean()) for s in SEGMENTS}
shares = answer["with_reasoning"].mean("trace").to_series()
table = pd.DataFrame({"mass": shares, "uniform null": null}).loc[list(SEGMENTS)]
table["lift"] = table["mass"] / table["uniform null"]
table.round(3)

# %% [markdown]
# ## Layer by layer, head by head

# %%
targets = ("bos", "prompt", "reasoning", "answer")
from_answer = with_reasoning.sel(from_segment="answer").mean("trace")
plots.head_maps(
    {f"answer → {plots.SEGMENT_LABELS[t]}": from_answer.sel(to_segment=t).values for t in targets}
)

# %%
to_reasoning = from_answer.sel(to_segment="reasoning")
by_layer = to_reasoning.mean("head").to_series()
run.write_record(
    "segment_attention",
    {
        "n": with_reasoning.sizes["trace"],
        "answer": {s: float(shares[s]) for s in SEGMENTS},
        "uniform_reasoning": null["reasoning"],
        "lift_reasoning": float(table["lift"]["reasoning"]),
        "top_layer": int(by_layer.idxmax()),
        "n_layers": model.n_layers,
        "largest_head": float(to_reasoning.max()),
    },
)

# %% [markdown]
# Answer tokens give {{ segment_attention.answer.reasoning | percent(1) }} of their attention to
# the reasoning, {{ segment_attention.lift_reasoning | number }} times what a uniform head would
# ({{ segment_attention.uniform_reasoning | percent(1) }}). The single head that reads it most
# gives {{ segment_attention.largest_head | percent }}; the layer that reads it most, on average
# over its heads, is layer {{ segment_attention.top_layer }} of 0 to {{ segment_attention.n_layers
# - 1 }}.
#
# ## Beside the paper
#
# The paper's means over 100 MATH-500 cases for the real distills {cite:p}`zhang2025reasoning`,
# and this run's model in the last row. The rows differ in model, problems and lengths, so that
# their order means more than their size.

# %%
theirs = published()["stage2_mean_segment_mass_answer"]
rows = {name: theirs[name] for name in published()["models"]}
compared = pd.DataFrame(rows, index=theirs["columns"]).T[list(SEGMENTS)]
compared.loc[f"{model.name} (this run)"] = shares[list(SEGMENTS)]
compared.round(4)

# %% [markdown]
# ## What this does not show
#
# - **That what is read is used.** Attention is where information can come from, not what is done
#   with it. {doc}`Stage 3 <05_activation_patching>` intervenes.
# - **That the mean tells the story.** A mean over all heads hides the few that specialise;
#   {doc}`the next page <04_reasoning_focus_heads>` looks for them.
# - **That masses compare across models.** A long answer looks back at itself, a short one cannot;
#   sinks differ by family. Lift and sink-free mass lessen this, and do not remove it.
