"""Mediation: how much of the answer goes through the states of the thought's tokens, by layer.

The thought's states in one text are exchanged for those of a donor that asks another question, all
tokens at once, and what counts is the probability that the donor's answer gains. Matched controls
are the states of a third problem's thought in the same places, before the same layers, and those of
as many tokens of the donor's question. After the CoT Mediation Index of Sathyanarayanan et al. 2026
(arXiv:2602.03994), who compare what patching thought tokens and control tokens costs; here the
direction is asked too, so that a disturbed answer is none that followed, and a control that takes
the donor's answer away is no gain of the thought. No pair is left out for what it answers. This
file knows texts and patches; which pairs can be patched token by token, `recorded_pairs.py` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from r2a_utils.causal.recorded_pairs import family_of
from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import replay, run_with_cache
from r2a_utils.engine.patches import ActivationCache, Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import bootstrap_interval, bootstrap_mean_intervals
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, encode, forced_ids, sentences

THOUGHT, CONTROL, QUESTION = "its thought", "another problem's thought", "its question"
EXCHANGED = (THOUGHT, CONTROL, QUESTION)
"""Whose states go over: the donor's thought, the control's, and the donor's question."""

MOST_LAYERS = 12
"""Layers that are patched alone; of a deeper model they are spread evenly."""

LEAST_TO_GAIN = 0.1
"""Probability. Where the donor's answer could gain less, its way is not asked for."""

Side = tuple[Problem, Trace]
Gains = Float[np.ndarray, "_pair exchanged"]
LayerGains = Float[np.ndarray, "_pair _layer exchanged"]


@dataclass(frozen=True, eq=False)
class Mediation:
    """What the donor's answer gains, a row a pair, in the order of `EXCHANGED`.

    `pairs` are the numbers of those that have a control. `together` is with all layers exchanged,
    `alone` before one of `layers` each; `own` is the probability of the donor's answer in its own
    text, `before` that in the receiving text, untouched. `tokens` is the share of the thought that
    was exchanged: of thoughts of different length the last tokens, as many as all of them have.
    """

    pairs: tuple[int, ...]
    families: tuple[str, ...]
    layers: tuple[int, ...]
    together: Gains
    alone: LayerGains
    own: Float[np.ndarray, " _pair"]
    before: Float[np.ndarray, " _pair"]
    tokens: Float[np.ndarray, " _pair"]

    @property
    def index(self) -> Float[np.ndarray, " _pair"]:
        """What the thought's states give beyond the control's, all layers exchanged.

        A control under which the donor's answer loses gives nothing, pair by pair.
        """
        return self.together[:, 0] - self.together[:, 1].clip(min=0)

    @property
    def to_gain(self) -> Float[np.ndarray, " _pair"]:
        """What the donor's answer could gain: its probability in its own text less `before`."""
        return self.own - self.before

    def curves(self, seed: int = 0) -> pd.DataFrame:
        """Mean gain and interval over pairs, by layer, as `figures.layer_curves` draws it."""
        low, high = bootstrap_mean_intervals(self.alone, seed=seed)
        frames = [
            pd.DataFrame({"curve": name, "layer": self.layers, "mean": self.alone[..., i].mean(0)})
            .assign(ci_low=low[:, i], ci_high=high[:, i])
            for i, name in enumerate(EXCHANGED)
        ]  # fmt: skip
        return pd.concat(frames, ignore_index=True)


def mediation(
    model: ReasoningModel, pairs: Sequence[tuple[Side, Side]], *, by_layer: bool = True
) -> Mediation:
    """Exchange the states of whole thoughts in the second text of each pair for the first's.

    Each text is its question, its thought, closed, and "The answer is \\boxed{". The control's
    thought is that of another pair's first text which concludes neither answer, and is not shorter
    where there is one; a pair without such a control is left out. Without `by_layer` all layers are
    exchanged at once and none alone. Stages 05 and 06b.
    """
    layers, rows, kept = _spread(model.n_layers) if by_layer else (), [], []
    for number, (donor, receiver) in enumerate(pairs):
        others = [first for i, (first, _) in enumerate(pairs) if i != number]
        control = _control(donor, receiver, others)
        if control is not None:
            rows.append(_exchanged(model, donor, receiver, control, layers))
            kept.append(number)
    shape = (len(rows), 1 + len(layers), len(EXCHANGED))
    gained = np.array([row[0] for row in rows], dtype=float).reshape(shape)
    own, before, tokens = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 3).T
    together, alone = gained[:, 0], gained[:, 1:]
    families = tuple(family_of(pairs[number][0][0]) for number in kept)
    return Mediation(tuple(kept), families, layers, together, alone, own, before, tokens)


def mediation_record(found: Mediation, seed: int = 0) -> dict:
    """What the prose quotes: the index with its interval, its parts, and the same by family.

    Means over pairs of probabilities gained; intervals are bootstraps over pairs, None for a single
    one. `verdict`: "little to gain" below `LEAST_TO_GAIN`; "thought" or "around" where the interval
    of the index less one half of what could be gained lies above or below 0; else "neither".
    Without a pair, n is 0 and all else None. Stage 05.
    """
    names = np.array(found.families, dtype=str)
    families = [
        {"family": family, **_parts(found, names == family, seed)}
        for family in dict.fromkeys(found.families)
    ]
    everything = _parts(found, np.ones(len(names), dtype=bool), seed)
    layers = list(found.layers)
    return {**everything, "verdict": _verdict(found, seed), "layers": layers, "families": families}


def mediation_table(record: Mapping) -> pd.DataFrame:
    """The rows of `mediation_record`: a family each, and all where there are several."""
    rows = [*record["families"], {"family": "all", **record}]
    table = pd.DataFrame(rows[: -1 if len(rows) == 2 else None]).set_index("family")
    return table[["n", "index", "low", "high", "thought", "control", "question", "own", "before"]]


def _verdict(found: Mediation, seed: int) -> str | None:
    if not len(found.pairs):
        return None
    if found.to_gain.mean() < LEAST_TO_GAIN:
        return "little to gain"
    low, high = bootstrap_interval(found.index - found.to_gain / 2, seed=seed)  # NaN for one pair
    return "thought" if low > 0 else "around" if high < 0 else "neither"


def _parts(found: Mediation, chosen: Bool[np.ndarray, " _pair"], seed: int) -> dict:
    n = int(chosen.sum())
    low, high = bootstrap_interval(found.index[chosen], seed=seed) if n > 1 else (None, None)
    means = {
        "index": found.index,
        "thought": found.together[:, 0],
        "control": found.together[:, 1],
        "question": found.together[:, 2],
        "own": found.own,
        "before": found.before,
        "tokens": found.tokens,
    }
    told = {name: float(values[chosen].mean()) if n else None for name, values in means.items()}
    return {"n": n, **told, "low": low, "high": high}


def _spread(n_layers: int) -> tuple[int, ...]:
    chosen = np.linspace(0, n_layers - 1, min(n_layers, MOST_LAYERS))
    return tuple(chosen.round().astype(int).tolist())


def _control(donor: Side, receiver: Side, others: Sequence[Side]) -> Trace | None:
    """Another problem's trace, whose thought is at least as long as both where there is one."""
    answers = {donor[0].answer, receiver[0].answer}
    free = [trace for problem, trace in others if problem.answer not in answers]
    if not free:
        return None
    need = min(_thought(donor[1]), _thought(receiver[1]))
    return next((t for t in free if _thought(t) >= need), max(free, key=_thought))


def _thought(trace: Trace) -> int:
    return _length(trace.segments["reasoning"])


def _exchanged(
    model: ReasoningModel, donor: Side, receiver: Side, control: Trace, layers: Sequence[int]
) -> tuple[list[list[float]], float, float, float]:
    """Gains [all layers, then each alone][exchanged], own, before, and the share of tokens."""
    (problem, trace), (_, received) = donor, receiver
    answer = tuple(encode(model.tokenizer, problem.answer))
    given, other = (_run(model, text, answer, ("resid",)) for text in (trace, control))
    cache = _run(model, received, answer)
    count = min(map(_thought, (trace, received, control)))
    questions = min(_length(each.segments["prompt"]) for each in (trace, received))
    sources = (
        ("reasoning", count, given, trace),
        ("reasoning", count, other, control),
        ("prompt", min(count, questions), given, trace),
    )
    runs = []
    for at in (range(model.n_layers), *((layer,) for layer in layers)):
        for segment, n, states, source in sources:
            start, stop = received.segments[segment].stop - n, source.segments[segment].stop
            patches = tuple(
                Patch("resid", layer, start, states.activations["resid"][layer][stop - n : stop])
                for layer in at
            )
            runs.append(PatchedRun(patches))
    after = replay(model, cache, runs, lambda logits: answer_scores(logits, [answer])[:, 0, 0])
    own, before = (
        float(answer_scores(run.logits[None], [answer])[0, 0, 0].exp()) for run in (given, cache)
    )
    gained = (after.exp() - before).reshape(-1, len(sources)).tolist()
    return gained, own, before, count / _thought(received)


def _run(
    model: ReasoningModel, trace: Trace, answer: tuple[int, ...], components: Sequence[str] = ()
) -> ActivationCache:
    """The text up to the box and into the answer, read where each token of it is foretold."""
    ids = forced_ids(trace, model.tokenizer, len(sentences(trace)), tags=model.tags)
    last = len(ids) - 1
    read = range(last, last + len(answer))
    return run_with_cache(model, (*ids, *answer[:-1]), components, read)


def _length(part: slice) -> int:
    return part.stop - part.start
