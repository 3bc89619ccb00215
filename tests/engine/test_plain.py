"""No family is silently wrong: every engine against transformers alone, where they look like it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from r2a_utils.causal.attribution import attribution_grid
from r2a_utils.causal.interventions import knockout
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import patch_grid
from r2a_utils.engine.forward import continue_greedily, engine_of, extend, replay, run_with_cache
from r2a_utils.engine.patches import COMPONENTS, CUT_KINDS, EdgeCut, Patch, PatchedRun
from r2a_utils.engine.plain import cache_plainly, replay_plainly
from r2a_utils.models.places import architecture

# What the fast engine does not do: caps, sinks, windows, a second mixer, options not handed on.
UNLIKE = ("gemma2", "gpt_oss", "falcon_h1", "nemotron", "qwen2-window")
IDS = tuple(range(20, 42))
CUT, READ = EdgeCut(1, range(14, 22), range(3, 11), (0, 3)), (18, 21)


@pytest.fixture(scope="module", params=("llama", "qwen3", *UNLIKE))
def model(request, make_random_model):
    return make_random_model(request.param)


def patched_by_hooks(model, layer, position, value):
    """Logits of plain transformers with one residual stream replaced."""

    def hook(module, args):
        stream = args[0].clone()
        stream[0, position] = value
        return (stream, *args[1:])

    handle = architecture(model).layers[layer]._module.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            return model.hf(torch.tensor([IDS]), use_cache=False).logits[0, list(READ)]
    finally:
        handle.remove()


def test_patches_equal_plain_forwards_in_every_family(model):
    cache = run_with_cache(model, IDS, read=READ)
    resid = cache.activations["resid"]
    cells = [(0, 4, resid[0][9]), (model.n_layers - 1, 16, resid[-2][3]), (1, 12, resid[1][2])]
    runs = [PatchedRun((Patch("resid", layer, p, value[None]),)) for layer, p, value in cells]
    logits = replay(model, cache, runs, lambda logits: logits)
    for got, cell in zip(logits, cells, strict=True):
        expected = patched_by_hooks(model, *cell)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_results_say_which_engine_they_are_of(model, random_trace):
    engine = "fast" if model.name in ("random llama", "random qwen3") else "plain"
    pair = ContrastPair(IDS, [*IDS[:8], 60, *IDS[9:]], 5, 6)
    assert patch_grid(model, pair, [8], [0], min_gap=0).engine == engine
    trace = random_trace()
    assert knockout(model, trace, scored=trace.segments["answer"]).attrs["engine"] == engine


def test_experts_that_add_in_another_order_are_no_second_mixer(make_random_model):
    assert engine_of(make_random_model("mixtral"), len(IDS)) == "fast"


def test_every_component_is_recorded_as_in_the_replay(make_random_model):
    model = make_random_model("qwen3")
    fast = run_with_cache(model, IDS, COMPONENTS, READ)
    for names in (COMPONENTS, ("attn_out",), ("q", "mlp_out")):
        plain = cache_plainly(model, IDS, names, READ)
        assert set(plain.activations) == {"resid", *names}
        for name, layers in plain.activations.items():
            for got, expected in zip(layers, fast.activations[name], strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        for got, expected in zip(plain.keys + plain.values, fast.keys + fast.values, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_cuts_and_ablations_are_the_same_in_both_engines(make_random_model):
    model = make_random_model("qwen3")
    cache = run_with_cache(model, IDS, ("z",), read=READ)
    zero = torch.zeros(3, model.head_dim)
    runs = [
        PatchedRun(cuts=(CUT,)),
        PatchedRun((Patch("z", 1, 15, zero, head=2),)),
        PatchedRun((Patch("v", 0, 15, zero, head=1),), (CUT,)),
    ]
    fast = replay(model, cache, runs, lambda logits: logits)
    plain = replay_plainly(model, cache, runs, lambda logits: logits)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", CUT_KINDS)
def test_each_kind_of_cut_is_the_same_in_both_engines(make_random_model, kind):
    """Grouped heads; cuts of one layer that share a run, and runs of other kinds in one pack."""
    model = make_random_model("qwen3")
    cache = run_with_cache(model, IDS, ("z",), read=READ)
    beside = EdgeCut(1, range(16, 22), range(11, 18), kind="mean")
    runs = [
        PatchedRun(cuts=(replace(CUT, kind=kind),)),
        PatchedRun(cuts=(replace(CUT, kind=kind), beside)),
        PatchedRun(cuts=(replace(CUT, heads=None, kind=kind), replace(CUT, layer=2))),
        PatchedRun((Patch("v", 0, 15, torch.zeros(3, model.head_dim), head=1),), (CUT,)),
        PatchedRun(cuts=(EdgeCut(2, range(9, 22), range(0, 22), kind="zeroed"),)),
    ]
    fast = replay(model, cache, runs, lambda logits: logits)
    plain = replay_plainly(model, cache, runs, lambda logits: logits)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
    assert (fast[0] - cache.logits).abs().max() > 1e-3


@pytest.mark.parametrize("kind", CUT_KINDS)
@pytest.mark.parametrize("family", ["qwen3", "gpt_oss"])
def test_what_is_written_under_a_cut_is_what_full_forwards_write(make_random_model, family, kind):
    """Token after token, by either engine, against plain replays of all that is written so far."""
    model = make_random_model(family)
    cache, n = run_with_cache(model, IDS), len(IDS)
    cuts = tuple(
        EdgeCut(layer, range(n, n + 9), range(3, 20), kind=kind) for layer in range(model.n_layers)
    )
    [written] = continue_greedily(model, cache, [PatchedRun(cuts=cuts)], 6)
    ids = [*IDS, int(cache.logits[-1].argmax())]
    for _ in written[1:]:
        so_far = cache_plainly(model, ids)
        up_to = PatchedRun(cuts=tuple(replace(cut, queries=range(n, len(ids))) for cut in cuts))
        logits = replay_plainly(model, so_far, [up_to], lambda logits: logits)
        ids.append(int(logits[0, -1].argmax()))
    assert ids[n:] == written and len(written) > 2


def test_edges_that_two_cuts_share_and_unknown_kinds_are_refused(make_random_model):
    model = make_random_model("llama")
    cache = run_with_cache(model, IDS)
    run = PatchedRun(cuts=(CUT, replace(CUT, heads=(3,), kind="mean")))
    with pytest.raises(ValueError, match="share edges"):
        replay(model, cache, [run], lambda logits: logits)
    with pytest.raises(ValueError, match="unknown kind of cut 'half'"):
        replace(CUT, kind="half")


def test_what_a_cut_takes_away_is_not_felt(model):
    """Where attention alone carries news; a second mixer, as in Falcon-H1, is not cut."""
    cache = run_with_cache(model, IDS, read=READ)
    deaf = tuple(EdgeCut(layer, range(8, 22), range(0, 8)) for layer in range(model.n_layers))
    news = Patch("resid", 0, 5, cache.activations["resid"][0][11, None])
    runs = [PatchedRun(cuts=deaf), PatchedRun((news,), deaf)]
    without, patched = replay(model, cache, runs, lambda logits: logits)
    felt = float((patched - without).abs().max())
    assert felt > 1e-2 if "falcon" in model.name else felt < 1e-5


def test_other_tokens_after_a_prefix(model):
    cache = run_with_cache(model, IDS)
    given = extend(model, cache, 15, (7, 8, 9))
    with torch.no_grad():
        expected = model.hf(torch.tensor([(*IDS[:15], 7, 8, 9)]), use_cache=False).logits[0, 15:]
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)


def test_an_answer_is_written_beyond_the_window_as_the_model_writes_it(
    make_random_model, random_trace
):
    """The window ends in the answer: what is written behind it sees less, as in the model."""
    trace = random_trace(prompt=5, reasoning=20, answer=8)
    start = trace.segments["answer"].start
    shape = {"sliding_window": start + 3, "max_window_layers": 0}
    model = make_random_model("qwen2-window", **shape)
    ids = list(trace.token_ids[:start])
    for _ in range(9):
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    cache = run_with_cache(model, trace.token_ids[:start])
    assert continue_greedily(model, cache, [None], 9) == [ids[start:]]


@pytest.mark.parametrize("window", [{}, {"sliding_window": 8, "max_window_layers": 0}])
def test_any_end_token_of_the_generation_settings_ends_what_is_written(make_random_model, window):
    """By the replay, and beyond a window by the plain engine."""
    model = make_random_model("qwen2-window", **window)
    cache = run_with_cache(model, IDS)
    [free] = continue_greedily(model, cache, [None], 9)
    settings = deepcopy(model.hf.generation_config)
    settings.eos_token_id = [model.tokenizer.eos_token_id, free[4]]
    with patch.object(model.hf, "generation_config", settings):
        assert continue_greedily(model, cache, [None], 9) == [free[: free.index(free[4])]]


def test_rows_that_have_ended_leave_and_the_others_write_what_they_write_alone(make_random_model):
    model = make_random_model("qwen3")
    cache, n = run_with_cache(model, IDS), len(IDS)
    value = torch.randn(20, model.head_dim, generator=torch.Generator().manual_seed(0))
    runs = [
        None,
        PatchedRun((Patch("z", 0, n, 3 * value, head=1), Patch("z", 2, n, value, head=4))),
        PatchedRun(cuts=(EdgeCut(1, range(n, n + 20), range(3, 20)),)),
        PatchedRun((Patch("z", 1, n, -3 * value, head=0),)),
    ]
    [free] = continue_greedily(model, cache, [None], 20)
    settings = deepcopy(model.hf.generation_config)
    settings.eos_token_id = free[4]
    with patch.object(model.hf, "generation_config", settings):
        alone = [continue_greedily(model, cache, [run], 20)[0] for run in runs]
        assert continue_greedily(model, cache, runs, 20) == alone
    assert len(alone[0]) <= 4 and len(set(map(len, alone))) > 1


def test_the_qk_fix_sees_what_the_model_sees(make_random_model):
    model = make_random_model("qwen2-window", num_hidden_layers=1, max_window_layers=0)
    block = model.hf.model.layers[0]
    block.mlp.down_proj.weight.data.zero_()
    block.self_attn.o_proj.weight.data.mul_(1e-3)
    corrupted = list(IDS)
    corrupted[8], corrupted[15], corrupted[-1] = 60, 61, 62
    pair = ContrastPair(IDS, corrupted, 5, 6)
    for component in "qk":
        options = {"component": component, "min_gap": 0.0, "positions": range(5, 22)}
        exact = patch_grid(model, pair, **options)
        fixed = attribution_grid(model, pair, method="qk_fix", **options)
        assert float(abs(fixed - exact).max()) < 0.02 * float(abs(exact).max())
