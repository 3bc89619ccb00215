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
#     writes: [records/anatomy]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       dataset:
#         choices: [tiny, told, grade_school, math500, wildbench, R1-Qwen-1.5B, R1-Qwen-7B]
#         or: [path]
#       seed: {least: 0, most: 4294967295}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       without: {choices: [finished, empty, direct, native]}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
# ---

# %% [markdown]
# # The anatomy of a trace
#
# **Question.** What exactly is the text in which this book looks for a path from {term}`reasoning`
# to {term}`answer`?
#
# **What you will see.** One problem, answered once after reasoning and once without; the six
# {term}`segments <segment>` between which every later page measures; the sentences of the
# reasoning; and the words with which the model turns on itself.
#
# **What we know so far.** Nothing yet. The words of the field are explained in the {doc}`glossary
# </glossary>`, and linked where a page first uses them.

# %% [markdown]
# ## Parameters
#
# These are the values of this {term}`run`. `r2a run --set name=value` changes them. `dataset` and
# `columns` are those of {doc}`01_collect_traces`.

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
seed = 0
prompt_style = "chat"
system = ""
without = "finished"
max_new_tokens = 512
close_after: int | None = None

# %% [markdown]
# ## One problem
#
# We load the model, through nnsight {cite:p}`fiottokaufman2025nnsight`, and go through the problems
# in order, the one on which the book opens before all others. To have something to look at, we
# prefer the first one that needs at least four steps and in whose {term}`trace` the model corrects
# itself.

# %%
from IPython.display import Markdown

from r2a_utils import collecting, figures, load_model, load_problems, texts
from r2a_utils.runs import Run
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
names = collecting.column_names(columns)
loaded = load_problems(dataset, seed=seed, columns=names)
problems = texts.problems_of_steps(opening.opening_first(loaded)[:40])
options = {
    "sampling": collecting.Sampling(max_new_tokens, close_after=close_after),
    "prompt_style": prompt_style,
    "system": system,
    "without": without,
}

# %%
completions = collecting.collect_completions(
    model, problems, "with_reasoning", **options
)
trace = texts.telling_trace(completions, model.tokenizer, tags=model.tags)
problem = next(p for p in problems if p.id == trace.problem_id)
print(problem.question)

# %% tags=["hide-input"]
Markdown(f"This is {opening.SAID}.") if opening.opens(trace) else None

# %% [markdown]
# ## With reasoning
#
# The prompt ends in the opening tag (R1's models have `<think>` and `</think>`); from there on the
# model writes. Below is the whole trace, special {term}`tokens <token>` included, as the model
# sees it.

# %%
print(trace.text)

# %% [markdown]
# ## Without reasoning
#
# The prompt now already holds a thought that says nothing, followed by the closing tag. Only the
# answer is left to write.

# %%
[at_once] = collecting.collect_completions(
    model, [problem], "without_reasoning", **options
)
bare = at_once.to_trace(model.tokenizer, tags=model.tags)
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
figures.trace_anatomy(
    {"with reasoning": trace.segments, "without reasoning": bare.segments}
)

# %% [markdown]
# **Figure.** The six segments of one problem's trace, once with and once without reasoning, in
# tokens. A colour names the same segment on every page of the book.

# %%
figures.reading_table(texts.segment_table(trace))

# %% [markdown]
# A model reads {term}`tokens <token>`, not words. Here each token stands in the colour of its
# segment; {term}`cues <cue>` are underlined.

# %%
figures.coloured_tokens(
    trace.tokens, [1.0] * len(trace), trace.segments, texts.cues(trace)
)

# %% [markdown]
# **Figure.** The whole trace with reasoning, each token in the colour of its segment, cues
# underlined.

# %% [markdown]
# ## Sentences and cues
#
# Two finer units will be needed: the sentences of the reasoning, and the cues, words such as
# *wait*, *hmm* or *let me check* with which a reasoner turns on what it has just written.

# %%
figures.reading_table(texts.sentence_table(trace))

# %% tags=["hide-input"]
run.write_record("anatomy", texts.anatomy_of(trace))

# %% [markdown]
# This trace has {{ anatomy.tokens | counted("token") }}. The reasoning takes {{
# anatomy.reasoning_tokens }} of them, in {{ anatomy.sentences | counted("sentence") }} with {{
# anatomy.cues | counted("cue") }}.

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else.

# %%
import numpy as np

from r2a_utils.teaching.checks import answers as workshop
from r2a_utils.texts import encode, render_prompt, token_texts

think, end_think = model.tags.open, model.tags.close
question = "What is 3 + 4?"
thought = "\nLet me check: 3 + 4 = 8. Wait, it is 7, but close.\n"
answer = "\n\nThe answer is \\boxed{7}."
bos = render_prompt(model.tokenizer, "", prompt_style="raw")[:1]
pieces = [question, think, thought, end_think, answer]
parts = [bos, *(encode(model.tokenizer, piece) for piece in pieces)]
short_trace = [i for part in parts for i in part]
short_tokens = token_texts(short_trace, model.tokenizer)

# %% [markdown]
# ### Exercise 0.1: The borders of a trace
#
# Difficulty ●●○○○, importance ●●●●●, 15 minutes
#
# Everything that is measured later is measured between {term}`segments <segment>`, so an error of
# one token here is an error everywhere. Given the token ids of a whole trace ({term}`BOS` first,
# the end-of-sentence token left out) and the ids of the two tags, return a dictionary with a slice
# for each of `bos`, `prompt`, `think`, `reasoning`, `end_think` and `answer`. The slices tile the
# trace.
#
# Some vocabularies write a tag as one token, others as several.

# %% tags=["hide-input"]
figures.pick_view(
    "With which token does each of the six segments begin? Choose six.",
    short_tokens,
    [sum(map(len, parts[:i])) for i in range(len(parts))],
    "Each segment ends where the next one begins, and the last one with the trace.",
)


# %% tags=["stub"]
def segment_borders(token_ids, think, end_think):
    """A slice for each segment. think and end_think are lists of token ids."""
    raise NotImplementedError("find where the tags start; each segment ends there.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Write a small loop that returns the first `i` with `token_ids[i : i + len(tag)] == tag`. Two such
# places, the two lengths and the length of the trace give all seven borders.
# ```


# %% tags=["solution"]
def segment_borders(token_ids, think, end_think):
    """A slice for each segment. think and end_think are lists of token ids."""

    def first(tag):
        starts = range(len(token_ids))
        return next(i for i in starts if token_ids[i : i + len(tag)] == tag)

    start, end = first(think), first(end_think)
    starts = [0, 1, start, start + len(think), end, end + len(end_think)]
    names = ["bos", "prompt", "think", "reasoning", "end_think", "answer"]
    stops = [*starts[1:], len(token_ids)]
    return dict(zip(names, map(slice, starts, stops), strict=True))


# %% tags=["check"]
workshop.check_segment_borders(segment_borders)

# %%
tag_ids = [encode(model.tokenizer, tag) for tag in (think, end_think)]
{
    name: model.tokenizer.decode(short_trace[part])
    for name, part in segment_borders(short_trace, *tag_ids).items()
}

# %% [markdown]
# **What you should see.** Six pieces of text that, read one after the other, are the whole trace.
# The line break after the opening tag is part of the reasoning. The pieces were tokenised apart:
# some vocabularies write the end of a tag and the line break after it as one token, and then no
# list of the tag's own tokens stands in the trace.
#
# **Comprehension.** Why is the end-of-sentence token left out of the answer?
#
# ```{admonition} Answer
# :class: dropdown
#
# A mass from the answer is a mean over its tokens. The end-of-sentence token is not read by
# anything that is written, and what it looks at itself decides nothing; kept, it would be one more
# row in the mean, and the more so the shorter the answer.
# ```

# %% [markdown]
# ### Exercise 0.2: Where the model turns on itself
#
# Difficulty ●●●○○, importance ●●●○○, 15 minutes
#
# A {term}`cue` is a word or phrase, and a model reads tokens: “Hmm” may be two of them, and “let
# me check” is at least three. Given the texts of the tokens and the cues in lower case, return the
# positions of the tokens in which a cue begins, in order. Upper and lower case are the same; “but”
# in “button” is no cue.

# %% tags=["hide-input"]
places = {
    text: "".join(short_tokens).index(text) for text in ("Let", "Wait", "but")
}
ends = np.cumsum([len(token) for token in short_tokens])
figures.pick_view(
    "In which tokens does “let me check”, “wait” or “but” begin?",
    short_tokens,
    [int((ends <= place).sum()) for place in places.values()],
    "“Let me check” and “Wait” turn on what was written; this “but” does not.",
)


# %% tags=["stub"]
def cue_positions(tokens, words):
    """Positions of the tokens in which one of the words begins, in order."""
    raise NotImplementedError("join the tokens, search, and go back to tokens.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `re.finditer(r"\b(wait|hmm)\b", text, re.IGNORECASE)` gives places in the text. With the running
# sum of the tokens' lengths you find the token that a place lies in: the first one that ends
# after it.
# ```

# %% tags=["solution"]
import re
from itertools import accumulate


def cue_positions(tokens, words):
    """Positions of the tokens in which one of the words begins, in order."""
    pattern = r"\b(" + "|".join(map(re.escape, words)) + r")\b"
    ends = list(accumulate(len(token) for token in tokens))
    return [
        next(i for i, end in enumerate(ends) if match.start() < end)
        for match in re.finditer(pattern, "".join(tokens), re.IGNORECASE)
    ]


# %% tags=["check"]
workshop.check_cue_positions(cue_positions)

# %%
found_at = cue_positions(short_tokens, ["wait", "but", "let me check"])
{position: "".join(short_tokens[position : position + 3]) for position in found_at}

# %% [markdown]
# **What you should see.** Three positions, with the text that starts there: “Let me check”, “Wait”
# and “but”. The last of them turns on nothing: a cue is a word, and no more.
#
# **Comprehension.** A page counts cues in reasoning only. What would change if it counted them in
# answers, too?
#
# ```{admonition} Answer
# :class: dropdown
#
# “However” and “but” are ordinary words of an answer's prose. A count over the whole trace would
# grow with the answer's length and would say little about reflection; comparing two conditions, it
# would credit the one that writes longer answers.
# ```

# %% [markdown]
# ## What this does not show
#
# One trace is an example, not evidence. Nothing here says that the answer was taken from the
# reasoning: the two stand one after the other, and that is all.
#
# ## What is missing
#
# Many traces, of many problems, in both {term}`conditions <condition>`: {doc}`the next page
# <01_collect_traces>` collects them. Then {doc}`stage 1 <02_answer_quality>` asks whether answers
# get better, {doc}`stage 2 <03_segment_attention>` where they look, and {doc}`stage 3
# <05_activation_patching>` what they depend on.
