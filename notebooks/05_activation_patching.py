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
#       traces/contrast_clean, traces/contrast_corrupted, arrays/patch_grid,
#       arrays/patching_effects, tables/patching_curves,
#       records/contrast_pairs, records/crossed_answers, records/mediation, records/exchanged_texts,
#       records/activation_patching, records/attribution_patching, records/paper_cases
#     ]
#     parameters:
#       model_name: {choices: [r2a-tiny, smollm2-135m], or: [hub, path]}
#       dtype: {choices: [auto, float32, bfloat16]}
#       device: {choices: [auto, cpu, cuda], or: [gpu]}
#       remote: {choices: [local], or: [url]}
#       pairs: {choices: [tiny, told, questions, grade_school, paper]}
#       source: {choices: [model, written], or: [url]}
#       protocol: {choices: [own, probe, boxed_probe]}
#       prompt_style: {choices: [chat, raw, example], or: [path]}
#       n_pairs: {least: 1, most: 1000000}
#       n_mediated: {least: 1, most: 1000000}
#       n_attributed: {least: 1, most: 1000000}
#       n_explored: {least: 1, most: 1000000}
#       seed: {least: 0, most: 4294967295}
#       paper_data: {or: [path]}
# ---

# %% [markdown]
# # Stage 3: does the answer depend on the reasoning?
#
# {% set c = crossed_answers %}{% if c.verdict == "reasoning" %}The answer follows the reasoning: of
# {{ c.asked }} pairs asked, {{ c.follows | percent }} get the answer that the reasoning leads to
# when it is put behind the other question.{% elif c.verdict == "question" %}The answer does not
# follow the reasoning: of {{ c.asked }} pairs asked, {{ c.stays | percent }} keep the question's
# answer when the reasoning behind it is another's, and {{ c.follows | percent }} follow the
# reasoning.{% elif c.own <= 0.1 %}Whether the answer follows the reasoning cannot be
# asked in this way of this model: with its own reasonings it gives both its own answers in {{ c.own
# | percent }} of the {{ c.asked }} pairs asked, and no more could follow.{% elif c.verdict ==
# "neither" %}That most answers follow the reasoning is not shown: of {{ c.asked }} pairs asked, {{
# c.follows | percent }} get the answer that the reasoning leads to when it is put behind the other
# question, and {{ c.stays | percent }} keep the question's; with their own reasonings {{ c.own |
# percent }} get their own answers, and no more could follow.{% else %}Whether most answers follow
# the reasoning, {{ c.asked }} pairs are too few to say: {{ c.follows | percent }} do ({{
# c.follows_low | percent }} to {{ c.follows_high | percent }}); with their own reasonings {{ c.own
# | percent }} get their own answers, and no more could follow.{% endif %}
#
# **Question.** If the reasoning is exchanged for that of another {term}`trace`, as a text or as the
# state of one {term}`token`, does the answer follow?
#
# **What you will see.** Which answer is given, on every pair asked, when the reasoning behind a
# question is that of another; how much of the answer goes through the states of the whole thought;
# a {term}`patch grid` of one pair, tokens × layers; the paper's two curves, averaged over many
# pairs, by family of problems and in both directions; how often the answer flips; controls; and how
# well gradients predict the grid.
#
# **What we know so far.** {doc}`Reasoning-Focus Heads <04_reasoning_focus_heads>` showed where
# the answer looks. Looking is not using.

# %% [markdown]
# ## Parameters
#
# - `pairs`: "tiny" are minimal pairs of the bundled world, comparisons and arithmetic in turn,
#   "told" its comparisons with a note that says the answer, "questions" comparisons in plain
#   language ("Considering weight, which is heavier: …") for pretrained models, "grade_school" our
#   word problems and their twins with one other number, "paper" the authors' own, from their data.
# - `source`: "model" lets the model write the traces, "written" puts texts of ours before it
#   ({term}`teacher forcing`).
# - `protocol`: "own" scores the answer as it stands in the trace. "probe" and "boxed_probe" are the
#   paper's way: the reasoning is closed by the line "Final answer is A." or "Final answer is
#   \boxed{A}.", and the same words follow as the answer.
# - `prompt_style`: "chat" puts the question in the model's own template, "raw" as the paper does,
#   followed by the instruction to reason, without a template; `smollm2-135m` tells more pairs apart
#   with it.
# - `remote`: whether {doc}`the weights stay on a host </rerun>`. Such a model writes nothing here,
#   so that `source` is "written"; gradients are left out.
# - `n_mediated`: pairs whose whole thoughts are exchanged, state by state; `n_explored`: pairs
#   whose grids the explorer offers, of which a page without a kernel keeps ten.
# - `paper_data` names a folder with the authors' data; `None` stands for what the environment
#   variable `R2A_PAPER_DATA` names, if it is set.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
display_name = ""
revision: str | None = None
dtype = "auto"
device = "auto"
remote: bool | str = False
tags: dict | None = None
pairs = "tiny"
source = "model"
protocol = "own"
prompt_style = "chat"
system = ""
n_pairs = 60
n_mediated = 24
n_attributed = 4
n_explored = 10
seed = 0
paper_data: str | None = None

# %%
from functools import partial

import pandas as pd
from IPython.display import Markdown, display

from r2a_utils import Run, causal, figures, load_model, paper
from r2a_utils.collecting import (
    Sampling,
    collect_traces,
    grade_school,
    question_pairs,
    teacher_forced,
    write_solution,
)
from r2a_utils.explorers import patch_explorer
from r2a_utils.tiny import opening, world

run = Run.open(run_dir)
model = load_model(
    model_name,
    dtype=dtype,
    device=device,
    revision=revision,
    display_name=display_name,
    tags=tags,
    remote=remote,
)
run.record_model(model)

# %% [markdown]
# ## Contrast pairs
#
# A {term}`contrast pair` is a clean and a corrupted trace that differ in a few words of the
# question ("heaviest" and "lightest", or a 3 and a 7 among the numbers) and in what follows from
# it.

# %%
from r2a_utils.tiny.organisms import told_pairs

draw, write = {
    "tiny": (world.contrast_problems, world.write_text),
    "told": (told_pairs, world.write_text),
    "questions": (
        question_pairs.question_problems,
        question_pairs.write_comparison,
    ),
    "grade_school": (grade_school.grade_school_pairs, write_solution),
    "paper": (
        partial(question_pairs.paper_question_problems, folder=paper_data),
        question_pairs.write_comparison,
    ),
}[pairs]
problems = draw(n_pairs, seed)


# %%
def collected(asked, path=None):
    """The traces of problems, as this run has them written."""
    return collect_traces(
        model,
        asked,
        path=path,
        sampling=Sampling(512),
        prompt_style=prompt_style,
        system=system,
        backend=teacher_forced(model, write) if source == "written" else None,
        on_unfinished="drop",
    )


sides = [
    collected(
        [pair[side] for pair in problems], run.completions_path(f"contrast_{name}")
    )
    for side, name in enumerate(("clean", "corrupted"))
]
by_id = {trace.problem_id: trace for traces in sides for trace in traces}
has_ended = [all(side.id in by_id for side in pair) for pair in problems]
ended = [pair for pair, done in zip(problems, has_ended, strict=True) if done]

# %% [markdown]
# ## Whose answer: the question's or the reasoning's?
#
# A pair is two problems that differ in a few words and have different answers, its *clean* and its
# *corrupted* side. Before any state is touched, each question is followed by the other side's
# reasoning, which is closed, and by "The answer is \boxed{". No pair is left out because of what it
# answers. A pair *follows* its reasonings if both such texts give the answer that the reasoning
# leads to, and it *stays* if both give the question's. A text that did not end, or a reasoning that
# led to another answer, counts as neither.

# %%
as_written = [tuple(by_id[side.id] for side in pair) for pair in ended]
crossed = causal.crossed_answers(model, as_written, ended)
followed = causal.following_record(crossed, problems)
run.write_record("crossed_answers", followed)
figures.reading_table(causal.following_table(followed))

# %% [markdown]
# *Own* is the share of pairs in which both questions, each with its own reasoning, get their own
# answers: no more than that can follow. The last two columns say by how many nats the answer moves
# from one side's to the other's when only the reasoning or only the question is exchanged. {% set c
# = crossed_answers %}{% if c.reasoning is not none %}The reasoning moves it by {{ c.reasoning |
# number(1) }} nats and the question by {{ c.question | number(1) }}. {% endif %}{% if c.verdict !=
# "reasoning" %}That most pairs follow their reasoning is not shown, so that what patching shows is
# about the pairs that are kept for it, and not about this model's answers in general.{% endif %}
#
# ## Through the states of the thought, or around them?
#
# The same question, asked of states: those of all tokens of the corrupted thought are replaced by
# the clean one's, aligned from the end, and what counts is the probability that the clean answer
# gains. The *mediation index*, after the CoT Mediation Index
# {cite:p}`sathyanarayanan2026bypassing`, is this gain in all layers at once, less that of a matched
# control: as many states of another problem's thought, in the same places and layers. A control
# that takes the clean answer away counts as no gain, pair by pair. At 1 the answer goes through the
# thought; at 0 it goes around it, or there was nothing to gain. The published index counts what the
# patched answer loses; here an answer that is merely disturbed gains nothing. In the column
# *question*, as many states of the clean question are put in instead. Again no pair is left out
# because of what it answers.

# %%
mediated = causal.mediation(
    model,
    [
        tuple(zip(asked_of, traces, strict=True))
        for asked_of, traces in zip(ended, as_written, strict=True)
    ][:n_mediated],
)
found = causal.mediation_record(mediated)
run.write_record("mediation", found)
figures.reading_table(causal.mediation_table(found), digits=2)

# %% tags=["hide-input"]
figures.layer_curves(
    mediated.curves(seed),
    ylabel="Probability that the clean answer gains",
    xlabel="Exchanged before layer",
) if len(mediated.pairs) else None

# %% [markdown]
# **Figure.** What the clean answer of `{{ model.name }}` gains when the states of the whole
# thought, of another problem's thought or of the question are exchanged before one layer, mean over
# pairs with 95 % intervals.

# %% [markdown]
# {% if mediation is defined and mediation.n %}{% set m = mediation %}Over {{ m.n }} pairs{{ m.n |
# few }} the index is {{ m.index | number }}{% if m.low is not none %} ({{ m.low | number }} to {{
# m.high | number }}){% endif %}: with the thought's states the clean answer gains {{ m.thought |
# number }}, with the control's {{ m.control | number }} and with the question's {{ m.question |
# number }}. Its probability is {{ m.own | number }} in its own text and {{ m.before | number }} in
# the corrupted one, which bounds the gain. {% if m.verdict is defined %}{% if m.verdict ==
# "little to gain" %}That is little, so the index does not say which way the answer goes.{% elif
# m.verdict == "thought" %}Most of the answer goes through the thought.{% elif m.verdict == "around"
# %}Most of the answer does not go through the thought{% if m.question > (m.own - m.before) / 2 %};
# it goes through the question{% endif %}.{% endif %}{% endif %}{% endif %}
#
# ## Which pairs can be patched

# %% [markdown]
# Under the protocol "own" a pair is what was written. With a probe the reasoning gets one more
# line, which states the answer in a fixed place, and the answer repeats that line. The token that
# states the conclusion is then the one in that line; what the reasoning said before stays as it is.


# %%
def read_as(name, asked=ended):
    """(clean, corrupted) traces of pairs that ended, under a protocol."""
    return [
        tuple(
            causal.under_protocol(
                by_id[side.id], model.tokenizer, side, name, model.tags
            )
            for side in pair
        )
        for pair in asked
    ]


# %% [markdown]
# Nothing is padded, so that the two traces must be aligned token by token. A pair is kept if its
# sides end in different answers, if the model tells them apart (the logit differences of the clean
# and the corrupted trace are {{ contrast_pairs.min_gap | number(0) }} nat or more apart) and by
# itself writes either answer, and if its conclusion is a single differing token in the reasoning.
# Whether the answer follows that token is not asked here. Each pair that is left out is counted by
# its reason. An answer that restates the solution may state its result before the box; then the
# pair ends there, where the answer is made.

# %%
kept, counts, effects, nats = [], {}, {}, {}
for name in causal.PROTOCOLS:
    read = read_as(name)
    sifted = causal.sift(model, read)
    became = causal.pair_funnel(problems, has_ended, sifted)
    counts[name] = became["all"].to_dict()
    if name != "own":
        nats[name] = causal.probe_nats(model, read)
    if name == protocol:
        kept, funnel = sifted.kept, became
    else:
        effects[name] = causal.patch_two_places(model, sifted.kept)["effect"].values
sifting = {"protocol": protocol, "kept": len(kept), "min_gap": causal.MIN_GAP}
run.write_record(
    "contrast_pairs", sifting | {"asked": len(problems), "counts": counts}
)
figures.reading_table(funnel[funnel["all"] > 0])

# %% [markdown]
# What became of the pairs asked, by family of problems. And under each protocol, of which those
# that are not this run's are measured here as well, and shown below:

# %%
by_protocol = pd.DataFrame(counts).rename_axis("protocol", axis=1)
figures.reading_table(by_protocol[by_protocol.sum(axis=1) > 0])

# %% tags=["hide-input"]
if not kept:
    run.end(causal.why_none_is_kept(counts, protocol))

# %% [markdown]
# ## One pair, every cell
#
# First the pair itself, both sides in full: the first one that was kept or, where the pairs are
# those of the bundled world, that of the problem on which the book opens, if it would be kept too.

# %%
asked_first = [opening.opening_pair()] if pairs == "tiny" else []
by_id |= {t.problem_id: t for pair in asked_first for t in collected(pair)}
asked_first = [p for p in asked_first if all(side.id in by_id for side in p)]
in_order = [*causal.sift(model, read_as(protocol, asked_first)).kept, *kept]
ids = {recorded.pair.problem_id for recorded in in_order}
read = [*read_as(protocol, asked_first), *read_as(protocol)]
told = [sides for sides in read if sides[0].problem_id in ids]
pair = in_order[0].pair
figures.pair_texts(*told[0], pair.alignment)

# %% [markdown]
# **Text.** The clean and the corrupted trace of a pair. Bold and underlined: tokens that differ
# from their partner on the other side.

# %% tags=["hide-input"]
Markdown(
    f"The clean side is of {opening.SAID}. The pair is none of those that are counted "
    "above and below."
) if opening.opens(told[0][0]) else None

# %% [markdown]
# {term}`Patching <patch>` {cite:p}`zhang2024patching,heimersheim2024patching` this pair: a cell
# says how much of the difference between the two answers comes back when the state of one token,
# before one layer, is taken from the clean trace: 0 is nothing, 1 is all.

# %%
tail = range(pair.flipping_position - 6, len(pair))
positions = sorted({*pair.differing_positions, *tail} & set(pair.alignment))
cells = causal.patch_metrics(model, in_order[0], positions=positions)
run.write_array("patch_grid", cells)
figures.patch_grid(
    cells["effect"].values,
    cells["token"].values,
    cells["corrupted_token"].values,
    positions,
)

# %% [markdown]
# **Figure.** What patching one token's state before one layer restores in one pair of traces of
# `{{ model.name }}` (normalised logit difference; 0 nothing, 1 all). Where clean and corrupted
# token differ, the axis shows both in bold; hatched: tokens left out.

# %% [markdown]
# Every cell can be opened: click it, or go to it by the arrow keys, and it says what was patched
# and how probable both answers were before and after.

# %%
patch_explorer(model, *zip(*told[:n_explored], strict=True))

# %% [markdown]
# **Figure.** To explore: the patch grids of the same pair and of others in `{{ model.name }}`. For
# the chosen cell, what was patched, and both answers' probabilities before and after.

# %% [markdown]
# If patching the token that states the conclusion has an effect in the early layers, look for the
# layer from which the last token has it instead: by then the conclusion has been read. If it has no
# effect in any layer, the answer does not need this token alone: another statement of the
# conclusion, another token or the question gives it as well. Where a probability moves but the
# answer does not flip, the patch had an effect that was not enough.
#
# The effect is a ratio of two differences, so here is what lies beneath it for the token that
# states the conclusion: the clean answer's log-probability and rank (at rank 0 greedy decoding
# writes it) after the patch, and whether the answer has flipped.

# %%
stating = cells.sel(position=pair.flipping_position)
of_clean = stating.sel(answer="clean")
by_layer = pd.DataFrame(
    {
        "effect": stating["effect"].values,
        "log-probability (nats)": of_clean["log_probability"].values,
        "rank": of_clean["rank"].values,
        "flip": stating["flip"].values,
    },
    index=pd.Index(cells["layer"].values, name="patched before layer"),
)
figures.reading_table(by_layer)

# %% [markdown]
# ## Many pairs, two curves
#
# The paper patches two positions: the token of the reasoning that states the conclusion last, and
# the last token before the answer. The first matters in the layers before its content has been
# read, the second in those behind.

# %%
denoised = causal.patch_two_places(model, kept)
effects = {protocol: denoised["effect"].values} | effects
families = causal.families_of(kept)
curves = causal.place_curves(effects[protocol], seed)
by_family = causal.family_curves(effects[protocol], families, seed)
run.write_table("patching_curves", by_family)
run.write_array("patching_effects", denoised)
figures.layer_curves(by_family)

# %% [markdown]
# **Figure.** Effect of patching before each layer in `{{ model.name }}`, mean over pairs with 95 %
# intervals, for the reasoning token that states the conclusion and for the last token before the
# answer, by family of problems ({% for f in activation_patching.families %}{{ f.n }} of {{ f.family
# }}{% if not loop.last %}, {% endif %}{% endfor %}).

# %% [markdown]
# ## The other way round
#
# Denoising, above, asks what is enough to bring the clean answer back. Noising asks what the clean
# run cannot do without: the state of the corrupted trace is written into the clean one. A part
# that is enough but not needed, since something else stands in for it, shows only above.

# %%
noised = causal.patch_two_places(model, kept, direction="noising")
noising = causal.place_curves(noised["effect"].values, seed)
figures.layer_curves(noising, ylabel="Normalised logit difference lost")

# %% [markdown]
# **Figure.** What noising takes away before each layer in `{{ model.name }}`: the corrupted
# trace's state in the clean run, mean over the same pairs with 95 % intervals.

# %% [markdown]
# ## How often does the answer flip?
#
# The share of pairs in which greedy decoding writes the other answer after the patch. The layer is
# chosen on one half of the pairs and the flips are counted on the other, for both halves in turn: a
# layer chosen and counted on the same pairs would look better than it is.

# %%
figures.flips(causal.flip_rates(denoised["flip"].values, families, seed))

# %% [markdown]
# **Figure.** Share of the kept pairs in which `{{ model.name }}` writes the other answer after one
# token's state was patched, at the layer where most of the other half flip, with Wilson's 95 %
# intervals.

# %% [markdown]
# ## Is it the last statement alone?
#
# A reasoning may state its conclusion more than once: as the result of its last step, in the
# concluding sentence, in a check. So tokens of the corrupted reasoning are exchanged in the text:
# the one patched above, every token that states the conclusion, or all that differ. The first is
# what patching before layer 0 does.

# %%
asked = funnel.drop(columns="all").sum().to_dict()
exchanged = causal.exchanged_table(causal.exchanged_tokens(model, kept), asked)
rows = causal.exchanged_record(exchanged)
run.write_record("exchanged_texts", {"kinds": causal.EXCHANGED, "rows": rows})
figures.reading_table(exchanged, digits=2)

# %% [markdown]
# Of the pairs *asked*, *n* are kept. *Flips* is a share of those kept and *flips of asked*, with
# Wilson's interval, of those asked: there a pair that could not be patched counts as one that did
# not flip. {% for row in exchanged_texts.rows if row.exchanged == exchanged_texts.kinds[0] %}Family
# {{ row.family }}: exchanging the last statement alone restores {{ row.effect | number }} and flips
# {{ row.flips_of_asked | percent }} of the pairs asked; {% for every in exchanged_texts.rows if
# every.family == row.family and every.exchanged == exchanged_texts.kinds[1] %}exchanging every
# statement of the conclusion restores {{ every.effect | number }} and flips {{ every.flips_of_asked
# | percent }}. {% endfor %}{% endfor %}
#
# {% set o = text_tests.outcomes if text_tests is defined and text_tests.n else none %}{% if o and
# o.kept_earlier is defined and o.kept_last is defined and o.kept_earlier.follows is not none and
# o.kept_last.follows is not none %}All of this is about what states the *conclusion*. What the
# steps before it say is another matter: with {doc}`a mistake put into one step
# <02b_edited_thoughts>` and the rest kept word for word, {{ o.kept_earlier.follows | percent }} of
# {{ o.kept_earlier.n }} answers follow the mistake if the step is an earlier one, and {{
# o.kept_last.follows | percent }} of {{ o.kept_last.n }} if it is the last.{% endif %}

# %% [markdown]
# ## How much of it is copying?
#
# With the paper's probe the answer repeats, word by word, a line that stands right before it. A
# model that only continues a repeated line shows the two curves as well. So here are the same
# problems under every protocol, with the mean effect before the first and before the last layer.
# What the protocols share does not hang on the probe; what only a probe shows may be copying. A
# probe whose token restores nothing was not read: the answer came from elsewhere, from what the
# reasoning says before it or from the question.

# %%
figures.reading_table(causal.first_and_last(effects))

# %%
others = [name for name in effects if name != protocol and len(effects[name])]
compared = [
    causal.place_curves(effects[other], seed, f"{{}}, “{other}”")
    for other in others[:1]
]
figures.layer_curves(pd.concat([curves, *compared]))

# %% [markdown]
# **Figure.** The two curves of `{{ model.name }}` under this run's protocol (coloured) and under
# another one (grey), mean over pairs with 95 % intervals.

# %% [markdown]
# ## Controls
#
# The same two positions with something else in the donor's place:
#
# - **same prompt**: the receiver's own state from a second run. Where it is the same bit for bit no
#   patch is run, so that its 0 is one by construction: it says that the run repeats itself. What a
#   patch that changes nothing does when it is run stands below the table, in the noise floor.
# - **wrong position**: the clean token's state at a wrong place of the corrupted trace. It still
#   carries the clean name to whoever looks for a name.
# - **random donor**: another pair's trace that concludes neither name, aligned from its end.
# - **same answer**: likewise, but it concludes the receiver's own name: another trace's state that
#   carries no news of the answer.
# - **matched noise**: noise as large as the real change.
#
# What erases the receiver's name without writing the clean one leaves neither preferred, an effect
# of about one half. Only beyond that does something write the clean answer.

# %%
controls = causal.controls_at_two_places(model, kept, seed)
figures.reading_table(causal.control_table(controls))

# %% [markdown]
# The noise floor: with every grid patches are run that write the receiver's own state into it, and
# logits come in steps, which are coarse in bfloat16 (0.125 near 30). The floor is the largest
# effect of such a patch or of one step, over the pairs, under this run's protocol:

# %%
f"{denoised.attrs['noise_floor']:.1e} in {str(model.dtype).removeprefix('torch.')}"

# %% [markdown]
# Over the layers, at the token that states the conclusion:

# %%
at_conclusion = [
    causal.mean_curve(name.replace("_", " "), controls[name][..., 0], seed)
    for name in ("random_donor", "same_answer", "matched_noise")
    if len(controls[name])
]
ours = curves[curves.curve == causal.PLACES[0]]
figures.layer_curves(pd.concat([ours, *at_conclusion]))

# %% [markdown]
# **Figure.** The effect of the conclusion's token (coloured) beside that of other donors in its
# place (grey), by layer, mean over pairs with 95 % intervals.

# %% tags=["hide-input"]
found = causal.summarised_patching(
    model,
    protocol,
    asked,
    families,
    effects,
    denoised,
    noised,
    controls,
    nats,
    seed,
)
run.write_record("activation_patching", found)

# %% [markdown]
# {% for f in activation_patching.families %}In {{ f.family }} ({{ f.n }} of {{ f.asked }} pairs{{
# f.n | few }}) exchanging the one token that states the conclusion last restores {{ f.first |
# number }}{% if f.first_low is not none %} ({{ f.first_low | number }} to {{ f.first_high | number
# }}){% endif %} of the difference before layer 0, and the answer flips in {{ f.of_asked | percent
# }} of the pairs asked ({{ f.low | percent }} to {{ f.high | percent }}), in {{ f.flips | percent
# }} of those kept. {% if f.crossing.layer is not none %}The two curves cross before layer {{
# f.crossing.layer }} of 0 to {{ activation_patching.n_layers - 1 }} ({% if f.crossing.low ==
# f.crossing.high %}the same in every resample of the pairs that crosses{% else %}{{ f.crossing.low
# }} to {{ f.crossing.high }} over resamples of the pairs{% endif %}{% if f.crossing.share < 1 %};
# {{ f.crossing.share | percent }} of the resamples cross{% endif %}){% if f.low <= 0.1 %}; with so
# few flips that says where the answer's own source is read, and not that it is the conclusion{%
# endif %}.{% else %}The curves do not cross.{% endif %} {% endfor %}Noising takes away {{
# activation_patching.noised_first | number }} before layer 0, over all {{ activation_patching.n }}
# pairs{{ activation_patching.n | few }}.
#
# {% if activation_patching.others %}{% for other in activation_patching.others %}Under the protocol
# "{{ other.protocol }}" {{ other.n }} pairs are kept{{ other.n | few }}, and the same token
# restores {{ other.first | number }} before layer 0. {% endfor %}{% else %}Under no other protocol
# is a pair kept, so that copying cannot be told apart here.{% endif %}
#
# The patches were run by the {{ activation_patching.engine }} engine: {% if
# activation_patching.engine == "fast" %}only what a patch can reach was computed again{% else
# %}each patch is a whole forward pass of the model{% endif %}. The largest mean effect of a control
# is {{ activation_patching.largest_control | number }}. Below {{ "%.1e" |
# format(activation_patching.noise_floor) }} an effect is noise in {{ activation_patching.dtype }}:
# a patch that changes nothing, or one step of the logits, moves the answer by no more{% if
# activation_patching.same_answer_n %}, and a state that concludes the receiver's own name moves the
# answer by at most {{ activation_patching.same_answer | number }} on average over {{
# activation_patching.same_answer_n }} pairs{{ activation_patching.same_answer_n | few }}{% else %};
# no pair has a donor that concludes its receiver's name{% endif %}.
#
# ## Is the gradient enough?
#
# {term}`Attribution patching <attribution patching>`
# {cite:p}`nanda2023attribution,syed2023attribution` estimates all cells at once from a gradient;
# `atp*` {cite:p}`kramar2024atp` drops each layer's gradient in turn, so that direct and indirect
# effects do not cancel. It is worth its price if the strongest cells of the exact grid are among
# its own strongest.

# %%
checked = None if remote else causal.check_attribution(model, kept[:n_attributed])
recalls = {k: f"recall of the top {k}" for k in causal.BUDGETS}
absent = "A gradient needs the weights here, and they are on a host: this part is left out."
figures.reading_table(
    checked.quality.rename(columns=recalls), digits=2
) if checked else Markdown(absent)

# %% [markdown]
# Every cell of these pairs at the differing tokens{% if attribution_patching.n %} and the last {{
# attribution_patching.tail }}{% endif %}, with the sign of the effect; the recalls are means over
# pairs. Cells far below the line are where the answer is already certain: a gradient sees the slope
# at one end, and the patch crosses the whole way.

# %%
figures.approximate_against_exact(
    checked.exact,
    checked.estimate,
    checked.quality.loc["atp", "Spearman"],
    {k: checked.quality.loc["atp"][k] for k in causal.BUDGETS},
) if checked else Markdown(absent)

# %% [markdown]
# **Figure.** Attribution patching against exact patching in `{{ model.name }}`, a point a cell of
# the grids of {{ attribution_patching.n }} {% if attribution_patching.n == 1 %}pair{% else
# %}pairs{% endif %}; on the dotted line the estimate is exact. The rank correlation and the recalls
# are means over pairs.

# %% tags=["hide-input"]
run.write_record("attribution_patching", checked.summary() if checked else {"n": 0})

# %% [markdown]
# {% if attribution_patching.n %}Of the {{ attribution_patching.budget }} strongest cells of the
# exact grid, the gradient finds {{ attribution_patching.recall | percent }} on average ({{
# attribution_patching.n }} {% if attribution_patching.n == 1 %}pair{% else %}pairs{% endif %}{{
# attribution_patching.n | few }}{% if attribution_patching.recall_low is not none %}; {{
# attribution_patching.recall_low | percent }} to {{ attribution_patching.recall_high | percent }}{%
# endif %}), and `atp*` {{ attribution_patching.recall_star | percent }}. Within a pair its ranks
# correlate with the exact ones at {{ attribution_patching.spearman | number }} (`atp*`: {{
# attribution_patching.spearman_star | number }}).{% else %}How near a gradient comes is not known
# of a model whose weights are on a host.{% endif %}
#
# ## Beside the paper
#
# The mean effect of the answer-flipping token in the early layers of the real distills, for the
# paper's two probe sentences {cite:p}`zhang2025reasoning`:

# %%
published = paper.published()
theirs = published["stage3_patching"]["mean_early_layer_effect"]
pd.DataFrame({m: theirs[m] for m in published["models"]}, index=theirs["columns"]).T

# %% [markdown]
# {% set a = activation_patching %}{% for name, line, n, effect, nats in [("probe", "Final answer is
# A.", a.early_probe_n, a.early_probe, a.probe_nats), ("boxed_probe", "Final answer is \\boxed{A}.",
# a.early_boxed_probe_n, a.early_boxed_probe, a.boxed_probe_nats)] %}{% if effect is not none %}With
# the line "{{ line }}" this run has {{ effect | number }} in the first third of its layers ({{ n }}
# pairs). {% endif %}{% if nats is not none and nats > a.blind_nats %}To `{{ model.name }}` the line
# "{{ line }}" is less likely than {term}`tokens <token>` drawn blindly from its vocabulary ({{ nats
# | number(1) }} nats a token, against {{ a.blind_nats | number(1) }}): it has never read one like
# it{% if effect is not none %}, and that number says nothing about models that have{% endif %}. {%
# endif %}{% endfor %}Where the line is one that the model could have written, the numbers may be
# compared in kind; models, questions and texts differ.
#
# {% if paper_cases.models %}And the authors' own grid of their case 24, from their data.{% endif %}

# %%
aliases = paper.patching_cases(paper_data)
cases = [paper.load_patching_case(paper_data, alias) for alias in aliases]
run.write_record("paper_cases", {"models": [c.attrs["model"] for c in cases]})
for case in cases:
    tokens = case["clean_token"].values, case["corrupted_token"].values
    title = f"{case.attrs['model']}, the authors' case 24"
    places = case["position"].values
    display(figures.patch_grid(case.values, *tokens, places, title=title))

# %% [markdown]
# **Figure.** The authors' own patch grid of their case 24: what patching one token's state before
# one layer restores, in {{ paper_cases.models | join(" and ") }}.

# %% [markdown]
# {% if paper_cases.models %}The paper's two curves of that case beside ours. The authors end the
# reasoning with the line "Final answer is A.", and what they patch stands in it.{% endif %}

# %%
for case in cases:
    depth = causal.by_depth(curves, model.n_layers), causal.case_curves(case)
    share = "Patched at this share of the layers"
    display(figures.layer_curves(pd.concat(depth), xlabel=share))

# %% [markdown]
# **Figure.** The two curves of `{{ model.name }}` (coloured, means over all pairs with 95 %
# intervals) beside those of the authors' case 24 (grey, one case) in {{ paper_cases.models |
# join(" and in ") }}.

# %% [markdown]
# A curve is high where the answer hangs on that token alone, and where the first one starts high,
# the place where the two cross is where its content has been read. A lower start says that other
# tokens carry the answer as well, in long reasonings most of all, which state it more than once.
# One case has no interval, and its texts are not ours.

# %% [markdown]
# ## Exercises
#
# Write each function yourself and let the check try it on hidden cases; {doc}`the workshop
# </teach/workshop>` has copies of this page without the solutions. Of the page the exercises need
# the parameters and the cell after them, nothing else. They use the bundled model, whatever model
# the run has.

# %%
from r2a_utils.models import architecture
from r2a_utils.teaching.checks import patching as workshop

toy_model, toy_pair = workshop.example_model(), workshop.example_pair()
print("clean:    ", "".join(toy_pair.tokens[-60:]))
print("corrupted:", "".join(toy_pair.corrupted_tokens[-60:]))

# %% [markdown]
# ### Exercise 5.1: The normalised logit difference
#
# Difficulty ●○○○○, importance ●●●●●, 10 minutes
#
# LD is the logit of the clean answer less that of the corrupted one. Given the logits [vocabulary]
# of the patched, the clean and the corrupted run and the ids of the two answers, return the
# {term}`normalised logit difference`: 0 where the patch changed nothing, 1 where it restored all.


# %% tags=["stub"]
def effect_of_patch(patched, clean, corrupted, clean_answer, corrupted_answer):
    """The normalised logit difference of three runs, from logits [vocabulary]."""
    raise NotImplementedError("three logit differences make one ratio.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Write LD as a function of one run's logits and call it three times.
# ```


# %% tags=["solution"]
def effect_of_patch(patched, clean, corrupted, clean_answer, corrupted_answer):
    """The normalised logit difference of three runs, from logits [vocabulary]."""

    def difference(logits):
        return logits[clean_answer] - logits[corrupted_answer]

    restored = difference(patched) - difference(corrupted)
    return restored / (difference(clean) - difference(corrupted))


# %% tags=["check"]
workshop.check_effect_of_patch(effect_of_patch)

# %% [markdown]
# **What you should see.** The check says that it is right; the next exercise puts it to use.
#
# **Comprehension.** Can the effect be larger than 1, or below 0? What if the gap in the
# denominator is small?
#
# ```{admonition} Answer
# :class: dropdown
#
# Yes to both: a patch can push the answer further than the clean run, or away from it. And where
# the model hardly tells the two sides of a pair apart, the ratio divides noise by nearly nothing.
# That is why this page screens pairs by their gap before it patches anything.
# ```

# %% [markdown]
# ### Exercise 5.2: A patch of your own
#
# Difficulty ●●●●○, importance ●●●●●, 25 minutes
#
# Run the model on `donor_ids` and take the residual stream at the *input* of one layer, at one
# position. Then run it on `receiver_ids` with that vector in the same place, and return the logits
# [vocabulary] after the last token.
#
# With nnsight a forward pass is a `with` block. What you read in it you keep with `.save()`; what
# you assign to replaces the model's own:
#
#     block = architecture(model).layers[layer]
#     with model.lm.trace(list(ids)):
#         vector = block.input[0, position].save()     # [hidden]
#         logits = model.lm.lm_head.output[0, -1].save()


# %% tags=["stub"]
def patched_logits(model, donor_ids, receiver_ids, layer, position):
    """The receiver's last logits, with the donor's state at (layer, position)."""
    raise NotImplementedError("one trace reads the donor, one writes the receiver.")


# %% [markdown]
# ```{admonition} Hint
# :class: dropdown tip
#
# Two `with` blocks. In the second, `block.input[0, position] = vector` overwrites that one
# position in place; read the logits after it, in the same block, as things come in the order in
# which the model computes them.
# ```


# %% tags=["solution"]
def patched_logits(model, donor_ids, receiver_ids, layer, position):
    """The receiver's last logits, with the donor's state at (layer, position)."""
    block = architecture(model).layers[layer]
    with model.lm.trace(list(donor_ids)):
        vector = block.input[0, position].save()
    with model.lm.trace(list(receiver_ids)):
        block.input[0, position] = vector
        logits = model.lm.lm_head.output[0, -1].save()
    return logits.detach()


# %% tags=["check"]
workshop.check_patched_logits(patched_logits)

# %%
ids_of_pair = toy_pair.clean_ids, toy_pair.corrupted_ids
answers_of_pair = [answer[0] for answer in toy_pair.answers]
conclusion, last_token = toy_pair.flipping_position, len(toy_pair) - 1
own_runs = [  # a run that is patched with itself is a plain run
    patched_logits(toy_model, ids, ids, 0, last_token) for ids in ids_of_pair
]


def own_effect(layer, position):
    patched = patched_logits(toy_model, *ids_of_pair, layer, position)
    return float(effect_of_patch(patched, *own_runs, *answers_of_pair))


own_curves = {
    place: [own_effect(layer, at) for layer in range(toy_model.n_layers)]
    for place, at in (("conclusion", conclusion), ("last token", last_token))
}
pd.DataFrame(own_curves).rename_axis("patched before layer").round(2)

# %% [markdown]
# **What you should see.** The page's two curves, for one pair: the token that states the
# conclusion matters before the early layers and no longer before the late ones, and the last token
# the other way round. What the one loses the other gains: between those layers the conclusion is
# read.
#
# **Comprehension.** The conclusion's token restores nothing before the last layer. Has its
# information been deleted there?
#
# ```{admonition} Answer
# :class: dropdown
#
# No. It has been read. In the last layers the answer's position holds what it needs, so that
# exchanging the source changes nothing any more. A patch shows where information is *still
# needed*, not where it is.
# ```

# %% [markdown]
# ## What this does not show
#
# - **That reasoning is more than a place to copy from.** A model that only copies what states the
#   conclusion shows the same two curves. The next page asks further.
# - **That the steps are used.** What is exchanged here is the conclusion, in the concluding
#   sentence or wherever it stands.
# - **That other tokens do not matter.** An effect below 1 means that the answer also hangs on
#   others.
# - **That real distills behave so.** The pairs here are short and clean.
#
# ## What is missing
#
# By which path, if any, content goes from the reasoning to the answer, whether the
# {term}`heads <head>` of stage 2 carry it, and whether it is more than copying:
# {doc}`the next page <06_head_interventions>` cuts.
