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
# # Stage 1: are answers better after reasoning?
#
# **Question.** On the same problems, is the model right more often when it reasons first?
#
# **What you will see.** Accuracy with and without reasoning by how many steps a problem needs, a
# paired comparison under two accounting rules, what a right answer costs in tokens, what is left
# of it when the reasoning is cut short or may not turn on itself, and the paper's figures for the
# real models beside them.
#
# **Before you start.** {doc}`Collecting traces <01_collect_traces>`: how the completions were
# made, and how many were left out.

# %% [markdown]
# ## Parameters
#
# `n_traces` are cut short below; `n_no_cue` problems are asked once more without cues, in the way
# that stage 1 asked them, so what follows `source` must be what it was there.

# %% tags=["parameters"]
run_dir = "runs/default"
slice_by = "steps"
confidence = 0.95
model_name = "r2a-tiny"
n_traces = 60
n_no_cue = 150
source = "model"
prompt_style = "chat"
temperature = 0.0
top_p = 1.0
samples = 1
max_new_tokens = 512
batch_size = 64
seed = 0

# %%
from dataclasses import replace

import pandas as pd

from r2a_utils import arms, comparison, paper, plots
from r2a_utils.artifacts import Run
from r2a_utils.completions import read_completions, read_traces
from r2a_utils.generation import Sampling, collect_completions, teacher_forced
from r2a_utils.grading import grade_completions
from r2a_utils.models import load_model
from r2a_utils.problems import problems_from_table
from r2a_utils.statistics import bootstrap_interval, holm, mcnemar_exact
from r2a_utils.tiny.world import write_text
from r2a_utils.traces import CONDITIONS, cues

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)
problems = problems_from_table(run.read_table("problems"))

# %% [markdown]
# ## Grading
#
# An answer is what stands in the last `\boxed{…}` after `</think>`; it is right if it equals the
# known answer as mathematics, or as a word where the answer is a word. The reasoning itself is
# not graded.

# %%
completions = [c for name in CONDITIONS for c in read_completions(run.completions_path(name))]
answers = grade_completions(completions, problems)
run.write_table("answers", answers)
answers.groupby("condition")[["finished", "well_formed", "correct", "n_tokens"]].mean().round(3)

# %% [markdown]
# Not every completion gets as far as a grade. What the filters leave, before anything is compared:

# %%
plots.funnel(comparison.funnel(answers))

# %% [markdown]
# The lowest bars are what the paper's rule compares, the highest what ours does. The further apart
# they are, the more the two rules below can disagree.

# %% [markdown]
# ## By how much a problem asks
#
# If reasoning only changed the style of an answer, the two lines would run together. If it does
# work, they should part as problems need more steps. Intervals are Wilson's.

# %%
by_slice = comparison.accuracies(answers, "unfinished_wrong", by=slice_by, confidence=confidence)
by_slice = by_slice.rename(columns={slice_by: "steps"})
run.write_table("accuracy_by_steps", by_slice)
plots.accuracy_by_steps(by_slice)

# %% [markdown]
# Read the gap between the lines, not their heights: how hard a problem is differs from point to
# point, and both conditions meet the same problems at each.

# %% [markdown]
# ## The paired comparison
#
# Every problem was asked in both conditions, so the test is paired. Two accounting rules stand
# side by side. *Finished pairs*, the paper's, keeps the problems that were answered in both
# conditions. *Unfinished is wrong* keeps every problem. Where a model often fails to finish its
# reasoning, the two can disagree, and then neither alone is the truth.

# %%
rules = pd.concat(
    [
        comparison.paired_comparison(answers, rule, confidence=confidence, seed=seed)
        for rule in comparison.ACCOUNTING
    ],
    ignore_index=True,
)
rules

# %%
dots = pd.concat(
    [
        comparison.accuracies(answers, rule, confidence=confidence).assign(label=label)
        for rule, label in zip(
            comparison.ACCOUNTING, ("finished pairs", "unfinished is wrong"), strict=True
        )
    ]
)
plots.paired_accuracy(dots)

# %% [markdown]
# The same for each slice, with Holm's correction over the slices:

# %%
slices = comparison.paired_comparison(answers, "unfinished_wrong", by=slice_by, seed=seed)
slices[[slice_by, "n", "accuracy_with", "accuracy_without", "difference", "mcnemar_p", "holm_p"]]

# %%
overall = rules.iloc[-1]
hard = slices.sort_values(slice_by).iloc[-1]
run.write_record(
    "answer_quality",
    {
        "n": int(overall.n),
        "with_reasoning": overall.accuracy_with,
        "without_reasoning": overall.accuracy_without,
        "difference": overall.difference,
        "ci_low": overall.ci_low,
        "ci_high": overall.ci_high,
        "mcnemar_p": overall.mcnemar_p,
        "only_with": int(overall.only_with),
        "only_without": int(overall.only_without),
        "most_steps": str(hard[slice_by]),
        "most_steps_with": hard.accuracy_with,
        "most_steps_without": hard.accuracy_without,
    },
)
run.write_table("paired_comparison", rules)

# %% [markdown]
# With every problem counted, {{ answer_quality.with_reasoning | percent(1) }} of the answers are
# right with reasoning and {{ answer_quality.without_reasoning | percent(1) }} without: a
# difference of {{ (100 * answer_quality.difference) | number(1) }} points (interval {{ (100 *
# answer_quality.ci_low) | number(1) }} to {{ (100 * answer_quality.ci_high) | number(1) }},
# McNemar's exact test {{ answer_quality.mcnemar_p | p_value }}, n = {{ answer_quality.n }}). {{
# answer_quality.only_with }} problems were solved only with reasoning, {{
# answer_quality.only_without }} only without. At {{ answer_quality.most_steps }} steps it is {{
# answer_quality.most_steps_with | percent }} against {{ answer_quality.most_steps_without |
# percent }}.
#
# ## What a right answer costs
#
# Reasoning is paid for in tokens. All tokens written, right or wrong, over the right answers:

# %%
comparison.tokens_per_right_answer(answers, confidence=confidence, seed=seed).round(1)

# %% [markdown]
# `tokens_per_right` divides `tokens` by the share of right answers. A condition that writes little
# and is mostly wrong can still be the cheaper one by this count; whoever needs each problem solved
# reads it together with the share.
#
# ## Early answering: how much of the reasoning does the answer need?
#
# We cut each reasoning after a fraction of its sentences, close it with `</think>`, write
# "The answer is \boxed{" and let the model fill the box (Lanham et al., arXiv:2307.13702). If the
# answer stood before the reasoning was done, the curve would be high from the start.

# %%
traces = read_traces(run.completions_path("with_reasoning"), model.tokenizer, problems)[:n_traces]
early = arms.early_answers(model, traces, problems, batch_size=batch_size)
run.write_table("early_answers", early)
plots.early_answering(arms.early_curve(early, confidence), ylabel="Forced answers")

# %%
own = answers.query("condition == 'with_reasoning'")[["problem_id", "sample", "correct"]]
right = early.pivot(index=["problem_id", "sample"], columns="fraction", values="correct")
areas = arms.area_over_curve(early)
low, high = bootstrap_interval(areas, confidence, seed)
run.write_record(
    "early_answering",
    {
        "n": len(areas),
        "area": areas.mean(),
        "ci_low": low,
        "ci_high": high,
        "right_at_0": right[0.0].mean(),
        "right_at_80": right[0.8].mean(),
        "right_at_100": right[1.0].mean(),
        "right_unforced": own.set_index(["problem_id", "sample"]).loc[right.index].correct.mean(),
    },
)

# %% [markdown]
# Without any reasoning {{ early_answering.right_at_0 | percent }} of the forced
# answers are right, after four fifths of the sentences {{ early_answering.right_at_80 | percent
# }}, after all of them {{ early_answering.right_at_100 | percent }} (n = {{ early_answering.n
# }}). The area over the dashed curve, 0 for an answer that needs no reasoning and 0.9, at these
# six fractions, for one that needs the last of it, is {{ early_answering.area | number }}
# (interval {{ early_answering.ci_low | number }} to {{ early_answering.ci_high | number }}).
# Forcing is an intervention of its own; at the right end it should change nothing, and there the
# model's own answers are right in {{ early_answering.right_unforced | percent }}. On MATH real
# models settle earlier, after about 60 % of the steps (arXiv:2506.02536).
#
# ## No cues: what if the model may not turn on itself?
#
# We ask again and ban the tokens that are a word of self-reflection, in any casing (NoWait,
# arXiv:2506.08343). Phrases such as "let me check" begin with words that cannot be spared, and
# stay. These are the tokens of this vocabulary:

# %%
cue_ids = arms.cue_token_ids(model.tokenizer)
banned = tuple(sorted({i for ids in cue_ids.values() for i in ids}))
pd.Series(
    {cue: " ".join(map(repr, model.tokenizer.batch_decode([[i] for i in ids])))
     for cue, ids in cue_ids.items() if ids},
    name="banned tokens",
).to_frame()  # fmt: skip

# %% [markdown]
# The plain arm is what stage 1 kept. Under greedy decoding the two can differ only where a banned
# token was wanted.

# %%
asked = problems[:n_no_cue]
sampling = Sampling(max_new_tokens, temperature, top_p, seed)
options = {"samples": samples, "prompt_style": prompt_style, "batch_size": batch_size}
plain = collect_completions(
    model,
    asked,
    path=run.completions_path("with_reasoning"),
    sampling=sampling,
    backend=teacher_forced(model, write_text) if source == "written" else None,
    **options,
)
no_cue = collect_completions(
    model,
    asked,
    path=run.completions_path("no_cue"),
    sampling=replace(sampling, banned_ids=banned),
    **options,
)

# %%
cued = {c.problem_id for c in plain if set(banned) & set(c.completion_ids)}
graded = [grade_completions(completions, asked) for completions in (plain, no_cue)]
summary = arms.arm_summary(*graded, cued, confidence)
run.write_table("no_cue", summary)
plots.no_cue(summary)

# %%
written = read_traces(run.completions_path("no_cue"), model.tokenizer, asked)
of_cued = summary[summary.group == "a banned cue in the plain arm"].set_index("arm").accuracy
run.write_record(
    "no_cue",
    arms.arm_difference(*graded, confidence, seed)
    | {
        "cued": len(cued) / len(asked),
        "cued_plain": of_cued.get("plain"),
        "cued_no_cue": of_cued.get("no cue"),
        "still_cued": sum(bool(cues(trace)) for trace in written) / max(len(written), 1),
    },
)

# %% [markdown]
# The plain arm wrote a banned token on {{ no_cue.cued | percent }} of {{ no_cue.n }} problems.{%
# if no_cue.cued_plain is not none %} On those, {{ no_cue.cued_plain | percent }} were right with
# the cues and {{ no_cue.cued_no_cue | percent }} without.{% endif %} Over all problems the ban
# changes accuracy by {{ (100 * no_cue.difference) | number(1) }} points (interval {{ (100 *
# no_cue.ci_low) | number(1) }} to {{ (100 * no_cue.ci_high) | number(1) }}; {{ no_cue.only_plain
# }} problems solved only with cues, {{ no_cue.only_no_cue }} only without, McNemar's exact test
# {{ no_cue.mcnemar_p | p_value }}), and the texts are {{ no_cue.length_ratio | number }} times as
# long ({{ no_cue.ratio_low | number }} to {{ no_cue.ratio_high | number }}). NoWait found traces
# of large models 27 to 51 % shorter, at little cost; distilled ones lose more. In the bundled world
# a cue mostly opens a step of work, a correction or a digit that is borrowed, so that the step
# tends to go with the word. In {{ no_cue.still_cued | percent }} of the texts of this arm
# another cue, which has no token of its own, still stands.
#
# ## Beside the paper: MATH-500
#
# These are the paper's figures for real models, not ours: MATH-500 at temperature 0.6, finished
# pairs only, with a raw prompt and a limit of 10,000 tokens {cite:p}`zhang2025reasoning`. The
# paper prints a paired t-test of 0/1 grades. Its t, n and accuracies leave only one pair of counts
# possible for the problems solved in one condition alone, and with them McNemar's exact test:

# %%
published = pd.DataFrame(paper.published()["stage1_math500"]["rows"])
counts = [
    paper.discordant_pairs(r.n, r.with_reasoning, r.without_reasoning, r.t)
    for r in published.itertuples()
]
published.assign(
    difference=published.with_reasoning - published.without_reasoning,
    only_with=[first for first, _ in counts],
    only_without=[second for _, second in counts],
    mcnemar_p=[mcnemar_exact(*pair) for pair in counts],
)

# %% [markdown]
# The distilled models gain more from reasoning than the full R1. How many of the 500 problems each
# of those comparisons rests on, the paper's own funnel says:

# %%
funnels = paper.published()["stage1_math500"]["funnel"]
paper_funnel = pd.DataFrame(
    {
        (model, condition): counts
        for model, conditions in funnels.items()
        if model != "columns"
        for condition, counts in conditions.items()
    },
    index=funnels["columns"],
).T
unfinished = 1 - (paper_funnel.finished / paper_funnel.asked).unstack().with_reasoning
run.write_record("paper_funnel", {"most_unfinished": unfinished.max()})
paper_funnel

# %% [markdown]
# ## The authors' traces, graded again
#
# The authors published 400 graded greedy traces: 100 problems, two models, both conditions. We
# graded each again with the grader of this page.

# %%
regrading = paper.regrading()
regraded = pd.json_normalize(regrading["rows"]).set_index(["model", "n"])
regraded.columns = pd.MultiIndex.from_tuples([tuple(c.split(".")) for c in regraded.columns])
regraded

# %% [markdown]
# The 100 problems are a selection in which the two conditions differ far more often than in all of
# MATH-500, so these shares estimate no accuracy. Each case in which the two graders differ, worked
# out by hand:

# %%
disagreements = pd.DataFrame(regrading["disagreements"])
run.write_record(
    "regrading",
    {
        "traces": regrading["traces"],
        "agreement": regrading["agreeing"] / regrading["traces"],
        "disagreements": len(disagreements),
        "r2a_right": int((disagreements.who_is_right == "R2A").sum()),
    },
)
disagreements.style.hide()

# %% [markdown]
# The graders agree on {{ regrading.agreement | percent(1) }} of {{ regrading.traces }} traces. In
# {{ regrading.r2a_right }} of the {{ regrading.disagreements }} other cases R2A is right: the
# authors' grader reads the last of several boxes, or takes a unit or the order of terms for a
# different answer. None of it changes which condition does better.
#
# ## Beside the paper: WildBench
#
# On open questions a judge model scores each answer from 1 to 10. The published means, by area; a
# dark line joins two scores that differ by more than chance (the paper's p-values, corrected by
# Holm's method over all of the panels).

# %%
wildbench = paper.published()["stage1_wildbench"]
scores = pd.DataFrame(
    [
        {"panel": f"{row['model']}\nn = {row['n'][-1]}", "label": area, "score": score, "p": p}
        | {"condition": condition}
        for row in wildbench["rows"]
        for condition in CONDITIONS
        for area, score, p in zip(wildbench["areas"], row[condition], row["p"], strict=True)
    ]
)
tests = scores[scores.condition == "with_reasoning"]
tests = tests.assign(differs=holm(tests.p) < 0.05)[["panel", "label", "differs"]]
scores = scores.merge(tests, on=["panel", "label"])
plots.score_panels(scores)

# %% [markdown]
# Creative tasks gain the most, coding and analysis nothing that could be told from chance, and the
# full R1 nothing anywhere. The scores stand in the paper with one decimal and without intervals;
# the p-values were computed from the full ones.
#
# ## What this does not show
#
# - **That the answer uses the reasoning.** Better answers after reasoning would also come from a
#   model that merely needs the extra computation. The next stages look inside.
# - **How large a gap to expect elsewhere.** The bundled model's figures and the paper's stand on
#   one page and must not be compared: two small families of made-up problems against competition
#   mathematics, greedy decoding against sampling, a model of a few million parameters that was
#   trained on exactly this task. It is here so that every step can be seen to work.
# - **Anything about other models.** The bundled model was trained on both conditions equally
#   often, so that a gap is not the artefact of a format it has never seen; but its answers
#   without reasoning were short in training. A distilled R1 may write its steps into the answer
#   instead, and its gap is smaller for that reason.
# - **That a forced answer is the model's own.** It may know an answer that it would not yet write,
#   or write one because it was made to. And a ban takes the word, not what the word stands for.
# - **That finished pairs are a fair sample.** In the paper's own runs
#   {{ paper_funnel.most_unfinished | percent(1) }} of one model's traces with reasoning did not
#   finish. They are the hard ones.
