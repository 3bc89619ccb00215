"""The paper's two places in many pairs: what patching does there, layer by layer.

The places are the reasoning token whose change flips the answer and the last token before the
answer. The first matters as long as its content has not been read, the last from the layer on where
it has been. This file measures many pairs there and sums them up; how one pair is patched,
`patching.py` knows, and what else may stand in the donor's place, `patching_controls.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from r2a_utils import figures
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.causal.recorded_pairs import MIN_GAP, RecordedPair
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import bootstrap_mean_intervals, wilson_interval

PLACES = tuple(figures.CURVE_COLOURS)
"""What the two places are called, in the order of `two_places`."""

FLIPPING, LAST = range(2)

# Protocols and controls have their own numbers of pairs.
Effects = Float[np.ndarray, "_pair layer place"]
OverLayers = Float[np.ndarray, "pair layer"]
Flips = Bool[np.ndarray, "pair layer place"]


def two_places(pair: ContrastPair) -> list[int]:
    """The position of the token that states the conclusion and the last one before the answer.

    Raises ValueError for a pair in which no single token of the reasoning states the conclusion.
    """
    if pair.flipping_position is None:
        raise ValueError(
            f"pair {pair.problem_id!r}: no single token states the conclusion; leave it out (sift)"
        )
    return [pair.flipping_position, len(pair) - 1]


def patch_two_places(
    model: ReasoningModel, pairs: Sequence[RecordedPair], direction: str = "denoising"
) -> xr.Dataset:
    """Patch each pair's residual stream at its two places, before every layer.

    Variables over (pair, layer, place): `effect` (normalised logit difference) and `flip`, as in
    `patch_metrics`, whose errors it raises; ValueError, besides, as in `two_places`. The attribute
    `noise_floor` is the largest of the pairs' (0 for no pair). The paper's curves; stage 05.
    """
    grids = [patch_metrics(model, r, two_places(r.pair), direction=direction) for r in pairs]
    shape = (len(grids), model.n_layers, len(PLACES))
    variables = {
        name: (
            ("pair", "layer", "place"),
            np.array([grid[name].values for grid in grids], dtype=kind).reshape(shape),
        )
        for name, kind in (("effect", float), ("flip", bool))
    }
    floor = max((float(grid.attrs["noise_floor"]) for grid in grids), default=0.0)
    coords = {"layer": range(model.n_layers), "place": list(PLACES)}
    return xr.Dataset(variables, coords, {"noise_floor": floor, "direction": direction})


def mean_curve(name: str, effects: OverLayers, seed: int = 0) -> pd.DataFrame:
    """Mean and 95 % interval over pairs of effects [pair, layer], as `figures.layer_curves` draws.

    Columns curve (the name), layer, mean, ci_low, ci_high, in units of the effects. Raises
    ValueError for no pair.
    """
    low, high = bootstrap_mean_intervals(effects, seed=seed)
    frame = {"curve": name, "layer": range(effects.shape[1]), "mean": effects.mean(0)}
    return pd.DataFrame(frame | {"ci_low": low, "ci_high": high})


def place_curves(effects: Effects, seed: int = 0, called: str = "{}") -> pd.DataFrame:
    """The two curves of effects [pair, layer, place], one under the other (see `mean_curve`).

    `called` is what a curve is called, with {} for its place. Raises ValueError for no pair.
    """
    return pd.concat(
        mean_curve(called.format(name), effects[..., i], seed) for i, name in enumerate(PLACES)
    )


def flip_rates(flips: Flips) -> pd.DataFrame:
    """Share of pairs whose answer flips, at the layer where most do, for each place.

    `flips` is [pair, layer, place]. Columns label, rate, ci_low and ci_high (Wilson, 95 %), n, as
    `figures.flips` draws. Raises ValueError for no pair.
    """
    rows = []
    for i, name in enumerate(PLACES):
        layer = int(flips[..., i].mean(0).argmax())
        hits, n = int(flips[:, layer, i].sum()), len(flips)
        label = f"{name}, before layer {layer}"
        rows.append((label, hits / n, *wilson_interval(hits, n), n))
    return pd.DataFrame(rows, columns=["label", "rate", "ci_low", "ci_high", "n"])


def first_and_last(effects: Mapping[str, Effects]) -> pd.DataFrame:
    """Mean effect before the first and the last layer at both places, a row a protocol, and n.

    `effects` are [pair, layer, place] by protocol; those without a pair are left out.
    """
    rows = {}
    for protocol, found in effects.items():
        if len(found):
            mean = found.mean(0)
            rows[protocol] = (len(found), *mean[[0, -1]].T.ravel())
    ends = [(name, end) for name in PLACES for end in ("first layer", "last layer")]
    columns = pd.MultiIndex.from_tuples([("", "n"), *ends])
    return pd.DataFrame(rows, index=columns).T.rename_axis("protocol").astype({("", "n"): int})


def crossing_layer(effects: Effects) -> int | None:
    """The first layer before which the last token's mean effect exceeds the flipping token's.

    `effects` are [pair, layer, place]; None where the curves do not cross.
    """
    mean = effects.mean(0)
    beyond = mean[:, LAST] > mean[:, FLIPPING]
    return int(beyond.argmax()) if beyond.any() else None


def early_effect(effects: Effects) -> float | None:
    """Mean effect of the flipping token before the first third of the layers; None for no pair.

    `effects` are [pair, layer, place]. The paper has it for the distills (`paper.published()`).
    """
    third = -(-effects.shape[1] // 3)
    return effects[:, :third, FLIPPING].mean() if len(effects) else None


@dataclass(frozen=True)
class ProtocolEffect:
    """How many pairs another protocol keeps, and the flipping token's effect before layer 0."""

    protocol: str
    n: int
    first: float


@dataclass(frozen=True)
class ActivationPatching:
    """What stage 05 found; effects are means over pairs of the normalised logit difference."""

    asked: int
    refused: int
    n: int
    protocol: str
    min_gap: float
    flipping_first: float
    flipping_last: float
    last_first: float
    last_last: float
    noised_first: float
    others: list[ProtocolEffect]
    crossing: int | None
    n_layers: int
    flip_rate: float
    flip_low: float
    flip_high: float
    early_probe: float | None
    early_probe_n: int
    early_boxed_probe: float | None
    early_boxed_probe_n: int
    noise_floor: float
    dtype: str
    largest_control: float
    same_answer_n: int
    same_answer: float | None


def summarised_patching(
    model: ReasoningModel,
    protocol: str,
    asked: int,
    counts: Mapping[str, int],
    effects: Mapping[str, Effects],
    denoised: xr.Dataset,
    noised: xr.Dataset,
    controls: Mapping[str, Effects],
) -> ActivationPatching:
    """What is told of a run's patching.

    `asked` pairs were posed, `counts` are those of the run's protocol (see `sift`); `effects` and
    `controls` are [pair, layer, place], by protocol and by control; `denoised` and `noised` are of
    `patch_two_places`. Raises ValueError where the protocol keeps no pair. Stage 05 quotes it.
    """
    mean = effects[protocol].mean(0)
    flips = flip_rates(denoised["flip"].values)
    same = controls["same_answer"]
    means = [np.abs(found.mean(0)).max() for found in controls.values() if len(found)]
    return ActivationPatching(
        asked=asked,
        refused=counts["refused: cannot be aligned"],
        n=len(effects[protocol]),
        protocol=protocol,
        min_gap=MIN_GAP,
        flipping_first=mean[0, FLIPPING],
        flipping_last=mean[-1, FLIPPING],
        last_first=mean[0, LAST],
        last_last=mean[-1, LAST],
        noised_first=noised["effect"].values[..., FLIPPING].mean(0)[0],
        others=[
            ProtocolEffect(name, len(found), found[:, 0, FLIPPING].mean())
            for name, found in effects.items()
            if name != protocol and len(found)
        ],
        crossing=crossing_layer(effects[protocol]),
        n_layers=model.n_layers,
        flip_rate=flips.rate[0],
        flip_low=flips.ci_low[0],
        flip_high=flips.ci_high[0],
        early_probe=early_effect(effects["probe"]),
        early_probe_n=len(effects["probe"]),
        early_boxed_probe=early_effect(effects["boxed_probe"]),
        early_boxed_probe_n=len(effects["boxed_probe"]),
        noise_floor=denoised.attrs["noise_floor"],
        dtype=str(model.dtype).removeprefix("torch."),
        largest_control=max(means),
        same_answer_n=len(same),
        same_answer=np.abs(same.mean(0)).max() if len(same) else None,
    )


def by_depth(curves: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Curves with the layer as a share of the depth, so that models of other depths compare."""
    return curves.assign(layer=curves["layer"] / n_layers)


def case_curves(case: xr.DataArray) -> pd.DataFrame:
    """The two curves of one of the authors' cases (`paper.load_patching_case`), by depth.

    Columns as in `mean_curve`, without intervals: it is one case. The flipping token is the last
    one that differs, in the probe. Raises ValueError where no token differs.
    """
    differ = case["position"][case["clean_token"] != case["corrupted_token"]]
    if not differ.size:
        raise ValueError("the case's clean and corrupted tokens are the same")
    n, at = case.sizes["layer"], (differ[-1], case["position"][-1])
    lines = [
        pd.DataFrame({"curve": f"{case.attrs['model']}, {name}", "layer": range(n)}).assign(
            mean=case.sel(position=position).values, ci_low=np.nan, ci_high=np.nan
        )
        for name, position in zip(PLACES, at, strict=True)
    ]
    return by_depth(pd.concat(lines), n)
