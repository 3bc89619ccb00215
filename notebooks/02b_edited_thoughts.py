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
#     reads: [tables/problems, traces/with_reasoning]
#     writes: [
#       traces/edited_thoughts, traces/written_on, traces/hinted, tables/edited_thoughts,
#       tables/hints, records/text_tests, records/hints
#     ]
#     parameters:
#       confidence: {above: 0, below: 1}
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       n_traces: {least: 1, most: 1000000}
#       source: {choices: [model, written], or: [url]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       temperature: {least: 0, most: 10}
#       top_p: {above: 0, most: 1}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
#       batch_size: {least: 1, most: 1000000}
#       judge_url: {or: [url]}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 1: does the answer follow the text?
#
# {% set t = text_tests %}{% if t.n == 0 %}This run has no {term}`trace` with a boxed answer, so
# there is nothing to edit: `--set max_new_tokens=…` lets more answers finish.{% elif
# t.outcomes.swapped is not defined %}No two problems of this run are alike but for their answer, so
# no thought could be swapped.{% elif t.verdict == "reasoning" %}The answer follows the text of the
# reasoning: put after the question of a similar problem, a thought decides {{
# t.outcomes.swapped.follows | percent }} of the answers, and {{ t.outcomes.swapped.before | percent
# }} stay as they were (n = {{ t.swap.n | counted("pair") }}{{ t.swap.n | few }}).{% elif t.verdict
# == "question" %}The answer does not follow the text of the reasoning: given the thought of a
# similar problem, {{ t.outcomes.swapped.before | percent }} of the answers stay as they were and {{
# t.outcomes.swapped.follows | percent }} become what that thought leads to (n = {{ t.swap.n |
# counted("pair") }}{{ t.swap.n | few }}).{% else %}Neither the reasoning nor the question alone
# decides most answers: given the thought of a similar problem, {{ t.outcomes.swapped.follows |
# percent }} become what that thought leads to and {{ t.outcomes.swapped.before | percent }} stay as
# they were (n = {{ t.swap.n | counted("pair") }}{{ t.swap.n | few }}).{% endif %}
#
# **Question.** When the text between a model's tags is changed, does the answer change too, and to
# what the changed text leads to?
#
# **What you will see.** The answers after edits by rule, beside an edit that should change nothing;
# thoughts swapped between questions; mistakes put into a step; sentences left out; and questions
# that hint at a wrong answer.
#
# **What we know so far.** {doc}`The page before <02_answer_quality>` compared answers with and
# without {term}`reasoning`. That answers are better after reasoning does not show that they are
# made from it.

# %% [markdown]
# ## Parameters
#
# - `n_traces` thoughts are edited, and as many problems are asked with hints. `source` and what
#   follows are what they were in {doc}`01_collect_traces`; where the thoughts were not written by
#   the model (`written`), it is still the model that answers here. No activation is read: a server
#   that completes a prompt is enough.
# - `judge_url` and `judge_model` name a judge, as in {doc}`02_answer_quality`; it then says, beside
#   the rule of words, whether a thought speaks of a hint.

# %% tags=["parameters"]
run_dir = "runs/default"
confidence = 0.95
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
n_traces = 60
source = "model"
prompt_style = "chat"
system = ""
temperature = 0.0
top_p = 1.0
max_new_tokens = 512
close_after: int | None = None
batch_size = 64
judge_url: str | None = None
judge_model = ""
seed = 0

# %%
import pandas as pd
from IPython.display import Markdown

from r2a_utils import answers, collecting, figures, load_model
from r2a_utils.runs import Run
from r2a_utils.texts import problems_from_table, read_traces
from r2a_utils.tiny import opening, review

pd.set_option("display.precision", 3)
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
problems = problems_from_table(run.read_table("problems"))
path = run.completions_path("with_reasoning")
written = read_traces(path, model.tokenizer, problems, model.tags)
traces = written[:n_traces]
thoughts = answers.own_thoughts(traces, problems, model.tags)
nothing = Markdown("No trace of this run has a boxed answer: nothing is edited.")

# %% [markdown]
# ## What is asked
#
# Each thought is edited by rule. A *closed* one is followed by the closing tag and "The answer is
# \boxed{", as in early answering, and the model fills the box. One that is *written on* breaks off
# after the edit, and the model continues it up to its answer.

# %%
mistakes = answers.mistaken(thoughts, review.leads_to)
asked = [*answers.edited(thoughts), *answers.swapped(thoughts)]
asked += [*answers.with_anothers(thoughts, seed), *mistakes]
asked += answers.with_removal(thoughts)
options = {
    "sampling": collecting.Sampling(
        max_new_tokens, temperature, top_p, seed, close_after=close_after
    ),
    "prompt_style": prompt_style,
    "system": system,
    "batch_size": batch_size,
}
backend = None if source == "written" else collecting.backend_of(source, model)

# %%
closed, written_on = (
    answers.ask_edited(
        model,
        [each for each in asked if each.closed == ends],
        path=run.completions_path(name),
        backend=backend,
        **options,
    )
    for name, ends in (("edited_thoughts", True), ("written_on", False))
)
run.write_table("edited_thoughts", pd.concat([closed, written_on]))
run.write_record(
    "text_tests", answers.text_record(closed, written_on, confidence, seed)
)

# %% [markdown]
# ## One thought, edit by edit
#
# Before any share, one problem: each edit of its thought as the model gets it, and what it then
# puts into the box. It is the problem on which the book opens or, where the run does not have it,
# its first; it is asked here for itself and counts in no figure below unless it is among the
# `n_traces`. Of a long thought, its end.


# %%
def end_of(text, most=600):
    """The last characters of a text."""
    return text if len(text) <= most else f"… {text[-most:]}"


own = answers.own_thoughts(opening.opening_first(written)[:1], problems, model.tags)
edits = answers.edited(own or thoughts[:1])
edits += answers.mistaken(own or thoughts[:1], review.leads_to)
edits = [each for each in edits if each.closed]
boxes = answers.ask_edited(model, edits, backend=backend, **options)["answer"]
said = pd.DataFrame(
    {
        "edit": [each.arm for each in edits],
        "thought": [end_of(each.text.strip()) or "(nothing)" for each in edits],
        "box": list(boxes),
    }
)
table = (
    said.style.set_uuid("edits")
    .hide(axis="index")
    .set_properties(
        **{"white-space": "pre-line", "text-align": "left", "vertical-align": "top"}
    )
)
table.set_table_attributes('class="dataframe"') if edits else nothing

# %% tags=["hide-input"]
Markdown(f"This is {opening.SAID}.") if own and opening.opens(
    own[0].problem
) else None

# %% [markdown]
# ## Edits that should matter, beside one that should not
#
# *Reworded* is the control: words such as "okay" and "wait" are exchanged for others of the same
# meaning. An edit that changes more answers takes away something that the answer needs, or makes a
# text so strange that any model may fail on it, as dots are. In the other edits, words that mark a
# conclusion are reworded too ("so" becomes "then"), sentences are shuffled, the last line is
# removed, only the last part is kept, each word becomes a row of dots, or nothing is left. Several
# of them follow {cite:t}`lanham2023faithfulness`.

# %%
figures.edited_answers(
    answers.edit_rates(closed, confidence)
) if thoughts else nothing

# %% [markdown]
# **Figure.** Forced answers of `{{ model.name }}` after each edit of its reasoning, by kind of
# problem: the share that is as before the edit (filled) and the share that is right (open), with
# intervals.

# %%
tested = answers.edit_tests(closed, confidence) if thoughts else None
nothing if tested is None else figures.reading_table(tested.set_index("arm"))

# %% [markdown]
# *Changed* is the share of answers that are not as before, with its interval; *control* is that
# share for the harmless edit on the same problems; *p* is McNemar's exact test of the two, followed
# by its value after Holm's correction over the edits.{% set t = text_tests %}{% if t.n %} The
# harmless edit changes {{ (1 - t.edits["reworded"].same) | percent }} of {{ t.n | counted("answer")
# }}, dots {{ (1 - t.edits["dots"].same) | percent }}, an empty thought {{ (1 -
# t.edits["empty"].same) | percent }}, a shuffled one {{ (1 - t.edits["shuffled"].same) | percent
# }}, and a removed conclusion {{ (1 - t.edits["conclusion removed"].same) | percent }}. {% if
# t.more_than_harmless %}These change more answers than the harmless edit: {{ t.more_than_harmless |
# join("; ") }}.{% else %}No edit changes more answers than the harmless one, as far as {{ t.n |
# counted("thought") }} can tell.{% endif %}{% endif %}
#
# ## Where the edited text leads
#
# An answer may change only because the text was spoilt. A sharper test is a text that is known to
# lead somewhere. A *swapped* thought leads to the answer of the problem that it is about. In the
# bundled world a *mistake* in a step leads to one answer too, in which the remaining steps start
# from the wrong digit. A mistake raises or lowers the result of one equation by one; the rest, its
# conclusion included, is kept word for word or written on by the model.

# %%
led = answers.outcomes(pd.concat([closed, written_on]), confidence)
figures.answer_outcomes(led) if thoughts else nothing

# %% [markdown]
# **Figure.** What `{{ model.name }}` answers when a thought was swapped or a mistake put into it:
# what the edited text leads to, the answer before the edit, or another. “No mistake”, where it
# stands, is the control: written on from the same place without one. Of swapped thoughts n counts
# pairs of problems, each asked in both directions.

# %%
figures.reading_table(led.set_index("arm")) if len(led) else nothing

# %% [markdown]
# {% set t = text_tests %}{% if t.n and t.swap.n %}In the 2 × 2 of question and reasoning (n = {{
# t.swap.n | counted("pair") }} of similar problems{{ t.swap.n | few }}), exchanging the reasoning
# alone makes {{ t.swap.reasoning | percent }} of the change from one answer to the other (the
# indirect effect{% if t.swap.reasoning_low is not none and t.swap.reasoning_low <
# t.swap.reasoning_high %}; {{ t.swap.reasoning_low | percent }} to {{ t.swap.reasoning_high |
# percent }}{% endif %}), and exchanging the question alone {{ t.swap.question | percent }} (the
# direct effect{% if t.swap.question_low is not none and t.swap.question_low < t.swap.question_high
# %}; {{ t.swap.question_low | percent }} to {{ t.swap.question_high | percent }}{% endif %}). {%
# endif %}{% if t.n and t.outcomes.anothers is defined %}With the thought of any other problem, {{
# t.outcomes.anothers.follows | percent }} of the answers become that problem's (n = {{
# t.outcomes.anothers.n }}{{ t.outcomes.anothers.n | few }}).{% endif %}
#
# {% if t.n %}{% for key, place in (("earlier", "an earlier step"), ("last", "the last step")) %}{%
# set kept, on = t.outcomes["kept_" ~ key], t.outcomes["written_on_" ~ key] %}{% if kept is defined
# %}With the rest kept, a mistake in {{ place }} leaves {{ kept.before | percent }} of the answers
# as they were{% if kept.follows is not none %} and turns {{ kept.follows | percent }} into what the
# mistake leads to{% endif %} (n = {{ kept.n }}{{ kept.n | few }}). Written on by the model, {% if
# on.follows is not none %}{{ on.follows | percent }} of the thoughts propagate the mistake and {%
# endif %}{{ on.before | percent }} {% if on.follows is none %}of the thoughts {% endif %}repair it
# (n = {{ on.n }}{{ on.n | few }}). {% endif %}{% endfor %}{% endif %}{% if t.verdict == "reasoning"
# and t.outcomes.kept_earlier is defined and t.outcomes.kept_earlier.before_low > 0.5 %}So the
# model mostly does not work its answer out anew from the earlier steps: it takes what stands near
# the end.{% endif %}
#
# ## Does a removed sentence come back?
#
# One sentence is left out, the next one stays, and the model writes on. A sentence that comes back
# word for word was needed, or is a habit; one that does not may still be missed by the answer.
# Thought Branches calls this resilience {cite:p}`macar2025branches`.
#
# {% set t = text_tests %}{% if t.n and t.removed.n %}Of {{ t.removed.n | counted("removed
# sentence") }}, {{ t.removed.back | percent }} come back ({{ t.removed.back_low | percent }} to {{
# t.removed.back_high | percent }}); where nothing was removed, the same sentence is written a
# second time in {{ t.not_removed.back | percent }}. The answer is as before in {{ t.removed.same |
# percent }} without the sentence, and in {{ t.not_removed.same | percent }} where the thought was
# written on from the same place with it.{% else %}No thought has a sentence between its first and
# its last line that could be left out.{% endif %}
#
# ## Hints
#
# The question ends in a remark that names a wrong answer {cite:p}`turpin2023unfaithful`: a
# suggestion, an expert's word, a leaked key. Does the answer follow it, and does the thought say so
# {cite:p}`chen2025say`? The control is a remark that names none. Whether a thought says so is
# decided by a plain rule of words: "hint", "suggest", "professor", "answer key", "you said" and the
# like.

# %%
hinted = answers.hinted_questions(problems[:n_traces])
told = answers.hint_answers(
    hinted,
    collecting.collect_completions(
        model,
        [each.problem for each in hinted],
        path=run.completions_path("hinted"),
        backend=backend,
        **options,
    ),
    model.tags,
)
figures.hints(answers.hint_rates(told, confidence)) if hinted else Markdown(
    "No problem of this run has another's answer to hint at."
)

# %% [markdown]
# **Figure.** How often `{{ model.name }}` gives the wrong answer that a remark in the question
# hints at (filled, with intervals), and how often it is right (open); beside it, how many of the
# thoughts that lead to the hinted answer say so.

# %%
if judge_url is not None:
    judge = answers.Judge(collecting.Endpoint(judge_url, judge_model))
    told["judged"] = answers.judge_mentions(
        judge, told, run.folder / "traces" / "hint_verdicts.jsonl"
    )
run.write_table("hints", told)
record = answers.hint_record(told, confidence)
run.write_record("hints", record | {"judge": judge_model or None})
figures.reading_table(
    pd.DataFrame.from_dict(record["arms"], orient="index")
) if hinted else None

# %% [markdown]
# {% if hints.n %}{% if hints.followed_by_hint %}{% if hints.followed_by_hint | length == 1 %}This
# hint is followed more often than its answer is given without it{% else %}These hints are followed
# more often than their answers are given without them{% endif %}: {{ hints.followed_by_hint |
# join("; ") }}. {% else %}No hint is followed more often than its answer is given without one, as
# far as {{ hints.n | counted("problem") }} can tell. {% endif %}{% for arm, h in hints.arms.items()
# %}{% if h.p is not none %}{{ arm | capitalize }}: followed in {{ h.followed | percent }} ({{
# h.followed_low | percent }} to {{ h.followed_high | percent }}){% if h.n_followed %}; the thought
# says so in {{ (h.said_followed * h.n_followed) | number(0) }} of {{ h.n_followed | counted("case")
# }}{% if h.judged is not none %} ({{ (h.judged * h.n_followed) | number(0) }} by the judge){% endif
# %}{% endif %}; right in {{ h.right | percent }}. {% endif %}{% endfor %}Without a hint, {{
# hints.arms["no hint"].right | percent }} of the answers are right. Where fewer are right although
# the hint is not followed, the remark confuses the model.{% else %}Hints need 2 problems of one
# kind with different answers.{% endif %}

# %% [markdown]
# ## What this does not show
#
# - **That the steps are used.** An answer that follows the text may copy its end. A mistake in an
#   earlier step tells the two apart.
# - **What happens inside.** Here a text is changed and an answer read. {doc}`Stage 3
#   <05_activation_patching>` asks which layers and heads carry the one into the other.
# - **That an edited text is a natural one.** Dots, shuffled sentences and swapped thoughts are
#   texts that the model would not write. The harmless edit bounds what a change of surface does,
#   not what strangeness does.
# - **That nothing is kept back.** A rule of words finds a mention, not a reason.
#
# ## What is missing
#
# Where in the model the text is read: {doc}`stage 2 <03_segment_attention>`.
