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
# # Stage 2: Reasoning-Focus Heads
#
# **Question.** Which heads read the reasoning while the answer is written, and can their ranking
# be trusted?
#
# **What you will see.** The top heads with intervals and controls, where in the model they sit,
# and maps of the strongest ones on three traces, with the answer's rows and the cues marked.
#
# **Before you start.** {doc}`Segment attention <03_segment_attention>`: the masses that are
# ranked here.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
k = 10
n_maps = 3
seed = 0

# %%
import pandas as pd

from r2a_utils import heads, plots
from r2a_utils.artifacts import Run
from r2a_utils.attention import attention_rows
from r2a_utils.completions import read_traces
from r2a_utils.models import load_model
from r2a_utils.paper import published
from r2a_utils.problems import problems_from_table
from r2a_utils.traces import cues

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
mass = run.read_array("segment_mass_with_reasoning")
problems = problems_from_table(run.read_table("problems"))
traces = read_traces(run.completions_path("with_reasoning"), model.tokenizer, problems)

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
plots.head_ranking(ranking, uniform=float(heads.uniform_mass(mass).mean()))

# %% [markdown]
# ## May the ranking be trusted?
#
# A ranking that two random halves of the traces do not share is noise. And since longer reasoning
# attracts more attention from any head, the ranking should hold among traces of like length.

# %%
reliability = heads.ranking_reliability(mass, seed=seed)
heads.ranking_across_lengths(mass, k=k).round(3)

# %% [markdown]
# ## Where in the model?
#
# The paper finds its heads in the middle layers. Below, the top heads of this model against an
# even spread over all layers.

# %%
rfhs = list(ranking[["layer", "head"]].itertuples(index=False, name=None))
depth = heads.depth_test(rfhs, model.n_layers, model.n_heads, seed=seed)
plots.depth_distribution(rfhs, model.n_layers, depth.p_central)

# %%
to_reasoning = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
plots.head_maps({"answer → reasoning": to_reasoning.values}, {"reasoning-focus head": rfhs})

# %% [markdown]
# ## What the strongest heads look at
#
# The three strongest heads on three traces: the first ones with a long answer, a correction and
# at least four steps where there are such. A diagonal inside the green box means that the head
# walks along the reasoning as the answer is written.


# %%
def corrects_itself(trace):
    answer = trace.segments["answer"]
    long_answer = answer.stop - answer.start >= 30
    return (
        long_answer
        and trace.meta.get("steps", 4) >= 4
        and any(cue.word in ("wait", "let me check") for cue in cues(trace))
    )


shown = sorted(traces, key=lambda trace: not corrects_itself(trace))[:n_maps]
rows = [attention_rows(model, trace, rfhs[:3], slice(0, len(trace))) for trace in shown]
panels = [
    [
        plots.AttentionPanel(
            row[i].values, 0, trace.segments, cues(trace), f"trace {j + 1}, {len(trace)} tokens"
        )
        for j, (trace, row) in enumerate(zip(shown, rows, strict=True))
    ]
    for i in range(3)
]
plots.attention_maps(panels, [plots.head_name(*head) for head in rfhs[:3]])

# %% [markdown]
# And one trace as text: each token is shaded by the attention that the answer pays to it, on
# average over the top heads.

# %%
trace = shown[0]
read = attention_rows(model, trace, rfhs).mean(["head", "query"]).values
plots.coloured_tokens(trace.tokens, read, trace.segments, cues(trace))

# %%
run.write_record(
    "reasoning_focus_heads",
    {
        "k": k,
        "n_heads": model.n_layers * model.n_heads,
        "top": plots.head_name(*rfhs[0]),
        "top_mass": ranking.mass[0],
        "top_lift": ranking.lift[0],
        "reliability": reliability.spearman,
        "reliability_low": reliability.low,
        "mean_depth": depth.mean_depth,
        "in_middle": depth.in_middle,
        "expected_in_middle": depth.expected_in_middle,
        "p_central": depth.p_central,
    },
)

# %% [markdown]
# The strongest head, {{ reasoning_focus_heads.top }}, gives {{ reasoning_focus_heads.top_mass |
# percent }} of its attention to the reasoning, {{ reasoning_focus_heads.top_lift | number }}
# times what a uniform head would. Two random halves of the traces rank all heads with a
# correlation of {{ reasoning_focus_heads.reliability | number }}. Of the top {{
# reasoning_focus_heads.k }} of {{ reasoning_focus_heads.n_heads }} heads {{
# reasoning_focus_heads.in_middle }} sit in the middle third of the layers, where {{
# reasoning_focus_heads.expected_in_middle | number(1) }} would by chance; nearness to the middle
# against an even spread: {{ reasoning_focus_heads.p_central | p_value }}.
#
# ## Beside the paper
#
# The published lists of the real distills (layer, head), for comparison of depth only: heads of
# different models have nothing to do with each other.

# %%
lists = published()["stage2_reasoning_focus_heads_top10"]
pd.DataFrame(
    {name: [plots.head_name(*head) for head in lists[name]] for name in published()["models"]}
)

# %% [markdown]
# ## What this does not show
#
# - **That the model needs these heads.** They read the reasoning; whether the answer depends on
#   them is tested by switching them off, in stage 3.
# - **That a head does one thing.** The same head may read any text behind it; a list of ten heads
#   is a cut through a continuous ranking.
