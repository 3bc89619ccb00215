"""Interventions on the answer's tokens: attention knockout and head ablation.

Two nouns say what is done, two verbs what comes of it. A `Knockout` removes attention edges, by
default those from the answer to the reasoning; an `Ablation` replaces what single heads report, z,
the input of o_proj, where heads are not mixed yet. `measure` scores the trace's own answer, teacher
forced; `regenerate` lets the model write the answer again from the shared prefix. Only the answer's
tokens change, so only they are recomputed.

Sources: knockout in layer windows, Geva et al. 2023 (arXiv:2304.14767); mean ablation of heads,
Wang et al. 2022 (arXiv:2211.00593); resample ablation, Chan et al. 2022 (causal scrubbing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from r2a_utils.answers.equality import same_answer
from r2a_utils.causal.random_sets import Head, own_seed, random_spans
from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import continue_greedily, engine_of, replay, run_with_cache
from r2a_utils.engine.patches import CUT_KINDS, EdgeCut, Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture, every_head
from r2a_utils.runs.pieces import kept_in_pieces
from r2a_utils.stats import bootstrap_mean_intervals
from r2a_utils.texts.boxed import final_answer
from r2a_utils.texts.trace import Trace, answer_span, token_texts

Place = str | slice
"""A segment's name or a token slice."""

METHODS = ("zero", "mean", "resample")


@dataclass(frozen=True)
class Knockout:
    """No attention from `queries` to `keys`, in `layers` (None: all that attend) or in `heads`.

    `kind`, one of `CUT_KINDS`, says what becomes of the weight that is taken away: "renormalised",
    it goes to what is left to look at; "zeroed", it is gone; "mean", it goes evenly to all keys, so
    that their mean value is read. Raises ValueError for another kind, and where both layers and
    heads are given.
    """

    queries: Place = "answer"
    keys: Place = "reasoning"
    layers: tuple[int, ...] | None = None
    heads: tuple[Head, ...] | None = None
    kind: str = "renormalised"

    def __post_init__(self) -> None:
        if self.kind not in CUT_KINDS:
            raise ValueError(f"unknown kind of knockout {self.kind!r}: choose from {CUT_KINDS}")
        if self.layers is not None and self.heads is not None:
            raise ValueError(
                "a knockout is in layers or in heads, not both: heads name their layers"
            )


@dataclass(frozen=True)
class Ablation:
    """z of `heads` replaced at `queries`: by zero, by a mean, or by resampled vectors.

    "mean" and "resample" take theirs from a pool of other traces' answers (see `answer_z`). `draw`
    counts the random draws of resampling: one alone says little, so average over several. Raises
    ValueError for an unknown method and for no head.
    """

    heads: tuple[Head, ...]
    method: str = "zero"
    queries: Place = "answer"
    draw: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown ablation {self.method!r}: choose from {METHODS}")
        if not self.heads:
            raise ValueError("an ablation needs at least one head")


Intervention = Knockout | Ablation


@kept_in_pieces
def measure(
    model: ReasoningModel,
    trace: Trace,
    interventions: Sequence[Intervention],
    *,
    scored: slice | None = None,
    pool: Sequence[Float[Tensor, "_ _"]] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
) -> pd.DataFrame:
    """What each intervention does to the trace's own answer, teacher-forced; one row each.

    `scored` are the tokens that count as the answer (default: the content of its last box).
    Columns: `before` and `after`, the answer's log-probability in nats; `change`, their difference;
    `rank`, 0 where greedy decoding still writes every token of it; `flip`, where it did before and
    no longer does; `engine`, "fast" or "plain", is in the frame's `attrs`. What is resampled
    depends on `seed`, the trace's problem and sample, and the ablation's `draw`; not on its place
    in the list, so that head sets are compared under one draw.
    Raises ValueError for an answer without a box, a place, layer or head that is not there, a query
    behind what is scored, and an ablation that needs a pool and has none. Stage 06.
    """
    scored = scored or answer_span(trace)
    cache = run_with_cache(
        model, trace.token_ids[: scored.stop - 1], read=range(scored.start - 1, scored.stop - 1)
    )
    n, answer = scored.stop - 1, (tuple(trace.token_ids[scored]),)
    patched = [_patched_run(model, trace, change, n, pool, seed) for change in interventions]
    before = answer_scores(cache.logits[None], answer)[0, 0]
    after = replay(
        model,
        cache,
        patched,
        lambda logits: answer_scores(logits, answer),
        max_tokens=max_tokens,
    )[:, 0]
    frame = pd.DataFrame({"before": float(before[0]), "after": after[:, 0].numpy()})
    frame["change"] = frame["after"] - frame["before"]
    frame["rank"] = after[:, 1].long().numpy()
    frame["flip"] = (frame["rank"] > 0) & (float(before[1]) == 0)
    frame.attrs["engine"] = engine_of(model, len(cache.token_ids))
    return frame


@kept_in_pieces
def regenerate(
    model: ReasoningModel,
    trace: Trace,
    interventions: Sequence[Intervention],
    *,
    max_new_tokens: int,
    pool: Sequence[Float[Tensor, "_ _"]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The answer written anew, greedily, after the trace's `</think>`; one row an intervention.

    Columns: `text`, `answer` (the last box, or None), `unaltered` (the answer without
    intervention), `flip` (another answer, by the grader's equality), `lost` (none); neither where
    the unaltered text has no box. The first token of the answer comes from `</think>`, which
    interventions on the answer leave alone. Resampling draws as in `measure`. Raises ValueError as
    `measure` does. Stage 06.
    """
    start = trace.segments["answer"].start
    cache = run_with_cache(model, trace.token_ids[:start])
    n = start + max_new_tokens
    patched = [_patched_run(model, trace, change, n, pool, seed) for change in interventions]
    written = continue_greedily(model, cache, [None, *patched], max_new_tokens)
    return compared_answers(["".join(token_texts(ids, model.tokenizer)) for ids in written])


def compared_answers(texts: Sequence[str]) -> pd.DataFrame:
    """The boxed answers of texts beside that of the first one; a row for each of the others.

    The first is written without intervention. Columns as in `regenerate`.
    """
    answers = [final_answer(text) for text in texts]
    frame = pd.DataFrame({"text": texts[1:], "answer": answers[1:], "unaltered": answers[0]})
    there = answers[0] is not None
    frame["lost"] = [there and answer is None for answer in answers[1:]]
    frame["flip"] = [
        there and answer is not None and not same_answer(answer, answers[0])
        for answer in answers[1:]
    ]
    return frame


def knockout(
    model: ReasoningModel,
    trace: Trace,
    edges: tuple[Place, Place] = ("answer", "reasoning"),
    layers: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    *,
    kind: str = "renormalised",
    scored: slice | None = None,
) -> pd.Series:
    """What removing the attention edges from one place to another does to the answer.

    `kind` is that of `Knockout`. Named numbers as in `measure`: before, after, change (nats), rank,
    flip. Raises ValueError as `measure` does, for another kind, and for layers beside heads.
    Geva et al. 2023; Mohebbi et al. 2023 (arXiv:2301.12971) for "zeroed"; stage 06.
    """
    layers = None if layers is None else tuple(layers)
    heads = None if heads is None else tuple(heads)
    return measure(model, trace, [Knockout(*edges, layers, heads, kind)], scored=scored).iloc[0]


def knockout_profile(
    model: ReasoningModel,
    trace: Trace,
    edges: Sequence[tuple[Place, Place]] = (("answer", "reasoning"),),
    width: int = 1,
    *,
    kind: str = "renormalised",
    scored: slice | None = None,
) -> pd.DataFrame:
    """`measure` of a knockout in each window of `width` layers; `layer` is the window's middle.

    At the first and last layers the window is cut off, so that every layer has one. Several edges
    are cut one after the other, not together; `edge` counts them. A window without attention has no
    numbers (NaN). Raises ValueError for a window that does not fit, and as `measure` does. Geva et
    al. 2023; stage 06.
    """
    if not 1 <= width <= model.n_layers:
        raise ValueError(f"a window of {width} layers does not fit in {model.n_layers} layers")
    windows = [
        tuple(i for i in range(m - (width - 1) // 2, m + width // 2 + 1) if 0 <= i < model.n_layers)
        for m in range(model.n_layers)
    ]
    attending = architecture(model).attending
    windows = [tuple(i for i in window if i in attending) for window in windows]
    cutting = [i for i, window in enumerate(windows) if window]
    knockouts = [Knockout(*edge, windows[i], kind=kind) for edge in edges for i in cutting]
    frame = measure(model, trace, knockouts, scored=scored)
    cut = pd.MultiIndex.from_product([range(len(edges)), cutting], names=["edge", "layer"])
    every = pd.MultiIndex.from_product([range(len(edges)), range(model.n_layers)], names=cut.names)
    return frame.set_index(cut).reindex(every).reset_index()


WAYS = ("answer → reasoning", "answer → random spans of that length", "answer → prompt")
"""What `knockout_curves` cuts: the way in question, and its two controls."""


def knockout_curves(
    model: ReasoningModel,
    traces: Sequence[Trace],
    width: int = 1,
    n_spans: int = 4,
    seed: int = 0,
    *,
    kind: str = "renormalised",
) -> pd.DataFrame:
    """`knockout_profile` of `WAYS` over traces, with 95 % intervals, as the figure draws it.

    The second way cuts `n_spans` random spans as long as the reasoning, drawn anew for each trace,
    and takes their mean.
    Columns edges, layer (middle of the window of `width` layers), effect (mean change of the
    answer's log-probability, nats), ci_low, ci_high, width; a window without attention has no rows.
    `engine` in the frame's `attrs` is "plain" where any trace needed it.
    Raises ValueError as `knockout_profile` and `random_spans` do, and for no trace. Geva et al.
    2023; stage 06.
    """
    changes = np.array([_cut_ways(model, trace, width, n_spans, seed, kind) for trace in traces])
    layers = np.flatnonzero(~np.isnan(changes).all((0, 1)))
    changes, parts = changes[..., layers], []
    for i, way in enumerate(WAYS):
        low, high = bootstrap_mean_intervals(changes[:, i], seed=seed)
        frame = {"layer": layers, "effect": changes[:, i].mean(0)}
        parts.append(pd.DataFrame({"edges": way} | frame | {"ci_low": low, "ci_high": high}))
    curves = pd.concat(parts, ignore_index=True).assign(width=width)
    curves.attrs["engine"] = engine_of(model, max(answer_span(t).stop - 1 for t in traces))
    return curves


def _cut_ways(
    model: ReasoningModel, trace: Trace, width: int, n_spans: int, seed: int, kind: str
) -> tuple[Float[np.ndarray, " layer"], ...]:
    """Change of the answer's log-probability by layer, for each of `WAYS`."""
    reasoning, prompt = trace.segments["reasoning"], trace.segments["prompt"]
    spans = random_spans(trace, reasoning.stop - reasoning.start, n_spans, own_seed(trace, seed))
    edges = [("answer", keys) for keys in (reasoning, prompt, *spans)]
    change = knockout_profile(model, trace, edges, width, kind=kind)["change"].to_numpy()
    change = change.reshape(len(edges), model.n_layers)
    return change[0], change[2:].mean(axis=0), change[1]


def knockout_heads(
    model: ReasoningModel,
    trace: Trace,
    edges: tuple[Place, Place] = ("answer", "reasoning"),
    *,
    kind: str = "renormalised",
    scored: slice | None = None,
) -> Float[xr.DataArray, "layer head"]:
    """Change of the answer's log-probability (nats), dims (layer, head): one head loses the edges.

    NaN in layers without attention; attribute `engine` as of `measure`. Raises ValueError as
    `measure` does. Stage 06.
    """
    heads = every_head(model)
    changes = [Knockout(*edges, heads=(head,), kind=kind) for head in heads]
    frame = measure(model, trace, changes, scored=scored)
    change = np.full((model.n_layers, model.n_heads), np.nan)
    change[tuple(np.transpose(heads))] = frame["change"]
    return xr.DataArray(
        change,
        dims=("layer", "head"),
        coords={"layer": range(model.n_layers), "head": range(model.n_heads)},
        name="change",
        attrs={"long_name": "change of the answer's log-probability", "units": "nats"}
        | frame.attrs,
    )


def answer_z(model: ReasoningModel, traces: Sequence[Trace]) -> list[Float[Tensor, "token _"]]:
    """A pool for mean and resample ablation: z at every answer token of the traces.

    One tensor [token, heads * head_dim] a layer, without columns where a layer does not attend.
    Take traces other than those that are ablated.
    """
    layers: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
    for trace in traces:
        cache = run_with_cache(model, trace.token_ids, ("z",))
        for layer, z in zip(layers, cache.activations["z"], strict=True):
            layer.append(z[trace.segments["answer"]])
    return [torch.cat(layer) for layer in layers]


def _patched_run(model, trace: Trace, change: Intervention, n: int, pool, seed) -> PatchedRun:
    """The intervention as patches and cuts, on a sequence that ends before position `n`."""
    queries = _place(trace, change.queries)
    stop = n if change.queries == "answer" else min(queries.stop, n)
    queries = range(queries.start, stop)
    if not queries:
        raise ValueError(f"the queries {change.queries!r} lie behind what is scored")
    if isinstance(change, Knockout):
        keys, by_layer = _place(trace, change.keys), {}
        if change.heads is None:
            every = architecture(model).attending
            by_layer = dict.fromkeys(every if change.layers is None else change.layers)
        else:
            for layer, head in _checked(model, change.heads):
                by_layer[layer] = (*by_layer.get(layer, ()), head)
        return PatchedRun(
            cuts=tuple(EdgeCut(i, queries, keys, h, change.kind) for i, h in by_layer.items())
        )
    drawn = own_seed(trace, seed)
    values = _ablated(model, change, len(queries), pool, [*drawn, change.draw])
    return PatchedRun(
        patches=tuple(
            Patch("z", layer, queries.start, value, head)
            for (layer, head), value in zip(change.heads, values, strict=True)
        )
    )


def _ablated(
    model,
    ablation: Ablation,
    n: int,
    pool: Sequence[Float[Tensor, "_ _"]] | None,
    seed: list[int],
) -> list[Float[Tensor, "{n} _"]]:
    """What stands in place of each head's z, [n, head_dim]."""
    heads, shapes = _checked(model, ablation.heads), architecture(model).shapes
    if ablation.method == "zero":
        return [torch.zeros(n, shapes[layer].value_dim) for layer, _ in heads]
    if pool is None:
        raise ValueError(
            f"{ablation.method} ablation needs a pool: pass pool=answer_z(model, traces)"
        )
    rows = [
        pool[layer].unflatten(-1, (model.n_heads, shapes[layer].value_dim))[:, head]
        for layer, head in heads
    ]
    if ablation.method == "mean":
        return [row.mean(0).expand(n, -1) for row in rows]
    # All heads take the same tokens' vectors, so that they fit together as in a real answer.
    tokens = np.random.default_rng(seed).integers(len(rows[0]), size=n)
    return [row[tokens] for row in rows]


def _place(trace: Trace, place: Place) -> range:
    if isinstance(place, slice):
        if not 0 <= place.start < place.stop <= len(trace):
            raise ValueError(f"{place} is no token slice of a trace of {len(trace)} tokens")
        return range(place.start, place.stop)
    if place not in trace.segments:
        raise ValueError(f"unknown segment {place!r}: choose from {tuple(trace.segments)}")
    return range(trace.segments[place].start, trace.segments[place].stop)


def _checked(model: ReasoningModel, heads: Sequence[Head]) -> Sequence[Head]:
    attending = architecture(model).attending
    for layer, head in heads:
        if not (layer in attending and 0 <= head < model.n_heads):
            raise ValueError(
                f"no head {(layer, head)}: {len(attending)} of {model.n_layers} layers attend, "
                f"with {model.n_heads} heads each"
            )
    return heads
