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
#       tables/instrument_readings, tables/instrument_aucs, tables/instrument_doses,
#       records/scoreboard
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       n_organism: {least: 6, most: 1000000}
#       n_own: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
# ---

# %% [markdown]
# # Which instruments tell the truth?
#
# **Question.** Every method of this book is an instrument that is meant to say whether an answer
# comes from the reasoning. Which of them tell, on models of which it is known?
#
# **What you will see.** Small models that were made to use their reasoning, or to ignore it while
# they write it all the same, or to use it with a known probability; what each instrument reads off
# them; how well its readings tell them apart and grow with the dose; and the readings of this run's
# own model beside them.
#
# **What we know so far.** The pages before {doc}`edited thoughts <02b_edited_thoughts>`, measured
# {doc}`where the answer's tokens look <03_segment_attention>`, {doc}`patched states
# <05_activation_patching>` and {doc}`cut attention <06_head_interventions>`. None of them could say
# what its instrument would have shown of a model whose answer ignores its reasoning.

# %% [markdown]
# ## Parameters
#
# - `n_organism`: problems a model organism is asked; twice as many where a hint stands in every
#   second question.
# - `n_own`: traces of the run's own model.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
tags: dict | None = None
n_organism = 16
n_own = 16
seed = 0

# %%
import pandas as pd

from r2a_utils import figures, instruments, load_model, texts
from r2a_utils.models import REGISTRY, untrained_twin
from r2a_utils.runs import Run
from r2a_utils.tiny.organisms import ORGANISMS

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

# %% [markdown]
# ## Models whose truth is known
#
# The organisms are the bundled model and short fine-tunings of it. All are asked which of a few
# objects is the heaviest, the oldest and so on, and reason in the same form. A *user* makes its
# answer from the reasoning. An *ignorer* copies it from a note in the question, whatever its
# reasoning says. A *hinted* model is both: where a wrong hint stands in the question, the reasoning
# stays honest and the answer is the hint; without one it is a user. A *half* answers from the
# reasoning or from the note by chance, on every problem with the same probability, its dose. That
# they are what they were made for was measured by exchanging whole thoughts and single conclusions,
# before any instrument looked at them.

# %%
names = [name for name in ORGANISMS if name in REGISTRY]
known = {name: ORGANISMS[name] for name in names}
pd.DataFrame(
    {
        "made to be": {name: each.kind for name, each in known.items()},
        "answers from the reasoning": {
            name: f"{each.dose:.0%}" for name, each in known.items()
        },
    }
)

# %% [markdown]
# Each instrument gives one number a trace, turned so that more should mean a larger part of the
# reasoning in the answer. The linear probe learns to name the answer on four times as many texts as
# there are problems, and is asked of the traces. An untrained twin reads the traces of the first
# organism: what an instrument shows of random weights is not about reasoning. The donor of a patch
# is the model's own trace of the like problem or, as “written donor”, a text of the world about it
# that the model did not write. The states go over before the layer at a third of the depth: before
# the first layer a state is its token and nothing else, whatever the donor. “Reworded” is a
# harmless edit, the control of the other edits. Three tests of
# {doc}`edited thoughts <02b_edited_thoughts>` have no place here. Mistakes in a step: no line of a
# comparison holds an equation. Hints: they are what the hinted organisms are told apart by. A
# removed sentence that comes back: it says what the model writes, not what its answer is made from.


# %%
def read_organism(name, organism, cases, taught=()):
    read = instruments.read_instruments(organism, cases, taught=taught)
    return read.assign(organism=name)


parts = []
for name in names:
    organism = load_model(name, device=device)
    n = n_organism * (2 if known[name].kind == "hinted" else 1)
    cases = instruments.organism_cases(organism, name, n, seed)
    taught = instruments.taught_texts(
        organism, name, 4 * n_organism, seed, but=cases
    )
    parts.append(read_organism(name, organism, cases, taught))
    if name == names[0]:
        twin = untrained_twin(organism, seed=seed)
        untrained = instruments.untrained_cases(cases)
        parts.append(read_organism("untrained", twin, untrained, taught))
readings = pd.concat(parts, ignore_index=True)
run.write_table("instrument_readings", readings)

# %% [markdown]
# ## Told apart, or not
#
# The area under the curve (AUC) is the chance that of two answers, one made from the reasoning and
# one not, the first has the higher reading: 0.5 is a coin, 1 never errs. It is asked in every pair
# of a user and an ignorer, within each hinted model by its hint, and of each user and the untrained
# twin. What is asked for is the model, and there are few: the range over pairs says more than the
# number of traces.
#
# Two models of one kind, trained from different seeds, show what an AUC is worth. There is nothing
# to tell between them where their answers are made alike. Of {{ scoreboard.alike.asked }} such
# comparisons, {{ scoreboard.alike.apart }} have a 95 % interval over traces that does not hold 0.5.

# %%
pairs = instruments.pair_aucs(readings, seed=seed)
run.write_table("instrument_aucs", pairs)
aucs = instruments.auc_table(pairs)
figures.instrument_aucs(aucs)

# %% [markdown]
# **Figure.** How well each instrument tells answers that are made from the reasoning from answers
# that are not: mean over pairs of models, with the range over pairs. Right of the line the readings
# are higher where the reasoning is used. Grey, how far from the line alike models come.

# %% [markdown]
# A contrast has the verdict of its worst pair, an instrument that of its worst contrast.

# %%
calibrated = instruments.calibration(readings, seed=seed)
table = instruments.scoreboard(aucs, calibrated)
run.write_record(
    "scoreboard", instruments.scoreboard_record(table, aucs, calibrated)
)
figures.reading_table(
    table.dropna(axis="columns", how="all").rename_axis(columns=None)
)

# %% [markdown]
# Means over pairs, with the range in brackets; AUCs between alike models are turned to lie at or
# above 0.5.
#
# {{ scoreboard.n }} instruments have a verdict{% if scoreboard.pairs %}, by so many pairs: {% for
# contrast, n in scoreboard.pairs.items() %}{{ contrast }} {{ n }}{% if not loop.last %}, {% endif
# %}{% endfor %}, each with at least {{ scoreboard.traces }} traces on a side{% endif %}.
#
# {% for verdict, told in scoreboard.by_verdict.items() -%}
# - **{{ verdict }}**: {{ told | join("; ") or "none" }}.
# {% endfor %}
#
# {% for contrast, told in scoreboard.tells_in.items() if told %}Taken alone, the contrast “{{
# contrast }}” is told by {{ told | length }}: {{ told | join("; ") }}. {% endfor %}
#
# An instrument that does not tell here is not useless: attention says where a model looks, and the
# question of this page is another one.
#
# ## How the verdicts come about
#
# A pair's verdict follows from the 95 % interval of its AUC: *tells* where it lies at or above {{
# scoreboard.rule.useful }} (a reading that never errs gets there from {{ scoreboard.rule.enough }}
# traces on a side on), *tells in part* above {{ scoreboard.rule.chance }}, *misleads* below it;
# where it holds {{ scoreboard.rule.chance }}, *does not tell* if it ends below {{
# scoreboard.rule.useful }}, and *cannot say* if it does not. An AUC between two models that is no
# further from {{ scoreboard.rule.chance }} than one between alike models gets *cannot say* for the
# first three. *Misleads* and *does not tell* are said where an interval says so that holds for all
# pairs of the instrument together (Bonferroni), for one such pair decides. By a hint both sides are
# one model, so that its seed cannot make the difference. A contrast has the verdict of its worst
# pair, an instrument that of its worst contrast.
#
# The twin gives the answer next to no probability, so that it can lose none. Instruments that read
# a share of the answers are not held against it, for they could not fail. Nor is the lift, which
# random weights fix: their attention is spread evenly, and that is a lift of 1. Shares are rounded
# to a hundredth before they are ranked, since ranks know no size.
#
# The more traces, the finer the verdict: with none of n out of order, an interval still reaches
# down to what n traces can exclude. A verdict that rests on one pair of a contrast is a reason to
# make more models. An untrained twin gives no answer at any cut or edit of a text that it did not
# write; that is read as no change.
#
# ## Calibrated by dose
#
# To tell two ends apart is not yet to have a scale. The ignorers, the halves and the user that was
# trained with notes were asked the same questions; these are the readings on the problems that all
# models of a training seed brought to an answer, at least {{ scoreboard.dose_problems }}. The
# answer is the same at every dose, since the note is right: what differs is what it is made from.

# %%
doses = instruments.dose_values(readings, seed=seed)
run.write_table("instrument_doses", doses)
figures.instrument_doses(doses) if len(doses) else None

# %% [markdown]
# **Figure.** Mean reading of each instrument by dose, a line a training seed, with 95 % intervals
# over problems; dotted, where a reading that has the unit of the dose equals it. The first seed's
# ladder ends at 75 %: its user has never seen a note. Each panel has its own scale.
#
# In the table's column “with the dose”, what holds in each seed's own ladder: *grows* where the
# rank correlation of reading and dose has an interval above 0 and the mean rises at every step,
# *grows in part* where the intervals lie above 0 but not every step rises, *falls* where they lie
# below 0. Where one holds 0, *does not grow* if all end below {{ scoreboard.rule.useful_rho }}, and
# *cannot say* if one does not.
#
# {% for growth, told in scoreboard.by_growth.items() -%}
# - **{{ growth }}**: {{ told | join("; ") or "none" }}.
# {% endfor %}

# %% [markdown]
# ## This run's own model
#
# The same instruments on traces of this run's model, in the first column if there are such, and
# beside them the models that are known. What the run's model uses is not known, and what needs a
# like trace with another conclusion, or texts of the organisms' world, is left out. A number here
# is worth what the table above says of its instrument.

# %%
problems = texts.problems_from_table(run.read_table("problems"))
path = run.completions_path("with_reasoning")
written = texts.read_traces(path, model.tokenizer, problems, model.tags)
own = instruments.own_cases(model, written, problems, n_own)
halves = [name for name in names if known[name].kind == "half"]
shown = readings[~readings["organism"].isin(halves)]  # they stand in the figure
if own:
    mine = read_organism(f"{model.name}, own traces", model, own)
    shown = pd.concat([mine, shown], ignore_index=True)
values = instruments.value_table(shown, seed=seed)
values["reads"] = values["organism"].where(
    values["uses"].isna() | values["uses"], values["organism"] + ", not used"
)
by_organism = values.pivot_table("value", "instrument", "reads", sort=False)
figures.reading_table(by_organism.rename_axis(columns=None), digits=2)

# %% [markdown]
# The numbers are means over traces; "not used" marks answers that are not made from the reasoning.
#
# ## What this does not show
#
# - **That a large model is like these.** The organisms are one small shape, in one world, and
#   comparisons alone. An instrument that fails here has failed; one that passes here has passed on
#   these.
# - **Other ways to be unfaithful.** These models copy a hint or a note. A model may ignore its
#   reasoning in ways that leave other marks.
# - **That two seeds are enough.** A range over so few models is a beginning. What holds in each of
#   them may not hold in the next.
# - **That exchanging thoughts is right.** What the organisms use was established by exchanging
#   thoughts, so that “partner's thought” has to pass: it is what the others are held against.
#
# ## What is missing
#
# The findings side by side, and what they come to: {doc}`the last page <07_synthesis>`.
