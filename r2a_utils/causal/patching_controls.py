"""Controls of activation patching: donors that carry no news of the other answer.

A figure that claims an effect shows these beside it. All are in the units of the same pair: an
effect of 1 would move the answer as far as the real donor's whole run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from r2a_utils.causal.pairs import ContrastPair, TokenIds
from r2a_utils.causal.patching import Metric, chosen_positions, sweep
from r2a_utils.causal.recorded_pairs import MIN_GAP, RecordedPair, Transfer, recorded
from r2a_utils.causal.two_places import PLACES, Effects, two_places
from r2a_utils.engine.answer_logprobs import answer_caches, cached_scores, logit_difference
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.runs.pieces import kept_in_pieces

CONTROLS = ("same_prompt", "wrong_position", "random_donor", "same_answer", "matched_noise")
OTHER_DONORS = ("random_donor", "same_answer")
"""The controls whose donor is another pair's sequence."""

LARGEST_LAYER, LARGEST_MEAN = "layer of largest mean", "mean effect there"


class NoDonorError(ValueError):
    """A pair for which a control has nothing to put in the donor's place."""


@kept_in_pieces
def control_metrics(
    model: ReasoningModel,
    pair: ContrastPair | RecordedPair,
    control: str,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    donor_ids: TokenIds | None = None,
    seed: int = 0,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    metric: Metric | None = None,
    min_gap: float = MIN_GAP,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """`patch_metrics` with something else than the donor's vector in its place.

    - "same_prompt": the receiver's own vector, from a second run of it. Must be exactly 0.
    - "wrong_position": the donor's vector of the column's position, written at another aligned
      position of the receiver whose token is the same in both runs, drawn once for each column:
      never the sequence's first position, on which attention rests, nor its last, from which the
      answer is read, and not before the grid's first where possible.
    - "random_donor": the vectors of an unrelated sequence `donor_ids`, aligned from its end.
    - "same_answer": likewise, where the model prefers the receiver's answer; this is checked.
    - "matched_noise": the receiver's own vector plus Gaussian noise as long as donor - receiver.

    Arguments, variables and errors otherwise as in `patch_metrics`. Raises ValueError, besides, for
    an unknown control and for donor ids that are missing or not wanted, and its kind NoDonorError
    for a donor that does not reach the patched positions, for a "same_answer" donor after which the
    model prefers the other answer, and where no wrong position is free. Stage 05 explains.
    """
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}: choose from {CONTROLS}")
    needs_donor = control in OTHER_DONORS
    if needs_donor != (donor_ids is not None):
        raise ValueError(f"{control!r} {'needs' if needs_donor else 'takes no'} donor_ids")
    if donor_ids is not None:
        donor_ids = [int(i) for i in donor_ids]
    transfer = Transfer(recorded(model, pair, component), component, direction)
    transfer.recorded.check_gap(min_gap)
    positions = chosen_positions(transfer.pair, positions)
    if control == "same_prompt":
        donor_ids = transfer.receiver_ids
    if control == "same_answer":
        _check_same_answer(model, transfer, donor_ids)
    if donor_ids is not None:
        donated = _other_donor(model, transfer, donor_ids, positions)
    elif control == "wrong_position":
        donated = _wrong_position(transfer, positions, seed)
    else:
        donated = _matched_noise(transfer, seed)
    grid = sweep(model, transfer, donated, positions, layers, heads, metric, max_tokens)
    return grid.assign_attrs(control=control)


def donors(
    pairs: Sequence[ContrastPair], pair: ContrastPair, control: str
) -> list[tuple[int, ...]]:
    """Token ids of other pairs' sides that may stand in for the donor of a denoised pair.

    Their conclusion stands as far from the end as the receiver's. For "same_answer" it is the
    receiver's own, for "random_donor" neither of the pair's. Raises ValueError for a control that
    takes no other donor. Stage 05 explains.
    """
    if control not in OTHER_DONORS:
        raise ValueError(f"{control!r} takes no other donor: {OTHER_DONORS} do")
    _, (ids, answer, reach) = _concluding(pair)
    return [
        donor
        for other in pairs
        for donor, concluded, at in _concluding(other)
        if at == reach
        and (concluded == answer if control == "same_answer" else concluded not in pair.answers)
        and donor not in (pair.clean_ids, ids)
    ]


def _concluding(pair: ContrastPair) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """(ids, answer, tokens from the conclusion to the end) of the clean and the corrupted side."""
    at, other = pair.flipping_position, pair.alignment[pair.flipping_position]
    return [
        (pair.clean_ids, pair.answers[0], len(pair.clean_ids) - at),
        (pair.corrupted_ids, pair.answers[1], len(pair.corrupted_ids) - other),
    ]


def controls_at_two_places(
    model: ReasoningModel, pairs: Sequence[RecordedPair], seed: int = 0
) -> dict[str, Effects]:
    """Effects [pair, layer, place] of each control at the paper's two places (`two_places`).

    Donors are drawn from the pairs themselves, and each pair has noise of its own. A pair for which
    a control has no donor, or none that meets its rule, is left out of that control. Raises
    ValueError as `control_metrics` does for what is not a control's own rule. Stage 05 shows them.
    """
    rng, found = np.random.default_rng(seed), {control: [] for control in CONTROLS}
    everything = [one.pair for one in pairs]
    for i, one in enumerate(pairs):
        for control in CONTROLS:
            options = {"seed": seed + i}
            if control in OTHER_DONORS:
                others = donors(everything, one.pair, control)
                if not others:
                    continue
                options["donor_ids"] = others[rng.integers(len(others))]
            places = two_places(one.pair)
            with suppress(NoDonorError):
                grid = control_metrics(model, one, control, places, **options)
                found[control].append(grid["effect"].values)
    nothing = np.empty((0, model.n_layers, len(PLACES)))
    return {control: np.stack(grids) if grids else nothing for control, grids in found.items()}


def control_table(effects: Mapping[str, Effects]) -> pd.DataFrame:
    """Each control at each place: how many pairs, and how large its effects are.

    `effects` [pair, layer, place] by control, those without a pair left out. Index (control,
    position); columns n, "layer of largest mean", "mean effect there" and "largest in any pair"
    (of the effects' magnitudes, in units of the pair's gap). Stage 05 shows it.
    """
    rows = {}
    for control, found in effects.items():
        for i, place in enumerate(PLACES if len(found) else ()):
            mean = found[..., i].mean(0)
            worst = int(np.abs(mean).argmax())
            rows[control, place] = len(found), worst, mean[worst], np.abs(found[..., i]).max()
    columns = ["n", LARGEST_LAYER, LARGEST_MEAN, "largest in any pair"]
    table = pd.DataFrame(rows, index=columns).T.astype({"n": int, LARGEST_LAYER: int})
    return table.rename_axis(["control", "position"])


def _other_donor(model, transfer: Transfer, donor_ids: Sequence[int], positions: list[int]):
    # The receivers may go on with part of an answer; the same length makes an equal prompt's
    # numbers equal bit for bit.
    extension = next(iter(transfer.receivers))
    shift = len(donor_ids) - len(transfer.receiver_ids)
    if min(transfer.receiver_position[position] for position in positions) + shift < 0:
        raise NoDonorError(
            f"the other donor has {len(donor_ids)} tokens; aligned from its end it does not reach "
            f"position {min(positions)}: patch later positions, or take a longer donor"
        )
    other = run_with_cache(model, (*donor_ids, *extension), (transfer.component,))

    def donated(layer: int, position: int, columns: slice) -> tuple[int, Float[Tensor, " width"]]:
        place = transfer.receiver_position[position]
        return place, other.activations[transfer.component][layer][place + shift, columns]

    return donated


def _wrong_position(transfer: Transfer, positions: list[int], seed: int):
    pair, rng = transfer.pair, np.random.default_rng(seed)
    donor = transfer.donor.activations[transfer.component]
    last = len(pair) - 1
    calm = [p for p in pair.alignment if 0 < p < last and p not in pair.differing_positions]
    if len(calm) < 2:
        raise NoDonorError("the pair has no two positions with equal tokens to write to by mistake")
    # Behind the grid's first position where possible: the effect of early ones costs more to run.
    behind = [p for p in calm if p >= min(positions)]
    calm = behind if len(behind) > 1 else calm
    wrong = {p: int(rng.choice([q for q in calm if q != p])) for p in positions}

    def donated(layer: int, position: int, columns: slice) -> tuple[int, Float[Tensor, " width"]]:
        value = donor[layer][transfer.donor_position[position], columns]
        return transfer.receiver_position[wrong[position]], value

    return donated


def _matched_noise(transfer: Transfer, seed: int):
    # Drawn on the CPU, so that the same seed gives the same noise on every device.
    generator = torch.Generator().manual_seed(seed)
    receiver = transfer.receiver.activations[transfer.component]
    donor = transfer.donor.activations[transfer.component]

    def donated(layer: int, position: int, columns: slice) -> tuple[int, Float[Tensor, " width"]]:
        place = transfer.receiver_position[position]
        own = receiver[layer][place, columns].float()
        distance = (donor[layer][transfer.donor_position[position], columns].float() - own).norm()
        noise = torch.randn(own.shape, generator=generator).to(own.device)
        return place, (own + noise * distance / noise.norm()).to(receiver[layer].dtype)

    return donated


def _check_same_answer(model, transfer: Transfer, donor_ids: Sequence[int]) -> None:
    answers = transfer.pair.answers
    scores = cached_scores(answer_caches(model, donor_ids, answers), answers)
    theirs, ours = logit_difference(scores), logit_difference(transfer.receiver_scores)
    if theirs * ours <= 0:
        raise NoDonorError(
            f"after the same-answer donor the model prefers the other answer (LD {theirs:.2f}; "
            f"after the receiver {ours:.2f}): choose a donor that leads to the receiver's answer"
        )
