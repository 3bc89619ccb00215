"""Figures of stage 3: patch grids, layer curves, flips, knockout profiles, approximate against
exact patching, a set of heads beside random sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle

from r2a_utils.figures.style import (
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    percent_axis,
    require_columns,
    show_token,
    styled,
)
from r2a_utils.stats import CONFIDENCE

PATCH_CMAP = "RdBu"
RESTORED = "Normalised logit difference restored"
CURVE_COLOURS = {
    "answer-flipping reasoning token": SEGMENT_COLOURS["reasoning"],
    "last token before the answer": SEGMENT_COLOURS["answer"],
}
_GREYS = ("#555555", "#888888", "#aaaaaa")
_DASHES = ("--", ":", "-.")
MOST_TOKEN_LABELS = 60


@styled
def patch_grid(
    grid: np.ndarray,
    clean_tokens: Sequence[str],
    corrupted_tokens: Sequence[str],
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    title: str = "",
) -> BookFigure:
    """What patching one token's residual stream before one layer restores: a patch grid over tokens
    and layers.

    grid: [layer, position], normalised logit difference (0: nothing, 1: the clean answer in full).
    clean_tokens, corrupted_tokens: text of the token at each position; where they differ the axis
    shows both, bold.
    positions: token index of each column (default 0, 1, …); a hatched gap stands where indices are
    not consecutive.
    layers: layer of each row (default 0, 1, …). Raises ValueError where tokens and columns are not
    as many. The paper's heat map of stage 3; notebook 05.
    """
    grid = np.asarray(grid, dtype=float)
    n_layers, n_positions = grid.shape
    if not len(clean_tokens) == len(corrupted_tokens) == n_positions:
        raise ValueError(
            f"the grid has {n_positions} positions, but there are {len(clean_tokens)} clean and "
            f"{len(corrupted_tokens)} corrupted tokens"
        )
    positions = list(range(n_positions)) if positions is None else [int(p) for p in positions]
    layers = list(range(n_layers)) if layers is None else [int(layer) for layer in layers]
    gaps = np.cumsum([0] + [int(b - a > 1) for a, b in itertools.pairwise(positions)])
    columns = np.arange(n_positions) + gaps
    spread = np.full((n_layers, columns[-1] + 1), np.nan)
    spread[:, columns] = grid

    figure = BookFigure(3.9)
    axes = figure.subplots()
    bound = max(1.0, float(np.nanmax(np.abs(grid))))
    image = axes.imshow(
        spread,
        origin="lower",
        aspect="auto",
        cmap=PATCH_CMAP,
        interpolation="nearest",
        norm=TwoSlopeNorm(0.0, -bound, bound),
    )
    for gap in set(range(columns[-1] + 1)) - set(columns.tolist()):
        axes.add_patch(
            Rectangle(
                (gap - 0.5, -0.5),
                1,
                n_layers,
                facecolor="white",
                edgecolor=PALE,
                hatch="////",
                linewidth=0,
            )
        )
    differs = [a != b for a, b in zip(clean_tokens, corrupted_tokens, strict=True)]
    every = -(-n_positions // MOST_TOKEN_LABELS)
    labelled = [
        i for i in range(n_positions) if differs[i] or i % every == 0 or i == n_positions - 1
    ]
    axes.set_xticks(
        columns[labelled],
        [
            f"{show_token(clean_tokens[i])} ← {show_token(corrupted_tokens[i])}"
            if differs[i]
            else show_token(clean_tokens[i])
            for i in labelled
        ],
        rotation=90,
        fontsize=8 if len(labelled) <= 40 else 6.5,
        family="DejaVu Sans Mono",
    )
    for label, index in zip(axes.get_xticklabels(), labelled, strict=True):
        label.set_fontweight("bold" if differs[index] else "normal")
    step = -(-n_layers // 12)
    axes.set_yticks(range(0, n_layers, step), layers[::step])
    axes.set_xlabel("Patched token (clean ← corrupted where they differ)")
    axes.set_ylabel("Patched before layer")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label=RESTORED, pad=0.02)
    layer, position = np.unravel_index(np.nanargmax(grid), grid.shape)
    largest = show_token(clean_tokens[position])
    said = [
        f"heat map of {n_layers} layers by {n_positions} tokens",
        f"the largest effect, {grid[layer, position]:.2f}, is at “{largest}” "
        f"before layer {layers[layer]}",
    ]
    for i in np.flatnonzero(differs):
        clean, corrupted = show_token(clean_tokens[i]), show_token(corrupted_tokens[i])
        said.append(
            f"“{clean}” in place of “{corrupted}” restores at most {np.nanmax(grid[:, i]):.2f}"
        )
    figure.alt_text = (f"{title}: " if title else "") + "; ".join(said) + "."
    return figure


@styled
def layer_curves(
    frame: pd.DataFrame, ylabel: str = RESTORED, xlabel: str = "Patched before layer"
) -> BookFigure:
    """Mean effect of patching chosen tokens over layers, with interval bands; the paper's layer
    curves, notebook 05.

    frame: columns curve, layer (or a share of the depth), mean, ci_low, ci_high (NaN: no band). The
    two curves of `CURVE_COLOURS` have their colours; any other (a control, another model) is grey
    and told apart by its dashes. With a column family there is a line for each, told apart by its
    dashes too.
    """
    require_columns(frame, "curve", "layer", "mean", "ci_low", "ci_high")
    figure = BookFigure(3.3)
    axes = figure.subplots()
    said, others = [], 0
    for name, dashes, rows in family_lines(frame):
        curve = rows["curve"].iloc[0]
        if curve in CURVE_COLOURS:
            colour, dash = CURVE_COLOURS[curve], dashes
        else:
            colour, dash = _GREYS[others % 3], _DASHES[others % 3]
            others += 1
        axes.plot(
            rows["layer"],
            rows["mean"],
            color=colour,
            linestyle=dash,
            label=name,
            marker="o",
            markersize=3.5,
        )
        axes.fill_between(
            rows["layer"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.22, linewidth=0
        )
        said.append(
            f"{name}: {rows['mean'].iloc[0]:.2f} at {rows['layer'].iloc[0]:g}, "
            f"{rows['mean'].iloc[-1]:.2f} at {rows['layer'].iloc[-1]:.3g}"
        )
    axes.axhline(0, color=PALE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=bool((frame["layer"] % 1 == 0).all()))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    figure.alt_text = f"Curves; x: {xlabel.lower()}. {'; '.join(said)}."
    return figure


def family_lines(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The lines of curves: what each is called, its dashes, and its rows by layer.

    Families of pairs (column family), where there are several, are told apart by dashes.
    """
    families = sorted(frame["family"].unique()) if "family" in frame else [None]
    for name in dict.fromkeys(frame["curve"]):
        for family, dashes in zip(families, itertools.cycle(("-", *_DASHES)), strict=False):
            rows = frame[frame["curve"] == name]
            rows = rows if family is None else rows[rows["family"] == family]
            label = name if len(families) == 1 else f"{name}, {family}"
            yield label, dashes, rows.sort_values("layer")


@styled
def flips(frame: pd.DataFrame) -> BookFigure:
    """How often an intervention turns the answer over, with intervals: columns label, rate, ci_low,
    ci_high, n.
    """
    require_columns(frame, "label", "rate", "ci_low", "ci_high", "n")
    figure = BookFigure(0.8 + 0.36 * len(frame))
    axes = figure.subplots()
    places = np.arange(len(frame))
    errors = np.clip([frame["rate"] - frame["ci_low"], frame["ci_high"] - frame["rate"]], 0, None)
    axes.barh(
        places,
        frame["rate"],
        xerr=errors,
        height=0.62,
        color="#c9c9c9",
        edgecolor=INK,
        linewidth=0.6,
        error_kw={"elinewidth": 1.0, "capsize": 3, "ecolor": INK},
    )
    for place, row in zip(places, frame.itertuples(), strict=True):
        axes.annotate(
            f"{row.rate:.0%}  (n = {row.n})",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
        )
    axes.set_yticks(places, frame["label"])
    axes.set_ylim(len(frame) - 0.5, -0.5)
    axes.set_xlabel(f"Answers turned over (with {CONFIDENCE:.0%} interval)")
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    figure.alt_text = (
        "Share of answers turned over: "
        + ", ".join(f"{row.label} {row.rate:.0%} of {row.n}" for row in frame.itertuples())
        + "."
    ).replace("\n", " ")
    return figure


@styled
def knockout_profile(
    frame: pd.DataFrame,
    ylabel: str = "Change of the answer's\nlog-probability (nats)",
    crossing: float | None = None,
    absent: float | None = None,
) -> BookFigure:
    """What cutting attention edges in a window of layers does to the answer (Geva et al.
    2304.14767).

    frame: columns edges (what is cut; the first is drawn in the colour of the reasoning, others are
    controls), layer (middle of the window), effect, ci_low, ci_high.
    crossing: layer before which the curves of patching cross, marked by a line.
    absent: the effect of having no reasoning at all, another line.
    """
    require_columns(frame, "edges", "layer", "effect", "ci_low", "ci_high")
    figure = BookFigure(3.2)
    axes = figure.subplots()
    said = []
    for index, name in enumerate(dict.fromkeys(frame["edges"])):
        rows = frame[frame["edges"] == name].sort_values("layer")
        colour = SEGMENT_COLOURS["reasoning"] if index == 0 else _GREYS[(index - 1) % 3]
        axes.plot(
            rows["layer"],
            rows["effect"],
            color=colour,
            linestyle="-" if index == 0 else _DASHES[(index - 1) % 3],
            marker="o",
            markersize=3.5,
            label=name,
        )
        axes.fill_between(
            rows["layer"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.22, linewidth=0
        )
        extreme = rows.loc[rows["effect"].abs().idxmax()]
        said.append(f"{name}: strongest {extreme.effect:.2f} at layer {extreme.layer:g}")
    if crossing is not None:
        # Patched before a layer, so the line stands before it.
        axes.axvline(crossing - 0.5, color=INK, linestyle=(0, (2, 3)), linewidth=1.0)
        said.append(f"the curves of patching cross before layer {crossing:g}")
    if absent is not None:
        line = {"color": INK, "linestyle": (0, (6, 2)), "linewidth": 1.0}
        axes.axhline(absent, label="no reasoning at all", **line)
        said.append(f"no reasoning at all: {absent:.2f}")
    axes.axhline(0, color=PALE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("Middle of the window of layers")
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    figure.alt_text = "Effect of cutting attention, by layer. " + "; ".join(said) + "."
    return figure


@styled
def approximate_against_exact(
    exact: np.ndarray, approximate: np.ndarray, rho: float, recall: Mapping[int, float]
) -> BookFigure:
    """Attribution patching against exact patching, a point a cell of the grid, with the line of
    equality.

    exact, approximate: grids of one shape, of one pair or of several. rho: their rank correlation;
    recall: k → share of the exact top k cells among the approximate top k. Both are printed as they
    are given, since means over pairs are not those of all cells together. Raises ValueError for
    grids of different sizes. Notebook 05.
    """
    exact, approximate = (
        np.asarray(exact, dtype=float).ravel(),
        np.asarray(approximate, dtype=float).ravel(),
    )
    if exact.shape != approximate.shape:
        raise ValueError(f"the grids have {exact.size} and {approximate.size} cells")
    figure = BookFigure(4.0, width=4.6)
    axes = figure.subplots()
    low, high = min(exact.min(), approximate.min()), max(exact.max(), approximate.max())
    axes.plot([low, high], [low, high], color=PALE, linestyle=":", linewidth=1.4)
    axes.scatter(exact, approximate, s=12, color=INK, alpha=0.45, edgecolor="none")
    lines = [f"rank correlation {rho:.2f}"] + [
        f"recall of the top {k}: {r:.0%}" for k, r in recall.items()
    ]
    axes.annotate("\n".join(lines), (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8.5)
    axes.set_xlabel("Exact patching (normalised logit difference)")
    axes.set_ylabel("Attribution patching (estimate)")
    axes.grid()
    figure.alt_text = (
        f"Scatter of {exact.size} cells, estimate against exact: " + "; ".join(lines) + "."
    )
    return figure


@styled
def head_sets(
    values: Mapping[str, Sequence[float]], xlabel: str, share: bool = False
) -> BookFigure:
    """What a set of heads does beside what each random set does; a row a way to intervene.

    values: way → values, of the set in question first, then of the random sets. share: the values
    are shares in [0, 1].
    """
    figure = BookFigure(1.0 + 0.5 * len(values))
    axes = figure.subplots()
    said, spread = [], np.random.default_rng(0)
    for place, (way, (own, *others)) in enumerate(values.items()):
        jitter = place + spread.uniform(-0.2, 0.2, len(others))
        named = place == 0  # the legend names each kind once
        axes.scatter(
            others, jitter, s=14, color="#888888", alpha=0.6, linewidth=0,
            label=f"{len(others)} random sets of the same layers" if named else None,
        )  # fmt: skip
        axes.vlines(
            np.median(others), place - 0.32, place + 0.32, color=INK, linewidth=1.2,
            label="their median" if named else None,
        )  # fmt: skip
        axes.scatter(
            [own], [place], s=62, marker="D", color=SEGMENT_COLOURS["reasoning"], edgecolor=INK,
            linewidth=0.8, zorder=3, label="reasoning-focus heads" if named else None,
        )  # fmt: skip
        numbers = (own, np.median(others), min(others), max(others))
        own, median, low, high = (f"{x:.0%}" if share else f"{x:.2f}" for x in numbers)
        said.append(f"{way} {own}, random sets {median} in the median, from {low} to {high}")
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    if share:
        percent_axis(axes.xaxis)
    figure.legend(loc="outside upper left", ncols=3)
    figure.alt_text = f"{xlabel}; reasoning-focus heads against random sets: {'; '.join(said)}."
    return figure
