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
from jaxtyping import Bool, Float, Int

from r2a_utils import figures
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.causal.recorded_pairs import MIN_GAP, RecordedPair
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import (
    LEVEL,
    bootstrap_interval,
    bootstrap_mean_intervals,
    bootstrap_means,
    wilson_interval,
)
from r2a_utils.texts.trace import Trace, sentences

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
    `noise_floor` is the largest of the pairs' (0 for no pair); `engine` is "plain" where any of
    them needed it. The paper's curves; stage 05.
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
    engine = "plain" if any(grid.attrs["engine"] == "plain" for grid in grids) else "fast"
    attrs = {"noise_floor": floor, "engine": engine, "direction": direction}
    return xr.Dataset(variables, coords, attrs)


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


def family_curves(effects: Effects, families: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """`place_curves` for each family of pairs, with a column family.

    `effects` are [pair, layer, place] and `families` what each pair is. Raises ValueError for no
    pair.
    """
    names = np.asarray(families)
    return pd.concat(
        place_curves(effects[names == family], seed).assign(family=family)
        for family in dict.fromkeys(families)
    )


def crossed_flips(flips: Flips, seed: int = 0) -> Bool[np.ndarray, "pair place"]:
    """Whether each pair flips at a layer that was chosen on other pairs.

    `flips` is [pair, layer, place]. The pairs are halved at random; the layer at which most of one
    half flip is asked of the other half. The best layer of all pairs would flatter itself. Where no
    half is left to choose on, it is the first layer for the conclusion and the last for the last
    token.
    """
    n_pairs, n_layers, _ = flips.shape
    order = np.random.default_rng(seed).permutation(n_pairs)
    halves = order[: n_pairs // 2], order[n_pairs // 2 :]
    found = np.zeros((n_pairs, len(PLACES)), dtype=bool)
    for half, other in (halves, halves[::-1]):
        for place, without in ((FLIPPING, 0), (LAST, n_layers - 1)):
            best = flips[other, :, place].mean(0).argmax() if len(other) else without
            found[half, place] = flips[half, best, place]
    return found


def flip_rates(flips: Flips, families: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Share of the kept pairs whose answer flips, for each place and family (`crossed_flips`).

    Columns label, rate, ci_low and ci_high (Wilson, 95 %), n, as `figures.flips` draws. Raises
    ValueError for no pair.
    """
    found, names, rows = crossed_flips(flips, seed), np.asarray(families), []
    for i, place in enumerate(PLACES):
        for family in dict.fromkeys(families):
            hits, n = int(found[names == family, i].sum()), int((names == family).sum())
            rows.append((f"{place}\n({family})", hits / n, *wilson_interval(hits, n), n))
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


@dataclass(frozen=True)
class Crossing:
    """Before which layer the last token's mean effect exceeds the flipping token's; None: never.

    low and high hold 95 % of bootstrap samples of the pairs that cross, `share` is how many do.
    """

    layer: int | None
    low: int | None
    high: int | None
    share: float


def crossing(effects: Effects, seed: int = 0) -> Crossing:
    """Where the two curves of effects [pair, layer, place] cross, with an interval over pairs."""
    layer = _first_beyond(effects.mean(0)[None])[0]
    drawn = _first_beyond(bootstrap_means(effects, seed))
    there = drawn[drawn >= 0]
    ends = [None, None]
    if len(there):
        tail = LEVEL / 2
        ends = np.quantile(there, [tail, 1 - tail], method="inverted_cdf").astype(int).tolist()
    return Crossing(int(layer) if layer >= 0 else None, *ends, len(there) / len(drawn))


def _first_beyond(means: Float[np.ndarray, "sample layer place"]) -> Int[np.ndarray, " sample"]:
    """The first layer at which the last token is ahead, or -1."""
    beyond = means[..., LAST] > means[..., FLIPPING]
    return np.where(beyond.any(1), beyond.argmax(1), -1)


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


def probe_nats(
    model: ReasoningModel, pairs: Sequence[tuple[Trace, Trace]], most: int = 10
) -> float | None:
    """How unlikely a probe's line is to the model: nats a token, over the first pairs' clean sides.

    `pairs` are traces that `probed` closed; None for no pair. A line with more nats than log of the
    vocabulary's size is less likely than tokens drawn blindly: the model has never read its like.
    """
    surprises = []
    for trace, _ in pairs[:most]:
        line = sentences(trace)[-1]
        ids = trace.token_ids[: line.stop]
        run = run_with_cache(model, ids, read=range(line.start - 1, line.stop - 1))
        chosen = run.logits.float().log_softmax(-1)[range(len(ids[line])), ids[line]]
        surprises.append(-float(chosen.mean()))
    return float(np.mean(surprises)) if surprises else None


@dataclass(frozen=True)
class FamilyPatching:
    """Patching in one family of pairs; effects are means over the n pairs kept.

    first (first_low to first_high: bootstrap interval, None for one pair): the effect before layer
    0. flips: share of kept pairs whose answer the conclusion's token flips (`crossed_flips`);
    of_asked (low to high: Wilson's interval) is their share of the pairs asked.
    """

    family: str
    asked: int
    n: int
    first: float
    first_low: float | None
    first_high: float | None
    flips: float
    of_asked: float
    low: float
    high: float
    crossing: Crossing


@dataclass(frozen=True)
class ActivationPatching:
    """What stage 05 found; effects are means over pairs of the normalised logit difference.

    flip_rate (flip_low to flip_high) is of the pairs kept, flips_of_asked (asked_low to asked_high)
    of all pairs posed. `probes` says of the paper's probes how unlikely their line is.
    """

    asked: int
    n: int
    protocol: str
    min_gap: float
    families: list[FamilyPatching]
    flipping_first: float
    flipping_last: float
    last_first: float
    last_last: float
    noised_first: float
    others: list[ProtocolEffect]
    crossing: int | None
    crossing_low: int | None
    crossing_high: int | None
    crossing_share: float
    n_layers: int
    flip_rate: float
    flip_low: float
    flip_high: float
    flips_of_asked: float
    asked_low: float
    asked_high: float
    early_probe: float | None
    early_probe_n: int
    probe_nats: float | None
    early_boxed_probe: float | None
    early_boxed_probe_n: int
    boxed_probe_nats: float | None
    blind_nats: float
    noise_floor: float
    engine: str
    dtype: str
    largest_control: float
    same_answer_n: int
    same_answer: float | None


def family_patching(
    effects: Effects, flips: Flips, families: Sequence[str], asked: Mapping[str, int], seed: int = 0
) -> list[FamilyPatching]:
    """Patching by family of the kept pairs; `asked` counts the pairs posed of each."""
    found, names, rows = crossed_flips(flips, seed)[:, FLIPPING], np.asarray(families), []
    for family, n_asked in asked.items():
        own = names == family
        if not own.any():
            continue
        first = effects[own, 0, FLIPPING]
        low, high = bootstrap_interval(first, seed=seed) if len(first) > 1 else (None, None)
        hits = int(found[own].sum())
        rows.append(
            FamilyPatching(
                family,
                n_asked,
                int(own.sum()),
                first.mean(),
                low,
                high,
                hits / int(own.sum()),
                hits / n_asked,
                *wilson_interval(hits, n_asked),
                crossing(effects[own], seed),
            )
        )
    return rows


def summarised_patching(
    model: ReasoningModel,
    protocol: str,
    asked: Mapping[str, int],
    families: Sequence[str],
    effects: Mapping[str, Effects],
    denoised: xr.Dataset,
    noised: xr.Dataset,
    controls: Mapping[str, Effects],
    nats: Mapping[str, float | None],
    seed: int = 0,
) -> ActivationPatching:
    """What is told of a run's patching.

    `asked` counts the pairs posed by family, `families` names those of the kept ones; `effects` and
    `controls` are [pair, layer, place], by protocol and by control; `denoised` and `noised` are of
    `patch_two_places`, `nats` of `probe_nats` by protocol. Raises ValueError where the protocol
    keeps no pair. Stage 05 quotes it.
    """
    own, flips = effects[protocol], denoised["flip"].values
    mean, n, n_asked = own.mean(0), len(own), sum(asked.values())
    hits = int(crossed_flips(flips, seed)[:, FLIPPING].sum())
    flip_low, flip_high = wilson_interval(hits, n)
    asked_low, asked_high = wilson_interval(hits, n_asked)
    cross = crossing(own, seed)
    same = controls["same_answer"]
    means = [np.abs(found.mean(0)).max() for found in controls.values() if len(found)]
    return ActivationPatching(
        asked=n_asked,
        n=n,
        protocol=protocol,
        min_gap=MIN_GAP,
        families=family_patching(own, flips, families, asked, seed),
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
        crossing=cross.layer,
        crossing_low=cross.low,
        crossing_high=cross.high,
        crossing_share=cross.share,
        n_layers=model.n_layers,
        flip_rate=hits / n,
        flip_low=flip_low,
        flip_high=flip_high,
        flips_of_asked=hits / n_asked,
        asked_low=asked_low,
        asked_high=asked_high,
        early_probe=early_effect(effects["probe"]),
        early_probe_n=len(effects["probe"]),
        probe_nats=nats["probe"],
        early_boxed_probe=early_effect(effects["boxed_probe"]),
        early_boxed_probe_n=len(effects["boxed_probe"]),
        boxed_probe_nats=nats["boxed_probe"],
        blind_nats=float(np.log(model.vocab_size)),
        noise_floor=denoised.attrs["noise_floor"],
        engine=denoised.attrs["engine"],
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
