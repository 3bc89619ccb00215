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
#     reads: []
#     writes: [
#       tables/problems, traces/with_reasoning, traces/without_reasoning, records/collection
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       dataset:
#         choices: [tiny, told, grade_school, math500, wildbench, R1-Qwen-1.5B, R1-Qwen-7B]
#         or: [path]
#       n_problems: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
#       source: {choices: [model, written], or: [url]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       without: {choices: [finished, empty, direct, native]}
#       temperature: {least: 0, most: 10}
#       top_p: {above: 0, most: 1}
#       samples: {least: 1, most: 1000000}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
#       batch_size: {least: 1, most: 1000000}
# ---

# %% [markdown]
# # Collecting traces
#
# **Question.** What does the model write on the same problems, once with and once without
# reasoning?
#
# **What you will see.** How many of the completions end by themselves and are well formed, how long
# they are, and how often they hold a {term}`cue`. All later pages read these {term}`traces
# <trace>`.
#
# **What we know so far.** {doc}`A trace <00_anatomy_of_a_trace>` has six {term}`segments
# <segment>`, its reasoning has sentences and cues, and without reasoning a prefilled thought takes
# the reasoning's place.

# %% [markdown]
# ## Parameters
#
# - `dataset`: "tiny" is the bundled world, "told" its comparisons with a note that says the answer
#   (from which `r2a-ignorer` answers), "grade_school" 241 word problems of our own for models that
#   can do easy arithmetic, "math500" MATH-500, "R1-Qwen-1.5B" the 100 problems of it on which the
#   authors kept that model's traces; or a file of your own that ends in `.jsonl`, `.json`, `.csv`,
#   `.tsv` or `.parquet`. `columns` says what its columns are called where that is not "id",
#   "question" and "answer": `["question=text", "answer=label"]`.
# - `temperature`: 0 is greedy decoding; the paper samples at 0.6.
# - `tags` are the marks that the model writes around its thought. They are found in its chat
#   template and its vocabulary; `{open: "[THINK]", close: "[/THINK]"}` names others.
# - `system` is a system message. `without` "native" is the model's own way not to think, where its
#   template has one; "finished" is the paper's prefilled thought, "empty" one that holds nothing.
# - `source`: "model" decodes on this machine. "written" does not let the model write at all but
#   puts given texts before it ({term}`teacher forcing`), for models that cannot solve the problems
#   but can be watched reading: texts of the bundled world, worked solutions of our word problems,
#   or the authors' traces. A text longer than `max_new_tokens` is cut and left out, like any trace
#   that does not end. The URL of an OpenAI-compatible server, such as "http://localhost:8000/v1",
#   lets that server write, under the model's own name; the later stages still load the model here
#   to look inside.
# - `close_after`: after so many tokens a thought that is still open is closed for the model, which
#   goes on to its answer; so is one that the model ends without closing it. None closes nothing.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
dataset = "tiny"
columns: list[str] | None = None
n_problems = 400
seed = 0
source = "model"
prompt_style = "chat"
system = ""
without = "finished"
temperature = 0.0
top_p = 1.0
samples = 1
max_new_tokens = 512
close_after: int | None = None
batch_size = 64

# %%
import pandas as pd
from IPython.display import Markdown

from r2a_utils import collecting, figures
from r2a_utils.answers import equally_long, find_answers, funnel
from r2a_utils.models import load_model
from r2a_utils.runs import Run
from r2a_utils.texts import CONDITIONS, CUES, cues, problems_table, read_traces

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
names = collecting.column_names(columns)
problems = collecting.load_problems(dataset, n=n_problems, seed=seed, columns=names)

# %% [markdown]
# ## Writing
#
# Each completion is kept as soon as it ends. If this notebook is killed, the next run goes on from
# there; no trace is written twice. A completion that is there already is taken only if it was asked
# for in exactly this way: the same prompt, weights and sampling. The table of problems is kept
# last: later stages read the texts of the problems in it.

# %%
sampling = collecting.Sampling(
    max_new_tokens, temperature, top_p, seed, close_after=close_after
)
options = {
    "sampling": sampling,
    "samples": samples,
    "prompt_style": prompt_style,
    "system": system,
    "without": without,
    "batch_size": batch_size,
    "backend": collecting.backend_of(source, model, collecting.writer_of(dataset)),
}
completions = {}
for condition in CONDITIONS:
    path = run.completions_path(condition)
    completions[condition] = collecting.collect_completions(
        model, problems, condition, path=path, **options
    )
run.write_table("problems", problems_table(problems))

# %% [markdown]
# ## What is left after each filter
#
# A completion can hit the {term}`token` limit, lack one of its parts, or give no answer in a box.
# The paper leaves such traces out, so it must be known how many there are. If most texts of a
# condition are of no use, the reason stands here too.

# %%
for condition in CONDITIONS:
    told = collecting.explain_losses(completions[condition], model.tags)
    if told:
        print(told)
answers = pd.concat(
    find_answers(completions[c], problems, model.tags) for c in CONDITIONS
)
counts = funnel(answers)
figures.funnel(counts)

# %% [markdown]
# **Figure.** How many of the problems put to `{{ model.name }}` are left after each filter, in each
# condition: finished before the token limit, well formed, with an answer in a box.{% if
# collection.closed_by_us.with_reasoning %} The last bar counts the thoughts that were closed for
# the model.{% endif %}

# %% [markdown]
# ## How long the texts are, and how often they hold a cue

# %%
traces = read_traces(
    run.completions_path("with_reasoning"), model.tokenizer, problems, model.tags
)
words = pd.Series([cue.word for t in traces for cue in cues(t)], dtype="str")
written = pd.DataFrame(
    {
        "times written": words.value_counts(),
        "traces with it": pd.Series(
            {w: sum(w in {c.word for c in cues(t)} for t in traces) for w in CUES}
        ),
    }
).dropna()
figures.reading_table(
    written.sort_values("traces with it", ascending=False)
) if len(written) else Markdown("No finished trace with reasoning holds a cue.")

# %% tags=["hide-input"]
shares = counts.pivot(index="condition", columns="step", values="count")
run.write_record(
    "collection",
    {
        "n": len(problems),
        "dataset": dataset,
        "given": source == "written",
        "limit": max_new_tokens,
        "finished": (shares["finished"] / shares["asked"]).to_dict(),
        "well_formed": (shares["well formed"] / shares["asked"]).to_dict(),
        "mean_tokens": answers.groupby("condition").n_tokens.mean().to_dict(),
        "as_long": equally_long(answers),
        "closed_by_us": answers.groupby("condition").closed_by_us.mean().to_dict(),
        "with_cues": sum(bool(cues(t)) for t in traces) / len(traces)
        if traces
        else None,
    },
)

# %% [markdown]
# {% if collection.given %}The texts were given to the model, which only reads them; a text of less
# than {{ collection.limit }} tokens counts as finished. {% endif %}With reasoning, {{
# collection.well_formed.with_reasoning | percent(1) }} of the traces of {{ collection.n |
# counted("problem") }} are finished and well formed, with {{ collection.mean_tokens.with_reasoning
# | number(0) }} tokens on average; without reasoning, {{ collection.well_formed.without_reasoning |
# percent(1) }}, with {{ collection.mean_tokens.without_reasoning | number(0) }} tokens. {% if
# collection.as_long %}**Warning: without reasoning is not without.** On problems that were finished
# in both conditions, the texts without have {{ collection.as_long.without_reasoning | number(0) }}
# tokens on average and those with it {{ collection.as_long.with_reasoning | number(0) }}: the model
# reasons in its answer. `without` "direct" asks for the answer alone. {% endif %}{% if
# collection.closed_by_us.with_reasoning %}{{ collection.closed_by_us.with_reasoning | percent }} of
# the thoughts were closed for the model, so their length says nothing about it. {% endif %}{% if
# collection.with_cues is not none %}Of the finished traces with reasoning, {{ collection.with_cues
# | percent }} hold at least one cue.{% endif %}

# %% [markdown]
# ## Exercises
#
# Write the function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page it needs the
# parameters and the cell after them, nothing else.

# %%
from r2a_utils.teaching.checks import answers as workshop
from r2a_utils.texts import INSTRUCTION, R1_TAGS, encode, render_prompt

# %% [markdown]
# ### Exercise 1.1: A prompt with its thought filled in
#
# Difficulty ●●○○○, importance ●●●●○, 10 minutes
#
# Without reasoning, the prompt already holds a thought that says nothing. Write the token ids of
# the paper's raw prompt for a question, up to where the model goes on: BOS once; the question,
# `INSTRUCTION` and a blank; `<think>`; a line break, the sentence `PREFILLED` and its line break;
# `</think>`; a blank line.
#
# Encode piece by piece, so that a tag never merges with its neighbours.

# %% tags=["hide-input"]
figures.pick_view(
    "Which of these stand in the paper's prompt without reasoning?",
    [
        "<BOS>",
        "the question",
        "INSTRUCTION and a blank",
        "<think>",
        "a chain of thought of the model",
        "Okay, I think I have finished thinking.",
        "</think>",
        "a blank line",
        "The answer is",
    ],
    [0, 1, 2, 3, 5, 6, 7],
    "A thought that says nothing; behind the blank line the model goes on.",
)

# %% tags=["stub"]
PREFILLED = "Okay, I think I have finished thinking.\n"


def bare_prompt(tokenizer, question):
    """Token ids of the paper's prompt without reasoning, for one question."""
    raise NotImplementedError("put the ids of the six pieces behind one BOS.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `encode(tokenizer, text)` adds nothing of its own, so BOS is yours to put:
# `tokenizer.bos_token_id`.
# ```

# %% tags=["solution"]
PREFILLED = "Okay, I think I have finished thinking.\n"


def bare_prompt(tokenizer, question):
    """Token ids of the paper's prompt without reasoning, for one question."""
    opening = question + INSTRUCTION + " "
    thought = "\n" + PREFILLED
    pieces = [opening, R1_TAGS.open, thought, R1_TAGS.close, "\n\n"]
    ids = [tokenizer.bos_token_id]
    for piece in pieces:
        ids += encode(tokenizer, piece)
    return ids


# %% tags=["check"]
workshop.check_bare_prompt(bare_prompt)

# %%
asked = problems[0].question
built_in = render_prompt(model.tokenizer, asked, "without_reasoning", "raw")
print(model.tokenizer.decode(built_in))
yours = bare_prompt(model.tokenizer, asked)
{"tokens": len(built_in), "the same as yours": built_in == yours}

# %% [markdown]
# **What you should see.** The prompt as the model gets it, which ends with `</think>` and a blank
# line, and `True`. (A vocabulary without a BOS of its own puts another token there; then yours
# differs in the first id.)
#
# **Comprehension.** What would a second BOS at the front do to the later stages?
#
# ```{admonition} Answer
# :class: dropdown
#
# The prompt would still read well, and the answers would hardly change, which is why this fault is
# so common. But heads rest much of their attention on the first token, and a second one draws some
# of it to the segment `prompt`: all masses shift, and nothing reports it. Here a trace with two
# BOS is refused.
# ```

# %% [markdown]
# ## What this does not show
#
# A cue is a word. Whether a correction follows it, and whether the correction is right, is not
# counted here.
#
# ## What is missing
#
# Whether the answers are right, and whether they are right more often after reasoning:
# {doc}`stage 1 <02_answer_quality>`.
