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
# without reasoning, with its controls; where in the model (layer × head) the attention on the
# reasoning lies; and the same figures from the authors' own masses of the real distills.
#
# **Before you start.** {doc}`Stage 1 <02_answer_quality>` found better answers after reasoning.
# It cannot say whether the answer reads the reasoning.

# %% [markdown]
# ## Parameters
#
# `paper_data` names a folder with the authors' data; `None` stands for what the environment
# variable `R2A_PAPER_DATA` names, if it is set.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
n_traces = 120
batch_size = 16
seed = 0
paper_data: str | None = None

# %%
import os

import pandas as pd
from IPython.display import Markdown

from r2a_utils import paper, plots
from r2a_utils.artifacts import Run
from r2a_utils.attention import segment_mass
from r2a_utils.completions import read_traces
from r2a_utils.heads import sink_free_mass, uniform_mass
from r2a_utils.models import load_model
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
def by_segment(masses):
    """The answer's mass on each segment, mean over layers and heads: [trace, segment]."""
    answer = masses.sel(from_segment="answer", to_segment=list(SEGMENTS))
    return answer.mean(["layer", "head"]).transpose("trace", "to_segment")


answer = {name: by_segment(m) for name, m in mass.items()}
plots.six_boxes({plots.CONDITION_LABELS[name]: a.values for name, a in answer.items()})

# %% [markdown]
# Compare the two panels box by box. With reasoning, the box of the reasoning holds what a long
# text in between draws to itself; without, its place is taken by one prefilled sentence, and what
# it draws shows how much of the attention goes to any text at that place.
#
# The boxes do not say that the reasoning is *preferred*. It is the longest segment, and a head
# that looks at everything alike would give it most as well.
#
# ## Is it more than length and sink?
#
# Two corrections. The {term}`uniform null` is the mass that a head which looks at everything alike
# would have, trace by trace; {term}`lift` is mass over null. And where much attention rests on
# BOS, the {term}`attention sink`, the sink-free mass is the share of what is left.


# %%
def with_controls(masses):
    """Mass, sink-free mass and uniform null of the answer by segment, means over traces."""
    free = sink_free_mass(masses.sel(from_segment="answer"))
    columns = {
        "mass": by_segment(masses).mean("trace").to_series(),
        "sink-free": free.mean(["trace", "layer", "head"]).to_series(),
        "uniform null": {s: float(uniform_mass(masses, "answer", s).mean()) for s in SEGMENTS},
    }
    table = pd.DataFrame(columns).loc[list(SEGMENTS)]
    return table.assign(lift=table["mass"] / table["uniform null"])


with_reasoning = mass["with_reasoning"]
table = with_controls(with_reasoning)
table.round(3)

# %%
plots.segment_shares({name: table[name].values for name in table.columns[:3]})

# %% [markdown]
# Read each bar against the one at the bottom: where the first is longer for a segment, heads go
# there more than its length explains; where the second is longer than the first, the sink had
# hidden it.
#
# The null knows lengths and order only. A head that always looks a fixed way back differs from it
# without knowing what a reasoning is; {doc}`the next page <04_reasoning_focus_heads>` turns the
# segment borders around for that.
#
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
        "answer": table["mass"].to_dict(),
        "sink_free_reasoning": table["sink-free"]["reasoning"],
        "uniform_reasoning": table["uniform null"]["reasoning"],
        "lift_reasoning": table["lift"]["reasoning"],
        "prefilled": float(answer["without_reasoning"].sel(to_segment="reasoning").mean()),
        "top_layer": int(by_layer.idxmax()),
        "n_layers": model.n_layers,
        "largest_head": float(to_reasoning.max()),
    },
)

# %% [markdown]
# Answer tokens give {{ segment_attention.answer.reasoning | percent(1) }} of their attention to
# the reasoning, {{ segment_attention.lift_reasoning | number }} times what a uniform head would
# ({{ segment_attention.uniform_reasoning | percent(1) }}); of what does not rest on BOS it is {{
# segment_attention.sink_free_reasoning | percent(1) }}. On the prefilled thought they spend {{
# segment_attention.prefilled | percent(1) }}. The single head that reads the reasoning most gives
# it {{ segment_attention.largest_head | percent }}; the layer that reads it most, on average over
# its heads, is layer {{ segment_attention.top_layer }} of 0 to {{ segment_attention.n_layers - 1
# }}.
#
# A mean lift below 1 does not say that the reasoning is shunned: the mean runs over all heads, and
# heads that look at their own neighbourhood, which here is the answer, pull it down. A layer whose
# heads all look alike at everything reads the longest segment most.
#
# A map of means cannot show whether a bright head is bright on every trace or on a few; the
# intervals are on {doc}`the next page <04_reasoning_focus_heads>`.
#
# ## The same from the real distills
#
# The authors kept the masses of 100 MATH-500 cases for two of their models
# {cite:p}`zhang2025reasoning`. Where their folder is given, the six boxes and the controls are
# made from those numbers by the same code.

# %%
folder = paper_data or os.environ.get(paper.DATA_VARIABLE)
aliases = ("qwen-1p5B", "qwen-7B") if folder else ()
theirs = {
    (paper.MODEL_NAMES[alias], name): paper.load_segment_mass(folder, alias, name)
    for alias in aliases
    for name in CONDITIONS
}
boxes = {
    f"{who}, {plots.CONDITION_LABELS[name].lower()}": by_segment(m).values
    for (who, name), m in theirs.items()
}
absent = "The folder is not given: here would stand the six boxes of R1-Qwen-1.5B and R1-Qwen-7B."
plots.six_boxes(boxes) if theirs else Markdown(absent)

# %%
controlled = {
    who: with_controls(m) for (who, name), m in theirs.items() if name == "with_reasoning"
}
shares = {
    f"{who}, {column}": control[column].values
    for who, control in controlled.items()
    for column in table.columns[:3]
}
absent = "Nor are their controls: mass, sink-free mass and uniform null by segment."
plots.segment_shares(shares) if shares else Markdown(absent)

# %%
lifts = {who: control["lift"]["reasoning"] for who, control in controlled.items()}
run.write_record("segment_attention_of_distills", {"lift_reasoning": lifts})

# %% [markdown]
# {% if segment_attention_of_distills.lift_reasoning %}
# {% for name, lift in segment_attention_of_distills.lift_reasoning.items() %} In {{ name }} the
# answer gives the reasoning {{ lift | number }} times what a uniform head would.{% endfor %} Their
# reasoning is far longer than the bundled model's and fills nearly all that a uniform head would
# see; it takes a specialised head to hold most of its attention there.
#
# The masses come from sampled traces of one benchmark, on raw prompts without a chat template.
# {% endif %}
#
# ## Beside the paper
#
# The paper's means over 100 MATH-500 cases for the real distills, and this run's model in the
# last row. The rows differ in model, problems and lengths, so that their order means more than
# their size.

# %%
means = paper.published()["stage2_mean_segment_mass_answer"]
rows = {name: means[name] for name in paper.published()["models"]}
compared = pd.DataFrame(rows, index=means["columns"]).T[list(SEGMENTS)]
compared.loc[f"{model.name} (this run)"] = table["mass"]
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
