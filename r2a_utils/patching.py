"""Activation patching: contrast pairs and exact patch grids.

A *contrast pair* is a clean and a corrupted prompt-with-reasoning that end right before their answer
token.  Patching copies one activation of the *donor* run into the *receiver* run and asks how far
the answer follows.  `patch_grid` does so for every chosen layer and position, exactly: each cell
equals a full forward pass with that one activation replaced.

Semantics (those of the paper and of TransformerLens' `resid_pre`): component "resid" at layer l and
position p replaces the residual stream at the *input* of layer l, at position p only.  "attn_out"
and "mlp_out" replace what the attention or the MLP of layer l writes at p; "z" replaces one head's
vector before the output projection; "q", "k", "v" one head's projections (k and v: one key/value
head, read by all its query heads).

Every score is a log-probability of a whole answer, teacher-forced where it has several tokens:
LD = log p(clean answer) - log p(corrupted answer), which for answers of one token is the logit
difference.  The effect of a cell is (LD_patched - LD_receiver) / (LD_donor - LD_receiver): 0 where
nothing happens, 1 where the answer follows the donor entirely.  Denoising (donor clean, receiver
corrupted) gives the paper's (LD_patched - LD_corrupted) / (LD_clean - LD_corrupted); noising is the
same question asked the other way round (Zhang & Nanda 2023, arXiv:2309.16042).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr

from r2a_utils.pairs import ContrastPair
from r2a_utils.replay import COMPONENTS, HEAD_COMPONENTS, Branch, Edit, Recording, record, replay

DIRECTIONS = ("denoising", "noising")
CONTROLS = ("same_prompt", "wrong_position", "random_donor", "same_answer", "matched_noise")
"""Donors that carry no news of the other answer; `control_grid` says what each one is."""

MIN_GAP = 1.0
"""Pairs with |LD_clean - LD_corrupted| below this (in nats: a factor e in the odds) are refused.

The effect divides by the gap, so its noise grows as 1/gap; and a bfloat16 logit near 30 moves in
steps of 0.125, which at a gap of 1 is an effect of 0.1, still readable in a figure.
"""



def patch_grid(
    model,
    pair: ContrastPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    **options,
) -> xr.DataArray:
    """Effect of patching each layer and position: the paper's heat map.

    Dims (layer, position), or (layer, head, position) for z, q, k and v.  The arguments, errors and
    options are those of `patch_metrics`, of which this is the variable `effect`.
    """
    return patch_metrics(model, pair, positions, layers, component, **options)["effect"]


def patch_metrics(
    model,
    pair: ContrastPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    min_gap: float = MIN_GAP,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """Patch every (layer, position) of the receiver with the donor's activation, one at a time.

    `positions` count in the clean sequence (default: all aligned ones), `heads` applies to z, q, k
    and v (default: all).  Variables, over (layer, position) or (layer, head, position):
    `effect`, `logit_difference` (nats), `flip` (greedy decoding now writes the donor's answer and
    did not before), and with a last dim answer (clean, corrupted): `log_probability`,
    `probability`, `rank` (0: greedy decoding writes this answer; of several tokens the worst).
    Attributes: `ld_clean`, `ld_corrupted`, `noise_floor` (the effect, by rounding alone, of a
    replayed patch that changes nothing).  A cell whose donor vector equals the receiver's bit for
    bit is not run: its effect is exactly 0.

    Raises ValueError for a pair of another model, an answer outside the vocabulary, a position that
    is not aligned, an unknown layer, head, component or direction, and a gap below `min_gap`.
    Stage 05 explains.
    """
    runs = _Runs.of(model, pair, component, direction, min_gap)

    def donated(layer: int, position: int, columns: slice) -> torch.Tensor:
        return runs.donor.activations[component][layer][runs.donor_position[position], columns]

    return _sweep(model, pair, runs, donated, positions, layers, heads, max_tokens)


def control_metrics(
    model,
    pair: ContrastPair,
    control: str,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    donor_ids: Sequence[int] | None = None,
    seed: int = 0,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    min_gap: float = MIN_GAP,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """`patch_metrics` with a donor that should not move the answer, in the units of the same pair.

    - "same_prompt": the receiver itself.  Exactly 0.
    - "wrong_position": the donor's vector of another aligned position whose token does not differ,
      drawn for each position (never the first, on which attention rests).
    - "random_donor": another sequence, `donor_ids`, aligned from its end.
    - "same_answer": likewise, and the model prefers the receiver's answer after it, which is checked.
    - "matched_noise": the receiver's own vector plus Gaussian noise as long as donor - receiver.
    """
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}: choose one of {', '.join(CONTROLS)}")
    needs_donor = control in ("random_donor", "same_answer")
    if needs_donor != (donor_ids is not None):
        raise ValueError(f"control {control!r} {'needs' if needs_donor else 'takes no'} donor_ids")
    runs = _Runs.of(model, pair, component, direction, min_gap)
    donor, receiver, other = (runs.donor.activations[component], runs.receiver.activations[component], None)
    chosen = _chosen_positions(pair, positions)
    if control == "wrong_position":
        calm = [p for p in pair.alignment if p > 0 and p not in pair.differing_positions]
        draw = np.random.default_rng(seed)
        wrong = {p: int(draw.choice([q for q in calm if q != p])) for p in chosen}
    if needs_donor:
        other = record(model, donor_ids, (component,))
        shift = len(donor_ids) - len(runs.receiver_ids)
        if min(runs.receiver_position[p] for p in chosen) + shift < 0:
            raise ValueError(
                f"the other donor has {len(donor_ids)} tokens, aligned from its end it does not reach position "
                f"{min(chosen)}: patch later positions, or take a longer donor"
            )
        if control == "same_answer":
            runs.check_same_answer(model, donor_ids)
    noise = torch.Generator().manual_seed(seed)

    def donated(layer: int, position: int, columns: slice) -> torch.Tensor:
        own = receiver[layer][runs.receiver_position[position], columns]
        if control == "same_prompt":
            return own
        if control == "wrong_position":
            return donor[layer][runs.donor_position[wrong[position]], columns]
        if control == "matched_noise":
            difference = donor[layer][runs.donor_position[position], columns].float() - own.float()
            drawn = torch.randn(own.shape, generator=noise).to(own.device)
            return own + (drawn * difference.norm() / drawn.norm()).to(own.dtype)
        return other.activations[component][layer][runs.receiver_position[position] + shift, columns]

    grid = _sweep(model, pair, runs, donated, chosen, layers, heads, max_tokens)
    return grid.assign_attrs(control=control)


def screen_pairs(model, pairs: Sequence[ContrastPair], min_gap: float = MIN_GAP) -> pd.DataFrame:
    """Which pairs the model tells apart, one row a pair: keep those with |gap| >= `min_gap`.

    Columns problem_id, ld_clean, ld_corrupted, gap (= ld_clean - ld_corrupted, nats), clean_rank and
    corrupted_rank (of each run's own answer; 0 where greedy decoding writes it), kept, reason.
    """
    rows = []
    for pair in pairs:
        clean = _plain_scores(model, pair.clean_ids, pair.answers)
        corrupted = _plain_scores(model, pair.corrupted_ids, pair.answers)
        gap = _difference(clean) - _difference(corrupted)
        rows.append(
            {
                "problem_id": pair.problem_id,
                "ld_clean": _difference(clean),
                "ld_corrupted": _difference(corrupted),
                "gap": gap,
                "clean_rank": int(clean[0, 1]),
                "corrupted_rank": int(corrupted[1, 1]),
                "kept": abs(gap) >= min_gap,
                "reason": "" if abs(gap) >= min_gap else f"|LD_clean - LD_corrupted| < {min_gap:g}",
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Runs:
    """The recorded runs of one pair in one direction, and their scores.

    `receivers` maps an answer without its last token (what teacher forcing appends) to the
    recording of the receiver followed by it.  Scores are [answer, (log-probability, rank)].
    """

    component: str
    direction: str
    receivers: dict[tuple[int, ...], Recording]
    donor: Recording
    receiver_ids: tuple[int, ...]
    receiver_position: dict[int, int]
    donor_position: dict[int, int]
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    clean_scores: torch.Tensor
    corrupted_scores: torch.Tensor

    @classmethod
    def of(cls, model, pair, component, direction, min_gap) -> _Runs:
        _check(model, pair, component, direction)
        denoising = direction == "denoising"
        same = {p: p for p in pair.alignment}
        donor_ids, receiver_ids = pair.clean_ids, pair.corrupted_ids
        if not denoising:
            donor_ids, receiver_ids = receiver_ids, donor_ids
        receivers = _teacher_forced(model, receiver_ids, pair.answers, (component,))
        donors = _teacher_forced(model, donor_ids, pair.answers, (component,))
        scores = [_recorded_scores(runs, pair.answers) for runs in (donors, receivers)]
        clean, corrupted = scores if denoising else scores[::-1]
        runs = cls(
            component,
            direction,
            receivers,
            next(iter(donors.values())),
            receiver_ids,
            pair.alignment if denoising else same,
            same if denoising else pair.alignment,
            pair.answers,
            clean,
            corrupted,
        )
        if abs(runs.gap) < min_gap:
            raise ValueError(
                f"pair {pair.problem_id!r}: the model hardly tells its two runs apart, LD is "
                f"{_difference(clean):.3f} clean and {_difference(corrupted):.3f} corrupted, a gap below "
                f"{min_gap:g}: leave the pair out (screen_pairs counts such pairs)"
            )
        return runs

    @property
    def receiver(self) -> Recording:
        return next(iter(self.receivers.values()))

    @property
    def gap(self) -> float:
        return _difference(self.clean_scores) - _difference(self.corrupted_scores)

    @property
    def receiver_scores(self) -> torch.Tensor:
        return self.corrupted_scores if self.direction == "denoising" else self.clean_scores

    @property
    def donor_answer(self) -> int:
        return 0 if self.direction == "denoising" else 1

    def check_same_answer(self, model, donor_ids) -> None:
        theirs = _difference(_plain_scores(model, donor_ids, self.answers))
        ours = _difference(self.receiver_scores)
        if theirs * ours <= 0:
            raise ValueError(
                f"after the same-answer donor the model prefers the other answer (LD {theirs:.2f}, the receiver "
                f"has {ours:.2f}): choose a donor that ends before the receiver's answer"
            )


def _sweep(model, pair, runs: _Runs, donated: Callable, positions, layers, heads, max_tokens) -> xr.Dataset:
    """Run all cells of the grid and name the results."""
    component = runs.component
    positions = _chosen_positions(pair, positions)
    layers = _chosen("layer", layers, model.n_layers)
    single_heads = component in HEAD_COMPONENTS
    if heads is not None and not single_heads:
        raise ValueError(f"component {component!r} has no heads: choose one of {', '.join(HEAD_COMPONENTS)}")
    width = model.head_dim
    n_heads = model.n_kv_heads if component in ("k", "v") else model.n_heads
    heads = _chosen("head", heads, n_heads) if single_heads else [None]

    cells, branches = [], []
    own = runs.receiver.activations[component]
    for i, layer in enumerate(layers):
        for j, head in enumerate(heads):
            columns = slice(None) if head is None else slice(head * width, (head + 1) * width)
            for k, position in enumerate(positions):
                place = runs.receiver_position[position]
                value = donated(layer, position, columns)
                if not torch.equal(value, own[layer][place, columns]):
                    cells.append((i, j, k))
                    branches.append(Branch((Edit(component, layer, place, value[None], head),)))
    # One more patch that changes nothing, to see what rounding alone does.
    first = min(runs.receiver_position[p] for p in positions)
    branches.append(Branch((Edit("resid", layers[0], first, runs.receiver.activations["resid"][layers[0]][first, None]),)))

    scores = torch.empty(len(branches), 2, 2)
    for extension, recording in runs.receivers.items():
        which = [a for a, answer in enumerate(runs.answers) if answer[:-1] == extension]
        chosen = [runs.answers[a] for a in which]
        scores[:, which] = replay(
            model, recording, branches, lambda logits, chosen=chosen: _scores(logits, chosen).cpu(), max_tokens=max_tokens
        )
    before = runs.receiver_scores
    table = before.expand(len(layers), len(heads), len(positions), 2, 2).clone()
    if cells:
        table[tuple(torch.tensor(cells).T)] = scores[:-1]
    if not single_heads:
        table = table[:, 0]
    noise = abs(_difference(scores[-1]) - _difference(before)) / abs(runs.gap)
    return _dataset(model, pair, runs, table.double().numpy(), layers, heads, positions, noise)


def _dataset(model, pair, runs: _Runs, table: np.ndarray, layers, heads, positions, noise: float) -> xr.Dataset:
    dims = ("layer", "head", "position") if heads != [None] else ("layer", "position")
    coords = {"layer": layers, "position": positions, "answer": ["clean", "corrupted"]}
    if heads != [None]:
        coords["head"] = heads
    if pair.tokens:
        coords["token"] = ("position", [pair.tokens[p] for p in positions])
    if pair.corrupted_tokens:
        coords["corrupted_token"] = ("position", [pair.corrupted_tokens[pair.alignment[p]] for p in positions])
    log_probability, rank = table[..., 0], table[..., 1].astype(np.int64)
    difference = log_probability[..., 0] - log_probability[..., 1]
    before = runs.receiver_scores.double().numpy()
    moved = difference - (before[0, 0] - before[1, 0])
    towards_donor = runs.gap if runs.direction == "denoising" else -runs.gap
    wrote_donor = before[runs.donor_answer, 1] == 0
    return xr.Dataset(
        {
            "effect": (dims, moved / towards_donor + 0.0),  # + 0.0: no negative zeros
            "logit_difference": (dims, difference),
            "flip": (dims, (rank[..., runs.donor_answer] == 0) & (not wrote_donor)),
            "log_probability": ((*dims, "answer"), log_probability),
            "probability": ((*dims, "answer"), np.exp(log_probability)),
            "rank": ((*dims, "answer"), rank),
        },
        coords=coords,
        attrs={
            "component": runs.component,
            "direction": runs.direction,
            "problem_id": pair.problem_id,
            "model": model.name,
            "ld_clean": _difference(runs.clean_scores),
            "ld_corrupted": _difference(runs.corrupted_scores),
            "noise_floor": noise,
        },
    )


def _teacher_forced(model, token_ids, answers, components) -> dict[tuple[int, ...], Recording]:
    """Recordings of `token_ids` followed by each answer without its last token."""
    last = len(token_ids) - 1
    return {
        extension: record(
            model, (*token_ids, *extension), components, read=range(last, last + len(extension) + 1)
        )
        for extension in dict.fromkeys(answer[:-1] for answer in answers)
    }


def _plain_scores(model, token_ids, answers) -> torch.Tensor:
    return _recorded_scores(_teacher_forced(model, token_ids, answers, ()), answers)


def _recorded_scores(recordings: dict[tuple[int, ...], Recording], answers) -> torch.Tensor:
    return torch.stack([_scores(recordings[a[:-1]].logits[None], [a])[0, 0] for a in answers]).cpu()


def _scores(logits: torch.Tensor, answers: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """[branch, answer, (log-probability, rank)] from logits [branch, answer token, vocabulary]."""
    rows = []
    for answer in answers:
        chosen = logits.gather(2, torch.tensor(answer, device=logits.device).expand(len(logits), -1)[..., None])
        log_probability = (chosen[..., 0] - logits.logsumexp(2)).sum(1)
        rank = (logits > chosen).sum(2).amax(1)
        rows.append(torch.stack([log_probability, rank.to(log_probability)], 1))
    return torch.stack(rows, 1)


def _difference(scores: torch.Tensor) -> float:
    """LD = log p(clean answer) - log p(corrupted answer) of scores [answer, (log-probability, rank)]."""
    return float(scores[0, 0].double() - scores[1, 0].double())


def _check(model, pair: ContrastPair, component: str, direction: str) -> None:
    if component not in COMPONENTS:
        raise ValueError(f"unknown component {component!r}: choose one of {', '.join(COMPONENTS)}")
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: choose one of {', '.join(DIRECTIONS)}")
    if pair.model and pair.model != model.name:
        raise ValueError(f"pair {pair.problem_id!r} is by {pair.model!r}, and the model is {model.name!r}")
    for name, ids in zip(("clean", "corrupted"), pair.answers, strict=True):
        if not all(0 <= i < model.vocab_size for i in ids):
            raise ValueError(f"the {name} answer {ids} is outside the vocabulary of {model.vocab_size} tokens")
    if not all(0 <= i < model.vocab_size for i in (*pair.clean_ids, *pair.corrupted_ids)):
        raise ValueError(f"a token of pair {pair.problem_id!r} is outside the vocabulary of {model.vocab_size} tokens")


def _chosen_positions(pair: ContrastPair, positions: Sequence[int] | None) -> list[int]:
    chosen = list(pair.alignment) if positions is None else [int(p) for p in positions]
    for position in chosen:
        if not 0 <= position < len(pair):
            raise ValueError(f"position {position} is out of range: the clean sequence has positions 0 to {len(pair) - 1}")
        if position not in pair.alignment:
            raise ValueError(f"position {position} has no counterpart in the corrupted sequence and cannot be patched")
    if not chosen:
        raise ValueError("no position to patch")
    return chosen


def _chosen(what: str, wanted: Sequence[int] | None, n: int) -> list[int]:
    chosen = list(range(n)) if wanted is None else [int(i) for i in wanted]
    if not chosen or not all(0 <= i < n for i in chosen):
        raise ValueError(f"{what} out of range in {chosen}: the model has {what}s 0 to {n - 1}")
    return chosen
