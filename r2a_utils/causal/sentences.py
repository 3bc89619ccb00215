"""Where in the reasoning the answer is decided: four measures over one axis, its sentences.

- `answer_lens`: how early, and from which layer on, the residual stream already reads as the answer
  (logit lens, nostalgebraist 2020).
- `forced_answers`: the answer forced after each sentence (early answering, Lanham et al. 2023,
  arXiv:2307.13702).
- `resampled_answers`: how often continuations sampled after each sentence end in the trace's answer
  (resampling importance, Thought Anchors, Bogdan et al. 2025, arXiv:2506.19143).
- `sentence_knockouts`: what the answer loses that cannot look at a sentence.

None of them alone says that a sentence *causes* the answer: the lens only reads, forcing writes an
answer that the model had not begun, resampling changes all that follows, and a knocked-out sentence
may have been copied into later ones. Together, on one axis, they bound it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from r2a_utils.answers.equality import same_answer
from r2a_utils.causal.interventions import Knockout, measure
from r2a_utils.causal.random_sets import own_seed, random_spans
from r2a_utils.collecting.decoding import Prompt, Sampling, decode
from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import extend, run_with_cache
from r2a_utils.models.hooks import read_residuals
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.boxed import final_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import (
    Trace,
    answer_span,
    encode,
    forced_ids,
    sentences,
    token_texts,
)

LENS_ROWS = 64
"""Residual streams that are unembedded at once: each becomes a row as long as the vocabulary."""


def answer_lens(
    model: ReasoningModel, trace: Trace, positions: Sequence[int] | None = None
) -> xr.Dataset:
    """The answer's first token, read off the residual stream by the final norm and unembedding.

    Default positions: the last token of each sentence of the reasoning, and the one before the
    answer. Variables over (layer, position): `log_probability` (nats) and `rank` (0: the likeliest
    token). Layer l is what layer l reads; the last one, `n_layers`, is what the model itself
    unembeds. Token texts are the coordinate `token`. Raises ValueError for a position that is not
    before the answer, and for an answer without a box. nostalgebraist 2020; stage 06.
    """
    span = answer_span(trace)
    if positions is None:
        positions = [sentence.stop - 1 for sentence in sentences(trace)] + [span.start - 1]
    if not all(0 <= position < span.start for position in positions):
        raise ValueError(
            f"the lens reads positions before the answer, which starts at {span.start}"
        )
    cache = run_with_cache(model, trace.token_ids[: span.start], ("resid",))
    answer = ((trace.token_ids[span.start],),)
    layers = cache.activations["resid"]
    rows = torch.cat([residual[list(positions)].to(model.device) for residual in layers])
    scores = [
        answer_scores(read_residuals(model, part)[:, None], answer)[:, 0]
        for part in rows.split(LENS_ROWS)
    ]
    table = torch.cat(scores).unflatten(0, (len(layers), len(positions))).numpy()
    dims = ("layer", "position")
    coords = {
        "layer": range(len(layers)),
        "position": list(positions),
        "token": ("position", [trace.tokens[position] for position in positions]),
    }
    variables = {
        "log_probability": (dims, table[..., 0]),
        "rank": (dims, table[..., 1].astype(np.int64)),
    }
    return xr.Dataset(variables, coords, {"answer": trace.tokens[span.start], "model": model.name})


def forced_answers(model: ReasoningModel, trace: Trace, stem: str | None = None) -> pd.DataFrame:
    """The trace's own answer, forced after no sentence, after the first, …, after the last.

    After the first `sentences` sentences stand the closing tag, the `stem` (`answer_stem` if none
    is given) and the answer. Columns:
    `sentences`, `position` (where the reasoning is cut), `log_probability` (nats) and `rank` of the
    answer, and `written`, whether greedy decoding writes it (rank 0). What it writes instead, and
    many traces at once, `early_answers` (answers) has.
    """
    answer = tuple(trace.token_ids[answer_span(trace)])
    cache = run_with_cache(model, trace.token_ids[: trace.segments["reasoning"].stop])
    rows = []
    for count, position in enumerate(_borders(trace)):
        forced = forced_ids(trace, model.tokenizer, count, stem, model.tags)[position:]
        logits = extend(model, cache, position, (*forced, *answer[:-1]))[len(forced) - 1 :]
        score = answer_scores(logits[None], (answer,))[0, 0]
        rows.append((count, position, float(score[0]), int(score[1]), bool(score[1] == 0)))
    columns = ["sentences", "position", "log_probability", "rank", "written"]
    return pd.DataFrame(rows, columns=columns)


def resampled_answers(
    model: ReasoningModel,
    trace: Trace,
    *,
    sampling: Sampling,
    samples: int = 30,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Continuations sampled after no sentence, after the first, …: how many end in the same answer.

    Columns: `sentences`, `position`, `n`, `same` (those that box the trace's answer, by the
    grader's equality), `share`, `ci_low` and `ci_high` (Wilson, 95 %), `unfinished` (cut off before
    their end: not the same, so that they lower the share), and `importance`, what the last of those
    sentences adds to the share (none for the first row). Raises ValueError for a `sampling` without
    temperature and for a trace without a box. Bogdan et al. 2025; stage 06.
    """
    if sampling.temperature == 0:
        raise ValueError(
            "resampling needs a temperature above 0: greedy continuations are all alike"
        )
    own, borders = final_answer(trace.answer_text), [_first_word(trace), *_borders(trace)[1:]]
    if own is None:
        raise ValueError(f"trace {trace.problem_id!r} boxes no answer to compare others with")
    prompts = [
        Prompt(tuple(trace.token_ids[:position]), Problem(f"{trace.problem_id} {count}", ""), "", i)
        for count, position in enumerate(borders)
        for i in range(samples)
    ]
    same, unfinished = np.zeros(len(prompts), dtype=bool), np.zeros(len(prompts), dtype=bool)
    for index, ids, finished, _ in decode(model, prompts, sampling, batch_size):
        text = "".join(token_texts(ids, model.tokenizer)).rpartition(model.tags.close)[2]
        same[index] = finished and same_answer(final_answer(text), own)
        unfinished[index] = not finished
    counts = same.reshape(len(borders), samples).sum(1)
    intervals = np.array([wilson_interval(int(count), samples) for count in counts])
    frame = pd.DataFrame({"sentences": range(len(borders)), "position": borders, "n": samples})
    frame["same"], frame["share"] = counts, counts / samples
    frame["ci_low"], frame["ci_high"] = intervals[:, 0], intervals[:, 1]
    frame["unfinished"] = unfinished.reshape(len(borders), samples).sum(1)
    frame["importance"] = frame["share"].diff()
    return frame


def shortened(trace: Trace, tokenizer: PreTrainedTokenizerBase, tags: Tags = R1_TAGS) -> Trace:
    """The trace with its reasoning kept and its answer cut to `answer_stem` and the boxed result.

    An answer that restates the solution carries the result in its own words, and knocking out the
    reasoning shows little: a short answer has to look back. Raises ValueError for an answer without
    a box. Stage 06.
    """
    ids = forced_ids(trace, tokenizer, len(sentences(trace)), tags=tags)
    ids += [*trace.token_ids[answer_span(trace)], *encode(tokenizer, "}")]
    return Trace.from_ids(
        ids,
        tokenizer,
        tags,
        prompt_length=trace.prompt_length,
        examples_stop=trace.examples_stop,
        problem_id=trace.problem_id,
        condition=trace.condition,
        model=trace.model,
        sample=trace.sample,
        meta=trace.meta,
    )


def sentence_knockouts(
    model: ReasoningModel,
    trace: Trace,
    *,
    spans: int = 20,
    seed: int = 0,
    kind: str = "renormalised",
) -> pd.DataFrame:
    """What the answer loses when its tokens cannot look at a sentence; one row a sentence.

    An answer that restates the solution need not look back: take `shortened` traces. Columns:
    `sentence`, `start`, `stop`; `change` of the answer's log-probability (nats); `random_mean`,
    `random_low`, `random_high`: mean and 5 and 95 % quantiles of the change for `spans` equally
    long random spans that leave the sentence alone (NaN where none fits). `kind` is that of
    `Knockout`.
    """
    parts = sentences(trace)
    controls: list[list[slice]] = []
    for i, part in enumerate(parts):
        try:
            own = [*own_seed(trace, seed), i]
            controls.append(random_spans(trace, part.stop - part.start, spans, own, part))
        except ValueError:
            controls.append([])
    flat = [*parts, *(span for group in controls for span in group)]
    cuts = [Knockout(keys=span, kind=kind) for span in flat]
    change = measure(model, trace, cuts)["change"].to_numpy()
    rows, offset = [], len(parts)
    for i, (part, group) in enumerate(zip(parts, controls, strict=True)):
        drawn = change[offset : offset + len(group)]
        offset += len(group)
        null = (drawn.mean(), *np.quantile(drawn, [0.05, 0.95])) if group else (np.nan,) * 3
        rows.append((i, part.start, part.stop, change[i], *null))
    columns = ["sentence", "start", "stop", "change", "random_mean", "random_low", "random_high"]
    return pd.DataFrame(rows, columns=columns)


def _borders(trace: Trace) -> list[int]:
    """Where the reasoning can be cut: before its first sentence and after each one."""
    return [trace.segments["reasoning"].start, *(part.stop for part in sentences(trace))]


def _first_word(trace: Trace) -> int:
    """Where the reasoning's first word stands, behind the line break that a template writes.

    A prompt without that line break is one that no model was trained on.
    """
    reasoning = trace.segments["reasoning"]
    words = (p for p in range(reasoning.start, reasoning.stop) if trace.tokens[p].strip())
    return next(words, reasoning.start)
