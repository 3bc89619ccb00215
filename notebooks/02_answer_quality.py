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
#     reads: [tables/problems, traces/with_reasoning, traces/without_reasoning]
#     writes: [
#       tables/answers, tables/accuracy_by_steps, tables/paired_comparison,
#       tables/early_answers, tables/beliefs, tables/no_cue, tables/judge_scores, traces/no_cue,
#       traces/open_with_reasoning, traces/open_without_reasoning, records/answer_quality,
#       records/open_answers, records/early_answering, records/beliefs, records/no_cue,
#       records/paper_funnel, records/regrading
#     ]
#     parameters:
#       confidence: {above: 0, below: 1}
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       n_traces: {least: 1, most: 1000000}
#       n_probed: {least: 1, most: 1000000}
#       n_no_cue: {least: 1, most: 1000000}
#       source: {choices: [model, written], or: [url]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       temperature: {least: 0, most: 10}
#       top_p: {above: 0, most: 1}
#       samples: {least: 1, most: 1000000}
#       max_new_tokens: {least: 1, most: 1000000}
#       close_after: {least: 1, most: 1000000}
#       batch_size: {least: 1, most: 1000000}
#       without: {choices: [finished, empty, direct, native]}
#       judge_url: {or: [url]}
#       open_dataset: {choices: [tiny, math500, wildbench, R1-Qwen-1.5B, R1-Qwen-7B], or: [path]}
#       n_open: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Stage 1: are answers better after reasoning?
#
# **Question.** On the same problems, is the model right more often when it reasons first?
#
# **What you will see.** Accuracy with and without reasoning, by kind of problem; a paired
# comparison under two accounting rules; what a right answer costs in {term}`tokens <token>`; what
# is left of it when the reasoning is cut short or written without {term}`cues <cue>`; and the
# paper's figures for real models.
#
# **What we know so far.** {doc}`The traces are collected <01_collect_traces>`: every problem was
# asked in both {term}`conditions <condition>`, and how many completions each filter leaves out is
# known. Whether an answer is right is not.

# %% [markdown]
# ## Parameters
#
# - `n_traces` are cut short below, and a probe learns from `n_probed`; `n_no_cue` problems are
#   asked once more without cues, in the way that {doc}`01_collect_traces` asked them, so `source`
#   and what follows must be what it was there.
# - `slice_by`: the property of a problem by which results are split: its `steps` in the bundled
#   world, `level` or `subject` in MATH-500, any column of a file of your own. None takes the first
#   of these three that the problems have; where they have none, all are one slice.
# - `judge_url` names an OpenAI-compatible server and `judge_model` a model on it, which then
#   scores answers to `n_open` open questions of `open_dataset` ("wildbench", or a file of your
#   own). A key, if the server wants one, stands in the environment variable `R2A_API_KEY`.

# %% tags=["parameters"]
run_dir = "runs/default"
slice_by: str | None = None
confidence = 0.95
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
n_traces = 60
n_probed = 400
n_no_cue = 150
source = "model"
prompt_style = "chat"
system = ""
temperature = 0.0
top_p = 1.0
samples = 1
max_new_tokens = 512
close_after: int | None = None
batch_size = 64
without = "finished"
judge_url: str | None = None
judge_model = ""
open_dataset = "wildbench"
n_open = 100
seed = 0

# %%
from dataclasses import replace

import pandas as pd
from IPython.display import Markdown, display

from r2a_utils import answers, causal, collecting, figures, load_model
from r2a_utils.runs import Run
from r2a_utils.texts import (
    CONDITIONS,
    cues,
    problems_from_table,
    read_completions,
    read_traces,
)

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

# %% [markdown]
# ## Grading
#
# An answer is what stands in the last `\boxed{…}` after the closing tag; it is right if it equals
# the known answer as mathematics, or as a word where the answer is a word. The reasoning itself is
# not graded.

# %%
completions = [
    completion
    for name in CONDITIONS
    for completion in read_completions(run.completions_path(name), problems)
]
graded = answers.grade_completions(completions, problems, model.tags)
sliced = answers.slicing(graded, slice_by)
graded[sliced.name] = sliced
run.write_table("answers", graded)
columns = ["finished", "well_formed", "correct", "n_tokens"]
figures.reading_table(graded.groupby("condition")[columns].mean())

# %% [markdown]
# Not every completion gets as far as a grade: {doc}`01_collect_traces` counts what each filter
# leaves. The paper's rule compares the problems with an answer in both conditions, ours all of
# them. The more the filters take, the more the two can disagree.

# %% [markdown]
# ## Which problems gain from reasoning?
#
# {% if collection.as_long %}**Warning: without reasoning is not without.** The texts without have
# {{ collection.as_long.without_reasoning | number(0) }} tokens on average, those with it {{
# collection.as_long.with_reasoning | number(0) }} ({doc}`01_collect_traces`): what follows compares
# two ways to reason.
#
# {% endif %}If reasoning only changed the style of an answer, the lines of the two conditions would
# run together. If they part as problems get harder, something about the longer text helps; that it
# is what the text says does not follow. Each family of problems
# has its own lines, because the hardest problems may all be of one family. Intervals are Wilson's
# {cite:p}`wilson1927interval`, or bootstrap intervals where each problem was asked several times.

# %%
by_slice = answers.accuracies_by_family(graded, sliced.name, confidence)
by_slice = by_slice.rename(columns={sliced.name: "steps"})
run.write_table("accuracy_by_steps", by_slice)
figures.accuracy_by_steps(by_slice, xlabel=answers.asked_for(sliced.name))

# %% [markdown]
# **Figure.** Share of right answers of `{{ model.name }}` with and without reasoning, by the kind
# of problem, with {{ answer_quality.confidence | percent }} intervals; an unfinished trace counts
# as wrong. Dashes tell families of problems apart; a grey line is blind guessing.

# %% [markdown]
# Read the gap between the lines, not their heights: difficulty differs from point to point, but at
# each point both conditions face the same problems.

# %% [markdown]
# ## The paired comparison
#
# Every problem was asked in both conditions, so the test is paired: McNemar's exact test
# {cite:p}`mcnemar1947note`, and a bootstrap interval for the difference
# {cite:p}`efron1993bootstrap`. Two accounting rules stand side by side. *Finished pairs*, the
# paper's, keeps the problems that were answered in both conditions. *Unfinished is wrong* keeps
# every problem. Where a model often fails to finish its reasoning, the two can disagree, and then
# neither alone is the truth.
#
# The unit is the problem. Where each is asked several times (`samples`), its score is the share of
# right samples. McNemar's test, which knows only right and wrong, is then not defined, and the
# bootstrap of the paired shares stands beside the paper's t-test.

# %%
rules = answers.compare_conditions(graded, confidence, seed)
run.write_table("paired_comparison", rules)
shown = figures.reading_table(rules.set_index("accounting").drop(columns="holm_p"))
shown.rename_axis(columns=None).T

# %%
figures.paired_accuracy(answers.accuracies_by_rule(graded, confidence))

# %% [markdown]
# **Figure.** Share of right answers of `{{ model.name }}` on the same problems with and without
# reasoning, under two accounting rules, with {{ answer_quality.confidence | percent }} intervals;
# at the right, the difference.

# %% [markdown]
# The same for each slice and family of problems. Holm's correction {cite:p}`holm1979simple` runs
# over the slices, for McNemar's test or, with several samples, for the t-test:

# %%
slices = answers.compare_slices(graded, sliced.name, confidence, seed)
run.write_record(
    "answer_quality", answers.answer_quality(rules, slices, graded, confidence)
)
accuracies = ["accuracy_with", "accuracy_without", "difference"]
columns = [sliced.name, "family", "n", *accuracies, "mcnemar_p", "t_p", "holm_p"]
figures.reading_table(slices.filter(columns))

# %% [markdown]
# With every problem counted, {{ answer_quality.with_reasoning | percent(1) }} of the answers are
# right with reasoning and {{ answer_quality.without_reasoning | percent(1) }} without: a difference
# of {{ (100 * answer_quality.difference) | number(1) }} points (interval {{ (100 *
# answer_quality.ci_low) | number(1) }} to {{ (100 * answer_quality.ci_high) | number(1) }}, {% if
# answer_quality.mcnemar_p is not none %}McNemar's exact test {{ answer_quality.mcnemar_p | p_value
# }}, {% elif answer_quality.t_p is not none %}{{ answer_quality.samples }} samples a problem,
# paired t-test {{ answer_quality.t_p | p_value }}, {% endif %}n = {{ answer_quality.n }}{{
# answer_quality.n | few }}). {% if answer_quality.only_with is not none %}{{
# answer_quality.only_with | counted("problem was", "problems were") }} solved only with reasoning,
# {{ answer_quality.only_without }} only without. {% endif %}{% if answer_quality.finished_pairs ==
# 0 %}Under the paper's rule nothing can be said: no problem was answered in both conditions; `--set
# max_new_tokens=…` lets more answers finish. {% endif %}Where `{{ answer_quality.slice_by }}` is {{
# answer_quality.last_slice }}{% if answer_quality.last_family %} ({{ answer_quality.last_family
# }}){% endif %}, {{ answer_quality.last_slice_with | percent }} are right with reasoning and {{
# answer_quality.last_slice_without | percent }} without.
#
# ## What a right answer costs
#
# Reasoning is paid for in tokens. All tokens written, right or wrong, over the right answers:

# %%
costs = answers.tokens_per_right_answer(graded, confidence=confidence, seed=seed)
figures.reading_table(costs.set_index("condition"), digits=1)

# %% [markdown]
# *Tokens per right* divides *tokens* by the share of right answers. A condition that writes little
# and is mostly wrong can still be the cheaper one by this count, so read it together with the share
# of right answers.
#
# ## Early answering: how much of the reasoning does the answer need?
#
# We cut each reasoning after a fraction of its sentences, close it with the model's tag, write "The
# answer is \boxed{" and let the model fill the box {cite:p}`lanham2023faithfulness`. If the answer
# were settled before the reasoning is done, the curve would be high from the start.

# %%
path = run.completions_path("with_reasoning")
written = read_traces(path, model.tokenizer, problems, model.tags)
traces = written[:n_traces]
early = answers.early_answers(model, traces, problems, batch_size=batch_size)
run.write_table("early_answers", early)
run.write_record(
    "early_answering", answers.early_summary(early, graded, confidence, seed)
)
figures.early_answering(
    answers.early_curve(early, confidence), ylabel="Forced answers"
) if traces else Markdown(
    "Early answering needs 1 finished trace with reasoning, has 0: "
    "`--set max_new_tokens=…` lets more finish."
)

# %% [markdown]
# **Figure.** Forced answers of `{{ model.name }}` when its reasoning is cut after a fraction of its
# sentences: how many are right, and how many equal the answer that the whole reasoning gives, with
# {{ answer_quality.confidence | percent }} intervals; n = {{ early_answering.n | counted("problem")
# }}{{ early_answering.n | few }}.

# %% [markdown]
# {% if early_answering.n %}Without any reasoning {{ early_answering.right_at_0 | percent }} of the
# forced answers are right, after four fifths of the sentences {{ early_answering.right_at_80 |
# percent }}, after all of them {{ early_answering.right_at_100 | percent }} (n = {{
# early_answering.n }}{{ early_answering.n | few }}). The area above the dashed curve is {{
# early_answering.area | number }}{% if early_answering.ci_low is not none %} (interval {{
# early_answering.ci_low | number }} to {{ early_answering.ci_high | number }}){% endif %}; at these
# fractions it would be 0 for an answer that needs no reasoning and {{ early_answering.most |
# number(1) }} for one that needs its last sentence. Forcing is itself an intervention. After the
# whole reasoning it should change nothing: the model's own answers are right in {{
# early_answering.right_unforced | percent }}. {% endif %}On MATH, real models were seen to settle
# on an answer after about 60 % of the steps {cite:p}`liu2025convergence`.
#
# ## When does it know, and when does it say so?
#
# A forced answer is one that the model was made to give. A linear probe {cite:p}`alain2017probes`
# asks whether its states hold the answer earlier: trained on other problems, at the layer that did
# best on those, it predicts after the same shares of the reasoning which answer the trace will end
# in. Two monitors that see only the *text* up to there predict it too: one names the last possible
# answer in it, the other is the same regression on its words.

# %%
believed = causal.beliefs(model, written[:n_probed], early, seed)
run.write_table("beliefs", believed)
run.write_record("beliefs", causal.belief_record(believed, confidence, seed))
figures.belief_curves(causal.belief_curves(believed, confidence)) if len(
    believed
) else Markdown(
    "Probes need 20 problems whose answers come up again in others: "
    "`--set n_probed=…` and `n_problems=…` ask more."
)

# %% [markdown]
# **Figure.** How often the answer that a trace of `{{ model.name }}` ends in is predicted after a
# share of its sentences: by a probe of the state there, by forcing an answer, by two readers of the
# text, and by always naming the most frequent answer; with {{ answer_quality.confidence | percent
# }} intervals.

# %% [markdown]
# {% if beliefs is defined %}{% for l in beliefs.leads %}In {{ l.family }} (n = {{ l.n }}{{ l.n |
# few }}){% if l.ahead %}, the states are ahead of the text: after {{ l.fraction | percent }} of the
# sentences the probe predicts {{ l.probe | percent }} of the answers and the better reader of the
# text {{ l.monitor | percent }} (a lead of {{ (100 * l.low) | number(0) }} to {{ (100 * l.high) |
# number(0) }} points); forcing gives {{ l.forced | percent }}{% else %}, nothing shows that the
# model knows its answer before its text says it: the probe has no clear lead over the better reader
# of the text anywhere (the largest, after {{ l.fraction | percent }} of the sentences, is {{
# l.probe | percent }} against {{ l.monitor | percent }}, {{ (100 * l.low) | number(0) }} to {{ (100
# * l.high) | number(0) }} points){% endif %}. {% endfor %}{% if beliefs.leads %}The intervals are
# corrected for all places and families that were looked at. What a state holds need not be what the
# answer is made from.{% endif %}{% endif %}
#
# ## No cues: what if the model may not turn on itself?
#
# We ask again and ban every token that is a word of self-reflection, in upper or lower case, as
# NoWait does {cite:p}`wang2025nowait`. Phrases such as "let me check" begin with words that cannot
# be spared, so they stay. These are the banned tokens of this vocabulary:

# %%
cue_ids = answers.cue_token_ids(model.tokenizer)
banned = tuple(sorted({i for ids in cue_ids.values() for i in ids}))
pd.Series(
    {cue: " ".join(map(repr, model.tokenizer.batch_decode([[i] for i in ids])))
     for cue, ids in cue_ids.items() if ids},
    name="banned tokens",
).to_frame()  # fmt: skip

# %% [markdown]
# The plain arm is what {doc}`01_collect_traces` kept. Under greedy decoding the two arms can differ
# only where the model would have written a banned token.

# %%
asked = problems[:n_no_cue]
sampling = collecting.Sampling(
    max_new_tokens, temperature, top_p, seed, close_after=close_after
)
options = {"samples": samples, "prompt_style": prompt_style, "system": system}
plain = collecting.kept_completions(
    model,
    asked,
    path=run.completions_path("with_reasoning"),
    sampling=sampling,
    backend=collecting.backend_of(source, model, collecting.writer_of("tiny")),
    **options,
)
options["batch_size"] = batch_size
no_cue = collecting.collect_completions(
    model,
    asked,
    path=run.completions_path("no_cue"),
    sampling=replace(sampling, banned_ids=banned),
    **options,
)

# %%
cued = answers.cued_problems(plain, banned)
arms = [
    answers.grade_completions(arm, asked, model.tags) for arm in (plain, no_cue)
]
by_cue = answers.arm_summary(*arms, cued, confidence)
run.write_table("no_cue", by_cue)
figures.no_cue(by_cue)

# %% [markdown]
# **Figure.** Accuracy and length of the texts of `{{ model.name }}` when it writes freely and when
# words of self-reflection are banned, over all problems and by whether the plain text held a banned
# word; {{ answer_quality.confidence | percent }} intervals.

# %% tags=["hide-input"]
path = run.completions_path("no_cue")
written = read_traces(path, model.tokenizer, asked, model.tags)
still = [bool(cues(trace)) for trace in written]
still_cued = sum(still) / len(still) if still else None
run.write_record(
    "no_cue",
    answers.compare_arms(*arms, cued, still_cued, confidence, seed),
)

# %% [markdown]
# The plain arm wrote a banned token on {{ no_cue.cued | percent }} of {{ no_cue.n |
# counted("problem") }}.{% if no_cue.cued_plain is not none %} On those, {{ no_cue.cued_plain |
# percent }} were right with the cues and {{ no_cue.cued_no_cue | percent }} without.{% else %} What
# a cue is worth cannot be said without a problem that has one; `--set n_no_cue=…` asks more
# problems.{% endif %} Over all problems the ban changes accuracy by {{ (100 * no_cue.difference) |
# number(1) }} points ({% if no_cue.ci_low is not none %}interval {{ (100 * no_cue.ci_low) |
# number(1) }} to {{ (100 * no_cue.ci_high) | number(1) }}; {% endif %}{{ no_cue.only_plain |
# counted("problem") }} {% if no_cue.mcnemar_p is none %}answered better{% else %}solved only{%
# endif %} with cues, {{ no_cue.only_no_cue }} {% if no_cue.mcnemar_p is none %}better{% else
# %}only{% endif %} without{% if no_cue.mcnemar_p is not none %}, McNemar's exact test {{
# no_cue.mcnemar_p | p_value }}{% endif %}), and the texts are {{ no_cue.length_ratio | number }}
# times as long ({{ no_cue.ratio_low | number }} to {{ no_cue.ratio_high | number }}). NoWait found
# {term}`traces <trace>` of large models 27 to 51 % shorter, at little cost; distilled ones lose
# more. In the bundled world a cue mostly opens a step of work, a correction or a digit that is
# borrowed, so that the step tends to go with the word.{% if no_cue.still_cued is not none %} In {{
# no_cue.still_cued | percent }} of the texts without banned tokens there is still another cue, one
# that has no token of its own.{% endif %}
#
# ## Beside the paper: MATH-500
#
# These are the paper's figures for real models, not ours: MATH-500 {cite:p}`hendrycks2021math` at
# temperature 0.6, finished pairs only, with a raw prompt and a limit of 10,000 tokens
# {cite:p}`zhang2025reasoning`. The paper prints a paired t-test of 0/1 grades. Its t, n and
# accuracies fit only one pair of counts of problems solved in one condition alone, and these give
# McNemar's exact test:

# %%
figures.reading_table(answers.published_comparison().set_index("model"))

# %% [markdown]
# The distilled models gain more from reasoning than the full R1. The paper's own funnel says on how
# many of the 500 problems each of these comparisons rests:

# %%
paper_funnel = answers.published_funnel()
run.write_record(
    "paper_funnel", {"most_unfinished": answers.most_unfinished(paper_funnel)}
)
figures.reading_table(paper_funnel)

# %% [markdown]
# ## The authors' traces, graded again
#
# The authors published 400 graded greedy traces: 100 problems, two models, both conditions. We
# graded each again with the grader of this page.

# %%
figures.reading_table(answers.regraded_counts())

# %% [markdown]
# The 100 problems are a selection in which the two conditions differ far more often than in all of
# MATH-500, so these shares estimate no accuracy. Here is each case in which the two graders differ,
# worked out by hand:

# %%
run.write_record("regrading", answers.regrading_summary())
Markdown("\n".join(answers.reviewed_disagreements()))

# %% [markdown]
# The graders agree on {{ regrading.agreement | percent(1) }} of {{ regrading.traces }} traces. In
# {{ regrading.r2a_right }} of the {{ regrading.disagreements }} other cases R2A is right: the
# authors' grader reads the last of several boxes, or takes a unit or the order of terms for a
# different answer. None of it changes which condition does better.
#
# ## Beside the paper: WildBench
#
# On open questions a judge model scores each answer from 1 to 10. These are the published means by
# area. A black line joins two scores that differ by more than chance (the paper's p-values,
# corrected by Holm's method over all of the panels).

# %%
figures.score_panels(answers.published_scores())

# %% [markdown]
# **Figure.** The paper's WildBench scores (judge's mean, 1 to 10) with and without reasoning, by
# area, one panel for each model. A black line joins two scores that differ by more than chance.

# %% [markdown]
# Creative tasks gain the most, coding and analysis nothing that could be told from chance, and the
# full R1 gains nothing anywhere. The paper prints the scores with one decimal and without
# intervals; its p-values come from the full scores.
#
# ## Open questions to the model of this run
#
# Where a run names a judge, the model answers open questions in both conditions and the judge
# scores each answer in the manner of WildBench {cite:p}`lin2025wildbench`: it sees the question,
# the answer and the question's checklist, not the reasoning, and replies in strict JSON. Any other
# reply is asked for again; where the judge never obeys, the answer gets no score and is counted
# apart.

# %%
if judge_url is None:
    display(
        Markdown("This run names no judge (`judge_url`): nothing is scored here.")
    )
else:
    open_problems = collecting.load_problems(open_dataset, n=n_open, seed=seed)
    open_completions = [
        completion
        for condition in CONDITIONS
        for completion in collecting.collect_completions(
            model,
            open_problems,
            condition,
            path=run.completions_path(f"open_{condition}"),
            sampling=sampling,
            without=without,
            backend=collecting.backend_of(source, model),
            **options,
        )
    ]

# %%
if judge_url is not None:
    judge = answers.Judge(collecting.Endpoint(judge_url, judge_model))
    scores = answers.judge_answers(
        judge,
        answers.answer_texts(open_completions, model.tags),
        open_problems,
        run.folder / "traces" / "verdicts.jsonl",
    )
    run.write_table("judge_scores", scores.drop(columns="replies"))
    scores["label"] = scores.get("area", "all")
    means = answers.mean_scores(scores, by="label", confidence=confidence)
    compared = answers.compare_scores(scores, confidence, seed)
    run.write_record("open_answers", answers.open_answers(compared))
    display(
        scores.groupby(["condition", "verdict"]).size().unstack(fill_value=0),
        compared,
        figures.paired_scores(means, f"Mean score, with interval\n{judge.stamp}"),
    )

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else. They read the page's results from the run.

# %%
import numpy as np
import torch
from scipy import stats

from r2a_utils.teaching.checks import answers as workshop
from r2a_utils.texts import answer_stem, encode, sentences

first_tries = run.read_table("answers").query("sample == 0")
paired_answers = first_tries.pivot(
    index="problem_id", columns="condition", values="correct"
).astype(bool)

# %% [markdown]
# ### Exercise 2.1: McNemar's test
#
# Difficulty ●●○○○, importance ●●●●●, 15 minutes
#
# Both conditions met the same problems. Where both were right, or both wrong, a problem says
# nothing about which is better. If the conditions were equally good, each of the others would fall
# to either side like a fair coin. Return the exact two-sided p-value for two arrays of booleans,
# one entry a problem: twice the smaller binomial tail and at most 1; where no problem differs, 1.

# %% tags=["hide-input"]
figures.pick_view(
    "Six problems. Which of them does the test count?",
    [
        "1: both right",
        "2: right with reasoning only",
        "3: both wrong",
        "4: right with reasoning only",
        "5: right without reasoning only",
        "6: both right",
    ],
    [1, 3, 4],
    f"Three, two to one: p = {stats.binomtest(1, 3).pvalue:.3g}. Too few.",
)


# %% tags=["stub"]
def mcnemar_p(with_reasoning, without_reasoning):
    """Exact two-sided p of McNemar's test; two arrays of booleans [problem]."""
    raise NotImplementedError("count the problems solved in one condition only.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# `(with_reasoning & ~without_reasoning).sum()` counts one kind. `stats.binomtest(k, n).pvalue` is
# the two-sided p of `k` heads in `n` throws of a fair coin; it wants `n` of at least 1.
# ```


# %% tags=["solution"]
def mcnemar_p(with_reasoning, without_reasoning):
    """Exact two-sided p of McNemar's test; two arrays of booleans [problem]."""
    only_with = int((with_reasoning & ~without_reasoning).sum())
    only_without = int((~with_reasoning & without_reasoning).sum())
    if only_with + only_without == 0:
        return 1.0
    return stats.binomtest(only_with, only_with + only_without).pvalue


# %% tags=["check"]
workshop.check_mcnemar(mcnemar_p)

# %%
right = paired_answers[["with_reasoning", "without_reasoning"]].to_numpy(bool)
mcnemar_p(right[:, 0], right[:, 1])

# %% [markdown]
# **What you should see.** The p-value of the table of the paired comparison above, in its column
# *unfinished is wrong*, where every problem was asked once.
#
# **Comprehension.** Some problems may be solved only without reasoning{% if
# answer_quality.only_without is not none %} (here {{ answer_quality.only_without }}){% endif %}. Is
# that evidence that reasoning does harm?
#
# ```{admonition} Answer
# :class: dropdown
#
# Not by itself. Two runs that are equally good also differ on single problems, one way and the
# other. What counts is the balance of the two kinds, and that is what the test weighs. Whether
# reasoning harms a certain *kind* of problem is another question, to be asked before looking.
# ```

# %% [markdown]
# ### Exercise 2.2: A paired bootstrap
#
# Difficulty ●●●○○, importance ●●●●○, 15 minutes
#
# How large is the difference, and how sure is that? Draw as many problems as there are, with
# replacement, at least 2,000 times; each time take the mean of the paired difference (with less
# without). Return the 2.5 and the 97.5 % quantile. `rng` is a numpy generator.

# %% tags=["hide-input"]
figures.pick_view(
    "Four problems, 1 to 4. Which of these can one of the resamples be?",
    ["1 2 3 4", "2 2 4 1", "3 3 3 3", "1 2 3", "4 1 2 5", "1 1 2 4 4"],
    [0, 1, 2],
    "As many draws as problems; each problem may come again, or not at all.",
)


# %% tags=["stub"]
def difference_interval(with_reasoning, without_reasoning, rng):
    """Low and high end of the 95 % interval of the mean paired difference."""
    raise NotImplementedError("resample problems: rng.integers gives indices.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# First form the difference for each problem; then it is a bootstrap of one mean. `rng.integers(n,
# size=(2000, n))` draws all resamples at once.
# ```


# %% tags=["solution"]
def difference_interval(with_reasoning, without_reasoning, rng):
    """Low and high end of the 95 % interval of the mean paired difference."""
    pair = np.asarray([with_reasoning, without_reasoning], float)
    difference = pair[0] - pair[1]
    drawn = rng.integers(len(difference), size=(4000, len(difference)))
    return np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])


# %% tags=["check"]
workshop.check_difference_interval(difference_interval)

# %%
difference_interval(*right.T.astype(float), np.random.default_rng(0))

# %% [markdown]
# **What you should see.** Nearly the interval of the table above, {{ answer_quality.ci_low |
# number(3) }} to {{ answer_quality.ci_high | number(3) }}. The page uses a variant (BCa) that
# corrects for skew, and other draws.
#
# **Comprehension.** When is the paired interval much narrower than one for two separate sets of
# problems?
#
# ```{admonition} Answer
# :class: dropdown
#
# When the two conditions find the same problems hard. Then the difference within a problem varies
# less than the answers themselves, and pairing takes the difficulty out. Where success in one
# condition tells nothing about the other, pairing gains nothing.
# ```

# %% [markdown]
# ### Exercise 2.3: Cut the reasoning short
#
# Difficulty ●●○○○, importance ●●●●○, 10 minutes
#
# For early answering the reasoning is cut after some sentences and the answer forced. Given the
# ids of a whole trace, the slices of its sentences, how many of them to keep, and the ids that
# close the thought and begin the answer, return the ids that the model is to go on from. With
# `kept = 0` nothing of the reasoning is left, and all that stands before it is.

# %% tags=["hide-input"]
figures.pick_view(
    "Two sentences of three are kept. What is the model given, in this order?",
    [
        "the prompt",
        "<think>",
        "sentence 1",
        "sentence 2",
        "sentence 3",
        "</think>",
        "The answer is \\boxed{",
        "the answer that the trace gave",
    ],
    [0, 1, 2, 3, 5, 6],
    "The third sentence and the trace's answer are gone; the model fills the box.",
)


# %% tags=["stub"]
def early_prompt(token_ids, spans, kept, closing):
    """Ids up to the end of the kept-th sentence, then the closing ids."""
    raise NotImplementedError("find where the last kept sentence ends; cut there.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# The sentences tile the reasoning: the first one starts where the reasoning does.
# ```


# %% tags=["solution"]
def early_prompt(token_ids, spans, kept, closing):
    """Ids up to the end of the kept-th sentence, then the closing ids."""
    stop = spans[kept - 1].stop if kept else spans[0].start
    return [*token_ids[:stop], *closing]


# %% tags=["check"]
workshop.check_early_prompt(early_prompt)

# %%
stored = run.completions_path("with_reasoning")
longest = max(
    read_traces(stored, model.tokenizer, problems, model.tags)[:50], key=len
)
closing_ids = encode(model.tokenizer, model.tags.close)
closing_ids += encode(model.tokenizer, answer_stem(model.tags))
forced_tokens = {}
for kept in np.unique(np.linspace(0, len(sentences(longest)), 6, dtype=int)):
    cut_ids = early_prompt(longest.token_ids, sentences(longest), kept, closing_ids)
    with torch.no_grad():
        cut = torch.tensor([cut_ids], device=model.device)
        next_logits = model.hf(cut).logits[0, -1]
    forced_tokens[int(kept)] = model.tokenizer.decode(int(next_logits.argmax()))
forced_tokens | {"the trace itself": longest.answer_text[-16:]}

# %% [markdown]
# **What you should see.** For six places of the longest of fifty traces, the first token that the
# model writes into the box, and how the trace itself ends. Early on the token is a guess, or comes
# from the question; after the last sentence it is, in nearly every trace, the trace's own answer.
#
# **Comprehension.** A forced answer is right from the first sentence on. Was the rest of the
# reasoning idle?
#
# ```{admonition} Answer
# :class: dropdown
#
# It was not needed for this answer, on this problem. That is weaker than idle: the model may have
# guessed among few possible answers, the rest may have confirmed what it would otherwise have
# changed, and a forced answer is one that the model had not begun.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That the answer uses the reasoning.** Better answers after reasoning would also come from a
#   model that merely needs the extra computation. The next stages look inside.
# - **How large a gap to expect elsewhere.** This run's figures and the paper's stand on one page
#   and must not be compared: other problems, another model, another way of decoding.{% if
#   model.name == "r2a-tiny" %} The bundled model has a few million parameters and was trained on
#   exactly this task; it is here so that one can see every step work.{% endif %}
# - **Anything about other models.** {% if model.name == "r2a-tiny" %}The bundled model was trained
#   on both conditions equally often, so that a gap is not the artefact of a format it has never
#   seen; but its answers without reasoning were short in training.{% else %}A gap may be the
#   artefact of a format that this model has seldom or never seen in training.{% endif %} A
#   distilled R1 may write its steps into the answer instead, and its gap is smaller for that
#   reason.
# - **That a forced answer is the model's own.** It may know an answer that it would not write yet,
#   or write one because it was made to. And a ban takes away the word, not what the word stands
#   for.
# - **That finished pairs are a fair sample.** In the paper's own runs
#   {{ paper_funnel.most_unfinished | percent(1) }} of one model's traces with reasoning did not
#   finish, and are left out with their partners.
#
# ## What is missing
#
# Whether the answer is made from the reasoning. A model that only needs the extra computation would
# show the same gain. {doc}`The next page <02b_edited_thoughts>` changes the reasoning's text and
# sees whether the answer follows; {doc}`stage 2 <03_segment_attention>` looks inside.
