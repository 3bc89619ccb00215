"""Parts of other families, patched where they are: against forward hooks of plain torch."""

from __future__ import annotations

import pytest
import torch

from r2a_utils.engine.forward import engine_of, replay, run_with_cache
from r2a_utils.engine.patches import EdgeCut, Patch, PatchedRun
from r2a_utils.models.places import architecture

IDS, READ = tuple(range(20, 42)), (18, 21)

# (family, layer, component, module in the layer, whether its input is patched, columns of head 1)
PARTS = [
    ("gpt2", 1, "z", "attn.c_proj", True, range(8, 16)),
    ("gpt2", 1, "k", "attn.c_attn", False, range(48 + 8, 48 + 16)),
    ("gpt_neox", 1, "v", "attention.query_key_value", False, range(24 + 16, 24 + 24)),
    ("gpt_neox", 1, "attn_out", "attention", False, None),
    ("phi3", 1, "v", "self_attn.qkv_proj", False, range(48 + 16 + 8, 48 + 16 + 16)),
    ("phi", 1, "q", "self_attn.q_proj", False, range(8, 16)),
    ("opt", 1, "mlp_out", "fc2", False, None),
    ("lfm2", 1, "z", "self_attn.out_proj", True, range(8, 16)),
    ("qwen3_next", 3, "q", "self_attn.q_proj", False, range(24, 36)),
    ("qwen3_next", 3, "z", "self_attn.o_proj", True, range(12, 24)),
    ("deepseek_v3", 1, "q", "self_attn.q_b_proj", False, range(16, 32)),
    ("deepseek_v3", 1, "v", "self_attn.kv_b_proj", False, range(24 + 10, 24 + 24)),
    ("falcon_h1", 1, "mlp_out", "feed_forward", False, None),
    ("gpt_oss", 1, "z", "self_attn.o_proj", True, range(8, 16)),
    ("mixtral", 1, "z", "self_attn.o_proj", True, range(8, 16)),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part[0]}-{part[2]}")
def test_a_patch_is_written_into_its_own_columns(make_random_model, part):
    family, layer, component, name, goes_in, columns = part
    model = make_random_model(family)
    chosen = slice(None) if columns is None else list(columns)
    places = architecture(model)
    module = places.layers[layer]._module.get_submodule(name)
    value = torch.randn(48 if columns is None else len(columns), generator=torch.manual_seed(1))

    def before(module, args):
        args[0].view(-1, args[0].shape[-1])[18, chosen] = value

    def after(module, args, output):
        output = output[0] if isinstance(output, tuple) else output
        output.view(-1, output.shape[-1])[18, chosen] = value

    def logits():
        with torch.no_grad():
            return model.hf(torch.tensor([IDS]), use_cache=False).logits[0, list(READ)]

    with (
        module.register_forward_pre_hook(before) if goes_in else module.register_forward_hook(after)
    ):
        expected = logits()
    cache = run_with_cache(model, IDS, (component,), READ)
    patch = Patch(component, layer, 18, value[None], None if columns is None else 1)
    [got] = replay(model, cache, [PatchedRun((patch,))], lambda logits: logits)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert (got - logits()).abs().max() > 1e-3


def test_a_layer_without_attention_has_nothing_to_change(make_random_model):
    model = make_random_model("lfm2")
    cache = run_with_cache(model, IDS, ("z", "attn_out"))
    assert [z.shape[-1] for z in cache.activations["z"]] == [0, 48, 0]
    for run in (
        PatchedRun(cuts=(EdgeCut(0, range(9, 22), range(3)),)),
        PatchedRun((Patch("z", 0, 9, torch.zeros(1, 8), head=1),)),
    ):
        with pytest.raises(ValueError, match="layer 0 has no attention to change"):
            replay(model, cache, [run], lambda logits: logits)


def test_the_fast_engine_is_chosen_where_it_is_exact(make_random_model):
    fast = ("llama", "qwen2", "qwen3", "mixtral", "phi3", "granite", "gpt_neox")
    plain = ("gpt2", "gpt_oss", "gemma2", "falcon_h1", "lfm2", "deepseek_v3")
    for families, engine in ((fast, "fast"), (plain, "plain")):
        for family in families:
            assert engine_of(make_random_model(family), 22) == engine, family
