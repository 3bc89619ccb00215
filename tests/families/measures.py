"""R2A on one family beside transformers alone: the largest error of each measure, or a refusal.

An error is a share of the largest number of its kind: of 1 for masses, of the largest effect in a
grid, of the largest change of a log-probability. The texts are counted that differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from families.reference import Reference
from families.zoo import Family, plain_model
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r2a_utils.attention.logit_attribution import head_contributions
from r2a_utils.attention.mass import segment_mass
from r2a_utils.attention.weights import attention_rows
from r2a_utils.causal.attribution import attribution_grid
from r2a_utils.causal.interventions import Knockout, measure, regenerate
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_grid
from r2a_utils.collecting.decoding import Prompt, Sampling, decode
from r2a_utils.engine.patches import CUT_KINDS
from r2a_utils.models.loading import load_model
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import SEGMENTS, Trace, token_texts

TOLERANCE = 1e-4
"""Float32 keeps 6e-8 of a number. Three layers of sums over some dozens of terms leave about 1e-6
of a logit, and an effect, the difference of two logits, may be a tenth of them: 1e-5. The rest is
for processors that add in another order."""

LENGTHS = ((5, 8, 5), (4, 6, 5), (6, 9, 4))
"""Tokens of prompt, reasoning and answer in the three texts."""

CHANGED = (4, 9, 13, 17, 20)
"""Where the corrupted text differs from the first; the last token is one of them."""

POSITIONS = (9, 17, 20)
"""Where patches are made."""


class Bench:
    """A family's model in transformers and in R2A, from one folder, and what both read."""

    def __init__(self, family: Family, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        self.reference = Reference(family, plain_model(family))
        self.reference.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        self.traces = [_trace(tokenizer, seed, *n) for seed, n in enumerate(LENGTHS)]
        self.ids = self.traces[0].token_ids
        self.model = load_model(folder, dtype="float32", device="cpu")

    @cached_property
    def pair(self) -> ContrastPair:
        """The first text and a corrupted one, with the answers whose logits part the most."""
        corrupted = [id + 7 if i in CHANGED else id for i, id in enumerate(self.ids)]
        before, after = (self.reference.logits(ids)[-1] for ids in (self.ids, corrupted))
        moved = before - after
        return ContrastPair(self.ids, corrupted, int(moved.argmax()), int(moved.argmin()))

    def difference(self, logits: Tensor) -> Tensor:
        """Logit of the clean answer less that of the corrupted one, at the last token."""
        (clean,), (corrupted,) = self.pair.answers
        return logits[-1, clean] - logits[-1, corrupted]

    def grid(self, **options) -> xr.DataArray:
        """The pair patched by R2A."""
        return patch_grid(self.model, self.pair, POSITIONS, min_gap=0, **options)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The difference in the corrupted text, and how far the clean one is from it."""
        ids = self.pair.corrupted_ids, self.pair.clean_ids
        corrupted, clean = (float(self.difference(self.reference.logits(i))) for i in ids)
        return corrupted, clean - corrupted


def _trace(
    tokenizer: PreTrainedTokenizerBase, seed: int, prompt: int, reasoning: int, answer: int
) -> Trace:
    source = random.Random(seed)
    words = [source.choices(range(40, 600), k=n) for n in (prompt, reasoning, answer)]
    tags = [tokenizer.encode(tag, add_special_tokens=False) for tag in ("<think>", "</think>")]
    ids = [tokenizer.bos_token_id, *words[0], *tags[0], *words[1], *tags[1], *words[2]]
    return Trace.from_ids(ids, tokenizer, problem_id=f"words-{seed}")


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest number where that is above 1.

    Both must miss the same numbers, and hold some that would show an error.
    """
    largest = np.nanmax(np.abs(expected))
    assert (np.isnan(got) == np.isnan(expected)).all() and largest > 10 * TOLERANCE
    return float(np.nanmax(np.abs(got - expected)) / max(largest, 1))


def masses(bench: Bench) -> float:
    got = segment_mass(bench.model, bench.traces)
    expected = np.full(got.shape, np.nan)
    for i, trace in enumerate(bench.traces):
        for layer, weights in bench.reference.weights(trace.token_ids).items():
            for s, queries in enumerate(trace.segments.values()):
                for t, keys in enumerate(trace.segments.values()):
                    expected[i, layer, :, s, t] = weights[:, queries, keys].sum(-1).mean(-1)
                if len(SEGMENTS) < got.shape[-1]:  # a learned sink takes the rest
                    expected[i, layer, :, s, -1] = 1 - weights[:, queries].sum(-1).mean(-1)
    return _error(got.values, expected)


def rows(bench: Bench) -> float:
    weights = bench.reference.weights(bench.ids)
    heads = [(layer, head) for layer in weights for head in range(bench.reference.n_heads)]
    got = attention_rows(bench.model, bench.ids, heads)
    return _error(got.values, torch.cat([*weights.values()]).numpy())


def patches(bench: Bench, component: str) -> float:
    reference = bench.reference
    last = reference.family.kv_heads - 1
    heads = {"z": (0, 4), "q": (1, 5), "k": (last,), "v": (last,)}.get(component)
    got = bench.grid(component=component, heads=heads)
    donor, _ = reference.activations(bench.pair.clean_ids, component)
    start, gap = bench.ends
    expected = np.full((len(reference.layers), len(heads or [None]), len(POSITIONS)), np.nan)
    for layer, values in donor.items():
        for h, head in enumerate(heads or [None]):
            columns = reference.columns(component, head, values.shape[-1])
            for p, position in enumerate(POSITIONS):
                cell = component, layer, position, values[0, position, columns], columns
                logits = reference.patched(bench.pair.corrupted_ids, *cell)
                expected[layer, h, p] = (float(bench.difference(logits)) - start) / gap
    return _error(got.values, expected.reshape(got.shape))


def attribution(bench: Bench, component: str) -> float:
    got = attribution_grid(bench.model, bench.pair, POSITIONS, component=component, min_gap=0)
    reference, (_, gap) = bench.reference, bench.ends
    if component in "qkv":
        donor, _ = reference.attended(bench.pair.clean_ids, component)
        nodes, logits = reference.attended(bench.pair.corrupted_ids, component)
    else:
        donor, _ = reference.activations(bench.pair.clean_ids, component)
        nodes, logits = reference.activations(bench.pair.corrupted_ids, component, graph=True)
    found = torch.autograd.grad(bench.difference(logits), [*nodes.values()], allow_unused=True)
    expected = np.full(got.shape, np.nan)
    for (layer, node), gradient in zip(nodes.items(), found, strict=True):
        moved = (donor[layer] - node.detach()) * (0 if gradient is None else gradient)
        moved = moved[0, ..., list(POSITIONS), :].detach() / gap
        if component == "z":
            moved = moved.unflatten(-1, (reference.n_heads, -1)).transpose(0, 1)
        place = (layer, slice(len(moved))) if component in "qkv" else layer
        expected[place] = moved.sum(-1)
    return _error(got.values, expected)


def knockouts(bench: Bench, kind: str) -> float:
    trace, reference = bench.traces[0], bench.reference
    answer, reasoning, prompt = (
        range(*trace.segments[name].indices(len(trace)))
        for name in ("answer", "reasoning", "prompt")
    )
    scored, every = slice(len(trace) - 3, len(trace)), range(reference.n_heads)
    first, heads = reference.attending[:1], [(i, h) for i in reference.attending for h in (0, 4)]
    changes = [Knockout(kind=kind), Knockout(keys="prompt", layers=tuple(first), kind=kind)]
    changes += [Knockout(heads=(head,), kind=kind) for head in heads]
    got = measure(bench.model, trace, changes, scored=scored)

    def score(logits: Tensor) -> float:
        chosen = logits.log_softmax(-1)[scored.start - 1 : -1]
        return float(chosen[range(3), trace.token_ids[scored]].sum())

    cuts = [(reference.attending, reasoning, every), (first, prompt, every)]
    cuts += [([layer], reasoning, [head]) for layer, head in heads]
    after = [score(reference.cut(trace.token_ids, i, answer, keys, h, kind)) for i, keys, h in cuts]
    return _error(got["change"], np.array(after) - score(reference.logits(trace.token_ids)))


def batches(bench: Bench) -> float:
    together = segment_mass(bench.model, bench.traces)
    alone = segment_mass(bench.model, bench.traces, batch_size=1)
    grids = [bench.grid(max_tokens=n) for n in (None, 1)]
    return max(_error(together.values, alone.values), _error(*(grid.values for grid in grids)))


def texts(bench: Bench) -> int:
    """How many differ: of three that are decoded together, and one under a knockout."""
    n, reference = 5, bench.reference
    starts = [trace.token_ids[: trace.segments["answer"].start] for trace in bench.traces]
    prompts = [Prompt(tuple(ids), Problem("", "", ""), "with_reasoning", 0) for ids in starts]
    written = {row.index: row.ids for row in decode(bench.model, prompts, Sampling(n))}
    wrong = sum(written[i] != reference.written(ids, n) for i, ids in enumerate(starts))
    trace = bench.traces[0]
    reasoning, start = range(*trace.segments["reasoning"].indices(99)), len(starts[0])

    def deaf(ids: list[int]) -> Tensor:
        layers, heads = reference.attending, range(reference.n_heads)
        return reference.cut(ids, layers, range(start, len(ids)), reasoning, heads)

    under = regenerate(bench.model, trace, [Knockout()], max_new_tokens=n)["text"][0]
    expected = token_texts(reference.written(starts[0], n, deaf), bench.model.tokenizer)
    return wrong + (under != "".join(expected))


def shares(bench: Bench) -> float:
    heads = [(layer, head) for layer in bench.reference.attending for head in (0, 4)]
    got = head_contributions(bench.model, bench.traces[0], heads, writes=[len(bench.ids) - 1])
    expected = [bench.reference.head_share(bench.ids, *head) for head in heads]
    return _error(got.sum("key").values[:, 0], np.array(expected))


MEASURES: dict[str, dict[str, Callable[[Bench], float]]] = {
    "masses": {"": masses},
    "rows": {"": rows},
    "patches": {c: partial(patches, component=c) for c in ("resid", "attn_out", "mlp_out")},
    "heads": {c: partial(patches, component=c) for c in "zqkv"},
    "knockouts": {kind: partial(knockouts, kind=kind) for kind in CUT_KINDS},
    "attribution": {
        c: partial(attribution, component=c) for c in ("resid", "attn_out", "mlp_out", *"zqkv")
    },
    "batches": {"": batches},
    "texts": {"": texts},
    "shares": {"": shares},
}
"""The columns of the table, and what each is made of."""


def measure_family(family: Family, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict:
    """The family's entry in the table: its class, engine, largest errors, and what is refused."""
    entry = {"class": type(plain_model(family)).__name__, "engine": "", "errors": {}, "refused": {}}
    try:
        bench = Bench(family, tokenizer, folder)
    except ValueError as error:
        entry["refused"]["everything"] = _sentence(error, family, folder)
        return entry
    entry["engine"] = bench.grid().attrs["engine"]
    for column, parts in MEASURES.items():
        for part, measured in parts.items():
            try:
                error = float(measured(bench))
                entry["errors"][column] = max(entry["errors"].get(column, 0.0), error)
            except (ValueError, RuntimeError) as error:
                name = f"{column} of {part}" if part else column
                entry["refused"][name] = _sentence(error, family, folder)
    return entry


def _sentence(error: Exception, family: Family, folder: Path) -> str:
    """What a refusal says; one that does not name the model is a fault, and raised again.

    Of a folder that is no model yet the error names the path, of a loaded model its last part.
    """
    if folder.name not in str(error):
        raise error
    return str(error).replace(str(folder), family.name).replace(folder.name, family.name)
