"""Attribution patching: exact to first order, its refinements by brute force, recall and rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from r2a_utils.causal.attribution import attribution_grid, rank_correlation, recall_at
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_grid
from r2a_utils.causal.recorded_pairs import record_pair
from r2a_utils.engine.patches import COMPONENTS

LENGTH, DIFFERING = 14, (4, 9)
CLOSE = "llama-wide-heads", "qwen2", "qwen3"


@pytest.fixture(scope="module", params=CLOSE)
def model(request, make_random_model):
    """Random weights in which token 21 is token 20 with a little noise, 31 likewise token 30."""
    model = make_random_model(request.param, seed=3, dtype="float64")
    table = model.hf.get_input_embeddings().weight.data
    noise = torch.Generator().manual_seed(0)
    for token in (20, 30):
        table[token + 1] = table[token] + 2e-4 * torch.randn(table.shape[1], generator=noise)
    return model


@pytest.fixture(scope="module")
def far_model(make_random_model):
    return make_random_model("llama-wide-heads", seed=4)


def near_pair(answers=(5, 6)) -> ContrastPair:
    """Two sequences whose differing tokens have nearly the same embedding."""
    clean = np.random.default_rng(0).integers(40, 90, LENGTH)
    corrupted = clean.copy()
    clean[list(DIFFERING)], corrupted[list(DIFFERING)] = (20, 30), (21, 31)
    return ContrastPair(clean, corrupted, *answers)


def far_pair() -> ContrastPair:
    rng = np.random.default_rng(1)
    clean = rng.integers(0, 90, LENGTH)
    corrupted = clean.copy()
    corrupted[[*DIFFERING, LENGTH - 1]] += 3
    return ContrastPair(clean, corrupted, 5, 6)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("method", ["atp", "qk_fix"])
def test_small_patches_are_linear_so_that_the_estimate_is_exact(model, component, method):
    options = {"component": component, "min_gap": 0.0, "positions": range(3, LENGTH)}
    exact = patch_grid(model, near_pair(), **options)
    estimate = attribution_grid(model, near_pair(), method=method, **options)
    assert estimate.dims == exact.dims
    np.testing.assert_allclose(estimate, exact, atol=0.01 * float(abs(exact).max()))


def test_z_is_what_is_patched_where_a_norm_stands_before_o_proj(make_random_model):
    """Half of the way from the heads' results to the stream would be another vector."""
    model = make_random_model("bitnet", seed=3, dtype="float64")
    table = model.hf.get_input_embeddings().weight.data
    for token in (20, 30):
        table[token + 1] = table[token] * (1 + 2e-3 * torch.arange(table.shape[1]).cos())
    options = {"component": "z", "min_gap": 0.0, "positions": range(3, LENGTH)}
    exact = patch_grid(model, near_pair(), **options)
    estimate = attribution_grid(model, near_pair(), **options)
    np.testing.assert_allclose(estimate, exact, atol=0.01 * float(abs(exact).max()))
    options["component"] = "q"
    fixed = attribution_grid(model, near_pair(), method="qk_fix", **options)
    exact = patch_grid(model, near_pair(), **options)
    np.testing.assert_allclose(fixed, exact, atol=0.01 * float(abs(exact).max()))


def test_noising_and_answers_of_several_tokens(model):
    pair = near_pair(((5, 7), (6, 8, 9)))
    for direction in ("denoising", "noising"):
        options = {"direction": direction, "min_gap": 0.0}
        exact = patch_grid(model, pair, **options)
        estimate = attribution_grid(model, pair, **options)
        np.testing.assert_allclose(estimate, exact, atol=0.01 * float(abs(exact).max()))


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_recorded_pair_is_attributed_the_same(model, component):
    for direction in ("denoising", "noising"):
        options = {"component": component, "direction": direction, "min_gap": 0.0}
        recorded = record_pair(model, near_pair(), (component,))
        expected = attribution_grid(model, near_pair(), **options)
        xr.testing.assert_allclose(attribution_grid(model, recorded, **options), expected)


def test_chosen_heads_layers_and_positions_are_those_of_the_whole_grid(far_model):
    pair = far_pair()
    for component in ("z", "k", "resid"):
        heads = None if component == "resid" else [1]
        whole = attribution_grid(far_model, pair, component=component, min_gap=0.0)
        part = attribution_grid(far_model, pair, [9, 4], [2], component, heads=heads, min_gap=0.0)
        chosen = {"layer": [2], "position": [9, 4]} | ({} if heads is None else {"head": heads})
        xr.testing.assert_allclose(part, whole.sel(chosen))


def plain_ld(model, ids, dropped=None):
    """LD of transformers alone as a graph over the embeddings; a dropped layer's parts detached."""
    handles = []
    if dropped is not None:
        block = model.hf.model.layers[dropped]
        handles = [
            block.self_attn.register_forward_hook(lambda m, a, out: (out[0].detach(), *out[1:])),
            block.mlp.register_forward_hook(lambda m, a, out: out.detach()),
        ]
    inputs = []

    def keep(module, args):
        args[0].requires_grad_(True) if args[0].is_leaf else args[0].retain_grad()
        inputs.append(args[0])

    handles += [block.register_forward_pre_hook(keep) for block in model.hf.model.layers]
    logits = model.hf(torch.tensor([ids])).logits[0, -1]
    for handle in handles:
        handle.remove()
    ld = logits[5] - logits[6]
    ld.backward()
    gradients = [node.grad[0] for node in inputs]
    return float(ld.detach()), gradients, [node.detach()[0] for node in inputs]


def test_grad_drop_is_the_mean_magnitude_over_detached_layers(far_model):
    pair, n = far_pair(), far_model.n_layers
    ld_clean, _, clean = plain_ld(far_model, pair.clean_ids)
    ld_corrupted, _, corrupted = plain_ld(far_model, pair.corrupted_ids)
    expected = np.zeros((n, LENGTH))
    for dropped in range(n):
        _, gradients, _ = plain_ld(far_model, pair.corrupted_ids, dropped)
        for layer in range(n):
            moved = ((clean[layer] - corrupted[layer]) * gradients[layer]).sum(-1)
            expected[layer] += np.abs(moved.numpy()) / n
    expected /= abs(ld_clean - ld_corrupted)
    grid = attribution_grid(far_model, pair, method="grad_drop", min_gap=0.0)
    np.testing.assert_allclose(grid, expected, rtol=1e-3, atol=1e-5)


def test_a_part_of_a_dropped_layer_is_left_out_of_its_mean(make_random_model):
    # With two layers, the last layer's MLP has a gradient only while the first is dropped, which
    # does not touch it: dividing by one layer less makes the magnitude that of plain AtP.
    model, pair = make_random_model("llama", seed=2, num_hidden_layers=2), far_pair()
    options = {"component": "mlp_out", "layers": [1], "min_gap": 0.0}
    plain = attribution_grid(model, pair, **options)
    dropped = attribution_grid(model, pair, method="grad_drop", **options)
    np.testing.assert_allclose(dropped, abs(plain), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("component", ["q", "k"])
def test_the_qk_fix_is_exact_where_only_attention_saturates(make_random_model, component):
    # One layer without an MLP and with a linear readout (the final norm sees a constant length
    # if the stream hardly moves): what remains nonlinear is the softmax.
    model, pair = make_random_model("llama", seed=6, num_hidden_layers=1), far_pair()
    block = model.hf.model.layers[0]
    block.mlp.down_proj.weight.data.zero_()
    block.self_attn.o_proj.weight.data.mul_(1e-3)
    block.self_attn.q_proj.weight.data.mul_(6)
    options = {"component": component, "min_gap": 0.0}
    exact = patch_grid(model, pair, **options)
    fixed = attribution_grid(model, pair, method="qk_fix", **options)
    plain = attribution_grid(model, pair, method="atp", **options)
    largest = float(abs(exact).max())
    assert float(abs(fixed - exact).max()) < 0.02 * largest
    assert float(abs(plain - exact).max()) > 0.2 * largest


def test_recall_and_rank_by_hand():
    grid = xr.DataArray([[0.0, -4.0, 3.0], [2.0, 1.0, 0.5]], dims=("layer", "position"))
    same_order = grid * -0.1
    assert rank_correlation(grid, same_order) == pytest.approx(1)
    assert recall_at(grid, same_order, (1, 3)) == {1: 1.0, 3: 1.0}
    other = xr.DataArray([[9.0, 4.0, 0.0], [2.0, 1.0, 0.5]], dims=("layer", "position"))
    assert recall_at(grid, other, (1, 2, 3)) == {1: 0.0, 2: 0.5, 3: pytest.approx(2 / 3)}
    assert rank_correlation(grid, 1 / (1 + abs(grid))) == pytest.approx(-1)
    with pytest.raises(ValueError):
        recall_at(grid.assign_coords(position=[0, 1, 2]), grid.assign_coords(position=[0, 1, 3]))


def test_what_cannot_be_is_refused(far_model):
    pair = far_pair()
    with pytest.raises(ValueError, match="unknown method"):
        attribution_grid(far_model, pair, method="atp**")
    with pytest.raises(ValueError, match="unknown component"):
        attribution_grid(far_model, pair, component="residual")
    with pytest.raises(ValueError, match="below 1000"):
        attribution_grid(far_model, pair, min_gap=1000)
    shifted = ContrastPair(
        pair.clean_ids, pair.corrupted_ids[1:], 5, 6, aligned_spans=((3, 2, LENGTH - 3),)
    )
    attribution_grid(far_model, shifted, min_gap=0.0)
    with pytest.raises(ValueError, match="shifted positions"):
        attribution_grid(far_model, shifted, component="k", min_gap=0.0)
