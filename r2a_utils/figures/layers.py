"""The three instruments of the stages on one axis of layers: attention, patching, knockout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from r2a_utils.figures.patching import CURVE_COLOURS, family_lines
from r2a_utils.figures.style import (
    INK,
    PALE,
    SEGMENT_COLOURS,
    BookFigure,
    head_name,
    percent_axis,
    require_columns,
    styled,
)


@styled
def layers_together(
    mass: np.ndarray,
    marked: Sequence[tuple[int, int]],
    curves: pd.DataFrame,
    profile: pd.DataFrame,
    crossing: float | None = None,
) -> BookFigure:
    """Where heads look, where patching takes hold and where a cut hurts, layer under layer.

    mass: [layer, head], the answer's attention on the reasoning (NaN: a layer without attention).
    marked: the Reasoning-Focus Heads. curves: columns curve (the two of `CURVE_COLOURS` are drawn),
    layer, mean, and perhaps family. profile: columns edges (the first is the reasoning, the others
    are controls), layer, effect, of single layers. crossing: the layer before which the curves
    cross. What is patched before a layer is drawn to its left. Notebook 07.
    """
    require_columns(curves, "curve", "layer", "mean")
    require_columns(profile, "edges", "layer", "effect")
    mass = np.asarray(mass, dtype=float)
    figure = BookFigure(5.6)
    looks, patched, cut = figure.subplots(3, sharex=True)

    layers, _ = np.indices(mass.shape)
    looks.scatter(layers, mass, s=12, color=PALE)
    tops = [mass[layer, head] for layer, head in marked]
    looks.scatter([layer for layer, _ in marked], tops, s=22, color=SEGMENT_COLOURS["reasoning"])
    percent_axis(looks.yaxis)
    looks.set_ylabel("Attention\non the reasoning")

    for name, dashes, rows in family_lines(curves[curves["curve"].isin(CURVE_COLOURS)]):
        colour = CURVE_COLOURS[rows["curve"].iloc[0]]
        patched.plot(
            rows["layer"] - 0.5, rows["mean"], color=colour, linestyle=dashes, label=name,
            marker="o", markersize=3.5,
        )  # fmt: skip
    patched.set_ylabel("Restored\nby a patch")

    said = []
    for index, name in enumerate(dict.fromkeys(profile["edges"])):
        rows = profile[profile["edges"] == name].sort_values("layer")
        colour = SEGMENT_COLOURS["reasoning"] if index == 0 else PALE
        cut.plot(rows["layer"], rows["effect"], color=colour, marker="o", markersize=3.5)
        extreme = rows.loc[rows["effect"].abs().idxmax()]
        said.append(f"{name} {extreme.effect:.2f} in layer {extreme.layer:g}")
    cut.set_ylabel("Change by a cut\n(nats)")
    cut.set_xlabel("Layer")
    cut.xaxis.get_major_locator().set_params(integer=True)

    for axes in (looks, patched, cut):
        axes.axhline(0, color=PALE, linewidth=0.8)
        axes.grid(axis="x")
        if crossing is not None:
            axes.axvline(crossing - 0.5, color=INK, linestyle=(0, (2, 3)), linewidth=1.0)
    figure.legend(
        *patched.get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=3
    )
    top = np.unravel_index(np.nanargmax(mass), mass.shape)
    met = "" if crossing is None else f" The curves cross before layer {crossing:g}."
    figure.alt_text = (
        f"Three panels over {len(mass)} layers. Attention: largest {mass[top]:.0%} in "
        f"{head_name(*top)}.{met} Cuts, strongest: {'; '.join(said)}."
    )
    return figure
