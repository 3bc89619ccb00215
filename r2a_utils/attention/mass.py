"""What a trace's tokens look at: attention masses between token sets, exact and in linear memory.

The mass of a query on a set of keys is attention whose values are replaced by the set's 0/1
indicator: `softmax(q kᵀ) · 1_set`. The indicators ride along with the model's own values (see
`models.hooks.read_marks`), so that no token × token matrix exists for any head. Where that is not
exact (`engine/oracle.py` asks each model once), masses are summed from the weights that the
family's eager attention forms. Single rows, where they are wanted, are weights.py's; its functions
can be had from here.

This file knows segments and token sets. It does not know which heads matter (heads.py) nor how a
model is entered (models/hooks.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from r2a_utils.attention.heads import LEARNED_SINK
from r2a_utils.attention.sinks import find_sink
from r2a_utils.attention.weights import (
    attention_profile,
    attention_rows,
    checked_ids,
    tolerance,
    trace_label,
)
from r2a_utils.engine.oracle import has_learned_sink, marks_fault
from r2a_utils.models.hooks import most_marks, read_marks, read_weights
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture
from r2a_utils.runs.folder import write_array
from r2a_utils.runs.pieces import kept_in_pieces
from r2a_utils.texts.trace import Trace

__all__ = ["attention_profile", "attention_rows", "segment_mass", "token_set_mass"]

Tokens = slice | Sequence[int] | np.ndarray

# A batch's activations grow with its tokens and not with its traces; beyond this many tokens a
# larger batch is no faster, on a CPU or a GPU, and a longer trace runs alone.
_BATCH_TOKENS = 8192


def segment_mass(
    model: ReasoningModel,
    traces: Sequence[Trace],
    *,
    batch_size: int = 16,
    folder: str | os.PathLike | None = None,
) -> Float[xr.DataArray, "trace layer head from_segment to_segment"]:
    """Mean attention that the tokens of one segment pay to another, for every head.

    `m(S→T) = 1/|S| Σ_{i∈S} Σ_{j∈T} A_ij` (the paper's segment attention): the masses of a head from
    one segment sum to 1, and are 0 on later segments. Returns float32 with the dims (trace, layer,
    head, from_segment, to_segment); `trace` holds problem ids, or numbers where ids repeat;
    `segment_start` and `segment_stop` are each segment's token borders; where some layers look
    back at a window only, `window` [layer] has its tokens, 0 for a layer that sees all, and where
    some look back to the start of their chunk of the text only, `chunk` [layer] likewise; `sink` is
    the token on which the model rests attention (`find_sink`), -1 where none is found; where it is
    not the first, `sink_mass` [trace, layer, head, from_segment] is what it draws. Layers
    without attention are NaN. Where heads leave attention to a learned sink, it is one more
    to_segment, `LEARNED_SINK`, without tokens. The attribute `engine` says whether masses were read
    by marks ("fast") or summed from eager weights ("plain").

    `batch_size` traces of similar length run together. With a `folder`, each trace's masses are
    kept there as soon as they are known, and a call that was killed continues where it was.

    Raises ValueError for a trace of another vocabulary, and for traces of which only some have
    worked examples in their prompt, RuntimeError where the model's attention is
    no causal softmax. Stage 03 explains.
    """
    names = list(traces[0].segments) if traces else []
    if any(list(trace.segments) != names for trace in traces):
        raise ValueError("some prompts hold worked examples and some do not: read them apart.")
    sets = [dict(trace.segments) for trace in traces]
    sink = find_sink(model).position if traces else None
    keys = sets
    if sink:  # the first token is the segment `bos`
        keys = [{**segments, "": slice(sink, sink + 1)} for segments in sets]
    masses = _masses(model, traces, sets, keys, batch_size, folder)
    masses, on_sink = masses[..., : len(names)], masses[..., len(names) :]
    rest = _checked_rest(model, masses)
    borders = [[t.segments[s].indices(len(t))[:2] for s in names] for t in traces]
    borders = np.array(borders, dtype=np.int64).reshape(-1, len(names), 2)
    targets = names
    if has_learned_sink(model):
        masses = np.concatenate([masses, rest[..., None]], axis=-1)
        targets = [*names, LEARNED_SINK]
        borders = np.pad(borders, ((0, 0), (0, 1), (0, 0)))
    dims = ("trace", "layer", "head", "from_segment")
    return xr.DataArray(
        masses,
        dims=(*dims, "to_segment"),
        coords={
            **_coordinates(model, traces),
            "from_segment": names,
            "to_segment": targets,
            **_limits(model),
            "segment_start": (("trace", "to_segment"), borders[..., 0]),
            "segment_stop": (("trace", "to_segment"), borders[..., 1]),
            "sink": -1 if sink is None else sink,
            **({"sink_mass": (dims, on_sink[..., 0])} if sink else {}),
        },
        name="segment_mass",
        attrs=_attributes(model),
    )


def token_set_mass(
    model: ReasoningModel,
    traces: Sequence[Trace],
    token_sets: Sequence[Mapping[str, Tokens]],
    *,
    queries: Sequence[Tokens] | None = None,
    batch_size: int = 16,
    folder: str | os.PathLike | None = None,
) -> Float[xr.DataArray, "trace layer head token_set"]:
    """Mean attention that each trace's query tokens pay to sets of its tokens, for every head.

    `token_sets` has a mapping for each trace, all with the same names; a set is a slice or a
    sequence of token positions, and sets may overlap (cues, sentences, numbers, shuffled borders).
    `queries` has a set of positions for each trace, by default its answer. Returns float32 with the
    dims (trace, layer, head, token_set), 0 for an empty set, NaN in layers without attention;
    attribute `engine`, `batch_size` and `folder` are as for `segment_mass`. Raises ValueError for
    sets of other names than the first trace's, and what `segment_mass` does. Stages 04 and 04b.
    """
    names = list(token_sets[0]) if token_sets else []
    for trace, sets in zip(traces, token_sets, strict=True):
        if list(sets) != names:
            raise ValueError(
                f"{trace_label(trace)}: its sets are {list(sets)}, not {names} as the first's."
            )
    queries = queries or [trace.segments["answer"] for trace in traces]
    masses = _masses(model, traces, [{"": q} for q in queries], token_sets, batch_size, folder)
    return xr.DataArray(
        masses[:, :, :, 0],
        dims=("trace", "layer", "head", "token_set"),
        coords={**_coordinates(model, traces), "token_set": names},
        name="token_set_mass",
        attrs=_attributes(model),
    )


def _masses(
    model: ReasoningModel,
    traces: Sequence[Trace],
    query_sets: Sequence[Mapping[str, Tokens]],
    key_sets: Sequence[Mapping[str, Tokens]],
    batch_size: int,
    folder: str | os.PathLike | None,
) -> Float[np.ndarray, "trace layer head query_set key_set"]:
    """Mean mass for each query set and key set: [trace, layer, head, query set, key set]."""
    if not traces:
        raise ValueError("no traces to read; collect some first (stage 01).")
    jobs = [_Job.of(model, *job) for job in zip(traces, query_sets, key_sets, strict=True)]
    files = [None if folder is None else job.file(model, Path(folder)) for job in jobs]
    known = {i for i, file in enumerate(files) if file is not None and file.is_file()}
    results = {i: np.load(files[i], allow_pickle=False) for i in known}
    with tqdm(total=len(jobs), initial=len(known), unit="trace", disable=None) as progress:
        for batch in _batches([i for i in range(len(jobs)) if i not in known], jobs, batch_size):
            masses = _batch_masses(model, [jobs[i] for i in batch])
            for i, mass in zip(batch, masses, strict=True):
                results[i] = mass
                if files[i] is not None:
                    files[i].parent.mkdir(parents=True, exist_ok=True)
                    write_array(files[i], mass)
            progress.update(len(batch))
    return np.stack([results[i] for i in range(len(jobs))])


@dataclass(frozen=True)
class _Job:
    """One trace's question: token ids [token], keys [token, set] 0/1, queries [set, token].

    A row of `queries` averages over its tokens: it sums to 1.
    """

    token_ids: Int[Tensor, " token"]
    queries: Float[Tensor, "query_set token"]
    keys: Float[Tensor, "token key_set"]

    @classmethod
    def of(cls, model, trace, query_sets, key_sets) -> _Job:
        token_ids = checked_ids(model, trace)
        queries = _indicators(len(trace), query_sets)
        if not queries.any(0).all():
            raise ValueError(
                f"{trace_label(trace)}: a set of queries is empty; name at least one token."
            )
        return cls(token_ids, (queries / queries.sum(0)).T, _indicators(len(trace), key_sets))

    def file(self, model: ReasoningModel, folder: Path) -> Path:
        digest = hashlib.sha256(f"{model.weights_sha256} {model.dtype}".encode())
        for tensor in (self.token_ids, self.queries, self.keys):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy())
        return folder / f"{digest.hexdigest()[:32]}.npy"


def _batches(indices: list[int], jobs: list[_Job], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length; longest first, so that memory fails early or never."""
    batch: list[int] = []
    for i in sorted(indices, key=lambda i: -len(jobs[i].token_ids)):
        longest = len(jobs[batch[0]].token_ids) if batch else 0
        if batch and (len(batch) == batch_size or (len(batch) + 1) * longest > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@kept_in_pieces
def _batch_masses(
    model: ReasoningModel, jobs: list[_Job]
) -> Float[np.ndarray, "trace layer head query_set key_set"]:
    """[trace, layer, head, query set, key set] of one batch.

    Shorter traces are filled up behind their last token. Attention is causal, so no token of a
    trace sees the filling, and the filling's own rows have weight 0 in every mean.
    """
    token_ids = pad_sequence([job.token_ids for job in jobs], batch_first=True)
    keys = pad_sequence([job.keys for job in jobs], batch_first=True)
    queries = pad_sequence([job.queries.T for job in jobs], batch_first=True).transpose(1, 2)

    def pool(
        marked: Float[Tensor, "trace head token mark"],
    ) -> Float[Tensor, "trace head query_set mark"]:
        means = queries[:, None].to(marked.device)
        return (means @ marked.float()).cpu()

    token_ids, keys = token_ids.to(model.device), keys.to(model.device)
    if marks_fault(model):

        def summed(
            layer: int, weights: Float[Tensor, "trace head token key"]
        ) -> Float[Tensor, "trace head query_set mark"]:
            return pool(weights.float() @ keys[:, None].to(weights.device))

        return _stacked(read_weights(model, token_ids, summed))
    columns = keys.split(most_marks(model), dim=-1)
    passes = [_stacked(read_marks(model, token_ids, c, pool)) for c in columns]
    return np.concatenate(passes, axis=-1)


def _stacked(
    layers: Sequence[Float[Tensor, "trace head query_set mark"] | None],
) -> Float[np.ndarray, "trace layer head query_set mark"]:
    """The layers side by side, those without attention as NaN."""
    missing = torch.full_like(next(found for found in layers if found is not None), torch.nan)
    return torch.stack([missing if m is None else m for m in layers], dim=1).numpy()


def _indicators(length: int, sets: Mapping[str, Tokens]) -> Float[Tensor, "{length} set"]:
    """0/1 float32 [token, set]."""
    indicators = torch.zeros(length, len(sets))
    for column, tokens in enumerate(sets.values()):
        if not isinstance(tokens, slice):
            tokens = torch.as_tensor(tokens, dtype=torch.long)
        indicators[tokens, column] = 1.0
    return indicators


def _checked_rest(
    model: ReasoningModel, masses: Float[np.ndarray, "trace layer head segment segment"]
) -> Float[np.ndarray, "trace layer head segment"]:
    """What the masses miss of 1; RuntimeError where it is more than rounding and no sink."""
    future = np.triu(np.ones(masses.shape[-2:], dtype=bool), k=1)
    rest, attending = 1 - masses.sum(-1), list(architecture(model).attending)
    on_future = float(np.abs(masses[:, attending][..., future]).max())
    off_one = rest[:, attending]
    off_one = float((-off_one if has_learned_sink(model) else np.abs(off_one)).max())
    # Not "<" the other way round: NaN must fail too.
    if not (on_future == 0 and off_one <= tolerance(model)):
        raise RuntimeError(
            f"{model.name}: attention on later tokens is {on_future:.2g} (must be 0) and masses "
            f"miss 1 by {off_one:.2g}: its attention is no causal softmax, or it overflowed."
        )
    return rest


def _limits(model: ReasoningModel) -> dict:
    """The coordinate that the uniform null needs where layers do not see everything."""
    places = architecture(model)
    limits = {"window": places.windows, "chunk": places.chunks}
    return {
        name: ("layer", [width or 0 for width in widths])
        for name, widths in limits.items()
        if any(widths)
    }


def _attributes(model: ReasoningModel) -> dict[str, str]:
    engine = "plain" if marks_fault(model) else "fast"
    return {"model": model.name, "units": "share of a query's attention", "engine": engine}


def _coordinates(model: ReasoningModel, traces: Sequence[Trace]) -> dict:
    ids = [trace.problem_id for trace in traces]
    names = ids if all(ids) and len(set(ids)) == len(ids) else np.arange(len(ids))
    return {"trace": names, "layer": np.arange(model.n_layers), "head": np.arange(model.n_heads)}
