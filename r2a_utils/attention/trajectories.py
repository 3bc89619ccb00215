"""How heads read along the reasoning: in step with the answer, after cues, the corrected value.

What goes in are attention weights and traces, what comes out are tables with intervals and nulls.
This file runs no model: `attention_profile` and `attention_rows` of weights.py and
`token_set_mass` of mass.py do the measuring. Shown in stage 04b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int, Real
from scipy import stats

from r2a_utils.attention.distance import places_beyond_distance
from r2a_utils.attention.heads import Head
from r2a_utils.figures.style import head_name
from r2a_utils.stats import LEVEL, bootstrap_mean_intervals, empirical_p
from r2a_utils.texts.trace import Trace, cues, sentences

LONG_ANSWER = 30  # tokens; the form of answer that states its steps again
SHORTEST_ANSWER = 5  # tokens; the rank correlation of fewer points takes only a handful of values
NEARNESS = 0.1  # bandwidth of "matched place": a tenth of the reasoning


def has_long_answer(trace: Trace) -> bool:
    """Whether the answer has `LONG_ANSWER` tokens or more, so that it has a course to follow."""
    return _length(trace.segments["answer"]) >= LONG_ANSWER


def corrects_itself(trace: Trace) -> bool:
    """Whether a trace is worth showing: a long answer, a correction, four steps or more."""
    turns = [cue for cue in cues(trace) if cue.word in ("wait", "let me check")]
    return has_long_answer(trace) and trace.meta.get("steps", 4) >= 4 and bool(turns)


def _length(span: slice) -> int:
    return span.stop - span.start


def reading_path(
    profiles: Sequence[xr.Dataset], traces: Sequence[Trace], head: tuple[int, int]
) -> Float[np.ndarray, "2 point"]:
    """Where a head reads in the reasoning as the answer is written, a point an answer token.

    profiles: `attention_profile` of each trace. Row 0: share of the answer written (0 to 1); row 1:
    the mean attended place, as a share of the reasoning.
    """
    paths = []
    for profile, trace in zip(profiles, traces, strict=True):
        reasoning = trace.segments["reasoning"]
        place = profile["mean_position"].sel(layer=head[0], head=head[1]).values
        inside = (place - reasoning.start) / max(_length(reasoning) - 1, 1)
        paths.append([np.linspace(0, 1, len(place)), inside])
    return np.concatenate(paths, axis=1)


def tracking(
    profiles: Sequence[xr.Dataset],
    *,
    path: str = "mean_position",
    seed: int = 0,
    draws: int = 1_000,
) -> pd.DataFrame:
    """Trajectory tracking: does a head walk along the reasoning as the answer is written?

    For each trace the Spearman correlation between the answer token's index and the place that it
    reads in the reasoning; then the mean over traces. profiles: `attention_profile` of each trace
    (dims layer, head, query); path: "mean_position" or "peak". Columns layer, head, rho, ci_low,
    ci_high (95% bootstrap over traces), p (two-sided), p_familywise (against the largest |rho| of
    all heads), slope (tokens of reasoning a token of answer), n (traces); sorted by rho.

    The null reads each trace's path forwards or backwards with equal chance: smooth wandering keeps
    its smoothness and loses its direction. A head that always looks equally far back also walks
    along, without reading anything: it shows as a slope of 1 (`tracking_and_beyond`). A place that
    never moves counts as 0. Layers that read nothing have no rows, and answers of fewer than
    `SHORTEST_ANSWER` tokens are left out. Raises ValueError where no answer is long enough.
    """
    used = [p for p in profiles if p.sizes["query"] >= SHORTEST_ANSWER]
    if not used:
        raise ValueError(
            f"no answer has {SHORTEST_ANSWER} tokens or more, so no path can be ranked"
        )
    unread = [profile["mean_position"].isnull().all(["head", "query"]) for profile in used]
    layers = np.flatnonzero(~np.all(unread, axis=0))
    paths = [profile[path].transpose("layer", "head", "query").values[layers] for profile in used]
    observed = np.array([_correlation_with_index(stats.rankdata(p, axis=-1)) for p in paths])
    rho, slope = observed.mean(axis=0), np.mean([_slope(p) for p in paths], axis=0)
    low, high = bootstrap_mean_intervals(observed, seed=seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(used)))
    null = np.abs(np.tensordot(signs, observed, axes=1) / len(used))
    largest = null.max(axis=(1, 2))
    rows = [
        {
            "layer": layers[i],
            "head": head,
            "rho": rho[i, head],
            "ci_low": low[i, head],
            "ci_high": high[i, head],
            "p": empirical_p(abs(rho[i, head]), null[:, i, head]),
            "p_familywise": empirical_p(abs(rho[i, head]), largest),
            "slope": slope[i, head],
            "n": len(used),
        }
        for i, head in np.ndindex(rho.shape)
    ]
    return pd.DataFrame(rows).sort_values("rho", ascending=False, ignore_index=True)


def tracking_and_beyond(
    profiles: Sequence[xr.Dataset], rfhs: Sequence[Head], *, seed: int = 0
) -> pd.DataFrame:
    """`tracking` of all heads, and what of it is beyond each head's own profile by distance.

    Further columns: RFH (whether the head is one of rfhs), beyond, beyond_low, beyond_high,
    beyond_p (family-wise): the same correlation for the place read less the place that the head
    would read by distance alone (`distance.places_beyond_distance`). They are NaN for a single
    answer. Raises ValueError as `tracking` does. Stage 04b.
    """
    table = tracking(profiles, seed=seed)
    table.insert(2, "RFH", [tuple(head) in set(rfhs) for head in table[["layer", "head"]].values])
    names = {"rho": "beyond", "ci_low": "beyond_low", "ci_high": "beyond_high"}
    names["p_familywise"] = "beyond_p"
    used = [p for p in profiles if p.sizes["query"] >= SHORTEST_ANSWER]
    if len(used) < 2:  # one has no others to find its profile on
        return table.assign(**dict.fromkeys(names.values(), np.nan))
    beyond = tracking(places_beyond_distance(used), path="beyond", seed=seed)
    return table.merge(beyond[["layer", "head", *names]].rename(columns=names))


@dataclass(frozen=True)
class BestTracking:
    """The head that walks along best (as L3.H1), and how many of the k Reasoning-Focus Heads do.

    rho: mean rank correlation over n answers (low to high: 95 %); p_familywise: against the best of
    all heads under the null. Of the heads that walk forwards, beyond_best does so most beyond
    distance: beyond (low to high) and beyond_p are the same of its places read less those by
    distance alone; None for a single answer and where no head walks forwards. rfh, rfh_beyond and
    so on: the same of the Reasoning-Focus Heads alone. tracking_rfhs: those that follow forwards at
    `stats.LEVEL`; beyond_rfhs: those of them that do so beyond distance.
    """

    best: str
    rho: float
    low: float
    high: float
    p_familywise: float
    beyond_best: str | None
    beyond: float | None
    beyond_low: float | None
    beyond_high: float | None
    beyond_p: float | None
    rfh: str | None
    rfh_beyond: float | None
    rfh_low: float | None
    rfh_high: float | None
    rfh_p: float | None
    n: int
    tracking_rfhs: int
    beyond_rfhs: int
    k: int


def best_tracking(table: pd.DataFrame) -> BestTracking:
    """Sum up `tracking_and_beyond`."""
    first = table.iloc[0]
    follows = table["RFH"] & (table["rho"] > 0) & (table["p_familywise"] <= LEVEL)
    beyond = follows & (table["beyond"] > 0) & (table["beyond_p"] <= LEVEL)
    forwards = table[(table["rho"] > 0) & table["beyond"].notna()]
    names = ("beyond", "beyond_low", "beyond_high", "beyond_p")
    most, rfh = (
        among.loc[among["beyond"].idxmax()] if len(among) else dict.fromkeys(names)
        for among in (forwards, forwards[forwards["RFH"]])
    )
    return BestTracking(
        best=_name(first),
        rho=first["rho"],
        low=first["ci_low"],
        high=first["ci_high"],
        p_familywise=first["p_familywise"],
        beyond_best=_name(most),
        **{name: most[name] for name in names},
        rfh=_name(rfh),
        rfh_beyond=rfh["beyond"],
        rfh_low=rfh["beyond_low"],
        rfh_high=rfh["beyond_high"],
        rfh_p=rfh["beyond_p"],
        n=int(first["n"]),
        tracking_rfhs=int(follows.sum()),
        beyond_rfhs=int(beyond.sum()),
        k=int(table["RFH"].sum()),
    )


def _name(row: pd.Series | dict) -> str | None:
    return head_name(int(row["layer"]), int(row["head"])) if "layer" in row else None


def _centred_index(n: int) -> Float[np.ndarray, " n"]:
    return np.arange(n) - (n - 1) / 2


def _correlation_with_index(values: Real[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows"]:
    """Pearson correlation of the last axis with its index; 0 where the values do not vary."""
    index = _centred_index(values.shape[-1])
    values = values - values.mean(axis=-1, keepdims=True)
    scale = np.linalg.norm(values, axis=-1) * np.linalg.norm(index)
    return np.divide(values @ index, scale, out=np.zeros_like(scale), where=scale > 0)


def _slope(values: Real[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows"]:
    """Least-squares slope of the last axis over its index."""
    index = _centred_index(values.shape[-1])
    return values @ index / (index @ index)


def cue_lift(
    traces: Sequence[Trace],
    reads: Sequence[Real[np.ndarray, "*_"]],
    *,
    seed: int = 0,
    resamples: int = 1_000,
) -> pd.DataFrame:
    """How much more is read of what follows a cue than of other text at matched places.

    reads: for each trace, the attention that each of its tokens receives [token] (for example the
    mean over the answer's rows of the Reasoning-Focus Heads). What follows a cue runs from the cue
    to the end of its sentence. Its mass is compared with windows of the same length in the same
    reasoning that touch no cue's sentence, by a line through them that counts the near ones most
    (Gaussian, `NEARNESS` of the reasoning wide), so that a taste for late or early text does not
    pass for a taste for cues.
    Columns word ("all cues" first), lift (sum over cues / sum over matched windows), ci_low and
    ci_high (95%, bootstrap over traces), n (cues compared), left_out (no window to compare with).
    Raises ValueError where no trace has a cue.
    """
    found = [
        row for i, (t, r) in enumerate(zip(traces, reads, strict=True)) for row in _cues(i, t, r)
    ]
    if not found:
        raise ValueError("no trace has a cue: nothing to compare")
    frame = pd.DataFrame(found, columns=["trace", "word", "mass", "matched"])
    words = frame["word"].value_counts().index
    groups = [("all cues", frame), *((word, frame[frame["word"] == word]) for word in words)]
    draws = np.random.default_rng(seed).multinomial(
        len(traces), np.full(len(traces), 1 / len(traces)), size=resamples
    )
    rows = []
    for word, group in groups:
        compared = group.dropna()
        sums = np.zeros((len(traces), 2))
        np.add.at(sums, compared["trace"], compared[["mass", "matched"]].to_numpy())
        low, high = np.nan, np.nan
        if compared["trace"].nunique() > 1:
            mass, matched = (draws @ sums).T
            # a resample may hold no trace with this cue; it says nothing about the cue
            low, high = np.quantile(mass[matched > 0] / matched[matched > 0], [0.025, 0.975])
        total = sums.sum(axis=0)
        lift = total[0] / total[1] if total[1] > 0 else np.nan
        rows.append((word, lift, low, high, len(compared), len(group) - len(compared)))
    return pd.DataFrame(rows, columns=["word", "lift", "ci_low", "ci_high", "n", "left_out"])


@dataclass(frozen=True)
class WordLift:
    """`cue_lift` of one word, of which n cues were compared; None as in `CueLift`."""

    word: str
    n: int
    lift: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CueLift:
    """`cue_lift` over all words: a ratio (low to high: 95 %) from n cues, and the same by word.

    lift is None where no cue could be compared, low and high where fewer than two traces have one.
    """

    n: int
    lift: float | None = None
    low: float | None = None
    high: float | None = None
    words: tuple[WordLift, ...] = ()


def overall_cue_lift(table: pd.DataFrame | None) -> CueLift:
    """Sum up `cue_lift`; None stands for a run without a cue."""
    if table is None:
        return CueLift(0)
    lifts = [
        (
            row.word,
            row.n,
            *(None if np.isnan(x) else x for x in (row.lift, row.ci_low, row.ci_high)),
        )
        for row in table.itertuples()
    ]
    _, *overall = lifts[0]
    return CueLift(*overall, tuple(WordLift(*lift) for lift in lifts[1:]))


def _cues(index: int, trace: Trace, read: Real[np.ndarray, "*_"]):
    """Yield (trace, word, mass on what follows, mass expected at matched places or NaN)."""
    read = np.asarray(read, dtype=float)
    if read.shape != (len(trace),):
        raise ValueError(f"trace {trace.problem_id}: {len(trace)} tokens, but reads {read.shape}")
    reasoning = trace.segments["reasoning"]
    ends = [s.stop for s in sentences(trace)]
    spans = [
        (cue.word, cue.position, next(end for end in ends if end > cue.position))
        for cue in cues(trace)
    ]
    taken = np.zeros(len(trace), dtype=bool)
    for _, start, stop in spans:
        taken[start:stop] = True
    totals = np.concatenate([[0.0], np.cumsum(read)])
    length = reasoning.stop - reasoning.start
    for word, start, stop in spans:
        width = stop - start
        starts = np.arange(reasoning.start, reasoning.stop - width + 1)
        free = starts[
            ~np.lib.stride_tricks.sliding_window_view(taken[reasoning], width).any(axis=1)
        ]
        masses = totals[free + width] - totals[free]
        expected = _expected_at(start, free, masses, NEARNESS * length)
        yield index, word, totals[stop] - totals[start], expected


def _expected_at(
    place: float,
    places: Int[np.ndarray, " window"],
    masses: Float[np.ndarray, " window"],
    width: float,
) -> float:
    """What a smooth course of masses would be at `place`: a local line by weighted least squares,
    so that a slope is no surprise at the edge of what is known; NaN where nothing is near.
    """
    away = places - place
    weights = np.exp(-0.5 * (away / width) ** 2)
    if weights.sum() < 1e-6:
        return np.nan
    weights /= weights.sum()
    centre, level = weights @ away, weights @ masses
    spread = weights @ (away - centre) ** 2
    slope = weights @ ((away - centre) * (masses - level)) / spread if spread > 0 else 0.0
    return max(level - slope * centre, 0.0)


def preference(
    mass: Float[xr.DataArray, "trace layer head token_set"],
    first: str,
    second: str,
    *,
    seed: int = 0,
    resamples: int = 1_000,
) -> pd.DataFrame:
    """Which of two token sets a head reads more: the corrected value or the wrong one, say.

    mass: `token_set_mass`, dims (trace, layer, head, token_set), with sets of equal size (the mass
    of a larger set is larger by itself). Cases that share a `trace` coordinate are of one trace:
    they are averaged first. Columns layer, head, share (mean over traces of
    first / (first + second); ½ is no preference), ci_low, ci_high (95% bootstrap over traces), n
    (traces), sorted by share. A case in which a head reads neither counts as ½.
    """
    a, b = (
        mass.sel(token_set=s).transpose("trace", "layer", "head").values.astype(float)
        for s in (first, second)
    )
    share = np.divide(a, a + b, out=np.full_like(a, 0.5), where=a + b > 0)
    if "trace" in mass.coords:
        of_trace = xr.DataArray(share, dims=("trace", "layer", "head"))
        of_trace = of_trace.assign_coords(trace=mass.coords["trace"].values)
        share = of_trace.groupby("trace").mean().values
    low, high = bootstrap_mean_intervals(share, seed=seed, resamples=resamples)
    layer, head = np.indices(share.shape[1:])
    table = pd.DataFrame(
        {
            "layer": layer.ravel(),
            "head": head.ravel(),
            "share": share.mean(axis=0).ravel(),
            "ci_low": low.ravel(),
            "ci_high": high.ravel(),
            "n": len(share),
        }
    )
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)
