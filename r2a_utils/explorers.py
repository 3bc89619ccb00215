"""Explorers for a notebook with a kernel: controls around the views, live on the reader's model.

Each explorer shows itself as widgets. `static()` gives what it shows for the controls as they
stand, as plain HTML; `shelf()` gives what needs no kernel: up to `SHELF` examples to choose from,
that one first. A notebook keeps the shelf beside the widgets, and a page without a kernel, the
book's for one, shows it. What the controls ask for is measured anew; this file itself measures
nothing.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import xarray as xr

from r2a_utils import figures
from r2a_utils.attention.logit_attribution import head_contributions
from r2a_utils.attention.mass import attention_rows, segment_mass
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_metrics
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.figures.views import (
    TOP,
    View,
    asked,
    head_view,
    patch_view,
    shelf,
    trace_view,
    writing,
)
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import CONDITIONS, Trace, answer_span, cues

Head = tuple[int, int]
LAST_TOKENS = 8  # before the answer, always among the patched positions
EXAMPLES = 2  # traces on which a chosen head is shown
SHELF = 10  # examples that a page without a kernel has to choose from, at most
SHELF_HEADS = 3  # of which each trace there has the reading by itself, beside that of all together
MAP_TOP = 8  # weights kept a row of a head's map: many heads share a page's data
# Of a page's 1.5 MB, with the theme, the figures and the text beside it, for one explorer.
HEADS_BYTES, TRACE_BYTES = 400_000, 250_000
LEAST_TOP = 6  # weights a row below which fewer traces are kept rather than fewer weights
WEIGHT_BYTES, ROW_BYTES = 4, 16  # in the page: of one weight, and of a row beside its weights
TOKEN_BYTES = 12  # in the page: of one token's text


@dataclass(frozen=True)
class Panels:
    """Figures and views one below the other, as one piece of HTML."""

    parts: tuple

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)


class Explorer:
    """Controls, and what `show(**values)` makes of them.

    Shows at once what the controls ask for, and again when one of them changes or, with a `button`,
    when that is pressed. What `show` refuses with a ValueError appears as its message, in place of
    the last picture. `keep` makes what a page without a kernel shows, from the same values; without
    it that is the last picture.
    """

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        show: Callable[..., View | Panels],
        button: str | None = None,
        keep: Callable[..., View] | None = None,
    ):
        self.controls = dict(controls)
        self._show = show
        self._keep = keep or show
        self._message = widgets.HTML()
        self._output = widgets.Output()
        above = list(self.controls.values())
        if button is None:
            for control in above:
                control.observe(self._update, names="value")
        else:
            self._button = widgets.Button(description=button, button_style="primary")
            self._button.on_click(self._update)
            above.append(self._button)
        rows = widgets.HBox(above, layout=widgets.Layout(flex_flow="row wrap"))
        self.widget = widgets.VBox([rows, self._message, self._output])
        self._update()

    def static(self) -> View | Panels:
        """What the explorer shows for the controls as they stand, without widgets or kernel."""
        return self._show(**self._values())

    def shelf(self) -> View | Panels:
        """What a page without a kernel shows: examples to choose from, the one that stands first.

        Raises ValueError where the explorer shows a message.
        """
        return self._keep(**self._values())

    def _values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def _update(self, _=None) -> None:
        self._message.value = "<i>working…</i>"
        try:
            shown = self.static()
        except ValueError as error:
            self._message.value = self._plain = f"<b>{html.escape(str(error))}</b>"
            self._output.outputs = ()
            return
        self._message.value, self._plain = "", shown._repr_html_()
        # Put there, not displayed into it: a client without widgets would have to play along.
        data = {"text/html": self._plain, "text/plain": repr(shown)}
        self._output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    def _repr_mimebundle_(self, **options) -> dict:
        """The widgets, and for whoever has no kernel the shelf as plain HTML."""
        try:
            plain = self.shelf()._repr_html_()
        except ValueError:  # the controls ask for what cannot be shown, which the message says
            plain = self._plain
        return {**self.widget._repr_mimebundle_(**options), "text/html": plain}


ASKED = Sampling(512)


def ask_explorer(
    model: ReasoningModel,
    heads: Sequence[Head],
    question: str,
    *,
    sampling: Sampling = ASKED,
    prompt_style: str = "chat",
    system: str = "",
    without: str = "finished",
) -> Explorer:
    """Type a problem; the model answers with and without reasoning, and its attention is shown.

    heads: (layer, head) pairs whose reading the token view shows, the Reasoning-Focus Heads say.
    An empty text appears as a message, not as an error.
    """
    text = widgets.Textarea(value=question, description="Problem", layout={"width": "42rem"})

    def show(question: str) -> Panels:
        if not question.strip():
            raise ValueError("type a problem first")
        problem = Problem(id="typed", question=question.strip())
        traces = {
            figures.CONDITION_LABELS[condition]: collect_traces(
                model,
                [problem],
                condition,
                sampling=sampling,
                prompt_style=prompt_style,
                system=system,
                without=without,
            )[0]
            for condition in CONDITIONS
        }
        mass = segment_mass(model, list(traces.values()))
        shares = mass.sel(from_segment="answer").mean(["layer", "head"]).values
        bars = figures.segment_shares(dict(zip(traces, shares, strict=True)))
        top = _most_weights(list(traces.values()), len(heads) + 2, TRACE_BYTES)
        views = [
            _trace_page(model, trace, heads, len(heads), label.capitalize(), top)
            for label, trace in traces.items()
        ]
        return Panels((bars, *views))

    return Explorer({"question": text}, show, button="Ask both ways")


def trace_explorer(
    model: ReasoningModel,
    traces: Sequence[Trace],
    heads: Sequence[Head],
    facts: Callable[[Trace], Mapping[str, str]] = lambda _: {},
) -> Explorer:
    """One trace, one page: choose a trace, see what its answer reads through the given heads.

    facts: what else is known of a trace (name → short text), to stand above its text.
    """

    def show(trace: int) -> View:
        return pages([traces[trace]], len(heads))[0]

    def keep(trace: int) -> View:
        some = _first(traces, trace)
        costs = [_bytes_of(t, SHELF_HEADS + 2, LEAST_TOP) for t in some]
        fitting = some[: max(1, _fitting(costs, TRACE_BYTES))]
        return shelf(pages(fitting, SHELF_HEADS), "Trace")

    def pages(some: Sequence[Trace], single: int) -> list[View]:
        top = _most_weights(some, single + 2, TRACE_BYTES)
        return [_trace_page(model, t, heads, single, asked(t), top, facts(t)) for t in some]

    return Explorer({"trace": _choice("Trace", traces)}, show, keep=keep)


def head_explorer(
    model: ReasoningModel,
    traces: Sequence[Trace],
    mass: xr.DataArray,
    heads: Sequence[Head],
    *,
    marks: Mapping[str, Sequence[Head]] | None = None,
) -> Explorer:
    """The map of all heads; choose traces and any head to see its attention there.

    mass: segment masses of the model, for the map. heads: those whose maps can be clicked without
    a kernel, as far as `HEADS_BYTES` hold the first of them; layer and head add any other one. At
    first, the first `EXAMPLES` traces are chosen; the shelf goes on with those behind them. Raises
    ValueError for no trace.
    """
    values = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
    values = values.transpose("layer", "head").values

    def show(examples: Sequence[int], layer: int, head: int) -> View:
        if not examples:
            raise ValueError("choose a trace")
        texts, maps = (sum(_bytes_of(traces[i], n, MAP_TOP) for i in examples) for n in (0, 1))
        most = max(1, (HEADS_BYTES - texts) // (maps - texts))
        chosen = list(dict.fromkeys([(layer, head), *(tuple(map(int, h)) for h in heads)]))[:most]
        rows = [
            (traces[i], attention_rows(model, traces[i], chosen, writing(traces[i])))
            for i in examples
        ]
        return head_view(values, rows, marks=marks, title="Layers by heads", top=MAP_TOP)

    def keep(examples: Sequence[int], layer: int, head: int) -> View:
        others = [i for i in range(len(traces)) if i not in examples]
        kept = [*examples, *others][:SHELF] if examples else ()
        # a trace more is worth a head less, as long as a quarter of the heads can be clicked
        costs = [_bytes_of(traces[i], max(1, len(heads) // 4), MAP_TOP) for i in kept]
        return show(kept[: max(1, _fitting(costs, HEADS_BYTES))], layer, head)

    layer, head = (
        map(int, heads[0]) if heads else np.unravel_index(np.nanargmax(values), values.shape)
    )
    controls = {
        "examples": widgets.SelectMultiple(
            options=_options(traces),
            value=tuple(range(min(EXAMPLES, len(traces)))),
            description="Traces",
        ),
        "layer": _number("Layer", layer, model.n_layers),
        "head": _number("Head", head, model.n_heads),
    }
    return Explorer(controls, show, keep=keep)


def patch_explorer(
    model: ReasoningModel, clean: Sequence[Trace], corrupted: Sequence[Trace]
) -> Explorer:
    """Pick a clean and a corrupted trace and patch every layer where they differ; click a cell.

    Traces that cannot be aligned without padding, or between which the model sees no difference,
    are refused with the reason, as a message. At first, the first pair is chosen. Raises ValueError
    for no trace.
    """

    def show(clean_trace: int, corrupted_trace: int) -> View:
        pair = ContrastPair.from_traces(clean[clean_trace], corrupted[corrupted_trace])
        last = [p for p in pair.alignment if p >= len(pair) - LAST_TOKENS]
        metrics = patch_metrics(model, pair, sorted({*pair.differing_positions, *last}))
        answers = tuple(model.tokenizer.decode(ids).strip() for ids in pair.answers)
        name = f"{asked(clean[clean_trace])} {answers[0]} or {answers[1]}?"
        return patch_view(metrics, answers, title=name)

    def keep(clean_trace: int, corrupted_trace: int) -> View:
        """The chosen pair, and those that stand side by side in the two lists."""
        views = [show(clean_trace, corrupted_trace)]
        for i in range(min(len(clean), len(corrupted))):
            if i == clean_trace == corrupted_trace or len(views) == SHELF:
                continue
            with suppress(ValueError):  # not to be aligned
                views.append(show(i, i))
        return shelf(views, "Pair")

    controls = {
        "clean_trace": _choice("Clean", clean),
        "corrupted_trace": _choice("Corrupted", corrupted),
    }
    return Explorer(controls, show, button="Patch", keep=keep)


def _trace_page(
    model, trace: Trace, heads: Sequence[Head], single: int, title: str, top: int, known=()
) -> View:
    """What all heads read together and give, and what the first `single` of them read."""
    rows = attention_rows(model, trace, heads, writing(trace))
    channels = {f"mean of {len(heads)} heads": rows.mean("head").values}
    channels |= {
        figures.head_name(*head): row.values
        for head, row in zip(heads[:single], rows[:single], strict=True)
    }
    with suppress(ValueError):  # a family whose heads have no shares in the logits
        given = head_contributions(model, trace, heads).sum("head").values
        channels[f"contribution of {len(heads)} heads to writing the token (nats)"] = given
    reasoning = trace.segments["reasoning"]
    facts = dict(known) | {
        "Answer": extract_answer(trace.answer_text) or "none boxed",
        "Tokens": f"{len(trace)}, of which reasoning {reasoning.stop - reasoning.start}",
        "Cues": str(len(cues(trace))),
    }
    start = _most_telling(trace, heads[:single], rows[:single])
    return trace_view(trace, channels, facts=facts, start=start, title=title, top=top)


def _most_telling(trace: Trace, heads: Sequence[Head], rows: xr.DataArray) -> tuple[str, int]:
    """The box's first token, or where there is none the answer's, and its head for the reasoning.

    That is the head that looks at the reasoning most while the token is written.
    """
    answer = trace.segments["answer"]
    try:
        position = answer_span(trace).start
    except ValueError:
        position = answer.start
    read = rows.values[:, position - answer.start, trace.segments["reasoning"]].sum(axis=-1)
    return figures.head_name(*heads[int(read.argmax())]), position


def _answer_length(trace: Trace) -> int:
    return trace.segments["answer"].stop - trace.segments["answer"].start


def _first(traces: Sequence[Trace], chosen: int) -> list[Trace]:
    """At most `SHELF` traces, the chosen one first, the others in their order."""
    return [traces[chosen], *(t for i, t in enumerate(traces) if i != chosen)][:SHELF]


def _bytes_of(trace: Trace, channels: int, top: int) -> int:
    """What so many channels of a trace, and its text, take in a page."""
    rows = channels * _answer_length(trace)
    return rows * (WEIGHT_BYTES * top + ROW_BYTES) + TOKEN_BYTES * len(trace)


def _fitting(costs: Sequence[int], most: int) -> int:
    """How many of the first fit together."""
    return int((np.cumsum(costs) <= most).sum())


def _most_weights(traces: Sequence[Trace], channels: int, most: int) -> int:
    """Weights that each row may keep so that the traces fit together; one at least."""
    tops = range(TOP, 1, -1)
    fits = (top for top in tops if sum(_bytes_of(t, channels, top) for t in traces) <= most)
    return next(fits, 1)


def _choice(label: str, traces: Sequence[Trace]) -> widgets.Dropdown:
    return widgets.Dropdown(options=_options(traces), description=label, value=0)


def _options(traces: Sequence[Trace]) -> list[tuple[str, int]]:
    if not traces:
        raise ValueError("no traces to explore; collect some first (stage 01)")
    names = [f"{i}: {asked(t)} ({len(t)} tokens)" for i, t in enumerate(traces)]
    return [(name, i) for i, name in enumerate(names)]


def _number(label: str, value: int, count: int) -> widgets.BoundedIntText:
    return widgets.BoundedIntText(value=int(value), min=0, max=count - 1, description=label)
