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
# paired comparison under two accounting rules, what a right answer costs in tokens, and the
# paper's figures for the real models beside them.
#
# **Before you start.** {doc}`Collecting traces <01_collect_traces>`: how the completions were
# made, and how many were left out.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run_dir = "runs/default"
slice_by = "steps"
confidence = 0.95
seed = 0

# %%
import pandas as pd

from r2a_utils import comparison, paper, plots
from r2a_utils.artifacts import Run
from r2a_utils.completions import read_completions
from r2a_utils.grading import grade_completions
from r2a_utils.problems import problems_from_table
from r2a_utils.traces import CONDITIONS

run = Run.open(run_dir)
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
# ## By how much a problem asks
#
# If reasoning only changed the style of an answer, the two lines would run together. If it does
# work, they should part as problems need more steps. Intervals are Wilson's.

# %%
by_slice = comparison.accuracies(answers, "unfinished_wrong", by=slice_by, confidence=confidence)
figure = plots.accuracy_by_steps(by_slice.rename(columns={slice_by: "steps"}))
figure

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
# ## Beside the paper
#
# These are the paper's figures for real models, not ours: MATH-500 at temperature 0.6, finished
# pairs only, with a raw prompt and a limit of 10,000 tokens {cite:p}`zhang2025reasoning`. The
# distilled models gain more from reasoning than the full R1.

# %%
published = pd.DataFrame(paper.published()["stage1_math500"]["rows"])
funnels = paper.published()["stage1_math500"]["funnel"]
unfinished = {
    m: 1 - f["with_reasoning"][1] / f["with_reasoning"][0]
    for m, f in funnels.items()
    if m != "columns"
}
run.write_record("paper_funnel", {"most_unfinished": max(unfinished.values())})
published.assign(difference=published.with_reasoning - published.without_reasoning)

# %% [markdown]
# ## What this does not show
#
# - **That the answer uses the reasoning.** Better answers after reasoning would also come from a
#   model that merely needs the extra computation. The next stages look inside.
# - **Anything about other models.** The bundled model was trained on both conditions equally
#   often, so that a gap is not the artefact of a format it has never seen; but its answers
#   without reasoning were short in training. A distilled R1 may write its steps into the answer
#   instead, and its gap is smaller for that reason.
# - **That finished pairs are a fair sample.** In the paper's own runs
#   {{ paper_funnel.most_unfinished | percent(1) }} of one model's traces with reasoning did not
#   finish. They are the hard ones.
