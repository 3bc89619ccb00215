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
# # Stage 3: does the answer depend on the reasoning?
#
# **Question.** If one reasoning token's state is exchanged for that of another trace, does the
# answer follow?
#
# **What you will see.** A {term}`patch grid` for one pair of traces, tokens × layers; the mean
# over many pairs of the two curves that the paper draws, under two protocols and in both
# directions; how often the answer flips; controls; and how well gradients foretell the grid.
#
# **Before you start.** {doc}`Reasoning-Focus Heads <04_reasoning_focus_heads>` showed where the
# answer looks. Looking is not using.

# %% [markdown]
# ## Parameters
#
# - `pairs`: "tiny" are minimal pairs of the bundled world, "questions" comparisons in plain
#   language ("Considering weight, which is heavier: …") for pretrained models.
# - `source`: "model" lets the model write the traces, "written" puts texts of ours before it
#   ({term}`teacher forcing`).
# - `protocol`: "own" scores the answer as it stands in the trace. "probe" and "boxed_probe" are the
#   paper's way: the reasoning is closed by the line "Final answer is A." or "Final answer is
#   \boxed{A}.", and the same words follow as the answer.
# - `paper_data` names a folder with the authors' data; `None` stands for what the environment
#   variable `R2A_PAPER_DATA` names, if it is set.

# %% tags=["parameters"]
run_dir = "runs/default"
model_name = "r2a-tiny"
pairs = "tiny"
source = "model"
protocol = "own"
n_pairs = 60
n_attributed = 4
seed = 0
paper_data: str | None = None

# %%
import os

import numpy as np
import pandas as pd
from IPython.display import Markdown

from r2a_utils import paper, plots
from r2a_utils.artifacts import Run
from r2a_utils.attribution import attribution_grid, rank_correlation, recall_at
from r2a_utils.controls import CONTROLS, control_metrics
from r2a_utils.generation import Sampling, collect_traces, teacher_forced
from r2a_utils.models import load_model
from r2a_utils.pairs import PROBES, ContrastPair, probed
from r2a_utils.patching import patch_metrics, screen_pairs
from r2a_utils.question_pairs import question_problems, write_comparison
from r2a_utils.statistics import bootstrap_mean_intervals, wilson_interval
from r2a_utils.tiny.world import contrast_problems, write_text

run = Run.open(run_dir)
model = load_model(model_name)
run.record_model(model)

# %% [markdown]
# ## Contrast pairs
#
# A {term}`contrast pair` is a clean and a corrupted trace that differ in a word of the question
# ("heaviest", "lightest") and in what follows from it.

# %%
draw, write = {
    "tiny": (contrast_problems, write_text),
    "questions": (question_problems, write_comparison),
}[pairs]
problems = draw(n_pairs, seed)
sides = [
    collect_traces(
        model,
        [pair[side] for pair in problems],
        path=run.completions_path(f"contrast_{name}"),
        sampling=Sampling(512),
        backend=teacher_forced(model, write) if source == "written" else None,
        on_unfinished="drop",
    )
    for side, name in enumerate(("clean", "corrupted"))
]
by_id = {trace.problem_id: trace for traces in sides for trace in traces}

# %% [markdown]
# Under the protocol "own" a pair is what was written. With a probe the reasoning gets one more
# line, which states the answer in a fixed place, and the answer repeats that line.

# %%
PROTOCOLS = {
    "own": None,
    "probe": {"probe": PROBES[0], "stem": "\n\nFinal answer is", "end": "."},
    "boxed_probe": {"probe": PROBES[1], "stem": "\n\nFinal answer is \\boxed{", "end": "}."},
}


def under(protocol, problem):
    trace, forms = by_id[problem.id], PROTOCOLS[protocol]
    if forms is None:
        return trace
    space = "" if forms["stem"].endswith("{") else " "
    return probed(trace, model.tokenizer, space + problem.answer, **forms)


# %% [markdown]
# Nothing is padded: a pair whose traces cannot be aligned token by token is refused and counted. A
# pair is kept if the model tells its two sides apart, by a stated rule on the logit differences,
# and writes either answer by itself, and if its conclusion is a single differing token in the
# reasoning.


# %%
def align(protocol):
    aligned, refused = [], []
    for clean, corrupted in problems:
        try:
            sides = under(protocol, clean), under(protocol, corrupted)
            aligned.append(ContrastPair.from_traces(*sides))
        except (KeyError, ValueError) as reason:
            refused.append(str(reason))
    return aligned, refused


def sift(aligned):
    if not aligned:
        return [], []
    seen = screen_pairs(model, aligned)
    right = seen.kept & (seen.clean_rank == 0) & (seen.corrupted_rank == 0)
    told = [pair for pair, good in zip(aligned, right, strict=True) if good]
    return told, [pair for pair in told if pair.flipping_position is not None]


kept, counts = {}, {}
for name in PROTOCOLS:
    aligned, refused = align(name)
    told, kept[name] = sift(aligned)
    counts[name] = {
        "pairs asked": len(problems),
        "refused: cannot be aligned": len(refused),
        "left out: too small a gap, or not the answer that the model writes": len(aligned)
        - len(told),
        "left out: no single token states the conclusion": len(told) - len(kept[name]),
        "kept": len(kept[name]),
    }
if not kept[protocol]:
    others = {name: len(found) for name, found in kept.items() if name != protocol}
    raise ValueError(
        f"no pair was kept: {counts[protocol]}; choose protocol=… (others keep {others}), or "
        "traces that the model writes itself (source='model')"
    )
pd.DataFrame(counts).rename_axis("protocol", axis=1)

# %% [markdown]
# ## One pair, every cell
#
# The first pair that was kept. A cell says how much of the difference between the two answers
# comes back when the state of one token, before one layer, is taken from the clean trace: 0 is
# nothing, 1 is all.

# %%
pair = kept[protocol][0]
tail = range(pair.flipping_position - 6, len(pair))
positions = sorted({*pair.differing_positions, *tail} & set(pair.alignment))
cells = patch_metrics(model, pair, positions=positions)
plots.patch_grid(
    cells["effect"].values, cells["token"].values, cells["corrupted_token"].values, positions
)

# %% [markdown]
# The effect divides a difference by another, so here is what lies beneath it for the token that
# states the conclusion: the clean answer's log-probability and rank (0: greedy decoding writes it)
# after the patch, and whether the answer has flipped.

# %%
stating = cells.sel(position=pair.flipping_position)
of_clean = stating.sel(answer="clean")
pd.DataFrame(
    {
        "effect": stating["effect"].values,
        "log-probability (nats)": of_clean["log_probability"].values,
        "rank": of_clean["rank"].values,
        "flip": stating["flip"].values,
    },
    index=pd.Index(cells["layer"].values, name="patched before layer"),
).round(3)

# %% [markdown]
# ## Many pairs, two curves
#
# The paper's two positions: the reasoning token whose change flips the answer, and the last token
# before the answer. The first matters as long as its content has not been read; the last from the
# layer on where it has been.

# %%
names = list(plots.CURVE_COLOURS)


def places(pair):
    return [pair.flipping_position, len(pair) - 1]


def curve(name, effects):
    """Mean and interval over pairs of effects [pair, layer]."""
    low, high = bootstrap_mean_intervals(effects, seed=seed)
    frame = {"curve": name, "layer": range(model.n_layers), "mean": effects.mean(0)}
    return pd.DataFrame(frame | {"ci_low": low, "ci_high": high})


def effects_of(measured):
    """[pair, layer, position]"""
    return np.stack([cells["effect"].values for cells in measured])


# %%
metrics = [patch_metrics(model, p, places(p)) for p in kept[protocol]]
effects = effects_of(metrics)
curves = pd.concat([curve(name, effects[..., i]) for i, name in enumerate(names)])
run.write_table("patching_curves", curves)
plots.layer_curves(curves)

# %% [markdown]
# ## The other way round
#
# Denoising, above, asks what is enough to bring the clean answer back. Noising asks what the clean
# run cannot do without: the state of the corrupted trace is written into the clean one. A part
# that is enough but not needed, since something else stands in for it, shows only above.

# %%
noised = effects_of(
    [patch_metrics(model, p, places(p), direction="noising") for p in kept[protocol]]
)
noising = pd.concat([curve(name, noised[..., i]) for i, name in enumerate(names)])
plots.layer_curves(noising, ylabel="Normalised logit difference lost")

# %% [markdown]
# ## How often does the answer flip?
#
# The share of pairs in which greedy decoding now writes the other answer, at the layer where that
# happens most.

# %%
flips = np.stack([cells["flip"].values for cells in metrics])
rows = []
for i, name in enumerate(names):
    layer = int(flips[..., i].mean(0).argmax())
    hits, n = int(flips[:, layer, i].sum()), len(flips)
    rows.append((f"{name}, before layer {layer}", hits / n, *wilson_interval(hits, n), n))
flip_table = pd.DataFrame(rows, columns=["label", "rate", "ci_low", "ci_high", "n"])
plots.flips(flip_table)

# %% [markdown]
# ## How much of it is copying?
#
# With the paper's probe the answer repeats, word by word, a line that stands right before it. A
# model that only continues a repeated line shows the two curves as well. So here are the same
# problems under every protocol, with the mean effect before the first and before the last layer.
# What the protocols share does not hang on the probe; what only a probe shows may be copying. A
# probe whose token restores nothing was not read: the answer came from the reasoning before it,
# which states the same.

# %%
again = {protocol: effects}
for name, found in kept.items():
    if found and name != protocol:
        again[name] = effects_of([patch_metrics(model, p, places(p)) for p in found])
ends = {
    name: (len(e), e[:, 0, 0].mean(), e[:, -1, 0].mean(), e[:, 0, 1].mean(), e[:, -1, 1].mean())
    for name, e in again.items()
}
columns = pd.MultiIndex.from_tuples(
    [("", "n"), *((name, end) for name in names for end in ("first layer", "last layer"))]
)
by_protocol = pd.DataFrame(ends, index=columns).T.round(3)
by_protocol.rename_axis("protocol").astype({("", "n"): int})

# %%
others = [name for name in again if name != protocol]
compared = [
    curve(f"{name}, “{other}”", again[other][..., i])
    for other in others[:1]
    for i, name in enumerate(names)
]
plots.layer_curves(pd.concat([curves, *compared]))

# %% [markdown]
# ## Controls
#
# The same two positions with something else in the donor's place:
#
# - **same_prompt**: the receiver's own state from a second run. It must change nothing at all.
# - **wrong_position**: the clean token's state at a wrong place of the corrupted trace. It still
#   carries the clean name to whoever looks for a name.
# - **random_donor**: another pair's trace that concludes neither name, aligned from its end.
# - **same_answer**: likewise, but it concludes the receiver's own name: another trace's state that
#   carries no news of the answer.
# - **matched_noise**: noise as large as the real change.
#
# What erases the receiver's name without writing the clean one leaves neither preferred, an effect
# of about one half. Only beyond that does something write the clean answer.


# %%
def concluding(pair):
    """(ids, answer, tokens from the conclusion to the end), for both sides of a pair."""
    at, other = pair.flipping_position, pair.alignment[pair.flipping_position]
    clean = (pair.clean_ids, pair.answers[0], len(pair.clean_ids) - at)
    return [clean, (pair.corrupted_ids, pair.answers[1], len(pair.corrupted_ids) - other)]


everything = [side for p in kept[protocol] for side in concluding(p)]


def donors(pair, control):
    """Other pairs' ids whose conclusion stands where the receiver's does, from the end."""
    _, (ids, answer, reach) = concluding(pair)
    same = control == "same_answer"
    return [
        donor
        for donor, concluded, at in everything
        if at == reach
        and (concluded == answer if same else concluded not in pair.answers)
        and donor not in (pair.clean_ids, ids)
    ]


# %%
rng = np.random.default_rng(seed)


def controlled(control):
    grids = []
    for p in kept[protocol]:
        options = {"seed": seed}
        if control in ("random_donor", "same_answer"):
            found = donors(p, control)
            if not found:
                continue
            options["donor_ids"] = found[rng.integers(len(found))]
        try:
            grids.append(control_metrics(model, p, control, places(p), **options))
        except ValueError:  # the donor does not lead to the receiver's answer
            continue
    return effects_of(grids) if grids else np.empty((0, model.n_layers, 2))


nulls = {control: controlled(control) for control in CONTROLS}

# %%
table = {}
for control, found in nulls.items():
    for i, name in enumerate(names if len(found) else ()):
        mean = found[..., i].mean(0)
        worst = int(np.abs(mean).argmax())
        table[control, name] = (len(found), worst, mean[worst], np.abs(found[..., i]).max())
columns = ["n", "layer of largest mean", "mean effect there", "largest in any pair"]
controls = pd.DataFrame(table, index=columns).T.astype({"n": int, columns[1]: int})
controls.rename_axis(["control", "position"]).round(3)

# %% [markdown]
# Over the layers, at the token that states the conclusion:

# %%
shown = [c for c in ("random_donor", "same_answer", "matched_noise") if len(nulls[c])]
at_conclusion = [curve(name.replace("_", " "), nulls[name][..., 0]) for name in shown]
plots.layer_curves(pd.concat([curves[curves.curve == names[0]], *at_conclusion]))

# %%
flipping, last = effects[..., 0].mean(0), effects[..., 1].mean(0)
crossing = int(np.argmax(last > flipping)) if (last > flipping).any() else None
run.write_record(
    "activation_patching",
    {
        "asked": len(problems),
        "refused": counts[protocol]["refused: cannot be aligned"],
        "n": len(kept[protocol]),
        "protocol": protocol,
        "flipping_first": flipping[0],
        "flipping_last": flipping[-1],
        "last_first": last[0],
        "last_last": last[-1],
        "noised_first": noised[..., 0].mean(0)[0],
        "others": [
            {"protocol": name, "n": len(again[name]), "first": again[name][:, 0, 0].mean()}
            for name in others
        ],
        "crossing": crossing,
        "n_layers": model.n_layers,
        "flip_rate": flip_table.rate[0],
        "flip_low": flip_table.ci_low[0],
        "flip_high": flip_table.ci_high[0],
        "same_prompt": controls.loc["same_prompt", columns[3]].max(),
        "largest_control": controls[columns[2]].abs().max(),
        "same_answer_n": len(nulls["same_answer"]),
        "same_answer": np.abs(nulls["same_answer"].mean(0)).max()
        if len(nulls["same_answer"])
        else None,
    },
)

# %% [markdown]
# Over {{ activation_patching.n }} pairs, exchanging the one token that states the conclusion
# restores {{ activation_patching.flipping_first | number }} of the difference before layer 0 and
# {{ activation_patching.flipping_last | number }} before the last layer; the last token before
# the answer goes from {{ activation_patching.last_first | number }} to {{
# activation_patching.last_last | number }}.
# {% if activation_patching.crossing is not none %}The curves cross before layer
# {{ activation_patching.crossing }} of 0 to {{ activation_patching.n_layers - 1 }}.{% else %}The
# curves do not cross.{% endif %} Noising takes away {{ activation_patching.noised_first | number
# }} before layer 0. The answer flips in {{ activation_patching.flip_rate | percent
# }} of the pairs (interval {{ activation_patching.flip_low | percent }} to {{
# activation_patching.flip_high | percent }}). {% if activation_patching.others
# %}{% for other in activation_patching.others %}Under the protocol "{{ other.protocol }}"
# {{ other.n }} pairs are kept, and the same token restores {{ other.first | number }} before
# layer 0. {% endfor %}{% else %}Under no other protocol is a pair kept, so that copying cannot be
# told apart here.{% endif %}
#
# The largest mean effect of a control is {{ activation_patching.largest_control | number }}. The
# receiver's own state changes exactly {{ activation_patching.same_prompt | number(1) }}{% if
# activation_patching.same_answer_n %}, and a state that concludes the receiver's own name moves
# the answer by at most {{ activation_patching.same_answer | number }} on average over {{
# activation_patching.same_answer_n }} pairs{% else %}; no pair has a donor that concludes its
# receiver's name{% endif %}.
#
# ## Is the gradient enough?
#
# {term}`Attribution patching <attribution patching>` estimates all cells at once from a gradient;
# `atp*` drops each layer's gradient in turn, so that direct and indirect effects do not cancel. It
# is worth its price if the strongest cells of the exact grid are among its own strongest.

# %%
budgets = (10, 20)
points, scores = [], []
for p in kept[protocol][:n_attributed]:
    behind = sorted({*p.differing_positions, *range(len(p) - 30, len(p))} & set(p.alignment))
    exact = patch_metrics(model, p, behind)["effect"]
    for method in ("atp", "atp*"):
        guess = attribution_grid(model, p, behind, method=method)
        rho, recall = rank_correlation(exact, guess), recall_at(exact, guess, budgets)
        scores.append({"method": method, "Spearman": rho, **recall})
        if method == "atp":
            points.append(np.stack([exact.values.ravel(), guess.values.ravel()]))
quality = pd.DataFrame(scores).groupby("method").mean()
quality.rename(columns={k: f"recall of the top {k}" for k in budgets}).round(2)

# %% [markdown]
# Every cell of these pairs at the differing tokens and the last thirty, with the sign of the
# effect; the recalls are means over pairs. Cells far below the line are where the answer is already
# certain: a gradient sees the slope at one end, and the patch crosses the whole way.

# %%
exact, guess = np.concatenate(points, axis=1)
plots.approximate_against_exact(exact, guess, {k: quality.loc["atp", k] for k in budgets})

# %%
run.write_record(
    "attribution_patching",
    {
        "n": len(points),
        "spearman": quality.loc["atp", "Spearman"],
        "recall": quality.loc["atp", 10],
        "spearman_star": quality.loc["atp*", "Spearman"],
        "recall_star": quality.loc["atp*", 10],
    },
)

# %% [markdown]
# Of the ten strongest cells of the exact grid the gradient finds {{
# attribution_patching.recall | percent }} (`atp*`: {{ attribution_patching.recall_star | percent
# }}); its ranks correlate with the exact ones at {{ attribution_patching.spearman | number }}
# (`atp*`: {{ attribution_patching.spearman_star | number }}).
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
# And the authors' own grid of their case 24, from their data.

# %%
folder = paper_data or os.environ.get(paper.DATA_VARIABLE)


def case_24(alias):
    case = paper.load_patching_case(folder, alias)
    tokens = case["clean_token"].values, case["corrupted_token"].values
    title = f"{case.attrs['model']}, the authors' case 24"
    return plots.patch_grid(case.values, *tokens, case["position"].values, title=title)


absent = "The folder is not given: here would stand case 24 of R1-Qwen-1.5B."
case_24("qwen-1p5B") if folder else Markdown(absent)

# %% [markdown]
# ## What this does not show
#
# - **That reasoning is more than a place to copy from.** A model that only copies the name in the
#   last sentence shows the same two curves. The next page asks further.
# - **That other tokens do not matter.** An effect below 1 means that the answer also hangs on
#   others, the question's word among them, which stays corrupted.
# - **That real distills behave so.** The pairs here are short and clean.
