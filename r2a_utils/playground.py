"""States of the book's playground, to a notebook and back.

The page keeps what a reader has set in its address, behind "#", and offers it as a JSON file. Both
are opened here as what the package works with: a trace, the interventions on it and, where another
state is kept beside it, the contrast pair that its grid is of. What the page itself does with a
state is in `book/assets/live/`. This file measures nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from r2a_utils.answers.no_cue import cue_token_ids
from r2a_utils.causal.interventions import Ablation, Head, Intervention, Knockout
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.collecting.decoding import Prompt, Sampling, decode
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode

PAGE = "playground.html"
MODEL = "r2a-tiny"  # that lives in the page
MOST = 400  # tokens written, as in the page
_START = {"thought": None, "reasoning": "with", "cues": "yes", "act": "none", "from": "answer"}
_START |= {"to": "thought", "heads": [], "beside": None, "patch": []}


@dataclass(frozen=True)
class OpenedState:
    """A state of the playground, opened on the model.

    `trace` is what it writes while nothing is done to its heads, `interventions` what is done to
    them. `pair` contrasts the state that is kept beside it (clean) with this one (corrupted), up
    to the token at which their answers part; `cell` is the patch that is set in its grid, as
    (layer, position in the clean sequence). Both are None where the state has none, and where
    either of the two changes heads: the page and `patch_grid` patch the model as it is.
    """

    trace: Trace
    interventions: tuple[Intervention, ...]
    pair: ContrastPair | None = None
    cell: tuple[int, int] | None = None


def read_state(source: str | Path) -> dict[str, Any]:
    """A state as plain values, from a link to the playground or from the path of its JSON file.

    Raises ValueError for a text that is neither, a state of another model and one without a
    problem.
    """
    if "#" in str(source):
        return _of_address(str(source).partition("#")[2])
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{source!r} is no link to the playground (it has no #) and no file")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("model") != MODEL:
        raise ValueError(f"{path.name} is no state of the playground, whose model is {MODEL}")
    return _checked(found)


def open_state(model: ReasoningModel, source: str | Path) -> OpenedState:
    """Open a link to the playground, or a state that was downloaded there, on the bundled model.

    `regenerate(model, opened.trace, opened.interventions, …)` writes the answer of the page,
    `patch_grid(model, opened.pair)` computes its grid. A file holds the thought that the page
    wrote; a link without one has it written here. Raises ValueError as `read_state` does, for
    another model, for a patch between states that change heads, and for a link whose thought the
    model wrote under an intervention, which only the file holds.
    """
    if model.name != MODEL:
        raise ValueError(f"the playground runs {MODEL}, not {model.name}")
    state = read_state(source)
    trace = _trace(model, state)
    interventions = _interventions(state, trace)
    if state["beside"] is None:
        return OpenedState(trace, interventions)
    if any(one["act"] != "none" and one["heads"] for one in (state, state["beside"])):
        if state["patch"]:
            raise ValueError("a state is patched into the model as it is: put back its heads first")
        return OpenedState(trace, interventions)
    pair = _pair(_trace(model, state["beside"]), trace)
    if not state["patch"]:
        return OpenedState(trace, interventions, pair)
    [[layer, position]] = state["patch"]
    places = {other: place for place, other in pair.alignment.items()}
    if position not in places:
        raise ValueError(f"token {position}, which the state patches, stands nowhere beside it")
    return OpenedState(trace, interventions, pair, (layer, places[position]))


def playground_link(
    trace: Trace,
    intervention: Intervention | None = None,
    *,
    beside: Trace | None = None,
    page: str = PAGE,
) -> str:
    """The address at which the book's playground shows a trace of the bundled model.

    `intervention` is a `Knockout` of the answer's reading of a segment in named heads, or an
    `Ablation` of heads by zero; `beside` a trace to stand beside it, to be patched from; `page` the
    address of the page itself. Raises ValueError for a trace of another model and for an
    intervention that the page does not know.
    """
    state = _of_trace(trace)
    if intervention is not None:
        state |= _of_intervention(intervention)
    if beside is not None:
        state["beside"] = _address(_of_trace(beside))
    return f"{page}#{_address(state)}"


# --- addresses ---------------------------------------------------------------------------------


def _of_address(address: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(parse_qsl(address, keep_blank_values=True))
    for name in ("heads", "patch"):
        pairs = re.findall(r"(\d+)\.(\d+)", found.get(name, ""))
        found[name] = [[int(first), int(second)] for first, second in pairs]
    if "beside" in found:
        found["beside"] = _of_address(found["beside"])
    return _checked(found)


def _address(state: Mapping[str, Any]) -> str:
    said = {name: value for name, value in state.items() if value != _START.get(name)}
    if "heads" in said:
        said["heads"] = " ".join(f"{layer}.{head}" for layer, head in said["heads"])
    return urlencode(said)


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    state = _START | dict(found)
    if not state.get("question"):
        raise ValueError("the state names no problem: take the address after the model has woken")
    if state["beside"] is not None:
        state["beside"] = _checked(state["beside"])
    return state


# --- a state's trace ---------------------------------------------------------------------------


def _trace(model: ReasoningModel, state: Mapping[str, Any]) -> Trace:
    question, thought = state["question"], state["thought"]
    if thought is None and state["reasoning"] == "with" and _acts(state, "thought"):
        raise ValueError(
            "the thought of this link was written under an intervention: download the state as "
            "JSON in the page, which holds the thought"
        )
    banned: tuple[int, ...] = ()
    if state["cues"] == "banned":
        words = cue_token_ids(model.tokenizer).values()
        banned = tuple(sorted({i for ids in words for i in ids}))
    if thought is None or state["reasoning"] == "without":
        condition = f"{state['reasoning']}_reasoning"
        sampling = Sampling(MOST, banned_ids=banned)
        problem = Problem(id="playground", question=question)
        return collect_traces(model, [problem], condition, sampling=sampling)[0]
    prompt = render_prompt(model.tokenizer, question)
    ids = prompt + encode(model.tokenizer, thought.rstrip() + "\n</think>")
    given = Prompt(tuple(ids), Problem(id="playground", question=question), "with_reasoning", 0)
    [written] = decode(model, [given], Sampling(MOST, banned_ids=banned))
    return Trace.from_ids(
        [*ids, *written.ids],
        model.tokenizer,
        model.tags,
        len(prompt),
        problem_id="playground",
        model=model.name,
    )


def _acts(state: Mapping[str, Any], where: str) -> bool:
    return state["act"] != "none" and bool(state["heads"]) and state["from"] == where


def _interventions(state: Mapping[str, Any], trace: Trace) -> tuple[Intervention, ...]:
    if state["act"] == "none" or not state["heads"]:
        return ()
    heads: tuple[Head, ...] = tuple((int(layer), int(head)) for layer, head in state["heads"])
    thought = trace.segments["reasoning"]
    # The page's thought begins behind the line break that follows the tag.
    queries = "answer" if state["from"] == "answer" else slice(thought.start + 1, len(trace))
    if state["act"] == "ablate":
        return (Ablation(heads, queries=queries),)
    keys = {"thought": "reasoning", "problem": "prompt"}.get(state["to"])
    return (Knockout(queries, keys or _line(trace, int(state["to"])), heads=heads),)


def _line(trace: Trace, number: int) -> slice:
    """The tokens of a line of the thought, counted from 1."""
    thought = trace.segments["reasoning"]
    start = thought.start + 1
    ends = [i + 1 for i in range(start, thought.stop) if trace.tokens[i].endswith("\n")]
    if not 1 <= number <= len(ends):
        raise ValueError(f"the thought has {len(ends)} lines; the state cuts line {number}")
    return slice(ends[number - 2] if number > 1 else start, ends[number - 1])


def _pair(clean: Trace, corrupted: Trace) -> ContrastPair:
    """The two as the page contrasts them: up to the token at which their answers part."""
    starts = clean.segments["answer"].start, corrupted.segments["answer"].start
    a, b = (t.token_ids[start:] for t, start in zip((clean, corrupted), starts, strict=True))
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if same is None:
        raise ValueError("both states write the same answer: there is nothing to contrast")
    stop, other = (start + same for start in starts)
    spans: tuple[tuple[int, int, int], ...] = ((0, 0, stop),)
    if stop != other:
        front = _same(clean.token_ids[:stop], corrupted.token_ids[:other])
        back = _same(clean.token_ids[front:stop][::-1], corrupted.token_ids[front:other][::-1])
        spans = ((0, 0, front), (stop - back, other - back, back))
    return ContrastPair(
        clean.token_ids[:stop],
        corrupted.token_ids[:other],
        a[same],
        b[same],
        problem_id="playground",
        model=clean.model,
        tokens=clean.tokens[:stop],
        corrupted_tokens=corrupted.tokens[:other],
        answer_texts=(clean.tokens[stop], corrupted.tokens[other]),
        segments={s: slice(i.start, min(i.stop, stop)) for s, i in clean.segments.items()},
        aligned_spans=spans,
    )


def _same(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


# --- a trace's state ---------------------------------------------------------------------------


def _of_trace(trace: Trace) -> dict[str, Any]:
    if trace.model != MODEL:
        raise ValueError(f"the playground runs {MODEL}; this trace is of {trace.model!r}")
    question = re.fullmatch(r"<｜User｜>(.*)<｜Assistant｜>", trace.segment_text("prompt"), re.S)
    if question is None:
        raise ValueError("the prompt of the trace is not that of the playground")
    if trace.condition == "without_reasoning":
        return {"question": question[1], "reasoning": "without"}
    return {"question": question[1], "thought": trace.reasoning_text.strip()}


def _of_intervention(change: Intervention) -> dict[str, Any]:
    if change.queries != "answer" or not change.heads:
        raise ValueError("the playground changes named heads while the answer is written")
    if isinstance(change, Ablation):
        if change.method != "zero":
            raise ValueError(f"the playground ablates by zero, not by {change.method}")
        return {"act": "ablate", "heads": [[*head] for head in change.heads]}
    to = {"reasoning": "thought", "prompt": "problem"}.get(str(change.keys))
    if to is None or change.kind != "renormalised":
        raise ValueError("the playground cuts the reasoning or the prompt, renormalised")
    return {"act": "cut", "to": to, "heads": [[*head] for head in change.heads]}
