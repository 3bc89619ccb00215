"""Are they heads for reasoning? The same borders laid over texts that hold none.

What remains of a ranking of heads on such a text is owed to places alone: to where the reasoning
stands, not to what it says. Shown in stage 04.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from r2a_utils.attention.heads import rank_heads
from r2a_utils.attention.mass import segment_mass
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import bootstrap_mean_intervals
from r2a_utils.texts.tokens import bos_id
from r2a_utils.texts.trace import Trace, encode, token_texts

# No tokenizer averages more characters a token: so much text is always long enough.
_CHARACTERS_A_TOKEN, _REPEATS = 16, 40


@dataclass(frozen=True)
class OnOtherText:
    """A ranking of heads on another text beside that on the traces.

    spearman: correlation of all heads' masses; shared: of the top k heads; mean_mass of the given
    heads there; excess: how much more they read on each trace than under its borders on the other
    text (low to high: 95 % bootstrap over n traces); largest: the largest mass of any head there.
    """

    spearman: float
    shared: int
    mean_mass: float
    excess: float
    low: float
    high: float
    largest: float
    n: int


def as_generic_text(trace: Trace, passage: str, tokenizer: PreTrainedTokenizerBase) -> Trace:
    """A trace's borders laid over another text: the same lengths, none of the meaning.

    The passage is cut to the trace's length. Raises ValueError for one that is shorter.
    """
    ids = [bos_id(tokenizer), *encode(tokenizer, passage)][: len(trace)]
    if len(ids) < len(trace):
        raise ValueError(
            f"the passage has {len(ids)} tokens, the trace {trace.problem_id} {len(trace)}: give a "
            "longer passage"
        )
    return replace(trace, token_ids=tuple(ids), tokens=tuple(token_texts(ids, tokenizer)))


def on_other_text(
    model: ReasoningModel,
    mass: Float[xr.DataArray, "trace layer head from_segment to_segment"],
    traces: Sequence[Trace],
    text: str,
    heads: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
) -> OnOtherText:
    """Rank the heads on `text` under the borders of some traces, and compare with `mass`.

    mass: of the traces, in their order (it may hold more). The text starts at another sentence for
    each trace and is repeated as often as need be. heads: those found on the traces; as many are
    ranked on the other text.
    """
    pieces, found = text.split(". "), []
    for i, trace in enumerate(traces):
        turned = ". ".join(np.roll(pieces, -i)) + ". "
        enough = (turned * _REPEATS)[: _CHARACTERS_A_TOKEN * len(trace)]
        found.append(as_generic_text(trace, enough, model.tokenizer))
    generic = segment_mass(model, found)
    again = rank_heads(generic, k=len(heads), seed=seed)[["layer", "head"]]
    read = [m.sel(from_segment="answer", to_segment="reasoning") for m in (mass, generic)]
    layers, places = np.transpose(list(heads))
    both = [values[: len(found)].values[:, layers, places] for values in read]
    fewer = (both[0] - both[1]).mean(axis=1)
    low, high = bootstrap_mean_intervals(fewer, seed=seed)
    here, there = (values.mean("trace").to_series() for values in read)
    return OnOtherText(
        spearman=here.corr(there, method="spearman"),
        shared=len(pd.DataFrame(list(heads), columns=["layer", "head"]).merge(again)),
        mean_mass=float(np.mean([there[head] for head in heads])),
        excess=float(fewer.mean()),
        low=float(low),
        high=float(high),
        largest=float(there.max()),
        n=len(found),
    )
