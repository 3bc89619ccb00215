"""Patch grids against the plain way (one full forward a cell), contrast pairs, controls, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import dispatch_model

from r2a_utils.causal import patching
from r2a_utils.causal.pairs import ContrastPair, probed
from r2a_utils.causal.patching import patch_grid, patch_metrics
from r2a_utils.causal.patching_controls import control_metrics
from r2a_utils.causal.recorded_pairs import record_pair
from r2a_utils.engine import forward as replay_module
from r2a_utils.engine import packing
from r2a_utils.engine.answer_logprobs import logit_step
from r2a_utils.engine.forward import replay, run_with_cache
from r2a_utils.engine.patches import COMPONENTS, HEAD_COMPONENTS, Patch, PatchedRun
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, answer_span, encode
from r2a_utils.tiny.world import contrast_problems, write_text

# Grouped heads, head sizes other than hidden / heads, biases, head norms, scaled attention.
ARCHITECTURES = ("llama-wide-heads", "qwen2", "qwen2-ungrouped", "qwen3", "granite-scaled")
LENGTH, DIFFERING = 18, (6, 9)
ANY_GAP = 1e-3  # for pairs whose answers random weights do not tell apart


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, make_random_model):
    return make_random_model(request.param, seed=1)


@pytest.fixture(scope="module")
def llama(make_random_model):
    model = make_random_model("llama-wide-heads", seed=2)
    patch_grid(model, make_pair(model))  # the oracle is asked before a test breaks anything
    return model


def make_pair(model, answers=None, seed=0, differing=DIFFERING) -> ContrastPair:
    """Random tokens; as answers, those that the random weights tell apart best."""
    clean = np.random.default_rng(seed).integers(0, 97, LENGTH)
    corrupted = clean.copy()
    corrupted[list(differing)] = (clean[list(differing)] + 1) % 97
    if answers is None:
        moved = run_plainly(model, clean)[0][-1] - run_plainly(model, corrupted)[0][-1]
        answers = int(moved.argmax()), int(moved.argmin())
    return ContrastPair(clean, corrupted, *answers)


def module_and_side(model, component: str, layer: int):
    """The plain transformers module that carries a component, and whether at its input."""
    block = model.hf.model.layers[layer]
    return {
        "resid": (block, True),
        "attn_out": (block.self_attn, False),
        "mlp_out": (block.mlp, False),
        "z": (block.self_attn.o_proj, True),
        "q": (block.self_attn.q_proj, False),
        "k": (block.self_attn.k_proj, False),
        "v": (block.self_attn.v_proj, False),
    }[component]


def run_plainly(model, ids, component=None, layer=0, change=None):
    """Full forward in transformers alone; `change` edits the component [position, width]."""
    seen = {}

    def visit(value):
        tensor = value[0] if isinstance(value, tuple) else value
        seen["value"] = tensor[0].clone()
        if change is not None:
            tensor = tensor.clone()
            change(tensor[0])
        return (tensor, *value[1:]) if isinstance(value, tuple) else tensor

    handles = []
    if component is not None:
        module, at_input = module_and_side(model, component, layer)
        if at_input:
            handles.append(
                module.register_forward_pre_hook(lambda m, args: (visit(args[0]), *args[1:]))
            )
        else:
            handles.append(module.register_forward_hook(lambda m, args, output: visit(output)))
    try:
        with torch.no_grad():
            logits = model.hf(torch.tensor([list(ids)])).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen.get("value")


def plain_log_probability(model, ids, answer, *patch) -> float:
    logits, _ = run_plainly(model, (*ids, *answer[:-1]), *patch)
    rows = logits[len(ids) - 1 :].log_softmax(-1)
    return sum(float(rows[i, token]) for i, token in enumerate(answer))


def plain_effect(model, receiver, donor, answers, component, layer, at, donor_at, head=None):
    """(LD_patched - LD_receiver) / (LD_donor - LD_receiver) of one cell, by full forwards."""
    columns = (
        slice(None) if head is None else slice(head * model.head_dim, (head + 1) * model.head_dim)
    )
    _, donated = run_plainly(model, donor, component, layer)

    def change(tensor):
        tensor[at, columns] = donated[donor_at, columns]

    def difference(ids, *patch):
        clean, corrupted = (plain_log_probability(model, ids, a, *patch) for a in answers)
        return clean - corrupted

    before, target = difference(receiver), difference(donor)
    return (difference(receiver, component, layer, change) - before) / (target - before)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_cell_equals_a_full_forward(model, component):
    pair = make_pair(model)
    grid = patch_grid(model, pair, component=component)
    heads = grid["head"].values if component in HEAD_COMPONENTS else [None]
    for layer in range(model.n_layers):
        for position in (3, *DIFFERING, 12, LENGTH - 1):
            for head in heads:
                cell = grid.sel(layer=layer, position=position)
                cell = float(cell if head is None else cell.sel(head=head))
                expected = plain_effect(
                    model, pair.corrupted_ids, pair.clean_ids, pair.answers,
                    component, layer, position, position, head,
                )  # fmt: skip
                assert cell == pytest.approx(expected, abs=1e-4)
    assert float(abs(grid).max()) > 0.01


def check_cells(model, pair, layers, positions):
    grid = patch_grid(model, pair, positions, layers)
    for layer in layers:
        for position in positions:
            expected = plain_effect(
                model, pair.corrupted_ids, pair.clean_ids, pair.answers,
                "resid", layer, pair.alignment[position], position,
            )  # fmt: skip
            cell = float(grid.sel(layer=layer, position=position))
            assert cell == pytest.approx(expected, abs=1e-4)
    return grid


def test_cells_of_the_bundled_model_equal_full_forwards(tiny):
    traces = []
    for problem in contrast_problems(1, seed=3)[0]:
        ids = render_prompt(tiny.tokenizer, problem.question)
        ids += encode(tiny.tokenizer, write_text(problem, "with_reasoning"))
        traces.append(Trace.from_ids(ids, tiny.tokenizer))
    pair = ContrastPair.from_traces(*traces)
    positions = [*pair.differing_positions, len(pair) - 1]
    check_cells(tiny, pair, range(tiny.n_layers), positions)


def test_cells_of_a_pretrained_model_equal_full_forwards(smollm2):
    text = (
        "Which is {}, gold or ice? <think> Let me think about gold and ice. Final answer is {}. "
        "</think> Thus, the right one is"
    )
    sides = (("heavy", "gold"), ("cold", "ice"))
    clean, corrupted = (encode(smollm2.tokenizer, text.format(*side)) for side in sides)
    (gold,), (ice,) = (encode(smollm2.tokenizer, f" {side[1]}") for side in sides)
    pair = ContrastPair(clean, corrupted, gold, ice)
    last = len(pair) - 1
    grid = check_cells(smollm2, pair, [0, 14, 29], [pair.differing_positions[-1], last])
    # The paper's crossing: the conclusion's token counts early, the last token late.
    early, late = grid.sel(layer=0), grid.sel(layer=29)
    assert float(early[0]) > 0.5 > abs(float(late[0]))
    assert float(late[1]) > 0.5 > abs(float(early[1]))


def test_noising_swaps_donor_and_receiver(model):
    pair = make_pair(model)
    swapped = ContrastPair(pair.corrupted_ids, pair.clean_ids, *pair.answers[::-1])
    noised = patch_grid(model, pair, direction="noising")
    np.testing.assert_allclose(noised, patch_grid(model, swapped), atol=1e-5)


def test_answers_of_several_tokens_are_teacher_forced(model):
    clean, corrupted = make_pair(model).answers
    pair = make_pair(model, ((*clean, 9, 2), (*corrupted, 3)))
    grid = patch_grid(model, pair, positions=[6, LENGTH - 1], min_gap=ANY_GAP)
    for layer in range(model.n_layers):
        for position in (6, LENGTH - 1):
            expected = plain_effect(
                model,
                pair.corrupted_ids,
                pair.clean_ids,
                pair.answers,
                "resid",
                layer,
                position,
                position,
            )
            assert float(grid.sel(layer=layer, position=position)) == pytest.approx(
                expected, abs=1e-4
            )


def test_patching_the_only_difference_before_layer_0_gives_the_whole_donor_run(model):
    grid = patch_metrics(model, make_pair(model, differing=(6,)))
    cell = grid.sel(layer=0, position=6)
    assert float(cell.effect) == pytest.approx(1, abs=1e-4)
    assert float(cell.logit_difference) == pytest.approx(grid.ld_clean, abs=1e-4)
    # Before the difference the two runs are one: nothing to patch, at any layer.
    assert (grid.effect.sel(position=slice(0, 5)) == 0).all()
    # Before layer 0 only the embedding can be patched, and elsewhere the tokens are the same.
    assert (grid.effect.sel(layer=0).drop_sel(position=6) == 0).all()


def test_without_attention_and_mlp_only_the_last_position_matters(make_random_model):
    model = make_random_model("llama", seed=3)
    for block in model.hf.model.layers:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    clean = tuple(range(10, 20))
    corrupted = (*clean[:4], 50, *clean[5:9], 51)
    grid = patch_grid(model, ContrastPair(clean, corrupted, 5, 6), min_gap=ANY_GAP)
    np.testing.assert_allclose(grid.sel(position=9), 1, atol=1e-5)
    np.testing.assert_allclose(grid.sel(position=slice(0, 8)), 0, atol=1e-5)


def test_the_last_mlp_speaks_only_through_the_last_position(model):
    grid = patch_grid(model, make_pair(model), component="mlp_out").isel(layer=-1)
    np.testing.assert_allclose(grid.isel(position=slice(0, -1)), 0, atol=1e-4)
    assert abs(float(grid[-1])) > 1e-3


def test_the_same_prompt_as_donor_does_exactly_nothing(model):
    for component in ("resid", "z"):
        grid = control_metrics(model, make_pair(model), "same_prompt", component=component)
        assert (grid.effect == 0).all()
        assert not grid.flip.any()


def test_replaying_a_run_s_own_vectors_gives_its_logits_back(model):
    cache = run_with_cache(model, make_pair(model).clean_ids, COMPONENTS, read=(12, 17))
    runs = [
        PatchedRun((Patch(name, layer, p, cache.activations[name][layer][p, None]),))
        for name in COMPONENTS
        for layer in range(model.n_layers)
        for p in (0, 5, 12)
    ]
    logits = replay(model, cache, runs, lambda logits: logits)
    expected = run_plainly(model, make_pair(model).clean_ids)[0][[12, 17]]
    torch.testing.assert_close(logits, expected.expand_as(logits), atol=1e-4, rtol=0)


@pytest.mark.parametrize("read", [(-1,), (3, -1)])
@pytest.mark.parametrize("other", ["differs", "ends earlier", "is longer", "is the same"])
def test_a_recording_after_another_equals_one_from_nothing(model, read, other):
    ids = make_pair(model).clean_ids
    first = {
        "differs": (*ids[:10], ids[10] + 1, *ids[11:]),
        "ends earlier": ids[:7],
        "is longer": (*ids, 5),
        "is the same": ids,
    }[other]
    after = run_with_cache(model, first, COMPONENTS)
    shared, plain = (run_with_cache(model, ids, COMPONENTS, read, after=a) for a in (after, None))
    torch.testing.assert_close(shared.logits, plain.logits, atol=1e-4, rtol=0)
    for name in COMPONENTS:
        for mine, theirs in zip(shared.activations[name], plain.activations[name], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    for mine, theirs in zip(shared.keys + shared.values, plain.keys + plain.values, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_the_noise_floor_is_what_rounding_does(model):
    grid = patch_metrics(model, make_pair(model))
    assert 0 <= grid.noise_floor < 1e-3


def test_a_step_of_the_logits_is_that_of_their_dtype_where_they_lie(llama):
    recorded = record_pair(llama, make_pair(llama, answers=((3,), (4,))))
    [cache] = recorded.corrupted.values()
    cache.logits[0, 3], cache.logits[0, 4] = -30.0, 3.0

    def step(answers, dtype):
        return logit_step(recorded.corrupted, answers, dtype)

    assert step([(3,), (4,)], torch.bfloat16) == 0.125  # between 16 and 32 there are 128 steps
    assert step([(4,)], torch.bfloat16) == 2 / 128
    assert step([(3,), (4,)], torch.float32) == 16 * 2**-23
    cache.logits[0, 4] = 0.0
    assert 0 <= step([(4,)], torch.bfloat16) < 1e-30


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_effect_below_a_step_of_the_logits_stands_above_the_noise_floor(
    make_random_model, dtype
):
    model = make_random_model("llama", dtype=str(dtype).removeprefix("torch."))
    recorded = record_pair(model, make_pair(model))
    grid = patch_metrics(model, recorded, min_gap=0.0)
    [cache] = recorded.corrupted.values()
    chosen = [float(cache.logits[0, answer[0]]) for answer in recorded.pair.answers]
    following = torch.nextafter(
        torch.tensor(chosen, dtype=dtype).abs(), torch.tensor([1e9] * 2, dtype=dtype)
    )
    step = max(float(after) - abs(logit) for after, logit in zip(following, chosen, strict=True))
    assert grid.noise_floor >= step / abs(recorded.gap) > 0
    sums = patch_metrics(model, recorded, min_gap=0.0, metric=lambda logits: 0 * logits.sum())
    assert sums.noise_floor == 0  # the unit of another metric is not that of logits


@pytest.mark.parametrize("what", ["keys", "values", "resid"])
def test_the_noise_floor_shows_a_replay_from_a_wrong_cache(llama, what):
    recorded = record_pair(llama, make_pair(llama))
    receiver = next(iter(recorded.corrupted.values()))
    wrong = receiver.activations["resid"][-2] if what == "resid" else getattr(receiver, what)[-1][0]
    wrong += 1.0
    assert patch_metrics(llama, recorded).noise_floor > 1e-2


def test_small_batches_give_the_same_grid(model):
    pair = make_pair(model)
    together = patch_grid(model, pair)
    apart = patch_grid(model, pair, max_tokens=1)
    np.testing.assert_allclose(apart, together, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
@pytest.mark.parametrize("component", ["resid", "z", "mlp_out"])
def test_a_model_of_which_parts_lie_elsewhere_is_patched_the_same(
    make_random_model, tmp_path, component
):
    # What spreads a model over several devices also keeps layers on disk and brings each one's
    # weights when it runs: its hooks around the modules are the same, on a machine without a GPU.
    whole, parted = (make_random_model("qwen3", seed=1) for _ in range(2))
    places = dict.fromkeys([f"model.{n}" for n, _ in parted.hf.model.named_children()], "cpu")
    layers = range(parted.n_layers)
    del places["model.layers"]
    places |= {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in layers}
    dispatch_model(parted.hf, places | {"lm_head": "disk"}, main_device="cpu", offload_dir=tmp_path)
    assert parted.hf.model.layers[1].mlp.up_proj.weight.is_meta
    pair = make_pair(whole)
    expected = patch_grid(whole, pair, component=component)
    np.testing.assert_array_equal(patch_grid(parted, pair, component=component), expected)


def test_out_of_memory_halves_the_batch_and_goes_on(llama, monkeypatch):
    pair, sizes, plain = make_pair(llama), [], replay_module._replay_pack
    expected = patch_grid(llama, pair)

    def cramped(model, cache, runs, reduce):
        sizes.append(len(runs))
        if len(runs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, cache, runs, reduce)

    monkeypatch.setattr(replay_module, "_replay_pack", cramped)
    np.testing.assert_allclose(patch_grid(llama, pair), expected, atol=1e-4)
    assert sizes[0] > 3 and sizes[-1] <= 3


def test_out_of_memory_in_the_model_s_forward_is_recognised(llama, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(packing, "scaled_dot_product_attention", full)
    with pytest.raises(MemoryError, match=r"one run of .* does not fit"):
        patch_grid(llama, make_pair(llama))


def test_a_fault_that_is_not_memory_is_not_hidden(llama, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(replay_module, "_replay_pack", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        patch_grid(llama, make_pair(llama))


def test_metrics_describe_the_patched_logits(model):
    pair, at = make_pair(model), {"layer": 1, "position": 9}
    grid = patch_metrics(model, pair)
    _, donated = run_plainly(model, pair.clean_ids, "resid", 1)

    def change(tensor):
        tensor[9] = donated[9]

    logits = run_plainly(model, pair.corrupted_ids, "resid", 1, change)[0][-1]
    cell = grid.sel(at)
    probability = logits.softmax(-1)
    clean, corrupted = (answer[0] for answer in pair.answers)
    for name, token in (("clean", clean), ("corrupted", corrupted)):
        assert float(cell.probability.sel(answer=name)) == pytest.approx(
            float(probability[token]), abs=1e-5
        )
        assert int(cell["rank"].sel(answer=name)) == int((logits > logits[token]).sum())
    assert float(cell.logit_difference) == pytest.approx(
        float(logits[clean] - logits[corrupted]), abs=1e-4
    )


def test_a_flip_is_the_donor_s_answer_written_where_it_was_not(model):
    for seed in range(20):
        pair = make_pair(model, seed=seed, differing=(6,))
        runs = (pair.clean_ids, pair.corrupted_ids)
        written = [int(run_plainly(model, ids)[0][-1].argmax()) for ids in runs]
        if written[0] != written[1]:
            break
    grid = patch_metrics(model, ContrastPair(*runs, *written), min_gap=ANY_GAP)
    assert bool(grid.flip.sel(layer=0, position=6))
    assert not grid.flip.sel(position=slice(0, 5)).any()
    assert int(grid["rank"].sel(layer=0, position=6, answer="clean")) == 0


# Pairs ------------------------------------------------------------------------------------------


def trace(tokenizer, reasoning, answer, question="Which one?", **fields) -> Trace:
    text = f"{tokenizer.bos_token}{question}<think>\n{reasoning}\n</think>{answer}"
    return Trace.from_text(text, tokenizer, **fields)


def test_pairs_of_equal_length_are_aligned_throughout(tokenizer):
    clean = trace(tokenizer, "3 plus 4 is 7.", "\\boxed{7}", "3 plus 4?", problem_id="a")
    corrupted = trace(tokenizer, "3 plus 5 is 8.", "\\boxed{8}", "3 plus 5?")
    pair = ContrastPair.from_traces(clean, corrupted)
    assert pair.aligned_spans == ((0, 0, len(pair)),)
    assert [pair.tokens[p] for p in pair.differing_positions] == ["4", "4", "7"]
    assert pair.tokens[pair.flipping_position] == "7"
    assert pair.answers == ((tokenizer.encode("7")[0],), (tokenizer.encode("8")[0],))
    assert "".join(pair.tokens).endswith("\\boxed{")


def test_the_flipping_token_states_the_answer_not_the_other_one(tokenizer):
    clean = trace(tokenizer, "It is 7, not 8.", "\\boxed{7}")
    corrupted = trace(tokenizer, "It is 8, not 7.", "\\boxed{8}")
    pair = ContrastPair.from_traces(clean, corrupted)
    assert [pair.tokens[p] for p in pair.differing_positions] == ["7", "8"]
    assert pair.flipping_position == pair.differing_positions[0]
    unsaid = ContrastPair.from_traces(
        trace(tokenizer, "Let me see 3.", "\\boxed{7}"),
        trace(tokenizer, "Let me see 4.", "\\boxed{8}"),
    )
    assert unsaid.flipping_position is None


def test_unequal_reasonings_are_aligned_from_both_ends_and_nothing_is_padded(tokenizer):
    clean = trace(tokenizer, "So 3 plus 4.\nWait.\nThe final answer is 7.", "It is \\boxed{7}")
    corrupted = trace(
        tokenizer, "So 3 plus 5.\nLet me check, wait.\nThe final answer is 8.", "It is \\boxed{8}"
    )
    pair = ContrastPair.from_traces(clean, corrupted)
    assert len(pair.clean_ids) < len(pair.corrupted_ids)
    assert len(pair.aligned_spans) == 2
    shift = len(pair.corrupted_ids) - len(pair.clean_ids)
    assert pair.alignment[len(pair) - 1] == len(pair) - 1 + shift
    assert [pair.tokens[p] for p in pair.differing_positions] == ["4", "7"]
    unaligned = [pair.tokens[p] for p in range(len(pair)) if p not in pair.alignment]
    assert "".join(unaligned).strip() == "Wait."


def test_cells_of_unequal_pairs_equal_full_forwards(llama, tokenizer):
    rng = np.random.default_rng(5)
    clean, corrupted = rng.integers(0, 97, 14), rng.integers(0, 97, 17)
    pair = ContrastPair(clean, corrupted, 5, 6, aligned_spans=((0, 0, 4), (8, 11, 6)))
    for direction in ("denoising", "noising"):
        grid = patch_grid(llama, pair, direction=direction, min_gap=ANY_GAP)
        assert grid.position.values.tolist() == [0, 1, 2, 3, *range(8, 14)]
        for position in (2, 9, 13):
            other = pair.alignment[position]
            forth = (pair.corrupted_ids, pair.clean_ids, other, position)
            back = (pair.clean_ids, pair.corrupted_ids, position, other)
            receiver, donor, at, donor_at = forth if direction == "denoising" else back
            expected = plain_effect(llama, receiver, donor, pair.answers, "resid", 1, at, donor_at)
            assert float(grid.sel(layer=1, position=position)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="position 5 has no counterpart"):
        patch_grid(llama, pair, positions=[5], min_gap=ANY_GAP)


def test_answers_that_stand_after_different_words_are_aligned_from_the_end(tokenizer):
    clean = trace(tokenizer, "3 plus 4 is 7.", "So the final answer is \\boxed{7}")
    corrupted = trace(tokenizer, "3 plus 5 is 8.", "Okay, the final answer is \\boxed{8}")
    pair = ContrastPair.from_traces(clean, corrupted)
    tail = pair.aligned_spans[-1]
    assert "".join(pair.tokens[tail[0] :]).endswith("the final answer is \\boxed{")


def test_the_answer_is_the_content_of_the_last_box(tokenizer):
    both = trace(tokenizer, "7.", "\\boxed{3} no, \\boxed{3{4}} it is")
    span = answer_span(both)
    assert "".join(both.tokens[span]).startswith("3{4}")
    assert "".join(both.tokens[: span.start]).endswith("no, \\boxed{")
    with pytest.raises(ValueError, match=r"no .boxed"):
        answer_span(trace(tokenizer, "7.", "7"))


def test_the_probe_closes_the_reasoning_and_boxes_the_answer(tokenizer):
    written = trace(tokenizer, "3 plus 4 is 7.", "Long story.", problem_id="a")
    pair = ContrastPair.from_traces(
        probed(written, tokenizer, "7"), probed(written, tokenizer, "8"),
    )  # fmt: skip
    assert "".join(pair.tokens).endswith(
        "3 plus 4 is 7.\nFinal answer is 7.\n</think>\n\nThus, the correct one is \\boxed{"
    )
    assert [pair.tokens[p] for p in pair.differing_positions] == ["7"]


def test_a_probed_answer_needs_no_box(tokenizer):
    written = trace(tokenizer, "3 plus 4 is 7.", "Long story.", problem_id="a")
    stem = "\n\nFinal answer is"
    clean, corrupted = (
        probed(written, tokenizer, answer, stem=stem, end=".") for answer in (" 7", " 8")
    )
    assert clean.reasoning_text.endswith("\nFinal answer is 7.\n")
    assert clean.answer_text == stem + " 7."
    assert "".join(clean.tokens[answer_span(clean)]) == " 7"
    pair = ContrastPair.from_traces(clean, corrupted)
    assert pair.answer_texts == (" 7", " 8")
    assert pair.tokens[pair.flipping_position].strip() == "7"


def test_pairs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="3 clean and 2 corrupted tokens, and nothing is padded"):
        ContrastPair((1, 2, 3), (1, 2), 5, 6)
    with pytest.raises(ValueError, match="same answer"):
        ContrastPair((1, 2), (1, 3), 5, 5)
    with pytest.raises(ValueError, match="are the same"):
        ContrastPair((1, 2), (1, 2), 5, 6)
    with pytest.raises(ValueError, match="empty"):
        ContrastPair((1, 2), (1, 3), (), 6)
    with pytest.raises(ValueError, match="last aligned span must end"):
        ContrastPair((1, 2, 3), (1, 3), 5, 6, aligned_spans=((0, 0, 1),))
    with pytest.raises(ValueError, match="overlap"):
        ContrastPair((1, 2, 3), (1, 3, 4, 5), 5, 6, aligned_spans=((0, 0, 2), (1, 2, 2)))


def test_traces_that_cannot_be_a_pair_are_refused(tokenizer):
    clean = trace(tokenizer, "3.", "\\boxed{3}", model="a")
    with pytest.raises(ValueError, match="different models, 'a' and 'b'"):
        ContrastPair.from_traces(clean, trace(tokenizer, "4.", "\\boxed{4}", model="b"))
    other = trace(tokenizer, "4.", "It is 4, not \\boxed{4}", model="a")
    four = slice(len(other) - 4 - 1, len(other) - 4)
    with pytest.raises(ValueError, match="cannot be aligned up to its answers"):
        ContrastPair.from_traces(
            clean, other, corrupted_answer=slice(four.start - 6, four.start - 5)
        )


def test_what_does_not_fit_the_model_is_refused(llama):
    pair = make_pair(llama)

    def refused(match, other=pair, **options):
        with pytest.raises(ValueError, match=match):
            patch_grid(llama, other, **options)

    refused(
        r"clean answer \(\d+,\) outside the vocabulary", make_pair(llama, (llama.vocab_size, 6))
    )
    refused("position 18 is out of range", positions=[18])
    refused("no position", positions=[])
    refused("layer out of range", layers=[3])
    refused("head out of range", component="k", heads=[2])
    refused("has no heads", heads=[0])
    refused("unknown component", component="residual")
    refused("unknown direction", direction="both")
    refused("a gap below 1000", min_gap=1000)
    other = ContrastPair(pair.clean_ids, pair.corrupted_ids, 5, 6, model="r2a-tiny")
    refused("written by 'r2a-tiny'", other)


def test_cells_beyond_a_sliding_window_equal_full_forwards(make_random_model):
    model = make_random_model("qwen2-window")
    check_cells(model, make_pair(model), [0, 2], [4, 12, LENGTH - 1])


def test_a_recorded_gap_is_that_of_plain_forwards(llama):
    for answers in ((5, 6), None):
        found = record_pair(llama, make_pair(llama, answers))
        gap = 0.0
        for sign, ids in ((1, found.pair.clean_ids), (-1, found.pair.corrupted_ids)):
            clean, corrupted = run_plainly(llama, ids)[0][-1, [a[0] for a in found.pair.answers]]
            gap += sign * float(clean - corrupted)
        assert found.gap == pytest.approx(gap, abs=1e-4)


def forwards(model, run) -> int:
    """How often the model itself is called while `run` runs."""
    calls = []
    handle = model.hf.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        run()
    finally:
        handle.remove()
    return len(calls)


@pytest.mark.parametrize("component", ["resid", "z"])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_recorded_pair_is_patched_without_running_it_again(llama, component, direction):
    pair = make_pair(llama)
    recorded = record_pair(llama, pair, (component,))
    options = {"component": component, "direction": direction}
    grids = []

    def patch(which):
        grids.append(patch_metrics(llama, which, [6, 9], **options))

    again, once = (forwards(llama, lambda p=p: patch(p)) for p in (pair, recorded))
    assert again == once + 2
    assert grids[0].identical(grids[1])


def test_a_component_that_was_not_recorded_is_named(llama):
    with pytest.raises(ValueError, match=r"recorded without 'q': record_pair\(.*'q'"):
        patch_grid(llama, record_pair(llama, make_pair(llama)), component="q")


def test_a_grid_of_another_metric_equals_the_plain_way(model):
    """Entropy of the next token: it knows neither of the answers."""
    pair = make_pair(model)

    def entropy(logits):
        return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()

    grid = patch_grid(model, pair, [6, 9, 12, LENGTH - 1], metric=entropy)
    for layer in range(model.n_layers):
        _, donated = run_plainly(model, pair.clean_ids, "resid", layer)
        for position in grid.position.values:

            def change(tensor, position=position, donated=donated):
                tensor[position] = donated[position]

            logits, _ = run_plainly(model, pair.corrupted_ids, "resid", layer, change)
            cell = float(grid.sel(layer=layer, position=position))
            assert cell == pytest.approx(float(entropy(logits[-1])), abs=1e-4)
    before = float(entropy(run_plainly(model, pair.corrupted_ids)[0][-1]))
    assert float(grid.sel(layer=0, position=12)) == pytest.approx(before, abs=1e-4)  # not run
    assert float(abs(grid - before).max()) > 0.01


def test_the_default_metric_is_the_normalised_logit_difference(llama):
    pair = make_pair(llama)
    recorded = record_pair(llama, pair)
    (clean,), (corrupted,) = pair.answers

    def normalised(logits):
        return (logits[clean] - logits[corrupted] - recorded.ld_corrupted) / recorded.gap

    expected = patch_grid(llama, recorded)
    np.testing.assert_allclose(patch_grid(llama, recorded, metric=normalised), expected, atol=1e-5)
    longer = make_pair(llama, ((clean, 9, 2), (corrupted, 3)))
    first_token = patch_grid(llama, longer, [6], metric=normalised, min_gap=0.0)
    np.testing.assert_allclose(first_token, expected.sel(position=[6]), atol=1e-5)


def test_a_metric_is_one_number(llama):
    with pytest.raises(ValueError, match=r"gives \(\d+,\) numbers from logits"):
        patch_grid(llama, make_pair(llama), [6], metric=lambda logits: logits)


# Controls ---------------------------------------------------------------------------------------


def test_another_donor_is_aligned_from_its_end(llama):
    pair, donor = make_pair(llama), np.random.default_rng(9).integers(0, 97, LENGTH + 3)
    grid = control_metrics(llama, pair, "random_donor", donor_ids=donor)
    _, donated = run_plainly(llama, donor, "resid", 2)

    def change(tensor):
        tensor[9] = donated[12]

    logits = run_plainly(llama, pair.corrupted_ids, "resid", 2, change)[0][-1]
    (clean,), (corrupted,) = pair.answers
    cell = grid.logit_difference.sel(layer=2, position=9)
    assert float(cell) == pytest.approx(float(logits[clean] - logits[corrupted]), abs=1e-4)
    with pytest.raises(ValueError, match="does not reach position 0"):
        control_metrics(llama, pair, "random_donor", donor_ids=donor[:5])


def test_a_same_answer_donor_must_lead_to_the_receiver_s_answer(llama):
    pair, rng = make_pair(llama), np.random.default_rng(1)
    answers = [answer[0] for answer in pair.answers]
    wanted = float(np.subtract(*run_plainly(llama, pair.corrupted_ids)[0][-1, answers].numpy()))
    outcomes = set()
    for _ in range(20):
        donor = rng.integers(0, 97, LENGTH)
        theirs = float(np.subtract(*run_plainly(llama, donor)[0][-1, answers].numpy()))
        agrees = wanted * theirs > 0
        outcomes.add(agrees)
        if agrees:
            control_metrics(llama, pair, "same_answer", [9], [0], donor_ids=donor)
        else:
            with pytest.raises(ValueError, match="prefers the other answer"):
                control_metrics(llama, pair, "same_answer", [9], [0], donor_ids=donor)
    assert outcomes == {True, False}


def test_matched_noise_is_as_long_as_the_difference_and_repeats(llama, monkeypatch):

    pair, lengths, plain = make_pair(llama), [], patching.replay

    def watch(model, cache, runs, reduce, **options):
        for run in runs:
            (patch,) = run.patches
            own = cache.activations["resid"][patch.layer][patch.position]
            if not torch.equal(patch.value[0], own):
                lengths.append((patch.layer, patch.position, float((patch.value[0] - own).norm())))
        return plain(model, cache, runs, reduce, **options)

    monkeypatch.setattr(patching, "replay", watch)
    grid = control_metrics(llama, pair, "matched_noise", seed=4)
    runs = [
        run_with_cache(llama, ids).activations["resid"]
        for ids in (pair.clean_ids, pair.corrupted_ids)
    ]
    for layer, position, length in lengths:
        distance = (runs[0][layer][position] - runs[1][layer][position]).norm()
        assert length == pytest.approx(float(distance), rel=1e-4)
    again = control_metrics(llama, pair, "matched_noise", seed=4)
    other = control_metrics(llama, pair, "matched_noise", seed=5)
    assert grid.equals(again) and not grid.effect.equals(other.effect)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_controls_of_a_recorded_pair_are_the_same_and_run_it_no_more(llama, direction):
    pair = make_pair(llama)
    recorded = record_pair(llama, pair)
    for control in ("same_prompt", "wrong_position", "matched_noise"):
        grids = []

        def patch(which, control=control, grids=grids):
            grids.append(control_metrics(llama, which, control, direction=direction))

        again, once = (forwards(llama, lambda p=p, patch=patch: patch(p)) for p in (pair, recorded))
        assert again == once + 2
        assert grids[0].identical(grids[1])


def test_a_wrong_position_is_calm_and_gets_the_right_vector(llama, monkeypatch):

    pair, patches, plain = make_pair(llama), [], patching.replay

    def watch(model, cache, runs, reduce, **options):
        own = cache.activations["resid"]
        for run in runs:
            (patch,) = run.patches
            if not torch.equal(patch.value[0], own[patch.layer][patch.position]):
                patches.append(patch)
        return plain(model, cache, runs, reduce, **options)

    monkeypatch.setattr(patching, "replay", watch)
    control_metrics(llama, pair, "wrong_position", [6, 9], [2], seed=1)
    donor = run_with_cache(llama, pair.clean_ids).activations["resid"][2]
    assert len(patches) == 2
    for patch, position in zip(patches, (6, 9), strict=True):
        assert torch.equal(patch.value[0], donor[position])
        assert patch.position not in DIFFERING and 6 <= patch.position < LENGTH - 1


def test_controls_say_what_they_need(llama):
    with pytest.raises(ValueError, match="unknown control"):
        control_metrics(llama, make_pair(llama), "nothing")
    with pytest.raises(ValueError, match="needs donor_ids"):
        control_metrics(llama, make_pair(llama), "random_donor")
    with pytest.raises(ValueError, match="takes no donor_ids"):
        control_metrics(llama, make_pair(llama), "matched_noise", donor_ids=(1, 2))
