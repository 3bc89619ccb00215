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
# # Collecting traces
#
# **Question.** What does the model write on the same problems, once with and once without
# reasoning?
#
# **What you will see.** How many of the completions end by themselves and are well formed, how
# long they are, and how often the model turns on itself. All later pages read these traces.
#
# **Before you start.** {doc}`The anatomy of a trace <00_anatomy_of_a_trace>`.

# %% [markdown]
# ## Parameters
#
# `temperature = 0` is greedy decoding; the paper samples at 0.6. `source = "written"` does not
# let the model write at all but puts texts of the bundled world before it (teacher forcing), for
# models that cannot solve the problems but can be watched reading.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
dataset = "tiny"
n_problems = 400
seed = 0
source = "model"
prompt_style = "chat"
without = "finished"
temperature = 0.0
top_p = 1.0
samples = 1
max_new_tokens = 512
batch_size = 64

# %%
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.comparison import funnel
from r2a_utils.completions import read_traces
from r2a_utils.generation import Sampling, collect_completions, teacher_forced
from r2a_utils.grading import grade_completions
from r2a_utils.models import load_model
from r2a_utils.problems import load_problems, problems_table
from r2a_utils.tiny.world import write_text
from r2a_utils.traces import CONDITIONS, CUES, cues

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = load_problems(dataset, n=n_problems, seed=seed)
run.write_table("problems", problems_table(problems))

# %% [markdown]
# ## Writing
#
# Each completion is kept as soon as it ends. If this notebook is killed, the next run goes on
# from there; no trace is written twice.

# %%
sampling = Sampling(max_new_tokens, temperature, top_p, seed)
if source == "model":
    backend = None
elif source == "written":
    backend = teacher_forced(model, write_text)
else:
    raise ValueError(f'source is {source!r}; choose "model" or "written"')

completions = {
    condition: collect_completions(
        model,
        problems,
        condition,
        path=run.completions_path(condition),
        sampling=sampling,
        samples=samples,
        prompt_style=prompt_style,
        without=without,
        batch_size=batch_size,
        backend=backend,
    )
    for condition in CONDITIONS
}

# %% [markdown]
# ## What is left after each filter
#
# A completion can hit the token limit, or lack one of its parts, or give no answer in a box. The
# paper leaves such traces out; how many there are belongs beside every figure that does.

# %%
answers = pd.concat([grade_completions(completions[c], problems) for c in CONDITIONS])
counts = funnel(answers)
plots.funnel(counts)

# %% [markdown]
# ## How long, and how often the model turns on itself

# %%
traces = read_traces(run.completions_path("with_reasoning"), model.tokenizer, problems)
words = pd.Series([cue.word for t in traces for cue in cues(t)], dtype="str")
pd.DataFrame(
    {
        "times written": words.value_counts(),
        "traces with it": pd.Series(
            {w: sum(w in {c.word for c in cues(t)} for t in traces) for w in CUES}
        ),
    }
).dropna().astype(int).sort_values("traces with it", ascending=False)

# %%
shares = counts.pivot(index="condition", columns="step", values="count")
run.write_record(
    "collection",
    {
        "n": len(problems),
        "finished": (shares["finished"] / shares["asked"]).to_dict(),
        "well_formed": (shares["well formed"] / shares["asked"]).to_dict(),
        "mean_tokens": answers.groupby("condition").n_tokens.mean().to_dict(),
        "with_cues": sum(bool(cues(t)) for t in traces) / len(traces),
    },
)

# %% [markdown]
# Of {{ collection.n }} problems asked with reasoning, {{ collection.well_formed.with_reasoning |
# percent(1) }} came back finished and well formed, with {{ collection.mean_tokens.with_reasoning
# | number(0) }} tokens on average; without reasoning it were {{
# collection.well_formed.without_reasoning | percent(1) }}, with {{
# collection.mean_tokens.without_reasoning | number(0) }} tokens. In {{ collection.with_cues |
# percent }} of the traces the model turns on itself at least once.
#
# ## What this does not show
#
# A cue is a word. Whether a correction follows it, and whether the correction is right, is not
# counted here.
