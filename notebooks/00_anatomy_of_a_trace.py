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
# # The anatomy of a trace
#
# **Question.** What exactly is the text in which we look for a way from reasoning to answer?
#
# **What you will see.** One problem, answered once after reasoning and once without; the six
# segments that every later page measures between; the sentences of the reasoning; and the words
# with which the model turns on itself.
#
# **Before you start.** Nothing but this page. Words such as {term}`segment` and {term}`cue` are
# explained in the {doc}`glossary </glossary>`.

# %% [markdown]
# ## Parameters
#
# These are the values of this run. `r2a run --set name=value` changes them.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
dataset = "tiny"
seed = 0
prompt_style = "chat"
without = "finished"
max_new_tokens = 512

# %% [markdown]
# ## One problem
#
# We load the model and take problems in their order. To have something to look at, we take the
# first one that needs at least four steps and in whose trace the model corrects itself.

# %%
import pandas as pd

from r2a_utils import plots
from r2a_utils.artifacts import Run
from r2a_utils.generation import Sampling, collect_completions
from r2a_utils.models import load_model
from r2a_utils.problems import load_problems
from r2a_utils.traces import SEGMENTS, cues, sentences

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
sampling = Sampling(max_new_tokens=max_new_tokens)
problems = [p for p in load_problems(dataset, n=40, seed=seed) if p.meta.get("steps", 4) >= 4]
options = {"sampling": sampling, "prompt_style": prompt_style, "without": without}

# %%
completions = collect_completions(model, problems, "with_reasoning", **options)
traces = [c.to_trace(model.tokenizer) for c in completions if c.finished]
trace = next((t for t in traces if any(c.word == "wait" for c in cues(t))), traces[0])
problem = next(p for p in problems if p.id == trace.problem_id)
print(problem.question)

# %% [markdown]
# ## With reasoning
#
# The prompt ends in `<think>`; from there on the model writes. Below is the whole trace, special
# tokens included, as the model sees it.

# %%
print(trace.text)

# %% [markdown]
# ## Without reasoning
#
# The prompt now already holds a thought that says nothing, and `</think>` behind it. What is left
# to write is the answer.

# %%
bare = collect_completions(model, [problem], "without_reasoning", **options)[0].to_trace(
    model.tokenizer
)
print(bare.text)
print()
print("right answer:", problem.answer)

# %% [markdown]
# ## Six segments
#
# Every trace falls into the same six pieces. They are found by token and tile the trace, so that
# the attention that a token pays to them adds up to 1. The final end-of-sentence token is left
# out.

# %%
plots.trace_anatomy({"with reasoning": trace.segments, "without reasoning": bare.segments})

# %%
pd.DataFrame(
    {
        "tokens": [len(trace.tokens[trace.segments[s]]) for s in SEGMENTS],
        "text": [repr(trace.segment_text(s))[:72] for s in SEGMENTS],
    },
    index=pd.Index(SEGMENTS, name="segment"),
)

# %% [markdown]
# A model reads {term}`tokens <token>`, not words. Here each token stands in the colour of its
# segment; {term}`cues <cue>` are underlined.

# %%
plots.coloured_tokens(trace.tokens, [1.0] * len(trace), trace.segments, cues(trace))

# %% [markdown]
# ## Sentences and cues
#
# Two finer units will be needed: the sentences of the reasoning, and the cues, words such as
# *wait*, *hmm* or *let me check* with which a reasoner turns on what it has just written.

# %%
marked = {cue.position: cue.word for cue in cues(trace)}
pd.DataFrame(
    [
        {
            "tokens": f"{s.start}–{s.stop - 1}",
            "sentence": "".join(trace.tokens[s]).strip(),
            "cue": ", ".join(w for p, w in marked.items() if s.start <= p < s.stop),
        }
        for s in sentences(trace)
    ]
)

# %%
run.write_record(
    "anatomy",
    {
        "problem_id": problem.id,
        "tokens": len(trace),
        "reasoning_tokens": trace.segments["reasoning"].stop - trace.segments["reasoning"].start,
        "answer_tokens": trace.segments["answer"].stop - trace.segments["answer"].start,
        "sentences": len(sentences(trace)),
        "cues": len(cues(trace)),
    },
)

# %% [markdown]
# This trace has {{ anatomy.tokens }} tokens, {{ anatomy.reasoning_tokens }} of them reasoning in
# {{ anatomy.sentences }} sentences, and {{ anatomy.cues }} cues.
#
# ## What this does not show
#
# One trace is an example, not evidence. Nothing here says that the answer was taken from the
# reasoning: the two stand one after the other, and that is all. Whether answers get better is the
# question of {doc}`stage 1 <02_answer_quality>`, where they look that of {doc}`stage 2
# <03_segment_attention>`, on what they depend that of {doc}`stage 3 <05_activation_patching>`.
