"""Where a model rests the attention that it has no use for: its sink, found and not assumed.

Mostly it is the first token, whatever that is, but not in every model, and some have none. It is
looked for once for each model, over a short text that holds no reasoning. What is left of a mass
without it is heads.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from r2a_utils.attention.prose import PROSE
from r2a_utils.attention.weights import attention_rows
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture
from r2a_utils.texts.tokens import encode, first_ids, token_texts

TOKENS = 64
"""Tokens of the text; keys of the first half are watched by the queries of the second."""
FIRST_SENTENCES = (0, 3, 6)
"""Where the text begins: a key that is looked at for its word is not at the same place in all."""
TIMES_UNIFORM = 5
"""How often a sink draws what a uniform head would give it.

In smollm2-135m the first token draws 18 times as much and the next key 2 times; in the bundled
model, and in twins of both with random weights, no key draws 1.5 times as much.
"""

_SINKS: WeakKeyDictionary[torch.nn.Module, Sink] = WeakKeyDictionary()


@dataclass(frozen=True)
class Sink:
    """The key that most attention rests on in a text that says nothing of interest.

    position: its token of the text, from 0; None where no key is a sink. token: its text; is_bos:
    whether it is the tokenizer's BOS (a model that has none reads another token first, which is
    foreign to it as a beginning). share: the attention on the key with most of it, mean over heads;
    times_uniform: over what a head would give it that looks at everything alike; least: from how
    often on it is a sink.
    """

    position: int | None
    token: str
    is_bos: bool
    share: float
    times_uniform: float
    least: float = TIMES_UNIFORM


def find_sink(model: ReasoningModel) -> Sink:
    """The key position with most attention over a short generic text, if it is a sink.

    Means run over all heads of the layers that attend, over the queries of the text's second half
    and over beginnings at several sentences (`FIRST_SENTENCES`). A sink draws at least
    `TIMES_UNIFORM` times the attention of a uniform head. Each model is asked once. Stages 03, 04.
    """
    if model.hf not in _SINKS:
        _SINKS[model.hf] = _look(model)
    return _SINKS[model.hf]


def _look(model: ReasoningModel) -> Sink:
    n = model.n_heads
    heads = [(layer, head) for layer in architecture(model).attending for head in range(n)]
    sentences, first = PROSE.split(". "), first_ids(model.tokenizer)
    texts = [
        [*first, *encode(model.tokenizer, ". ".join(np.roll(sentences, -start)))][:TOKENS]
        for start in FIRST_SENTENCES
    ]
    half = TOKENS // 2
    seen = [attention_rows(model, ids, heads, slice(half, TOKENS)).values for ids in texts]
    share = np.mean([rows[:, :, :half].mean(axis=(0, 1)) for rows in seen], axis=0)
    uniform = np.mean(1 / np.arange(half + 1, TOKENS + 1))
    place = int(share.argmax())
    times = float(share[place] / uniform)
    ids = texts[0]
    return Sink(
        position=place if times >= TIMES_UNIFORM else None,
        token=token_texts(ids, model.tokenizer)[place],
        is_bos=ids[place] == model.tokenizer.bos_token_id,
        share=float(share[place]),
        times_uniform=times,
    )
