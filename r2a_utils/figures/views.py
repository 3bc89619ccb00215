"""Views to explore in the page itself: a trace's text, the heads, a patch grid, one trace in full,
and several of a kind to choose from.

Each view is one piece of HTML that holds its own data, style and script: it needs no kernel, no
network and no other file, in a notebook (`_repr_html_`), in the book or saved as a page. Data are
sparse (the heaviest weights of each row, in a byte each), so that a trace of 2,000 tokens stays
small; the view says what share of the attention they are. Arrays in, HTML out; this file knows no
model. What the views do with the data is in `views.js`, how they look in `views.css`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from r2a_utils.figures.heads import HEAD_MARKS
from r2a_utils.figures.style import (
    SEGMENT_COLOURS,
    SEGMENT_LABELS,
    head_name,
    plain_tag,
    show_token,
)
from r2a_utils.runs.folder import write_aside
from r2a_utils.texts.trace import Trace, cues, sentences

MOST_BYTES = 1_500_000  # of one view: what a page may make a phone load
TOP = 32  # weights kept a row
NARROW = 256  # tokens of a trace whose places fit into a byte


@dataclass(frozen=True)
class View:
    """One view: its kind, its title and its data as plain values; shows itself in a notebook.

    `text` says in words what it shows at first, for pages without JavaScript.
    """

    kind: str
    title: str
    data: Mapping[str, object] = field(repr=False)  # long: a notebook keeps the repr too
    text: str = ""

    def html(self) -> str:
        """The view as a piece of a page. Raises ValueError beyond `MOST_BYTES`."""
        data = json.dumps(
            {"kind": self.kind, "title": self.title, **self.data},
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
        )
        if len(data.encode()) > MOST_BYTES:
            raise ValueError(
                f"the view would hold {len(data.encode()) / 1e6:.1f} MB and may hold "
                f"{MOST_BYTES / 1e6:.1f}: give fewer heads or traces, or a smaller `top`"
            )
        name = hashlib.sha256(data.encode()).hexdigest()[:12]
        colours = ";".join(f"--c-{segment}:{c}" for segment, c in SEGMENT_COLOURS.items())
        # "<" would let a token such as "</script>" end the data
        safe = data.replace("<", "\\u003c")
        return (
            f'<div class="r2a-view" data-r2a-view="{name}" style="{colours}">'
            f"<style>{asset('views.css')}</style>"
            f'<script type="application/json">{safe}</script>'
            f"<noscript><p>{html.escape(self.text)}</p><p>With JavaScript, this is a view to "
            "explore.</p></noscript></div>"
            f'<script>{asset("views.js")}\nr2aViews.mount("{name}");</script>'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | os.PathLike) -> Path:
        """Write the view as a page of its own, to open or to send on."""
        path = Path(path)
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>body{{font-family:system-ui,sans-serif;"
            "margin:1rem auto;max-width:60rem;padding:0 .6rem}@media(prefers-color-scheme:dark)"
            "{body{background:#101114}}</style></head><body>" + self.html() + "</body></html>"
        )
        write_aside(path, lambda part: part.write_text(page, encoding="utf-8"))
        return path


def shelf(views: Sequence[View], label: str) -> View:
    """Several views of one kind, of which a reader chooses one by its title; the first is shown.

    label: what is chosen ("Trace"). Raises ValueError for no view and for views of two kinds.
    """
    if len({view.kind for view in views}) != 1:
        raise ValueError("a shelf holds views of one kind, at least one")
    held = [{"kind": view.kind, "title": view.title, **view.data} for view in views]
    return View("shelf", "", {"label": label, "views": held}, views[0].text)


@cache
def asset(name: str) -> str:
    """The text of a style or script that lies beside this file."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def token_view(
    trace: Trace, channels: Mapping[str, np.ndarray], *, title: str = "", top: int = TOP
) -> View:
    """A trace's text that lights up by what the answer reads.

    channels: name (a head, the mean of the RFHs, a contribution) → weights [answer token, token],
    what was read to write each token of the answer, which is the row of the token before it;
    weights below 0 count as a contribution, are hatched and stand for no share. Point at a token of
    the answer to see what was read for it, at any other to see what it was read for. The mean over
    the answer shows at first.
    """
    data = _tokens(trace, channels, top, facts=(), map_too=False)
    return View("tokens", title, data, _reading(trace, channels))


def trace_view(
    trace: Trace,
    channels: Mapping[str, np.ndarray],
    *,
    facts: Mapping[str, str] | None = None,
    start: tuple[str, int] | None = None,
    title: str = "",
    top: int = TOP,
) -> View:
    """One trace, one page: `token_view` with facts above it and the attention map below it.

    facts: name → value, short texts (problem, grade, tokens). start: the channel and the position
    of the token that show at first, in place of the mean over the answer. A click on a row of the
    map chooses that token of the answer. Raises ValueError for a start that is not there.
    """
    facts = tuple((facts or {}).items())
    data = _tokens(trace, channels, top, facts=facts, map_too=True)
    if start is not None:
        name, position = start
        answer = trace.segments["answer"]
        if name not in channels or not answer.start <= position < answer.stop:
            raise ValueError(f"the view has no channel {name!r} or token {position} of the answer")
        data["start"] = [list(channels).index(name), position]
    return View("tokens", title, data, _reading(trace, channels))


def head_view(
    values: np.ndarray,
    rows: Sequence[tuple[Trace, xr.DataArray]] = (),
    *,
    marks: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    quantity: str = "attention of the answer on the reasoning",
    title: str = "",
    top: int = TOP,
) -> View:
    """Layers by heads; a click on a head shows its attention on example traces.

    values: [layer, head], shares of 0 to 1, NaN without attention. rows: trace and its
    `attention_rows` (dims head, query, key; queries those that write the answer, `writing`) for the
    same heads in each trace, of which the first is shown at first; other heads show their value
    alone.
    marks: a kind of `plots.HEAD_MARKS` → (layer, head) pairs.
    """
    values = np.asarray(values, dtype=float)
    marks = dict(marks or {})
    unknown = [kind for kind in marks if kind not in HEAD_MARKS]
    if unknown:
        raise ValueError(f"unknown kind of head {unknown}; the book marks {list(HEAD_MARKS)}")
    kept = [_heads_of(weights) for _, weights in rows]
    if any(heads != kept[0] for heads in kept):
        raise ValueError("the rows must hold the same heads in every trace")
    maps = [
        {
            "trace": _trace(trace, asked(trace)),
            "channels": [_channel("", w, trace, top, shares=False) for w in weights.values],
        }
        for trace, weights in rows
    ]
    largest = np.unravel_index(np.nanargmax(values), values.shape)
    start = kept[0][0] if kept else largest
    return View(
        "heads",
        title,
        {
            "values": [[None if np.isnan(v) else float(f"{v:.4g}") for v in row] for row in values],
            "marks": {kind: [[int(i) for i in head] for head in h] for kind, h in marks.items()},
            "maps": maps,
            "kept": kept[0] if kept else [],
            "quantity": quantity,
            "start": [int(i) for i in start],
            "covers": _covers([(w, top) for _, rows_ in rows for w in rows_.values]),
        },
        f"Map of {values.shape[0]} layers by {values.shape[1]} heads: {quantity}. Mean "
        f"{np.nanmean(values):.2g}, largest {values[largest]:.2g} at {head_name(*largest)}.",
    )


def _heads_of(weights: xr.DataArray) -> list[list[int]]:
    pairs = zip(weights.coords["layer"].values, weights.coords["head_index"].values, strict=True)
    return [[int(layer), int(head)] for layer, head in pairs]


def patch_view(
    metrics: xr.Dataset, answers: tuple[str, str], *, layers: Sequence[int] | None = None, title=""
) -> View:
    """A patch grid to click through: what was patched, and both answers' probabilities before and
    after it.

    metrics: `patch_metrics` over (layer, position) of a pair that knows its tokens. answers: text
    of the clean and of the corrupted answer.
    """
    if metrics["effect"].dims != ("layer", "position"):
        raise ValueError(
            f"the grid has the dims {metrics['effect'].dims}; a view shows (layer, position): "
            "choose one head with metrics.sel(head=…)"
        )
    missing = {"token", "corrupted_token"} - set(metrics.coords)
    if missing:
        raise ValueError(f"the metrics lack {sorted(missing)}: build the pair with its token texts")
    effect = metrics["effect"].values
    differs = metrics.coords["token"].values != metrics.coords["corrupted_token"].values
    told = np.where(differs | ~differs.any(), effect, -np.inf)  # what the view opens on
    layer, column = np.unravel_index(told.argmax(), effect.shape)
    token, number = (metrics.coords[name].values[column] for name in ("token", "position"))
    return View(
        "patch",
        title,
        {
            "effect": metrics["effect"].values.round(4).tolist(),
            "probability": metrics["probability"].values.round(4).tolist(),
            "before": [float(p) for p in metrics.attrs["receiver_probability"]],
            "flip": metrics["flip"].values.astype(bool).tolist(),
            "answers": list(answers),
            "clean": metrics.coords["token"].values.tolist(),
            "corrupted": metrics.coords["corrupted_token"].values.tolist(),
            "positions": metrics.coords["position"].values.tolist(),
            "layers": metrics.coords["layer"].values.tolist(),
            "direction": metrics.attrs["direction"],
        },
        f"Patch grid of {effect.shape[0]} layers by {effect.shape[1]} tokens. The largest effect "
        f"at a token that differs, {told.max():.2f}, is that of “{show_token(str(token))}” (token "
        f"{number}) before layer {metrics.coords['layer'].values[layer]}.",
    )


_MARK = re.compile(r"<[｜|][^<>]*[｜|]>|</?\w+>")  # of a chat template


def asked(trace: Trace, most: int = 60) -> str:
    """The problem of a trace in its own words, at most `most` characters, as its name in a view."""
    pieces = _MARK.split(trace.segment_text("prompt"))
    return textwrap.shorten(max(pieces, key=len), most, placeholder=" …")


def writing(trace: Trace) -> slice:
    """The tokens from which the answer is written: each one before a token of the answer."""
    answer = trace.segments["answer"]
    return slice(answer.start - 1, answer.stop - 1)


# --- packing ---------------------------------------------------------------------------------


def _tokens(trace, channels, top, facts, map_too) -> dict:
    if not channels:
        raise ValueError("no channel: give at least one, name → weights [answer token, token]")
    return {
        "trace": _trace(trace, ""),
        "channels": [_channel(name, w, trace, top) for name, w in channels.items()],
        "facts": [[name, str(value)] for name, value in facts],
        "map": map_too,
        "covers": _covers([(w, top) for w in channels.values()]),
    }


def _reading(trace: Trace, channels: Mapping[str, np.ndarray]) -> str:
    """What the answer reads most through the first channel, in words."""
    name, weights = next(iter(channels.items()))
    read = np.asarray(weights).mean(axis=0)
    said = [i for i in np.argsort(-np.abs(read)) if trace.tokens[i].strip()]
    most = said[:5]
    heaviest = ", ".join(f"“{show_token(trace.tokens[i])}” at {i}" for i in most)
    return (
        f"A trace of {len(trace)} tokens. Through {name} the answer reads, on average over its "
        f"tokens, most of all: {heaviest}."
    )


def _trace(trace: Trace, title: str) -> dict:
    return {
        "tokens": [plain_tag(token) for token in trace.tokens],
        "segments": [[name, s.start, s.stop] for name, s in trace.segments.items()],
        "labels": SEGMENT_LABELS,
        "cues": [[cue.word, cue.position] for cue in cues(trace)],
        "sentences": [[s.start, s.stop] for s in sentences(trace)],
        "title": title,
    }


def _covers(channels: Sequence[tuple[np.ndarray, int]]) -> list | None:
    """[weights kept a row, the mean share of a row's attention that they are], or None.

    None where nothing is left out, or where no channel is attention (a contribution has no whole).
    """
    found = [(np.asarray(w, dtype=np.float32), top) for w, top in channels]
    cut = [(w, top) for w, top in found if top < w.shape[1] and (w >= 0).all()]
    if not cut:
        return None
    kept = [np.sort(w, axis=1)[:, -top:].sum(axis=1) / w.sum(axis=1) for w, top in cut]
    return [cut[0][1], round(float(np.nanmean(np.concatenate(kept))), 3)]


def _channel(name: str, weights: np.ndarray, trace: Trace, top: int, shares: bool = True) -> dict:
    """The `top` heaviest weights of each row: places in 8 or 16 bits, parts of the heaviest in 8.

    So a weight is off by at most 1/510 of its row's heaviest (1/254 where some are negative).
    """
    weights = np.asarray(weights, dtype=np.float32)
    answer = trace.segments["answer"]
    expected = (answer.stop - answer.start, len(trace))
    if weights.shape != expected:
        raise ValueError(
            f"{name or 'rows'}: weights are {weights.shape}, not [answer, token] = {expected}"
        )
    if len(trace) > np.iinfo(np.uint16).max:
        raise ValueError(f"a view holds at most 65,535 tokens, the trace has {len(trace)}")
    if not np.isfinite(weights).all():
        raise ValueError(f"{name or 'rows'}: some weights are NaN or infinite")
    top = min(top, len(trace))
    keys = np.argpartition(-np.abs(weights), top - 1, axis=1)[:, :top]
    kept = np.take_along_axis(weights, keys, axis=1)
    scale = np.maximum(np.abs(kept).max(axis=1), np.finfo(np.float32).tiny)
    signed = bool((weights < 0).any())
    steps, kind = (127, np.int8) if signed else (255, np.uint8)
    parts = np.rint(kept / scale[:, None] * steps).astype(kind)
    packed = {
        "name": name,
        "signed": signed,
        "first": answer.start,
        "rows": expected[0],
        "top": top,
        "keys": _base64(keys.astype("<u1" if len(trace) <= NARROW else "<u2")),
        "parts": _base64(parts),
        "scale": [float(f"{s:.3g}") for s in scale],
    }
    if shares and not signed:
        sums = np.stack([weights[:, s].sum(axis=1) for s in trace.segments.values()], axis=1)
        packed["shares"] = _base64(np.rint(np.clip(sums, 0, 1) * 255).astype(np.uint8))
    return packed


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
